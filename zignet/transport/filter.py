"""What the kernel drops, or sorts, before this program is woken for it: classic BPF, the language of tcpdump's filters.

`messages` drops a datagram that is none of the protocol's (§2), an initiation that is for another key, and what bears
an index that we have not made: ten bits of an index (`marked`) tell. `kinds` parts data from all else, for two sockets
of one port. Both only look at the beginning of what may be a train of datagrams of one sender (UDP_GRO): lengths are
least lengths, because the last of a train may be of another kind.
"""

from __future__ import annotations

from zignet.bpf import (
    ALL,
    AND,
    IF_AT_LEAST,
    IF_EQUAL,
    LOAD_BYTE,
    LOAD_LENGTH,
    LOAD_WORD,
    MULTIPLY,
    RETURN,
    SHIFT_RIGHT,
    TO_X,
    XOR_X,
    Step,
    attach_filter,
    attach_selector,
)
from zignet.noise import COOKIE_SIZE, INITIATION_SIZE, RESPONSE_SIZE, MessageType, Suite

__all__ = ["attach_filter", "attach_selector", "kinds", "marked", "messages"]

HEADER = 8  # bytes of UDP's header: a filter sees it, a selector does not
DATA_LEAST = 36  # protocol §2
DST = 8  # where an initiation says whom it is for (§3)
INDEX = {MessageType.RESPONSE: 8, MessageType.COOKIE: 4, MessageType.DATA: 4}  # where the receiver's index is
MARK_BITS = 10


def marked(number: int, secret: int) -> int:
    """An index of 32 bits from a random one: its last ten follow from the others.

    `secret` is odd, 32 bits. It hides nothing of worth: who sees an index may use it, and needs its session's key.
    """
    number = int.from_bytes(number.to_bytes(4, "little"), "big")  # as the filter reads it
    mark = (number >> MARK_BITS) * secret % 2**32 >> 32 - MARK_BITS
    return int.from_bytes((number >> MARK_BITS << MARK_BITS | mark).to_bytes(4, "big"), "little")


def messages(x: bytes, secret: int) -> list[Step]:
    """Passes what may be a message for the node whose key has this X25519 form, and whose indices are `marked` so."""
    for_us = [*_words(x), *_least(INITIATION_SIZE)]
    answer = [*_mark(MessageType.RESPONSE, secret), *_least(RESPONSE_SIZE)]
    return [
        (LOAD_WORD, 0, 0, HEADER),  # type, suite, and the reserved bytes
        *_case(MessageType.DATA, 0, [*_mark(MessageType.DATA, secret), *_least(DATA_LEAST)]),
        *_case(MessageType.INITIATION, Suite.CHACHA, for_us),
        *_case(MessageType.INITIATION, Suite.AES, for_us),
        *_case(MessageType.RESPONSE, Suite.CHACHA, answer),
        *_case(MessageType.RESPONSE, Suite.AES, answer),
        *_case(MessageType.COOKIE, 0, [*_mark(MessageType.COOKIE, secret), *_least(COOKIE_SIZE)]),
        (RETURN, 0, 0, 0),
    ]


def kinds() -> list[Step]:
    """Gives 0 for data, 1 for all else."""
    return [
        (LOAD_BYTE, 0, 0, 0),
        (IF_EQUAL, 0, 1, MessageType.DATA),
        (RETURN, 0, 0, 0),
        (RETURN, 0, 0, 1),
    ]


def _case(kind: int, suite: int, then: list[Step]) -> list[Step]:
    """If a message begins so, then this; it must return."""
    return [(IF_EQUAL, 0, len(then), kind << 24 | suite << 16), *then]


def _least(size: int) -> list[Step]:
    """Pass what has this many bytes, and nothing else."""
    return [
        (LOAD_LENGTH, 0, 0, 0),
        (IF_AT_LEAST, 0, 1, size + HEADER),
        (RETURN, 0, 0, ALL),
        (RETURN, 0, 0, 0),
    ]


def _mark(kind: MessageType, secret: int) -> list[Step]:
    """Drop what bears an index without our mark."""
    return [
        (LOAD_WORD, 0, 0, HEADER + INDEX[kind]),
        (TO_X, 0, 0, 0),
        (SHIFT_RIGHT, 0, 0, MARK_BITS),
        (MULTIPLY, 0, 0, secret),
        (SHIFT_RIGHT, 0, 0, 32 - MARK_BITS),
        (XOR_X, 0, 0, 0),
        (AND, 0, 0, (1 << MARK_BITS) - 1),
        (IF_EQUAL, 1, 0, 0),
        (RETURN, 0, 0, 0),
    ]


def _words(x: bytes) -> list[Step]:
    """Drop what has not these bytes at DST."""
    steps: list[Step] = []
    for at in range(0, len(x), 4):
        steps += [
            (LOAD_WORD, 0, 0, HEADER + DST + at),
            (IF_EQUAL, 1, 0, int.from_bytes(x[at : at + 4], "big")),
            (RETURN, 0, 0, 0),
        ]
    return steps
