"""The parser against packets that scapy made, cut, bent and random."""

import ipaddress
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR, IPOption_SSRR
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Jumbo,
    PadN,
)
from scapy.layers.ipsec import AH
from scapy.packet import Raw
from scapy.utils import checksum as scapy_checksum

import nat.packet
from nat.packet import MAX_EXTENSIONS, Packet, Problem
from tests.nat import fuzz_packet
from tests.nat.fuzz_packet import FIELDS, SEEDS, fields

pytestmark = pytest.mark.packet_path

V4 = {"src": "10.1.2.3", "dst": "192.0.2.77"}
V6 = {"src": "fd00::3", "dst": "2001:db8::77"}
ports = st.integers(0, 0xFFFF)
words = st.integers(0, 0xFFFFFFFF)
flags = st.integers(0, 0xFF)


def parse(raw: bytes, before: int = 0, behind: bytes = b"", **options: bool) -> tuple[Packet, Problem]:
    packet = Packet(bytearray(bytes(before) + raw + behind))
    return packet, Problem(packet.parse(before, len(raw) + len(behind), **options))


def good(made, **options) -> Packet:
    packet, problem = parse(bytes(made), **options)
    assert problem is Problem.OK
    return packet


def bad(made, **options) -> Problem:
    return parse(bytes(made), **options)[1]


def ip(version: int):
    return IP(**V4, ttl=63) if version == 4 else IPv6(**V6, hlim=63)


def with_sum4(raw: bytearray) -> bytes:
    """The IPv4 header's checksum set right again."""
    raw[10:12] = bytes(2)
    raw[10:12] = scapy_checksum(bytes(raw[: (raw[0] & 15) * 4])).to_bytes(2, "big")
    return bytes(raw)


@pytest.mark.parametrize("version", [4, 6])
@given(ports, ports, words, words, flags, st.binary(max_size=50), st.integers(0, 20), st.binary(max_size=20))
def test_tcp(version, source_port, target_port, seq, ack, tcp_flags, payload, before, behind):
    options = [("MSS", 1460), ("WScale", 7)] if seq & 1 else []
    segment = TCP(sport=source_port, dport=target_port, seq=seq, ack=ack, flags=tcp_flags, options=options)
    made = bytes(ip(version) / segment / payload)
    packet, problem = parse(made, before, behind)
    assert problem is Problem.OK
    addresses = V4 if version == 4 else V6
    head = 20 if version == 4 else 40
    assert (packet.version, packet.protocol, packet.hop_limit) == (version, 6, 63)
    assert packet.source() == ipaddress.ip_address(addresses["src"]).packed
    assert packet.target() == ipaddress.ip_address(addresses["dst"]).packed
    assert (packet.source_port, packet.target_port) == (source_port, target_port)
    assert (packet.tcp_seq, packet.tcp_ack, packet.tcp_flags) == (seq, ack, tcp_flags)
    assert (packet.start, packet.length) == (before, len(made))
    assert (packet.l4, packet.l4_length) == (before + head, len(made) - head)
    assert packet.payload() == payload
    assert packet.whole() == made
    assert packet.key() == made[12:24] if version == 4 else made[8:44]
    assert packet.has_transport
    assert not packet.fragment
    assert packet.transport_sum_ok()
    packet.buffer[packet.l4 + 4] ^= 1
    assert not packet.transport_sum_ok()


@pytest.mark.parametrize("version", [4, 6])
@given(ports, ports, st.binary(max_size=50))
def test_udp(version, source_port, target_port, payload):
    packet = good(ip(version) / UDP(sport=source_port, dport=target_port) / payload)
    assert (packet.protocol, packet.source_port, packet.target_port) == (17, source_port, target_port)
    assert packet.payload() == payload
    assert packet.transport_sum_ok()


@given(ports, ports, st.binary(max_size=50))
def test_echo(identifier, sequence, payload):
    for made, kind in (
        (IP(**V4) / ICMP(id=identifier, seq=sequence), 8),
        (IP(**V4) / ICMP(type=0, id=identifier, seq=sequence), 0),
        (IPv6(**V6) / ICMPv6EchoRequest(id=identifier, seq=sequence), 128),
        (IPv6(**V6) / ICMPv6EchoReply(id=identifier, seq=sequence), 129),
    ):
        packet = good(made / payload)
        assert (packet.icmp_type, packet.icmp_code) == (kind, 0)
        assert packet.source_port == packet.target_port == identifier
        assert packet.payload() == payload
        assert packet.transport_sum_ok()


def test_other_icmp_has_no_ports():
    assert good(IP(**V4) / ICMP(type=13)).source_port == 0
    packet = good(IPv6(**V6) / ICMPv6ND_NS(tgt="fd00::1"))
    assert (packet.icmp_type, packet.source_port) == (135, 0)


def test_icmp_of_the_other_version_is_just_a_protocol():
    assert not good(IP(**V4, proto=58) / bytes(4)).has_transport
    assert not good(IPv6(**V6, nh=1) / bytes(4)).has_transport


def test_other_protocols_have_a_payload_but_no_ports():
    packet = good(IP(**V4, proto=47) / b"gre")
    assert (packet.protocol, packet.has_transport, packet.payload()) == (47, False, b"gre")
    packet = good(IPv6(**V6, nh=50) / b"esp.....")  # ESP hides all behind it
    assert (packet.protocol, packet.has_transport, packet.l4_length) == (50, False, 8)
    packet = good(IPv6(**V6, nh=59))
    assert (packet.protocol, packet.length, packet.l4_length) == (59, 40, 0)


def test_udp_without_checksum():
    assert good(IP(**V4) / UDP(chksum=0) / b"x").transport_sum_ok()
    assert not good(IPv6(**V6) / UDP(chksum=0) / b"x").transport_sum_ok()


# IPv4


def test_ipv4_options():
    option = IPOption_RR(length=11, pointer=4, routers=["0.0.0.0", "0.0.0.0"])
    made = IP(**V4, options=[IPOption_NOP(), option]) / UDP(sport=1, dport=2) / b"data"
    packet = good(made)
    assert packet.l4 == 32
    assert (packet.source_port, packet.target_port, packet.payload()) == (1, 2, b"data")
    assert packet.key() == bytes(made)[12:20] + b"\0\1\0\2"


def test_ipv4_source_routes_are_refused():
    assert bad(IP(**V4, options=[IPOption_SSRR(routers=["1.2.3.4"])]) / UDP()) is Problem.SOURCE_ROUTED


@pytest.mark.parametrize("options", ["07000000", "07010000", "07050000", "01010107", "44ff0000"])
def test_ipv4_options_that_do_not_fit(options):
    raw = bytearray(bytes(IP(**V4) / UDP()))
    raw[20:20] = bytes.fromhex(options)
    raw[0] = 0x46
    raw[3] += 4
    assert bad(with_sum4(raw)) is Problem.BAD_HEADER


def test_ipv4_end_of_options_ends_them():
    raw = bytearray(bytes(IP(**V4) / UDP()))
    raw[20:20] = bytes.fromhex("00ffffff")
    raw[0] = 0x46
    raw[3] += 4
    assert bad(with_sum4(raw)) is Problem.OK


@given(st.integers(0, 159))
def test_ipv4_header_checksum(bit):
    raw = bytearray(bytes(IP(**V4) / UDP() / bytes(100)))
    raw[bit // 8] ^= 128 >> bit % 8
    assert bad(raw) is not Problem.OK
    if 64 <= bit < 72:  # the hop limit alone is no other's business
        assert bad(raw) is Problem.BAD_CHECKSUM
        assert bad(raw, verify=False) is Problem.OK


def test_ipv4_total_length():
    raw = bytearray(bytes(IP(**V4) / UDP() / b"12345678"))
    for total, wanted in ((0, Problem.BAD_LENGTH), (19, Problem.BAD_LENGTH), (37, Problem.TRUNCATED)):
        raw[2:4] = total.to_bytes(2, "big")
        assert bad(with_sum4(raw)) is wanted
    raw[2:4] = bytes(2)
    assert bad(with_sum4(raw), gso=True) is Problem.OK
    assert good(with_sum4(raw), gso=True).length == 36


def test_ipv4_header_length():
    raw = bytearray(bytes(IP(**V4) / UDP()))
    for first in range(0x40, 0x45):
        raw[0] = first
        assert bad(raw) is Problem.BAD_HEADER
    raw[0] = 0x4F  # 60 bytes, of which 28 are here
    assert bad(raw, verify=False) is Problem.BAD_LENGTH


@pytest.mark.parametrize("version", [v for v in range(16) if v not in (4, 6)])
def test_other_versions(version):
    raw = bytearray(bytes(IP(**V4) / UDP()))
    raw[0] = version << 4 | 5
    assert bad(raw) is Problem.BAD_VERSION


def test_ipv4_fragments():
    first = good(IP(**V4, id=77, flags="MF") / UDP(len=100) / bytes(24))
    assert (first.fragment, first.fragment_offset, first.more_fragments) == (True, 0, True)
    assert (first.identification, first.has_transport, first.source_port) == (77, True, 53)
    later = good(IP(**V4, id=77, frag=4, proto=17) / b"anything")
    assert (later.fragment, later.fragment_offset, later.more_fragments) == (True, 32, False)
    assert (later.has_transport, later.source_port, later.payload()) == (False, 0, b"anything")
    tiny = good(IP(**V4, flags="MF", proto=6) / bytes(8))
    assert (tiny.fragment, tiny.has_transport) == (True, False)
    assert not good(IP(**V4, flags="DF") / UDP()).fragment
    assert good(IP(**V4, flags="DF") / UDP()).dont_fragment


# IPv6


HEADERS = {
    "destination": lambda: IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))]),
    "long destination": lambda: IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(100))]),
    "routing": lambda: IPv6ExtHdrRouting(type=2, segleft=0, addresses=["::1"]),
    "ah": lambda: AH(payloadlen=4, spi=1, seq=2, icv=bytes(12)),
}
NUMBERS = {
    IPv6ExtHdrHopByHop: 0,
    IPv6ExtHdrRouting: 43,
    IPv6ExtHdrFragment: 44,
    AH: 51,
    IPv6ExtHdrDestOpt: 60,
}


@given(st.booleans(), st.lists(st.sampled_from(sorted(HEADERS)), max_size=7), st.integers(-1, 7), ports)
def test_extension_headers(hop_by_hop, names, atomic, port):
    chain = [HEADERS[name]() for name in names]
    if 0 <= atomic <= len(chain) < 7:
        chain.insert(atomic, IPv6ExtHdrFragment(id=0xFEDCBA98))
    if hop_by_hop:
        chain.insert(0, IPv6ExtHdrHopByHop())
    kinds = [NUMBERS[type(layer)] for layer in chain] + [17]
    made = IPv6(**V6, nh=kinds[0])
    for layer, following in zip(chain, kinds[1:], strict=True):
        layer.nh = following
        made = made / layer
    made = made / UDP(sport=port, dport=9) / b"inside"
    packet = good(made)
    assert (packet.protocol, packet.source_port, packet.payload()) == (17, port, b"inside")
    assert packet.l4 == len(bytes(made)) - 14
    # scapy sums up the route's address instead of the target, and does not see through AH
    assert packet.transport_sum_ok() or {"routing", "ah"} & set(names)
    fragmented = any(isinstance(layer, IPv6ExtHdrFragment) for layer in chain)
    assert packet.fragment == fragmented
    assert (packet.fragment_at != 0) == fragmented
    if fragmented:
        assert packet.identification == 0xFEDCBA98
        assert packet.buffer[packet.next_header_at] == 44
        assert packet.buffer[packet.fragment_at + 4] == 0xFE


@pytest.mark.parametrize("count", range(MAX_EXTENSIONS + 4))
def test_the_chain_is_bounded(count):
    chain = b"".join(bytes((60 if i < count - 1 else 17, 0, 1, 4, 0, 0, 0, 0)) for i in range(count))
    made = IPv6(**V6, nh=60 if count else 17) / (chain + bytes(UDP()))
    assert bad(made) is (Problem.OK if count <= MAX_EXTENSIONS else Problem.TOO_MANY_HEADERS)


def test_routing_headers_that_route_are_refused():
    for kind, left in ((0, 0), (0, 1), (2, 1), (4, 3)):
        header = IPv6ExtHdrRouting(type=kind, segleft=left, addresses=["::1"])
        assert bad(IPv6(**V6) / header / UDP()) is Problem.SOURCE_ROUTED


def test_jumbograms_are_refused():
    raw = bytearray(bytes(IPv6(**V6, plen=0) / IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=70000)])))
    raw += bytes(70000)
    assert bad(raw) is not Problem.OK
    assert bad(raw, gso=True) is Problem.BAD_LENGTH
    small = IPv6(**V6) / IPv6ExtHdrHopByHop(options=[PadN(optdata=b""), Jumbo(jumboplen=70000)]) / UDP()
    assert bad(small) is Problem.BAD_LENGTH


@pytest.mark.parametrize("options", ["0105", "c105000000", "00000105", "0000000001"])
def test_hop_by_hop_options_that_do_not_fit(options):
    header = bytes((17, 0)) + bytes.fromhex(options).ljust(6, b"\0")
    assert bad(IPv6(**V6, nh=0) / (header + bytes(UDP()))) is (
        Problem.OK if options == "0000000001" else Problem.BAD_LENGTH
    )


@pytest.mark.parametrize("kind", [43, 51, 60])
def test_a_header_longer_than_the_packet(kind):
    for length in range(1, 5):
        made = IPv6(**V6, nh=kind) / bytes((59, length, 2, 0, 0, 0, 0, 0))
        assert bad(made) is Problem.TRUNCATED


def test_headers_in_the_wrong_place():
    assert bad(IPv6(**V6) / IPv6ExtHdrDestOpt() / IPv6ExtHdrHopByHop() / UDP()) is Problem.BAD_HEADER
    twice = IPv6(**V6) / IPv6ExtHdrFragment(id=1) / IPv6ExtHdrFragment(id=1) / UDP()
    assert bad(twice) is Problem.BAD_HEADER
    assert bad(IPv6(**V6, nh=51) / (bytes((17, 0)) + bytes(30))) is Problem.BAD_HEADER  # AH of 8 bytes


def test_ipv6_fragments():
    first = good(IPv6(**V6) / IPv6ExtHdrFragment(id=5, m=1) / UDP(len=100) / bytes(24))
    assert (first.fragment, first.more_fragments, first.has_transport) == (True, True, True)
    later = good(IPv6(**V6) / IPv6ExtHdrFragment(id=5, offset=4, m=0, nh=60) / b"anything")
    assert (later.fragment_offset, later.protocol, later.payload()) == (32, 60, b"anything")


def test_rfc7112_the_first_fragment_holds_the_whole_chain():
    for inner in (bytes(UDP())[:7], bytes(TCP())[:16]):
        made = IPv6(**V6) / IPv6ExtHdrFragment(m=1, nh=17 if len(inner) == 7 else 6) / inner
        assert bad(made) is Problem.TRUNCATED
    cut = IPv6(**V6) / IPv6ExtHdrFragment(m=1, nh=60) / bytes((17, 3, 1, 4, 0, 0, 0, 0))
    assert bad(cut) is Problem.TRUNCATED


def test_ipv6_payload_length_0():
    raw = bytearray(bytes(IPv6(**V6) / UDP() / b"x"))
    raw[4:6] = bytes(2)
    assert bad(raw) is Problem.TRUNCATED  # of its 40 bytes, none is a UDP header
    assert bad(raw, gso=True) is Problem.OK


# Transport headers


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("words", range(16))
def test_tcp_data_offset(version, words):
    made = ip(version) / TCP(dataofs=words) / bytes(12)
    problem = bad(made)
    assert problem is (Problem.OK if 5 <= words <= 8 else Problem.BAD_HEADER)


@pytest.mark.parametrize("version", [4, 6])
def test_udp_length(version):
    for length, wanted in (
        (0, Problem.BAD_LENGTH),
        (7, Problem.BAD_LENGTH),
        (8, Problem.OK),
        (18, Problem.OK),
        (19, Problem.TRUNCATED),
    ):
        packet, problem = parse(bytes(ip(version) / UDP(len=length) / bytes(10)))
        assert problem is wanted
        if wanted is Problem.OK:
            assert packet.payload_length == length - 8


@pytest.mark.parametrize("version", [4, 6])
def test_udp_length_0_needs_a_super_datagram(version):
    assert bad(ip(version) / UDP(len=0) / bytes(10), gso=True) is Problem.BAD_LENGTH


@pytest.mark.parametrize("version", [4, 6])
def test_bytes_behind_a_datagram_are_not_summed_up(version):
    """RFC 9868 puts options there."""
    datagram = bytes(ip(version) / UDP(sport=1, dport=2) / b"data")[20 if version == 4 else 40 :]
    made = ip(version) / Raw(datagram + b"behind")
    made.setfieldval("proto" if version == 4 else "nh", 17)
    packet = good(made)
    assert (packet.payload(), packet.l4_length) == (b"data", 18)
    assert packet.transport_sum_ok()


def test_a_super_datagram_longer_than_its_length_field():
    raw = bytearray(bytes(IPv6(**V6) / UDP(sport=5, dport=6)) + bytes(70_000))
    raw[4:6] = raw[44:46] = bytes(2)
    packet, problem = parse(bytes(raw), gso=True)
    assert problem is Problem.OK
    assert (packet.length, packet.payload_length) == (70_048, 70_000)


# All of it, cut and bent


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_cut_at_every_byte(seed):
    """A cut packet is never OK, whatever stands behind the cut."""
    raw = SEEDS[seed]
    packet = Packet(bytearray(raw + bytes(100)))
    whole = packet.parse(0, len(raw), verify=False)
    for size in range(len(raw)):
        assert packet.parse(0, size, verify=False) != Problem.OK
    assert packet.parse(0, len(raw) + 100, verify=False) == whole


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_a_quoted_head_needs_eight_bytes_of_transport(seed):
    raw = SEEDS[seed]
    packet = Packet(bytearray(raw))
    if packet.parse(0, len(raw)):
        return
    whole = fields(packet)
    at, transport = packet.l4, packet.has_transport
    for size in range(len(raw)):
        problem = Problem(packet.parse(0, size, quoted=True))
        if size < at:
            assert problem is not Problem.OK
        elif size >= at + 8:
            assert problem is Problem.OK
            assert packet.has_transport == transport
        if problem is Problem.OK and packet.has_transport:
            for name in ("source_port", "target_port", "protocol", "src_at", "dst_at", "tcp_seq"):
                assert getattr(packet, name) == whole[FIELDS.index(name)]


@given(st.binary(max_size=120), st.integers(-3, 130), st.integers(-3, 130), st.booleans(), st.booleans())
def test_random_bytes_and_ranges_never_raise(data, start, length, gso, quoted):
    packet = Packet(bytearray(data))
    problem = Problem(packet.parse(start, length, gso=gso, quoted=quoted))
    if start < 0 or length < 1 or start + length > len(data):
        assert problem is Problem.TRUNCATED


@given(st.sampled_from([0x45, 0x46, 0x4F, 0x60]), st.binary(min_size=19, max_size=150))
def test_random_behind_a_likely_first_byte(first, rest):
    packet = Packet(bytearray((first,)) + bytearray(rest))
    Problem(packet.parse(0, len(rest) + 1, verify=False))
    packet.source(), packet.target(), packet.payload(), packet.key(), packet.transport_sum_ok()


def test_nothing_stays_from_the_packet_before():
    """Every seed after every other gives what a fresh Packet gives."""
    reused = Packet(bytearray(8192))
    for before, raw in itertools.product(SEEDS, SEEDS):
        reused.buffer[: len(before)] = before
        reused.parse(0, len(before))
        reused.buffer[: len(raw)] = raw
        fresh = Packet(bytearray(raw))
        if fresh.parse(0, len(raw)) == Problem.OK:
            assert reused.parse(0, len(raw)) == Problem.OK
            assert fields(reused) == fields(fresh)


def test_fields_are_read_only_when_compiled():
    packet = good(IP(**V4) / UDP())
    if nat.packet.__file__.endswith(".py"):
        pytest.skip("interpreted")
    with pytest.raises(AttributeError):
        packet.length = 3


def test_fuzz_briefly():
    seen = fuzz_packet.run(6000, seed=20)
    assert all(seen), "some Problem was never met"
