"""A flow that was accepted before its exit was known: its first bytes name where it wants to go."""

from __future__ import annotations

from socket import SocketType
from typing import TYPE_CHECKING

from nat.dial import Attempt
from nat.exit import Reason, Refusal
from nat.loop import Handler
from nat.race import Race
from nat.table import TcpFlow
from sniff import Found, Outcome, StreamSniffer

if TYPE_CHECKING:
    from nat.tcp import Tcp

__all__ = ["Arrival"]

CHUNK = 16_384  # bytes
HANG_UP_OR_ERROR = 0x18  # EPOLLHUP | EPOLLERR


class Arrival(Handler):
    """Sniffs, chooses, dials; then the relay takes over. What it read goes to the exit untouched."""

    __slots__ = ("_attempt", "_flow", "_sniffer", "_sock", "_tcp", "touched")

    up = down = 0  # as a relay's: nothing was passed on yet

    def __init__(self, tcp: Tcp, flow: TcpFlow, sock: SocketType) -> None:
        self._tcp = tcp
        self._flow = flow
        self._sock = sock
        self._sniffer: StreamSniffer | None = StreamSniffer(tcp.settings.sniff_bytes)
        self._attempt: Attempt | Race | None = None
        self.touched = tcp.loop.now
        tcp.arrivals.add(self)

    def on_event(self, mask: int) -> None:
        """The application has said something, or gone."""
        if self._sniffer is None:  # dialling: the relay will read it
            if mask & HANG_UP_OR_ERROR:
                self._give_up("reset by the application")
            return
        while True:
            try:
                data = self._sock.recv(CHUNK)
            except BlockingIOError:
                return
            except OSError as error:
                self._give_up(error.strerror or "reset by the application")
                return
            if not data:
                if self._sniffer.data:
                    self._decide("")  # a half-close after a few bytes: they still have somewhere to go
                else:
                    self._give_up("closed before a byte was sent", quietly=True)
                return
            outcome = self._sniffer.feed(data)
            if isinstance(outcome, Found):
                self._flow.known_by = outcome.protocol
                self._flow.ech = outcome.ech
                self._decide(outcome.name)
                return
            if outcome is Outcome.NOT_THIS:
                self._decide("")
                return
            if len(data) < CHUNK and not mask & 0x2000:
                return  # a short read has emptied the socket

    def silent(self) -> None:
        """Nothing, or too little, in the time that a sniff may take: the address has to do."""
        if self._sniffer is not None:
            self._decide("")

    def fail(self, error: str) -> None:
        """End the flow with a reset, as a relay would."""
        self._give_up(error)

    def abort(self) -> None:
        """A fault in this code: the flow fails."""
        self._give_up("internal error")

    def _decide(self, name: str) -> None:
        tcp, flow = self._tcp, self._flow
        tcp.arrivals.discard(self)
        flow.name = name
        if not name:
            flow.known_by = "address"
        flow.route = route = tcp.choose(flow, name)
        assert route is not None  # the seam's promise: with a name the rules always answer
        plan = route.exit.tcp(route.target(flow.target, flow.target_port, name))
        if isinstance(plan, Refusal):
            self._give_up(plan.message or "refused by the rules")
            return
        assert self._sniffer is not None
        ahead = self._sniffer.data
        self._sniffer = None
        tcp.tally.dialled(flow)
        self._attempt = attempt = tcp.dialler.dial(
            plan,
            lambda attempt, rest: self._stood(attempt, rest, ahead),
            self._refused,
        )
        if attempt.ended:
            self._attempt = None

    def _stood(self, attempt: Attempt, rest: bytes, ahead: bytes) -> None:
        self._attempt = None
        self._tcp.join(self._flow, self._sock, attempt, rest, watched=True, ahead=ahead)

    def _refused(self, reason: Reason, message: str) -> None:
        self._attempt = None
        self._tcp.tally.failed(self._flow, message, self._tcp.loop.now)
        self._give_up(message)

    def _give_up(self, error: str, *, quietly: bool = False) -> None:
        self._sniffer = None
        self._tcp.arrivals.discard(self)
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None
        self._tcp.give_up(self._flow, self._sock, error, quietly=quietly)
