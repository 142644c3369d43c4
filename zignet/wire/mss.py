"""The MSS option of a TCP SYN, lowered to what the path carries (RFC 9293 §3.7.1)."""

from __future__ import annotations

from nat.checksum import CHECKSUM_AT_TCP, adjust, delta
from nat.header import TCP_DATA_OFFSET, TCP_FLAGS, TCP_LENGTH, TCP_SYN

__all__ = ["clamp_mss"]

_END, _NOP, _MSS = 0, 1, 2  # option kinds (RFC 9293 §3.2)
_MSS_LENGTH = 4


def clamp_mss(buffer: bytearray | memoryview, at: int, end: int, most: int, *, partial: bool = False) -> bool:
    """Lower the MSS of the SYN between `at` and `end` to `most` bytes, in place. Returns whether it was changed.

    The checksum follows, but with `partial` (it is not there yet) is left alone. So is a segment that is no SYN,
    says no more than `most`, says nothing, or has malformed options.
    """
    changed = False
    for place in _places(buffer, at, end):
        if int.from_bytes(buffer[place : place + 2], "big") > most:
            _replace(buffer, at, place, most, partial)
            changed = True
    return changed


def _places(buffer: bytearray | memoryview, at: int, end: int) -> list[int]:
    """Where the values of MSS options stand; nowhere if an option is malformed."""
    if at < 0 or end > len(buffer) or end - at < TCP_LENGTH or not buffer[at + TCP_FLAGS] & TCP_SYN:
        return []
    stop = at + (buffer[at + TCP_DATA_OFFSET] >> 4) * 4
    if stop > end:
        return []
    found: list[int] = []
    here = at + TCP_LENGTH
    while here < stop and buffer[here] != _END:
        if buffer[here] == _NOP:
            here += 1
            continue
        size = buffer[here + 1] if here + 1 < stop else 0
        if size < 2 or here + size > stop:
            return []
        if buffer[here] == _MSS:
            if size != _MSS_LENGTH:
                return []
            found.append(here + 2)
        here += size
    return found


def _replace(buffer: bytearray | memoryview, at: int, place: int, value: int, partial: bool) -> None:
    # Behind an odd number of NOPs the value lies across two words of the checksum: look at both.
    start = place - (place - at) % 2
    stop = place + 2 + (place - at) % 2
    before = bytes(buffer[start:stop])
    buffer[place : place + 2] = value.to_bytes(2, "big")
    if not partial:
        adjust(buffer, at + CHECKSUM_AT_TCP, delta(before, bytes(buffer[start:stop])))
