"""The control socket in the packet loop: answers that take a while, and callers that hang up."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nat.loop import Loop
from zignet.control import Place, handler_for
from zignet.control import service as module
from zignet.control.place import socket_address
from zignet.control.service import ControlService


class Lab:
    """A loop with a control socket, and callers."""

    def __init__(self, state_dir: Path, node: Any) -> None:
        self.state_dir = state_dir
        self.place = Place.claim(state_dir)
        self.loop = Loop()
        self.service = ControlService(self.loop, self.place.listener, handler_for(node))
        self.callers: list[socket.socket] = []

    def call(self, *requests: dict[str, Any]) -> socket.socket:
        caller = socket.socket(socket.AF_UNIX)
        with socket_address(self.state_dir) as address:
            caller.connect(address)
        caller.settimeout(5)
        caller.sendall(b"".join(json.dumps(one).encode() + b"\n" for one in requests))
        self.callers.append(caller)
        return caller

    def run(self, seconds: float) -> None:
        self.loop.call_later(seconds, self.loop.stop)
        self.loop.run()

    @property
    def open(self) -> int:
        return len(self.service._open)

    def close(self) -> None:
        for caller in self.callers:
            caller.close()
        self.service.close()
        self.loop.dispose()
        self.place.close()


@pytest.fixture
def lab(tmp_path: Path, node: Any) -> Iterator[Lab]:
    made = Lab(tmp_path / "state", node)
    yield made
    made.close()


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The events that connections were told of."""
    seen: list[int] = []
    on_event = module.Connection.on_event

    def noted(self: Any, mask: int) -> None:
        seen.append(mask)
        on_event(self, mask)

    monkeypatch.setattr(module.Connection, "on_event", noted)
    return seen


def answers(caller: socket.socket) -> list[dict[str, Any]]:
    return [json.loads(line) for line in caller.recv(1 << 16).splitlines()]


def test_an_answer_that_takes_a_while(lab: Lab, node: Any, make_ping: Any, turns: list[int]) -> None:
    """It is asked for twenty times a second, and nobody spins meanwhile."""
    node.pings = [*[None] * 4, make_ping()]
    caller = lab.call({"do": "ping", "peer": "peer2"})
    lab.run(0.1)
    caller.setblocking(False)
    with pytest.raises(BlockingIOError):
        caller.recv(1)
    lab.run(0.4)
    assert answers(caller) == [{"ping": make_ping()}, {"end": True}]
    assert len(turns) < 20


def test_others_are_answered_meanwhile(lab: Lab, node: Any) -> None:
    node.pings = itertools.repeat(None)
    lab.call({"do": "ping", "peer": "peer2"})
    other = lab.call({"do": "status"})
    lab.run(0.1)
    assert answers(other)[0]["status"]["pid"] == 4321


@pytest.mark.parametrize("more", [[], [{"do": "status"}]])
def test_who_hangs_up_while_he_waits(
    lab: Lab, node: Any, turns: list[int], more: list[dict[str, Any]]
) -> None:
    """Also with a question that was not looked at yet: the connection ends at once."""
    node.pings = itertools.repeat(None)
    caller = lab.call({"do": "ping", "peer": "peer2"}, *more)
    lab.run(0.1)
    assert lab.open == 1
    caller.close()
    lab.run(0.1)
    assert lab.open == 0
    assert len(turns) < 20
    lab.run(0.2)
    assert len(turns) < 20
