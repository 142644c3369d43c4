"""Suggestions."""

from __future__ import annotations

from zignet.routing import did_you_mean


def test_the_nearest_in_its_own_case():
    assert did_you_mean("adress", ["address", "type"]) == '; did you mean "address"?'
    assert did_you_mean("TOKYO", ["Tokyo"]) == '; did you mean "Tokyo"?'


def test_all_where_nothing_is_near():
    assert did_you_mean("zzz", ["b", "a"]) == "; known: a, b"
    assert did_you_mean("zzz", []) == ""


def test_not_the_whole_of_a_long_list():
    assert did_you_mean("zzz", [f"exit{number}" for number in range(100)]).endswith(", …")
    assert len(did_you_mean("x" * 100_000, ["a"])) < 100
