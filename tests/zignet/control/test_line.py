"""Lines over a socket: whole, cut anywhere, too long, nonsense, a flood, and one that does not read."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nat.loop import Loop
from zignet.control.line import LINE_BYTES, LineChannel


class End:
    """A channel, and the other end of it."""

    def __init__(self) -> None:
        self.loop = Loop()
        ours, self.other = socket.socketpair()
        self.heard: list[dict[str, Any]] = []
        self.broken: list[str] = []
        self.rooms = 0
        self.channel = LineChannel(self.loop, ours, self.heard.append, self._room, self.broken.append)

    def _room(self) -> None:
        self.rooms += 1

    def until(self, condition: Callable[[], object]) -> None:
        """Turn the loop until something is so."""

        def look() -> None:
            if condition():
                self.loop.stop()
            else:
                self.loop.call_later(0.001, look)

        look()
        self.loop.run()

    def close(self) -> None:
        self.channel.close()
        self.other.close()
        self.loop.dispose()


@pytest.fixture
def end() -> Iterator[End]:
    made = End()
    yield made
    made.close()


def test_lines(end: End) -> None:
    end.other.sendall(b'{"a":1}\n{"b":2}\n')
    end.until(lambda: len(end.heard) == 2)
    assert end.heard == [{"a": 1}, {"b": 2}]
    assert end.channel.send({"c": 3})
    assert end.other.recv(100) == b'{"c":3}\n'


def test_byte_by_byte(end: End) -> None:
    for byte in b'{"a":1}\n{"b":':
        end.other.sendall(bytes((byte,)))
        end.until(lambda: True)
    end.until(lambda: end.heard)
    assert end.heard == [{"a": 1}]
    end.other.sendall(b"2}\n")
    end.until(lambda: len(end.heard) == 2)


@pytest.mark.parametrize(
    "garbage",
    [b"x\n", b"[]\n", b"\n", b"\xff\n", b"1" * (LINE_BYTES + 20_000), b"[" * 60_000 + b"\n"],
    ids=["text", "list", "empty", "bytes", "endless", "deep"],
)
def test_nonsense_ends_it_once(end: End, garbage: bytes) -> None:
    end.other.setblocking(False)
    with pytest.MonkeyPatch.context():
        end.loop.soon(lambda: end.other.send(garbage[:65_000]))
        if len(garbage) > 65_000:
            end.loop.call_later(0.05, lambda: end.other.send(garbage[65_000:]))
        end.until(lambda: end.broken)
    assert len(end.broken) == 1
    assert not end.channel.send({})
    assert end.heard == []


def test_a_hang_up(end: End) -> None:
    end.other.close()
    end.until(lambda: end.broken)
    assert end.broken == ["it has closed its end"]


def test_a_flood_leaves_turns_to_others(end: End) -> None:
    """Between some lines and the next, the loop does what else is to be done."""
    end.other.setblocking(False)
    line, turns = b'{"a":1}\n', []

    def flood() -> None:
        try:
            while True:
                end.other.send(line * 1000)
        except BlockingIOError:
            pass
        turns.append(len(end.heard))
        if len(turns) < 100:
            end.loop.soon(flood)

    end.loop.soon(flood)
    end.until(lambda: len(turns) == 100)
    assert max(after - before for before, after in itertools.pairwise(turns)) <= 130
    assert len(end.channel._input) <= LINE_BYTES


def test_one_that_does_not_read_costs_little_memory(end: End) -> None:
    sent = 0
    while end.channel.send({"text": "x" * 1000}):
        sent += 1
    assert len(end.channel._output) < LINE_BYTES + 2000
    assert not end.channel.send({})
    end.until(lambda: True)
    read = bytearray()

    def drain() -> None:
        end.other.setblocking(False)
        try:
            while data := end.other.recv(1 << 16):
                read.extend(data)
        except BlockingIOError:
            pass

    end.until(lambda: drain() or end.rooms)
    drain()
    assert end.rooms == 1
    assert [json.loads(each) for each in read.splitlines()] == [{"text": "x" * 1000}] * sent
    assert end.channel.send({})
