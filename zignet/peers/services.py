"""What a peer may reach on this host: by protocol and port, and the answers to what this host has asked it.

Nothing here is configuration, socket or clock. The packet path looks a port up in a bitmap; it asks `expects` about a
packet that no rule lets in, and tells `asks` of what leaves here for the peer, but only for peers that are restricted.
TCP needs no state as long as nothing is taken away: without a SYN there is no connection. When a port is taken away,
`narrowed` says that other segments count as well.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nat.header import TCP_ACK, TCP_FLAGS, TCP_RST, TCP_SYN
from zignet.identity import PublicKey
from zignet.wire import FRAME_HEADER, Flag, Protocol

if TYPE_CHECKING:
    from zignet.peers.peer import Link

__all__ = ["PROTOCOLS", "Desk", "Rule", "ServiceRules", "Services"]

ANSWERED_S = (
    180.0  # for how long an answer to a datagram is expected; Linux has 120 for a flow of both directions
)
MOST_ASKED = 4_096  # of one peer and protocol
MOST_RESTING = 4_096  # peers
ASKED_AGAIN_S = 1.0  # how often a flow is noted
PORTS = 65_536
TCP, UDP, ICMP = int(Protocol.TCP), int(Protocol.UDP), int(Protocol.ICMP)
PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP}
ECHO, ECHO6 = 8, 128  # requests; their answers are nobody's service


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that some peers may reach."""

    protocol: int  # `Protocol.TCP`, `UDP` or `ICMP`
    ports: Sequence[tuple[int, int]] = ()  # first and last; (): all
    members: Container[PublicKey] | None = None  # None: everybody


class Services:
    """What one peer may reach, and what it was asked. The bitmaps are shared between peers with equal rights."""

    __slots__ = ("_asked", "_latest", "_latest_at", "icmp", "narrowed", "tcp", "udp")

    def __init__(self, tcp: bytes, udp: bytes, icmp: bool) -> None:
        self.tcp = tcp  # a bit for each port, as `udp`
        self.udp = udp
        self.icmp = icmp
        self.narrowed = False  # something was open before, in this conversation
        self._asked: tuple[dict[int, float], dict[int, float]] = ({}, {})  # TCP, UDP: flow -> when
        self._latest = -1
        self._latest_at = 0.0

    def follow(self, before: Services | None) -> Services:
        """Take over what the peer was asked; `before` is None where nothing was closed, and nothing noted."""
        if before is not None:
            self._asked = before._asked
            self.narrowed = (
                before.narrowed
                or before.icmp > self.icmp
                or _less(self.tcp, before.tcp)
                or _less(self.udp, before.udp)
            )
        return self

    def asks(self, protocol: int, own: int, far: int, now: float) -> None:
        """A connection or a datagram leaves port `own` here for port `far` of the peer."""
        flow = own << 16 | far
        if flow == self._latest and now - self._latest_at < ASKED_AGAIN_S:
            return
        self._latest, self._latest_at = flow, now
        asked = self._asked[protocol == UDP]
        asked.pop(flow, None)  # to the end
        asked[flow] = now
        if len(asked) > MOST_ASKED:
            del asked[next(iter(asked))]

    def expects(self, protocol: int, own: int, far: int, now: float) -> bool:
        """Whether a packet from port `far` of the peer answers what port `own` here has asked."""
        at = self._asked[protocol == UDP].get(own << 16 | far)
        return at is not None and (protocol == TCP or now - at < ANSWERED_S)

    def admits(self, frame: bytes, now: float) -> bool:
        """Whether a frame for this host may come in: the slow way, for what the packet path does not carry itself."""
        protocol = frame[0]
        if protocol == ICMP:
            return self.icmp or len(frame) <= FRAME_HEADER or not is_echo(frame[FRAME_HEADER], frame[1])
        if len(frame) < FRAME_HEADER + 4:
            return False
        far = int.from_bytes(frame[FRAME_HEADER : FRAME_HEADER + 2], "big")
        own = int.from_bytes(frame[FRAME_HEADER + 2 : FRAME_HEADER + 4], "big")
        if protocol == TCP:
            if len(frame) < FRAME_HEADER + 20 or not self.looks_at(frame[FRAME_HEADER + TCP_FLAGS]):
                return True  # without a SYN it begins nothing; too short is no segment
            bits = self.tcp
        else:
            bits = self.udp
        return bool(bits[own >> 3] >> (own & 7) & 1) or self.expects(protocol, own, far, now)

    def looks_at(self, flags: int) -> bool:
        """Whether a TCP segment with these flags needs a rule."""
        return flags & (TCP_SYN | TCP_ACK) == TCP_SYN or (self.narrowed and not flags & TCP_RST)


class ServiceRules:
    """The rules of a configuration: what each key may reach.

    `rules` None: everything. What is published is open besides; to those in `only`, nothing else is.
    """

    def __init__(
        self, rules: Iterable[Rule] | None, published: Iterable[Rule] = (), only: Container[PublicKey] = ()
    ) -> None:
        self._base = None if rules is None else tuple(rules)
        self._published = tuple(published)
        self._only = only
        self._known: dict[tuple[int, ...], tuple[bytes, bytes, bool]] = {}

    def rules_for(self, key: PublicKey) -> tuple[Rule, ...] | None:
        """Those that may let this key in somewhere; None: everything is open to it."""
        if key in self._only:
            return self._published
        return None if self._base is None else self._base + self._published

    def of(self, key: PublicKey) -> Services | None:
        """For one peer's key; None: everything is open to it."""
        rules = self.rules_for(key)
        if rules is None:
            return None
        mine = [rule for rule in rules if rule.members is None or key in rule.members]
        which = tuple(map(id, mine))
        made = self._known.get(which)
        if made is None:
            made = self._known[which] = (
                _bitmap(rule.ports for rule in mine if rule.protocol == TCP),
                _bitmap(rule.ports for rule in mine if rule.protocol == UDP),
                any(rule.protocol == ICMP for rule in mine),
            )
        return Services(*made)

    def first(self, key: PublicKey, protocol: int, port: int) -> int | None:
        """The place of the first of the rules for this key that lets it in there; None: there is none."""
        for at, rule in enumerate(self.rules_for(key) or ()):
            if (
                rule.protocol == protocol
                and (not rule.ports or any(low <= port <= high for low, high in rule.ports))
                and (rule.members is None or key in rule.members)
            ):
                return at
        return None


class Desk:
    """The rules in force, and what the peers that rest were asked: a conversation may go on after its link has gone."""

    def __init__(self) -> None:
        self._rules: ServiceRules | None = None
        self._resting: dict[bytes, Services] = {}  # by key, the latest last

    def open(self, key: PublicKey) -> Services | None:
        """For a new link; None: everything is open."""
        if self._rules is None:
            return None
        made = self._rules.of(key)
        return None if made is None else made.follow(self._resting.pop(key.x, None))

    def reach(self, key: PublicKey, proto: str, port: int | None) -> tuple[bool, str]:
        """Whether a key may reach a service (tcp, udp, icmp; None: any port), and a sentence that says why."""
        what = proto if port is None else f"{proto} port {port}"
        rules = None if self._rules is None else self._rules.rules_for(key)
        if rules is None:
            return True, "Nothing limits what it may reach (inbound: services)."
        for rule in rules:
            fits = not rule.ports or (
                port is not None and any(low <= port <= high for low, high in rule.ports)
            )
            if rule.protocol == PROTOCOLS[proto] and fits and (rule.members is None or key in rule.members):
                whom = "everybody who may come in" if rule.members is None else "this key"
                return True, f"{what} is for {whom} (inbound: services, or publish)."
        return False, f"{what} is not for this key (inbound: services, and publish)."

    def rest(self, key: PublicKey, services: Services | None) -> None:
        """The link goes."""
        if services is not None:
            self._resting[key.x] = services
            if len(self._resting) > MOST_RESTING:
                del self._resting[next(iter(self._resting))]

    def change(self, rules: ServiceRules | None, links: Iterable[Link]) -> None:
        """Other rules; whoever is here meets them at once."""
        self._rules = rules
        for link in links:
            made = None if rules is None else rules.of(link.peer.key)
            link.services = None if made is None else made.follow(link.services)
        if rules is None:
            self._resting.clear()


def is_echo(kind: int, flags: int) -> bool:
    """Whether an ICMP message of this type asks for an answer."""
    return kind == (ECHO6 if flags & Flag.V6 else ECHO)


def _bitmap(ranges: Iterable[Sequence[tuple[int, int]]]) -> bytes:
    bits = 0
    for some in ranges:
        for low, high in some or ((0, PORTS - 1),):
            bits |= ((1 << (high - low + 1)) - 1) << low
    return bits.to_bytes(PORTS // 8, "little")


def _less(now: bytes, before: bytes) -> bool:
    """Whether a bit that was set is not any more."""
    return now is not before and bool(int.from_bytes(before) & ~int.from_bytes(now))
