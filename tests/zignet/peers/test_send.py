"""From the TUN to the wire: each datagram is opened by the naive end, each frame is that of the slow path.

What a super-packet must become is said by `pair.cut`, which stands for the kernel's own segmentation, and
`zignet.wire.strip`; scapy makes the packets.
"""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6, IPv6ExtHdrHopByHop
from scapy.utils import checksum as scapy_checksum

from tests.nat.world import NO_VIRTIO, VIRTIO
from tests.zignet.peers.pair import (
    GSO_TCP4,
    GSO_UDP,
    MOST,
    ONE4,
    ONE6,
    OTHER4,
    OTHER6,
    PEER,
    PLACE4,
    PLACE6,
    SEALED,
    Host,
    cut,
    echo,
    host,
    met,
    session,
    tcp,
    udp,
    unfinished,
    way,
)
from tests.zignet.wire.packets import cases, text
from zignet.noise import Suite, aead
from zignet.peers import send
from zignet.wire import BadFrame, bundle, rebuild, strip

pytestmark = pytest.mark.packet_path

patient = settings(deadline=None, max_examples=60)
families = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
headers = pytest.mark.parametrize("header", [0, 10], ids=["bare", "virtio"])
suites = pytest.mark.parametrize("suite", list(Suite), ids=["chacha", "aes"])
OUT = {False: (ONE4, PLACE4), True: (ONE6, PLACE6)}
FIN, SYN, PSH, ACK, URG, ECE, CWR = 0x01, 0x02, 0x08, 0x10, 0x20, 0x40, 0x80
TIMESTAMP = bytes.fromhex("0101080a0000000100000002")


def datagrams(sent):
    return [datagram for call in sent for datagram in call.datagrams]


def head_of(packet):
    at = 40 if packet[0] >> 4 == 6 else 20
    return at + ((packet[at + 12] >> 4) * 4 if packet[6 if at == 40 else 9] == 6 else 8)


def frames_of(packet, size):
    """The frames of a packet that is cut at `size`."""
    return [strip(piece, partial=True) for piece in cut(packet, head_of(packet), size)]


def calls_are_full(sent):
    """Each call carries datagrams of one size, the last perhaps shorter, and only the last call has room left."""
    for call in sent:
        sizes = [len(datagram) for datagram in call.datagrams]
        assert call.size == (sizes[0] if len(sizes) > 1 else 0)
        assert all(size == sizes[0] for size in sizes[:-1])
        assert sizes[-1] <= sizes[0]
    for call, following in pairwise(sent):
        total = sum(map(len, call.datagrams))
        assert len(call.datagrams) == 64 or total + len(following.datagrams[0]) > MOST


# --- one packet, one frame


@headers
@suites
def test_a_packet_of_any_kind(header, suite):
    lab = Host(header=header)
    link, keys = met(lab, suite)
    count = 0

    @patient
    @given(cases(), st.integers(0, 0xFFFF), st.booleans())
    def check(case, number, later):
        nonlocal count
        packet = case.sent(*way(lab, case.v6), id=number)
        if header and later and case.kind != "icmp":
            virtio, read = unfinished(packet)
            (call,) = lab.give(read, virtio)
            expected = strip(packet, partial=True)
        else:
            (call,) = lab.give(packet)
            expected = case.frame()
        assert keys.open(call.datagrams, count) == [expected]
        assert (call.address, call.ecn, call.size) == (PEER, case.traffic & 3, 0)
        count += 1

    try:
        check()
        assert link.tunnel.sent_data == [True] * count
        assert not [note for note in lab.hub.notes if note[0] != "clamp"]
        assert not lab.sender.dropped
    finally:
        lab.close()


@families
def test_the_counter_is_the_nonce_of_its_suite(v6):
    """By `cryptography` alone, at a counter whose bytes all differ."""
    for suite in Suite:
        with host() as lab:
            link, keys = met(lab, suite)
            link.tunnel.sending.sealing.counter = 0x0102030405060708
            (call,) = lab.give(udp(way(lab, v6), b"x"))
            assert call.datagrams[0][:16].hex() == "04000000" + "07000000" + "0807060504030201"
            assert keys.open(call.datagrams, 0x0102030405060708) == [strip(udp(way(lab, v6), b"x"))]


# --- small packets that are read together


def small(lab):
    """One of each kind, and its frame."""
    packets = [
        tcp(way(lab, True), b"", flags=SYN | ACK),
        udp(way(lab, False), b"question"),
        echo(way(lab, True), b"ping"),
        tcp(way(lab, False), bytes(400), options=TIMESTAMP),
    ]
    return packets, [strip(packet) for packet in packets]


@suites
@headers
def test_small_packets_share_a_datagram(header, suite):
    with host(header=header) as lab:
        link, keys = met(lab, suite)
        packets, frames = small(lab)
        (call,) = lab.give_all(*((NO_VIRTIO, packet) for packet in packets))
        assert (call.address, call.size, call.ecn) == (PEER, 0, 0)
        assert keys.open(call.datagrams, 0) == [bundle(frames)]
        assert link.tunnel.sent_data == [True]
        assert link.tx_bytes == len(call.datagrams[0])
        assert lab.give_all() == []


def test_as_many_as_the_path_carries():
    with host() as lab:
        _, keys = met(lab, room=300)
        packets = [udp(way(lab, False), bytes((number,)) * 81) for number in range(9)]  # frames of 93 bytes
        sent = lab.give_all(*((NO_VIRTIO, packet) for packet in packets))
        frames = [strip(packet) for packet in packets]
        assert keys.open(datagrams(sent), 0) == [bundle(frames[at : at + 3]) for at in (0, 3, 6)]


def test_they_are_not_overtaken():
    """A larger packet, one for another peer, one with another ECN field: what waits leaves before it."""
    with host() as lab:
        link, keys = met(lab)
        other = lab.knows(OTHER4, OTHER6, ("198.51.100.9", 4000), 1400)
        _, others = session(other, Suite.AES, 9)
        first, second = udp(way(lab, False), b"1"), udp(way(lab, False), b"2")
        for between, whose in (
            (udp(way(lab, False), bytes(1000)), keys),
            (tcp(way(lab, False), bytes(600)), keys),
            (udp(way(lab, False), b"marked", traffic=2), keys),
            (udp((ONE4, OTHER4), b"to another"), others),
        ):
            counter, counter_there = link.tunnel.sending.sealing.counter, other.tunnel.sending.sealing.counter
            sent = lab.give_all(*((NO_VIRTIO, packet) for packet in (first, second, between, second, first)))
            here, between_them, there = (call.datagrams for call in sent)
            assert keys.open(here, counter) == [bundle([strip(first), strip(second)])]
            assert whose.open(between_them, counter + 1 if whose is keys else counter_there) == [
                strip(between)
            ]
            after = counter + 1 + (whose is keys)
            assert keys.open(there, after) == [bundle([strip(second), strip(first)])]


def test_nor_by_what_goes_the_slow_way():
    with host(plain=False) as lab:
        _, keys = met(lab)
        first = udp(way(lab, False), b"1")
        options = IP(src=text(ONE4), dst=text(PLACE4), options=[IPOption_NOP()] * 4) / TCP(sport=1) / b"x"
        plain = IP(src=text(ONE4), dst=text(PLACE4)) / TCP(sport=1) / b"x"
        sent = lab.give_all((NO_VIRTIO, first), (NO_VIRTIO, options), (NO_VIRTIO, first))
        assert keys.open(datagrams(sent), 0) == [strip(first), strip(bytes(plain)), strip(first)]


def test_a_new_session_begins_with_a_datagram_of_its_own():
    with host() as lab:
        link, keys = met(lab)
        packet = udp(way(lab, False), b"x")
        lab.sender.outward(lab.device.header, 0)  # nothing yet
        lab.gateway.raw[: len(NO_VIRTIO + packet)] = NO_VIRTIO + packet
        lab.sender.outward(lab.device.header, len(packet))
        _, fresh = session(link, Suite.AES, 9)
        sent = lab.give_all((NO_VIRTIO, packet), (NO_VIRTIO, packet))
        assert keys.open(sent[0].datagrams, 0) == [strip(packet)]
        assert fresh.open(sent[1].datagrams, 0) == [bundle([strip(packet)] * 2)]


def test_what_the_link_is_told():
    with host() as lab:
        link, _ = met(lab)
        total = len(datagrams(lab.give(udp(OUT[False], b"x")))[0])
        for payload in (1200, 30_000, 65_000):
            packet = tcp(OUT[False], bytes(payload))
            sent = lab.give(*unfinished(packet, 1000)[::-1])
            total += sum(map(len, datagrams(sent)))
        assert link.tx_bytes == total
        assert link.tunnel.sent_data == [True] * 4  # once for each packet, however many calls it took


def test_udp_without_a_checksum_stays_without():
    packet = bytes(IP(src=text(ONE4), dst=text(PLACE4)) / UDP(sport=1, dport=2, chksum=0) / b"x")
    with host(header=0) as lab:
        _, keys = met(lab)
        (frame,) = keys.open(datagrams(lab.give(packet)))
        assert frame == strip(packet)
        assert frame[10:12] == b"\0\0"


@headers
def test_udp_over_ipv6_without_a_checksum_is_not_carried(header):
    packet = bytearray(udp(OUT[True], b"x"))
    packet[46:48] = bytes(2)
    with host(header=header) as lab:
        link, _ = met(lab)
        assert lab.give(packet) == []
        assert lab.sender.dropped == {"to peers: UDP over IPv6 without a checksum": 1}
        assert link.tunnel.sent_data == []


@headers
def test_udp_whose_checksum_computes_to_zero_is_not_without(header):
    """Between zero addresses the sum is zero: what crosses is 0xffff (RFC 768)."""
    zero = bytes(4), bytes(4)
    port = int.from_bytes(udp(zero, b"ab", ports=(0, 7))[26:28], "big")
    packet = udp(OUT[False], b"ab", ports=(port, 7))
    with host(header=header) as lab:
        _, keys = met(lab)
        (frame,) = keys.open(datagrams(lab.give(packet)))
        assert frame[10:12] == b"\xff\xff"
        assert frame == strip(packet)


@families
def test_bytes_behind_the_packet_are_cut(v6):
    with host(header=0) as lab:
        _, keys = met(lab)
        packet = tcp(way(lab, v6), b"payload")
        (frame,) = keys.open(datagrams(lab.give(packet + b"trailing")))
        assert frame == strip(packet)


@families
@pytest.mark.parametrize("flags", [SYN, SYN | ACK, SYN | ECE | CWR])
def test_a_syn_is_shown_to_who_clamps(v6, flags):
    with host() as lab:
        link, keys = met(lab)
        packet = tcp(way(lab, v6), options=bytes.fromhex("020405b4"), flags=flags)

        def clamp(to, at, end, extra, partial):
            assert extra == 0
            assert (to, partial) == (link, False)
            assert bytes(lab.gateway.raw[at:end]) == packet[head_of(packet) - 24 :]
            lab.gateway.raw[at + 22 : at + 24] = b"\x01\x00"

        lab.hub.clamp = clamp
        (frame,) = keys.open(datagrams(lab.give(packet)))
        assert frame[:26] == strip(packet)[:26]
        assert frame[26:28] == b"\x01\x00"


# --- super-packets


flags_of_data = st.sampled_from(
    [ACK, PSH | ACK, FIN | ACK, FIN | PSH | ACK, CWR | ACK, CWR | PSH | FIN | ACK, ECE | ACK]
)
sizes = st.one_of(st.integers(1, 3000), st.integers(60_000, 65_400))


@pytest.mark.parametrize("room", [500, 1200, 1400, 8900])
def test_a_super_packet_is_the_kernels_segments(room):
    lab = Host()
    _, keys = met(lab, room=room)
    count = 0

    @patient
    @given(
        st.booleans(),
        sizes,
        st.integers(400, 9000),
        st.sampled_from([2**32 - 1, 2**32 - 40_000, 1000]),
        flags_of_data,
        st.sampled_from([b"", TIMESTAMP, bytes((1,)) * 40]),
        st.integers(0, 255),
    )
    def check(v6, payload, size, seq, flags, options, traffic):
        nonlocal count
        packet = tcp(
            way(lab, v6),
            bytes(range(256)) * (payload // 256) + bytes(payload % 256),
            seq=seq,
            flags=flags,
            options=options,
            traffic=traffic,
        )
        virtio, read = unfinished(packet, size)
        sent = lab.give(read, virtio)
        fits = min(size, room - 4 - 20 - len(options))
        assert keys.open(datagrams(sent), count) == frames_of(packet, fits)
        assert all(call.ecn == traffic & 3 and call.address == PEER for call in sent)
        calls_are_full(sent)
        count += len(datagrams(sent))

    try:
        check()
        assert not lab.hub.notes
    finally:
        lab.close()


@families
def test_the_sequence_number_wraps_inside(v6):
    with host() as lab:
        _, keys = met(lab)
        packet = tcp(way(lab, v6), bytes(5000), seq=2**32 - 1500)
        frames = keys.open(datagrams(lab.give(*unfinished(packet, 1000)[::-1])))
        numbers = [int.from_bytes(frame[8:12], "big") for frame in frames]
        assert numbers == [2**32 - 1500, 2**32 - 500, 500, 1500, 2500]


@families
def test_flags_go_where_they_belong(v6):
    with host() as lab:
        _, keys = met(lab)
        every = FIN | PSH | ACK | ECE | CWR
        frames = keys.open(
            datagrams(lab.give(*unfinished(tcp(way(lab, v6), bytes(2500), flags=every), 1000)[::-1]))
        )
        assert [frame[17] for frame in frames] == [ACK | ECE | CWR, ACK | ECE, ACK | ECE | FIN | PSH]


@families
def test_a_payload_of_whole_pieces_has_no_empty_one_behind(v6):
    with host() as lab:
        _, keys = met(lab)
        packet = tcp(way(lab, v6), bytes(3000), flags=PSH | ACK)
        frames = keys.open(datagrams(lab.give(*unfinished(packet, 1000)[::-1])))
        assert frames == frames_of(packet, 1000)
        assert len(frames) == 3


@families
def test_more_datagrams_than_one_call_takes(v6):
    """64 of a call by number, 65,507 bytes by size; the counters go on."""
    with host() as lab:
        link, keys = met(lab)
        packet = tcp(way(lab, v6), bytes(65_000))
        sent = lab.give(*unfinished(packet, 200)[::-1])
        assert [len(call.datagrams) for call in sent] == [64] * 5 + [5]
        assert keys.open(datagrams(sent)) == frames_of(packet, 200)
        link.room = 8900
        packet = tcp(way(lab, v6), bytes(65_400))
        sent = lab.give(*unfinished(packet, 8800)[::-1])
        assert [len(call.datagrams) for call in sent] == [7, 1]
        assert sum(map(len, sent[0].datagrams)) <= MOST
        assert keys.open(datagrams(sent), 325) == frames_of(packet, 8800)


@families
@headers
def test_a_plain_segment_larger_than_the_path_is_cut(v6, header):
    with host(header=header) as lab:
        _, keys = met(lab, room=700)
        packet = tcp(way(lab, v6), bytes(range(200)) * 7, flags=PSH | ACK, options=TIMESTAMP)
        assert keys.open(datagrams(lab.give(packet))) == frames_of(packet, 700 - 4 - 32)


@families
@pytest.mark.parametrize("flags", [SYN, URG | ACK])
def test_what_no_kernel_segments_is_not_cut(v6, flags):
    """Data in a SYN (RFC 7413), whose second piece would begin one later; urgent data (RFC 9293 §3.8.5)."""
    with host() as lab:
        link, _ = met(lab, room=700)
        packet = tcp(way(lab, v6), bytes(1300), flags=flags, urgent=5 if flags & URG else 0)
        assert lab.give(packet) == []
        assert lab.hub.notes == [("slow", link, packet)]


@families
def test_the_path_shrinks_and_grows_between_packets(v6):
    with host() as lab:
        link, keys = met(lab)
        packet = tcp(way(lab, v6), bytes(range(256)) * 80)
        count = 0
        for room in (1400, 1200, 1400, 600, 1400, 8900, 1200):
            link.room = room
            frames = keys.open(datagrams(lab.give(*unfinished(packet, 1368)[::-1])), count)
            assert frames == frames_of(packet, min(1368, room - 24))
            count += len(frames)


@pytest.mark.parametrize("room", [1200, 1400])
def test_a_super_datagram_is_its_datagrams(room):
    lab = Host()
    _, keys = met(lab, room=room)
    count = 0

    @patient
    @given(st.booleans(), st.integers(1, room - 12), st.integers(1, 64), st.data(), st.integers(0, 255))
    def check(v6, size, pieces, data, traffic):
        nonlocal count
        last = data.draw(st.integers(1, size))
        payload = (size * (pieces - 1) + last) % 65_000 or 1
        packet = udp(
            way(lab, v6), bytes(range(256)) * (payload // 256) + bytes(payload % 256), traffic=traffic
        )
        sent = lab.give(*unfinished(packet, size)[::-1])
        assert keys.open(datagrams(sent), count) == frames_of(packet, size)
        calls_are_full(sent)
        count += len(datagrams(sent))

    try:
        check()
        assert not lab.hub.notes
    finally:
        lab.close()


def test_hundreds_of_sizes_in_turn():
    """More than are cached, and back again."""
    with host() as lab:
        _, keys = met(lab)
        packet = tcp(OUT[False], bytes(range(256)) * 12)
        count = 0
        for size in [*range(300, 400), 300, 399, 350]:
            frames = keys.open(datagrams(lab.give(*unfinished(packet, size)[::-1])), count)
            assert frames == frames_of(packet, size)
            count += len(frames)


def test_tiny_datagrams_do_not_cost_megabytes():
    """A program chooses the sizes of its datagrams (UDP_SEGMENT), and so how many views of the buffer there are."""
    with host() as lab:
        _, keys = met(lab)
        packet = udp(OUT[False], b"abc")
        virtio, read = unfinished(packet, 1)
        tracemalloc.start()
        try:
            assert keys.open(datagrams(lab.give(read, virtio))) == frames_of(packet, 1)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()


def test_nothing_is_written_outside_of_the_packet():
    """Of the gateway's buffer; and the IP header's last 4 bytes are the frame's."""
    with host() as lab:
        met(lab)
        for v6 in (False, True):
            for packet, size in (
                (tcp(way(lab, v6), bytes(65_000)), 1100),
                (udp(way(lab, v6), bytes(9_999)), 99),
            ):
                virtio, read = unfinished(packet, size)
                raw, start = lab.gateway.raw, 10 + (40 if v6 else 20) - 4
                raw[:] = b"\xa5" * len(raw)
                lab.give(read, virtio)
                assert raw[10 + len(read) :] == b"\xa5" * (len(raw) - 10 - len(read))
                assert bytes(raw[:start]) == virtio + read[: start - 10]


# --- whose is it?


def test_only_what_this_host_sends_itself():
    """C5: nothing is passed on for somebody else."""
    with host(header=0) as lab:
        met(lab)
        assert lab.give(udp((bytes((100, 64, 0, 77)), PLACE4))) == []
        assert lab.give(tcp((PLACE6[:-1] + b"\0", PLACE6))) == []
        assert lab.give(tcp((PLACE4, PLACE4))) == []
        assert lab.sender.dropped == {"to peers: not from this host": 3}
        assert lab.hub.notes == []


@families
def test_an_address_that_nobody_has(v6):
    with host(header=0) as lab:
        met(lab)
        source = way(lab, v6)[0]
        packet = udp((source, PLACE6[:-1] + b"\x77" if v6 else bytes((100, 64, 0, 77))), b"anybody?")
        assert lab.give(packet) == []
        assert lab.hub.notes == [("nobody", packet)]


def test_a_peer_without_a_link_is_woken():
    with host() as lab:
        link, keys = met(lab)
        link.peer.link, lab.hub.woken = None, link
        (frame,) = keys.open(datagrams(lab.give(udp(OUT[False], b"x"))))
        assert frame == strip(udp(OUT[False], b"x"))
        assert lab.hub.of("wake") == [(link.peer,)]


@headers
@pytest.mark.parametrize("missing", ["session", "address"])
def test_without_a_session_the_packet_waits_as_it_was_read(header, missing):
    with host(header=header) as lab:
        link, _ = met(lab)
        if missing == "session":
            link.tunnel.sending = None
        else:
            link.address = None
        virtio, read = (
            unfinished(tcp(OUT[True], bytes(5000)), 1000) if header else (b"", tcp(OUT[True], b"x"))
        )
        assert lab.give(read, virtio) == []
        assert lab.hub.of("stage") == [(link, virtio + read)]
        assert link.tunnel.sent_data == []


def test_what_waits_is_without_what_was_behind_it():
    with host(header=0) as lab:
        link, _ = met(lab)
        link.tunnel.sending = None
        lab.give(udp(OUT[False], b"x") + b"trailing")
        assert lab.hub.of("stage") == [(link, udp(OUT[False], b"x"))]


@families
@headers
def test_cut_off_anywhere(v6, header):
    """A packet that is not whole goes nowhere: it is not even looked whether it is ours."""
    with host(header=header) as lab:
        met(lab)
        packet = tcp(way(lab, v6), b"payload", options=TIMESTAMP)
        for end in range(1, len(packet)):
            assert lab.give(packet[:end]) == []
        assert lab.sender.dropped.total() == len(packet) - 1
        assert lab.sender.dropped["to peers: bad length"] > 0
        assert lab.sender.dropped["to peers: truncated"] == (39 if v6 else 19)
        assert lab.hub.notes == []


@pytest.mark.parametrize("total", [0, 19, 29])
def test_a_length_that_cannot_be_true(total):
    with host(header=0) as lab:
        met(lab)
        packet = bytearray(udp(OUT[False]))
        packet[2:4] = total.to_bytes(2, "big")
        assert lab.give(packet) == []
        assert lab.sender.dropped == {"to peers: bad length": 1}


# --- what is rare


V4, V6 = IP(src=text(ONE4), dst=text(PLACE4)), IPv6(src=text(ONE6), dst=text(PLACE6))
RARE = {
    "options": IP(src=text(ONE4), dst=text(PLACE4), options=[IPOption_NOP()] * 4) / UDP() / b"x",
    "first fragment": IP(src=text(ONE4), dst=text(PLACE4), flags="MF") / UDP() / bytes(64),
    "later fragment": IP(src=text(ONE4), dst=text(PLACE4), frag=1) / bytes(64),
    "far fragment": IP(src=text(ONE4), dst=text(PLACE4), frag=256) / bytes(64),
    "extension": V6 / IPv6ExtHdrHopByHop() / UDP() / b"x",
    "neighbours": V6 / ICMPv6ND_NS(),
    "error": V4 / ICMP(type=3, code=3) / bytes(V4 / UDP()),
    "icmp over v6": IPv6(src=text(ONE6), dst=text(PLACE6), nh=1) / ICMP(),
    "icmpv6 over v4": IP(src=text(ONE4), dst=text(PLACE4), proto=58) / bytes((128, 0, 0, 0, 0, 0, 0, 0)),
    "sctp": IP(src=text(ONE4), dst=text(PLACE4), proto=132) / bytes(20),
    "ip in ip": V4 / V4 / UDP(),
    "short tcp": IP(src=text(ONE4), dst=text(PLACE4), proto=6) / bytes(19),
    "short udp": IPv6(src=text(ONE6), dst=text(PLACE6), nh=17) / bytes(7),
    "short icmp": IP(src=text(ONE4), dst=text(PLACE4), proto=1) / bytes(7),
    "tcp offset below 5": V4 / TCP(dataofs=4) / bytes(9),
    "tcp offset beyond": V4 / TCP(dataofs=15) / bytes(9),
    "large udp": V4 / UDP() / bytes(ROOM_OVER := 1400),
    "large echo": V4 / ICMP() / bytes(ROOM_OVER),
    "nothing": IP(src=text(ONE4), dst=text(PLACE4), proto=17),
}


@headers
@pytest.mark.parametrize("name", RARE)
def test_the_rest_is_handed_over_untouched(name, header):
    with host(header=header) as lab:
        link, _ = met(lab)
        packet = bytes(RARE[name])
        assert lab.give(packet) == []
        assert lab.hub.notes == [("slow", link, packet)]
        assert link.tunnel.sent_data == []


@pytest.mark.parametrize(
    ("packet", "virtio"),
    [
        (
            udp(OUT[False], bytes(3000)),
            VIRTIO.pack(1, GSO_UDP, 28, 1389, 20, 6),
        ),  # a datagram that does not fit
        (udp(OUT[False], bytes(3000)), VIRTIO.pack(1, GSO_UDP, 28, 0, 20, 6)),
        (udp(OUT[False], bytes(1000)), VIRTIO.pack(0, GSO_UDP, 28, 500, 0, 0)),  # each would need a checksum
        (tcp(OUT[False], bytes(3000)), VIRTIO.pack(1, GSO_TCP4, 40, 0, 20, 16)),
    ],
)
def test_super_packets_that_are_rare(packet, virtio):
    with host() as lab:
        link, _ = met(lab)
        assert lab.give(packet, virtio) == []
        assert lab.hub.notes == [("slow", link, packet)]


@families
def test_the_largest_that_fits(v6):
    with host() as lab:
        _, keys = met(lab)
        for count, packet in enumerate((udp(way(lab, v6), bytes(1388)), echo(way(lab, v6), bytes(1388)))):
            (call,) = lab.give(packet)
            assert len(call.datagrams[0]) == 1400 + SEALED
            assert keys.open(call.datagrams, count) == [strip(packet)]
        assert lab.give(udp(way(lab, v6), bytes(1389))) == []
        assert lab.give(echo(way(lab, v6), bytes(1389))) == []
        assert len(lab.hub.of("slow")) == 2


def test_a_path_without_room_for_a_header():
    with host() as lab:
        link, _ = met(lab, room=4 + 60 + 63)
        packet = tcp(OUT[False], bytes(100), options=bytes((1,)) * 40)
        assert lab.give(packet) == []
        assert lab.hub.notes == [("slow", link, packet)]


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=120), st.binary(min_size=10, max_size=10), st.booleans(), st.data())
def test_garbage_from_the_tun(packet, virtio, plain, data):
    """No error, whatever it is. What the slow path would not send is refused where it arrives, if it is sent."""
    raw = bytearray(packet.ljust(48, b"\0"))
    raw[0] = data.draw(st.sampled_from([0x45, 0x60, 0x46, 0x4F]))
    v6 = raw[0] >> 4 == 6
    if v6:
        raw[4:6], raw[6] = (len(raw) - 40).to_bytes(2, "big"), data.draw(st.sampled_from([6, 17, 58, 0, 44]))
        raw[8:40] = ONE6 + PLACE6
    else:
        raw[2:4], raw[9] = len(raw).to_bytes(2, "big"), data.draw(st.sampled_from([6, 17, 1, 4]))
        raw[6:8], raw[10:12], raw[12:20] = bytes(2), bytes(2), ONE4 + PLACE4
        raw[10:12] = scapy_checksum(bytes(raw[: (raw[0] & 15) * 4])).to_bytes(2, "big")
    with host() as lab:
        link, keys = met(lab)
        frames = keys.open(datagrams(lab.give(raw, bytes(10) if plain else virtio)))
        assert all(len(frame) <= link.room and frame[0] in (1, 6, 17) for frame in frames)
        if plain and frames:
            try:
                assert frames == [strip(raw)]
            except BadFrame:
                with pytest.raises(BadFrame):
                    rebuild(frames[0], *way(lab, v6))


class Failing:
    """An AEAD that fails at its third call."""

    def __init__(self, cipher):
        self.cipher = cipher
        self.calls = 0

    def encrypt_into(self, *arguments):
        self.calls += 1
        if self.calls == 3:
            raise ZeroDivisionError
        return self.cipher.encrypt_into(*arguments)


def test_a_fault_of_ours_costs_one_packet(monkeypatch):
    """Nothing of it goes out with the next one, which may be for somebody else."""
    with host() as lab:
        _, keys = met(lab)
        with monkeypatch.context() as patch:
            patch.setattr(send, "aead", lambda *_: Failing(aead(keys.suite, keys.key)))
            with pytest.raises(ZeroDivisionError):
                lab.give(*unfinished(tcp(OUT[False], bytes(5000)), 1000)[::-1])
        other = lab.knows(bytes((100, 64, 0, 10)), bytes(15) + b"\x0a", ("elsewhere", 1), 1400)
        _, others = session(other, Suite.AES, 9)
        packet = udp((ONE4, other.peer.address4), b"x")
        assert others.open(datagrams(lab.give(packet))) == [strip(packet)]
        assert other.tx_bytes == len(strip(packet)) + SEALED


# --- frames that were made elsewhere


@suites
def test_frames_of_others(suite):
    with host() as lab:
        link, keys = met(lab, suite)
        made = link.tunnel.sending
        frames = [bytes((44, 0, 0, 0)) + bytes(796)] * 130 + [bytes((44, 0, 0, 0)) + b"end"]
        lab.sender.frames(link, made, frames, ("elsewhere", 1), True)
        sent = lab.sent()
        assert [len(call.datagrams) for call in sent] == [64, 64, 3]
        assert {(call.address, call.ecn) for call in sent} == {(("elsewhere", 1), 0)}
        assert keys.open(datagrams(sent)) == frames
        calls_are_full(sent)
        lab.sender.frames(link, made, [bytes(4)], PEER, False)
        assert keys.open(datagrams(lab.sent()), 131) == [bytes(4)]
        assert link.tunnel.sent_data == [True, False]
        lab.sender.frames(link, made, [], PEER, False)
        assert lab.sent() == []


def test_each_session_has_its_key_index_and_counter():
    with host() as lab:
        link, keys = met(lab, Suite.AES)
        lab.give(udp(OUT[False], b"1"))
        _, renewed = session(link, Suite.CHACHA, 8)
        for counter in range(3):
            (frame,) = renewed.open(datagrams(lab.give(udp(OUT[False], b"2"))), counter)
            assert frame == strip(udp(OUT[False], b"2"))
        assert keys.index != renewed.index


def test_an_erased_session_seals_nothing():
    with host() as lab:
        link, _ = met(lab)
        made = link.tunnel.sending
        made.sealing.erase()
        with pytest.raises(TypeError):
            lab.give(udp(OUT[False], b"secret"))
        assert lab.wire.sent == []
