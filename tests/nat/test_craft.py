"""What we craft, read by scapy, which computes every checksum anew; and by our own parser."""

import ipaddress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_Redirect,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.packet import Raw

from nat.checksum import finish, partial_checksum, sum16
from nat.craft import (
    UdpTemplate,
    Unreachable,
    echo,
    echo_reply,
    fragments6,
    icmp_error,
    ip_packet,
    tcp_probe,
    tcp_reset,
    tcp_reset_to,
    udp_packet,
    unreachable,
    write_udp,
)
from nat.packet import Packet

pytestmark = pytest.mark.packet_path

V4 = {"src": "10.1.2.3", "dst": "192.0.2.77"}
V6 = {"src": "fd00::3", "dst": "2001:db8::77"}
address4 = st.binary(min_size=4, max_size=4)
address6 = st.binary(min_size=16, max_size=16)
pairs = st.one_of(st.tuples(address4, address4), st.tuples(address6, address6))
ports = st.integers(0, 0xFFFF)
words = st.integers(0, 0xFFFFFFFF)
flags = st.integers(0, 0xFF)


def parsed(made) -> Packet:
    raw = bytes(made)
    packet = Packet(bytearray(raw))
    assert packet.parse(0, len(raw)) == 0
    return packet


def text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))


def read(raw: bytes):
    """Scapy's view of a packet of ours, once it is sure that scapy would have built the very same bytes.

    The fields that scapy computes are taken out first, so every length and checksum is its own.
    """
    assert parsed(raw).length == len(raw)
    assert parsed(raw).transport_sum_ok()
    packet = IP(raw) if raw[0] >> 4 == 4 else IPv6(raw)
    again = packet.copy()
    for layer in (again, again.payload):
        for name in ("chksum", "cksum", "len", "plen"):
            if name in layer.fields and not isinstance(layer, (IPerror, UDPerror)):
                delattr(layer, name)
    rebuilt = bytes(again)
    assert rebuilt == raw
    return packet


def ip(version: int, **more):
    return IP(**{**V4, **more}) if version == 4 else IPv6(**{**V6, **more})


# TCP


@pytest.mark.parametrize("version", [4, 6])
@given(ports, ports, words, words, flags, st.binary(max_size=40))
def test_reset_as_rfc9293_says(version, source_port, target_port, seq, ack, tcp_flags, payload):
    segment = TCP(sport=source_port, dport=target_port, seq=seq, ack=ack, flags=tcp_flags)
    got = tcp_reset(parsed(ip(version) / segment / payload))
    if tcp_flags & 0x04:
        assert got == b""
        return
    reset = read(got)
    assert (reset.src, reset.dst) == (ip(version).dst, ip(version).src)
    assert (reset[TCP].sport, reset[TCP].dport) == (target_port, source_port)
    if tcp_flags & 0x10:
        assert (reset[TCP].flags, reset[TCP].seq, reset[TCP].ack) == ("R", ack, 0)
    else:
        length = len(payload) + (tcp_flags >> 1 & 1) + (tcp_flags & 1)
        assert (reset[TCP].flags, reset[TCP].seq) == ("RA", 0)
        assert reset[TCP].ack == (seq + length) % 2**32


@given(pairs, ports, ports, words, st.none() | words)
def test_reset_to(addresses, source_port, target_port, seq, ack):
    reset = read(tcp_reset_to(addresses[0], source_port, addresses[1], target_port, seq=seq, ack=ack))
    assert (reset.src, reset.dst) == tuple(map(text, addresses))
    assert (reset[TCP].seq, reset[TCP].ack) == (seq, ack or 0)
    assert reset[TCP].flags == ("R" if ack is None else "RA")


@pytest.mark.parametrize(
    "addresses", [(b"\x0a\0\0\1", b"\x0a\0\0\2"), (bytes(15) + b"\1", bytes(15) + b"\2")]
)
def test_probe(addresses):
    probe = read(tcp_probe(addresses[0], 443, addresses[1], 40_000))
    assert (probe.src, probe.dst) == tuple(map(text, addresses))
    assert (probe[TCP].sport, probe[TCP].dport, probe[TCP].flags) == (443, 40_000, "S")


@pytest.mark.parametrize(
    "made",
    [
        IP(**V4) / UDP(),
        IP(**V4, frag=1, proto=6) / bytes(40),
        IP(**V4, flags="MF", proto=6) / bytes(8),
        IP(src="10.0.0.1", dst="224.0.0.1") / TCP(),
        IP(src="10.0.0.1", dst="255.255.255.255") / TCP(),
        IP(src="255.255.255.255", dst="10.0.0.1") / TCP(),
        IP(src="0.0.0.0", dst="10.0.0.1") / TCP(),
        IPv6(src="fd00::1", dst="ff02::1") / TCP(),
        IPv6(src="::", dst="fd00::1") / TCP(),
    ],
)
def test_no_reset(made):
    assert tcp_reset(parsed(made)) == b""


# ICMP errors


@pytest.mark.parametrize(
    ("code", "v4", "v6"),
    [
        (Unreachable.NET, (3, 0), (1, 0)),
        (Unreachable.HOST, (3, 1), (1, 3)),
        (Unreachable.PORT, (3, 3), (1, 4)),
        (Unreachable.PROHIBITED, (3, 13), (1, 1)),
        (Unreachable.FRAGMENTATION_NEEDED, (3, 4), (2, 0)),
    ],
)
@pytest.mark.parametrize("size", [0, 1, 11, 1000, 3000])
def test_unreachable(code, v4, v6, size):
    made = bytes(IP(**V4) / UDP(sport=5, dport=6) / bytes(size))
    raw = unreachable(parsed(made), code, mtu=1400)
    error = read(raw)
    assert (error[ICMP].type, error[ICMP].code) == v4
    assert (error.src, error.dst) == (V4["dst"], V4["src"])
    assert raw[28:] == made[: 576 - 28]
    assert int.from_bytes(raw[24:28], "big") == (1400 if v4 == (3, 4) else 0)

    made = bytes(IPv6(**V6) / UDP(sport=5, dport=6) / bytes(size))
    raw = unreachable(parsed(made), code, mtu=1400)
    error = read(raw)
    layer = ICMPv6PacketTooBig if v6[0] == 2 else ICMPv6DestUnreach
    assert (error[layer].type, error[layer].code) == v6
    assert (error.src, error.dst) == (V6["dst"], V6["src"])
    assert raw[48:] == made[: 1280 - 48]
    assert int.from_bytes(raw[44:48], "big") == (1400 if v6[0] == 2 else 0)


def test_unreachable_from_another_address():
    assert read(unreachable(parsed(IP(**V4) / UDP()), Unreachable.NET, b"\x64\x40\0\1")).src == "100.64.0.1"


def test_a_first_fragment_may_be_answered():
    assert unreachable(parsed(IP(**V4, flags="MF") / UDP(len=99) / bytes(8)), Unreachable.HOST)
    assert unreachable(
        parsed(IPv6(**V6) / IPv6ExtHdrFragment(m=1) / UDP(len=99) / bytes(8)), Unreachable.HOST
    )


@pytest.mark.parametrize(
    "made",
    [
        IP(**V4, frag=1, proto=17) / bytes(40),
        IPv6(**V6) / IPv6ExtHdrFragment(offset=2, nh=17) / bytes(40),
        *(IP(**V4) / ICMP(type=kind) / bytes(28) for kind in (3, 4, 5, 11, 12)),
        *(IPv6(**V6, nh=58) / (bytes((kind,)) + bytes(30)) for kind in (1, 2, 3, 4, 100, 127)),
        IPv6(**V6) / ICMPv6ND_Redirect(),
        IP(**V4, flags="MF", proto=1),
        IP(src="10.0.0.1", dst="239.1.2.3") / UDP(),
        IP(src="10.0.0.1", dst="255.255.255.255") / UDP(),
        IP(src="224.0.0.1", dst="10.0.0.1") / UDP(),
        IP(src="0.0.0.0", dst="10.0.0.1") / UDP(),
        IP(src="127.0.0.1", dst="10.0.0.1") / UDP(),
        IP(src="240.0.0.1", dst="10.0.0.1") / UDP(),
        IPv6(src="fd00::1", dst="ff02::1") / UDP(),
        IPv6(src="ff02::1", dst="fd00::1") / UDP(),
        IPv6(src="::", dst="fd00::1") / UDP(),
    ],
)
@pytest.mark.parametrize("code", Unreachable)
def test_no_error_about_these(made, code):
    assert unreachable(parsed(made), code) == b""


def test_packet_too_big_is_the_one_error_about_ipv6_multicast():
    packet = parsed(IPv6(src="fd00::1", dst="ff0e::1") / UDP())
    us = ipaddress.ip_address("fd00::99").packed
    assert unreachable(packet, Unreachable.HOST, us) == b""
    assert read(unreachable(packet, Unreachable.FRAGMENTATION_NEEDED, us, mtu=1280)).src == "fd00::99"


def test_icmp_other_than_errors_may_be_answered():
    assert unreachable(parsed(IP(**V4) / ICMP()), Unreachable.HOST)
    assert unreachable(parsed(IPv6(**V6) / ICMPv6EchoRequest()), Unreachable.HOST)


@given(pairs, st.integers(0, 255), st.integers(0, 255), words, st.binary(max_size=1500))
def test_icmp_error(addresses, kind, code, rest, quoted):
    source, target = addresses
    raw = icmp_error(kind, code, rest, source, target, quoted=quoted)
    head = 20 if len(source) == 4 else 40
    packet = parsed(raw)
    assert (packet.source(), packet.target(), packet.icmp_type, packet.icmp_code) == (
        source,
        target,
        kind,
        code,
    )
    assert packet.transport_sum_ok()
    assert raw[head + 4 : head + 8] == rest.to_bytes(4, "big")
    assert raw[head + 8 :] == quoted[: len(raw) - head - 8]
    assert len(raw) == min(head + 8 + len(quoted), 576 if head == 20 else 1280)


def test_a_relayed_error_reaches_the_flow_it_quotes():
    """From a socket's error queue back to the application: rebuild the datagram, and quote it."""
    app, far, router = b"\x0a\0\0\1", b"\xc0\0\2\1", b"\xc0\0\2\xfe"
    error = read(icmp_error(11, 0, 0, router, app, quoted=udp_packet(app, 4000, far, 33434, b"probe")))
    assert (error.src, error[IPerror].src, error[IPerror].dst) == ("192.0.2.254", "10.0.0.1", "192.0.2.1")
    assert (error[UDPerror].sport, error[UDPerror].dport) == (4000, 33434)


# Echo


@pytest.mark.parametrize("version", [4, 6])
@given(ports, ports, st.binary(max_size=2000))
def test_echo_reply(version, identifier, sequence, payload):
    request = (
        ICMP(id=identifier, seq=sequence) if version == 4 else ICMPv6EchoRequest(id=identifier, seq=sequence)
    )
    reply = read(echo_reply(parsed(ip(version) / request / payload)))
    assert (reply.src, reply.dst) == (ip(version).dst, ip(version).src)
    layer = reply[ICMP] if version == 4 else reply[ICMPv6EchoReply]
    assert (layer.type, layer.code) == (0 if version == 4 else 129, 0)
    assert (layer.id, layer.seq) == (identifier, sequence)
    assert bytes(reply)[-len(payload) or len(bytes(reply)) :] == payload


@given(pairs, ports, ports, st.binary(max_size=100), st.booleans())
def test_echo(addresses, identifier, sequence, payload, reply):
    packet = parsed(echo(*addresses, identifier, sequence, payload, reply=reply))
    kinds = (8, 0) if packet.version == 4 else (128, 129)
    assert packet.icmp_type == kinds[reply]
    assert packet.source_port == identifier
    assert packet.payload() == payload
    assert packet.transport_sum_ok()
    assert (packet.source(), packet.target()) == addresses


@pytest.mark.parametrize(
    "made",
    [
        IP(**V4) / UDP(),
        IP(**V4) / ICMP(type=0),
        IP(**V4) / ICMP(type=8, code=1),
        IP(**V4, flags="MF") / ICMP() / bytes(8),
        IP(src="10.0.0.1", dst="224.0.0.1") / ICMP(),
        IPv6(**V6) / ICMPv6EchoReply(),
        IPv6(**V6) / IPv6ExtHdrFragment(m=1) / ICMPv6EchoRequest(data=bytes(8)),
        IPv6(src="fd00::1", dst="ff02::1") / ICMPv6EchoRequest(),
    ],
)
def test_no_echo_reply(made):
    assert echo_reply(parsed(made)) == b""


def test_echo_reply_behind_extension_headers():
    made = IPv6(**V6) / IPv6ExtHdrHopByHop() / ICMPv6EchoRequest(id=1, seq=2, data=b"x")
    assert read(echo_reply(parsed(made)))[ICMPv6EchoReply].data == b"x"


# UDP


@given(pairs, ports, ports, st.binary(max_size=1500), ports, st.integers(0, 40), st.binary(max_size=9))
def test_udp_template(addresses, source_port, target_port, payload, identification, at, behind):
    source, target = addresses
    template = UdpTemplate(source, source_port, target, target_port)
    head = 28 if len(source) == 4 else 48
    assert template.header_length == head
    buffer = bytearray(b"\xee" * (at + head) + payload + behind)
    assert template.write(buffer, at, len(payload), False, identification) == head
    assert buffer[:at] == b"\xee" * at
    assert buffer[at + head :] == payload + behind
    raw = bytes(buffer[at : at + head + len(payload)])
    packet = parsed(raw)
    assert packet.transport_sum_ok()
    assert (packet.source(), packet.target()) == (source, target)
    assert (packet.source_port, packet.target_port, packet.payload()) == (source_port, target_port, payload)
    assert raw[head - 2 : head] != b"\0\0"  # it does have a checksum
    made = (IP if head == 28 else IPv6)(src=text(source), dst=text(target)) / UDP(
        sport=source_port, dport=target_port
    )
    if head == 28:
        made.id, made.flags = identification, "DF"
    else:
        made.hlim = 64
    assert bytes(made / Raw(payload)) == raw

    # NEEDS_CSUM: the pseudo-header's sum, and completing it gives the same.
    template.write(buffer, at, len(payload), True, identification)
    udp = at + head - 8
    field = int.from_bytes(buffer[udp + 6 : udp + 8], "big")
    assert field == partial_checksum(source, target, 17, 8 + len(payload))
    completed = finish(sum16(buffer, udp, 8 + len(payload), 0)) or 0xFFFF
    buffer[udp + 6 : udp + 8] = completed.to_bytes(2, "big")
    assert buffer[at : at + head + len(payload)] == raw


@given(pairs, ports, ports, st.binary(max_size=200))
def test_write_udp_and_udp_packet(addresses, source_port, target_port, payload):
    source, target = addresses
    whole = udp_packet(source, source_port, target, target_port, payload)
    packet = parsed(whole)
    assert (packet.payload(), packet.transport_sum_ok()) == (payload, True)
    head = 28 if len(source) == 4 else 48
    buffer = bytearray(head) + payload
    ends = {"source": source, "source_port": source_port, "target": target, "target_port": target_port}
    assert write_udp(memoryview(buffer), 0, len(payload), **ends) == head
    assert buffer == whole
    assert write_udp(buffer, 0, len(payload), **ends, partial=True) == head
    assert buffer[: head - 2] == whole[: head - 2]


def test_a_computed_zero_is_sent_as_ffff():
    """The payload that makes the checksum 0 without UDP's exception."""
    source, target = b"\x0a\0\0\1", b"\x0a\0\0\2"
    raw = bytearray(udp_packet(source, 1, target, 2, b"\0\0"))
    missing = int.from_bytes(raw[26:28], "big")
    raw = udp_packet(source, 1, target, 2, missing.to_bytes(2, "big"))
    assert raw[26:28] == b"\xff\xff"
    assert parsed(raw).transport_sum_ok()


@pytest.mark.parametrize(("size", "most"), [(4, 65_507), (16, 65_527)])
def test_the_longest_datagram(size, most):
    template = UdpTemplate(bytes(size), 1, b"\1" * size, 2)
    buffer = bytearray(b"\xff" * 70_000)
    head = template.write(buffer, 100, most, False)
    packet = Packet(buffer)
    assert packet.parse(100, head + most) == 0
    assert packet.payload_length == most
    assert packet.transport_sum_ok()
    with pytest.raises(ValueError, match="too long"):
        template.write(buffer, 0, most + 1, False)
    with pytest.raises(ValueError, match="too long"):
        template.write(buffer, 0, -1, False)


@pytest.mark.parametrize("at", [-1, 1, 100, 1 << 62])
def test_outside_the_buffer(at):
    with pytest.raises(IndexError):
        UdpTemplate(bytes(4), 1, bytes(4), 2).write(bytearray(38), at, 10, False)


@pytest.mark.parametrize(
    "arguments",
    [
        (bytes(4), 1, bytes(16), 2),
        (bytes(5), 1, bytes(5), 2),
        (b"", 1, b"", 2),
        (bytes(4), -1, bytes(4), 2),
        (bytes(4), 1, bytes(4), 0x10000),
    ],
)
def test_templates_that_can_not_be(arguments):
    with pytest.raises(ValueError, match=r"address|port"):
        UdpTemplate(*arguments)


@given(pairs, st.integers(0, 255), st.binary(max_size=100), st.integers(0, 255))
def test_ip_packet(addresses, protocol, payload, hop_limit):
    assume(protocol not in (0, 1, 6, 17, 43, 44, 51, 58, 60))
    packet = parsed(ip_packet(*addresses, protocol, payload, hop_limit))
    assert (packet.source(), packet.target()) == addresses
    assert (packet.protocol, packet.hop_limit, packet.payload()) == (protocol, hop_limit, payload)


def test_ip_packets_that_can_not_be():
    with pytest.raises(ValueError, match="too long"):
        ip_packet(bytes(4), bytes(4), 17, bytes(65_516))
    with pytest.raises(ValueError, match="too long"):
        ip_packet(bytes(16), bytes(16), 17, bytes(65_536))
    with pytest.raises(ValueError, match="address"):
        ip_packet(bytes(4), bytes(16), 17, b"")


@pytest.mark.parametrize("size", [8, 1232, 1233, 5000])
def test_fragments_of_ipv6_are_put_together_again(size):
    whole = ip_packet(bytes(15) + b"\1", bytes(15) + b"\2", 17, bytes(range(250)) * 21)[: 40 + size]
    body, last = b"", False
    for piece in fragments6(whole, 1280, 7):
        read = IPv6(piece)
        header = read[IPv6ExtHdrFragment]
        assert len(piece) == 40 + read.plen <= 1280
        assert (header.offset * 8, header.id, header.nh, last) == (len(body), 7, 17, False)
        body += piece[48:]
        last = not header.m
    assert last
    assert body == whole[40:]
