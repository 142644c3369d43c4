"""Decisions that somebody else makes: what is known holds, what is not is asked, within bounds."""

from __future__ import annotations

import pytest

from zignet.identity import PublicKey, SecretKey
from zignet.peers import judged as module
from zignet.peers.admission import ConfiguredAdmission, Decision, Right
from zignet.peers.judged import ANSWER_S, MOST_ASKED, MOST_ASKED_AGAIN, PROVISIONAL_S, Judged
from zignet.peers.waiting import WAIT_S

YES = Decision(True, "line 1 of a file", rights=Right.PACKETS)
NO = Decision(False, "no policy matches")
RECHECK_S = 300.0
HERE = bytes(10) + b"\xff\xff" + bytes((192, 0, 2, 1))


def key(number: int) -> PublicKey:
    return SecretKey(number.to_bytes(32, "big")).public


A, B, C = (key(number) for number in (1, 2, 3))


def site(number: int) -> bytes:
    return bytes(10) + b"\xff\xff" + number.to_bytes(4, "big")


@pytest.fixture
def judged() -> Judged:
    return Judged(ConfiguredAdmission("deny"), RECHECK_S)


def asks(judged: Judged, now: float = 0.0) -> list[str]:
    return list(judged.questions(now))


def test_the_lists_come_first() -> None:
    judged = Judged(ConfiguredAdmission("deny", allow=[A], deny=[B], peers=frozenset([C])), RECHECK_S)
    assert [judged.admit(one, 0.0).allowed for one in (A, B, C)] == [True, False, True]
    assert not any(judged.admit(one, 0.0).pending for one in (A, B, C))
    judged.ask(B)
    asks(judged)
    judged.decided(B.name, YES, None, False, 0.0)
    assert not judged.admit(B, 0.0).allowed


def test_to_look_asks_nobody(judged: Judged) -> None:
    """Or a flood of strangers that find no room would ask all the same."""
    decision = judged.admit(A, 0.0)
    assert (decision.allowed, decision.pending) == (False, True)
    assert asks(judged) == []


def test_who_waits_goes_on_with_the_decision(judged: Judged) -> None:
    assert judged.wait(A, b"initiation", "address", HERE, 0.0) == ""
    assert asks(judged) == [A.name]
    assert asks(judged) == []
    verdict = judged.decided(A.name, YES, None, False, 1.0)
    assert verdict is not None
    assert (verdict.key, verdict.decision) == (A, YES)
    assert verdict.caller is not None
    assert (verdict.caller.message, verdict.caller.address) == (b"initiation", "address")
    assert judged.admit(A, 1.0) is YES
    assert not judged.is_busy


def test_an_old_decision_holds_while_it_is_asked_again(judged: Judged) -> None:
    judged.wait(A, b"", None, HERE, 0.0)
    asks(judged)
    judged.decided(A.name, YES, None, False, 0.0)
    assert judged.admit(A, RECHECK_S - 1) is YES
    assert asks(judged, RECHECK_S - 1) == []
    for _ in range(3):
        assert judged.admit(A, RECHECK_S) is YES
    assert asks(judged, RECHECK_S) == [A.name]
    assert judged.admit(A, RECHECK_S + 1) is YES
    judged.decided(A.name, NO, None, False, RECHECK_S + 1)
    assert judged.admit(A, RECHECK_S + 1) is NO


@pytest.mark.parametrize(
    ("valid_s", "holds_s"), [(None, RECHECK_S), (10.0, 10.0), (1e9, RECHECK_S), (0.0, 1.0)]
)
def test_how_long_it_holds(judged: Judged, valid_s: float | None, holds_s: float) -> None:
    judged.ask(A)
    asks(judged)
    judged.decided(A.name, YES, valid_s, False, 0.0)
    judged.admit(A, holds_s - 0.1)
    assert asks(judged) == []
    judged.admit(A, holds_s)
    assert asks(judged) == [A.name]


def test_a_provisional_decision_is_not_relied_on_for_long(judged: Judged) -> None:
    judged.ask(A)
    asks(judged)
    judged.decided(A.name, YES, None, True, 0.0)
    assert judged.admit(A, PROVISIONAL_S) is YES
    assert asks(judged, PROVISIONAL_S) == [A.name]


def test_the_judge_changes_his_mind_unasked(judged: Judged) -> None:
    judged.ask(A)
    asks(judged)
    judged.decided(A.name, YES, None, False, 0.0)
    verdict = judged.decided(A.name, NO, None, False, 5.0)
    assert verdict is not None
    assert judged.admit(A, 5.0) is NO


def test_he_may_speak_of_nobody_that_we_know(judged: Judged) -> None:
    assert judged.decided(A.name, YES, None, False, 0.0) is None
    assert judged.decided("nonsense", YES, None, False, 0.0) is None
    assert judged.admit(A, 0.0).pending
    assert len(judged) == 0


def test_without_an_answer_nobody_waits_for_long(judged: Judged) -> None:
    judged.wait(A, b"", None, HERE, 0.0)
    asks(judged)
    assert judged.expire(WAIT_S - 0.1) == 0
    assert judged.expire(WAIT_S) == 1
    judged.wait(A, b"again", None, HERE, WAIT_S)  # its next handshake; the question is still open
    assert asks(judged, WAIT_S) == []
    verdict = judged.decided(A.name, YES, None, False, WAIT_S + 1)
    assert verdict is not None
    assert verdict.caller is not None
    assert verdict.caller.message == b"again"


def test_a_lost_question_is_asked_again(judged: Judged) -> None:
    judged.ask(B)
    asks(judged)
    judged.decided(B.name, YES, 1.0, False, 0.0)
    judged.admit(B, 2.0)
    judged.wait(A, b"", None, HERE, 2.0)
    assert sorted(asks(judged, 2.0)) == sorted([A.name, B.name])
    now = 2.0 + ANSWER_S
    judged.wait(A, b"", None, HERE, now - 1)
    judged.expire(now)
    assert sorted(asks(judged, now)) == sorted([A.name, B.name])


def test_a_new_judge_is_asked_about_everybody(judged: Judged) -> None:
    """What the old one has said holds meanwhile, and what he was asked is not forgotten."""
    judged.ask(A)
    asks(judged)
    judged.decided(A.name, YES, None, False, 0.0)
    judged.wait(B, b"", None, HERE, 0.0)
    assert asks(judged) == [B.name]
    judged.changed()
    assert judged.admit(A, 1.0) is YES
    assert sorted(asks(judged, 1.0)) == sorted([A.name, B.name])
    assert judged.admit(A, 1.0) is YES
    assert asks(judged, 1.0) == []


def test_a_flood_is_bounded_and_others_have_their_turn(
    judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = [key(100 + number) for number in range(80)]
    for number, one in enumerate(flood):
        judged.wait(one, b"", None, site(1 + number % 4), 0.0)
    first = asks(judged)
    assert len(first) == MOST_ASKED
    judged.wait(A, b"", None, HERE, 0.0)
    assert asks(judged) == []
    judged.decided(first[0], NO, None, False, 0.0)
    judged.decided(first[1], NO, None, False, 0.0)
    judged.decided(first[2], NO, None, False, 0.0)
    judged.decided(first[3], NO, None, False, 0.0)
    judged.decided(first[4], NO, None, False, 0.0)
    assert A.name in asks(judged)


def test_those_who_are_here_are_asked_about_while_strangers_flood(judged: Judged) -> None:
    for number in range(MOST_ASKED * 2):
        judged.wait(key(100 + number), b"", None, site(number), 0.0)
    for number in range(MOST_ASKED_AGAIN * 2):
        judged.ask(key(1000 + number))
    assert len(asks(judged)) == MOST_ASKED + MOST_ASKED_AGAIN


def test_what_is_known_is_bounded(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KNOWN", 4)
    keys = [key(number) for number in range(1, 8)]
    for number, one in enumerate(keys):
        judged.admit(keys[0], 0.0)  # in use all the time
        judged.wait(one, b"", None, site(number), 0.0)
        asks(judged)
        judged.decided(one.name, NO, None, False, 0.0)
    assert len(judged) == len(judged._names) == 4
    assert judged.admit(keys[0], 0.0) is NO
    assert judged.forgotten() == [one.name for one in keys[1:4]]
    assert judged.forgotten() == []


def test_nothing_is_left_of_strangers(judged: Judged) -> None:
    for number in range(200):
        judged.wait(key(number + 1), b"", None, site(number), 0.0)
    asks(judged)
    judged.expire(WAIT_S)
    assert len(judged._strangers) == MOST_ASKED
    judged.expire(ANSWER_S)
    assert (len(judged._strangers), len(judged._asked), len(judged.due)) == (0, 0, 0)
    assert not judged.is_busy
