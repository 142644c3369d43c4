"""TCP flows, from the SYN to the relay.

segment      a packet without a rewrite: only a SYN makes a flow, anything else is answered with a RST
_admit       the rules, with the name unknown. Decided: the exit is dialled first and the SYN held back
             (an honest connect). Not decided: the SYN passes, and the name is sniffed after the accept
_stood       the exit answered: the held SYN passes
_refuse      it did not: the application sees what it would have seen without us
accepted     the listener has the connection: the relay begins, or the sniff
relay_ended  both sides are closed; the kernel finishes, and the table waits for it
"""

from __future__ import annotations

import errno
import logging
import socket
from socket import SocketType

from nat import craft
from nat.arrival import Arrival
from nat.dial import Attempt, Dialler
from nat.exit import Chooser, Reason, Refusal, Route, Target
from nat.flow import Source, State
from nat.gateway import Gateway
from nat.loop import EDGE, READ, Loop
from nat.packet import Packet
from nat.relay import RESET_ON_CLOSE, Pipes, Relay
from nat.settings import Settings
from nat.table import Table, TcpFlow
from nat.tally import Tally
from sniff import speaks_first

__all__ = ["Tcp"]

log = logging.getLogger("zignet.tcp")

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10

UNREACHABLE = {
    Reason.HOST_UNREACHABLE: craft.Unreachable.HOST,
    Reason.NET_UNREACHABLE: craft.Unreachable.NET,
}


class Tcp:
    """All TCP of one gateway."""

    def __init__(
        self,
        loop: Loop,
        gateway: Gateway,
        table: Table,
        dialler: Dialler,
        settings: Settings,
        tally: Tally,
    ) -> None:
        self.loop = loop
        self.gateway = gateway
        self.table = table
        self.dialler = dialler
        self.settings = settings
        self.chooser: Chooser
        self.pipes = Pipes()
        self.arrivals = loop.expiry(settings.sniff_s, Arrival.silent)
        self.idle = loop.expiry(settings.tcp_idle_s, self._idle)
        self.tally = tally
        table.evicted = self._evicted

    # --- packets

    def segment(self, packet: Packet, source: Source) -> None:
        """A TCP packet from `source` that the gateway did not know, or the SYN of a flow that it knows."""
        key = packet.key()
        rewrite = self.gateway.rewrites.get(key)
        if rewrite is not None and rewrite is rewrite.flow.forth and rewrite.flow.source is not source:
            self.gateway.dropped["tcp: another source's flow"] += 1
            return
        if packet.tcp_flags & (SYN | ACK | RST) != SYN:
            if rewrite is None:
                self._stray(packet, source)
            else:  # IP options or extension headers kept it off the quick path
                self.gateway.pass_on(rewrite, packet.start, packet.length, packet.l4)
                if packet.tcp_flags & (FIN | RST):
                    flow = rewrite.flow
                    self.table.closing_flags(flow, rewrite is flow.forth, packet.tcp_flags)
            return
        flow = self.table.get(key)
        if flow is not None:
            if flow.isn == packet.tcp_seq and flow.state <= State.ESTABLISHED:
                if flow.state != State.DIALLING:  # else: it is held back, and so is its repetition
                    self._pass(flow, packet)
                return
            self._replace(flow)
        flow = self.table.open(
            source,
            key,
            packet.source(),
            packet.source_port,
            packet.target(),
            packet.target_port,
            packet.tcp_seq,
            self.loop.now,
        )
        if flow is None:
            self.gateway.dropped["tcp: no room for a new flow"] += 1
            return
        self._admit(flow, packet)

    def _stray(self, packet: Packet, source: Source) -> None:
        self.gateway.dropped["tcp: segment without a flow"] += 1
        source.send(craft.tcp_reset(packet))

    def _pass(self, flow: TcpFlow, packet: Packet) -> None:
        self.gateway.pass_on(flow.forth, packet.start, packet.length, packet.l4)

    def _replace(self, flow: TcpFlow) -> None:
        """A new connection between the same ports: the application has forgotten the old one."""
        self.table.replace(flow)
        if flow.state == State.ESTABLISHED and flow.relay is not None:
            flow.relay.fail("the application began again on the same port")
        elif flow.state in (State.DIALLING, State.HALF_OPEN):
            self._evicted(flow)
            self.table.remove(flow)

    # --- the choice, at the SYN

    def _admit(self, flow: TcpFlow, packet: Packet) -> None:
        port = flow.target_port
        name = "" if speaks_first(port) or port in self.settings.server_first else None
        route = self.choose(flow, name)
        if route is None:
            self._pass(flow, packet)
            return
        flow.route = route
        # Kept with its virtio_net_hdr: its checksum may be a partial one.
        flow.held = bytes(self.gateway.raw[: packet.start + packet.length])
        flow.state = State.DIALLING
        if route.name:
            flow.name = route.name
            flow.known_by = "dns"
        self._leave(flow, route.target(flow.target, flow.target_port, ""))

    def choose(self, flow: TcpFlow, name: str | None) -> Route | None:
        """Ask the rules; or the source, if it is not this host."""
        route = flow.source.chosen(flow)
        if route is not None:
            return route
        return self.chooser.choose(
            6, flow.source_address, flow.source_port, flow.target, flow.target_port, name
        )

    def _leave(self, flow: TcpFlow, target: Target) -> None:
        """Dial the exit for a flow whose SYN is held."""
        assert flow.route is not None
        plan = flow.route.exit.tcp(target)
        if isinstance(plan, Refusal):
            self._refuse(flow, plan.reason, plan.message or "refused by the rules")
            return
        self.tally.dialled(flow)
        attempt = self.dialler.dial(
            plan,
            lambda attempt, rest: self._stood(flow, attempt, rest),
            lambda reason, message: self._failed(flow, reason, message),
        )
        if not attempt.ended:  # else: it has failed already
            flow.dial = attempt

    def _stood(self, flow: TcpFlow, attempt: Attempt, rest: bytes) -> None:
        flow.dial = (attempt, rest)
        flow.state = State.HALF_OPEN
        held, flow.held = flow.held, b""
        self.gateway.replay(held)

    def _failed(self, flow: TcpFlow, reason: Reason, message: str) -> None:
        self.tally.failed(flow, message, self.loop.now)
        self._refuse(flow, reason, message)

    def _refuse(self, flow: TcpFlow, reason: Reason, message: str) -> None:
        """The application sees the true answer. On a time-out that is none at all."""
        flow.error = message
        held, source = flow.held, flow.source
        self._over(flow)
        self.table.remove(flow)
        if reason is Reason.TIMED_OUT or not held:
            return
        packet = self.gateway.parsed(held)
        if packet is not None:
            code = UNREACHABLE.get(reason)
            if reason is Reason.PROHIBITED and source is not self.gateway:
                code = craft.Unreachable.PROHIBITED  # a peer's application sees a RST, and its node knows why
            source.send(craft.tcp_reset(packet) if code is None else craft.unreachable(packet, code))

    def _evicted(self, flow: TcpFlow) -> None:
        """The table gives up a half-open flow: its dial, or the exit's socket, goes too."""
        dial = flow.dial
        if isinstance(dial, tuple):
            dial[0].cancel()
        elif dial is not None:
            dial.cancel()
        flow.dial = None
        flow.error = flow.error or "the handshake was not completed"
        self._over(flow)

    # --- accepted

    def accepted(self, sock: SocketType, host: str, port: int) -> None:
        """The listener has a connection."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        flow = self.table.accepted(socket.inet_pton(family, host), port)
        if flow is None or flow.state != State.HALF_OPEN:
            self.reset(sock)  # somebody on this host has found the listener's port
            return
        self.table.establish(flow)
        dial, flow.dial = flow.dial, None
        if dial is None:
            flow.relay = arrival = Arrival(self, flow, sock)
            self.loop.watch(sock.fileno(), arrival, READ | EDGE)
            return
        attempt, rest = dial
        self.join(flow, sock, attempt, rest, watched=False)

    def join(
        self,
        flow: TcpFlow,
        sock: SocketType,
        attempt: Attempt,
        rest: bytes,
        *,
        watched: bool,
        ahead: bytes = b"",
    ) -> None:
        """Both sides stand: the relay begins. `ahead` was sniffed and goes first."""
        assert attempt.sock is not None
        relay = Relay(
            self,
            self.loop,
            self.pipes,
            flow,
            sock,
            attempt.sock,
            ahead_up=ahead,
            ahead_down=rest,
            local_readable=watched,
            exit_readable=attempt.readable,
        )
        flow.relay = relay
        flow.touched = self.loop.now
        self.idle.add(relay)
        self.loop.hand_over(attempt.sock.fileno(), relay.exit)
        if watched:
            self.loop.hand_over(sock.fileno(), relay.local)
        else:
            self.loop.watch(sock.fileno(), relay.local, READ | EDGE)
        relay.start()

    def relay_ended(self, relay: Relay, error: str) -> None:
        """Both sides of a relay are closed."""
        flow: TcpFlow = relay.flow
        self.idle.discard(relay)
        flow.up, flow.down = relay.up, relay.down
        flow.error = error
        flow.relay = None
        self._over(flow)
        self.table.close(flow, self.loop.now)

    def reset(self, sock: SocketType) -> None:
        """Close a connection with a RST."""
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        self.loop.close(sock)

    def give_up(self, flow: TcpFlow, sock: SocketType, error: str, *, quietly: bool = False) -> None:
        """An accepted flow that gets no relay."""
        flow.relay = None
        flow.error = error
        if quietly:
            self.loop.close(sock)
        else:
            self.reset(sock)
        self._over(flow)
        self.table.close(flow, self.loop.now)

    def end(self, flow: TcpFlow, why: str) -> None:
        """End a flow whose source has gone, whatever its state: nobody there is told."""
        if flow.relay is not None:
            flow.relay.fail(why)  # an arrival has it, too
        elif flow.state <= State.HALF_OPEN:
            flow.error = why
            self._evicted(flow)
        if flow.source is not None:
            self.table.remove(flow)

    def _idle(self, relay: Relay) -> None:
        relay.fail(f"idle for {self.settings.tcp_idle_s:g} s")

    def _over(self, flow: TcpFlow) -> None:
        if not flow.ended:
            flow.ended = self.loop.now
            self.tally.ended(flow)
