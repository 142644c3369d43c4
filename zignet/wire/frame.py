"""Frames: what a data message seals (docs/protocol.md §6), and the control frames among them (§7).

Constants first, then the control frames, each beside its encoder, then the parser. All fields are big-endian.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct

__all__ = [
    "ALLOWED_FLAGS",
    "FRAME_FLAGS",
    "FRAME_HEADER",
    "FRAME_HOPS",
    "FRAME_PROTOCOL",
    "FRAME_TRAFFIC",
    "Answer",
    "BadFrame",
    "Challenge",
    "Control",
    "ControlFrame",
    "Farewell",
    "FarewellReason",
    "Flag",
    "Keepalive",
    "Offers",
    "Ping",
    "Pong",
    "Protocol",
    "Refusal",
    "Refused",
    "is_known",
    "parse_control",
]

# The frame header (§6)
FRAME_PROTOCOL = 0
FRAME_FLAGS = 1  # of a control frame: its type
FRAME_TRAFFIC = 2  # DSCP and ECN
FRAME_HOPS = 3
FRAME_HEADER = 4  # bytes

# Behind the header of a control frame (§7); bytes
TOKEN = 8  # of a ping
CHALLENGE_TOKEN = 16
ADDRESS = 16
QUOTE = 8  # of a refused packet
QUOTE_WHOLE = 48  # with its IP header
NUMBER = 4  # of a destination (§6, exit flows)


class Protocol(IntEnum):
    """Byte 0 of a frame. But for the first and the last they are IP protocol numbers; ICMP stands for ICMPv6 too."""

    CONTROL = 0
    ICMP = 1
    WHOLE = 4  # a whole IP packet
    TCP = 6
    UDP = 17
    FRAGMENT = 44
    BUNDLE = 255  # several small frames


class Flag(IntFlag):
    """Byte 1 of a frame that is no control frame."""

    V6 = 1
    PARTIAL = 2  # the checksum is left to the receiver
    EXIT = 4  # a number follows: not for the receiver itself
    BACK = 8  # with EXIT, and of a whole packet: from the exit to the application's side
    NAMED = 16  # with EXIT: what the number means follows too


# A flag that does not belong to the protocol is refused (§6). Plain numbers: the complement of a Flag has only
# the bits that have a name.
ALLOWED_FLAGS: Mapping[int, int] = {
    Protocol.ICMP: int(Flag.V6),
    Protocol.WHOLE: int(Flag.PARTIAL | Flag.BACK),
    Protocol.TCP: int(Flag.V6 | Flag.PARTIAL | Flag.EXIT | Flag.BACK | Flag.NAMED),
    Protocol.UDP: int(Flag.V6 | Flag.PARTIAL | Flag.EXIT | Flag.BACK | Flag.NAMED),
    Protocol.FRAGMENT: 0,
    Protocol.BUNDLE: 0,
}


_WITH_EXIT = int(Flag.EXIT | Flag.BACK | Flag.NAMED)
_EXIT_FLAGS = frozenset((0, int(Flag.EXIT), int(Flag.EXIT | Flag.BACK), int(Flag.EXIT | Flag.NAMED)))


class Control(IntEnum):
    """Byte 1 of a control frame (§7)."""

    KEEPALIVE = 0
    PING = 1
    PONG = 2
    CHALLENGE = 3
    ANSWER = 4
    REFUSAL = 5
    FAREWELL = 6
    OFFERS = 7


class Refusal(IntEnum):
    """Why a frame was refused (§7)."""

    FORBIDDEN = 1  # by the policy
    UNKNOWN_PROTOCOL = 2  # or a flag that does not belong to it
    WHOLE_PACKETS = 3  # are not accepted
    NUMBER_UNKNOWN = 4  # of an exit flow, as the ones that follow
    PORT = 5  # the far end refused
    HOST = 6  # unreachable
    NETWORK = 7  # unreachable
    TOO_LARGE = 8  # for the way behind the exit


class FarewellReason(IntEnum):
    """Why a session ends (§7)."""

    STOPPED = 1  # the node stops
    OTHER_DEVICE = 2  # has taken over this identity
    NOT_ADMITTED = 3  # any longer


class BadFrame(ValueError):
    """Bytes that are no frame, or a packet that can't become one. The text is one of a few, fit to be counted by."""


def is_known(frame: bytes | bytearray | memoryview) -> bool:
    """Whether a frame that is no control frame has a protocol and flags of this version; else it is refused."""
    if len(frame) < FRAME_HEADER:
        return False
    allowed = ALLOWED_FLAGS.get(frame[FRAME_PROTOCOL])
    flags = frame[FRAME_FLAGS]
    if allowed is None or flags & ~allowed:
        return False
    return frame[FRAME_PROTOCOL] == Protocol.WHOLE or flags & _WITH_EXIT in _EXIT_FLAGS


# --- control frames

_CHALLENGE = Struct("!16sI")
_ANSWER = Struct("!16sIHH16s")
_REFUSED = Struct("!BBBx8s")
_REFUSED_EXIT = Struct("!IH")  # number, MTU


def _head(kind: Control) -> bytes:
    return bytes((Protocol.CONTROL, kind, 0, 0))


def _exactly(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise ValueError(f"{size} bytes are wanted, not {len(value)}")
    return value


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Nothing to say, and that is the news."""

    def encode(self) -> bytes:
        """The frame."""
        return _head(Control.KEEPALIVE)


@dataclass(frozen=True, slots=True)
class Ping:
    """Wants a pong with its token."""

    token: bytes  # 8

    def encode(self) -> bytes:
        """The frame. Raises ValueError where the token has another size."""
        return _head(Control.PING) + _exactly(self.token, TOKEN)


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers a ping."""

    token: bytes  # 8

    def encode(self) -> bytes:
        """The frame. Raises ValueError where the token has another size."""
        return _head(Control.PONG) + _exactly(self.token, TOKEN)


@dataclass(frozen=True, slots=True)
class Challenge:
    """Proves a path, and with padding that it carries datagrams of this size."""

    SIZE = FRAME_HEADER + _CHALLENGE.size  # of the frame, without padding

    token: bytes  # 16
    path: int  # 32 bits, the challenger's own number for it
    padding: int = 0  # bytes

    def encode(self) -> bytes:
        """The frame. Raises ValueError where the token has another size."""
        body = _CHALLENGE.pack(_exactly(self.token, CHALLENGE_TOKEN), self.path)
        return _head(Control.CHALLENGE) + body + bytes(self.padding)


@dataclass(frozen=True, slots=True)
class Answer:
    """Answers a challenge, and tells what its sender could not see."""

    token: bytes  # 16
    path: int  # as in the challenge
    size: int  # bytes of the datagram that brought it
    port: int  # that it was seen to come from
    address: bytes  # 16, IPv4 mapped

    def encode(self) -> bytes:
        """The frame. Raises ValueError where token or address have another size."""
        token, address = _exactly(self.token, CHALLENGE_TOKEN), _exactly(self.address, ADDRESS)
        return _head(Control.ANSWER) + _ANSWER.pack(token, self.path, self.size, self.port, address)


@dataclass(frozen=True, slots=True)
class Refused:
    """A frame was not taken; quotes it, so that the application that it came from can be told."""

    reason: int  # a `Refusal`, or a number of a later version
    flags: int  # of the refused frame, as the two that follow
    protocol: int
    quote: bytes  # 8: the first of its packet, 48 of a whole one; zeros behind a shorter one
    number: int = 0  # of the destination, if the flags have EXIT
    mtu: int = 0  # bytes of an IP packet of the refused one's family, if it was TOO_LARGE

    @classmethod
    def of(cls, frame: bytes | bytearray | memoryview, reason: Refusal) -> Refused:
        """What to answer to a frame. Raises BadFrame where it is shorter than its header."""
        if len(frame) < FRAME_HEADER:
            raise BadFrame("shorter than a frame header")
        flags, at, number = frame[FRAME_FLAGS], FRAME_HEADER, 0
        if flags & Flag.EXIT:
            number = int.from_bytes(bytes(frame[at : at + NUMBER]).ljust(NUMBER, b"\0"), "big")
            at += NUMBER
            if flags & Flag.NAMED and len(frame) >= at + 2:
                at += 2 + frame[at + 1]
        size = _quote_size(frame[FRAME_PROTOCOL])
        quote = bytes(frame[at : at + size]).ljust(size, b"\0")
        return cls(reason, flags, frame[FRAME_PROTOCOL], quote, number)

    def encode(self) -> bytes:
        """The frame. Raises ValueError where the quote has another size."""
        quote = _exactly(self.quote, _quote_size(self.protocol))
        body = _REFUSED.pack(self.reason, self.flags, self.protocol, quote[:QUOTE]) + quote[QUOTE:]
        return (
            _head(Control.REFUSAL)
            + body
            + (_REFUSED_EXIT.pack(self.number, self.mtu) if self.flags & Flag.EXIT else b"")
        )


@dataclass(frozen=True, slots=True)
class Farewell:
    """Ends the session."""

    reason: int  # a `FarewellReason`, or a number of a later version

    def encode(self) -> bytes:
        """The frame."""
        return _head(Control.FAREWELL) + bytes((self.reason,))


@dataclass(frozen=True, slots=True)
class Offers:
    """What the sender offers to the receiver: see `zignet.wire.offers`."""

    body: bytes

    def encode(self) -> bytes:
        """The frame."""
        return _head(Control.OFFERS) + self.body


ControlFrame = Keepalive | Ping | Pong | Challenge | Answer | Refused | Farewell | Offers


def _keepalive(_body: bytes, _padding: int) -> Keepalive:
    return Keepalive()


def _ping(body: bytes, _padding: int) -> Ping:
    return Ping(body)


def _pong(body: bytes, _padding: int) -> Pong:
    return Pong(body)


def _challenge(body: bytes, padding: int) -> Challenge:
    token, path = _CHALLENGE.unpack(body)
    return Challenge(token, path, padding)


def _answer(body: bytes, _padding: int) -> Answer:
    return Answer(*_ANSWER.unpack(body))


def _quote_size(protocol: int) -> int:
    return QUOTE_WHOLE if protocol == Protocol.WHOLE else QUOTE


def _refused(body: bytes, _padding: int) -> Refused:
    if body[3]:
        raise BadFrame("a reserved byte is set")
    reason, flags, protocol, quote = _REFUSED.unpack_from(body)
    end = _REFUSED.size + _quote_size(protocol) - QUOTE
    more = _REFUSED_EXIT.unpack_from(body, end) if flags & Flag.EXIT else ()
    return Refused(_or_number(Refusal, reason), flags, protocol, quote + body[_REFUSED.size : end], *more)


def _farewell(body: bytes, _padding: int) -> Farewell:
    return Farewell(_or_number(FarewellReason, body[0]))


def _or_number(names: type[IntEnum], value: int) -> int:
    try:
        return names(value)
    except ValueError:
        return value


# type -> (bytes after the header, without padding; what reads them)
_SHAPES: dict[int, tuple[int, Callable[[bytes, int], ControlFrame]]] = {
    Control.KEEPALIVE: (0, _keepalive),
    Control.PING: (TOKEN, _ping),
    Control.PONG: (TOKEN, _pong),
    Control.CHALLENGE: (_CHALLENGE.size, _challenge),
    Control.ANSWER: (_ANSWER.size, _answer),
    Control.REFUSAL: (_REFUSED.size, _refused),
    Control.FAREWELL: (1, _farewell),
}


def parse_control(frame: bytes | bytearray | memoryview) -> ControlFrame:
    """A control frame. Raises BadFrame: it is none, of an unknown type, too short, or what must be zero is not."""
    if len(frame) < FRAME_HEADER or frame[FRAME_PROTOCOL] != Protocol.CONTROL:
        raise BadFrame("not a control frame")
    if frame[FRAME_TRAFFIC] or frame[FRAME_HOPS]:
        raise BadFrame("a reserved byte is set")
    if frame[FRAME_FLAGS] == Control.OFFERS:
        return Offers(bytes(frame[FRAME_HEADER:]))
    shape = _SHAPES.get(frame[FRAME_FLAGS])
    if shape is None:
        raise BadFrame("a control frame of an unknown type")
    size, read = shape
    if read is _refused and len(frame) >= FRAME_HEADER + size:
        flags, protocol = frame[FRAME_HEADER + 1], frame[FRAME_HEADER + 2]
        size += _quote_size(protocol) - QUOTE + (_REFUSED_EXIT.size if flags & Flag.EXIT else 0)
    end = FRAME_HEADER + size
    if len(frame) < end:
        raise BadFrame("a control frame is cut off")
    padding = len(frame) - end
    if bytes(frame[end:]).count(0) != padding:
        raise BadFrame("padding is not zero")
    return read(bytes(frame[FRAME_HEADER:end]), padding)
