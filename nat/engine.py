"""The engine: one gateway, and what its packets need. The only place in `nat` that knows all the parts.

TUN ─► gateway ─► known TCP flow: rewritten, and back to the TUN
          ├─────► known UDP flow: its mapping sends it on
          └─────► `packet`: parse ─► fragments | tcp | datagrams | icmp | refused
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from nat import craft
from nat.datagrams import Datagrams
from nat.dial import Dialler
from nat.exit import Chooser, Resolver
from nat.flow import Flow, State
from nat.fragments import Reassembler
from nat.gateway import Gateway
from nat.header import Protocol
from nat.icmp import Icmp
from nat.listener import Listener
from nat.loop import READ, Loop
from nat.mapping import Mappings
from nat.packet import Packet, Problem
from nat.settings import Settings
from nat.sockets import Underlay
from nat.table import AliasPool, Table
from nat.tally import Tally
from nat.tcp import Tcp
from nat.udp import Udp

__all__ = ["Engine"]

FRAGMENT_SWEEP_S = 5.0


class Engine:
    """The NAT loopback engine on one TUN."""

    def __init__(
        self,
        loop: Loop,
        tun: Any,
        underlay: Underlay,
        chooser: Chooser,
        aliases: dict[int, AliasPool],
        settings: Settings,
        *,
        super_datagrams: bool = False,
    ) -> None:
        self.loop = loop
        self.tun = tun
        self.settings = settings
        self.tally = tally = Tally()
        self.gateway = gateway = Gateway(loop, tun)
        self.dropped = gateway.dropped
        self.dialler = Dialler(loop, underlay, settings.dial_s)
        self.table = Table(gateway, loop.expiry, aliases, settings.flows, settings.half_open)
        self.tcp = Tcp(loop, gateway, self.table, self.dialler, settings, tally)
        self.udp = Udp(loop, gateway, settings, tally, super_datagrams)
        self.mappings = Mappings(loop, self.udp, underlay, self.dialler, gateway.dropped)
        self.datagrams = Datagrams(loop, gateway, self.udp, settings)
        self.udp.attach(self.mappings)
        self.icmp = Icmp(loop, gateway, self.table, self.udp, underlay, tally)
        self.fragments = Reassembler()
        self.listeners: list[Listener] = []
        self.choose_with(chooser)
        self._packet = Packet(gateway.raw)
        gateway.table = self.table
        gateway.udp = self.udp
        gateway.slow = self.packet

    def choose_with(self, chooser: Chooser) -> None:
        """From now on new flows follow these rules; live ones stay as they are."""
        self.tcp.chooser = self.datagrams.chooser = self.icmp.chooser = chooser

    def resolve_with(self, resolver: Resolver | None) -> None:
        """Who is asked about the names that flows are dialled by on this host."""
        self.dialler.resolver = resolver

    def listen(self, address: bytes) -> Listener:
        """Terminate the TCP of this address family on `address`, a free port of it. Raises OSError."""
        listener = Listener(self.loop, address, self.tcp.accepted)
        self.listeners.append(listener)
        self.table.listen(address, listener.port)
        return listener

    def start(self) -> None:
        """Read the TUN from now on."""
        self.loop.watch(self.tun.fileno(), self.gateway, READ)
        self._sweep_fragments()

    def _sweep_fragments(self) -> None:
        self.fragments.expire(self.loop.now)
        self.loop.call_later(FRAGMENT_SWEEP_S, self._sweep_fragments)

    # --- the slow path

    def packet(self, at: int, length: int) -> None:
        """A packet that the gateway's quick path does not carry."""
        packet = self._packet
        gateway = self.gateway
        problem = packet.parse(at, length, gateway.segment_size() != 0)
        if problem:
            self.dropped["malformed: " + Problem(problem).name.lower().replace("_", " ")] += 1
            return
        target = packet.target()
        if not _is_unicast(target):
            self.dropped["multicast or broadcast"] += 1
            return
        if packet.fragment:
            whole = self.fragments.add(packet, self.loop.now)
            if whole is not None:
                gateway.feed(whole)
            return
        protocol = packet.protocol
        if protocol == Protocol.TCP:
            self.tcp.segment(packet, gateway)
        elif protocol == Protocol.UDP:
            self.datagrams.first(packet, gateway)
        elif protocol == (Protocol.ICMP if packet.version == 4 else Protocol.ICMPV6):
            self.icmp.message(packet, gateway)
        else:
            self.dropped[f"protocol {protocol}"] += 1
            gateway.send(craft.unreachable(packet, craft.Unreachable.PROHIBITED))

    # --- for people

    def flows(self) -> Iterator[Flow]:
        """All live flows."""
        return chain(
            (flow for flow in self.table if not flow.ended),
            list(self.udp.flows.values()),
            list(self.icmp.flows.values()),
        )

    def close(self) -> None:
        """Read no more, end all flows with a reset, and close every socket."""
        self.loop.forget(self.tun.fileno())
        for flow in list(self.table):
            if flow.relay is not None:
                flow.relay.fail("ZigNet stops")
            elif flow.state <= State.HALF_OPEN:
                flow.error = "ZigNet stops"
                self.table.evicted(flow)
        for udp_flow in list(self.udp.flows.values()):
            self.udp.remove(udp_flow)
        for listener in self.listeners:
            listener.close()
        self.icmp.close()
        self.tcp.pipes.dispose()


def _is_unicast(address: bytes) -> bool:
    first = address[0]
    if len(address) == 4:
        return first < 224 and first != 0
    return first != 0xFF and any(address)
