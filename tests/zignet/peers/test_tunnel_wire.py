"""Two tunnels and a wire that loses, doubles and reorders: what it delivers is taken, and all heals."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.zignet.peers.tunnels import ALICE, BOB, YEAR_US, Data, End, World, pair
from zignet.peers.actions import Confirmed, Established, GaveUp


def chaos(seed: int, loss: float, delay: float, twice: float = 0.0) -> Callable[[Any, str, str], list[float]]:
    """A fate for each message: lost, or under way for up to `delay` seconds, once or twice."""
    rng = random.Random(seed)

    def fate(message: Any, source: str, target: str) -> list[float]:
        if rng.random() < loss:
            return []
        return [0.02 + rng.random() * delay for _ in range(2 if rng.random() < twice else 1)]

    return fate


def delivered(world: World, keys: str) -> list[Any]:
    """The user's payloads of one end (its letter) that the wire has brought to the other side."""
    return [
        one.payload for one in world.delivered if isinstance(one, Data) and str(one.payload).startswith(keys)
    ]


def talk(world: World, a: End, b: End, seconds: float, step: float = 0.1) -> None:
    """Both sides send all the time."""
    for number in range(round(seconds / step)):
        a.say(f"a{number}")
        b.say(f"b{number}")
        world.run(step)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("loss", "delay"), [(0.0, 0.01), (0.0, 2.0), (0.02, 1.0), (0.3, 0.5)])
def test_no_packet_is_lost_that_the_wire_delivered(seed: int, loss: float, delay: float):
    """Through three renewals, with both sides sending, whoever renews first."""
    world, a, b = pair(a={"jitter": 0.2}, b={"jitter": 0.3})
    world.fate = chaos(seed, loss, delay)
    if seed % 2:
        b.say("b-first")
    talk(world, a, b, 430)
    world.run(10)
    assert sorted(b.got) == sorted(delivered(world, "a"))
    assert sorted(a.got) == sorted(delivered(world, "b"))
    refused = {text for text in a.refused + b.refused if "initiation" not in text and "response" not in text}
    assert refused <= {"no such index"}  # of handshakes that came too late
    assert len(a.times(Established, Confirmed)) >= 4
    assert a.times(GaveUp) == b.times(GaveUp) == []


@pytest.mark.parametrize("seed", range(8))
def test_both_renew_at_the_same_time_for_ever(seed: int):
    """The worst case of simultaneous initiation: each side is initiator of the session that the other sends on."""
    world, a, b = pair()
    world.fate = chaos(seed, 0.0, 0.3)
    a.say("a-first")
    b.say("b-first")
    talk(world, a, b, 600, 0.2)
    world.run(5)
    assert sorted(b.got) == sorted(delivered(world, "a"))
    assert sorted(a.got) == sorted(delivered(world, "b"))
    assert len(b.got) == len(a.got) == 3001


def test_what_comes_twice_is_taken_once():
    world, a, b = pair()
    world.fate = chaos(5, 0.0, 0.5, twice=0.5)
    talk(world, a, b, 300)
    world.run(5)
    assert len(b.got) == len(set(b.got)) == 3000
    assert "replayed" in b.refused


def test_one_way_traffic_is_renewed_too():
    world, a, b = pair()
    a.say("begin")
    for number in range(900):
        b.say(f"b{number}")
        world.run(1)
    assert len(a.got) == 900 - 1 + 1
    assert b.times(GaveUp) == a.times(GaveUp) == []


def test_thirty_percent_loss_still_connects():
    for seed in range(20):
        world, a, _ = pair()
        world.fate = chaos(seed, 0.3, 0.2)
        a.say("x")
        world.until(80)
        assert a.tunnel.sending is not None, seed


class Ends(RuleBasedStateMachine):
    """Whatever happens to two nodes (and to a third that has the first one's key), the books are in order, and once
    the wire is good again they talk within the time that the protocol allows."""

    @initialize(seed=st.integers(0, 1 << 16), keepalive=st.sampled_from([0.0, 25.0]))
    def begin(self, seed: int, keepalive: float) -> None:
        self.rng = random.Random(seed)
        self.kept: list[tuple[Any, str]] = []
        self.number = 0
        self.world = World()
        self.world.fate = self.fate
        self.loss, self.delay, self.twice = 0.0, 0.1, 0.0
        self.a = self.world.end("a", ALICE, BOB, "b", keepalive_s=keepalive, jitter=0.1)
        self.b = self.world.end("b", BOB, ALICE, "a", jitter=0.2)

    def fate(self, message: Any, source: str, target: str) -> list[float]:
        if isinstance(message, bytes):
            self.kept.append((message, source))
        if self.rng.random() < self.loss:
            return []
        copies = 2 if self.rng.random() < self.twice else 1
        return [0.02 + self.rng.random() * self.delay for _ in range(copies)]

    @rule(who=st.sampled_from("ab"), count=st.integers(1, 5))
    def say(self, who: str, count: int) -> None:
        for _ in range(count):
            self.number += 1
            self.world.ends[who].say(f"{who}{self.number}")

    @rule(seconds=st.sampled_from([0.01, 0.1, 1.0, 4.0, 11.0, 16.0, 60.0, 119.0, 170.0, 185.0, 600.0]))
    def wait(self, seconds: float) -> None:
        self.world.run(seconds)

    @rule(seconds=st.integers(1, 130))
    def chat(self, seconds: int) -> None:
        for _ in range(seconds):
            self.say("a", 1)
            self.say("b", 1)
            self.world.run(1.0)

    @rule(
        loss=st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0]),
        delay=st.sampled_from([0.0, 0.1, 3.0]),
        twice=st.sampled_from([0.0, 0.3]),
    )
    def weather(self, loss: float, delay: float, twice: float) -> None:
        self.loss, self.delay, self.twice = loss, delay, twice

    @rule(who=st.sampled_from("ab"), back=st.booleans())
    def restart(self, who: str, back: bool) -> None:
        end = self.world.ends[who]
        end.restart(end.wall_us - YEAR_US if back else end.wall_us)

    @precondition(lambda self: self.kept)
    @rule(back=st.integers(1, 30))
    def replay(self, back: int) -> None:
        message, source = self.kept[-min(back, len(self.kept))]
        end = self.world.ends["b" if source == "a" else "a"]
        before = (end.tunnel.sending, end.tunnel.before)
        end.receive(message, source)
        if message[0] == 1:
            assert (end.tunnel.sending, end.tunnel.before) == before

    @rule(who=st.sampled_from("ab"), reason=st.sampled_from([1, 2, 3]))
    def farewell(self, who: str, reason: int) -> None:
        end = self.world.ends[who]
        for session in end.tunnel.valid(self.world.now):
            end.seal(("farewell", reason), False, session)
        end.tunnel.forget()
        end.armed = end.tunnel.deadline

    @invariant()
    def in_order(self) -> None:
        if hasattr(self, "world"):
            for end in self.world.ends.values():
                end.check()
                assert len(end.got) == len(set(end.got))

    def teardown(self) -> None:
        if not hasattr(self, "b"):
            return
        self.loss, self.delay, self.twice = 0.0, 0.1, 0.0
        self.world.run(5.0)
        for number in range(45):  # 15 s to find that a session is dead, 5 s for the next turn, and again
            self.a.say(f"last-a{number}")
            self.b.say(f"last-b{number}")
            self.world.run(1.0)
        assert "last-a44" in self.b.got
        assert "last-b44" in self.a.got
        assert self.a.tunnel.sending is not None
        assert self.b.tunnel.sending is not None


Ends.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestEnds = Ends.TestCase
