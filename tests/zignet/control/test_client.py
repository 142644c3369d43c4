"""The client against a real socket, and against everything that can be wrong with one."""

from __future__ import annotations

import itertools
import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from zignet.control import Broken, Client, Declined, NotPermitted, NotRunning, Place
from zignet.control.client import PING_TIMEOUT_S
from zignet.peers import report


def test_questions(running: Path, node: Any) -> None:
    with Client(running) as client:
        assert client.status()["version"] == "0.1.0"
        assert [flow["id"] for flow in client.flows()] == [2, 1]
        assert [flow["id"] for flow in client.flows(ended=True)] == [2, 1, 0]
        explanation = client.explain({"name": "a.example", "address": None, "port": 443, "protocol": "tcp"})
        assert explanation["where"] == "zignet.yaml:9"
        client.reload()


def test_peers(running: Path, node: Any, make_peer: Any) -> None:
    with Client(running) as client:
        assert list(client.peers()) == node.open_peers
        assert list(client.peers(every=True)) == [*node.open_peers, *node.earlier_peers]
        node.open_peers = [make_peer(number) for number in range(5_000)]
        assert list(client.peers()) == node.open_peers
        node.open_peers = []
        assert list(client.peers()) == []


def test_ping(running: Path, node: Any, make_ping: Any) -> None:
    with Client(running) as client:
        assert client.ping("peer2") == make_ping()
        node.pings = [None, None, make_ping(handshake=True)]
        assert client.ping("100.64.0.2") == make_ping(handshake=True)
        with pytest.raises(Declined, match="nobody here is called nobody"):
            client.ping("nobody")
        assert client.status()["pid"] == 4321  # the connection lives on
    assert node.pinged == ["peer2", "100.64.0.2", "nobody"]


def test_a_ping_has_more_patience_than_the_node(running: Path, node: Any, make_ping: Any) -> None:
    """A handshake, then the ping itself: the node says how it went, and the client waits for that."""
    assert report.CONNECT_S + report.PING_S < PING_TIMEOUT_S
    node.pings = [*[None] * 30, make_ping()]
    with Client(running, timeout_s=0.2) as client:
        assert client.ping("peer2") == make_ping()


def test_the_patience_for_a_ping_is_for_pings(running: Path, node: Any, make_ping: Any) -> None:
    with Client(running, timeout_s=0.2) as client:
        client.ping("peer2")
        node.reload = lambda: itertools.repeat(None)
        with pytest.raises(Broken, match=r"within 0\.2 s"):
            client.reload()


def test_twenty_thousand_flows(running: Path, node: Any, make_flow: Any) -> None:
    node.open_flows = [make_flow(number) for number in range(20_000)]
    with Client(running) as client:
        assert [flow["id"] for flow in client.flows()] == list(range(20_000))


def test_several_clients_at_once(running: Path) -> None:
    with Client(running) as one, Client(running) as other:
        slow = one.flows()
        next(slow)
        assert other.status()["pid"] == 4321
        assert len(list(slow)) == 1


def test_declined(running: Path, node: Any) -> None:
    node.reload_error = "line 3: no such exit"
    with Client(running) as client:
        with pytest.raises(Declined, match="line 3: no such exit"):
            client.reload()
        assert client.status()["pid"] == 4321  # the connection lives on


@pytest.mark.parametrize("there", [True, False])
def test_not_running(tmp_path: Path, there: bool) -> None:
    state_dir = tmp_path if there else tmp_path / "missing"
    with pytest.raises(NotRunning, match="zignet up"), Client(state_dir):
        pass


def test_a_dead_socket_is_not_running(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "zignet.sock"))
    with pytest.raises(NotRunning), Client(tmp_path):
        pass


@pytest.mark.root
def test_another_users_node() -> None:
    """A directory that only root may enter, asked by nobody."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        state_dir = Path(folder) / "state"
        place = Place.claim(state_dir)
        code = _as_nobody(state_dir)
        place.close()
    assert code == 0


def _as_nobody(state_dir: Path) -> int:
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        try:
            with Client(state_dir):
                os._exit(1)
        except NotPermitted as error:
            os._exit(0 if "sudo" in str(error) else 2)
        except BaseException:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@contextmanager
def answering(state_dir: Path, answer: bytes, then_close: bool = True) -> Iterator[None]:
    """A server that gives the same bytes to the first question."""
    place = Place.claim(state_dir)
    place.listener.setblocking(True)
    finished = threading.Event()

    def serve() -> None:
        connection, _ = place.listener.accept()
        with connection:
            connection.recv(4096)
            try:
                connection.sendall(answer)
            except OSError:
                pass
            if not then_close:
                finished.wait(10)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join(10)
        place.close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "closed the connection"),
        (b'{"status":{}}\n', "closed the connection"),
        (b'{"end":true}\n', "no status"),
        (b"what?\n", "not an answer"),
        (b"[1]\n", "not an answer"),
        (b"\xff\n", "not an answer"),
        (b"x" * (2 << 20), "without end"),
        (json.dumps({"error": "no"}).encode() + b"\n", "^no$"),
    ],
)
def test_a_server_that_speaks_nonsense(tmp_path: Path, answer: bytes, says: str) -> None:
    expected = Declined if says == "^no$" else Broken
    with answering(tmp_path, answer), Client(tmp_path) as client, pytest.raises(expected, match=says):
        client.status()


def test_a_server_that_hangs(tmp_path: Path) -> None:
    with (
        answering(tmp_path, b'{"sta', then_close=False),
        Client(tmp_path, timeout_s=0.2) as client,
        pytest.raises(Broken, match=r"within 0\.2 s"),
    ):
        client.status()
