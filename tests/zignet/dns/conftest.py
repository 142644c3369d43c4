"""A loop by hand, a name server with faults, and a resolver that asks it."""

import os
import time

import pytest

from nat.sockets import Underlay
from tests.nat.world import LabLoop
from zignet.dns.exchange import Exchange
from zignet.dns.hosts import Hosts
from zignet.dns.resolver import Resolver
from zignet.dns.upstreams import Upstreams
from zignet.lab.nameserver import NameServer

RECORDS = {
    "www.video.example": {"A": ["203.0.113.10"], "AAAA": ["2001:db8:4::10"]},
    "v4.example": {"A": ["203.0.113.20", "203.0.113.21"]},
    "v6.example": {"AAAA": ["2001:db8:4::20"]},
    "alias.example": {"CNAME": ["again.example."]},
    "again.example": {"CNAME": ["v4.example."]},
    "loop.example": {"CNAME": ["loop2.example."]},
    "loop2.example": {"CNAME": ["loop.example."]},
    "here.example": {"A": ["127.0.0.1"], "AAAA": ["::1"]},
    "svc.video.example": {"HTTPS": ["1 . alpn=h2 ipv4hint=192.0.2.1 echconfig=AAAA ipv6hint=2001:db8::1"]},
    "text.example": {"TXT": ['"hello"']},
}


@pytest.fixture
def loop(no_leak):
    made = LabLoop()
    yield made
    made.dispose()


@pytest.fixture
def server():
    with NameServer(RECORDS) as made:
        yield made


@pytest.fixture
def second():
    with NameServer(RECORDS) as made:
        yield made


@pytest.fixture
def exchange_with(loop):
    """An exchange that asks these servers."""
    made = []

    def make(*servers):
        upstreams = Upstreams([(server.address, server.port) for server in servers])
        made.append(Exchange(loop, Underlay(0), upstreams))
        return made[-1]

    yield make
    for exchange in made:
        exchange.close()
    loop.turn()


@pytest.fixture
def resolver_with(loop, exchange_with, tmp_path):
    """A resolver that asks these servers, with a hosts file of the test's own."""
    made = []

    def make(*servers, hosts=""):
        file = tmp_path / "hosts"
        file.write_text(hosts)
        made.append(Resolver(loop, exchange_with(*servers), Hosts(file)))
        return made[-1]

    yield make
    for resolver in made:
        resolver.close()


@pytest.fixture
def no_leak():
    """The test leaves as many descriptors open as it found."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    deadline = (
        time.monotonic() + 10
    )  # the name server's threads see the end of a connection in their own time
    while left := {
        fd for fd in set(os.listdir("/proc/self/fd")) - before if os.path.exists(f"/proc/self/fd/{fd}")
    }:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
