"""Frames of exit flows (docs/protocol.md §6): a number for the destination, and with the first packets what it means.

A destination is a text here: a name, or an IPv4 or IPv6 address in its usual notation.

    to_exit(frame, number, meaning)   a frame, as `strip` makes it, becomes one of an exit flow
    parse_exit(frame)                 the other way
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from zignet.wire.frame import FRAME_FLAGS, FRAME_HEADER, BadFrame, Flag, Protocol, is_known

__all__ = ["NUMBERS", "ExitFrame", "address_of", "good_name", "parse_exit", "to_exit"]

NUMBER = 4  # bytes
NUMBERS = 1 << 24  # numbers are below this, and above 0
LONGEST = 253  # bytes of a name (RFC 1035 §2.3.4, as text)
_NAME, _IP4, _IP6 = 1, 4, 6  # kinds
_LABELS = re.compile(rb"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*", re.ASCII)
# What inet_aton(3) takes for an address: the last label is a number in one of its notations.
_NUMERIC = re.compile(rb"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class ExitFrame:
    """A frame of an exit flow, taken apart."""

    number: int
    back: bool  # from the exit to the application's side
    meaning: str  # "": not NAMED
    frame: bytes  # what it would be without EXIT


def good_name(name: bytes) -> bool:
    """Whether these bytes may be the name of a destination."""
    return len(name) <= LONGEST and _LABELS.fullmatch(name) is not None and _NUMERIC.fullmatch(name) is None


def address_of(meaning: str) -> bytes | None:
    """The 4 or 16 bytes of a destination that is an address; None for a name."""
    if "%" in meaning or (":" not in meaning and not meaning[-1:].isdigit()):
        return None
    try:
        return ip_address(meaning).packed
    except ValueError:
        return None


def _named(meaning: str) -> bytes:
    address = address_of(meaning)
    if address is not None:
        return bytes((_IP4 if len(address) == 4 else _IP6, len(address))) + address
    try:
        name = meaning.encode("ascii")
    except UnicodeEncodeError as error:
        raise BadFrame("not a name of a destination") from error
    if not good_name(name):
        raise BadFrame("not a name of a destination")
    return bytes((_NAME, len(name))) + name


def to_exit(frame: bytes, number: int, meaning: str = "", *, back: bool = False) -> bytes:
    """The frame of an exit flow. Raises BadFrame for what can't be one."""
    if not 0 < number < NUMBERS:
        raise BadFrame("not a number of a destination")
    if not is_known(frame) or frame[0] not in (Protocol.TCP, Protocol.UDP) or frame[FRAME_FLAGS] & Flag.EXIT:
        raise BadFrame("neither TCP nor UDP")
    flags = frame[FRAME_FLAGS] | Flag.EXIT | (Flag.BACK if back else 0) | (Flag.NAMED if meaning else 0)
    named = _named(meaning) if meaning else b""
    head = bytes((frame[0], flags)) + frame[2:FRAME_HEADER]
    return head + number.to_bytes(NUMBER, "big") + named + frame[FRAME_HEADER:]


def parse_exit(frame: bytes) -> ExitFrame:
    """A frame with EXIT, taken apart; what it carries is not looked at. Raises BadFrame."""
    if not is_known(frame) or not frame[FRAME_FLAGS] & Flag.EXIT:
        raise BadFrame("not a frame of an exit flow")
    flags, at = frame[FRAME_FLAGS], FRAME_HEADER + NUMBER
    number = int.from_bytes(frame[FRAME_HEADER:at], "big")
    if len(frame) < at or not 0 < number < NUMBERS:
        raise BadFrame("not a number of a destination")
    meaning = ""
    if flags & Flag.NAMED:
        if len(frame) < at + 2:
            raise BadFrame("a destination is cut off")
        kind, size = frame[at], frame[at + 1]
        at += 2 + size
        meaning = _meaning(kind, frame[at - size : at], size)
    plain = bytes((frame[0], flags & int(Flag.V6 | Flag.PARTIAL))) + frame[2:FRAME_HEADER] + frame[at:]
    return ExitFrame(number, bool(flags & Flag.BACK), meaning, plain)


def _meaning(kind: int, body: bytes, size: int) -> str:
    if len(body) < size:
        raise BadFrame("a destination is cut off")
    if kind == _NAME and good_name(body):
        return body.decode("ascii")
    if (kind, size) == (_IP4, 4):
        return str(IPv4Address(body))
    if (kind, size) == (_IP6, 16):
        return str(IPv6Address(body))
    raise BadFrame("not a name of a destination")
