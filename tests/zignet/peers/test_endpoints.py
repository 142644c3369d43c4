"""The resolver is asked in threads, a few at once, and answers into the loop. And hubs whose peers have names."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.zignet.peers.hubs import HOST_UNREACHABLE, PORT, Node, World, icmp_error, met
from zignet.peers import endpoints as module
from zignet.peers import report
from zignet.peers.endpoints import Endpoints, is_numeric, split

INITIATION = 1


class Resolver:
    """Stands for getaddrinfo: answers when it is told to, from `names`."""

    def __init__(self) -> None:
        self.names: dict[str, list[str] | Exception] = {}
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def __call__(self, host: str, port: int, *args: Any, **more: Any) -> list[Any]:
        assert more == {"type": socket.SOCK_DGRAM}
        with self._lock:
            self.asked.append(host)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            assert self.gate.wait(20)
            found = self.names.get(host, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
            if isinstance(found, Exception):
                raise found
            return [(socket.AF_INET, 2, 17, "", (address, port)) for address in found]
        finally:
            with self._lock:
                self.at_once -= 1


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver()
    monkeypatch.setattr(module.socket, "getaddrinfo", made)  # type: ignore[attr-defined]
    yield made
    made.gate.set()


class Loop:
    """As the loop of a node, where `from_thread` is concerned."""

    def __init__(self) -> None:
        self.mailbox: deque[Callable[[], object]] = deque()
        self.thread = threading.get_ident()

    def from_thread(self, callback: Callable[[], object]) -> None:
        assert threading.get_ident() != self.thread
        self.mailbox.append(callback)

    def turn(self, count: int = 1) -> None:
        """Take so many from the mailbox, when they are there."""
        for _ in range(count):
            wait_for(lambda: self.mailbox)
            self.mailbox.popleft()()


class Transport:
    """Reaches IPv4."""

    def address(self, host: str, port: int) -> tuple[str, int]:
        if ":" in host or not is_numeric(host):
            raise ValueError(f"{host} can't be reached from this socket")
        return host, port


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def endpoints(loop: Loop, resolver: Resolver) -> Endpoints:
    return Endpoints(loop, Transport())  # type: ignore[arg-type]


# --- endpoints alone


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.1:51830", "192.0.2.1", 51830),
        ("[2001:db8::1]:1", "2001:db8::1", 1),
        ("[fe80::1%eth0]:65535", "fe80::1%eth0", 65535),
        ("vpn.example:51830", "vpn.example", 51830),
    ],
)
def test_split(text: str, host: str, port: int) -> None:
    assert split(text) == (host, port)


@pytest.mark.parametrize(
    ("host", "numeric"),
    [
        ("192.0.2.1", True),
        ("2001:db8::1", True),
        ("fe80::1%eth0", True),
        ("vpn.example", False),
        ("1.2.3", False),
        ("1.2.3.4.example", False),
        ("", False),
    ],
)
def test_is_numeric(host: str, numeric: bool) -> None:
    assert is_numeric(host) == numeric


def test_numeric_ones_are_known_at_once(endpoints: Endpoints, resolver: Resolver) -> None:
    assert endpoints.numeric("192.0.2.1:51830") == ("192.0.2.1", 51830)
    assert endpoints.numeric("vpn.example:51830") is None
    with pytest.raises(ValueError, match="can't be reached from this socket"):
        endpoints.numeric("[2001:db8::1]:51830")
    assert resolver.asked == []


def test_a_name(endpoints: Endpoints, resolver: Resolver, loop: Loop) -> None:
    resolver.names["vpn.example"] = ["192.0.2.7", "192.0.2.8"]
    found: list[Any] = []
    endpoints.ask("vpn.example:99", found.append)
    wait_for(lambda: loop.mailbox)
    assert found == []  # only in the loop
    loop.turn()
    assert found == [("192.0.2.7", 99)]


def test_the_first_that_can_be_reached(endpoints: Endpoints, resolver: Resolver, loop: Loop) -> None:
    resolver.names["vpn.example"] = ["2001:db8::1", "192.0.2.8", "192.0.2.9"]
    found: list[Any] = []
    endpoints.ask("vpn.example:99", found.append)
    loop.turn()
    assert found == [("192.0.2.8", 99)]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "Temporary failure"),
        (OSError(24, "Too many open files"), "Too many open files"),
        (UnicodeError("label too long"), "label too long"),
        ([], "can be reached from this socket"),
        (["2001:db8::1"], "can be reached from this socket"),
    ],
)
def test_a_name_that_leads_nowhere(
    endpoints: Endpoints,
    resolver: Resolver,
    loop: Loop,
    caplog: pytest.LogCaptureFixture,
    answer: Any,
    says: str,
) -> None:
    resolver.names["vpn.example"] = answer
    found: list[Any] = []
    for _ in range(3):
        endpoints.ask("vpn.example:99", found.append)
        loop.turn()
    assert found == [None, None, None]
    (record,) = caplog.records  # told once
    assert "vpn.example:99" in record.getMessage()
    assert says in record.getMessage()
    resolver.names["vpn.example"] = ["192.0.2.7"]
    endpoints.ask("vpn.example:99", found.append)
    loop.turn()
    resolver.names["vpn.example"] = answer
    endpoints.ask("vpn.example:99", found.append)
    loop.turn()
    assert found[3:] == [("192.0.2.7", 99), None]
    assert len(caplog.records) == 2  # it was well again meanwhile


def test_a_question_under_way_is_not_asked_twice(
    endpoints: Endpoints, resolver: Resolver, loop: Loop
) -> None:
    """And nobody who has asked goes without an answer."""
    resolver.names["vpn.example"] = ["192.0.2.7"]
    resolver.gate.clear()
    found: list[Any] = []
    for number in range(5):
        endpoints.ask("vpn.example:99", lambda address, number=number: found.append((number, address)))  # type: ignore[misc]
    resolver.gate.set()
    loop.turn()
    assert found == [(number, ("192.0.2.7", 99)) for number in range(5)]
    assert resolver.asked == ["vpn.example"]
    endpoints.ask("vpn.example:99", found.append)
    loop.turn()
    assert len(resolver.asked) == 2


def test_eight_questions_at_once(endpoints: Endpoints, resolver: Resolver, loop: Loop) -> None:
    """A hundred thousand names are no hundred thousand threads."""
    resolver.gate.clear()
    before = threading.active_count()
    found: list[Any] = []
    for number in range(100):
        resolver.names[f"n{number}.example"] = [f"192.0.2.{number}"]
        endpoints.ask(f"n{number}.example:1", found.append)
    wait_for(lambda: len(resolver.asked) == 8)
    assert threading.active_count() <= before + 8
    resolver.gate.set()
    loop.turn(100)
    assert sorted(found) == sorted((f"192.0.2.{number}", 1) for number in range(100))
    assert resolver.most_at_once <= 8


def test_an_answer_after_the_loop_has_ended(
    endpoints: Endpoints, resolver: Resolver, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)

    def closed(callback: object) -> None:
        raise OSError(9, "Bad file descriptor")

    loop.from_thread = closed  # type: ignore[method-assign, assignment]
    before = threading.active_count()
    endpoints.ask("vpn.example:99", print)
    wait_for(lambda: threading.active_count() <= before)
    assert failures == []


# --- in a hub


def answered(world: World, node: Node) -> None:
    """Wait for the resolver's threads, and let the hub hear of it."""

    def nothing_is_asked() -> bool:
        world.run(0.0)
        return not node.hub.endpoints._asking

    wait_for(nothing_is_asked)


@pytest.fixture
def named(world: World, resolver: Resolver) -> tuple[Node, Node]:
    """Node a knows b by name, which leads there unless a test says otherwise."""
    a, b = world.node("a"), world.node("b")
    b.knows(a)
    resolver.names["b.example"] = [b.address[0]]
    a.knows(b, f"b.example:{PORT}")
    return a, b


def test_packets_wait_for_the_name_too(world: World, resolver: Resolver, named: tuple[Node, Node]) -> None:
    a, b = named
    resolver.gate.clear()
    a.send(b, b"one")
    a.send(b, b"two")
    world.run(2.0)
    assert world.sent == []
    assert a.take() == []
    resolver.gate.set()
    answered(world, a)
    assert len(world.of(INITIATION, a, b)) == 1
    world.run(1.0)
    assert b.heard() == [b"one", b"two"]
    assert report.row(a.hub, a.peer(b))["rtt_s"] == pytest.approx(0.1)  # without the wait for the resolver


def test_a_name_that_does_not_resolve(
    world: World, resolver: Resolver, named: tuple[Node, Node], caplog: pytest.LogCaptureFixture
) -> None:
    """The sender is told as soon as it is known; and the resolver is asked again with the next attempt."""
    a, b = named
    del resolver.names["b.example"]
    a.send(b, b"x")
    answered(world, a)
    (told,) = map(icmp_error, a.take())
    assert (told.kind, told.code) == HOST_UNREACHABLE
    assert "b.example" in caplog.text
    resolver.names["b.example"] = [b.address[0]]
    a.send(b, b"y")
    assert len(a.take()) == 1  # at once: it is known that nobody knows
    world.run(5.0)
    answered(world, a)
    a.send(b, b"z")
    world.run(1.0)
    assert b.heard() == [b"z"]


def test_no_resolver_at_the_start(world: World, resolver: Resolver, named: tuple[Node, Node]) -> None:
    """A peer that is kept alive is found once the network is there, however long that takes."""
    a, b = named
    a.knows(b, f"b.example:{PORT}", keepalive_s=25)
    del resolver.names["b.example"]
    a.restart()
    answered(world, a)
    for _ in range(150):
        world.run(1.0)
        answered(world, a)
    assert not a.connected(b)
    resolver.names["b.example"] = [b.address[0]]
    for _ in range(60):
        world.run(1.0)
        answered(world, a)
    assert a.connected(b)


def test_the_address_behind_a_name_changes(
    world: World, resolver: Resolver, named: tuple[Node, Node]
) -> None:
    """It is asked again when handshakes go unanswered."""
    a, b = named
    a.send(b, b"x")
    answered(world, a)
    world.run(1.0)
    b.heard()
    world.run(12)
    b.move(88)
    resolver.names["b.example"] = [b.address[0]]
    for _ in range(25):
        a.send(b, b"y")
        world.run(1.0)
        answered(world, a)
    assert b.heard()[-1] == b"y"
    assert a.link(b).address == b.address


def test_a_name_that_leads_to_the_wrong_place_at_first(
    world: World, resolver: Resolver, named: tuple[Node, Node]
) -> None:
    """Each attempt without an answer asks again."""
    a, b = named
    resolver.names["b.example"] = ["192.0.2.99"]
    a.send(b, b"x")
    answered(world, a)
    world.run(6.0)
    answered(world, a)
    resolver.names["b.example"] = [b.address[0]]
    for _ in range(10):
        world.run(1.0)
        answered(world, a)
    assert b.heard() == [b"x"]


def test_an_answer_that_comes_when_the_peer_has_come_itself(
    world: World, resolver: Resolver, named: tuple[Node, Node]
) -> None:
    a, b = named
    resolver.gate.clear()
    a.send(b, b"x")
    b.send(a, b"y")
    world.run(1.0)
    assert (a.heard(), b.heard()) == ([b"y"], [b"x"])
    resolver.gate.set()
    answered(world, a)
    assert world.of(INITIATION, a) == []
    world.run(1.0)
    assert a.connected(b)


def test_an_answer_for_a_peer_that_is_gone(
    world: World, resolver: Resolver, named: tuple[Node, Node]
) -> None:
    a, b = named
    resolver.gate.clear()
    a.send(b, b"x")
    a.forgets(b)
    assert len(a.take()) == 1
    resolver.gate.set()
    answered(world, a)
    world.run(10)
    assert world.of(INITIATION, a) == []
    assert a.state()["tunnels"] == 0


def test_an_endpoint_that_this_socket_cannot_reach(
    world: World, resolver: Resolver, caplog: pytest.LogCaptureFixture
) -> None:
    """IPv6, from a socket of IPv4: told once, and to every sender."""
    a, b = world.node("a"), world.node("b")
    a.knows(b, "[2001:db8::2]:51830")
    for _ in range(3):
        a.send(b, b"x")
        assert len(a.take()) == 1
        world.run(6.0)
    assert caplog.text.count("can't be reached from this socket") == 1
    assert resolver.asked == []


def test_a_ping_says_that_the_name_is_the_trouble(
    world: World, resolver: Resolver, named: tuple[Node, Node]
) -> None:
    a, b = named
    del resolver.names["b.example"]
    asked = report.ping(a.hub, a.peer(b))
    assert next(iter(asked)) is None
    answered(world, a)
    result = next(iter(asked))
    assert result is not None
    assert result["error"] == "its endpoint b.example:51830 can't be found, and it has not come by itself"


def test_names_and_numbers_side_by_side(
    world: World, resolver: Resolver, named: tuple[Node, Node], caplog: pytest.LogCaptureFixture
) -> None:
    a, b = named
    c = world.node("c")
    resolver.gate.clear()
    a.send(b, b"to b")
    with caplog.at_level(logging.WARNING):
        met(world, a, c)
    assert caplog.text == ""
