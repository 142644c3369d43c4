"""The `exit` section: what this host offers to peers that want to reach the internet by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zignet.config import values
from zignet.config.document import Node, Scalar
from zignet.config.members import check_members, read_members
from zignet.config.reader import Reading, many, one, setting

if TYPE_CHECKING:
    from zignet.config.model import PeerConfig

__all__ = ["ALL", "OfferConfig", "check_offer"]

ALL = ("all",)


def _allowed(node: Node, key: str, reading: Reading) -> Any:
    """`all`, `none`, or a list of members."""
    if isinstance(node, Scalar) and node.text in ("all", "none"):
        return ALL if node.text == "all" else ()
    return read_members(node, key, reading)


@dataclass(frozen=True, slots=True)
class OfferConfig:
    """Who may have this host dial, and send packets on, and what. Nobody, unless the file says so."""

    allow: tuple[str, ...] = setting((), _allowed)  # see `config.members`; or `ALL`
    ports: tuple[int, ...] = setting((), many(values.whole(1, 65535)))  # (): all
    private: bool = setting(False, one(values.flag))  # private networks too, e.g. a LAN behind this host
    tcp: bool = setting(True, one(values.flag))
    udp: bool = setting(True, one(values.flag))
    packets: bool = setting(False, one(values.flag))  # whole packets are sent on too, by this host's kernel


def check_offer(offer: OfferConfig, peers: Iterable[PeerConfig], line: int, reading: Reading) -> None:
    """Complain about who is nobody."""
    if offer.allow and offer.allow != ALL:
        check_members(offer.allow, (peer.name for peer in peers), line, "exit.allow", reading)
