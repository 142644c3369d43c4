"""What the kernel says of this host's connections: real sockets on loopback."""

from __future__ import annotations

import contextlib
import socket
from ipaddress import ip_network

import pytest

from tests.lab.peers import eventually
from zignet.peers import streams as module
from zignet.peers.streams import streams

POOL4, POOL6 = ip_network("127.198.19.0/24"), ip_network("::1/128")


@pytest.fixture
def listener():
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as made:
        yield made


@pytest.mark.parametrize("host", ["127.198.19.7", "::ffff:127.198.19.7", "::1"])
def test_a_connection_is_found_by_its_target(listener, host):
    port = listener.getsockname()[1]
    with contextlib.closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as end:
        end.connect((host, port))
        near = end.getsockname()[1]
        (found,) = [each for each in streams(POOL4, POOL6) if each.source_port == near]
        assert found.target == (bytes((127, 198, 19, 7)) if "127" in host else bytes(15) + b"\1")
        assert found.source == (bytes((127, 0, 0, 1)) if "127" in host else bytes(15) + b"\1")
        assert found.target_port == port
        assert streams(ip_network("127.198.20.0/24")) == []


def test_how_long_it_has_received_nothing(listener):
    with socket.create_connection(("127.198.19.7", listener.getsockname()[1])) as end:
        near, (far, _) = end.getsockname()[1], listener.accept()

        def idle_s():
            return next(each.idle_s for each in streams(POOL4) if each.source_port == near)

        with far:
            eventually(lambda: idle_s() > 0.5)
            far.send(b"x")
            eventually(lambda: idle_s() < 0.5)


def test_who_only_listens_or_begins_is_not_among_them(listener):
    assert listener.getsockname()[1] not in {each.source_port for each in streams(ip_network("::/0"))}


def test_many_do_not_fit_one_message(listener):
    listener.listen(400)
    with contextlib.ExitStack() as stack:
        ends = [
            stack.enter_context(socket.create_connection(("127.198.19.7", listener.getsockname()[1])))
            for _ in range(300)
        ]
        ports = {end.getsockname()[1] for end in ends}
        assert ports <= {each.source_port for each in streams(POOL4)}


def test_a_kernel_that_does_not_tell(monkeypatch):
    monkeypatch.setattr(module, "NETLINK_SOCK_DIAG", 31)  # no such family
    assert streams(POOL4) == []
    monkeypatch.undo()
    monkeypatch.setattr(module, "SOCK_DIAG_BY_FAMILY", 99)  # no such request
    assert streams(POOL4) == []
