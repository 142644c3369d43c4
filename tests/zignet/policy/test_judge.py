"""The judge, its sources by hand, its clock by hand."""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc

import pytest

from tests.zignet.policy.keys import KEYS, Clock, Table, fake_key, negation, turns
from zignet.config import FilePolicy
from zignet.policy import judge as module
from zignet.policy.judge import Busy, Judge, Verdict
from zignet.policy.rules import Said

A, B, C = KEYS[:3]


class Court:
    """A judge, its sources, and what it told."""

    def __init__(self, *policies: FilePolicy, default: str = "deny", recheck_s: float = 300.0) -> None:
        self.clock = Clock()
        self.sources = [Table(f"table {at}") for at in range(len(policies))]
        self.told: list[tuple[object, bool]] = []
        self.judge = Judge(
            policies,
            default,
            self.sources,
            self.clock,
            recheck_s=recheck_s,
            changed=lambda key, verdict: self.told.append((key, verdict.allowed)),
        )
        self.judge.start()

    async def ask(self, key) -> Verdict:
        return await self.judge.decide(key)


def test_the_first_match_decides_and_the_rest_is_not_asked():
    async def scene() -> None:
        court = Court(FilePolicy(action_if_match="deny"), FilePolicy(), FilePolicy())
        bad, good, other = court.sources
        bad.members, good.members = {B}, {A, B}
        assert (await court.ask(A)).allowed
        assert not (await court.ask(B)).allowed
        assert not (await court.ask(C)).allowed
        assert (bad.asked, good.asked, other.asked) == ([A, B, C], [A, C], [C])

    asyncio.run(scene())


def test_answers_are_remembered_as_long_as_they_stand():
    async def scene() -> None:
        court = Court(FilePolicy(), FilePolicy())
        first, second = court.sources
        first.valid_s, second.valid_s = None, 20.0
        second.members = {A}
        assert (await court.ask(A)).valid_s == 20.0
        court.clock.time += 15
        assert (await court.ask(A)).valid_s == 5.0
        assert (await court.ask(negation(A))).valid_s == 5.0  # the same key, as far as anybody is concerned
        court.clock.time += 5
        second.members = set()
        assert not (await court.ask(A)).allowed
        assert (len(first.asked), len(second.asked)) == (1, 2)

    asyncio.run(scene())


def test_a_verdict_is_asked_again_at_the_interval():
    async def scene() -> None:
        court = Court(FilePolicy(), recheck_s=30.0)
        court.sources[0].valid_s = None
        assert (await court.ask(A)).valid_s == 30.0
        court.clock.time += 30
        assert (await court.ask(A)).valid_s == 30.0
        assert len(court.sources[0].asked) == 1  # the source stands by what it said

    asyncio.run(scene())


def test_one_look_up_at_a_time_for_a_key():
    async def scene() -> None:
        court = Court(FilePolicy())
        (source,) = court.sources
        source.members, source.gate = {A}, asyncio.Event()
        asking = [asyncio.create_task(court.ask(key)) for key in (A, negation(A), A, B)]
        await turns()
        assert source.asked == [A, B]
        asking[0].cancel()  # one who goes away does not take the answer from the others
        source.gate.set()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert [getattr(answer, "allowed", None) for answer in answers] == [None, True, True, False]
        assert source.asked == [A, B]

    asyncio.run(scene())


@pytest.mark.parametrize(("on_error", "allowed"), [("deny", False), ("allow", True), ("stale", False)])
def test_a_source_that_fails(on_error: str, allowed: bool):
    async def scene() -> None:
        court = Court(FilePolicy(on_error=on_error), FilePolicy(), default="allow")
        first, second = court.sources
        first.fails("it is \x1b[31maway\nfor a while")
        second.members = {A}
        verdict = await court.ask(A)
        assert verdict.allowed is allowed
        assert "it is  [31maway for a while".replace("  ", " ") in verdict.reason
        assert verdict.trail[0].said is Said.FAILED
        assert second.asked == []
        await court.ask(A)
        assert len(first.asked) == 1  # not at once again
        status, other = court.judge.status()
        assert (status.asked, status.failed, status.matched, status.last_error_age_s) == (1, 1, 0, 0.0)
        assert status.last_error == "it is [31maway for a while"
        assert other.last_error_age_s is None
        court.clock.time += verdict.valid_s
        first.error = None
        first.members = {A}
        assert (await court.ask(A)).reason == "inbound.policies[0] (table 0) admits this key: a member."
        assert court.judge.status()[0].last_error_age_s == verdict.valid_s

    asyncio.run(scene())


def test_stale_is_the_last_finding_however_old():
    async def scene() -> None:
        court = Court(FilePolicy(on_error="stale"))
        (source,) = court.sources
        source.members = {A}
        await court.ask(A)
        await court.ask(B)
        court.clock.time += 1e6
        source.fails("gone")
        for _ in range(3):
            assert (await court.ask(A)).allowed
            assert not (await court.ask(B)).allowed
            court.clock.time += 100
        source.change()  # not even a change, since it does not say which
        assert (await court.ask(A)).allowed
        assert not (await court.ask(C)).allowed

    asyncio.run(scene())


def test_a_bug_in_a_source_is_a_failure_that_tells_nothing():
    async def scene() -> None:
        court = Court(FilePolicy())
        court.sources[0].error = KeyError("hunter2")
        verdict = await court.ask(A)
        assert not verdict.allowed
        assert "KeyError" in verdict.reason
        assert "hunter2" not in verdict.reason + str(court.judge.status())

    asyncio.run(scene())


@pytest.mark.parametrize("member", [True, False])
def test_optimism(member: bool):
    async def scene() -> None:
        court = Court(FilePolicy(optimistic=True))
        (source,) = court.sources
        source.gate = asyncio.Event()
        source.members = {A} if member else set()
        for _ in range(2):
            verdict = await court.ask(A)
            assert (verdict.allowed, verdict.provisional, verdict.valid_s) == (True, True, 0.0)
        court.judge.keep(A)
        await turns()
        assert (len(source.asked), court.told) == (1, [])
        source.gate.set()
        await turns()
        assert court.told == [(A, member)]
        verdict = await court.ask(A)
        assert (verdict.allowed, verdict.provisional) == (member, False)
        court.clock.time += 60
        source.gate.clear()  # old answers: the good one still admits at once, the bad one has to wait
        asking = asyncio.create_task(court.ask(A))
        await turns()
        assert asking.done() is member
        source.gate.set()
        await turns()
        assert (await asking).allowed is member
        assert len(source.asked) == 2

    asyncio.run(scene())


def test_a_change_is_told_where_it_makes_a_difference():
    async def scene() -> None:
        court = Court(FilePolicy(), FilePolicy())
        first, second = court.sources
        first.members = {A, B}
        for key in (A, B, C):
            await court.ask(key)
            court.judge.keep(key)
        await court.ask(KEYS[4])  # decided, and nobody's interest
        court.judge.forget(B)
        await turns()
        assert court.told == []
        first.members = {B, C}
        first.change()
        first.change()
        await turns()
        assert sorted(court.told, key=str) == sorted([(A, False), (C, True)], key=str)
        assert len(first.asked) == 4 + 2
        assert len(second.asked) == 2 + 1  # C and the fourth before; A now; what it said stands
        first.members = {B}
        first.change()
        await turns()
        assert court.told[2:] == [(C, False)]

    asyncio.run(scene())


def test_a_change_in_the_middle_of_a_decision():
    async def scene() -> None:
        court = Court(FilePolicy())
        (source,) = court.sources
        source.members, source.gate = set(), asyncio.Event()
        asking = asyncio.create_task(court.ask(A))
        await turns()
        source.members = {A}
        source.change()
        source.gate.set()
        assert (await asking).allowed
        court.judge.keep(A)
        await turns()
        assert len(source.asked) == 2

    asyncio.run(scene())


def test_a_source_that_never_stops_changing_does_not_hold_a_decision_up():
    async def scene() -> None:
        court = Court(FilePolicy())
        (source,) = court.sources

        class Restless(set):
            def __contains__(self, key) -> bool:
                source.change()
                return False

        source.members = Restless()
        assert not (await court.ask(A)).allowed
        assert len(source.asked) == 3

    asyncio.run(scene())


def test_one_who_is_kept_after_a_change_is_asked_about_again():
    async def scene() -> None:
        court = Court(FilePolicy())
        (source,) = court.sources
        source.members = {A}
        assert (await court.ask(A)).allowed
        source.members = set()
        source.change()
        court.judge.keep(A)
        await turns()
        assert court.told == [(A, False)]

    asyncio.run(scene())


def test_no_more_than_so_many_at_once():
    async def scene() -> None:
        court = Court(FilePolicy())
        (source,) = court.sources
        source.gate = asyncio.Event()
        asking = [asyncio.create_task(court.ask(fake_key(number))) for number in range(module.MOST_AT_ONCE)]
        await turns()
        with pytest.raises(Busy):
            await court.ask(A)
        again = asyncio.create_task(court.ask(fake_key(7)))  # under way already
        source.gate.set()
        assert not any(verdict.allowed for verdict in await asyncio.gather(*asking, again))
        await court.ask(A)

    asyncio.run(scene())


def test_a_change_asks_few_at_once_and_reaches_all():
    async def scene() -> None:
        court = Court(FilePolicy())
        (source,) = court.sources
        keys = [fake_key(number) for number in range(3000)]
        for key in keys:
            await court.ask(key)
            court.judge.keep(key)
        source.members = set(keys)
        source.most_under_way = 0
        source.gate = asyncio.Event()
        source.change()
        await turns()
        assert source.most_under_way == source.under_way == 64
        source.gate.set()
        while len(court.told) < len(keys):
            await asyncio.sleep(0)
        assert set(court.told) == {(key, True) for key in keys}

    asyncio.run(scene())


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_KNOWN", 1000)

    async def scene() -> None:
        court = Court(FilePolicy())
        for number in range(2000):
            await court.ask(fake_key(number))
        gc.collect()
        tracemalloc.start()
        try:
            for number in range(2000, 6000):
                await court.ask(fake_key(number))
            gc.collect()
            used, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert used < 1000 * 2000  # what replaced the first thousand, and no more
        await court.ask(fake_key(5999))
        assert len(court.sources[0].asked) == 6000
        await court.ask(fake_key(0))
        assert len(court.sources[0].asked) == 6001

    asyncio.run(scene())


@pytest.mark.parametrize("optimistic", [True, False])
def test_closing_tells_nothing(optimistic: bool):
    async def scene() -> None:
        court = Court(FilePolicy(optimistic=optimistic))
        (source,) = court.sources
        source.gate = asyncio.Event()
        asking = asyncio.create_task(court.ask(A))
        await turns()
        court.judge.keep(A)
        await court.judge.close()
        await turns()
        assert (await asyncio.gather(asking, return_exceptions=True)) != [None]
        assert isinstance(asking.exception(), Busy) is not optimistic
        assert (court.told, source.closed, source.under_way) == ([], True, 0)
        with pytest.raises(Busy):
            await court.ask(B)

    asyncio.run(scene())


@pytest.mark.parametrize("seed", range(20))
def test_by_chance_against_what_the_sources_say_now(seed: int):
    """Whatever happened before: when everything remembered is too old, or its source has told of a change, the
    verdict is that of the sources as they are."""
    chance = random.Random(seed)

    def expected(court: Court, policies, key) -> bool:
        for policy, source in zip(policies, court.sources, strict=True):
            if source.error is not None:
                return policy.on_error == "allow"
            if key in source.members:
                return policy.action_if_match == "allow"
        return False

    async def scene() -> None:
        policies = [
            FilePolicy(
                action_if_match=chance.choice(["allow", "deny"]), on_error=chance.choice(["allow", "deny"])
            )
            for _ in range(chance.randint(1, 4))
        ]
        court = Court(*policies)
        for _ in range(200):
            source = chance.choice(court.sources)
            what = chance.randrange(4)
            if what == 0:
                source.members ^= {chance.choice(KEYS)}
            elif what == 1:
                source.error = None if source.error else RuntimeError()
            if what < 2 and chance.random() < 0.5:
                source.change()
            elif what < 2:
                court.clock.time += 60
            elif what == 2:
                court.clock.time += chance.random() * 10
            key = chance.choice(KEYS)
            assert (await court.ask(key)).allowed is expected(court, policies, key)

    asyncio.run(scene())
