"""From the wire to the TUN: whatever is joined, a kernel makes of it the packets that `zignet.wire.rebuild` makes of
each frame by itself, in the same order.
"""

from __future__ import annotations

import gc
import select
import tracemalloc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nat.world import NO_VIRTIO, VIRTIO
from tests.zignet.peers.pair import (
    ALL,
    CSUM,
    FILL,
    GSO_TCP4,
    GSO_TCP6,
    GSO_UDP,
    PEER,
    TSO,
    USO,
    Came,
    Host,
    as_kernel,
    echo,
    host,
    kernel,
    met,
    session,
    tcp,
    trains,
    udp,
    way,
)
from tests.zignet.wire.packets import cases
from zignet.noise import Suite, aead
from zignet.peers import receive
from zignet.peers.receive import WINDOW, Opening
from zignet.wire import (
    BadFrame,
    Farewell,
    FarewellReason,
    Flag,
    Keepalive,
    Ping,
    bundle,
    combine,
    rebuild,
    strip,
)

pytestmark = pytest.mark.packet_path

patient = settings(deadline=None, max_examples=60)
families = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
headers = pytest.mark.parametrize("header", [0, 10], ids=["bare", "virtio"])
suites = pytest.mark.parametrize("suite", list(Suite), ids=["chacha", "aes"])
# What a TUN takes: nothing at all, whole packets under a header, sums left out, everything.
takes = pytest.mark.parametrize(
    ("header", "offload"), [(0, 0), (10, 0), (10, CSUM), (10, ALL)], ids=["bare", "virtio", "sums", "all"]
)
FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80
TIMESTAMP = bytes.fromhex("0101080a0000000100000002")
ELSEWHERE = ("198.51.100.9", 4000)


def frame(packet):
    """As a sender cuts it: the checksum is left to the receiver, but for ICMP."""
    at = 6 if packet[0] >> 4 == 6 else 9
    return strip(packet, partial=packet[at] in (6, 17))


def rebuilt(lab, frames, ecn=0):
    """What the slow path makes of each frame; nothing of one that is not to be carried."""
    packets = []
    for one in frames:
        traffic = combine(one[2], ecn)
        if one[0] in (1, 6, 17) and traffic is not None:
            packets.append(rebuild(one, *way(lab, bool(one[1] & Flag.V6), out=False), traffic=traffic))
    return packets


def stream(lab, v6, payloads, seq=1000, **how):
    """Frames of segments that follow on each other."""
    frames = []
    for payload in payloads:
        frames.append(frame(tcp(way(lab, v6, out=False), payload, seq=seq, **how)))
        seq += len(payload)
    return frames


def sealed(keys, frames, first=0):
    return [keys.seal(counter, bytes(one)) for counter, one in enumerate(frames, first)]


def pattern(size, number=0):
    return bytes((number + at) & 0xFF for at in range(size))


# --- one datagram, one packet


@takes
@suites
def test_a_packet_of_any_kind(header, offload, suite):
    lab = Host(header=header, offload=offload)
    link, keys = met(lab, suite)
    total = count = 0

    @patient
    @given(cases(), st.booleans())
    def check(case, partial):
        nonlocal count, total
        one = case.frame()
        if partial and case.kind != "icmp":
            one = strip(case.sent(*way(lab, case.v6, out=False)), partial=True)
        datagram = keys.seal(count, one)
        (written,) = lab.take([datagram], ecn=case.traffic & 3)
        assert kernel(written.header, written.raw) == [case.received(*way(lab, case.v6, out=False))]
        if header and not (partial and case.kind != "icmp" and offload & CSUM):
            assert written.header == NO_VIRTIO
        count += 1
        total += len(datagram)

    try:
        check()
        assert link.rx_bytes == total
        assert link.tunnel.heard_data == [(link.tunnel.sending, True)] * count
        assert lab.hub.notes == []
        assert not lab.receiver.dropped
        assert lab.receiver.packets_out == count
    finally:
        lab.close()


# --- bundles


@takes
@suites
def test_the_packets_of_a_bundle(header, offload, suite):
    lab = Host(header=header, offload=offload)
    link, keys = met(lab, suite)
    count = 0

    @patient
    @given(st.lists(cases(), max_size=5), st.booleans())
    def check(chosen, partial):
        nonlocal count
        packets = [case.sent(*way(lab, case.v6, out=False)) for case in chosen]
        frames = [frame(one) if partial else strip(one) for one in packets]
        assert lab.read([keys.seal(count, bundle(frames))]) == rebuilt(lab, frames)
        count += 1

    try:
        check()
        assert len(link.tunnel.heard_data) == count
        assert not lab.hub.notes
        assert not lab.receiver.dropped
    finally:
        lab.close()


def test_a_bundle_between_the_segments_of_a_stream():
    """What was joined leaves before it, and is not joined with what is in it or follows."""
    with host() as lab:
        _, keys = met(lab)
        frames = stream(lab, False, [bytes(1000)] * 5)
        inside = [frame(udp(way(lab, False, out=False), b"%d" % number)) for number in range(3)]
        line = [*frames[:2], bundle([*inside, frames[2]]), *frames[3:]]
        datagrams = sealed(keys, line)
        got = lab.read(*trains(datagrams))
        assert got == rebuilt(lab, [*frames[:2], *inside, *frames[2:]])
        assert lab.receiver.packets_out == 6


@pytest.mark.parametrize("ecn", range(4))
def test_the_ecn_field_of_a_bundle_is_that_of_its_packets(ecn):
    with host() as lab:
        _, keys = met(lab)
        inside = [
            frame(udp(way(lab, False, out=False), b"x", traffic=traffic)) for traffic in (0, 1, 2, 3, 0xB8)
        ]
        assert lab.read([keys.seal(0, bundle(inside))], ecn=ecn) == rebuilt(lab, inside, ecn)
        assert lab.receiver.dropped["congestion"] == (2 if ecn == 3 else 0)


GOOD = b"\0\x0d" + strip(udp((bytes(4), bytes(4)), b"x"))


@pytest.mark.parametrize(
    ("rest", "arrives"),
    [
        (b"", 2),
        (GOOD[:-1], 1),
        (b"\0", 1),
        (b"\0\0" + GOOD, 1),
        (b"\0\3" + GOOD[2:5] + GOOD, 1),
        (b"\xff\xff" + GOOD[2:], 1),
        (b"\0\4" + Keepalive().encode() + GOOD, 1),
        (b"\0\4" + b"\xff\0\0\0" + GOOD, 1),
        (b"\0\4" + b"\x04\0\0\0" + GOOD, 2),  # likewise a whole packet that is refused
        (b"\0\x0c" + b"\x2c\0\0\0\0\0\0\1\0\0\0\x10" + GOOD, 1),
        (b"\0\4" + b"\x06\0\0\0" + GOOD, 2),  # a frame that is malformed inside spoils only itself
    ],
)
def test_what_is_wrong_in_a_bundle(rest, arrives):
    with host(plain=False) as lab:
        _, keys = met(lab)
        got = lab.read([keys.seal(0, b"\xff\0\0\0" + GOOD + (rest or GOOD))])
        assert got == rebuilt(lab, [GOOD[2:]]) * arrives
        assert sum((lab.dropped + lab.receiver.dropped).values()) == (1 if rest else 0)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_bundle_with_what_must_be_zero(at):
    with host(plain=False) as lab:
        _, keys = met(lab)
        head = bytearray(b"\xff\0\0\0")
        head[at] = 1
        assert lab.read([keys.seal(0, bytes(head) + GOOD)]) == []
        assert sum(lab.dropped.values()) == 1


def test_udp_without_a_checksum():
    with host() as lab:
        _, keys = met(lab)
        packet = bytearray(udp(way(lab, False, out=False), b"x"))
        packet[26:28] = bytes(2)
        assert lab.read([keys.seal(0, strip(packet))]) == [
            rebuild(strip(packet), *way(lab, False, out=False))
        ]
        assert lab.read([keys.seal(1, bytes((17, Flag.V6)) + strip(packet)[2:])]) == []
        assert lab.receiver.dropped == {"UDP over IPv6 without a checksum": 1}


@takes
@pytest.mark.parametrize("partial", [True, False])
@families
def test_udp_whose_checksum_computes_to_zero(header, offload, partial, v6):
    """It is 0xffff, never 0, which would say that there is none (RFC 768)."""
    with host(header=header, offload=offload) as lab:
        _, keys = met(lab)
        there = way(lab, v6, out=False)
        at = 46 if v6 else 26
        port = int.from_bytes(udp(there, b"ab", ports=(0, 7))[at : at + 2], "big")
        packet = udp(there, b"ab", ports=(port, 7))
        assert packet[at : at + 2] == b"\xff\xff"
        assert lab.read([keys.seal(0, strip(packet, partial=partial))]) == [packet]


@headers
def test_what_the_link_is_told(header):
    """Once for each session and event: all bytes that were authentic, and whether there was data among them."""
    with host(header=header) as lab:
        link, keys = met(lab)
        made = link.tunnel.sending
        control = sealed(keys, [Keepalive().encode(), Ping(bytes(8)).encode()])
        lab.take(control[:1], control[1:])
        assert link.tunnel.heard_data == [(made, False)]
        assert link.rx_bytes == sum(map(len, control))
        data = sealed(keys, stream(lab, False, [pattern(100)] * 3), 2)
        lab.take(data, sealed(keys, [Keepalive().encode()], 5), [keys.seal(6, bytes(4))[:-1] + b"\0"])
        assert link.tunnel.heard_data == [(made, False), (made, True)]
        assert link.rx_bytes == sum(map(len, [*control, *data])) + 36
        lab.take([b"\4" + bytes(40)])
        assert len(link.tunnel.heard_data) == 2


# --- joining


@families
@suites
def test_segments_that_follow_become_one(v6, suite):
    with host() as lab:
        _, keys = met(lab, suite)
        payloads = [pattern(1000, n) for n in range(9)] + [pattern(700)]
        frames = stream(lab, v6, payloads, options=TIMESTAMP)
        (written,) = lab.take(sealed(keys, frames))
        assert as_kernel([written]) == rebuilt(lab, frames)
        start = 40 if v6 else 20
        assert VIRTIO.unpack(written.header) == (
            1, GSO_TCP6 if v6 else GSO_TCP4, start + 32, 1000, start, 16,
        )  # fmt: skip
        assert written.raw[start + 32 :] == b"".join(payloads)


@families
@suites
def test_datagrams_of_one_size_become_one(v6, suite):
    with host() as lab:
        _, keys = met(lab, suite)
        packets = [udp(way(lab, v6, out=False), pattern(900, n)) for n in range(9)]
        packets.append(udp(way(lab, v6, out=False), pattern(1)))
        (written,) = lab.take(sealed(keys, map(frame, packets)))
        assert as_kernel([written]) == packets
        assert VIRTIO.unpack(written.header)[1:4] == (GSO_UDP, (40 if v6 else 20) + 8, 900)


@pytest.mark.parametrize("offload", [0, CSUM, CSUM | TSO, CSUM | USO, CSUM | 2, CSUM | 0x20, TSO | USO, ALL])
@families
def test_only_what_the_tun_takes_is_joined(v6, offload):
    with host(offload=offload) as lab:
        _, keys = met(lab)
        segments = stream(lab, v6, [pattern(100, n) for n in range(3)])
        datagrams = [frame(udp(way(lab, v6, out=False), pattern(100, n))) for n in range(3)]
        written = lab.take(*trains(sealed(keys, segments + datagrams)))
        assert as_kernel(written) == rebuilt(lab, segments + datagrams)
        joins_tcp = offload & (CSUM | TSO) == CSUM | TSO
        joins_udp = offload & (CSUM | USO) == CSUM | USO
        assert len(written) == (1 if joins_tcp else 3) + (1 if joins_udp else 3)


@families
def test_what_has_its_checksum_is_not_joined(v6):
    """Whole checksums stand for themselves: a super-packet has none."""
    with host() as lab:
        _, keys = met(lab)
        packets = [tcp(way(lab, v6, out=False), pattern(100), seq=1000 + 100 * n) for n in range(3)]
        written = lab.take(sealed(keys, map(strip, packets)))
        assert [each.raw for each in written] == packets
        assert {each.header for each in written} == {NO_VIRTIO}


def others():
    """For each difference: how a segment in the middle differs, and into how many packets six segments then fall."""
    yield "push", {"flags": PSH | ACK}, 2
    yield "end", {"flags": FIN | ACK}, 3
    yield "reset", {"flags": RST | ACK}, 3
    yield "urgent", {"flags": URG | ACK, "urgent": 5}, 3
    yield "urgent pointer alone", {"urgent": 5}, 3
    yield "congestion echo", {"flags": ECE | ACK}, 3
    yield "window reduced", {"flags": CWR | ACK}, 3
    yield "no ack", {"flags": 0}, 3
    yield "acknowledgement", {"ack": 2001}, 3
    yield "window", {"window": 501}, 3
    yield "options", {"options": TIMESTAMP[:-1] + b"\3"}, 3
    yield "fewer options", {"options": TIMESTAMP[:4]}, 3
    yield "source port", {"ports": (40_001, 443)}, 3
    yield "target port", {"ports": (40_000, 444)}, 3
    yield "hop limit", {"hops": 63}, 3
    yield "traffic class", {"traffic": 0x20}, 3
    yield "a gap in front", {"gap": 1}, 2
    yield "a step back", {"gap": -1}, 2


@pytest.mark.parametrize(
    ("what", "packets"), [case[1:] for case in others()], ids=[case[0] for case in others()]
)
@pytest.mark.parametrize("at", [1, 2, 4])
@families
def test_a_segment_that_differs(v6, what, packets, at):
    """It and those around it are all right, and nothing is joined that a kernel would not join."""
    what = dict(what)
    gap = what.pop("gap", 0)
    with host() as lab:
        _, keys = met(lab)
        usual = {"options": TIMESTAMP}
        frames = stream(lab, v6, [pattern(300, n) for n in range(at)], **usual)
        frames += stream(lab, v6, [pattern(300, 77)], 1000 + 300 * at + gap, **usual | what)
        frames += stream(
            lab, v6, [pattern(300, n) for n in range(6, 11 - at)], 1300 + 300 * at + gap, **usual
        )
        written = lab.take(*trains(sealed(keys, frames)))
        assert as_kernel(written) == rebuilt(lab, frames)
        assert len(written) == packets


@families
def test_a_larger_segment_begins_anew_and_a_smaller_one_ends(v6):
    with host() as lab:
        _, keys = met(lab)
        frames = stream(lab, v6, [pattern(size) for size in (100, 100, 101, 101, 50, 50, 50, 49, 50)])
        written = lab.take(*([datagram] for datagram in sealed(keys, frames)))
        assert as_kernel(written) == rebuilt(lab, frames)
        sizes = [VIRTIO.unpack(each.header)[3] for each in written]
        assert [len(each.raw) for each in written] == [
            (60 if v6 else 40) + size for size in (200, 252, 149, 50)
        ]
        assert sizes == [100, 101, 50, 0]


@families
def test_acknowledgements_pass_between(v6):
    """Segments without payload are never joined, and nothing passes another."""
    with host() as lab:
        _, keys = met(lab)
        data = stream(lab, v6, [pattern(400, n) for n in range(4)])
        pure = [frame(tcp(way(lab, v6, out=False), ack=n, ports=(1, 2))) for n in range(3)]
        frames = [pure[0], data[0], data[1], pure[1], pure[2], data[2], data[3]]
        written = lab.take(*([datagram] for datagram in sealed(keys, frames)))
        assert as_kernel(written) == rebuilt(lab, frames)
        assert len(written) == 5


@families
def test_the_sequence_number_wraps(v6):
    with host() as lab:
        _, keys = met(lab)
        frames = stream(lab, v6, [pattern(1000, n) for n in range(5)], 2**32 - 1500)
        frames = [
            bytes(one[:8]) + (int.from_bytes(one[8:12], "big")).to_bytes(4, "big") + one[12:]
            for one in frames
        ]
        (written,) = lab.take(sealed(keys, frames))
        assert as_kernel([written]) == rebuilt(lab, frames)


@families
@pytest.mark.parametrize("size", [100, 300, 1400, 8800])
def test_a_packet_grows_no_larger_than_a_packet_can_be(v6, size):
    """Many receive calls of one event are joined on, up to what an IP packet holds; of UDP 64 datagrams."""
    with host() as lab:
        _, keys = met(lab)
        count = 140_000 // size
        frames = stream(lab, v6, [pattern(size, n) for n in range(count)])
        batches = [sealed(keys, frames[n : n + 7], n) for n in range(0, len(frames), 7)]
        written = []
        while batches:
            written += lab.take(*batches[:31])
            del batches[:31]
        assert as_kernel(written) == rebuilt(lab, frames)
        assert max(len(each.raw) for each in written) <= 65_535
        if size > 300:
            assert len(written) == 3
        packets = [udp(way(lab, v6, out=False), pattern(size, n)) for n in range(65)]
        written = lab.take(*([each] for each in sealed(keys, map(frame, packets), count)[:32]))
        written += lab.take(*([each] for each in sealed(keys, map(frame, packets), count)[32:64]))
        assert as_kernel(written) == packets[:64]
        batch = sealed(keys, map(frame, packets), count + 64)
        written = lab.take(*(batch[n : n + 5] for n in range(0, 65, 5)))
        assert as_kernel(written) == packets
        if size <= 300:
            assert len(written) == 2  # 64, and one


@families
def test_the_largest_frame(v6):
    with host() as lab:
        _, keys = met(lab)
        packet = tcp(way(lab, v6, out=False), pattern(65_507 - 32 - 4 - 20))
        assert lab.read([keys.seal(0, frame(packet))]) == [packet]


@families
def test_lost_repeated_and_out_of_order(v6):
    """Every order of arrival gives the packets in that order, each once."""
    with host() as lab:
        _, keys = met(lab)
        frames = stream(lab, v6, [pattern(500, n) for n in range(12)])
        datagrams = sealed(keys, frames)
        order = [0, 1, 3, 2, 4, 4, 5, 8, 9, 10, 1, 6, 11]
        expected = [0, 1, 3, 2, 4, 5, 8, 9, 10, 6, 11]
        for split in (True, False):
            lab.openings[7].__init__(*keys[:2], 7)  # as if nothing had been seen
            lab.openings[7].peer = lab.sender.peers[way(lab, v6)[1]].link
            lab.openings[7].session = lab.openings[7].peer.tunnel.sending
            batches = [[datagrams[n]] for n in order] if split else [[datagrams[n] for n in order]]
            written = lab.take(*batches)
            assert as_kernel(written) == rebuilt(lab, [frames[n] for n in expected])
        assert lab.receiver.dropped == {"replayed or too old": 4}


@families
@pytest.mark.parametrize("size", [60, 300])
def test_control_frames_between_data(v6, size):
    with host() as lab:
        link, keys = met(lab)
        made = link.tunnel.sending
        data = stream(lab, v6, [pattern(size, n) for n in range(6)])
        ping, bye = Ping(b"12345678").encode(), Farewell(FarewellReason.STOPPED).encode()
        padded = bytes(data[0][:0]) + ping + bytes(len(data[0]) - len(ping))  # of the size of the others
        frames = [data[0], data[1], padded, data[2], bye, data[3], data[4], bytes(4), data[5]]
        written = lab.take(*([each] for each in sealed(keys, frames)))
        assert as_kernel(written) == rebuilt(lab, frames)
        assert lab.hub.of("control") == [
            (link, made, one, PEER, len(one) + 32) for one in (padded, bye, bytes(4))
        ]
        frames = [data[0], data[1], padded, data[2], data[3]]
        written = lab.take(sealed(keys, frames, 9))
        assert as_kernel(written) == rebuilt(lab, frames)


# --- ECN (RFC 6040)


@families
@headers
@pytest.mark.parametrize("outer", range(4))
def test_congestion_marks(v6, header, outer):
    with host(header=header) as lab:
        link, keys = met(lab)
        packets = [
            make(way(lab, v6, out=False), b"data", traffic=0xB8 | inner)
            for inner in range(4)
            for make in (tcp, udp, echo)
        ]
        frames = [frame(packet) for packet in packets]
        frames[::3] = [strip(packet) for packet in packets[::3]]
        written = lab.read(*([each] for each in sealed(keys, frames)), ecn=outer)
        assert written == rebuilt(lab, frames, outer)
        assert lab.receiver.dropped == ({"congestion": 3} if outer == 3 else {})
        assert link.tunnel.heard_data[-1] == (link.tunnel.sending, True)


@families
def test_marked_segments_are_joined_by_what_comes_of_their_marks(v6):
    with host() as lab:
        _, keys = met(lab)
        frames = stream(lab, v6, [pattern(100, n) for n in range(8)], traffic=2)
        datagrams = sealed(keys, frames)
        marks = [2, 2, 3, 3, 2, 0, 2, 1]
        written = lab.take(*(Came(each, 0, PEER, mark) for each, mark in zip(datagrams, marks, strict=True)))
        expected = [
            packet for one, mark in zip(frames, marks, strict=True) for packet in rebuilt(lab, [one], mark)
        ]
        assert as_kernel(written) == expected
        assert len(written) == 4


def test_a_mark_says_nothing_on_control_frames_and_pieces():
    with host() as lab:
        link, keys = met(lab)
        piece = bytes((44, 0, 0, 0)) + bytes(20)
        lab.take(*([each] for each in sealed(keys, [Keepalive().encode(), piece])), ecn=3)
        assert [note[0] for note in lab.hub.notes] == ["control", "slow_frame"]
        assert lab.hub.of("slow_frame") == [(link, link.tunnel.sending, piece)]
        assert not lab.receiver.dropped


@families
def test_what_is_dropped_for_its_mark_leaves_its_neighbours(v6):
    with host() as lab:
        _, keys = met(lab)
        frames = stream(lab, v6, [pattern(100, n) for n in range(5)])
        marks = [0, 0, 3, 0, 0]
        batches = [Came(each, 0, PEER, mark) for each, mark in zip(sealed(keys, frames), marks, strict=True)]
        assert lab.read(*batches) == rebuilt(lab, [frames[n] for n in (0, 1, 3, 4)])


# --- sessions


@families
def test_two_peers_in_one_batch(v6):
    """Behind one address: each one's packets come from its own addresses, whatever is between them."""
    with host() as lab:
        link, keys = met(lab)
        other = lab.knows(bytes((100, 64, 0, 10)), bytes(15) + b"\x0a", PEER, 1400)
        made, other_keys = session(other, Suite.AES, 9)
        lab.openings[9] = made.opening
        there = way(lab, v6, out=False)
        here = (other.peer.address6 if v6 else other.peer.address4, there[1])
        batch, expected, counters = [], [], {7: 0, 9: 0}
        for n, whose in enumerate("aabbababbbaaa"):
            one_keys, pair = (keys, there) if whose == "a" else (other_keys, here)
            packet = tcp(pair, pattern(300, n), seq=1000 + 300 * n)
            batch.append(one_keys.seal(counters[one_keys.index], frame(packet)))
            counters[one_keys.index] += 1
            expected.append(packet)
        assert lab.read(batch) == expected
        assert link.rx_bytes + other.rx_bytes == sum(map(len, batch))
        assert other.rx_bytes == 6 * len(batch[0])


@families
def test_a_session_that_renews_another_is_joined_on(v6):
    """Two sessions of one peer: what goes on from one to the next is one stream."""
    with host() as lab:
        link, keys = met(lab)
        before = link.tunnel.sending
        made, renewed = session(link, Suite.CHACHA, 8)
        lab.openings[8] = made.opening
        frames = stream(lab, v6, [pattern(300, n) for n in range(6)])
        written = lab.take(sealed(keys, frames[:3]) + sealed(renewed, frames[3:]))
        assert as_kernel(written) == rebuilt(lab, frames)
        assert len(written) == 1
        assert [session for session, _ in link.tunnel.heard_data] == [before, made]


@pytest.mark.parametrize("size", [100, 300])
def test_data_that_is_joined_on_is_data_of_its_session(size):
    with host() as lab:
        link, keys = met(lab)
        made, renewed = session(link, Suite.CHACHA, 8)
        lab.openings[8] = made.opening
        frames = stream(lab, False, [pattern(size, n) for n in range(6)])
        lab.take(sealed(keys, frames[:3]) + sealed(renewed, frames[3:]))
        assert [is_data for _, is_data in link.tunnel.heard_data] == [True, True]


@families
@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("where", ["the same batch", "the next batch"])
def test_one_peer_cannot_write_into_anothers_packet(v6, kind, where):
    """Behind a datagram of A's, and one of its own that is not fresh, B's data is still B's, whatever it looks like."""
    address = PEER if where == "the same batch" else ELSEWHERE
    with host() as lab:
        _, keys = met(lab)
        other = lab.knows(bytes((100, 64, 0, 10)), bytes(15) + b"\x0a", address, 1400)
        made, other_keys = session(other, Suite.CHACHA, 9)
        lab.openings[9] = made.opening
        there = way(lab, v6, out=False)
        here = (other.peer.address6 if v6 else other.peer.address4, there[1])
        if kind == "tcp":
            a, b = (tcp(pair, pattern(300), seq=seq) for pair, seq in ((there, 1000), (here, 1300)))
        else:
            a, b = (udp(pair, pattern(300)) for pair in (there, here))
        old = other_keys.seal(0, frame(b))
        assert lab.read([old], address=address) == [b]
        batches = [keys.seal(0, frame(a))], [old, other_keys.seal(1, frame(b))]
        if where == "the same batch":
            assert lab.read([*batches[0], *batches[1]]) == [a, b]
        else:
            assert lab.read(batches[0], Came(b"".join(batches[1]), len(old), address, 0)) == [a, b]


def test_a_session_is_taken_until_its_time_is_over():
    with host() as lab:
        _, keys = met(lab)
        lab.openings[7].until = 1000.5
        packet = udp(way(lab, False, out=False), b"x")
        lab.loop.now = 1000.4
        assert lab.read([keys.seal(0, frame(packet))]) == [packet]
        lab.loop.now = 1000.5
        assert lab.read([keys.seal(1, frame(packet))]) == []
        assert lab.receiver.dropped == {"session too old": 1}


@families
@pytest.mark.parametrize("size", [60, 300])
def test_an_erased_key_opens_nothing(v6, size):
    """Also when it goes in the middle of a batch: what a farewell does."""
    with host() as lab:
        link, keys = met(lab)
        frames = stream(lab, v6, [pattern(size, n) for n in range(4)])
        bye = Farewell(FarewellReason.STOPPED).encode().ljust(len(frames[0]), b"\0")
        lab.hub.control = lambda link, session, *_: session.erase()
        batch = sealed(keys, [frames[0], frames[1], bye, frames[2], frames[3]])
        assert lab.read(batch) == rebuilt(lab, frames[:2])
        assert lab.receiver.dropped == {"not authentic": 2}
        assert lab.read(sealed(keys, frames, 5)) == []
        assert link.rx_bytes == sum(map(len, batch[:3]))


@families
def test_an_erased_key_in_the_middle_of_a_stream(v6):
    with host() as lab:
        _, keys = met(lab)
        frames = stream(lab, v6, [pattern(300, n) for n in range(6)])
        datagrams = sealed(keys, frames)
        opening = lab.openings[7]

        class Going:
            """The wire, which erases the key between two batches of one event."""

            def receive_into(self, buffer):
                if len(lab.wire.coming) == 1:
                    opening.erase()
                return lab.wire.receive_into(buffer)

        lab.receiver.__init__(lab.loop, Going(), lab.device, lab.openings)
        lab.receiver.hub = lab.hub
        assert lab.read(datagrams[:3], datagrams[3:]) == rebuilt(lab, frames[:3])
        assert lab.receiver.dropped == {"not authentic": 3}


class Somebody:
    """A peer whose end can be seen."""

    address = PEER

    def received(self, *_):
        pass


def test_an_erased_key_keeps_nobody_in_memory():
    with host() as lab:
        link, keys = met(lab)
        made, opening = link.tunnel.sending, lab.openings[7]
        opening.peer = somebody = Somebody()
        gone = weakref.ref(somebody)
        lab.take([keys.seal(0, Keepalive().encode())])
        made.erase()
        lab.openings.clear()
        lab.hub.notes.clear()
        del opening, somebody, made
        link.tunnel.sending = None
        gc.collect()
        assert gone() is None


def test_an_index_that_stands_for_nothing():
    with host() as lab:
        met(lab)
        for index in (1, 8, 0, 0xFFFFFFFF):
            lab.take([b"\4\0\0\0" + index.to_bytes(4, "little") + bytes(40)])
        assert lab.receiver.dropped == {"no such session": 4}
        assert lab.hub.notes == []


@families
@pytest.mark.parametrize("admitted", [True, False])
def test_the_first_message_of_a_session(v6, admitted):
    """The hub is asked before the frame is looked at, and once."""
    with host() as lab:
        link, keys = met(lab)
        made, opening = link.tunnel.sending, lab.openings[7]
        opening.peer = None
        lab.hub.admits = link if admitted else None
        frames = stream(lab, v6, [pattern(300, n) for n in range(3)])
        written = lab.read(sealed(keys, frames))
        if admitted:
            assert lab.hub.notes == [("first", made, PEER)]
            assert written == rebuilt(lab, frames)
            assert link.rx_bytes == 3 * (len(frames[0]) + 32)
        else:
            assert lab.hub.notes == [("first", made, PEER)] * 3
            assert written == []
            assert lab.receiver.dropped == {"not admitted": 3}
            assert link.rx_bytes == 0


@families
def test_datagrams_from_another_address(v6):
    """They are taken; the hub hears of each, with its size."""
    with host() as lab:
        link, keys = met(lab)
        frames = stream(lab, v6, [pattern(300, n) for n in range(4)])
        batch = sealed(keys, frames)
        written = lab.take(Came(b"".join(batch[:3]), len(batch[0]), ELSEWHERE, 0), batch[3:])
        assert as_kernel(written) == rebuilt(lab, frames)
        assert len(written) == 1
        assert lab.hub.notes == [("moved", link, ELSEWHERE, len(batch[0]))] * 3


def test_messages_that_are_no_data_go_to_the_hub_as_they_came():
    with host() as lab:
        _, keys = met(lab)
        data = stream(lab, False, [pattern(184, n) for n in range(2)])
        first, second = sealed(keys, data)
        initiation = b"\1" + pattern(len(first) - 1)
        written = lab.read([first, initiation, second, b"\2"])
        assert written == rebuilt(lab, data)
        assert lab.hub.notes == [("handshake", initiation, PEER), ("handshake", b"\2", PEER)]
        lab.take(Came(b"\0", 0, ELSEWHERE, 0), Came(b"", 0, ELSEWHERE, 0), Came(b"\xff" * 65_507, 0, PEER, 0))
        assert lab.hub.notes[2:] == [("handshake", b"\0", ELSEWHERE), ("handshake", b"\xff" * 65_507, PEER)]


# --- what is damaged


@families
@suites
@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("size", [90, 300])
def test_a_flipped_bit_costs_its_datagram_and_no_other(v6, suite, kind, size):
    """Any bit of any datagram of a batch: the tail that the damaged one had covered is put back.

    Segments of 256 bytes and more may take the quick way, smaller ones never do.
    """
    with host() as lab:
        link, keys = met(lab, suite)
        count = 0
        for damaged in range(5):
            for byte in (0, 1, 3, 4, 7, 8, 15, 16, 17, 40, 60, 90, -17, -16, -1):
                if kind == "tcp":
                    frames = stream(lab, v6, [pattern(size, n + count) for n in range(5)])
                else:
                    frames = [frame(udp(way(lab, v6, out=False), pattern(size, n + count))) for n in range(5)]
                batch = [bytearray(each) for each in sealed(keys, frames, count)]
                batch[damaged][byte] ^= 1 << (count % 8) or 1
                expected = rebuilt(lab, [one for n, one in enumerate(frames) if n != damaged])
                assert lab.read(batch) == expected
                count += 5
        assert lab.receiver.dropped["not authentic"] > 0
        assert link.tunnel.heard_data[-1][1]


@families
@pytest.mark.parametrize("size", [90, 300])
def test_all_damaged_but_one(v6, size):
    for good in range(4):
        with host() as lab:
            _, keys = met(lab)
            frames = stream(lab, v6, [pattern(size, n) for n in range(4)])
            batch = [bytearray(each) for each in sealed(keys, frames)]
            for n, each in enumerate(batch):
                each[30] ^= n != good
            assert lab.read(batch) == rebuilt(lab, frames[good : good + 1])
            assert lab.receiver.dropped == {"not authentic": 3}


@families
def test_cut_off_anywhere(v6):
    with host() as lab:
        _, keys = met(lab)
        frames = stream(lab, v6, [pattern(20, n) for n in range(3)])
        count = 0
        for end in range(1, len(frames[0]) + 32):
            batch = sealed(keys, frames, count)
            assert lab.read(batch[:2], [batch[2][:end]]) == rebuilt(lab, frames[:2])
            assert lab.read([batch[2]]) == rebuilt(lab, frames[2:])  # its counter was not marked
            assert lab.read([batch[2] + b"\0"]) == []
            count += 3
        dropped = lab.receiver.dropped
        assert dropped["malformed"] == 35
        assert dropped["not authentic"] == end - 35
        assert dropped["replayed or too old"] == end
        assert sum(dropped.values()) == 2 * end


def test_reserved_bytes():
    with host() as lab:
        _, keys = met(lab)
        packet = udp(way(lab, False, out=False), b"x")
        for at in (1, 2, 3):
            datagram = bytearray(keys.seal(0, frame(packet)))
            datagram[at] = 1
            assert lab.read([datagram]) == []
        assert lab.receiver.dropped == {"malformed": 3}
        assert lab.read([keys.seal(0, frame(packet))]) == [packet]


def test_a_frame_without_a_header():
    with host() as lab:
        _, keys = met(lab)
        for size in range(4):
            lab.take([keys.seal(size, bytes(size))])
        assert lab.receiver.dropped == {"malformed": 4}
        assert lab.hub.notes == []


INNER = {
    "tcp offset below 5": (6, 0, bytes(12) + b"\x40" + bytes(7)),
    "tcp offset beyond": (6, 0, bytes(12) + b"\x60" + bytes(11)[:9]),
    "udp length too short": (17, 2, bytes(4) + b"\0\7\0\0" + b"x"),
    "udp length too long": (17, 0, bytes(4) + b"\0\x0a\1\1" + b"x"),
    "udp length of the header alone": (17, 2, bytes(4) + b"\0\x08\0\0" + b"x"),
}


@families
@pytest.mark.parametrize("name", INNER)
def test_lengths_that_lie(v6, name):
    """As the slow path says, nothing is written; and what was joined before leaves whole."""
    protocol, flags, body = INNER[name]
    wrong = bytes((protocol, flags | v6, 0, 64)) + body
    with host(plain=False) as lab:
        _, keys = met(lab)
        with pytest.raises(BadFrame):
            rebuild(wrong, *way(lab, v6, out=False))
        data = stream(lab, v6, [b"1", b"2", b"3", b"4"])
        frames = [data[0], data[1], wrong, data[2], data[3]]
        for count, batches in enumerate(
            (trains(sealed(keys, frames)), [[each] for each in sealed(keys, frames, 5)]), 1
        ):
            assert lab.read(*batches) == rebuilt(lab, data)
            assert (lab.receiver.dropped + lab.dropped).total() == count


UNKNOWN = {
    "exit": bytes((6, 4, 0, 64)) + bytes(20),
    "tcp flags": bytes((6, 8, 0, 64)) + bytes(20),
    "udp flags": bytes((17, 0x80, 0, 64)) + bytes(8),
    "partial icmp": bytes((1, 2, 0, 64, 8)) + bytes(7),
    "whole packet": bytes((4, 0, 0, 0)) + bytes(28),
    "piece": bytes((44, 0, 0, 0)) + bytes(20),
    "hop-by-hop": bytes((0x2B, 0, 0, 0)) + bytes(20),
    "sctp": bytes((132, 0, 0, 0)) + bytes(20),
    "icmpv6 number": bytes((58, 1, 0, 64, 128)) + bytes(7),
    "icmp error": bytes((1, 0, 0, 64, 3, 3)) + bytes(34),
    "icmpv6 in v4": bytes((1, 0, 0, 64, 128)) + bytes(7),
    "icmp in v6": bytes((1, 1, 0, 64, 8)) + bytes(7),
    "short tcp": bytes((6, 2, 0, 64)) + bytes(19),
    "short udp": bytes((17, 2, 0, 64)) + bytes(7),
    "short icmp": bytes((1, 0, 0, 64)) + bytes(7),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_the_rest_is_handed_over_as_it_was_sealed(name):
    with host() as lab:
        link, keys = met(lab)
        data = stream(lab, False, [b"1", b"2", b"3"])
        frames = [data[0], data[1], UNKNOWN[name], data[2]]
        assert lab.read(*([each] for each in sealed(keys, frames))) == rebuilt(lab, data)
        assert lab.hub.notes == [("slow_frame", link, link.tunnel.sending, UNKNOWN[name])]
        assert not lab.receiver.dropped


def test_surplus_behind_a_datagram_stays():
    """RFC 9868: bytes of the IP packet behind the UDP length are options. The slow path carries them."""
    with host(plain=False) as lab:
        _, keys = met(lab)
        packet = bytearray(udp(way(lab, False, out=False), b"abSURPLUS"))
        packet[24:26] = (10).to_bytes(2, "big")
        packet[26:28] = bytes(2)
        data = [frame(udp(way(lab, False, out=False), b"x" * 9)), strip(packet)]
        assert lab.read(sealed(keys, data)) == rebuilt(lab, data)


# --- counters


class Seen:
    """The naive window: a set."""

    def __init__(self):
        self.counters = set()

    def fresh(self, counter):
        if counter in self.counters:
            return False
        return not self.counters or counter + WINDOW > max(self.counters)


jumps = st.one_of(
    st.integers(-600, 600),
    st.integers(-WINDOW - 2, -WINDOW + 2),
    st.integers(WINDOW - 2, WINDOW + 2),
    st.integers(505, 520),
    st.integers(0, 3 * WINDOW),
    st.just(1),
)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 100) | st.integers(0, 600) | st.integers(0, 2**59), st.lists(jumps, max_size=120))
def test_the_window_is_a_set_with_an_end(start, jumps):
    opening, naive = Opening(Suite.CHACHA, bytes(32), 7), Seen()
    counter = start
    for jump in [0, *jumps]:
        counter = max(0, counter + jump)
        assert opening.fresh(counter) == naive.fresh(counter)
        if naive.fresh(counter):
            opening.mark(counter)
            naive.counters.add(counter)
            assert not opening.fresh(counter)
        counter = max(naive.counters) if jump % 3 else counter
    assert opening.expected == max(naive.counters) + 1
    assert opening.received == len(naive.counters)


@pytest.mark.parametrize("first", [0, 1, 60, 63, 64, 65, 511, 512, 8191, 8192, 8193, 2**40])
def test_every_counter_around_the_window_s_growth(first):
    """Every second counter is marked, up and over the window; then all are looked at."""
    opening, naive = Opening(Suite.CHACHA, bytes(32), 7), Seen()
    for counter in range(first, first + WINDOW + 1200, 2):
        opening.mark(counter)
        naive.counters.add(counter)
    newest = max(naive.counters)
    for counter in range(max(0, first - 3), first + WINDOW + 1205):
        fresh = counter not in naive.counters and counter + WINDOW > newest
        assert opening.fresh(counter) == fresh, counter


def test_the_window_grows_in_place_and_stays_small_until_then():
    """A session that has carried little costs little; nothing that was seen is forgotten by the growth."""
    opening = Opening(Suite.CHACHA, bytes(32), 7)
    for counter in range(0, 64, 3):
        opening.mark(counter)
    opening.mark(900)
    assert [counter for counter in range(900) if not opening.fresh(counter)] == list(range(0, 64, 3))


@families
@pytest.mark.parametrize("size", [60, 300])
def test_a_replay_is_dropped_whatever_its_place(v6, size):
    with host() as lab:
        _, keys = met(lab)
        frames = stream(lab, v6, [pattern(size, n) for n in range(4)])
        batch = sealed(keys, frames)
        assert lab.read(batch + batch) == rebuilt(lab, frames)
        assert lab.read(batch[:1], batch[3:], batch) == []
        assert lab.receiver.dropped == {"replayed or too old": 10}


@families
@pytest.mark.parametrize("size", [30, 300])
def test_a_long_stream_over_the_windows_end(v6, size):
    """The quick way marks what it opens, too: every counter of a long run is known afterwards."""
    with host() as lab:
        _, keys = met(lab)
        frames = stream(lab, v6, [pattern(size, n) for n in range(60)])
        for first in (0, 40, 63, 480, 495, 8160, 8175, 16_350, 2**33 - 30):
            opening = lab.openings[7]
            opening.__init__(*keys[:2], 7)
            opening.peer = lab.sender.peers[way(lab, v6)[1]].link
            opening.session = opening.peer.tunnel.sending
            for counter in range(first - 200, first):
                if counter >= 0:
                    opening.mark(counter)
            batch = sealed(keys, frames, first)
            assert lab.read(batch[:20], batch[20:40], batch[40:]) == rebuilt(lab, frames)
            assert not any(opening.fresh(first + n) for n in range(60))
            assert opening.fresh(first + 60)
            assert opening.expected == first + 60
            assert lab.read(batch) == []


def test_counters_end():
    """Protocol §4: at most 2^60 messages with one key."""
    with host() as lab:
        _, keys = met(lab)
        one = frame(udp(way(lab, False, out=False), b"x"))
        cipher = aead(keys.suite, keys.key)
        for counter in (2**60, 2**64 - 1):
            sealed_frame = cipher.encrypt(bytes(4) + counter.to_bytes(8, "little"), one, None)
            datagram = b"\4\0\0\0" + (7).to_bytes(4, "little") + counter.to_bytes(8, "little") + sealed_frame
            assert lab.read([datagram]) == []


# --- the TUN does not take it


class Unwritable(Host):
    """A TUN whose every write the real kernel answers with EINVAL: an epoll."""

    def __init__(self, **how):
        super().__init__(**how)
        self.epoll = select.epoll()
        self.device.fileno = self.epoll.fileno
        self.receiver.__init__(self.loop, self.wire, self.device, self.openings)
        self.receiver.hub = self.hub

    def close(self):
        self.epoll.close()
        super().close()


@families
def test_a_refused_super_packet_switches_offload_off(v6):
    lab = Unwritable()
    try:
        _, keys = met(lab)
        frames = stream(lab, v6, [pattern(100, n) for n in range(3)])
        lab.take(sealed(keys, frames[:1]))
        assert (lab.device.disabled, lab.receiver.join_tcp) == (0, True)
        lab.take(sealed(keys, frames[:2], 1))
        assert (lab.device.disabled, lab.receiver.join_tcp) == (1, False)
        assert (lab.receiver.join_udp, lab.receiver.sums) == (False, False)
        lab.take(sealed(keys, frames, 3))
        assert lab.receiver.dropped == {"tun write: Invalid argument": 5}
        assert lab.receiver.packets_out == 0
    finally:
        lab.close()


def test_a_full_tun_drops_and_counts():
    with host() as lab:
        _, keys = met(lab)
        packet = frame(tcp(way(lab, False, out=False), bytes(60_000)))
        for count in range(80):
            lab.wire.coming.append(Came(keys.seal(count, packet), 0, PEER, 0))
            lab.receiver.on_event(1)
        dropped = lab.receiver.dropped["tun write: Resource temporarily unavailable"]
        assert dropped > 0
        assert lab.receiver.packets_out == 80 - dropped
        assert lab.device.disabled == 0


def test_no_more_than_so_many_calls_in_one_event():
    with host() as lab:
        _, keys = met(lab)
        frames = stream(lab, False, [pattern(50, n) for n in range(40)])
        written = lab.read(*([each] for each in sealed(keys, frames)))
        assert written == rebuilt(lab, frames[:32])
        assert lab.read() == rebuilt(lab, frames[32:])


def test_a_fault_of_ours_costs_one_batch():
    with host() as lab:
        _, keys = met(lab)
        frames = stream(lab, False, [pattern(50, n) for n in range(4)])
        lab.hub.control = lambda *_: 1 // 0
        with pytest.raises(ZeroDivisionError):
            lab.take(sealed(keys, [frames[0], bytes(4)]))
        lab.receiver.abort()
        assert lab.receiver.dropped == {"internal error": 1}
        lab.written()
        assert lab.read(sealed(keys, frames[1:], 2)) == rebuilt(lab, frames[1:])


# --- memory


class Watching:
    """An AEAD that shows the buffer into which frames are opened."""

    def __init__(self, cipher):
        self.cipher = cipher
        self.buffer = None

    def decrypt_into(self, nonce, data, associated, out):
        self.buffer = out.obj
        return self.cipher.decrypt_into(nonce, data, associated, out)


@families
@pytest.mark.parametrize("size", [1, 300, 1400])
def test_nothing_is_written_outside_of_the_packet(v6, size, monkeypatch):
    """Of the buffer that frames are opened into: the headers in front, the frames, and no byte around them."""
    with host() as lab:
        _, keys = met(lab)
        watching = Watching(aead(*keys[:2]))
        monkeypatch.setattr(receive, "aead", lambda *_: watching)
        frames = stream(lab, v6, [pattern(size, n) for n in range(5)], options=bytes((1,)) * 40)
        lab.take(sealed(keys, frames[:1]))
        plain = watching.buffer
        assert isinstance(plain, bytearray)
        base = plain.find(frames[0][4:20]) - 4  # where frames begin
        for count, batch in enumerate((frames, [frames[0], frames[2], frames[1], frames[4], frames[3]])):
            plain[:] = FILL * len(plain)
            damaged = bytearray(keys.seal(900 + count, frames[2]))
            damaged[-1] ^= 1
            written = lab.take([*sealed(keys, batch, 1 + 5 * count), damaged])
            assert as_kernel(written) == rebuilt(lab, batch)
            front = (36 if v6 else 16) + 10
            assert plain[: base - front] == FILL * (base - front)
            end = base + len(frames[0]) + 5 * size
            assert plain[end:] == FILL * (len(plain) - end)


def test_tiny_segments_do_not_cost_megabytes():
    """A peer chooses the sizes of its segments, and so how many views of the buffer there are to keep."""
    with host() as lab:
        _, keys = met(lab)
        frames = stream(lab, False, [b"a", b"b", b"c"])
        tracemalloc.start()
        try:
            assert lab.read(sealed(keys, frames)) == rebuilt(lab, frames)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()


# --- all together


def kinds(lab):
    """Frames of every kind, in flows of a few."""
    ports = st.sampled_from([(1, 2), (3, 4)])
    size = st.sampled_from([0, 1, 40, 200, 300, 300, 300])
    segments = st.builds(
        lambda v6, n, size, count, flags, ports: stream(
            lab, v6, [pattern(size, n + k) for k in range(count)], 1000 + n, flags=flags, ports=ports
        ),
        st.booleans(), st.integers(0, 400), size, st.integers(1, 6),
        st.sampled_from([ACK, ACK, ACK, PSH | ACK, FIN | ACK, SYN]), ports,
    )  # fmt: skip
    datagrams = st.builds(
        lambda v6, size, count, ports, partial: [
            strip(udp(way(lab, v6, out=False), pattern(size, k), ports=ports), partial=partial)
            for k in range(count)
        ],
        st.booleans(), size, st.integers(1, 6), ports, st.booleans(),
    )  # fmt: skip
    pings = st.builds(
        lambda v6, size, reply: [frame(echo(way(lab, v6, out=False), pattern(size), reply=reply))],
        st.booleans(), size, st.booleans(),
    )  # fmt: skip
    control = st.just([Ping(b"12345678").encode()])
    return st.one_of(segments, segments, datagrams, pings, control)


@takes
def test_any_frames_in_any_order_and_any_batches(header, offload):
    """Dropped, repeated, damaged, out of order, of two sessions: what comes out is what each frame says."""
    lab = Host(header=header, offload=offload)
    link, first = met(lab)
    made, second = session(link, Suite.AES, 8)
    lab.openings[8] = made.opening
    sessions = [first, second]
    counters = {7: 0, 8: 0}

    @settings(deadline=None, max_examples=120)
    @given(st.lists(kinds(lab), max_size=8), st.randoms(use_true_random=False))
    def check(groups, chance):
        arriving, expected = [], []
        for one in [one for group in groups for one in group]:
            keys = sessions[chance.random() < 0.1]
            arriving.append((keys.seal(counters[keys.index], bytes(one)), one))
            counters[keys.index] += 1
        for _ in range(chance.choice((0, 0, 1, 3))):
            if arriving:
                at = chance.randrange(len(arriving))
                chance.choice(
                    (
                        arriving.pop,
                        lambda n: arriving.append(arriving[n]),
                        lambda n: arriving.insert(0, arriving.pop(n)),
                    )
                )(at)
        seen, batches, batch = set(), [], []
        for datagram, one in arriving:
            damaged = chance.random() < 0.05
            if not damaged and datagram[:16] not in seen:
                seen.add(datagram[:16])
                expected += rebuilt(lab, [one])
            if damaged:
                datagram = datagram[:-1] + bytes((datagram[-1] ^ 1,))
            if batch and (
                len(datagram) > len(batch[0]) or len(batch[-1]) < len(batch[0]) or chance.random() < 0.1
            ):
                batches.append(batch)
                batch = []
            batch.append(datagram)
        batches += [batch] if batch else []
        got = []
        for at in range(0, len(batches), 32):
            got += lab.read(*batches[at : at + 32])
        assert got == expected

    try:
        check()
    finally:
        lab.close()
