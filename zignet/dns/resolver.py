"""The stub resolver of the engine's dialler: a name to its addresses (`nat.exit.Resolver`).

/etc/hosts first, then what was found lately, then the system's name servers: A and AAAA side by side, and whichever
has addresses waits 50 ms for the other (RFC 8305 §3). Who asks for a name that is being looked up waits along.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from nat.exit import Reason, Refusal
from nat.loop import Loop, Timer
from zignet.dns.exchange import Exchange, Query
from zignet.dns.found import Found, found_in
from zignet.dns.hosts import Hosts
from zignet.dns.wire import AAAA, A, BadMessage, make_query

__all__ = ["MOST_KEPT", "MOST_WAITING", "Resolver"]

RESOLUTION_DELAY_S = 0.05  # RFC 8305 §3
MOST_KEPT = 4096  # names
MOST_WAITING = 4096  # who wait for one name
LONGEST_S = 300.0  # that an answer is kept, whatever its TTL
LONGEST_NEGATIVE_S = 30.0
FAILED_S = 1.0  # that a failure is kept: the next page needs the same twenty names
# RFC 6761, RFC 7686; and ours, which no name server of the internet has anything to say about
NOWHERE = ("zignet", "invalid", "onion")
LOCALHOST = (b"\0" * 15 + b"\1", b"\x7f\0\0\1")

Answer = Sequence[bytes] | Refusal
Done = Callable[[Answer], None]


class Waiter:
    """Who asked (`nat.exit.Lookup`)."""

    __slots__ = ("_search", "done")

    def __init__(self, search: Search | None, done: Done) -> None:
        self._search = search
        self.done = done

    def cancel(self) -> None:
        """Wait no longer."""
        if self._search is not None:
            self._search.leave(self)
            self._search = None


class Search:
    """One name, being looked up."""

    __slots__ = ("_asked", "_found", "_resolver", "_timer", "_told", "_waiters", "name")

    def __init__(self, resolver: Resolver, name: str) -> None:
        self._resolver = resolver
        self.name = name
        self._waiters: dict[Waiter, None] = {}
        self._asked: list[Query] = []
        self._found: dict[int, Found] = {}
        self._timer: Timer | None = None
        self._told: Answer | None = None  # to those who would not wait longer

    def __len__(self) -> int:
        return len(self._waiters)

    def start(self) -> None:
        """Ask for both families."""
        for kind in (AAAA, A):
            query = self._resolver.exchange.ask(make_query(self.name, kind), partial(self._answered, kind))
            if query is not None:
                self._asked.append(query)

    def join(self, done: Done) -> Waiter:
        """Wait for the answer; if it was told to others already, get it at once."""
        if self._told is not None:
            done(self._told)
            return Waiter(None, done)
        waiter = Waiter(self, done)
        self._waiters[waiter] = None
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Nobody waits: nobody need ask."""
        self._waiters.pop(waiter, None)
        if not self._waiters and self._told is None:
            self.stop()
            self._resolver.over(self)

    def stop(self) -> None:
        """Ask no longer."""
        if self._timer is not None:
            self._timer.cancel()
        for query in self._asked:
            query.cancel()
        self._waiters.clear()

    def _answered(self, kind: int, answer: bytes | None) -> None:
        self._found[kind] = found_in(answer)
        if len(self._found) == 2:
            if self._timer is not None:
                self._timer.cancel()
            self._resolver.over(self)
            result = self._result()
            self._resolver.keep(self.name, result, self._lasts())
            self._tell(result)
        elif self._found[kind].addresses:
            self._timer = self._resolver.loop.call_later(RESOLUTION_DELAY_S, self._late)

    def _late(self) -> None:
        self._tell(self._result())

    def _tell(self, answer: Answer) -> None:
        self._told = answer
        while self._waiters:  # one of them may cancel others
            waiter = next(iter(self._waiters))
            del self._waiters[waiter]
            waiter.done(answer)

    def _result(self) -> Answer:
        found = list(self._found.values())
        addresses = [address for each in found for address in each.addresses]
        if addresses:
            return addresses
        failed = next((each.failed for each in found if each.failed), "")
        if failed:
            return Refusal(Reason.HOST_UNREACHABLE, f"{self.name} can't be resolved: {failed}")
        if not all(each.exists for each in found):
            return Refusal(Reason.HOST_UNREACHABLE, f"{self.name} does not exist")
        return Refusal(Reason.HOST_UNREACHABLE, f"{self.name} has no address")

    def _lasts(self) -> float:
        """Seconds that the result may be kept."""
        found = self._found.values()
        if any(each.failed for each in found):
            return FAILED_S
        positive = [each.ttl for each in found if each.addresses]
        if positive:
            return min(*positive, LONGEST_S)
        return min(LONGEST_NEGATIVE_S, *(each.ttl for each in found))


class Resolver:
    """See the module. Everything in it is bounded: what is kept, what is asked, who waits."""

    def __init__(self, loop: Loop, exchange: Exchange, hosts: Hosts | None = None) -> None:
        self.loop = loop
        self.exchange = exchange
        self._hosts = hosts or Hosts()
        self._kept: OrderedDict[str, tuple[float, Answer]] = OrderedDict()
        self._searches: dict[str, Search] = {}
        self.hits = 0

    def resolve(self, name: str, done: Done) -> Waiter:
        """See `nat.exit.Resolver`."""
        answer = self._known(name)
        if answer is not None:
            done(answer)
            return Waiter(None, done)
        search = self._searches.get(name)
        if search is None:
            search = self._searches[name] = Search(self, name)
            waiter = search.join(done)
            search.start()
            return waiter
        if len(search) >= MOST_WAITING:
            done(Refusal(Reason.FAILED, f"too many wait for {name} already"))
            return Waiter(None, done)
        return search.join(done)

    def _known(self, name: str) -> Answer | None:
        address = _literal(name)
        if address:
            return (address,)
        listed = self._hosts.addresses(name, self.loop.now)
        if listed:
            return listed
        kept = self._kept.get(name)
        if kept is not None:
            if kept[0] > self.loop.now:
                self.hits += 1
                return kept[1]
            del self._kept[name]
        top = name.rpartition(".")[2]
        if top == "localhost":
            return LOCALHOST
        if top in NOWHERE:
            return Refusal(Reason.HOST_UNREACHABLE, f"{name} is not a name of the internet")
        try:
            make_query(name, A)
        except BadMessage as error:
            return Refusal(Reason.HOST_UNREACHABLE, str(error))
        return None

    def keep(self, name: str, answer: Answer, seconds: float) -> None:
        """Remember what was found."""
        if seconds <= 0:
            return
        self._kept[name] = (self.loop.now + seconds, answer)
        self._kept.move_to_end(name)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)

    def over(self, search: Search) -> None:
        """It has ended."""
        if self._searches.get(search.name) is search:
            del self._searches[search.name]

    @property
    def kept(self) -> int:
        """Names whose answer is remembered."""
        return len(self._kept)

    def flush(self) -> int:
        """Forget what was found; how many names that were."""
        count = len(self._kept)
        self._kept.clear()
        return count

    def close(self) -> None:
        """Look nothing up any more."""
        for search in list(self._searches.values()):
            search.stop()
        self._searches.clear()


def _literal(name: str) -> bytes:
    """An address that stands where a name should."""
    if not name[-1:].isdigit() and ":" not in name:
        return b""
    try:
        return socket.inet_pton(socket.AF_INET6 if ":" in name else socket.AF_INET, name)
    except (OSError, ValueError):
        return b""
