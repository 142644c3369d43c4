"""What the control socket answers about peers: the real handler and `Report`, over a hub in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.zignet.peers.hubs import Node, World, met
from zignet.control import ControlSession, RequestError, handler_for
from zignet.peers.admission import ConfiguredAdmission
from zignet.peers.services import Rule, ServiceRules
from zignet.report import Report


def answers_of(hub: Any) -> Report:
    node: Any = SimpleNamespace(hub=hub)
    return Report(node)


@pytest.fixture
def pair(world: World) -> tuple[Node, Node]:
    a, b = world.node("a"), world.node("b")
    met(world, a, b)
    return a, b


def ask(world: World, node: Node, **request: Any) -> list[dict[str, Any]]:
    """A request, and all of its answer, asked for as the packet loop does."""
    parts = []
    for part in handler_for(answers_of(node.hub))(request):
        if part:
            parts.append(dict(part))
        else:
            world.run(0.05)
    return parts


def test_peers(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    (answer,) = ask(world, a, do="peers")
    (row,) = answer["peers"]
    assert (row["name"], row["key"], row["state"]) == ("b", b.key.name, "connected")
    others = [world.node(f"n{number}") for number in range(30)]
    for one in others:
        a.knows(one)
    parts = ask(world, a, do="peers", all=True)
    assert [len(part["peers"]) for part in parts] == [25, 6]


def test_some_of_the_peers(world: World, pair: tuple[Node, Node]) -> None:
    a, _ = pair
    for number in range(5):
        a.knows(world.node(f"n{number}"))
    (answer,) = ask(world, a, do="peers", connected=True)
    assert [row["name"] for row in answer["peers"]] == ["b"]
    (answer,) = ask(world, a, do="peers")
    every = [row["name"] for row in answer["peers"]]
    for offset in range(8):
        found = ask(world, a, do="peers", all=True, offset=offset, limit=2)
        assert [row["name"] for part in found for row in part["peers"]] == every[offset : offset + 2]


def test_whose_address_and_whose_key(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    (peer,) = ask(world, a, do="peers")[0]["peers"]
    for text in (b.key.name, b.key.base58, b.key.hex, peer["address"], peer["address6"]):
        (answer,) = ask(world, a, do="identity", of=text)
        found = answer["identity"]
        assert (found["key"], found["name"], found["address"]) == (b.key.name, "b", peer["address"])
        assert (found["own"], found["configured"], found["online"]) == (False, True, True)
    (answer,) = ask(world, a, do="identity", of=a.key.hex)
    assert answer["identity"]["own"]
    assert answer["identity"]["key"] == a.key.name


def test_whose_they_are_that_nobody_has_seen(world: World, pair: tuple[Node, Node]) -> None:
    a, _ = pair
    stranger = world.node("stranger")
    (answer,) = ask(world, a, do="identity", of=stranger.key.name)
    found = answer["identity"]
    assert (found["key"], found["address"], found["online"]) == (stranger.key.name, None, False)
    assert found["address6"].startswith("fd5a:6967:6e65:")
    for nobody in ("100.64.77.7", "fd5a:6967:6e65::7", "192.0.2.1"):
        with pytest.raises(RequestError, match="nobody here has the address"):
            ask(world, a, do="identity", of=nobody)
    for wrong in ("somebody", stranger.key.name[:-1] + "a"):
        with pytest.raises(RequestError, match=r"key|mistyped"):
            ask(world, a, do="identity", of=wrong)


def test_what_the_lists_say(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    stranger = world.node("stranger").key
    (answer,) = ask(world, a, do="admission", key=b.key.base58)
    assert answer["admission"]["allowed"] is True
    assert "names this key as a peer" in answer["admission"]["reason"]
    (answer,) = ask(world, a, do="admission", key=stranger.name)
    assert answer["admission"]["allowed"] is False
    a.hub.admission = a.hub.asking.configured(ConfiguredAdmission("deny", deny=[b.key]), 300.0)
    (answer,) = ask(world, a, do="admission", key=b.key.name)
    assert answer["admission"]["allowed"] is False
    (answer,) = ask(world, a, do="admission", key=stranger.name)
    assert answer["admission"] == {"allowed": None, "reason": "", "service": None}


def test_what_may_be_reached(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    stranger = world.node("stranger").key

    def reach(key: Any, proto: str, port: int | None = None) -> bool:
        service = {"proto": proto} | ({} if port is None else {"port": port})
        (answer,) = ask(world, a, do="admission", key=key.name, **service)
        found = answer["admission"]["service"]
        assert (found["proto"], found["port"]) == (proto, port)
        assert found["reason"].endswith(".")
        return bool(found["allowed"])

    assert reach(stranger, "tcp", 22)
    assert reach(stranger, "icmp")
    rules = [Rule(6, ((22, 22),), {b.key}), Rule(6, ((80, 90),)), Rule(17)]
    a.hub.serve(ServiceRules(rules, [Rule(6, ((8080, 8080),))], only={stranger}))
    assert (reach(b.key, "tcp", 22), reach(b.key, "tcp", 85), reach(b.key, "tcp", 91)) == (True, True, False)
    assert (reach(b.key, "udp", 1), reach(b.key, "udp"), reach(b.key, "tcp"), reach(b.key, "icmp")) == (
        True,
        True,
        False,
        False,
    )
    assert (reach(stranger, "tcp", 8080), reach(stranger, "tcp", 80)) == (True, False)


def test_ping(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    for text in ("b", b.key.name, b.key.base58, "100.64.0.2"):
        (answer,) = ask(world, a, do="ping", peer=text)
        assert answer["ping"]["key"] == b.key.name
        assert answer["ping"]["rtt_s"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nobody", "nobody here is called nobody"),
        ("100.64.0.99", "nobody here is called 100.64.0.99"),
        ("x" * 56, "is not|no name|not a"),
    ],
)
def test_ping_of_nobody(world: World, pair: tuple[Node, Node], text: str, says: str) -> None:
    a, _ = pair
    before = a.state()
    with pytest.raises(RequestError, match=says):
        ask(world, a, do="ping", peer=text)
    assert a.state() == before


def test_a_mistyped_key_says_so(world: World, pair: tuple[Node, Node]) -> None:
    a, b = pair
    name = b.key.name
    with pytest.raises(RequestError, match="checksum"):
        ask(world, a, do="ping", peer=name[:5] + ("a" if name[5] != "a" else "b") + name[6:])


@pytest.mark.parametrize(
    "request_", [{"do": "peers"}, {"do": "ping", "peer": "b"}, {"do": "identity", "of": "b"}]
)
def test_a_node_without_peers(request_: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="this node has no peers"):
        list(handler_for(answers_of(None))(request_))


def test_a_whole_session(world: World, pair: tuple[Node, Node]) -> None:
    """In lines of JSON: what is not there yet makes the connection wait, and not the loop."""
    a, _ = pair
    session = ControlSession(handler_for(answers_of(a.hub)))
    session.receive(b'{"do":"ping","peer":"b"}\n{"do":"peers"}\n{"do":"ping","peer":"zzz"}\n')
    sent = b""
    waits = 0
    while session.wants_write or session.waiting:
        if session.waiting:
            waits += 1
            world.run(0.05)
            session.resume()
        data = bytes(session.pending())
        session.sent(len(data))
        sent += data
    lines = sent.splitlines()
    assert [line[:8] for line in lines] == [b'{"ping":', b'{"end":t', b'{"peers"', b'{"end":t', b'{"error"']
    assert 1 <= waits <= 5
