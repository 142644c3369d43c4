"""Who may come in: what the configuration's lists say (the packet process knows them), else what the judge says."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from zignet.admin.documents import PolicyCheck, PolicyStatus, PolicyStep
from zignet.admin.refused import Refused
from zignet.control.messages import Admission, Reach, SourceStatus
from zignet.identity import PublicKey
from zignet.policy.judge import Busy, Verdict
from zignet.policy.judge import SourceStatus as Asked

__all__ = ["Judge", "Policy"]

KEPT = 100  # decisions, for people to look at


class Judge(Protocol):
    """What decides where no list does (`zignet.policy.judge.Judge`)."""

    async def decide(self, key: PublicKey) -> Verdict:
        """Raises `Busy`."""
        ...

    def status(self) -> Sequence[Asked]:
        """How it goes with each source."""
        ...


class Policy:
    """The policy, as the API shows it."""

    def __init__(
        self, ask_one: Callable[[dict[str, Any], str], Any], judge: Callable[[], Judge | None]
    ) -> None:
        """`ask_one` asks the packet process. `judge` gives the one of now; None: there are no policies."""
        self._ask_one = ask_one
        self._judge = judge
        self._latest: deque[PolicyCheck] = deque(maxlen=KEPT)

    async def check(self, key: PublicKey, proto: str | None = None, port: int | None = None) -> PolicyCheck:
        """Whether this key may come in, and reach a service. Raises `Refused`, `ControlError`."""
        request: dict[str, Any] = {"do": "admission", "key": key.name}
        request |= {name: value for name, value in (("proto", proto), ("port", port)) if value is not None}
        listed = cast(Admission, await self._ask_one(request, "admission"))
        if listed["allowed"] is not None:
            return PolicyCheck(
                key=key.name,
                allowed=listed["allowed"],
                reason=listed["reason"],
                valid_s=None,
                provisional=False,
                steps=[],
                service=listed["service"],
            )
        judge = self._judge()
        if judge is None:
            raise Refused(503, "the policies are being read; ask again")
        try:
            return document(key, await judge.decide(key), listed["service"])
        except Busy as error:
            raise Refused(503, f"no decision now: {error}") from error

    def decided(self, key: PublicKey, verdict: Verdict) -> PolicyCheck:
        """The judge has decided about somebody who knocked."""
        found = document(key, verdict)
        self._latest.appendleft(found)
        return found

    def status(self) -> PolicyStatus:
        """The sources, and the latest decisions."""
        judge = self._judge()
        sources = [] if judge is None else [_source(each) for each in judge.status()]
        return PolicyStatus(sources=sources, decisions=list(self._latest))


def document(key: PublicKey, verdict: Verdict, service: Reach | None = None) -> PolicyCheck:
    """A verdict, as the API shows it."""
    return PolicyCheck(
        key=key.name,
        allowed=verdict.allowed,
        reason=verdict.reason,
        valid_s=round(verdict.valid_s, 3) if math.isfinite(verdict.valid_s) else None,
        provisional=verdict.provisional,
        steps=[
            PolicyStep(policy=step.rule, source=step.label, said=step.said.value, reason=step.reason)
            for step in verdict.trail
        ],
        service=service,
    )


def _source(asked: Asked) -> SourceStatus:
    return SourceStatus(
        label=asked.label,
        asked=asked.asked,
        matched=asked.matched,
        failed=asked.failed,
        pending=asked.pending,
        last_error=asked.last_error,
        last_error_age_s=None if asked.last_error_age_s is None else round(asked.last_error_age_s, 3),
        notes=list(asked.notes),
    )
