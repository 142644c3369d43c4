"""The listener on real loopback."""

import resource
import socket
import subprocess
import sys

import pytest

from nat.listener import Listener
from nat.loop import Loop

pytestmark = pytest.mark.packet_path


@pytest.fixture(params=["127.0.0.1", "::1"], ids=["v4", "v6"])
def listening(request, loop):
    accepted = []
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    listener = Listener(loop, socket.inet_pton(family, request.param), lambda *what: accepted.append(what))
    yield listener, accepted, (request.param, listener.port)
    listener.close()
    for sock, _, _ in accepted:
        sock.close()
    loop.turn()


def test_hands_over_what_it_accepts(loop, listening):
    _, accepted, address = listening
    with socket.create_connection(address) as client:
        loop.until(lambda: accepted)
        sock, host, port = accepted[0]
        assert (host, port) == client.getsockname()[:2]
        assert sock.getpeername()[:2] == client.getsockname()[:2]
        assert not sock.getblocking()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_many_at_once(loop, listening):
    _, accepted, address = listening
    clients = [socket.create_connection(address) for _ in range(100)]
    loop.until(lambda: len(accepted) == 100)
    assert {port for _, _, port in accepted} == {client.getsockname()[1] for client in clients}
    for client in clients:
        client.close()


def test_after_its_end_nobody_is_accepted(loop, listening):
    listener, accepted, address = listening
    listener.close()
    loop.turn()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    assert accepted == []


def test_an_address_that_is_not_ours(loop, no_leak):
    with pytest.raises(OSError, match="assign"):
        Listener(loop, socket.inet_aton("192.0.2.1"), print)


def run_out_of_descriptors():
    """In a process of its own: connections wait while there are no descriptors, and are accepted later."""
    loop = Loop()
    accepted = []
    listener = Listener(loop, socket.inet_aton("127.0.0.1"), lambda *what: accepted.append(what))
    clients = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(4)]
    used = max(client.fileno() for client in clients)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 3, most))  # room for two more
    turns = []
    loop.call_later(0.3, loop.stop)
    loop.run()
    turns.append(len(accepted))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 30, most))
    loop.call_later(0.5, loop.stop)
    loop.run()
    turns.append(len(accepted))
    print(turns)


def test_without_descriptors_connections_wait():
    code = "from tests.nat.test_listener import run_out_of_descriptors as run; run()"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[2, 4]"
    assert 1 <= ran.stderr.count("raise LimitNOFILE") <= 8  # it pauses instead of spinning
