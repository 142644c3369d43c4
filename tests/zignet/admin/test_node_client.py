"""The control process's questions, against the packet process's real service and against a hostile one."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

import pytest

from nat.loop import Loop
from zignet.admin.node import NodeClient
from zignet.control import Broken, Declined
from zignet.control.service import Adopted


def handler(request: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Answers of every kind."""
    match request["do"]:
        case "count":
            for number in range(request["to"]):
                yield {"number": number}
        case "slow":
            for _ in range(request["turns"]):
                yield {}
            yield {"slow": True}
        case other:
            raise ValueError(f"what is {other}?")


def against_service(ask: Callable[[NodeClient], Coroutine[Any, Any, None]], connections: int = 2) -> None:
    """Run `ask` in asyncio against a packet loop in a thread."""
    loop = Loop()
    pairs = [socket.socketpair() for _ in range(connections)]
    adopted = [Adopted(loop, ours, handler) for ours, _ in pairs]
    thread = threading.Thread(target=loop.run)
    thread.start()

    async def main() -> None:
        node = await NodeClient.open(theirs for _, theirs in pairs)
        try:
            await asyncio.wait_for(ask(node), 60)
        finally:
            node.close()

    try:
        asyncio.run(main())
    finally:
        loop.stop()
        thread.join()
        for one in adopted:
            one.close()
        loop.dispose()


def test_lines_come_in_order() -> None:
    async def ask(node: NodeClient) -> None:
        assert await node.ask({"do": "count", "to": 1000}) == [{"number": n} for n in range(1000)]
        assert await node.ask({"do": "count", "to": 0}) == []

    against_service(ask)


def test_more_questions_than_connections() -> None:
    async def ask(node: NodeClient) -> None:
        answers = await asyncio.gather(*(node.ask({"do": "count", "to": n}) for n in range(100)))
        assert [len(one) for one in answers] == list(range(100))

    against_service(ask)


def test_a_slow_answer_holds_up_no_other() -> None:
    async def ask(node: NodeClient) -> None:
        slow = asyncio.create_task(node.one({"do": "slow", "turns": 20}, "slow"))
        for _ in range(10):
            await node.ask({"do": "count", "to": 1})
        assert not slow.done()
        assert await slow is True

    against_service(ask)


def test_errors_are_the_nodes_own_words() -> None:
    async def ask(node: NodeClient) -> None:
        with pytest.raises(Declined, match="what is cheese"):
            await node.ask({"do": "cheese"})
        assert await node.ask({"do": "count", "to": 1}) == [{"number": 0}]

    against_service(ask)


def test_an_answer_that_nobody_waits_for_is_not_taken_for_the_next() -> None:
    async def ask(node: NodeClient) -> None:
        with pytest.raises(Broken, match=r"within 0\.01 s"):
            await node.ask({"do": "slow", "turns": 10}, timeout_s=0.01)
        assert await node.ask({"do": "count", "to": 2}) == [{"number": 0}, {"number": 1}]

    against_service(ask, connections=1)


def test_who_gives_up_while_waiting_for_a_turn_takes_none() -> None:
    async def ask(node: NodeClient) -> None:
        slow = asyncio.create_task(node.one({"do": "slow", "turns": 6}, "slow"))
        await asyncio.sleep(0)
        with pytest.raises(Broken, match="did not answer"):
            await node.ask({"do": "count", "to": 2}, timeout_s=0.01)
        assert await slow is True
        assert len(await node.ask({"do": "count", "to": 2})) == 2

    against_service(ask, connections=1)


@pytest.mark.parametrize(
    "garbage", [b"nonsense\n", b"[]\n", b"1" * (2 << 20), b"[" * 100_000 + b"\n", b"\xff\xfe\n", b""]
)
def test_garbage_ends_the_connection(garbage: bytes) -> None:
    ours, theirs = socket.socketpair()

    def answer() -> None:
        ours.recv(1 << 16)
        try:
            ours.sendall(garbage)
        except OSError:
            pass
        ours.close()

    thread = threading.Thread(target=answer)

    async def main() -> None:
        node = await NodeClient.open([theirs])
        thread.start()
        with pytest.raises(Broken, match="closed the connection"):
            await node.ask({"do": "status"}, timeout_s=60)
        assert node.gone.is_set()
        with pytest.raises(Broken, match="closed the connection"):
            await node.ask({"do": "status"})

    asyncio.run(main())
    thread.join()


def test_what_nobody_asked_for_ends_the_connection() -> None:
    ours, theirs = socket.socketpair()

    async def main() -> None:
        node = await NodeClient.open([theirs])
        ours.sendall(json.dumps({"end": True}).encode() + b"\n")
        await asyncio.wait_for(node.gone.wait(), 60)

    asyncio.run(main())
    ours.close()
