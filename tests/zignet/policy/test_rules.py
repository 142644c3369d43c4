"""Rules against an evaluator that is as plain as the documentation."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from zignet.policy.rules import Known, Rule, Said, Verdict, weigh
from zignet.policy.source import Finding

NOW = 1000.0


def naive(rules, known, default, hurry):
    """(allowed, provisional), or the index of the source to ask: the sentences of operations.md, one by one."""
    for index in range(len(rules)):
        rule, what = rules[index], known[index]
        answered = what is not None and what.until > NOW
        if not answered:
            never_asked = what is None
            matched_last_time = what is not None and what.error is None and what.finding.matches
            if hurry and rule.optimistic and (never_asked or matched_last_time):
                return True, True
            return index
        failed = what.error is not None
        if failed and rule.on_error == "allow":
            return True, False
        if failed and rule.on_error == "deny":
            return False, False
        if failed and what.finding is None:
            return False, False
        if what.finding.matches:
            return rule.allow, False
    return default, False


findings = st.builds(Finding, st.booleans(), st.just("why"))
untils = st.sampled_from([NOW - 1, NOW, NOW + 1, NOW + 60, math.inf])
answers = st.builds(Known, findings, st.none(), untils)
failures = st.builds(Known, st.none() | findings, st.just("down"), untils)
on_error = st.sampled_from(["deny", "allow", "stale"])
rules = st.one_of(
    st.builds(Rule, st.just("x"), st.booleans(), on_error),
    st.builds(Rule, st.just("x"), st.just(True), on_error, st.booleans()),
)
cases = st.lists(st.tuples(rules, st.none() | answers | failures), max_size=6)


@given(cases, st.booleans(), st.booleans())
def test_as_the_naive_evaluator(case, default, hurry):
    each, known = [rule for rule, _ in case], [what for _, what in case]
    found = weigh(each, known, default, NOW, hurry)
    expected = naive(each, known, default, hurry)
    if isinstance(found, int):
        assert found == expected
        return
    assert (found.allowed, found.provisional) == expected
    # The trail is what was asked, in order, and the verdict stands no longer than any of it.
    assert [step.rule for step in found.trail] == list(range(len(found.trail)))
    relied_on = [what.until - NOW for what in known[: len(found.trail)] if what is not None]
    if not found.provisional:
        assert found.valid_s == min(relied_on, default=math.inf)
    assert found.reason.endswith(".")


def verdict(*pairs, default=False, hurry=False) -> Verdict:
    found = weigh([rule for rule, _ in pairs], [what for _, what in pairs], default, NOW, hurry)
    assert isinstance(found, Verdict)
    return found


YES, NO = Finding(True, "line 3"), Finding(False, "not in it")
FRESH = NOW + 60


def test_nobody_comes_in_by_no_rule():
    assert not verdict().allowed
    assert verdict(default=True).allowed


def test_reasons():
    found = verdict((Rule("file a"), Known(NO, None, FRESH)), (Rule("file b"), Known(YES, None, FRESH)))
    assert found.reason == "inbound.policies[1] (file b) admits this key: line 3."
    assert [(step.rule, step.said, step.reason) for step in found.trail] == [
        (0, Said.NO_MATCH, "not in it"),
        (1, Said.MATCH, "line 3"),
    ]
    found = verdict((Rule("script s", allow=False), Known(YES, None, FRESH)))
    assert (found.allowed, found.reason) == (False, "inbound.policies[0] (script s) denies this key: line 3.")
    found = verdict((Rule("db"), Known(NO, "it is away", FRESH)))
    assert (
        found.reason
        == "inbound.policies[0] (db) could not answer and denies everybody then (on_error: deny): it is away."
    )
    found = verdict((Rule("db", on_error="stale"), Known(YES, "it is away", FRESH)))
    assert found.allowed
    assert (
        found.reason
        == "inbound.policies[0] (db) admits this key: line 3, as it said before it failed (it is away)."
    )
    assert verdict().reason == "No policy matches this key (inbound: default_action: deny)."


def test_a_failed_source_does_not_let_later_rules_decide():
    later = (Rule("all"), Known(YES, None, FRESH))
    assert not verdict((Rule("deny list", allow=False), Known(None, "gone", FRESH)), later).allowed
    assert verdict((Rule("x", on_error="allow"), Known(None, "gone", FRESH)), default=False).allowed


def test_optimism_is_for_those_of_whom_nothing_bad_is_known():
    rule = Rule("chain", optimistic=True)
    for known, admitted in (
        (None, True),
        (Known(YES, None, NOW - 1), True),
        (Known(NO, None, NOW - 1), False),
        (Known(YES, "429", NOW - 1), False),
        (Known(None, "429", NOW - 1), False),
    ):
        found = weigh([rule], [known], False, NOW, hurry=True)
        assert (isinstance(found, Verdict) and found.allowed and found.provisional) is admitted
        assert weigh([rule], [known], False, NOW) == 0
