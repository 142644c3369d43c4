"""What is not data gets its time, and no more; and nothing of it is lost on the way but by the kernel."""

from __future__ import annotations

from collections import Counter, deque
from types import SimpleNamespace
from typing import Any

import pytest

from zignet.peers import door as door_module
from zignet.peers.door import BUDGET_S, STANDING_S, Door

ADDRESS = ("192.0.2.7", 4000)


class Beside:
    """Stands for the transport and its side socket."""

    def __init__(self) -> None:
        self.side = SimpleNamespace(fileno=lambda: 77)
        self.coming: deque[tuple[bytes, int]] = deque()
        self.back: list[tuple[bytes, int, Any, int]] = []

    def receive_beside(self, buffer: memoryview) -> tuple[int, int, Any, int] | None:
        if not self.coming:
            return None
        data, size = self.coming.popleft()
        buffer[: len(data)] = data
        return len(data), size, ADDRESS, 2

    def put_back(self, *what: Any) -> None:
        self.back.append(what)


class World:
    """A door, and whom it leads to. A knock takes `cost` seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 0.0
        self.cost = 0.0
        self.knocks: list[bytes] = []
        self.received = 0
        self.behind = 0
        self.soon: list[Any] = []
        self.watched: dict[int, Any] = {}
        self.dropped: Counter[str] = Counter()
        self.transport = Beside()
        loop: Any = SimpleNamespace(
            soon=self.soon.append,
            watch=lambda fd, handler, mask: self.watched.update({fd: handler}),
            forget=self.watched.pop,
        )
        transport: Any = self.transport
        receiver: Any = SimpleNamespace(on_event=self.receive)
        monkeypatch.setattr(door_module, "perf_counter", lambda: self.time)
        self.door = Door(loop, transport, receiver, self.knock, self.be_behind, self.dropped)

    def knock(self, datagram: memoryview, address: Any) -> None:
        assert address == ADDRESS
        self.knocks.append(bytes(datagram))
        self.time += self.cost or 1e-6

    def be_behind(self) -> None:
        self.behind += 1

    def receive(self, mask: int) -> None:
        self.received += 1

    def turn(self) -> int:
        """One turn of the loop; how many were let knock."""
        before = len(self.knocks)
        soon, self.soon[:] = list(self.soon), []
        for callback in soon:
            callback()
        if not soon:
            self.door.on_event(1)
        return len(self.knocks) - before


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_single_datagrams(world: World) -> None:
    world.transport.coming += [(b"\1one", 0), (b"\2two", 0), (b"\3", 0)]
    assert world.turn() == 3
    assert world.knocks == [b"\1one", b"\2two", b"\3"]
    assert world.turn() == 0


def test_a_train(world: World) -> None:
    world.transport.coming.append((b"\1aaa\2bbb\3c", 4))
    assert world.turn() == 3
    assert world.knocks == [b"\1aaa", b"\2bbb", b"\3c"]


@pytest.mark.parametrize("share", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("in_trains", [False, True])
def test_the_time_of_a_turn(world: World, share: float, in_trains: bool) -> None:
    """At least one in each turn; all of them, and in their order, in some number of turns."""
    world.cost = BUDGET_S * share
    datagrams = [b"\1" + number.to_bytes(3) for number in range(40)]
    if in_trains:
        world.transport.coming += [(b"".join(datagrams[at : at + 20]), 4) for at in (0, 20)]
    else:
        world.transport.coming += [(one, 0) for one in datagrams]
    most = 4 if share < 1 else 1
    turns = [world.turn() for _ in range(50)]
    assert max(turns) == most
    assert world.knocks == datagrams
    assert not world.soon


def test_a_train_is_gone_on_with_though_nothing_new_comes(world: World) -> None:
    world.cost = BUDGET_S
    world.transport.coming.append((b"\1aaa\1bbb", 4))
    world.door.on_event(1)
    assert world.knocks == [b"\1aaa"]
    assert len(world.soon) == 1
    world.turn()
    assert world.knocks == [b"\1aaa", b"\1bbb"]


def test_data_behind_a_handshake_is_for_the_receiver(world: World) -> None:
    """All from there on, in one piece: a train of one sender keeps its order."""
    world.transport.coming.append((b"\1aaa\4bbb\1ccc\4d", 4))
    world.turn()
    assert world.knocks == [b"\1aaa"]
    assert world.transport.back == [(b"\4bbb\1ccc\4d", 4, ADDRESS, 2)]
    assert world.received == 1
    assert not world.soon


def test_a_fault_costs_its_train(world: World) -> None:
    world.cost = BUDGET_S
    world.transport.coming += [(b"\1aaa\1bbb\1ccc", 4), (b"\1ddd", 0)]
    world.turn()
    world.door.abort()
    assert world.dropped == {"internal error": 1}
    world.turn()
    world.turn()
    assert world.knocks == [b"\1aaa", b"\1ddd"]


def test_it_is_watched_from_open_to_close(world: World) -> None:
    assert not world.watched
    world.door.open()
    assert world.watched == {77: world.door}
    world.door.close()
    assert not world.watched


def test_without_a_side_there_is_nothing_to_watch(world: World) -> None:
    world.transport.side = None  # type: ignore[assignment]
    world.door.open()
    world.door.close()
    assert not world.watched


def test_a_queue_that_stands_is_told(world: World) -> None:
    """For as long as it stands; one that is emptied in between is none."""
    world.cost = BUDGET_S / 2

    def turns(count: int, waiting: int) -> int:
        before = world.behind
        for _ in range(count):
            world.transport.coming = deque([(b"\1x", 0)] * waiting)
            world.turn()
            world.time += STANDING_S / 10
        return world.behind - before

    assert turns(9, 5) == 0
    assert turns(10, 5) >= 9
    assert turns(1, 1) == 0
    assert turns(9, 5) == 0
    assert turns(5, 5) >= 3
    world.time += 60.0
    assert turns(9, 5) == 0
