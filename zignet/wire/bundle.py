"""Small frames that share a datagram (docs/protocol.md §6). The packet path has its own; this is its oracle."""

from __future__ import annotations

from collections.abc import Sequence

from zignet.wire.frame import FRAME_HEADER, BadFrame, Protocol

__all__ = ["bundle", "unbundle"]

LENGTH = 2  # bytes in front of each frame
INSIDE = (Protocol.ICMP, Protocol.WHOLE, Protocol.TCP, Protocol.UDP)
_HEADER = bytes((Protocol.BUNDLE, 0, 0, 0))


def bundle(frames: Sequence[bytes]) -> bytes:
    """The frame that carries these. Raises BadFrame for what must not be in one."""
    for frame in frames:
        _check(frame)
    return _HEADER + b"".join(len(frame).to_bytes(LENGTH, "big") + frame for frame in frames)


def unbundle(frame: bytes) -> tuple[list[bytes], str]:
    """The frames of a bundle in order, as far as they are good; and what is wrong with the next, or ""."""
    found: list[bytes] = []
    at = FRAME_HEADER
    while at < len(frame):
        start = at + LENGTH
        at = start + int.from_bytes(frame[at:start], "big")
        if at > len(frame):
            return found, "a frame that reaches over the end of its bundle"
        try:
            _check(frame[start:at])
        except BadFrame as error:
            return found, str(error)
        found.append(frame[start:at])
    return found, ""


def _check(frame: bytes) -> None:
    if len(frame) < FRAME_HEADER:
        raise BadFrame("shorter than a frame header")
    if frame[0] not in INSIDE:
        raise BadFrame("a frame that must not be in a bundle")
