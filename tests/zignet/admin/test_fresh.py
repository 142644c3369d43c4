"""However often one asks here, the packet process is asked rarely."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.admin.fresh import KEEP_S, LONGEST_S, SHARE, Allowance, Fresh, Share
from zignet.control import Broken


class Node:
    """Counts, and takes its time by a clock of its own."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.now = 1000.0
        self.takes_s = takes_s
        self.asked: list[Any] = []
        self.error: Exception | None = None
        self.hold: asyncio.Event | None = None

    async def ask(self, request: dict[str, Any], timeout_s: float = 10.0) -> list[dict[str, Any]]:
        self.asked.append(request)
        if self.hold is not None:
            await self.hold.wait()
        self.now += self.takes_s
        if self.error is not None:
            raise self.error
        return [{"n": len(self.asked)}]


def fresh(node: Node, room: int = 8) -> Fresh:
    return Fresh(node, room, Allowance(1e6, 1e6), lambda: node.now)


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 20))


def test_kept_for_a_moment() -> None:
    async def main() -> None:
        node = Node()
        asker = fresh(node)
        assert await asker.one({"do": "x"}, "n") == 1
        node.now += KEEP_S * 0.9
        assert await asker.one({"do": "x"}, "n") == 1
        assert await asker.one({"do": "y"}, "n") == 2
        node.now += KEEP_S * 0.2
        assert await asker.one({"do": "x"}, "n") == 3

    run(main())


def test_what_took_long_is_kept_long() -> None:
    async def main() -> None:
        node = Node(takes_s=0.05)
        asker = fresh(node)
        await asker.ask({"do": "x"})
        node.now += SHARE * 0.05 - 0.01
        await asker.ask({"do": "x"})
        assert len(node.asked) == 1
        node.now += 0.02
        await asker.ask({"do": "x"})
        assert len(node.asked) == 2

    run(main())


def test_nothing_is_kept_for_ever() -> None:
    async def main() -> None:
        node = Node(takes_s=10.0)
        asker = fresh(node)
        await asker.ask({"do": "x"})
        node.now += LONGEST_S + 0.01
        await asker.ask({"do": "x"})
        assert len(node.asked) == 2

    run(main())


def test_all_who_ask_at_once_are_one_question() -> None:
    async def main() -> None:
        node = Node()
        node.hold = asyncio.Event()
        asker = fresh(node)
        asking = [asyncio.create_task(asker.one({"do": "x"}, "n")) for _ in range(50)]
        await asyncio.sleep(0)
        asking[0].cancel()  # the first to come goes: the others have their answer all the same
        await asyncio.sleep(0)
        node.hold.set()
        assert await asyncio.gather(*asking[1:]) == [1] * 49
        assert len(node.asked) == 1

    run(main())


def test_an_error_is_told_to_all_and_not_kept() -> None:
    async def main() -> None:
        node = Node()
        node.error = Broken("away")
        asker = fresh(node)
        found = await asyncio.gather(*(asker.ask({"do": "x"}) for _ in range(5)), return_exceptions=True)
        assert [str(each) for each in found] == ["away"] * 5
        node.error = None
        assert await asker.one({"do": "x"}, "n") == 2

    run(main())


def test_no_more_is_kept_than_there_is_room_for() -> None:
    async def main() -> None:
        node = Node()
        asker = fresh(node, room=3)
        for number in range(10):
            await asker.ask({"do": number})
        assert len(asker._kept) == 3
        await asker.ask({"do": 9})
        assert len(node.asked) == 10
        await asker.ask({"do": 0})
        assert len(node.asked) == 11

    run(main())


def test_an_answer_without_the_key_is_an_error() -> None:
    with pytest.raises(LookupError):
        run(fresh(Node()).one({"do": "x"}, "other"))


@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=300))
def test_the_allowance(gaps: list[float]) -> None:
    """In any stretch of time there are at most so many, however they come."""
    allowance = Allowance(100.0, 10.0)
    now, went = 0.0, []
    for gap in gaps:
        now += gap
        went.append(now + allowance.wait_s(now))
    assert went == sorted(went)
    for index, first in enumerate(went):
        for count, last in enumerate(went[index:], 1):
            assert count <= 10 + (last - first) * 100 + 1.001


def test_a_share_of_the_time() -> None:
    """What takes long is asked seldom, one question after the other, whatever they are."""

    async def main() -> None:
        node = Node(takes_s=0.01)
        waits: list[float] = []
        pace = Share(rest=4.0)
        asker = Fresh(node, 8, pace, lambda: node.now)

        async def sleep(seconds: float) -> None:
            waits.append(seconds)
            node.now += seconds

        original, asyncio.sleep = asyncio.sleep, sleep  # type: ignore[assignment]
        try:
            await asyncio.gather(*(asker.ask({"do": number}) for number in range(50)))
        finally:
            asyncio.sleep = original
        assert len(waits) == 49
        assert waits == pytest.approx([0.04] * 49)

    run(main())
