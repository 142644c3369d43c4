"""A hub whose policies are asked elsewhere: strangers wait, decisions change, the judge goes away and comes back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.zignet.peers.hubs import DELAY, Node, Stranger, World, protocol
from zignet.config import FilePolicy, InboundConfig
from zignet.identity import PublicKey
from zignet.peers.admission import Decision, Right
from zignet.peers.judged import MOST_ASKED
from zignet.peers.waiting import MOST_OF_ONE_SITE, MOST_WAITING, WAIT_S

RESPONSE = 2
FROM = ("198.51.100.7", 4000)


class Judge:
    """Stands for the control process: notes what he is asked, and says what the test wants."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.asked: list[str] = []
        self.forgot: list[str] = []
        self.room = 1_000_000
        self.rule: Callable[[str], bool | None] = lambda name: None  # None: not yet

    def come(self) -> None:
        self.node.hub.asking.connect(self.send)

    def go(self) -> None:
        self.node.hub.asking.disconnect()

    def send(self, message: dict[str, Any]) -> bool:
        if not self.room:
            return False
        self.room -= 1
        if "forget" in message:
            self.forgot.append(message["forget"])
            return True
        self.asked.append(message["admit"])
        said = self.rule(message["admit"])
        if said is not None:
            self.node.loop.soon(lambda: self.say(message["admit"], said))
        return True

    def say(
        self,
        name: str,
        allowed: bool,
        reason: str = "rule 1",
        valid_s: float | None = None,
        provisional: bool = False,
    ) -> None:
        rights = Right.PACKETS if allowed else Right.NONE
        self.node.hub.asking.decided(name, Decision(allowed, reason, rights=rights), valid_s, provisional)


@pytest.fixture
def b(world: World) -> Node:
    """A node with a policy, and nobody in its configuration."""
    node = world.node("b")
    node.inbound = InboundConfig("deny", policies=(FilePolicy(path=Path("/members")),), recheck_s=300.0)
    node.reload()
    return node


@pytest.fixture
def judge(b: Node) -> Judge:
    made = Judge(b)
    made.come()
    return made


def guest(world: World, b: Node, name: str = "s") -> Node:
    """Somebody who wants to talk to b."""
    made = world.node(name)
    made.knows(b)
    made.send(b, name.encode())
    return made


def test_a_stranger_goes_on_at_the_decision(world: World, b: Node, judge: Judge) -> None:
    """And not 5 s later, when it tries again."""
    before = b.state()
    s = guest(world, b)
    world.run(1.0)
    assert judge.asked == [s.key.name]
    assert world.of(RESPONSE, b, s) == []
    assert {name for name, count in b.state().items() if count != before[name]} <= {"timers"}
    judge.say(s.key.name, True)
    world.run(4 * DELAY)
    assert b.heard() == [b"s"]
    assert b.connected(s)
    assert len(world.of(1, s, b)) == 1


def test_a_quick_answer(world: World, b: Node, judge: Judge) -> None:
    judge.rule = lambda name: True
    s = guest(world, b)
    world.run(1.0)
    assert b.heard() == [b"s"]
    assert judge.asked == [s.key.name]  # the confirmation asks nobody again


def test_no(world: World, b: Node, judge: Judge) -> None:
    judge.rule = lambda name: False
    before = b.state()
    s = guest(world, b)
    world.run(30)
    assert b.heard() == []
    assert world.of(RESPONSE, b, s) == []
    assert len(judge.asked) == 1  # the answer is remembered
    assert b.state() == before
    assert b.dropped()["handshake: not admitted"] >= 5


def test_no_answer_costs_nothing_in_the_end(world: World, b: Node, judge: Judge) -> None:
    before = b.state()
    world.throw(b, Stranger(77).begin(b), FROM)
    world.run(WAIT_S + 2)
    assert len(b.hub.asking.judged.waiting) == 0  # type: ignore[union-attr]
    assert b.dropped()["handshake: no decision of the policies in time"] == 1
    world.run(120)
    assert b.state() == before
    assert world.sent == []


def test_the_judge_is_asked_when_he_comes(world: World, b: Node) -> None:
    judge = Judge(b)
    judge.rule = lambda name: True
    s = guest(world, b)
    world.run(1.0)
    assert not b.connected(s)
    judge.come()
    world.run(4 * DELAY)
    assert b.heard() == [b"s"]


def test_a_session_outlives_the_judge(world: World, b: Node, judge: Judge) -> None:
    judge.rule = lambda name: True
    s = guest(world, b)
    world.run(1.0)
    judge.go()
    for _ in range(20):
        world.run(60)
        s.send(b, b"still here")
        b.send(s, b"so am I")
        world.run(1.0)
        assert b.heard()[-1:] == [b"still here"]
        assert s.heard() == [b"so am I"]
    judge.asked.clear()
    judge.come()
    world.run(1.0)
    assert judge.asked == [s.key.name]  # he is told whom to watch
    assert b.connected(s)


def test_a_decision_that_changes_ends_the_session(
    world: World, b: Node, judge: Judge, caplog: pytest.LogCaptureFixture
) -> None:
    judge.rule = lambda name: True
    s = guest(world, b)
    world.run(1.0)
    b.heard()
    before = b.peer(s).address4
    with caplog.at_level(logging.INFO, "zignet.peers"):
        judge.say(s.key.name, False, "line 3 of /members was taken out")
        world.run(DELAY * 2)
    assert f"{s.key.name} is not admitted any more: line 3 of /members was taken out" in caplog.text
    assert "b does not admit this node any more" in caplog.text
    assert b.peer(s) is None
    assert not s.connected(b)
    assert b.state()["openings"] == 0
    assert before not in b.hub.table.by_address


def test_he_says_no_when_asked_again(world: World, b: Node, judge: Judge) -> None:
    judge.rule = lambda name: True
    s = guest(world, b)
    world.run(1.0)
    judge.rule = lambda name: False
    for _ in range(5):
        world.run(60)
        s.send(b, b"x")
    assert b.connected(s)
    world.run(65)
    assert b.link(s) is None
    assert len(judge.asked) == 2


def test_a_short_recheck(world: World, b: Node, judge: Judge) -> None:
    b.inbound = InboundConfig("deny", policies=b.inbound.policies, recheck_s=2.0)
    b.restart()
    judge.come()
    judge.rule = lambda name: True
    s = guest(world, b)
    world.run(1.0)
    judge.rule = lambda name: False
    world.run(5.0)
    assert b.link(s) is None


def test_connections_with_one_that_was_turned_out_are_reset(world: World, b: Node, judge: Judge) -> None:
    """A program that talks to it learns it at its next segment, and not after a quarter of an hour."""
    judge.rule = lambda name: True
    s = guest(world, b)
    world.run(1.0)
    b.take()
    way = b.way(s)
    judge.say(s.key.name, False)
    b.give(segment(way, flags=0x10))
    (reset,) = b.take()
    assert protocol(reset) == 6
    assert reset[20 + 13] & 0x04
    b.give(segment(way, flags=0x02))  # a new one is not a connection
    (told,) = b.take()
    assert protocol(told) == 1


def segment(way: tuple[bytes, bytes], flags: int) -> bytes:
    from nat import craft

    tcp = bytes.fromhex("9c400016 00000001 00000001 50") + bytes((flags,)) + bytes.fromhex("ffff 0000 0000")
    return craft.ip_packet(*way, 6, tcp)


def test_a_provisional_yes(world: World, b: Node, judge: Judge) -> None:
    """Optimistic: in at once, and out when the answer is no."""
    s = guest(world, b)
    world.run(DELAY * 2)
    judge.say(s.key.name, True, "not known yet; optimistic", provisional=True)
    world.run(DELAY * 4)
    assert b.heard() == [b"s"]
    judge.say(s.key.name, False, "no such token")
    world.run(DELAY * 2)
    assert b.link(s) is None
    assert not s.connected(b)


def test_a_no_between_the_response_and_the_first_message(world: World, b: Node, judge: Judge) -> None:
    judge.rule = lambda name: True
    s = guest(world, b)
    world.run(DELAY * 1.5)
    assert b.state()["pending"] == 1
    judge.say(s.key.name, False)
    world.run(1.0)
    assert b.heard() == []
    assert b.peer(s) is None
    world.run(20)
    assert b.state()["openings"] == 0


def test_what_was_forgotten_is_not_a_no(world: World, b: Node, judge: Judge) -> None:
    """Somebody who is here stays while it is asked anew, also through new handshakes, whoever begins them."""
    judge.rule = lambda name: True
    s = guest(world, b)
    world.run(1.0)
    b.heard()
    judge.rule = lambda name: None
    for _ in range(10):
        known: Any = b.hub.asking.judged
        known._known.clear()
        known._names.clear()
        world.run(61)
        s.send(b, b"x")
        b.send(s, b"y")
        world.run(1.0)
        assert b.heard() == [b"x"]
        assert s.heard() == [b"y"]
    assert judge.asked.count(s.key.name) > 1


def test_the_lists_need_no_judge(world: World, b: Node) -> None:
    s = world.node("s")
    b.inbound = InboundConfig("deny", allow=frozenset([s.key]), policies=b.inbound.policies)
    b.reload()
    s.knows(b)
    s.send(b, b"x")
    world.run(1.0)
    assert b.heard() == [b"x"]


def test_a_reload_that_denies(world: World, b: Node, judge: Judge) -> None:
    judge.rule = lambda name: True
    s = guest(world, b)
    world.run(1.0)
    b.inbound = InboundConfig("deny", deny=frozenset([s.key]), policies=b.inbound.policies)
    b.reload()
    assert b.link(s) is None
    judge.say(s.key.name, True)
    world.run(30)
    assert b.link(s) is None


def test_a_reload_without_policies(world: World, b: Node, judge: Judge) -> None:
    judge.rule = lambda name: True
    s = guest(world, b)
    world.run(1.0)
    b.inbound = InboundConfig("deny")
    b.reload()
    assert b.link(s) is None
    judge.say(s.key.name, True)
    world.run(20)
    assert b.link(s) is None


def test_other_rules_ask_anew(world: World, b: Node, judge: Judge) -> None:
    judge.rule = lambda name: True
    s = guest(world, b)
    world.run(1.0)
    judge.rule = lambda name: False
    b.hub.asking.reloaded()
    world.run(1.0)
    assert b.link(s) is None
    assert judge.asked.count(s.key.name) == 2


def test_a_flood_of_strangers(world: World, b: Node, judge: Judge) -> None:
    """Bounded; it costs memory for seconds only, and another address has its turn."""
    before = b.state()
    for number in range(200):
        world.throw(b, Stranger(number.to_bytes(2, "big") * 16).begin(b), ("198.51.100.7", 4000 + number))
    world.clock.settle()
    asking = b.hub.asking
    assert asking.judged is not None
    assert len(asking.judged.waiting) == MOST_OF_ONE_SITE
    assert len(judge.asked) == MOST_OF_ONE_SITE
    assert (
        b.dropped()["handshake: too many strangers of one address wait to be admitted"]
        == 200 - MOST_OF_ONE_SITE
    )
    s = guest(world, b)
    world.run(DELAY * 2)
    assert judge.asked[-1] == s.key.name
    judge.say(s.key.name, True)
    world.run(DELAY * 4)
    assert b.heard() == [b"s"]
    s.stop()
    world.run(600)
    after = b.state()
    assert {
        name: after[name] - before[name] for name in before if name not in ("stored", "timers")
    } == dict.fromkeys(set(before) - {"stored", "timers"}, 0)
    assert len(asking.judged.waiting) == 0


def test_a_slow_judge_holds_no_more_than_there_is_room_for(world: World, b: Node, judge: Judge) -> None:
    judge.room = 5
    for number in range(100):
        world.throw(b, Stranger(number.to_bytes(2, "big") * 16).begin(b), (f"198.51.100.{number}", 4000))
    world.clock.settle()
    assert len(judge.asked) == 5
    assert b.hub.asking.judged is not None
    assert len(b.hub.asking.judged.waiting) == 100 <= MOST_WAITING
    judge.room = 1000
    b.hub.asking.resume()
    world.clock.settle()
    assert len(judge.asked) == MOST_ASKED


def test_nonsense_from_the_judge(world: World, b: Node, judge: Judge) -> None:
    before = b.state()
    judge.say("nonsense", True)
    judge.say(PublicKey.from_bytes(b.key.ed).name, True)
    world.run(1.0)
    assert b.state() == before
