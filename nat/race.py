"""A name as the plan of a dial: resolve it, then connect to whichever address answers first (RFC 8305).

IPv6 goes first and the families take turns; an address has 250 ms before the next one is tried beside it, and
none once it has failed. The first connection that stands wins, the others are closed. If none does, the
application is told the reason that says most about the far end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from nat.exit import Dial, DialName, Lookup, Reason, Refusal

if TYPE_CHECKING:
    from nat.dial import Attempt, Dialler
    from nat.loop import Timer

__all__ = ["ATTEMPT_DELAY_S", "MOST_ADDRESSES", "Race", "in_turn", "permitted"]

ATTEMPT_DELAY_S = 0.25  # RFC 8305 §5, Connection Attempt Delay
MOST_ADDRESSES = 16  # of one name; a server may send hundreds

# What an error says about the far end, the truest first: that it answered, that it is silent, that there is no way.
_TRUEST = (
    Reason.REFUSED,
    Reason.TIMED_OUT,
    Reason.HOST_UNREACHABLE,
    Reason.NET_UNREACHABLE,
    Reason.PROHIBITED,
    Reason.FAILED,
)


def in_turn(addresses: Iterable[bytes]) -> list[bytes]:
    """Both families in turn, IPv6 first (RFC 8305 §4); at most `MOST_ADDRESSES`."""
    each = list(dict.fromkeys(addresses))
    v6 = [address for address in each if len(address) == 16]
    v4 = [address for address in each if len(address) == 4]
    mixed = (address for address in chain.from_iterable(zip_longest(v6, v4)) if address is not None)
    return list(mixed)[:MOST_ADDRESSES]


def permitted(
    name: str, answer: Sequence[bytes] | Refusal, may_dial: Callable[[bytes], bool] | None
) -> list[bytes] | Refusal:
    """The addresses of a name that may be dialled, in the order to try them."""
    if isinstance(answer, Refusal):
        return answer
    allowed = in_turn(answer if may_dial is None else filter(may_dial, answer))
    if not allowed:
        return Refusal(Reason.PROHIBITED, f"{name} has no address that may be dialled")
    return allowed


class Race:
    """The way out of one flow to a name."""

    __slots__ = (
        "_dialler",
        "_failed",
        "_left",
        "_lookup",
        "_plan",
        "_running",
        "_stood",
        "_timer",
        "_worst",
        "ended",
        "touched",
    )

    def __init__(
        self,
        dialler: Dialler,
        plan: DialName,
        stood: Callable[[Attempt, bytes], None],
        failed: Callable[[Reason, str], None],
    ) -> None:
        self._dialler = dialler
        self._plan = plan
        self._stood = stood
        self._failed = failed
        self._left: list[bytes] = []  # addresses, the next one last
        self._running: set[Any] = set()
        self._worst: tuple[Reason, str] | None = None
        self._timer: Timer | None = None
        self._lookup: Lookup | None = None
        self.ended = False  # won, failed or cancelled
        self.touched = dialler.loop.now

    def start(self) -> None:
        """Look the name up. May fail at once."""
        resolver = self._dialler.resolver
        if resolver is None:
            self._end(Reason.FAILED, "names are not resolved on this host")
            return
        self._dialler.races.add(self)
        lookup = resolver.resolve(self._plan.name, self._resolved)
        if not self.ended:
            self._lookup = lookup

    def cancel(self) -> None:
        """The flow is no longer wanted."""
        self._stop()

    def timed_out(self) -> None:
        """The dialler's patience has ended: for the look-up and all attempts together."""
        self._note(
            Reason.TIMED_OUT,
            "the connection timed out" if self._running else "the name was not resolved in time",
        )
        self._give_up()

    def _resolved(self, answer: Sequence[bytes] | Refusal) -> None:
        self._lookup = None
        addresses = permitted(self._plan.name, answer, self._plan.may_dial)
        if isinstance(addresses, Refusal):
            self._end(addresses.reason, addresses.message)
            return
        self._left = addresses[::-1]
        self._next()

    def _next(self) -> None:
        """Try the next address, and the one after it if that fails at once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        plan = self._plan
        while self._left and not self.ended:
            dial = Dial(self._left.pop(), plan.port, None, plan.device)
            attempt = self._dialler.attempt(dial, self._won, self._lost)
            if not attempt.ended:
                self._running.add(attempt)
                if self._left:
                    self._timer = self._dialler.loop.call_later(ATTEMPT_DELAY_S, self._next)
                return
        if not self._running and not self.ended:
            self._give_up()

    def _won(self, attempt: Attempt, rest: bytes) -> None:
        self._running.discard(attempt)
        self._stop()
        self._stood(attempt, rest)

    def _lost(self, reason: Reason, message: str) -> None:
        self._note(reason, message)
        ended = [attempt for attempt in self._running if attempt.ended]
        if ended:  # else: it failed within `_next`, which goes on by itself
            self._running.difference_update(ended)
            self._next()

    def _note(self, reason: Reason, message: str) -> None:
        if self._worst is None or _TRUEST.index(reason) < _TRUEST.index(self._worst[0]):
            self._worst = reason, message

    def _give_up(self) -> None:
        assert self._worst is not None
        self._end(*self._worst)

    def _end(self, reason: Reason, message: str) -> None:
        self._stop()
        self._failed(reason, message)

    def _stop(self) -> None:
        self.ended = True
        self._dialler.races.discard(self)
        self._left.clear()
        if self._lookup is not None:
            self._lookup.cancel()
            self._lookup = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for attempt in self._running:
            attempt.cancel()
        self._running.clear()
