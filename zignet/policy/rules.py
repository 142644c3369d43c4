"""Rules in order, what is known about a key, and what follows: pure.

A rule says what a match in its source means. The first that matches decides; a source that failed decides by its rule's
`on_error`, since what comes behind it was written for those whom it did not match.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from zignet.policy.source import Finding

__all__ = ["Known", "Rule", "Said", "Step", "Verdict", "weigh"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy of the configuration."""

    label: str  # of its source, for people
    allow: bool = True  # what a match means
    on_error: str = "deny"  # deny | allow | stale: the last finding, or deny
    optimistic: bool = False  # admit while there is no answer yet; never with allow=False


@dataclass(frozen=True, slots=True)
class Known:
    """What a source last said about a key."""

    finding: Finding | None  # None: it never answered
    error: str | None  # why it has not answered since
    until: float  # when this is no longer to be relied on and the source is asked again, on the asker's clock


class Said(StrEnum):
    """What came of asking."""

    MATCH = "match"
    NO_MATCH = "no match"
    FAILED = "failed"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Step:
    """One rule that was asked, and what it said."""

    rule: int  # its index in inbound.policies
    label: str
    said: Said
    reason: str


@dataclass(slots=True)  # one is made for every answer, and a frozen one takes three times as long
class Verdict:
    """May this key come in? Not to be changed."""

    allowed: bool
    reason: str  # one sentence
    valid_s: float  # seconds until it should be asked again
    provisional: bool = False  # the answer is still out; the final verdict follows
    trail: tuple[Step, ...] = ()


def weigh(
    rules: Sequence[Rule], known: Sequence[Known | None], default: bool, now: float, hurry: bool = False
) -> Verdict | int:
    """The verdict, or the index of the rule whose source has to be asked first.

    `known` has one entry for each rule. In a `hurry` an optimistic rule does not wait: it admits whom its source has
    never been asked about, and whom it matched the last time. A verdict that holds until a change is valid for ever.
    """
    trail: list[Step] = []
    until = math.inf
    for at, (rule, what) in enumerate(zip(rules, known, strict=True)):
        if what is None or what.until <= now:
            if hurry and rule.optimistic and _hopeful(what):
                trail.append(Step(at, rule.label, Said.PENDING, "no answer yet"))
                reason = f"inbound.policies[{at}] ({rule.label}) admits this key until it has an answer (optimistic)."
                return Verdict(True, reason, 0.0, True, tuple(trail))
            return at
        until = min(until, what.until)
        finding = what.finding
        if what.error is not None and (finding is None or rule.on_error != "stale"):
            allow = rule.on_error == "allow"
            trail.append(Step(at, rule.label, Said.FAILED, what.error))
            does = "admits" if allow else "denies"
            reason = (
                f"inbound.policies[{at}] ({rule.label}) could not answer and {does} everybody then "
                f"(on_error: {rule.on_error}): {what.error}."
            )
            return Verdict(allow, reason, until - now, False, tuple(trail))
        assert finding is not None  # what is neither an error nor a finding is None
        why = finding.reason
        if what.error is not None:
            why += f", as it said before it failed ({what.error})"
        trail.append(Step(at, rule.label, Said.MATCH if finding.matches else Said.NO_MATCH, why))
        if finding.matches:
            does = "admits" if rule.allow else "denies"
            reason = f"inbound.policies[{at}] ({rule.label}) {does} this key: {why}."
            return Verdict(rule.allow, reason, until - now, False, tuple(trail))
    reason = f"No policy matches this key (inbound: default_action: {'allow' if default else 'deny'})."
    return Verdict(default, reason, until - now, False, tuple(trail))


def _hopeful(what: Known | None) -> bool:
    """Nothing is known yet, or only good."""
    return what is None or (what.error is None and what.finding is not None and what.finding.matches)
