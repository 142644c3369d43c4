"""What is told of two moments, and what a listener hears over a real socket."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from tests.zignet.admin.conftest import FRIEND, GUEST, Served
from tests.zignet.conftest import SAMPLE_STATUS, SampleNode, sample_peer
from zignet.admin import events
from zignet.admin.events import Events, Sight, changes
from zignet.admin.refused import Refused
from zignet.control import Broken
from zignet.policy.judge import Verdict

PULSE: Any = SampleNode().pulse()


def sight(*peers: int, **changed: Any) -> Sight:
    pulse: Any = PULSE | changed
    return Sight(pulse, {str(number): sample_peer(number) for number in peers})


def test_the_first_moment_is_told_as_it_is() -> None:
    assert list(changes(None, sight(1, 2))) == [
        ("node", {"state": "running"}),
        ("flows", SAMPLE_STATUS["flows"]),
    ]


def test_who_came_and_who_left() -> None:
    found = list(changes(sight(1, 2), sight(2, 3)))
    assert [(kind, each["event"], each["name"]) for kind, each in found] == [
        ("peer", "connected", "peer3"),
        ("peer", "left", "peer1"),
    ]


def test_nothing_happened() -> None:
    later = sight(1, uptime_s=PULSE["uptime_s"] + 1, loaded_age_s=PULSE["loaded_age_s"] + 1, packets_in=9999)
    assert list(changes(sight(1), later)) == []


def test_flows_and_reloads() -> None:
    before = sight(1)
    flows = PULSE["flows"] | {"tcp": 3}
    assert list(changes(before, sight(1, flows=flows))) == [("flows", flows)]
    assert list(changes(before, sight(1, loaded_age_s=0.2))) == [("reload", {"error": None})]
    failed = sight(1, last_reload_error="line 3: no")
    assert list(changes(before, failed)) == [("reload", {"error": "line 3: no"})]
    assert list(changes(before, sight(1, state="stopping"))) == [("node", {"state": "stopping"})]


class Node:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.away = False

    async def ask(self, request: dict[str, Any], timeout_s: float = 10.0) -> list[dict[str, Any]]:
        self.asked += 1
        if self.away:
            raise Broken("away")
        return [{"pulse": PULSE}] if request["do"] == "pulse" else []


def test_nobody_is_asked_as_long_as_nobody_listens() -> None:
    async def main() -> None:
        node = Node()
        told = Events(node, period_s=0.01)
        told.tell("decision", {})
        await asyncio.sleep(0.05)
        assert node.asked == 0
        stream = told.stream()
        assert await anext(stream) == b"retry: 2000\n\n"
        assert (await anext(stream)).startswith(b'event: node\nid: 1\ndata: {"state":"running"}\n\n')
        await stream.aclose()  # type: ignore[attr-defined]
        assert told.listeners == 0
        await asyncio.sleep(0.1)
        asked = node.asked
        await asyncio.sleep(0.1)
        assert node.asked == asked

    asyncio.run(asyncio.wait_for(main(), 20))


def test_away_is_told_once_and_then_that_it_is_back() -> None:
    async def main() -> None:
        node = Node()
        node.away = True
        told = Events(node, period_s=0.01)
        stream = told.stream()
        heard = [await anext(stream), await anext(stream)]
        assert b'"away"' in heard[1]
        while node.asked < 5:
            await asyncio.sleep(0.01)
        node.away = False
        assert b'"running"' in await anext(stream)
        told.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_who_reads_too_slowly_is_disconnected() -> None:
    async def main() -> None:
        told = Events(Node(), period_s=10)
        slow, quick = told.stream(), told.stream()
        assert await anext(slow) == await anext(quick)
        for number in range(events.BACKLOG + 10):
            told.tell("decision", {"n": number})
            await anext(quick)
        assert told.listeners == 1
        heard = [text async for text in slow]
        assert len(heard) == events.BACKLOG
        told.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_too_many_listen() -> None:
    async def main() -> None:
        told = Events(Node())
        streams = [told.stream() for _ in range(events.LISTENERS)]
        with pytest.raises(Refused) as refused:
            told.stream()
        assert refused.value.status == 503
        told.close()
        for stream in streams:
            heard = [text async for text in stream]
            assert heard[0].startswith(b"retry")

    asyncio.run(asyncio.wait_for(main(), 20))


class Listener:
    """A client of server-sent events, as simple as can be."""

    def __init__(self, served: Served, tcp: bool = False) -> None:
        self.end = served.connect(tcp)
        host = served.host if tcp else "admin.zignet"
        self.end.sendall(f"GET /api/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        self.heard = b""

    def until(self, text: bytes) -> None:
        deadline = time.monotonic() + 20
        while text not in self.heard:
            assert time.monotonic() < deadline, self.heard
            self.heard += self.end.recv(65536)


def test_over_the_socket(served: Served, node: Any) -> None:
    listener = Listener(served)
    listener.until(b"event: flows\n")
    head = listener.heard.partition(b"\r\n\r\n")[0].lower()
    assert head.startswith(b"http/1.1 200 ok")
    assert b"content-type: text/event-stream" in head
    node.open_peers = [sample_peer(1, name="guest", key=GUEST.name)]
    listener.until(b"event: peer\n")
    listener.until(b'"left"')
    listener.until(b'"connected"')
    lines = [line for line in listener.heard.splitlines() if line.startswith(b"data: ")]
    peers = [each for each in map(json.loads, (line[6:] for line in lines)) if "event" in each]
    assert {(each["event"], each["key"]) for each in peers} == {
        ("connected", GUEST.name),
        ("left", FRIEND.name),
    }
    verdict = Verdict(True, "Policy 1 admits this key.", 300.0)
    served.app.ctx.test_loop.call_soon_threadsafe(served.app.ctx.api.decided, GUEST, verdict)
    listener.until(b"event: decision\n")
    listener.until(b"Policy 1 admits this key.")
    listener.end.close()
    deadline = time.monotonic() + 20
    while served.app.ctx.api.events.listeners:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_listener_that_leaves_makes_room(served: Served) -> None:
    for _ in range(3):
        listeners = [Listener(served) for _ in range(events.LISTENERS)]
        for listener in listeners:
            listener.until(b"retry: 2000")
        answer = served.ask("/api/events")
        assert answer.status == 503
        for listener in listeners:
            listener.end.close()
        deadline = time.monotonic() + 20
        while served.app.ctx.api.events.listeners:
            assert time.monotonic() < deadline
            time.sleep(0.02)
