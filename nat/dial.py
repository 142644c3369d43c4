"""Dialling: from an exit's plan to a connected socket, or the true reason why not.

An `Attempt` is one flow's way out: connect without blocking, then the exit's handshake, if it has one. Its
socket is registered with the loop once; when the attempt has succeeded the relay takes the registration over.
Where the plan is a name, a `Race` of attempts looks it up and finds the address that answers (`nat.race`).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from socket import SocketType

from nat.exit import Dial, DialName, ExitFailure, Reason, Resolver
from nat.expiry import Expiry
from nat.loop import EDGE, READ, WRITE, Handler, Loop
from nat.race import Race
from nat.sockets import Underlay, family_of, sockaddr

__all__ = ["Attempt", "Dialler", "reason_of"]

CHUNK = 4096  # bytes read at a time from a proxy that shakes hands
HANG_UP = 0x2010  # EPOLLRDHUP | EPOLLHUP

REASONS = {
    errno.ECONNREFUSED: Reason.REFUSED,
    errno.ECONNRESET: Reason.REFUSED,
    errno.EHOSTUNREACH: Reason.HOST_UNREACHABLE,
    errno.EHOSTDOWN: Reason.HOST_UNREACHABLE,
    errno.ENETUNREACH: Reason.NET_UNREACHABLE,
    errno.EADDRNOTAVAIL: Reason.NET_UNREACHABLE,
    errno.EAFNOSUPPORT: Reason.NET_UNREACHABLE,
    errno.ENETDOWN: Reason.NET_UNREACHABLE,
    errno.ETIMEDOUT: Reason.TIMED_OUT,
    errno.EACCES: Reason.PROHIBITED,
    errno.EPERM: Reason.PROHIBITED,
}
LOCAL_SHORTAGE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN))


def reason_of(code: int) -> Reason:
    """What an errno of a connect means to the application that waits for it."""
    return REASONS.get(code, Reason.FAILED)


class Attempt(Handler):
    """One way out, under way."""

    __slots__ = (
        "_dialler",
        "_failed",
        "_hung_up",
        "_plan",
        "_stood",
        "_talking",
        "_won",
        "ended",
        "readable",
        "sock",
        "touched",
    )

    def __init__(
        self,
        dialler: Dialler,
        plan: Dial,
        stood: Callable[[Attempt, bytes], None],
        failed: Callable[[Reason, str], None],
    ) -> None:
        self._dialler = dialler
        self._plan = plan
        self._stood = stood
        self._failed = failed
        self._talking = False
        self._hung_up = False  # the far end has sent a FIN: a short read does not mean empty
        self._won = False  # the socket waits for its taker: what arrives is his
        self.ended = False  # cancelled, or it has failed
        self.readable = False  # bytes may wait in the socket for whoever takes it over
        self.sock: SocketType | None = None
        self.touched = dialler.loop.now

    def start(self) -> None:
        """Connect. May fail at once, through `failed`."""
        plan = self._plan
        dialler = self._dialler
        try:
            self.sock = sock = dialler.underlay.tcp(family_of(plan.address), plan.device)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = sock.connect_ex(sockaddr(plan.address, plan.port))
        except OSError as error:
            code = error.errno or errno.EIO
            if code in LOCAL_SHORTAGE:
                self._fail(Reason.TIMED_OUT, f"no socket for a new connection: {os.strerror(code)}")
                return
        if code not in (0, errno.EINPROGRESS):
            self._fail_connect(code)
            return
        dialler.loop.watch(sock.fileno(), self, READ | WRITE | EDGE)
        dialler.waiting.add(self)

    def cancel(self) -> None:
        """The flow is no longer wanted."""
        self._close()

    def abort(self) -> None:
        """A fault in this code: the flow fails."""
        self._fail(Reason.FAILED, "internal error")

    def on_event(self, mask: int) -> None:
        """Connected, or not; or the proxy has answered."""
        sock = self.sock
        if sock is None:
            return
        if mask & READ:
            self.readable = True
            if mask & HANG_UP:
                self._hung_up = True
        if self._won:
            return
        if not self._talking:
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._fail_connect(code)
                return
            handshake = self._plan.handshake
            if handshake is None:
                self._done(b"")
                return
            self._talking = True
            self._send(handshake.start())
        if self.readable:
            self._listen()

    def _listen(self) -> None:
        handshake = self._plan.handshake
        while self.sock is not None and handshake is not None:
            try:
                data = self.sock.recv(CHUNK)
            except BlockingIOError:
                self.readable = False
                return
            except OSError as error:
                self._fail(Reason.FAILED, f"the exit broke the connection: {error.strerror}")
                return
            if not data:
                self._fail(Reason.FAILED, "the exit closed the connection before it had answered")
                return
            try:
                step = handshake.feed(data)
            except ExitFailure as failure:
                self._fail(failure.reason, str(failure))
                return
            if step.send and not self._send(step.send):
                return
            if step.done:
                self._done(step.rest)
                return
            if len(data) < CHUNK and not self._hung_up:
                self.readable = False
                return

    def _send(self, data: bytes) -> bool:
        """Handshakes are far smaller than an empty send buffer, so a short write is a broken exit."""
        sock = self.sock
        if sock is None or not data:
            return True
        try:
            whole = sock.send(data) == len(data)
        except OSError as error:
            self._fail(Reason.FAILED, f"the exit broke the connection: {error.strerror}")
            return False
        if not whole:
            self._fail(Reason.FAILED, "the exit does not read")
        return whole

    def _done(self, rest: bytes) -> None:
        self._won = True
        self._dialler.waiting.discard(self)
        self._stood(self, rest)

    def _fail_connect(self, code: int) -> None:
        reason = reason_of(code)
        if self._plan.handshake is not None and reason is not Reason.TIMED_OUT:
            self._fail(Reason.FAILED, f"the exit cannot be reached: {os.strerror(code)}")
        else:
            self._fail(reason, os.strerror(code))

    def timed_out(self) -> None:
        """The dialler's patience has ended."""
        if self._plan.handshake is None or not self._talking:
            self._fail(Reason.TIMED_OUT, "the connection timed out")
        else:
            self._fail(Reason.FAILED, "the exit accepted the connection and said nothing")

    def _fail(self, reason: Reason, message: str) -> None:
        self._close()
        self._failed(reason, message)

    def _close(self) -> None:
        self.ended = True
        self._dialler.waiting.discard(self)
        if self.sock is not None:
            self._dialler.loop.close(self.sock)
            self.sock = None


class Dialler:
    """Starts attempts, and ends those that take too long."""

    def __init__(self, loop: Loop, underlay: Underlay, patience_s: float) -> None:
        self.loop = loop
        self.underlay = underlay
        self.waiting: Expiry = loop.expiry(patience_s, Attempt.timed_out)
        self.races: Expiry = loop.expiry(patience_s, Race.timed_out)
        self.resolver: Resolver | None = None

    def dial(
        self,
        plan: Dial | DialName,
        stood: Callable[[Attempt, bytes], None],
        failed: Callable[[Reason, str], None],
    ) -> Attempt | Race:
        """Begin. Exactly one of the two is called, once, unless the attempt is cancelled; `failed` perhaps before
        this returns, and then `ended` says so."""
        if isinstance(plan, DialName):
            race = Race(self, plan, stood, failed)
            race.start()
            return race
        return self.attempt(plan, stood, failed)

    def attempt(
        self,
        plan: Dial,
        stood: Callable[[Attempt, bytes], None],
        failed: Callable[[Reason, str], None],
    ) -> Attempt:
        """As `dial`, for an address."""
        attempt = Attempt(self, plan, stood, failed)
        attempt.start()
        return attempt
