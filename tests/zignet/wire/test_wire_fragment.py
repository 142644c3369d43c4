"""Frames in pieces: joined in any order, spoilt by every contradiction, bounded in every way."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.wire import FRAGMENT_HEADER, Budget, Fragments, split
from zignet.wire.fragment import LIMIT_BYTES, MOST_PIECES, MOST_UNFINISHED, TIMEOUT_S

FRAME = b"\x11\0\0\x40" + bytes(range(256)) * 12


def piece(number, offset, length, body, head=b"\x2c\0\0\0"):
    return head + struct.pack("!IHH", number, offset, length) + body


def one():
    return Fragments(Budget())


frames = st.binary(min_size=4, max_size=600).filter(lambda frame: frame[0] != 44)


@given(frames, st.integers(0, 1 << 33), st.integers(FRAGMENT_HEADER + 3, 700), st.randoms())
def test_joined_in_any_order(frame, number, room, random):
    pieces = split(frame, number, room)
    assert b"".join(each[FRAGMENT_HEADER:] for each in pieces) == frame
    assert all(len(each) == len(pieces[0]) <= room for each in pieces[:-1])
    assert 0 < len(pieces[-1]) <= len(pieces[0])
    assert all(each[:8] == b"\x2c\0\0\0" + (number & 0xFFFFFFFF).to_bytes(4, "big") for each in pieces)
    random.shuffle(pieces)
    budget = Budget()
    fragments = Fragments(budget)
    *before, last = [fragments.add(each, 1.0) for each in pieces]
    assert before == [None] * (len(pieces) - 1)
    assert last == frame
    assert (len(fragments), len(budget), budget.held, budget.given_up) == (0, 0, 0, 0)


def test_offsets_of_the_protocol():
    assert split(b"\6\0\0\x40abcdef", 0x01020304, 12 + 6) == [
        bytes.fromhex("2c000000 01020304 0000 000a") + b"\6\0\0\x40ab",
        bytes.fromhex("2c000000 01020304 0006 000a") + b"cdef",
    ]


def test_interleaved_peers_and_frames():
    budget = Budget()
    peers = [Fragments(budget) for _ in range(3)]
    lots = [
        (peer, number, split(FRAME[:1000] + bytes((number,)), number, 400))
        for peer in peers
        for number in range(5)
    ]
    got = [peer.add(pieces[at], 0.0) for at in range(3) for peer, _, pieces in lots]
    assert got == [None] * 30 + [FRAME[:1000] + bytes((number,)) for _ in peers for number in range(5)]


@pytest.mark.parametrize(
    "bad",
    [
        piece(7, 0, 100, b"x" * 40),  # the same piece again
        piece(7, 39, 100, b"x"),  # an overlap
        piece(7, 10, 100, b"x" * 60),
        piece(7, 40, 101, b"x" * 10),  # another length
        piece(7, 40, 99, b"x" * 10),
        piece(7, 90, 100, b"x" * 11),  # over the end
        piece(7, 100, 100, b"x"),
        piece(7, 65535, 100, b"x"),
        piece(7, 50, 100, b""),  # empty
        piece(7, 50, 3, b"x"),
    ],
    ids=["again", "overlap", "across", "longer", "shorter", "over", "behind", "far", "empty", "tiny"],
)
def test_what_spoils_the_whole(bad):
    budget = Budget()
    fragments = Fragments(budget)
    good = [piece(7, 0, 100, b"x" * 40), piece(7, 40, 100, b"y" * 60)]
    assert fragments.add(good[0], 0.0) is None
    assert fragments.add(bad, 1.0) is None
    assert (len(fragments), budget.given_up) == (0, 1)
    for each in (good[1], *good):  # spoilt it stays, even for what would be whole
        assert fragments.add(each, TIMEOUT_S - 0.1) is None
    assert fragments.add(split(FRAME[:50], 8, 100)[0], 5.0) == FRAME[:50]  # others are not concerned
    assert [fragments.add(each, TIMEOUT_S) for each in good] == [None, b"x" * 40 + b"y" * 60]
    assert budget.held == 0


def test_a_fragment_in_a_fragment():
    fragments = one()
    inner = piece(9, 0, 50, b"x" * 50)
    assert fragments.add(piece(7, 30, len(inner), inner[30:]), 0.0) is None
    assert fragments.add(piece(7, 0, len(inner), inner[:30]), 0.0) is None
    assert fragments.add(piece(8, 0, len(inner), inner), 0.0) is None
    with pytest.raises(ValueError, match="pieces"):
        split(inner, 1, 40)


@pytest.mark.parametrize("end", range(FRAGMENT_HEADER))
def test_cut_off_pieces_are_none(end):
    fragments = one()
    assert fragments.add(piece(7, 0, 8, b"abcdefgh")[:end], 0.0) is None
    assert len(fragments) == 0


@pytest.mark.parametrize("head", [b"\x2c\1\0\0", b"\x2c\0\1\0", b"\x2c\0\0\1", b"\6\0\0\0"])
def test_what_must_be_zero(head):
    assert one().add(piece(7, 0, 8, b"abcdefgh", head), 0.0) is None


def test_eight_unfinished_frames():
    budget = Budget()
    fragments = Fragments(budget)
    lots = [split(FRAME, number, 1200) for number in range(MOST_UNFINISHED + 1)]
    for pieces in lots:
        assert fragments.add(pieces[0], 0.0) is None
    assert len(fragments) == MOST_UNFINISHED
    assert [fragments.add(each, 0.0) for each in lots[0][1:]] == [
        None,
        None,
    ]  # the oldest had to go, and stays away
    assert fragments.add(lots[0][0], 0.0) is None
    assert len(fragments) == MOST_UNFINISHED
    for pieces in lots[1:]:
        assert [fragments.add(each, 1.0) for each in pieces[1:]] == [None, FRAME]


def test_given_up_after_ten_seconds():
    budget = Budget()
    fragments, other = Fragments(budget), Fragments(budget)
    first, second, third = split(FRAME, 1, 1200)
    fragments.add(first, 100.0)
    fragments.add(second, 109.0)
    assert fragments.add(third, 110.0) is None
    assert len(fragments) == 1  # begun anew
    other.add(first, 119.9)
    assert len(fragments) == 1
    other.expire(120.0)
    assert len(fragments) == 0
    assert len(other) == 1
    assert budget.given_up == 2
    budget.expire(1000.0)
    assert (len(other), budget.held, len(budget)) == (0, 0, 0)


def test_a_frame_has_so_many_pieces():
    fragments = one()
    length = MOST_PIECES + 1
    for at in range(MOST_PIECES):
        assert fragments.add(piece(1, at, length, b"x"), 0.0) is None
    assert len(fragments) == 1
    assert fragments.add(piece(1, MOST_PIECES, length, b"x"), 0.0) is None
    assert len(fragments) == 0
    with pytest.raises(ValueError, match="room"):
        split(b"x" * length, 1, FRAGMENT_HEADER + 1)
    assert len(split(b"x" * MOST_PIECES, 1, FRAGMENT_HEADER + 1)) == MOST_PIECES


def test_strangers_can_not_fill_the_memory():
    """Thousands of peers that never finish anything: the budget holds, and who finishes at once still does."""
    budget = Budget()
    largest = b"\x11\0\0\x40" + bytes(65531)
    pieces = split(largest, 1, 1400)
    peers = [Fragments(budget) for _ in range(500)]
    for number in range(3):
        for peer in peers:
            for each in pieces[:-1]:
                peer.add(each[:4] + number.to_bytes(4, "big") + each[8:], 0.0)
            assert budget.held <= LIMIT_BYTES
    assert sum(map(len, peers)) == len(budget) < 70
    honest = Fragments(budget)
    assert [honest.add(each, 0.0) for each in pieces][-1] == largest
    for peer in peers:
        peer.clear()
    assert (budget.held, len(budget)) == (0, 0)


def test_spoilt_numbers_are_bounded_too():
    budget = Budget()
    fragments = Fragments(budget)
    for number in range(10_000):
        fragments.add(piece(number, 50, 40, b"x"), 0.0)
    assert len(budget) <= 64
    fragments.clear()
    assert (budget.held, len(budget)) == (0, 0)


def test_tiny_pieces_are_counted_for_what_they_cost():
    budget = Budget()
    fragments = Fragments(budget)
    for at in range(0, 400, 2):
        fragments.add(piece(1, at, 1000, b"x"), 0.0)
    assert budget.held > 200 * 100


def test_a_budget_holds_a_frame_at_least():
    with pytest.raises(ValueError, match="hold"):
        Budget(1 << 16)
    smallest = Budget(1 << 17)
    fragments = Fragments(smallest)
    frame = b"\x11\0\0\x40" + bytes(65531)
    for number in range(3):
        assert [fragments.add(each, 0.0) for each in split(frame, number, 12 + 256)][-1] == frame


@pytest.mark.parametrize(("frame", "room"), [(b"abc", 100), (bytes(65536), 1200), (FRAME, 12), (FRAME, 0)])
def test_what_can_not_be_split(frame, room):
    with pytest.raises(ValueError, match="pieces"):
        split(frame, 1, room)


pieces_ = st.builds(piece, st.integers(0, 3), st.integers(0, 40), st.integers(0, 40), st.binary(max_size=30))


@given(st.lists(st.tuples(pieces_, st.floats(0, 30)), max_size=60))
def test_against_the_plain_way(steps):
    """An oracle that knows neither budget nor order of arrival: it keeps every piece of a number."""
    budget, clock = Budget(), 0.0
    fragments = Fragments(budget)
    kept: dict[int, list] = {}  # number -> [deadline, spoilt, length, {offset: body}]
    for each, wait in steps:
        clock += wait / 30
        number, offset, length = struct.unpack("!IHH", each[4:12])
        body = each[12:]
        for old in [key for key, entry in kept.items() if entry[0] <= clock]:
            del kept[old]
        entry = kept.setdefault(number, [clock + TIMEOUT_S, False, length, {}])
        taken = {at for start, data in entry[3].items() for at in range(start, start + len(data))}
        fresh = set(range(offset, offset + len(body)))
        bad = not body or length != entry[2] or length < 4 or offset + len(body) > length or taken & fresh
        bad = bad or (offset == 0 and body[:1] == b"\x2c")
        wanted = None
        if not entry[1]:
            if bad:
                entry[1] = True
            else:
                entry[3][offset] = body
                if len(taken | fresh) == length:
                    wanted = b"".join(data for _, data in sorted(entry[3].items()))
                    del kept[number]
        assert fragments.add(each, clock) == wanted
        assert len(fragments) == sum(not entry[1] for entry in kept.values())
    fragments.clear()
    assert (budget.held, len(budget)) == (0, 0)
