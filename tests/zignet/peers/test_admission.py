"""The configuration's answer to who may come in."""

from __future__ import annotations

import pytest

from zignet.identity import PublicKey, SecretKey
from zignet.peers.admission import Admission, ConfiguredAdmission, Right

A, B, C, D = (SecretKey(bytes((number,)) * 32).public for number in range(4))


def negated(key: PublicKey) -> PublicKey:
    ed = bytearray(key.ed)
    ed[31] ^= 0x80
    return PublicKey.from_bytes(bytes(ed))


def test_a_closed_door():
    policy: Admission = ConfiguredAdmission("deny", allow=[B], deny=[C], peers=frozenset([A]))
    assert [policy.admit(key, 0.0).allowed for key in (A, B, C, D)] == [True, True, False, False]


def test_an_open_door():
    policy = ConfiguredAdmission("allow", deny=[C], peers=frozenset([A]))
    assert [policy.admit(key, 0.0).allowed for key in (A, B, C, D)] == [True, True, False, True]


def test_deny_wins_over_everything():
    policy = ConfiguredAdmission("allow", allow=[A], deny=[A], peers=frozenset([A]))
    decision = policy.admit(A, 0.0)
    assert not decision.allowed
    assert "denies" in decision.reason
    assert decision.rights == Right.NONE


@pytest.mark.parametrize("default", ["allow", "deny"])
def test_a_denied_key_gains_nothing_by_its_negation(default: str):
    """Both have one X25519 form, and so one handshake (protocol.md §1)."""
    policy = ConfiguredAdmission(default, deny=[A])
    assert negated(A).ed != A.ed
    assert not policy.admit(negated(A), 0.0).allowed


def test_rights():
    policy = ConfiguredAdmission("allow", allow=[B], peers=frozenset([A]))
    for key in (A, B, D):
        decision = policy.admit(key, 0.0)
        assert decision.rights == Right.PACKETS  # whole packets are nobody's by the configuration
        assert decision.expires is None


def test_reasons_are_sentences_and_tell_the_cases_apart():
    closed = ConfiguredAdmission("deny", allow=[B], deny=[C], peers=frozenset([A]))
    opened = ConfiguredAdmission("allow")
    reasons = [closed.admit(key, 0.0).reason for key in (A, B, C, D)] + [opened.admit(D, 0.0).reason]
    assert len(set(reasons)) == 5
    assert all(reason[0].isupper() and reason.endswith(".") for reason in reasons)


def test_peers_are_asked_not_copied():
    peers: set[PublicKey] = set()
    policy = ConfiguredAdmission("deny", peers=peers)
    assert not policy.admit(A, 0.0).allowed
    peers.add(A)
    assert policy.admit(A, 0.0).allowed


def test_a_default_that_is_no_action():
    with pytest.raises(ValueError, match="neither"):
        ConfiguredAdmission("maybe")
