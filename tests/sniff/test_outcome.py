import dataclasses

import pytest

from sniff import Found, Outcome


def test_found_is_a_small_value():
    found = Found("tls", "www.example.org")
    assert found == Found("tls", "www.example.org", ech=False)
    assert not hasattr(found, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.name = "other"  # type: ignore[misc]


def test_outcomes_are_two_singletons():
    assert list(Outcome) == [Outcome.NEED_MORE, Outcome.NOT_THIS]
    assert Outcome("need more") is Outcome.NEED_MORE
