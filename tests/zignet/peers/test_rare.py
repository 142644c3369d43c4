"""The slow path in its place: between the gateway's buffer, the sender and the receiver."""

from __future__ import annotations

import random
from itertools import permutations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    fragment6,
)
from scapy.packet import Raw

from tests.nat.world import NO_VIRTIO, sums_right
from tests.zignet.peers.pair import (
    HERE4,
    HERE6,
    ONE4,
    ONE6,
    OTHER4,
    OTHER6,
    PLACE4,
    PLACE6,
    cut,
    echo,
    host,
    join,
    met,
    tcp,
    trains,
    udp,
    unfinished,
    way,
)
from tests.zignet.wire.packets import error, text
from zignet.peers.rare import REFUSALS_PER_S
from zignet.wire import (
    Budget,
    Flag,
    Fragments,
    Keepalive,
    Protocol,
    Refusal,
    Refused,
    parse_control,
    rebuild,
    split,
    strip,
)

pytestmark = pytest.mark.packet_path

families = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
headers = pytest.mark.parametrize("header", [0, 10], ids=["bare", "virtio"])
V4 = IP(src=text(ONE4), dst=text(PLACE4))
V6 = IPv6(src=text(ONE6), dst=text(PLACE6))


def frames_sent(keys, sent, first=0):
    return keys.open([datagram for call in sent for datagram in call.datagrams], first)


def joined(frames):
    """The frames that pieces make, in the naive receiver's order."""
    fragments, whole = Fragments(Budget()), []
    for one in frames:
        done = fragments.add(one, 0.0) if one[0] == Protocol.FRAGMENT else one
        if done is not None:
            whole.append(done)
    return whole


# --- outward


@families
@headers
@pytest.mark.parametrize("make", [udp, echo])
@pytest.mark.parametrize("size", [1389, 3000, 60_000])
def test_a_packet_larger_than_the_path_is_sent_in_pieces(v6, header, make, size):
    with host(plain=False, header=header) as lab:
        link, keys = met(lab)
        packet = make(way(lab, v6), bytes(range(200)) * (size // 200) + bytes(size % 200), traffic=0xB9)
        frames = frames_sent(keys, lab.give(packet))
        assert len(frames) == -(-(size + 12) // (1400 - 12))
        assert all(len(one) <= link.room for one in frames)
        assert joined(frames) == [strip(packet)]
        assert link.tunnel.sent_data == [True]


@families
def test_pieces_of_a_packet_whose_checksum_is_not_there(v6):
    with host(plain=False) as lab:
        _, keys = met(lab)
        packet = udp(way(lab, v6), bytes(3000))
        virtio, read = unfinished(packet)
        assert joined(frames_sent(keys, lab.give(read, virtio))) == [strip(packet, partial=True)]


@families
def test_a_super_datagram_whose_datagrams_do_not_fit(v6):
    with host(plain=False) as lab:
        link, keys = met(lab)
        packet = udp(way(lab, v6), bytes(range(250)) * 40)
        virtio, read = unfinished(packet, 3000)
        frames = frames_sent(keys, lab.give(read, virtio))
        pieces = cut(packet, (40 if v6 else 20) + 8, 3000)
        assert joined(frames) == [strip(piece, partial=True) for piece in pieces]
        assert {int.from_bytes(one[4:8], "big") for one in frames if one[0] == 44} == {1, 2, 3}
        assert link.number == 3


def test_the_number_of_a_frame_in_pieces_wraps():
    with host(plain=False) as lab:
        link, keys = met(lab)
        link.number = 2**32 - 2
        sent = [*lab.give(udp(way(lab, False), bytes(2000))), *lab.give(udp(way(lab, False), bytes(2000)))]
        numbers = [int.from_bytes(one[4:8], "big") for one in frames_sent(keys, sent)]
        assert numbers == [2**32 - 1, 2**32 - 1, 0, 0]


@families
@pytest.mark.parametrize("size", [1000, 5000])
@pytest.mark.parametrize("order", [1, -1], ids=["in order", "backwards"])
def test_fragments_of_the_kernel_are_put_together_first(v6, size, order):
    """And then sent whole, or in pieces of our own."""
    with host(plain=False) as lab:
        _, keys = met(lab)
        payload = bytes(range(200)) * (size // 200)
        if v6:
            parts = fragment6(V6 / IPv6ExtHdrFragment(id=9) / UDP(sport=1, dport=2) / payload, 600)
        else:
            parts = fragment(V4 / UDP(sport=1, dport=2) / payload, 512)
        sent = [call for part in parts[::order] for call in lab.give(part)]
        assert joined(frames_sent(keys, sent)) == [strip(udp(way(lab, v6), payload, ports=(1, 2)))]


def test_options_do_not_cross():
    with host(plain=False) as lab:
        _, keys = met(lab)
        packet = IP(src=text(ONE4), dst=text(PLACE4), options=[IPOption_NOP()] * 4) / TCP(sport=1) / b"x"
        assert frames_sent(keys, lab.give(packet)) == [strip(bytes(V4 / TCP(sport=1) / b"x"))]


@families
def test_a_path_too_small_for_segments(v6):
    with host(plain=False) as lab:
        _, keys = met(lab, room=4 + 20 + 63)
        packet = tcp(way(lab, v6), bytes(5000))
        virtio, read = unfinished(packet, 1000)
        assert joined(frames_sent(keys, lab.give(read, virtio))) == [strip(packet, partial=True)]


def fragments6(packet, size):
    """The fragments of an IPv6 packet of any length (scapy makes none of the largest)."""
    for at in range(40, len(packet), size):
        more = at + size < len(packet)
        yield bytes(
            IPv6(src=text(packet[8:24]), dst=text(packet[24:40]))
            / IPv6ExtHdrFragment(id=9, nh=packet[6], offset=(at - 40) // 8, m=int(more))
            / Raw(packet[at : at + size])
        )


@pytest.mark.parametrize("size", [65_519, 65_527])
def test_the_largest_datagrams_of_ipv6(size):
    """The frame of the largest is 4 bytes longer than pieces can tell: it is dropped, or its sender is told."""
    with host(plain=False) as lab:
        _, keys = met(lab)
        packet = udp((ONE6, PLACE6), bytes(range(256)) * 255 + bytes(size - 65_280))
        sent = [call for part in fragments6(packet, 1448) for call in lab.give(part)]
        if size + 8 + 4 <= 0xFFFF:
            assert joined(frames_sent(keys, sent)) == [strip(packet)]
        else:
            assert sent == []
            assert lab.dropped.total() == 1


@families
def test_an_icmp_error_crosses_without_addresses(v6):
    """About a packet that the peer sent."""
    with host(plain=False) as lab:
        _, keys = met(lab)
        own, peer = way(lab, v6)
        packet = error(own, peer, udp((peer, own), b"question", ports=(5, 6)), 1 if v6 else 3, 4 if v6 else 3)
        (frame,) = frames_sent(keys, lab.give(packet))
        assert frame == strip(packet)
        assert own not in frame
        assert peer not in frame
        other = error(own, peer, udp((own, peer), b"question"), 1 if v6 else 3, 4 if v6 else 3)
        assert lab.give(other) == []
        assert lab.dropped == {"to peers: an ICMP error about a packet that its receiver did not send": 1}


@pytest.mark.parametrize(
    "packet",
    [
        V4 / ICMP(type=5, gw="10.0.0.9") / bytes(V4 / UDP()),
        V4 / ICMP(type=9) / bytes(8),
        V4 / ICMP(type=10),
        V6 / ICMPv6ND_NS(),
    ],
    ids=["redirect", "advertisement", "solicitation", "neighbour"],
)
def test_what_speaks_of_the_link_stays_on_it(packet):
    with host(plain=False) as lab:
        met(lab)
        assert lab.give(packet) == []
        assert lab.written() == []
        assert lab.dropped == {"to peers: an ICMP message that means nothing beyond its link": 1}


@pytest.mark.parametrize(
    "packet",
    [
        IP(src=text(ONE4), dst=text(PLACE4), proto=132) / Raw(bytes(20)),
        V4 / V4 / UDP(),
        IPv6(src=text(ONE6), dst=text(PLACE6), nh=132) / Raw(bytes(20)),
    ],
    ids=["sctp", "ip in ip", "sctp over v6"],
)
def test_a_protocol_that_is_not_carried_is_told_to_its_sender(packet):
    with host(plain=False) as lab:
        met(lab)
        assert lab.give(packet) == []
        (answer,) = lab.written()
        assert answer.header == NO_VIRTIO
        assert sums_right(answer.raw)
        assert (answer.packet.src, answer.packet.dst) == (packet.dst, packet.src)
        assert answer.raw.endswith(bytes(packet))
        if packet.version == 4:
            assert (answer.packet[ICMP].type, answer.packet[ICMP].code) == (3, 13)
        else:
            assert answer.packet[ICMPv6DestUnreach].code == 1


@pytest.mark.parametrize(
    "packet",
    [
        V6 / IPv6ExtHdrHopByHop() / UDP() / b"x",
        IP(src=text(ONE4), dst=text(PLACE4), proto=58) / Raw(bytes((128, 0, 0, 0, 0, 0, 0, 0))),
        IPv6(src=text(ONE6), dst=text(PLACE6), nh=1) / ICMP(),
    ],
    ids=["extension", "icmpv6 over v4", "icmp over v6"],
)
def test_what_is_not_carried_is_counted(packet):
    with host(plain=False) as lab:
        met(lab)
        assert lab.give(packet) == []
        assert lab.written() == []
        assert lab.dropped.total() == 1


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (
            IP(src=text(ONE4), dst=text(PLACE4), chksum=1, options=[IPOption_NOP()] * 4) / UDP(),
            "bad checksum",
        ),
        (IP(src=text(ONE4), dst=text(PLACE4), ihl=4) / UDP(), "bad header"),
        (IP(src=text(ONE4), dst=text(PLACE4), ihl=15) / UDP(), "bad length"),
        (V4 / TCP(dataofs=4), "bad header"),
        (V4 / TCP(dataofs=15), "bad header"),
        (IP(src=text(ONE4), dst=text(PLACE4), proto=17) / Raw(bytes(7)), "truncated"),
    ],
)
def test_malformed(packet, why):
    with host(plain=False) as lab:
        met(lab)
        assert lab.give(packet) == []
        assert lab.written() == []
        assert lab.dropped == {f"to peers: {why}": 1}


@families
@headers
def test_an_address_that_nobody_has_is_told(v6, header):
    with host(plain=False, header=header) as lab:
        met(lab)
        source = way(lab, v6)[0]
        nobody = PLACE6[:-1] + b"\x77" if v6 else bytes((100, 64, 0, 77))
        packet = udp((source, nobody), b"anybody?")
        assert lab.give(packet) == []
        (answer,) = lab.written()
        assert sums_right(answer.raw)
        assert (answer.packet.src, answer.packet.dst) == (text(nobody), text(source))
        assert answer.raw.endswith(packet)
        if v6:
            assert answer.packet[ICMPv6DestUnreach].code == 3
        else:
            assert (answer.packet[ICMP].type, answer.packet[ICMP].code) == (3, 1)
        assert lab.give(b"\x45" + packet[1:25]) == []  # too short for an error about it
        assert lab.give(error(source, nobody, packet, 1 if v6 else 3, 1)) == []  # no errors about errors
        assert lab.written() == []


def test_without_a_session_a_frame_is_dropped():
    with host(plain=False) as lab:
        link, _ = met(lab)
        link.tunnel.sending = None
        lab.rare.send(link, Keepalive().encode())
        assert lab.sent() == []
        assert lab.dropped == {"to peers: the session ended meanwhile": 1}


@families
@headers
@pytest.mark.parametrize("flags", ["S", "SA", "SEC"])
@pytest.mark.parametrize(("said", "room", "gets"), [(1460, 1200, 1176), (1460, 1484, 1460), (536, 1200, 536)])
def test_the_mss_of_a_syn_is_what_the_path_carries(v6, header, flags, said, room, gets):
    with host(plain=False, header=header) as lab:
        _, keys = met(lab, room=room)

        def syn(mss):
            upper = TCP(sport=1, dport=2, seq=7, flags=flags, options=[("MSS", mss), ("WScale", 7)])
            return bytes((V6 if v6 else V4) / upper)

        if header:
            virtio, read = unfinished(syn(said))
            assert frames_sent(keys, lab.give(read, virtio)) == [strip(syn(gets), partial=True)]
        else:
            assert frames_sent(keys, lab.give(syn(said))) == [strip(syn(gets))]


def test_the_mss_of_other_segments_stays():
    with host(plain=False) as lab:
        _, keys = met(lab, room=1200)
        packet = bytes(V4 / TCP(flags="A", options=[("MSS", 1460)]))
        assert frames_sent(keys, lab.give(packet)) == [strip(packet)]


# --- inward


def sealed(keys, frames, first=0):
    return trains(keys.seal(number, one) for number, one in enumerate(frames, first))


@families
@headers
def test_pieces_become_a_packet_in_any_order(v6, header):
    with host(plain=False, header=header) as lab:
        link, keys = met(lab)
        count = 0
        packet = udp(way(lab, v6, out=False), bytes(range(250)) * 12, traffic=0x29)
        for partial in (False, True):
            for order in permutations(split(strip(packet, partial=partial), count, 800)):
                assert lab.read(*sealed(keys, order, count)) == [packet]
                count += len(order)
        assert link.tunnel.heard_data[-1][1]
        assert not lab.dropped


def test_pieces_that_contradict_each_other_are_nothing():
    with host(plain=False) as lab:
        _, keys = met(lab)
        packet = udp(way(lab, False, out=False), bytes(3000))
        pieces = split(strip(packet), 1, 1400)
        assert lab.read(*sealed(keys, [pieces[0], pieces[1], pieces[1], pieces[2]])) == []
        lab.loop.now += 10.0
        assert lab.read(*sealed(keys, pieces, 4)) == [packet]


def test_unfinished_frames_are_given_up():
    with host(plain=False) as lab:
        link, keys = met(lab)
        pieces = split(strip(udp(way(lab, False, out=False), bytes(3000))), 1, 1400)
        assert lab.read(*sealed(keys, pieces[:2])) == []
        assert len(link.fragments) == 1
        lab.loop.now += 10.0
        assert lab.read(*sealed(keys, pieces[2:], 2)) == []


INSIDE = {
    "control": Keepalive().encode() + bytes(40),
    "fragment": bytes((44, 0, 0, 0)) + bytes(40),
    "whole": bytes((4, 0, 0, 0)) + udp((OTHER4, bytes((127, 0, 0, 1)))),
    "unknown": bytes((43, 0, 0, 0)) + bytes(40),
    "bad": bytes((17, 1, 0, 64)) + bytes(40),
}


@pytest.mark.parametrize("name", INSIDE)
def test_what_is_hidden_in_pieces_is_no_more_welcome(name):
    """A fragment of a control frame or of a fragment is dropped; what would be refused by itself is refused."""
    with host(plain=False) as lab:
        link, keys = met(lab)
        whole = INSIDE[name]
        pieces = [
            bytes((44, 0, 0, 0, 0, 0, 0, 9))
            + at.to_bytes(2, "big")
            + len(whole).to_bytes(2, "big")
            + whole[at : at + 16]
            for at in range(0, len(whole), 16)
        ]
        assert lab.read(*sealed(keys, pieces)) == []
        assert lab.hub.notes == []
        answers = frames_sent(keys, lab.sent())
        if name in ("whole", "unknown"):
            assert parse_control(answers[0]) == Refused.of(
                whole, Refusal.WHOLE_PACKETS if name == "whole" else Refusal.UNKNOWN_PROTOCOL
            )
        else:
            assert answers == []
        assert len(link.fragments) == 0


@families
def test_an_icmp_error_gets_the_addresses_of_here(v6):
    with host(plain=False) as lab:
        _, keys = met(lab)
        peer, own = way(lab, v6, out=False)
        there, here = (OTHER6, HERE6) if v6 else (OTHER4, HERE4)  # as the other side calls them
        kind, code = (3, 0) if v6 else (11, 0)
        packet = error(there, here, udp((here, there), b"question", ports=(5, 6)), kind, code)
        expected = error(peer, own, udp((own, peer), b"question", ports=(5, 6)), kind, code)
        (got,) = lab.take(*sealed(keys, [strip(packet)]))
        # The quoted checksum was the other side's: only what stands on addresses we write differs.
        at = len(expected) - 8 - 8 + 6
        assert got.raw[: (40 if v6 else 20) + 2] == expected[: (40 if v6 else 20) + 2]
        assert got.raw[(40 if v6 else 20) + 4 : at] == expected[(40 if v6 else 20) + 4 : at]
        assert sums_right(got.raw)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (bytes((6, 2, 0, 64)) + bytes(19), "shorter than its transport header"),
        (bytes((17, 0, 0, 64)) + bytes(7), "shorter than its transport header"),
        (bytes((1, 1, 0, 64)) + bytes(7), "shorter than its transport header"),
        (bytes((1, 0, 0, 64, 5)) + bytes(27), "an ICMP message that means nothing beyond its link"),
        (bytes((1, 1, 0, 255, 135)) + bytes(27), "an ICMP message that means nothing beyond its link"),
        (bytes((1, 0, 0, 64, 3)) + bytes(27), "an ICMP error that quotes no IP header"),
    ],
)
def test_what_is_no_packet_is_counted(frame, why):
    with host(plain=False) as lab:
        _, keys = met(lab)
        assert lab.read(*sealed(keys, [frame])) == []
        assert lab.sent() == []
        assert lab.dropped == {f"from peers: {why}": 1}


REFUSED = {
    "a whole packet": (
        bytes((4, 0, 0, 0)) + udp((PLACE4, bytes((127, 0, 0, 1))), b"x"),
        Refusal.WHOLE_PACKETS,
    ),
    "a whole packet of IPv6": (bytes((4, 0, 0, 0)) + udp((PLACE6, ONE6), b"x"), Refusal.WHOLE_PACKETS),
    "sctp": (bytes((132, 0, 0, 64)) + bytes(range(20)), Refusal.UNKNOWN_PROTOCOL),
    "routing header": (bytes((43, 1, 0, 64)) + bytes(range(20)), Refusal.UNKNOWN_PROTOCOL),
    "hop by hop": (bytes((60, 1, 0, 64)) + bytes(range(20)), Refusal.UNKNOWN_PROTOCOL),
    "whole with flags": (bytes((4, 1, 0, 0)) + bytes(range(20)), Refusal.UNKNOWN_PROTOCOL),
    "fragment with flags": (bytes((44, 1, 0, 0)) + bytes(range(20)), Refusal.UNKNOWN_PROTOCOL),
    "nothing in it": (bytes((99, 0, 0, 0)), Refusal.UNKNOWN_PROTOCOL),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    """The sender hears why, and what of; nothing is written."""
    frame, reason = REFUSED[name]
    with host(plain=False) as lab:
        link, keys = met(lab)
        assert lab.read(*sealed(keys, [frame])) == []
        (answer,) = frames_sent(keys, lab.sent())
        refusal = parse_control(answer)
        size = 48 if frame[0] == 4 else 8
        assert refusal == Refused(reason, frame[1], frame[0], frame[4 : 4 + size].ljust(size, b"\0"))
        assert lab.dropped == {f"from peers: refused, {reason.name.lower().replace('_', ' ')}": 1}
        assert link.tunnel.sent_data == [False]


def test_refusals_have_a_rate():
    with host(plain=False) as lab:
        _, keys = met(lab)
        count = 0
        for _ in range(3):
            for _ in range(REFUSALS_PER_S + 5):
                lab.take(*sealed(keys, [REFUSED["sctp"][0]], count))
                count += 1
            assert len(lab.sent()) == REFUSALS_PER_S
            lab.loop.now += 1.0


@families
@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP, Protocol.ICMP])
def test_an_application_is_told_that_its_packet_was_refused(v6, protocol):
    with host(plain=False) as lab:
        link, _ = met(lab)
        own, peer = way(lab, v6)
        sent = {Protocol.TCP: tcp, Protocol.UDP: udp, Protocol.ICMP: echo}[protocol]((own, peer), b"data")
        lab.rare.refused(link, Refused.of(strip(sent), Refusal.FORBIDDEN))
        (got,) = lab.written()
        assert sums_right(got.raw)
        assert (got.packet.src, got.packet.dst) == (text(peer), text(own))
        if v6:
            assert got.packet[ICMPv6DestUnreach].code == 1
            quoted = bytes(got.packet[ICMPv6DestUnreach].payload)
            assert (quoted[6], quoted[8:40], quoted[40:42]) == (sent[6], own + peer, sent[40:42])
        else:
            assert (got.packet[ICMP].type, got.packet[ICMP].code) == (3, 13)
            quoted = bytes(got.packet[ICMP].payload)
            assert (quoted[9], quoted[12:20], quoted[20:22]) == (sent[9], own + peer, sent[20:22])


def test_what_was_refused_may_be_anything():
    """The peer says what it was: whatever it says is one packet of its own to us, or none."""
    chance = random.Random(4)
    with host(plain=False) as lab:
        link, _ = met(lab)
        for _ in range(300):
            reason, flags, protocol = (chance.randrange(256) for _ in range(3))
            refusal = Refused(reason, flags, protocol, chance.randbytes(48 if protocol == 4 else 8))
            lab.rare.refused(link, refusal)
            for got in lab.written():
                v6 = bool(refusal.flags & Flag.V6)
                peer, own = way(lab, v6, out=False)
                assert (got.packet.src, got.packet.dst) == (text(peer), text(own))


# --- there and back


@families
def test_a_traceroute_s_answers(v6):
    """One sends a datagram, the other's kernel answers with an error: its program sees its own packet in it."""
    with host(plain=False) as one, host(plain=False, own4=HERE4, own6=HERE6) as other:
        join(one, other)
        packet = udp(way(one, v6), b"probe", ports=(33_000, 33_434), hops=1)
        (there,) = other.read(*(call.datagrams for call in one.give(packet)))
        here = (OTHER6, HERE6) if v6 else (OTHER4, HERE4)
        assert there == rebuild(strip(packet), *here)
        answer = error(*here[::-1], there, 1 if v6 else 3, 4 if v6 else 3)
        (got,) = one.take(*(call.datagrams for call in other.give(answer)))
        assert sums_right(got.raw)
        peer, own = way(one, v6, out=False)
        assert (got.packet.src, got.packet.dst) == (text(peer), text(own))
        head = (40 if v6 else 20) + 8
        quoted = got.raw[head:]
        size = 40 if v6 else 20
        assert quoted[size : size + 6] == packet[size : size + 6]
        assert quoted[size + 8 :] == packet[size + 8 :]
        assert (quoted[8:40] if v6 else quoted[12:20]) == own + peer


@families
def test_large_pings_there_and_back(v6):
    with host(plain=False) as one, host(plain=False, own4=HERE4, own6=HERE6) as other:
        join(one, other, room=1200)
        here = (OTHER6, HERE6) if v6 else (OTHER4, HERE4)
        ping = echo(way(one, v6), bytes(range(250)) * 20)
        (there,) = other.read(*(call.datagrams for call in one.give(ping)))
        assert there == echo(here, bytes(range(250)) * 20)
        pong = echo(here[::-1], bytes(range(250)) * 20, reply=True)
        assert one.read(*(call.datagrams for call in other.give(pong))) == [
            echo(way(one, v6, out=False), bytes(range(250)) * 20, reply=True)
        ]


def test_scapy_knows_these_pings():
    """`pair.echo` is what scapy makes."""
    made = bytes(V6 / ICMPv6EchoRequest(id=77, seq=1, data=b"abc"))
    assert echo((ONE6, PLACE6), b"abc") == made
    assert echo((ONE4, PLACE4), b"abc")[20:] == bytes(V4 / ICMP(type=8, id=77, seq=1) / b"abc")[20:]
