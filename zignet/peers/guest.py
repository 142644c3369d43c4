"""The exit's side of exit flows (protocol §6): a peer whose connections this host dials.

    receiver ─► gateway.guest ─► a known flow: the NAT        rare ─► frame(): NAMED, or in pieces
                     └─► first(): not known                              │ what the number means is remembered
                                                                         └─► tcp.segment | datagrams.first
    listener, sockets ─► deliver, write ─► sealed, BACK       a RST, an ICMP error ─► send ─► BACK | refusal

To the engine a guest is a `nat.flow.Source`. Its packets are from the peer's local address here, to the number as an
address: 0.x.y.z, or the same behind 100::/96 (RFC 6666), which no packet of this host has.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nat import craft
from nat.checksum import fold, sum16
from nat.exit import Exit, Reason, Refusal, Route
from nat.flow import Flow
from nat.header import TCP_ACK, TCP_FLAGS, TCP_SYN
from nat.header import Protocol as Ip
from nat.packet import Packet
from zignet.exits.block import Block
from zignet.wire import (
    FRAME_HEADER,
    ExitFrame,
    Flag,
    Protocol,
    Refused,
    rebuild,
    strip,
    to_exit,
)
from zignet.wire import Refusal as Why

if TYPE_CHECKING:
    from collections import Counter

    from nat.engine import Engine
    from zignet.peers.peer import Link
    from zignet.peers.rare import Rare
    from zignet.peers.send import Sender

__all__ = ["MOST_NUMBERS", "Guest", "Guests"]

MOST_NUMBERS = 4_096  # of one guest
GIVEN_UP = 256  # numbers at a time, when there are too many
SEARCH_AGAIN_S = 1.0  # after a search for such in vain
SHARE = 4_096  # flows of one guest, of TCP and of UDP
REFUSALS_PER_S = 200  # to one guest
TARGET4, TARGET6 = bytes(4), b"\x01" + bytes(15)  # a number's address, without the number

# ICMP and ICMPv6 "unreachable" by their codes (RFC 792, RFC 1812 §5.2.7.1, RFC 4443 §3.1)
REASONS4 = {0: Why.NETWORK, 1: Why.HOST, 3: Why.PORT, 9: Why.FORBIDDEN, 10: Why.FORBIDDEN, 13: Why.FORBIDDEN}
REASONS6 = {0: Why.NETWORK, 1: Why.FORBIDDEN, 3: Why.HOST, 4: Why.PORT}
UNREACHABLE4, UNREACHABLE6 = 3, 1
TOO_LARGE = tuple(craft.code_of(craft.Unreachable.FRAGMENTATION_NEEDED, size) for size in (4, 16))


# The exit of a flow whose number means nothing any more, or which is one too many
_NOWHERE = Refusal(Reason.PROHIBITED, "the destination is not known, or the peer has too many flows")
NOWHERE = Route(Block("nowhere", "nowhere", _NOWHERE), "an exit flow that is not dialled")


class Guest:
    """One peer as a source of flows."""

    __slots__ = (
        "_begun",
        "_count_again",
        "_guests",
        "_packet",
        "_refused",
        "_search_again",
        "in4",
        "in6",
        "link",
        "meanings",
        "way4",
        "way6",
    )

    def __init__(self, guests: Guests, link: Link) -> None:
        self._guests = guests
        self._packet = Packet(guests.gateway.raw)
        self._refused = (0, 0)  # a second, and how many refusals left in it
        self._search_again = 0.0
        self._begun = {int(Ip.TCP): 0, int(Ip.UDP): 0}  # flows, or fewer
        self._count_again = 0.0
        self.link = link
        self.meanings: OrderedDict[int, str] = OrderedDict()  # number -> name or address; the oldest first
        self.between()

    def between(self) -> None:
        """The peer has these addresses here: for the headers that the packet path writes."""
        peer = self.link.peer
        self.way4, self.way6 = peer.address4 + TARGET4, peer.address6 + TARGET6
        self.in4 = fold(sum16(self.way4, 0, len(self.way4), 0))
        self.in6 = fold(sum16(self.way6, 0, len(self.way6), 0))

    # --- from the peer

    def first(self, at: int, length: int) -> None:
        """A packet in the gateway's buffer, from the packet path, that no flow carries."""
        packet = self._packet
        if packet.parse(at, length, self._guests.gateway.segment_size() != 0):
            self._guests.dropped["exit flows: malformed"] += 1
            return
        number = int.from_bytes(packet.target()[-4:], "big")
        named = number in self.meanings
        if packet.protocol == Ip.TCP and packet.tcp_flags & (TCP_SYN | TCP_ACK) != TCP_SYN:
            self._guests.engine.tcp.segment(packet, self)
        elif packet.protocol == Ip.UDP and named:
            self.meanings.move_to_end(number)
            self._guests.engine.datagrams.first(packet, self)
        else:
            quote = bytes(packet.buffer[packet.l4 : packet.l4 + 8])
            self.refuse(Why.NUMBER_UNKNOWN, packet.protocol, packet.version == 6, number, quote)

    def frame(self, flow: ExitFrame, frame: bytes) -> None:
        """A frame that names its destination, or came in pieces. Raises BadFrame."""
        guests, gateway = self._guests, self._guests.gateway
        v6 = bool(frame[1] & Flag.V6)
        number = flow.number.to_bytes(4, "big")
        peer = self.link.peer
        source, target = (
            (peer.address6, TARGET6[:12] + number) if v6 else (peer.address4, TARGET4[:0] + number)
        )
        packet = rebuild(flow.frame, source, target)  # before anything is remembered
        tcp = flow.frame[0] == Protocol.TCP
        begins = tcp and flow.frame[FRAME_HEADER + TCP_FLAGS] & (TCP_SYN | TCP_ACK) == TCP_SYN
        if flow.meaning:
            if not self._learn(flow.number, flow.meaning):
                guests.dropped["exit flows: too many destinations"] += 1
                return
        elif begins or (not tcp and flow.number not in self.meanings):
            refused = Refused.of(frame, Why.NUMBER_UNKNOWN)
            self.refuse(Why.NUMBER_UNKNOWN, refused.protocol, v6, flow.number, refused.quote)
            return
        gateway.raw[: gateway.header + len(packet)] = bytes(gateway.header) + packet
        if self._packet.parse(gateway.header, len(packet)):
            guests.dropped["exit flows: malformed"] += 1
        elif tcp:
            guests.engine.tcp.segment(self._packet, self)
        else:
            guests.engine.datagrams.first(self._packet, self)

    def _learn(self, number: int, meaning: str) -> bool:
        """Remember what a number means. False: there is no room."""
        known = self.meanings.get(number)
        if known == meaning:
            self.meanings.move_to_end(number)
            return True
        if known is not None:
            self._guests.end_datagrams(self, number)
        elif len(self.meanings) >= MOST_NUMBERS and not self._give_up():
            return False
        self.meanings[number] = meaning
        self.meanings.move_to_end(number)
        return True

    def _give_up(self) -> bool:
        """Forget the least recently used numbers without live flows."""
        now = self._guests.loop.now
        if now < self._search_again:
            return False
        live = {int.from_bytes(flow.target[-4:], "big") for flow in self._guests.flows_of(self)}
        for number in [number for number in self.meanings if number not in live][:GIVEN_UP]:
            del self.meanings[number]
        if len(self.meanings) >= MOST_NUMBERS:
            self._search_again = now + SEARCH_AGAIN_S
            return False
        return True

    def refuse(self, why: int, protocol: int, v6: bool, number: int, quote: bytes, mtu: int = 0) -> None:
        """Tell the application's side, at a bounded rate."""
        guests = self._guests
        guests.dropped[f"exit flows: refused, {Why(why).name.lower().replace('_', ' ')}"] += 1
        second = int(guests.loop.now)
        last, count = self._refused
        self._refused = (second, count + 1 if second == last else 1)
        if self._refused[1] <= REFUSALS_PER_S:
            flags = int(Flag.EXIT | (Flag.V6 if v6 else 0))
            refused = Refused(why, flags, protocol, quote[:8].ljust(8, b"\0"), number, mtu)
            guests.rare.send(self.link, refused.encode(), is_data=False)

    # --- as a source

    def chosen(self, flow: Flow) -> Route:
        """Where a new flow goes: what its number means, by the exit for guests."""
        meaning = self.meanings.get(int.from_bytes(flow.target[-4:], "big"))
        exit_ = self._guests.exit
        if meaning is None or exit_ is None or not self._has_room(flow.protocol):
            return NOWHERE
        return Route(exit_, f"exit for {self.link.peer.name}", True, meaning)

    def _has_room(self, protocol: int) -> bool:
        """Whether one more flow is within this guest's share. Looks at all flows, but seldom."""
        share = self._guests.shares[protocol]
        if self._begun[protocol] >= share:
            if self._guests.loop.now < self._count_again:
                return False
            flows = self._guests.flows_of(self)
            for each in self._begun:
                self._begun[each] = sum(flow.protocol == each for flow in flows)
            self._count_again = self._guests.loop.now + SEARCH_AGAIN_S
            return self._begun[protocol] <= share  # the new one is among them
        self._begun[protocol] += 1
        return True

    def deliver(self, start: int, length: int) -> None:
        """Seal the packet that lies in the gateway's buffer, as one that comes back."""
        raw = self._guests.gateway.raw
        at = start + (20 if raw[start] >> 4 == 6 else 12)
        number = int.from_bytes(raw[at : at + 4], "big")
        self._guests.sender.exit(start, length, self.link, number, int(Flag.EXIT | Flag.BACK))

    def write(self, pieces: list[Any], segmented: bool = False) -> None:
        """Seal a packet that is in pieces."""
        guests = self._guests
        gateway, end = guests.gateway, 0
        for piece in pieces:
            guests.memory[end : end + len(piece)] = piece
            end += len(piece)
        at = gateway.header
        v6 = gateway.raw[at] >> 4 == 6
        source = bytes(gateway.raw[at + 8 : at + 24] if v6 else gateway.raw[at + 12 : at + 16])
        if source[:-3] != (TARGET6 if v6 else TARGET4)[:-3]:
            guests.dropped["exit flows: from whom the guest has not written to"] += 1
            return
        self.deliver(at, end - at)
        guests.settle()

    def send(self, packet: bytes) -> None:
        """A RST goes back as it is, an ICMP error becomes a refusal."""
        if not packet:
            return
        v6 = packet[0] >> 4 == 6
        protocol = packet[6 if v6 else 9]
        if protocol == Ip.TCP:
            number = int.from_bytes(packet[20:24] if v6 else packet[12:16], "big")
            self._guests.rare.send(self.link, to_exit(strip(packet), number, back=True))
            return
        head = 40 if v6 else 20
        kind, code, quote = packet[head], packet[head + 1], packet[head + 8 :]
        if protocol != (Ip.ICMPV6 if v6 else Ip.ICMP) or len(quote) < head + 8:
            return
        mtu, why = 0, None
        if kind == (UNREACHABLE6 if v6 else UNREACHABLE4):
            why = (REASONS6 if v6 else REASONS4).get(code)
        if (kind, code) == TOO_LARGE[v6]:
            mtu, why = int.from_bytes(packet[head + 6 : head + 8], "big"), Why.TOO_LARGE
        if why is not None:
            number = int.from_bytes(quote[head - 4 : head], "big")
            self.refuse(why, quote[6 if v6 else 9], v6, number, quote[head : head + 8], mtu)


class Guests:
    """The peers that may exit here, and the exit they share."""

    def __init__(self, engine: Engine, sender: Sender, rare: Rare, dropped: Counter[str]) -> None:
        self.engine = engine
        self.gateway = engine.gateway
        self.loop = engine.loop
        self.memory = memoryview(engine.gateway.raw)
        self.sender = sender
        self.rare = rare
        self.dropped = dropped
        self.exit: Exit | None = None  # None: nobody may
        self.may: Callable[[Link], bool] = lambda link: False
        # Flows of one guest, by protocol; whoever wires it knows what the engine has room for.
        self.shares = {int(Ip.TCP): SHARE, int(Ip.UDP): SHARE}
        self._settling = False

    def admit(self, link: Link) -> Guest | None:
        """The guest that a peer is, if it may be one."""
        if self.exit is None or not self.may(link) or not link.peer.address4:
            return None
        link.guest = Guest(self, link)
        return link.guest

    def dismiss(self, link: Link) -> None:
        """The link has ended: so do the flows, and nobody is told. Harmless if there are none."""
        guest, link.guest = link.guest, None
        if guest is not None:
            for flow in self.flows_of(guest):
                self._end(flow, "the peer has gone")
            guest.meanings.clear()

    def recheck(self, link: Link) -> None:
        """The policy may have changed: what it does not allow any more is reset."""
        guest = link.guest
        if guest is None or (self.exit is not None and self.may(link)):
            return
        for flow in self.flows_of(guest):
            if flow.protocol == Ip.TCP and flow.relay is not None:
                flow.relay.fail("the peer may not exit any more")  # the kernel's reset goes to the peer
            else:
                self._end(flow, "the peer may not exit any more")
        link.guest = None

    def flows_of(self, guest: Guest) -> list[Any]:
        """Its live flows. Looks at all there are."""
        return [flow for flow in self.engine.flows() if flow.source is guest]

    def end_datagrams(self, guest: Guest, number: int) -> None:
        """A number means something else now: UDP flows to what it meant end."""
        for flow in list(self.engine.udp.flows.values()):
            if flow.source is guest and int.from_bytes(flow.target[-4:], "big") == number:
                self._end(flow, "its number means something else now")

    def _end(self, flow: Any, why: str) -> None:
        flow.error = why
        if flow.protocol == Ip.UDP:
            self.engine.udp.remove(flow)
        else:
            self.engine.tcp.end(flow, why)

    def settle(self) -> None:
        """Small packets leave at the end of this turn."""
        if not self._settling:
            self._settling = True
            self.loop.soon(self._settle)

    def _settle(self) -> None:
        self._settling = False
        self.sender.settle()
