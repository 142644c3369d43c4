"""What a node offers to a peer: the body of an offers frame (docs/protocol.md §7)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from struct import Struct
from typing import NamedTuple

from zignet.wire.frame import BadFrame, Offers, Protocol

__all__ = ["MOST_OFFERS", "Offer", "offers_frame", "parse_offers"]

MOST_OFFERS = 32
_HEAD = Struct("!BHB")  # protocol, port, length of the name
_NAME = re.compile(rb"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


class Offer(NamedTuple):
    """A service of the sender, on the address that the receiver has for it."""

    protocol: int  # TCP or UDP
    port: int
    name: str  # a DNS label in lower case


def offers_frame(offers: Iterable[Offer]) -> bytes:
    """The frame that tells of them, which are at most `MOST_OFFERS`; it replaces what was told before."""
    body = bytearray()
    for offer in offers:
        name = offer.name.encode("ascii")
        body += _HEAD.pack(offer.protocol, offer.port, len(name)) + name
    return Offers(bytes(body)).encode()


def parse_offers(body: bytes) -> tuple[Offer, ...]:
    """The offers in such a body; a zero where a protocol should be ends it. Raises BadFrame."""
    found: list[Offer] = []
    at = 0
    while at < len(body) and body[at]:
        if at + _HEAD.size > len(body):
            raise BadFrame("an offer is cut off")
        protocol, port, size = _HEAD.unpack_from(body, at)
        at += _HEAD.size
        name = body[at : at + size]
        at += size
        if protocol not in (Protocol.TCP, Protocol.UDP) or port == 0 or _NAME.fullmatch(name) is None:
            raise BadFrame("an offer of nothing")
        if len(name) != size:
            raise BadFrame("an offer is cut off")
        if len(found) == MOST_OFFERS:
            raise BadFrame("too many offers")
        found.append(Offer(protocol, port, name.decode("ascii")))
    if any(body[at:]):
        raise BadFrame("padding is not zero")
    return tuple(found)
