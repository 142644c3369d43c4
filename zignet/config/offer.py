"""The `exit` section: what this host offers to peers that want to reach the internet by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zignet.config import values
from zignet.config.document import Node, Scalar
from zignet.config.reader import Reading, many, one, setting
from zignet.identity import BadKey, PublicKey
from zignet.routing import did_you_mean

if TYPE_CHECKING:
    from zignet.config.model import PeerConfig

__all__ = ["ALL", "OfferConfig", "check_offer", "offered_to"]

ALL = ("all",)


def _allowed(node: Node, key: str, reading: Reading) -> Any:
    """`all`, `none`, or a list of peers' names and keys."""
    if isinstance(node, Scalar) and node.text in ("all", "none"):
        return ALL if node.text == "all" else ()
    return many(values.some_text)(node, key, reading)


@dataclass(frozen=True, slots=True)
class OfferConfig:
    """Who may have this host dial, and what. Nobody, unless the file says so."""

    allow: tuple[str, ...] = setting((), _allowed)  # names of peers, keys; or `ALL`
    ports: tuple[int, ...] = setting((), many(values.whole(1, 65535)))  # (): all
    private: bool = setting(False, one(values.flag))  # private networks too, e.g. a LAN behind this host
    tcp: bool = setting(True, one(values.flag))
    udp: bool = setting(True, one(values.flag))


def offered_to(offer: OfferConfig, peers: Iterable[PeerConfig]) -> frozenset[PublicKey] | None:
    """The keys that may; None: all that are admitted. Raises `BadKey` for what is neither a name nor a key."""
    if offer.allow == ALL:
        return None
    if not offer.allow:
        return frozenset()
    named = {peer.name.lower(): peer.key for peer in peers}
    return frozenset(named.get(text.lower()) or PublicKey.from_text(text) for text in offer.allow)


def check_offer(offer: OfferConfig, peers: Iterable[PeerConfig], line: int, reading: Reading) -> None:
    """Complain about what is neither the name of a peer nor a key."""
    if not offer.allow or offer.allow == ALL:
        return
    names = {peer.name.lower() for peer in peers}
    for text in offer.allow:
        if text.lower() in names:
            continue
        try:
            PublicKey.from_text(text)
        except BadKey:
            hint = did_you_mean(text, names)
            reading.complain(line, "exit.allow", f'"{text}" is neither the name of a peer nor a key{hint}')
