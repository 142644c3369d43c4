"""`zignet ping`: what it says of each answer, when it ends, and how it sums up."""

from __future__ import annotations

import time
from typing import Any

import pytest

from zignet.cli.peers import Pings, line, milliseconds, ping


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept, instead of sleeping."""
    naps: list[float] = []
    monkeypatch.setattr(time, "sleep", naps.append)
    return naps


def run(
    answers: list[Any], count: int, every_s: float = 1.0
) -> tuple[Pings, list[dict[str, Any]], list[str]]:
    """What `ping` returns, and what it said. An exception among the answers is raised."""
    told: list[str] = []
    waiting = iter(answers)

    def ask() -> Any:
        answer = next(waiting)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    pings, results = ping(ask, count, every_s, told.append)
    return pings, results, told


def test_as_many_as_wanted(make_ping: Any, slept: list[float]) -> None:
    pings, results, told = run([make_ping() for _ in range(9)], 3)
    assert (pings.sent, len(results), len(told)) == (3, 3, 3)
    assert results[0] == make_ping()
    assert [text.split("seq=")[1].split()[0] for text in told] == ["1", "2", "3"]
    assert len(slept) == 2  # none after the last
    assert all(0.9 < nap <= 1.0 for nap in slept)


def test_an_answer_that_took_longer_than_the_interval_is_followed_at_once(
    make_ping: Any, monkeypatch: pytest.MonkeyPatch, slept: list[float]
) -> None:
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    run([make_ping(), make_ping()], 2)
    assert slept == [0.0]


@pytest.mark.parametrize("count", [0, 10])
def test_until_interrupted(make_ping: Any, slept: list[float], count: int) -> None:
    pings, results, told = run([make_ping(), make_ping(rtt_s=None), KeyboardInterrupt()], count)
    assert (pings.sent, len(pings.times_s), len(results), len(told)) == (2, 1, 2, 2)


def test_interrupted_while_it_sleeps(make_ping: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    pings, _, told = run([make_ping()], 0)
    assert (pings.sent, len(told)) == (1, 1)


def test_lines(make_ping: Any) -> None:
    assert line(make_ping(), 7) == "pong from peer2 via 203.0.113.9:51830: seq=7 time=12.3 ms"
    assert line(make_ping(handshake=True, rtt_s=0.00123), 1) == (
        "pong from peer2 via 203.0.113.9:51830: seq=1 time=1.23 ms, after a handshake"
    )
    assert line(make_ping(rtt_s=None), 1) == "no answer from peer2: timed out"
    assert line(make_ping(rtt_s=None, error="no answer to the handshake"), 1) == (
        "no answer from peer2: no answer to the handshake"
    )


def test_lines_steer_no_terminal(make_ping: Any) -> None:
    nasty = "\x1b[2J\x07\r\n\x9b"
    for rtt_s in (None, 0.1):
        assert line(make_ping(peer=nasty, path=nasty, error=nasty, rtt_s=rtt_s), 1).isprintable()


def test_summary(make_ping: Any) -> None:
    pings = Pings()
    assert pings.summary() == "0 sent, 0 answered, 0 % lost"
    for rtt_s in (0.002, None, 0.004, 0.120):
        pings.add(make_ping(rtt_s=rtt_s))
    assert pings.summary() == ("4 sent, 3 answered, 25 % lost; min / avg / max 2.00 ms / 42.0 ms / 120 ms")


def test_summary_without_an_answer(make_ping: Any) -> None:
    pings = Pings()
    pings.add(make_ping(rtt_s=None))
    assert pings.summary() == "1 sent, 0 answered, 100 % lost"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.00 ms"), (0.000081, "0.08 ms"), (0.0123, "12.3 ms"), (0.25, "250 ms"), (1.2, "1200 ms")],
)
def test_milliseconds(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text
