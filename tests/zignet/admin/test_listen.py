"""The sockets of the API, in a namespace."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.peers import eventually
from zignet.admin.listen import ADMIN_SOCKET, admin_listeners
from zignet.cli.serve import _listeners
from zignet.lab.namespace import Namespace, join

pytestmark = pytest.mark.root


@pytest.fixture
def pair():
    """here 192.0.2.1 ── 192.0.2.2 there"""
    with Namespace("here") as here, Namespace("there") as there:
        join(here, "eth0", there, "eth0")
        here.address("eth0", "192.0.2.1/24", "2001:db8::1/64")
        there.address("eth0", "192.0.2.2/24", "2001:db8::2/64")
        eventually(lambda: is_there(here, "2001:db8::1") and is_there(there, "2001:db8::2"), 20)
        yield here, there


def is_there(namespace: Namespace, address: str) -> bool:
    """IPv6 waits for the carrier."""
    with namespace.socket(socket.AF_INET6) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
    return True


def test_who_reaches_them(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    here, there = pair
    notes: list[str] = []
    addresses = ["192.0.2.1", "2001:db8::1", "198.51.100.9"]
    made = here.call(admin_listeners, tmp_path, addresses, notes.append)
    try:
        assert len(made) == 3
        assert len(notes) == 1
        assert "198.51.100.9" in notes[0]
        path = tmp_path / ADMIN_SOCKET
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(str(path))
        for address in addresses[:2]:
            with here.connect(address, 80) as end:
                assert end.getpeername()[0] == end.getsockname()[0] == address
            with pytest.raises(TimeoutError):
                there.connect(address, 80, timeout_s=1.5)
    finally:
        for each in made:
            each.close()


def test_a_service_for_others_on_the_same_port(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    """`zignet serve` for who comes by the device, the API for this host, and each alone before and after."""
    here, there = pair
    for address in ("192.0.2.1", "2001:db8::1"):
        unix, api = here.call(admin_listeners, tmp_path, [address])
        (service,) = here.call(_listeners, "eth0", [address], 80)
        service.setblocking(False)
        try:
            for _ in range(20):
                with here.connect(address, 80) as end:
                    assert accepted(api) == end.getsockname()[:2]
                with there.connect(address, 80) as end:
                    assert accepted(service) == end.getsockname()[:2]
            service.close()
            here.connect(address, 80).close()
            assert accepted(api)
            with pytest.raises(TimeoutError):
                there.connect(address, 80, timeout_s=1.5)
        finally:
            for each in (unix, api, service):
                each.close()


def accepted(listener: socket.socket) -> tuple[str, int]:
    """Who has connected here."""
    found = eventually(lambda: try_accept(listener), 20)
    found[0].close()
    return tuple(found[1][:2])


def try_accept(listener: socket.socket):
    try:
        return listener.accept()
    except BlockingIOError:
        return None


def test_the_port_is_taken(pair: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    here, _ = pair
    notes: list[str] = []
    with here.socket() as other:
        other.bind(("0.0.0.0", 80))
        other.listen()
        made = here.call(admin_listeners, tmp_path, ["192.0.2.1"], notes.append)
        assert len(made) == 1
        assert "in use" in notes[0]
        assert ADMIN_SOCKET in notes[0]
        made[0].close()


def test_a_socket_that_was_left_behind(tmp_path: Path) -> None:
    for _ in range(2):
        (made,) = admin_listeners(tmp_path, [])
        made.close()
    (tmp_path / ADMIN_SOCKET).unlink()
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    (made,) = admin_listeners(deep, [])  # longer than a unix address may be
    made.close()


def test_the_packet_process_loads_no_server() -> None:
    """What it needs to make the sockets, and the token, is small."""
    code = (
        "import sys, zignet.admin.listen, zignet.admin.token\n"
        "print({'sanic', 'asyncio', 'prometheus_client', 'uvloop'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
