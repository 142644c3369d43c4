"""The books."""

from dataclasses import dataclass

import pytest

from nat.exit import Route
from nat.flow import Flow
from nat.tally import RECENT, Tally

pytestmark = pytest.mark.packet_path


@dataclass(frozen=True)
class Named:
    name: str


def flow(exit_name=None, up=0, down=0):
    made = Flow(None, 6, b"\x0a\0\0\1", 1, b"\x0a\0\0\2", 2, 0.0)
    made.up, made.down = up, down
    if exit_name is not None:
        made.route = Route(Named(exit_name), "a rule")
    return made


def test_counts_by_exit_and_in_all():
    tally = Tally()
    for ended in (flow("a", 1, 10), flow("b", 2, 20), flow("a", 4, 40), flow(None, 8, 80)):
        tally.ended(ended)
    assert (tally.flows, tally.up, tally.down) == (4, 15, 150)
    assert {name: (e.flows, e.up, e.down) for name, e in tally.exits.items()} == {
        "a": (2, 5, 50),
        "b": (1, 2, 20),
    }


def test_dials_and_failures():
    tally = Tally()
    one = flow("a")
    tally.dialled(one)
    tally.dialled(one)
    tally.failed(one, "no route", 12.5)
    tally.dialled(flow())  # without an exit there are no books
    tally.failed(flow(), "?", 0.0)
    books = tally.of("a")
    assert (books.dials, books.failures, books.last_error, books.last_error_at) == (2, 1, "no route", 12.5)
    assert list(tally.exits) == ["a"]


def test_remembers_only_the_last_flows():
    tally = Tally()
    flows = [flow("a") for _ in range(RECENT + 9)]
    for ended in flows:
        tally.ended(ended)
    assert list(tally.recent) == flows[9:]
    assert tally.flows == RECENT + 9
