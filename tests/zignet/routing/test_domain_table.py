"""The table of names against plain string operations."""

from __future__ import annotations

from sys import maxsize

from hypothesis import given
from hypothesis import strategies as st

from tests.zignet.routing.naive_rules import NAMES
from zignet.routing.domains import DomainTable
from zignet.routing.rule import Domain, Keyword, Suffix

CONDITIONS = st.lists(
    NAMES.map(Domain) | NAMES.map(Suffix) | st.sampled_from([Keyword("ad"), Keyword("x-1"), Keyword("a.b")]),
    max_size=10,
)


def filled(conditions: list[Domain | Suffix | Keyword]) -> DomainTable:
    table = DomainTable()
    for index, condition in enumerate(conditions):
        table.add(condition, index)
    return table


def holds(condition: Domain | Suffix | Keyword, name: str) -> bool:
    match condition:
        case Domain(wanted):
            return name == wanted
        case Suffix(wanted):
            return f".{name}".endswith(f".{wanted}")
        case Keyword(text):
            return text in name


@given(CONDITIONS, NAMES, st.integers(0, 12))
def test_the_lowest_of_all_that_match(conditions: list, name: str, best: int):
    expected = [index for index, condition in enumerate(conditions) if holds(condition, name)]
    table = filled(conditions)
    assert table.first(name, best) == min([*expected, best])
    each = table.each(name)
    assert set(each) <= set(expected)
    assert min(each, default=maxsize) == min(expected, default=maxsize)


def test_a_name_with_more_labels_than_any_rule():
    table = filled([Suffix("b.example")])
    assert table.first("a." * 100 + "b.example", 9) == 0
    assert table.first("a." * 100 + "c.example", 9) == 9
    assert table.first("ab.example", 9) == 9


def test_the_first_of_two_equal_rules_stands():
    assert filled([Domain("a"), Suffix("a"), Domain("a")]).first("a", 9) == 0
    assert filled([Suffix("a"), Suffix("a")]).first("b.a", 9) == 0
