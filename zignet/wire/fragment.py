"""Frames that are too large for the path: cut, and joined again in bounded memory (docs/protocol.md §6).

`Fragments` is one peer's; what all of them hold together is bounded by a `Budget` that they share. Nothing is
kept for a peer that has no unfinished frame.
"""

from __future__ import annotations

from bisect import bisect_left
from struct import Struct

from zignet.wire.frame import FRAME_HEADER, Protocol

__all__ = [
    "FRAGMENT_HEADER",
    "LIMIT_BYTES",
    "MOST_PIECES",
    "MOST_UNFINISHED",
    "TIMEOUT_S",
    "Budget",
    "Fragments",
    "split",
]

FRAGMENT_HEADER = FRAME_HEADER + 8  # bytes: frame header, number, offset, length
MOST_UNFINISHED = 8  # frames of a peer
TIMEOUT_S = 10.0
MOST_PIECES = 256  # of one frame
LIMIT_BYTES = 4 << 20  # of all peers
_MOST_SPOILT = 64  # numbers that are remembered of a peer
_FRAME_COST = 512  # bytes that a frame costs us beside its pieces
_PIECE_COST = 128  # and a piece beside what it carries
_LARGEST = 0xFFFF + _FRAME_COST + MOST_PIECES * _PIECE_COST

_HEADER = Struct("!4sIHH")
_FRAME_HEADER = bytes((Protocol.FRAGMENT, 0, 0, 0))


def split(frame: bytes | bytearray | memoryview, number: int, room: int) -> list[bytes]:
    """The pieces of a frame, each a frame of at most `room` bytes; all but the last have the same size.

    `number` is taken modulo 2**32. Raises ValueError for what can't be sent so: a fragment, a frame of more than
    65,535 bytes or without a header, one that needs more than MOST_PIECES.
    """
    size, step = len(frame), room - FRAGMENT_HEADER
    if not FRAME_HEADER <= size <= 0xFFFF or frame[0] == Protocol.FRAGMENT:
        raise ValueError("not a frame that can be sent in pieces")
    if step <= 0 or size > step * MOST_PIECES:
        raise ValueError(f"{room} bytes are too little room for the pieces of {size}")
    number &= 0xFFFFFFFF
    return [
        _HEADER.pack(_FRAME_HEADER, number, at, size) + bytes(frame[at : at + step])
        for at in range(0, size, step)
    ]


class Budget:
    """What the unfinished frames of all peers may cost together: beyond it the oldest is given up, whosesoever.

    So a peer that fills it only shortens the time that others' pieces have to arrive.
    """

    __slots__ = ("_frames", "given_up", "held", "limit")

    def __init__(self, limit: int = LIMIT_BYTES) -> None:
        """Raises ValueError where not even one frame has room in `limit` bytes."""
        if limit < _LARGEST:
            raise ValueError(f"{limit} bytes do not hold a frame of {_LARGEST}")
        self.limit = limit  # bytes
        self.held = 0  # bytes, overhead included
        self.given_up = 0  # frames that were never finished, for whatever reason
        # Oldest first: every frame may live equally long, so this is the order of the deadlines too.
        self._frames: dict[_Frame, None] = {}

    def __len__(self) -> int:
        return len(self._frames)

    def expire(self, now: float) -> None:
        """Give up what is too old, of all peers."""
        frames = self._frames
        while frames:
            oldest = next(iter(frames))
            if oldest.deadline > now:
                return
            self._give_up(oldest)

    def enter(self, frame: _Frame) -> None:
        """A frame begins."""
        self._frames[frame] = None
        self.charge(frame, _FRAME_COST)

    def charge(self, frame: _Frame, cost: int) -> None:
        """A frame grows, or with a negative cost shrinks; then others, or it, may have to go."""
        frame.cost += cost
        self.held += cost
        while self.held > self.limit:
            self._give_up(next(iter(self._frames)))

    def leave(self, frame: _Frame) -> None:
        """A frame ends."""
        if frame in self._frames:
            del self._frames[frame]
            self.held -= frame.cost

    def _give_up(self, frame: _Frame) -> None:
        self.given_up += not frame.spoilt
        self.leave(frame)
        frame.owner.forget(frame)


class _Frame:
    """The pieces of one frame that are here."""

    __slots__ = ("cost", "deadline", "length", "number", "offsets", "owner", "pieces", "present", "spoilt")

    def __init__(self, owner: Fragments, number: int, length: int, deadline: float) -> None:
        self.owner = owner
        self.number = number
        self.length = length  # of the whole
        self.deadline = deadline
        self.cost = 0
        self.spoilt = False  # it broke a rule: only its number is kept
        self.offsets: list[int] = []  # sorted
        self.pieces: list[bytes] = []  # in the same order
        self.present = 0  # bytes of all pieces

    def insert(self, offset: int, piece: bytes, length: int) -> bool:
        """Put a piece in its place. False: it contradicts the others, or itself."""
        end = offset + len(piece)
        if not piece or length != self.length or end > length or len(self.pieces) >= MOST_PIECES:
            return False
        if offset == 0 and piece[0] == Protocol.FRAGMENT:
            return False
        place = bisect_left(self.offsets, offset)
        if place and self.offsets[place - 1] + len(self.pieces[place - 1]) > offset:
            return False
        if place < len(self.offsets) and self.offsets[place] < end:
            return False
        self.offsets.insert(place, offset)
        self.pieces.insert(place, piece)
        self.present += len(piece)
        return True


class Fragments:
    """One peer's pieces in, whole frames out."""

    __slots__ = ("_budget", "_spoilt", "_unfinished")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._unfinished: dict[int, _Frame] = {}  # by number, oldest first
        self._spoilt: dict[int, _Frame] = {}

    def __len__(self) -> int:
        return len(self._unfinished)

    def add(self, piece: bytes | bytearray | memoryview, now: float) -> bytes | None:
        """Take a fragment frame; returns the whole frame when this was the last piece that it needed.

        What breaks a rule of §6 spoils its whole, whose number is not taken again until its time is over.
        """
        self._budget.expire(now)
        if len(piece) < FRAGMENT_HEADER:
            return None
        head, number, offset, length = _HEADER.unpack_from(piece)
        if head != _FRAME_HEADER or number in self._spoilt:
            return None
        frame = self._unfinished.get(number)
        if frame is None:
            frame = self._begin(number, length, now)
        body = bytes(piece[FRAGMENT_HEADER:])
        if length < FRAME_HEADER or not frame.insert(offset, body, length):
            self._spoil(frame)
            return None
        if frame.present == length:
            self.forget(frame)
            self._budget.leave(frame)
            return b"".join(frame.pieces)
        self._budget.charge(frame, _PIECE_COST + len(body))
        return None

    def expire(self, now: float) -> None:
        """Give up what is too old; of all peers, for that costs no more."""
        self._budget.expire(now)

    def clear(self) -> None:
        """Forget all: the peer is gone."""
        for frame in (*self._unfinished.values(), *self._spoilt.values()):
            self._budget.leave(frame)
        self._unfinished.clear()
        self._spoilt.clear()

    def forget(self, frame: _Frame) -> None:
        """For the budget: this frame was given up."""
        (self._spoilt if frame.spoilt else self._unfinished).pop(frame.number, None)

    def _begin(self, number: int, length: int, now: float) -> _Frame:
        if len(self._unfinished) >= MOST_UNFINISHED:
            self._spoil(next(iter(self._unfinished.values())))  # or what is late of it would begin it anew
        frame = self._unfinished[number] = _Frame(self, number, length, now + TIMEOUT_S)
        self._budget.enter(frame)
        return frame

    def _spoil(self, frame: _Frame) -> None:
        """Drop the pieces but keep the number, so that what comes later can't begin it anew."""
        self.forget(frame)
        self._budget.given_up += 1
        frame.spoilt = True
        frame.offsets.clear()
        frame.pieces.clear()
        while len(self._spoilt) >= _MOST_SPOILT:
            oldest = next(iter(self._spoilt.values()))
            del self._spoilt[oldest.number]
            self._budget.leave(oldest)
        self._spoilt[frame.number] = frame
        self._budget.charge(frame, _FRAME_COST - frame.cost)
