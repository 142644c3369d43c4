"""Who may come in, by asking: the rules' sources in their order, each as seldom as it allows.

    judge = Judge(policies, "deny", sources, time.monotonic, recheck_s=300, changed=told)
    judge.start()                         in the running loop
    verdict = await judge.decide(key)     raises `Busy`
    judge.keep(key)                       from now on `told(key, verdict)` when a source changes its mind
    judge.status()                        per source: asked, matched, failed, the last error

For a key there is at most one decision under way, so no source is asked twice at once about it. The
32,768 keys that were asked about last are remembered, and at most twice as many; what a source said stands until its
validity is over, or until the source tells of a change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from zignet.config import PolicyConfig
from zignet.identity import PublicKey
from zignet.policy.recent import Recent
from zignet.policy.rules import Known, Rule, Step, Verdict, weigh
from zignet.policy.source import Finding, Source, SourceError

__all__ = ["Busy", "Judge", "SourceStatus", "Step", "Verdict"]

MOST_KNOWN = 65_536  # keys, of decisions and of each source's findings
MOST_AT_ONCE = 1_024  # decisions under way for those who ask
_SWEEPERS = 64  # decisions under way after a change
_PATIENCE_S = 60.0  # with a source that breaks its promise to be bounded in time
_RETRY_S = 5.0  # after a failure, for the same key
_LEAST_S = 1.0  # that a finding stands
_TRIES = 3  # of a decision while sources change
_MOST_REASON = 200  # characters

Changed = Callable[[PublicKey, Verdict], None]
_Decided = tuple[float, bool, str, tuple[Step, ...]]  # until when, allowed, reason, trail


class Busy(Exception):
    """Too many decisions are under way, or the judge has gone home. What held so far should hold on."""


@dataclass(slots=True)
class SourceStatus:
    """How it goes with one source."""

    label: str
    asked: int = 0  # look-ups; what was remembered does not count
    matched: int = 0
    failed: int = 0
    pending: int = 0
    last_error: str | None = None
    last_error_age_s: float | None = None
    notes: tuple[str, ...] = ()  # what a person should know, e.g. lines of a file that are no keys


@dataclass(slots=True)
class _Asked:
    """A source, and what it said."""

    source: Source
    known: Recent[tuple[int, Known]] = field(
        default_factory=lambda: Recent(MOST_KNOWN)
    )  # with its generation
    generation: int = 0  # one up with every change
    asked: int = 0
    matched: int = 0
    failed: int = 0
    pending: int = 0
    last_error: str | None = None
    last_error_at: float = 0.0


@dataclass(slots=True)
class _Kept:
    key: PublicKey
    allowed: bool | None  # as the caller was last told; None: it was not


class Judge:
    """See above. All of it in one asyncio loop."""

    def __init__(
        self,
        policies: Sequence[PolicyConfig],
        default: str,  # allow | deny, for whom no policy matches
        sources: Sequence[Source],  # one for each policy
        now: Callable[[], float],  # monotonic seconds
        *,
        recheck_s: float = 300.0,  # the most that a verdict is valid
        changed: Changed = lambda key, verdict: None,
    ) -> None:
        self._rules = [
            Rule(source.label, policy.action_if_match == "allow", policy.on_error, policy.optimistic)
            for policy, source in zip(policies, sources, strict=True)
        ]
        self._default = default == "allow"
        self._asked = [_Asked(source) for source in sources]
        self._now = now
        self._recheck_s = recheck_s
        self._tell = changed
        self._epoch = 0  # one up with every change of any source
        self._decided: Recent[_Decided] = Recent(MOST_KNOWN)
        self._flights: dict[bytes, asyncio.Task[Verdict]] = {}
        self._provisional: set[bytes] = set()  # told so, and waiting for the final verdict
        self._kept: dict[bytes, _Kept] = {}
        self._sweep: asyncio.Task[None] | None = None
        self._swept = 0  # the epoch of the last sweep
        self._closed = False

    def start(self) -> None:
        """Watch the sources."""
        for asked in self._asked:
            asked.source.watch(lambda asked=asked: self._on_change(asked))  # type: ignore[misc]

    async def close(self) -> None:
        """End what is under way, without a verdict, and close the sources."""
        self._closed = True
        tasks: list[asyncio.Task[Verdict] | asyncio.Task[None]] = list(self._flights.values())
        if self._sweep is not None:
            tasks.append(self._sweep)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(asked.source.close() for asked in self._asked), return_exceptions=True)

    # questions

    async def decide(self, key: PublicKey) -> Verdict:
        """Whether this key may come in. Raises `Busy`.

        A provisional verdict is followed by a call of `changed` with the final one, whatever it is.
        """
        now = self._now()
        entry = self._decided.get(key.x)
        if entry is not None and entry[0] > now:
            until, allowed, reason, trail = entry
            return Verdict(allowed, reason, until - now, False, trail)
        verdict_now = weigh(self._rules, self._recall(key), self._default, now, hurry=True)
        if isinstance(verdict_now, Verdict) and not verdict_now.provisional:
            return self._settle(key, verdict_now)
        flight = self._fly(key, MOST_AT_ONCE)
        if isinstance(verdict_now, Verdict):
            self._provisional.add(key.x)
            return verdict_now
        try:
            return await asyncio.shield(flight)
        except asyncio.CancelledError:
            if self._closed and flight.cancelled():
                raise Busy("the policies are being closed") from None
            raise

    def keep(self, key: PublicKey) -> None:
        """Call `changed` from now on when the verdict about this key is another than before. After `decide`."""
        entry = self._decided.get(key.x)
        self._kept[key.x] = _Kept(key, entry[1] if entry is not None else None)
        if entry is None and not self._closed:  # a source has changed since
            with suppress(Busy):
                self._fly(key, MOST_AT_ONCE)

    def forget(self, key: PublicKey) -> None:
        """No longer."""
        self._kept.pop(key.x, None)

    def status(self) -> list[SourceStatus]:
        """How it goes with each source, in the order of the policies."""
        now = self._now()
        return [
            SourceStatus(
                asked.source.label,
                asked.asked,
                asked.matched,
                asked.failed,
                asked.pending,
                asked.last_error,
                now - asked.last_error_at if asked.last_error is not None else None,
                tuple(getattr(asked.source, "notes", ())),
            )
            for asked in self._asked
        ]

    # decisions

    def _recall(self, key: PublicKey) -> list[Known | None]:
        """What each source said. What it said before a change is old, and still the last that it said."""
        found: list[Known | None] = []
        for asked in self._asked:
            entry = asked.known.get(key.x)
            if entry is None or entry[0] == asked.generation:
                found.append(entry and entry[1])
            else:
                found.append(Known(entry[1].finding, entry[1].error, float("-inf")))
        return found

    def _fly(self, key: PublicKey, most: int) -> asyncio.Task[Verdict]:
        """The decision about a key that is under way, or a new one."""
        flight = self._flights.get(key.x)
        if flight is None:
            if self._closed or len(self._flights) >= most:
                raise Busy("too many keys are being decided on")
            flight = asyncio.create_task(self._decide(key))
            self._flights[key.x] = flight
        return flight

    async def _decide(self, key: PublicKey) -> Verdict:
        try:
            for _ in range(_TRIES):
                epoch = self._epoch
                verdict = await self._evaluate(key)
                if epoch == self._epoch:
                    break
        finally:
            self._flights.pop(key.x, None)
        return self._settle(key, verdict)

    async def _evaluate(self, key: PublicKey) -> Verdict:
        """Ask what has to be asked, each source at most once: by the clock of the beginning no answer gets too old."""
        now = self._now()
        known = self._recall(key)
        while isinstance(verdict := weigh(self._rules, known, self._default, now), int):
            known[verdict] = await self._look(self._asked[verdict], key, known[verdict])
        verdict.valid_s = max(verdict.valid_s - (self._now() - now), 0.0)
        return verdict

    def _settle(self, key: PublicKey, verdict: Verdict) -> Verdict:
        """Remember a verdict, and tell of it where it was waited for or is another than before."""
        verdict.valid_s = min(verdict.valid_s, self._recheck_s)
        until = self._now() + verdict.valid_s
        self._decided.put(key.x, (until, verdict.allowed, verdict.reason, verdict.trail))
        kept = self._kept.get(key.x)
        differs = kept is not None and kept.allowed != verdict.allowed
        if kept is not None:
            kept.allowed = verdict.allowed
        if key.x in self._provisional or differs:
            self._provisional.discard(key.x)
            self._tell(key, verdict)
        return verdict

    async def _look(self, asked: _Asked, key: PublicKey, before: Known | None) -> Known:
        generation = asked.generation
        asked.asked += 1
        asked.pending += 1
        finding = before.finding if before is not None else None
        error: str | None = None
        valid_s = _RETRY_S
        try:
            async with asyncio.timeout(_PATIENCE_S):
                found = await asked.source.look(key)
            finding = Finding(found.matches, _clause(found.reason), found.valid_s)
            valid_s = float("inf") if found.valid_s is None else max(found.valid_s, _LEAST_S)
            asked.matched += found.matches
        except SourceError as failure:
            error = _clause(str(failure))
        except TimeoutError:
            error = f"no answer within {_PATIENCE_S:.0f} s"
        except Exception as bug:  # its text may hold anything
            error = f"it failed with {type(bug).__name__}, which is a bug"
        finally:
            asked.pending -= 1
        if error is not None:
            asked.failed += 1
            asked.last_error = error
            asked.last_error_at = self._now()
        known = Known(finding, error, self._now() + valid_s)
        asked.known.put(key.x, (generation, known))
        return known

    # changes

    def _on_change(self, asked: _Asked) -> None:
        asked.generation += 1
        self._epoch += 1
        self._decided.clear()
        if self._sweep is None and self._kept and not self._closed:
            self._sweep = asyncio.create_task(self._sweep_all())

    async def _sweep_all(self) -> None:
        """Decide again about all who are kept, until nothing has changed meanwhile."""
        try:
            while self._swept != self._epoch:
                self._swept = self._epoch
                kept = iter(list(self._kept.values()))
                await asyncio.gather(*(self._decide_each(kept) for _ in range(_SWEEPERS)))
        finally:
            self._sweep = None

    async def _decide_each(self, kept: Iterator[_Kept]) -> None:
        for each in kept:
            if each.key.x in self._kept:
                with suppress(Busy):
                    await self._fly(each.key, MOST_AT_ONCE + _SWEEPERS)


def _clause(text: str) -> str:
    """What scripts and servers say, fit for a log: one line of bounded length that prints."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text[: 4 * _MOST_REASON])
    shown = " ".join(shown.split()).rstrip(".")
    return shown if len(shown) <= _MOST_REASON else f"{shown[: _MOST_REASON - 1]}…"
