"""The API at real sockets, in front of a packet process that is only its control service."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sanic import Sanic

from nat.loop import Loop
from tests.zignet.conftest import SAMPLE_STATUS, SampleNode, sample_peer
from zignet.admin.app import create_app, create_servers
from zignet.admin.node import NodeClient
from zignet.control import handler_for
from zignet.control.service import Adopted
from zignet.identity import SecretKey

Sanic.test_mode = True  # so that there can be several applications in a process, one after the other

OWN, FRIEND, GUEST, STRANGER = (SecretKey(bytes([number]) * 32).public for number in range(1, 5))
TOKEN = "a-token-of-this-test-and-of-no-other-0123456"


class RealKeys(SampleNode):
    """The sample, with keys that are keys."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: Any = SAMPLE_STATUS | {"identity": SAMPLE_STATUS["identity"] | {"key": OWN.name}}
        self.open_peers = [
            sample_peer(2, name="friend", key=FRIEND.name),
            sample_peer(1, name="guest", key=GUEST.name, state="idle", path=""),
        ]
        self.earlier_peers = [
            sample_peer(9, name="", key=STRANGER.name, configured=False, state="idle", path="")
        ]

    def status(self) -> Any:
        return self.shown


@pytest.fixture
def node() -> RealKeys:
    return RealKeys()


class Answer:
    """Of HTTP."""

    def __init__(self, text: bytes) -> None:
        head, _, self.body = text.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(status.split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """Which every failure has."""
        assert self.headers["content-type"] == "application/json"
        (sentence,) = self.json.values()
        return str(sentence)


class Served:
    """A running API."""

    def __init__(self, unix: Path, port: int) -> None:
        self.unix = unix
        self.port = port
        self.host = f"127.0.0.1:{port}"
        self.app: Any = None

    def connect(self, tcp: bool = False) -> socket.socket:
        if tcp:
            return socket.create_connection(("127.0.0.1", self.port), 20)
        end = socket.socket(socket.AF_UNIX)
        end.settimeout(20)
        end.connect(str(self.unix))
        return end

    def raw(self, text: bytes, tcp: bool = False) -> bytes:
        """All that comes back until the other end hangs up."""
        with self.connect(tcp) as end:
            end.sendall(text)
            return to_the_end(end)

    def ask(
        self, path: str, method: str = "GET", tcp: bool = False, body: bytes = b"", **headers: str
    ) -> Answer:
        """One request on a connection of its own. A header's underscores are hyphens."""
        lines = {"host": self.host if tcp else "admin.zignet", "connection": "close"}
        lines |= {name.replace("_", "-"): value for name, value in headers.items()}
        if body:
            lines["content-length"] = str(len(body))
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return Answer(self.raw(f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode() + body, tcp))


def to_the_end(end: socket.socket) -> bytes:
    heard = b""
    try:
        while more := end.recv(1 << 16):
            heard += more
    except ConnectionResetError:
        pass
    return heard


@contextmanager
def packet_process(node: Any, connections: int = 4) -> Iterator[list[socket.socket]]:
    """The real control service over a node; the other ends of its connections."""
    loop = Loop()
    pairs = [socket.socketpair() for _ in range(connections)]
    adopted = [Adopted(loop, ours, handler_for(node, lambda: node.dns)) for ours, _ in pairs]
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield [theirs for _, theirs in pairs]
    finally:
        loop.stop()
        thread.join()
        for one in adopted:
            one.close()
        loop.dispose()


@contextmanager
def api(directory: Path, node: Any, **parts: Any) -> Iterator[Served]:
    """An API on a unix socket and a port of 127.0.0.1, in a thread."""
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(directory / "admin.sock"))
    tcp = socket.create_server(("127.0.0.1", 0))
    unix.listen()
    served = Served(directory / "admin.sock", tcp.getsockname()[1])
    state = SimpleNamespace(ready=threading.Event(), stop=None, loop=None, error=None)

    async def main(questions: list[socket.socket]) -> None:
        client = await NodeClient.open(questions)
        served.app = create_app(client, token=TOKEN, **parts)
        servers = await create_servers(served.app, [unix, tcp])
        state.loop, state.stop = asyncio.get_running_loop(), asyncio.Event()
        state.ready.set()
        await state.stop.wait()
        await servers.close()
        client.close()

    def run(questions: list[socket.socket]) -> None:
        try:
            asyncio.run(main(questions))
        except BaseException as error:
            state.error = error
            state.ready.set()

    with packet_process(node) as questions:
        thread = threading.Thread(target=run, args=(questions,))
        thread.start()
        assert state.ready.wait(30)
        try:
            if state.error is not None:
                raise state.error
            served.app.ctx.test_loop = state.loop
            yield served
        finally:
            if state.stop is not None:
                state.loop.call_soon_threadsafe(state.stop.set)
            thread.join(30)
    assert state.error is None


@pytest.fixture
def served(tmp_path: Path, node: Any) -> Iterator[Served]:
    with api(tmp_path, node) as running:
        yield running
