"""Reassembly against the original packet, and against a model that keeps single bytes."""

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR, fragment
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    fragment6,
)
from scapy.packet import Raw

from nat.fragments import LIMIT_FRAGMENTS, OVERHEAD, Reassembler
from nat.packet import Packet

pytestmark = pytest.mark.packet_path

V4 = {"src": "10.1.2.3", "dst": "192.0.2.77"}
V6 = {"src": "fd00::3", "dst": "2001:db8::77"}
FIRST = bytes(UDP(sport=5, dport=6, len=9999))  # what a first fragment begins with


def parsed(made) -> Packet:
    raw = bytes(made)
    packet = Packet(bytearray(b"\x99" * 7 + raw + b"trailing"))
    assert packet.parse(7, len(raw) + 8) == 0
    return packet


def piece(version: int, offset: int, body: bytes, more: bool, identification: int = 1, **addresses):
    """One fragment of a UDP datagram; `offset` in bytes."""
    if version == 4:
        head = IP(
            **{**V4, **addresses}, id=identification, flags="MF" if more else 0, frag=offset // 8, proto=17
        )
    else:
        head = IPv6(**{**V6, **addresses}) / IPv6ExtHdrFragment(
            nh=17, id=identification, m=int(more), offset=offset // 8
        )
    return head / Raw(body)


def cut(body: bytes, cuts: list[int]) -> list[tuple[int, bytes, bool]]:
    """(offset, bytes, more) of the fragments between multiples of 8."""
    places = [0, *sorted({at * 8 for at in cuts if 0 < at * 8 < len(body)}), len(body)]
    return [(a, body[a:b], b != len(body)) for a, b in itertools.pairwise(places)]


def pair(version: int, identification: int, body: bytes):
    """The datagram as it was before it was cut."""
    if version == 4:
        return IP(**V4, id=identification, proto=17) / Raw(body)
    return IPv6(**V6, nh=17) / Raw(body)


@pytest.mark.parametrize("version", [4, 6])
@given(st.data())
def test_any_cut_any_order_with_duplicates(version, data):
    body = FIRST + data.draw(st.binary(min_size=1, max_size=400))
    pieces = cut(body, data.draw(st.lists(st.integers(1, 50), min_size=1, max_size=12)))
    assume(len(pieces) > 1)
    order = data.draw(st.permutations(pieces))
    # Copies may come at any place but after the end, where they would start a datagram of their own.
    for copy in data.draw(st.lists(st.sampled_from(pieces), max_size=4)):
        order.insert(data.draw(st.integers(0, len(order) - 1)), copy)
    while order[-1] in order[:-1]:
        order.pop()
    reassembler = Reassembler()
    results = [reassembler.add(parsed(piece(version, *each)), 1.0) for each in order]
    assert results[:-1] == [None] * (len(order) - 1)
    assert results[-1] == bytes(pair(version, 1, body))
    assert (len(reassembler), reassembler.held_bytes, reassembler.dropped) == (0, 0, 0)
    assert reassembler.next_expiry is None


@pytest.mark.parametrize("version", [4, 6])
@given(st.lists(st.integers(0, 300), min_size=2, max_size=6), st.randoms())
def test_datagrams_in_between_each_other(version, sizes, random):
    bodies = [FIRST + bytes((number,)) * (size + 20) for number, size in enumerate(sizes)]
    work = [(number, each) for number, body in enumerate(bodies) for each in cut(body, list(range(1, 60, 2)))]
    random.shuffle(work)
    reassembler = Reassembler()
    whole = [reassembler.add(parsed(piece(version, *each, number)), 0.0) for number, each in work]
    wanted = sorted(bytes(pair(version, number, body)) for number, body in enumerate(bodies))
    assert sorted(filter(None, whole)) == wanted
    assert reassembler.held_bytes == 0


class Model:
    """One datagram, byte by byte."""

    def __init__(self):
        self.deaths = 0
        self.begin()

    def begin(self):
        self.seen, self.bytes, self.end, self.dead = set(), {}, None, False

    def add(self, offset: int, body: bytes, more: bool) -> bytes | None:
        if offset == 0 and not more:
            return body  # whole at once, whatever else there is
        if self.dead or not body or (more and len(body) % 8):
            return None
        if (offset, body, more) in self.seen:
            return None
        self.seen.add((offset, body, more))
        places = range(offset, offset + len(body))
        end = offset + len(body)
        known = self.end if self.end is not None else (None if more else end)
        self.dead = (
            any(at in self.bytes for at in places)
            or (not more and self.end not in (None, end))
            or (more and known is not None and end >= known)
            or (not more and any(at >= end for at in self.bytes))
        )
        self.deaths += self.dead
        if self.dead:
            return None
        self.bytes.update(zip(places, body, strict=True))
        if not more:
            self.end = end
        if self.end is not None and len(self.bytes) == self.end:
            whole = bytes(self.bytes[at] for at in range(self.end))
            self.begin()
            return whole
        return None


wild = st.tuples(st.integers(0, 5), st.integers(0, 25), st.booleans(), st.booleans())


@pytest.mark.parametrize("version", [4, 6])
@given(st.lists(wild, min_size=1, max_size=12))
def test_overlaps_and_contradictions_against_the_model(version, plan):
    reassembler, model = Reassembler(), Model()
    for place, size, more, other in plan:
        offset = place * 8
        size = size // 8 * 8 if more and size >= 8 else size
        body = bytes((at * 7 + other) & 0xFF for at in range(offset, offset + size))
        if offset == 0:
            body = FIRST + body[8:] if size >= 8 else FIRST
        got = reassembler.add(parsed(piece(version, offset, body, more)), 0.0) if offset or more else None
        if offset == 0 and not more:
            continue  # not a fragment of it
        wanted = model.add(offset, body, more)
        assert got == (None if wanted is None else bytes(pair(version, 1, wanted)))
        assert (len(reassembler) == 1) == bool(model.dead or model.bytes)
        assert reassembler.dropped == model.deaths


@pytest.mark.parametrize("made", [IP(**V4, id=3) / UDP() / bytes(3000), IP(**V4) / TCP() / bytes(900)])
def test_scapys_ipv4_fragments(made):
    reassembler = Reassembler()
    for size in (8, 56, 576, 1480):
        pieces = fragment(made, size)
        if len(pieces) <= LIMIT_FRAGMENTS:
            results = [reassembler.add(parsed(each), 0.0) for each in reversed(pieces)]
            assert results[-1] == bytes(made)


def test_ipv4_options_come_from_the_first_fragment():
    option = IPOption_RR(length=7, pointer=4, routers=["0.0.0.0"])
    first = IP(**V4, id=9, flags="MF", proto=17, options=[option], ttl=9) / Raw(FIRST + bytes(8))
    last = IP(**V4, id=9, frag=2, proto=17, ttl=200) / Raw(b"end")
    reassembler = Reassembler()
    assert reassembler.add(parsed(last), 0.0) is None
    whole = reassembler.add(parsed(first), 0.0)
    wanted = IP(**V4, id=9, proto=17, options=[option], ttl=9) / Raw(FIRST + bytes(8) + b"end")
    assert whole == bytes(wanted)


@pytest.mark.parametrize("front", [0, 1, 2])
def test_scapys_ipv6_fragments_with_headers_before_and_behind(front):
    made = IPv6(**V6)
    for layer in (IPv6ExtHdrHopByHop(), IPv6ExtHdrRouting(type=2, segleft=0, addresses=["::1"]))[:front]:
        made = made / layer
    inner = IPv6ExtHdrDestOpt() / UDP(sport=5, dport=6) / Raw(bytes(range(256)) * 12)
    pieces = fragment6(made / IPv6ExtHdrFragment(id=7) / inner, 1280)
    assert len(pieces) == 3
    whole = None
    for order in itertools.permutations(pieces):
        reassembler = Reassembler()
        for each in order:
            assert whole is None or len(reassembler)
            whole = reassembler.add(parsed(each), 0.0)
        assert whole is not None
        packet = parsed(whole)
        assert (packet.protocol, packet.target_port, packet.fragment) == (17, 6, False)
        assert packet.payload() == bytes(range(256)) * 12
        assert len(whole) == 40 + (0, 8, 32)[front] + 8 + 8 + 3072
        whole = None


def test_what_is_no_fragment_comes_back():
    for made in (IP(**V4) / UDP() / b"x", IPv6(**V6) / TCP()):
        assert Reassembler().add(parsed(made), 0.0) == bytes(made)


def test_rfc6946_an_atomic_fragment_is_on_its_own():
    reassembler = Reassembler()
    reassembler.add(parsed(piece(6, 8, bytes(8), True)), 0.0)
    made = IPv6(**V6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(id=1) / UDP(sport=1) / b"atomic"
    whole = reassembler.add(parsed(made), 0.0)
    assert whole == bytes(IPv6(**V6) / IPv6ExtHdrHopByHop() / UDP(sport=1) / b"atomic")
    assert len(reassembler) == 1


@pytest.mark.parametrize("version", [4, 6])
def test_rfc5722_an_overlap_ends_the_datagram_and_all_its_later_fragments(version):
    reassembler = Reassembler()
    body = FIRST + bytes(24)
    reassembler.add(parsed(piece(version, 0, body[:16], True)), 0.0)
    reassembler.add(parsed(piece(version, 8, body[8:24], True)), 0.0)
    assert (reassembler.dropped, reassembler.held_bytes) == (1, OVERHEAD)
    for each in cut(body, [1, 2, 3]):
        assert reassembler.add(parsed(piece(version, *each)), 0.0) is None
    assert reassembler.dropped == 1
    # Once its time is over, the identification may be used anew.
    results = [reassembler.add(parsed(piece(version, *each)), 31.0) for each in cut(body, [1, 2])]
    assert results[-1] == bytes(pair(version, 1, body))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    "plan",
    [
        [(8, 16, True), (16, 8, True)],  # the second begins inside the first
        [(16, 8, True), (8, 16, True)],  # the second ends inside the first
        [(16, 8, True), (8, 24, True)],  # the second is around the first
        [(8, 24, True), (16, 8, True)],  # the second is inside the first
        [(8, 8, True), (8, 16, True)],  # one place, two lengths
        [(8, 8, True), (8, 8, False)],  # one place, last or not
        [(8, 8, False), (8, 8, True)],
        [(16, 8, False), (24, 8, False)],  # two ends
        [(24, 8, False), (16, 8, False)],
        [(16, 8, False), (24, 8, True)],  # bytes behind the end
        [(24, 8, True), (16, 8, False)],
        [(16, 3, False), (8, 16, True)],
    ],
)
def test_contradictions(version, plan):
    reassembler = Reassembler()
    for offset, size, more in plan:
        assert reassembler.dropped == 0
        assert reassembler.add(parsed(piece(version, offset, bytes(size), more)), 0.0) is None
    assert (reassembler.dropped, reassembler.held_bytes) == (1, OVERHEAD)


def test_a_copy_with_other_bytes_is_an_overlap():
    reassembler = Reassembler()
    for body in (b"12345678", b"12345678", b"1234567x"):
        assert reassembler.dropped == 0
        reassembler.add(parsed(piece(4, 8, body, True)), 0.0)
    assert reassembler.dropped == 1


def test_flows_are_told_apart():
    """The same identification from other addresses, versions and (IPv4) protocols."""
    reassembler = Reassembler()
    reassembler.add(parsed(piece(4, 0, FIRST + bytes(8), True)), 0.0)
    for other in (
        piece(4, 16, b"end", False, src="10.1.2.4"),
        piece(4, 16, b"end", False, dst="192.0.2.78"),
        piece(4, 16, b"end", False, 2),
        IP(**V4, id=1, frag=2, proto=6) / Raw(b"end"),
        piece(6, 16, b"end", False),
    ):
        assert reassembler.add(parsed(other), 0.0) is None
    assert len(reassembler) == 6
    assert reassembler.add(parsed(piece(4, 16, b"end", False)), 0.0) is not None


@pytest.mark.parametrize("version", [4, 6])
def test_fragments_that_can_not_be(version):
    reassembler = Reassembler()
    for offset, body, more in (
        (8, b"1234567", True),
        (8, b"", False),
        (8, b"", True),
        (65_528, bytes(8), False),
    ):
        assert reassembler.add(parsed(piece(version, offset, body, more)), 0.0) is None
    assert len(reassembler) == 0


@pytest.mark.parametrize("version", [4, 6])
def test_the_whole_packet_is_at_most_65535_bytes(version):
    most = 65_535 - (20 if version == 4 else 0)
    for size, fits in ((most, True), (most + 1, False)):
        if size > 65_535:
            continue
        body = FIRST + bytes(size - 8)
        reassembler = Reassembler()
        results = [
            reassembler.add(parsed(piece(version, *each)), 0.0)
            for each in cut(body, list(range(0, 8192, 160)))
        ]
        assert (results[-1] is not None) == fits
        assert reassembler.dropped == (not fits)
        if fits:
            assert len(results[-1]) == size + (20 if version == 4 else 40)


def test_fragments_of_one_datagram_are_bounded():
    reassembler = Reassembler()
    body = FIRST + bytes(8 * LIMIT_FRAGMENTS)
    pieces = cut(body, list(range(1, LIMIT_FRAGMENTS + 1)))
    assert len(pieces) == LIMIT_FRAGMENTS + 1
    assert [reassembler.add(parsed(piece(4, *each)), 0.0) for each in pieces] == [None] * len(pieces)
    assert (reassembler.dropped, reassembler.held_bytes) == (1, OVERHEAD)
    pieces = cut(body, list(range(2, LIMIT_FRAGMENTS + 1)))
    assert [reassembler.add(parsed(piece(4, *each, 2)), 0.0) for each in pieces][-1] is not None


def test_memory_is_bounded_and_the_oldest_goes_first():
    reassembler = Reassembler(limit_bytes=10 * (OVERHEAD + 1000))
    for number in range(100):
        reassembler.add(parsed(piece(4, 8, bytes(1000), True, number)), number / 100)
        assert reassembler.held_bytes <= 10 * (OVERHEAD + 1000)
    assert (len(reassembler), reassembler.dropped) == (10, 90)
    assert reassembler.next_expiry == pytest.approx(30.9)
    assert reassembler.add(parsed(piece(4, 0, FIRST, True, 95)), 1.0) is None
    assert reassembler.add(parsed(piece(4, 1008, b"end", False, 95)), 1.0) is not None


def test_datagrams_are_bounded():
    reassembler = Reassembler(limit_datagrams=5)
    for number in range(20):
        reassembler.add(parsed(piece(6, 8, bytes(8), True, number)), 0.0)
    assert (len(reassembler), reassembler.dropped) == (5, 15)
    assert reassembler.held_bytes == 5 * (OVERHEAD + 8)


def test_a_datagram_larger_than_the_memory():
    reassembler = Reassembler(limit_bytes=1000)
    assert reassembler.add(parsed(piece(4, 8, bytes(1000), True)), 0.0) is None
    assert (len(reassembler), reassembler.held_bytes, reassembler.dropped) == (0, 0, 1)


def test_time():
    reassembler = Reassembler(timeout_s=30.0)
    for number, now in enumerate((0.0, 10.0, 20.0)):
        reassembler.add(parsed(piece(4, 8, bytes(8), True, number)), now)
    assert reassembler.next_expiry == 30.0
    assert reassembler.expire(29.9) == 0
    assert reassembler.expire(30.0) == 1
    assert reassembler.next_expiry == 40.0
    # A fragment that comes too late is the first of a new datagram; its coming ends others too.
    assert reassembler.add(parsed(piece(4, 0, FIRST, True, 1)), 45.0) is None
    assert len(reassembler) == 2
    assert reassembler.expire(1000.0) == 2
    assert (reassembler.dropped, reassembler.held_bytes, reassembler.next_expiry) == (4, 0, None)


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.booleans(), st.integers(0, 9)), max_size=60)
)
def test_accounts_stay_right(plan):
    """Whatever comes, what is held is within the limits and adds up."""
    reassembler = Reassembler(limit_bytes=1500, limit_datagrams=3, timeout_s=5.0)
    now = 0.0
    for number, place, more, wait in plan:
        now += wait / 2
        if place == 0 and not more:
            continue
        body = FIRST if place == 0 else bytes(8)
        reassembler.add(parsed(piece(4, place * 8, body, more, number)), now)
        assert len(reassembler) <= 3
        assert reassembler.held_bytes <= 1500
        assert (reassembler.held_bytes == 0) == (len(reassembler) == 0)
        held = reassembler._datagrams.values()
        assert reassembler.held_bytes == sum(
            OVERHEAD + len(d.head) + sum(map(len, d.pieces.values())) for d in held
        )
        assert all(d.deadline > now for d in held)
        assert [d.deadline for d in held] == sorted(d.deadline for d in held)


def test_icmp_fragments_are_reassembled_too():
    reassembler = Reassembler()
    made = IP(**V4, id=5) / ICMP(id=1, seq=2) / bytes(4000)
    whole = [reassembler.add(parsed(each), 0.0) for each in fragment(made, 1480)][-1]
    packet = parsed(whole)
    assert (packet.protocol, packet.source_port, packet.payload_length) == (1, 1, 4000)
    assert packet.transport_sum_ok()
