"""Nodes with peers start, stop, crash and come back; what cannot start says why."""

import os
import signal
import socket
import sqlite3
import sys
from contextlib import closing

import pytest
import yaml

from tests.lab.peers import Stream, eventually, servers, udp
from zignet.lab.hosts import PORT, Hosts
from zignet.lab.running import Running
from zignet.peers.store import NAME

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def net():
    with Hosts("a", "b") as hosts, servers(hosts["b"]):
        yield hosts


def running(host):
    return host.node is not None and host.node.process is not None and host.node.process.poll() is None


@pytest.fixture
def both(net):
    """Both nodes run, and talk."""
    for host in net:
        if not running(host):
            net.start(host.name)
    assert net["a"].reaches(net["a"].inner(net["b"]))
    yield net
    assert not any("Traceback" in host.node.log() for host in net)


@pytest.fixture
def neither(net):
    """No node runs."""
    for host in net:
        if running(host):
            assert host.node.stop() == 0
    return net


def answers(host, address, seconds=20.0):
    """The echo answers, sooner or later."""
    with udp(host, address, 0.2) as end:

        def once():
            try:
                end.send(b"there?")
                return end.recv(100) == b"there?"
            except OSError:
                return False

        return eventually(once, seconds)


def restart(net, *names, signal_number=signal.SIGTERM):
    for name in names:
        net[name].node.process.send_signal(signal_number)
        net[name].node.process.wait(10)
    for name in names:
        net.start(name)


def test_a_stop_restores_everything(neither):
    a, b = neither
    before = [host.namespace.snapshot() for host in neither]
    neither.start_all()
    assert a.reaches(a.inner(b))
    assert [host.namespace.snapshot() for host in neither] != before
    restart(neither, "a", "b", signal_number=signal.SIGKILL)  # the next start cleans up
    assert a.reaches(a.inner(b))
    assert [host.node.stop() for host in neither] == [0, 0]
    assert [host.namespace.snapshot() for host in neither] == before


@pytest.mark.parametrize(
    ("names", "how"),
    [("a", signal.SIGKILL), ("b", signal.SIGTERM), ("ab", signal.SIGKILL)],
    ids=["a-killed", "b-stopped", "both-killed"],
)
def test_traffic_recovers_after_a_restart(both, names, how):
    a, b = both
    addresses = [(host.inner(other), host.inner(other, 6)) for host, other in ((a, b), (b, a))]
    with Stream(a, addresses[0][0]) as stream:  # TCP outlives it: its kernels know nothing of nodes
        stream.goes_on(size=1 << 16)
        restart(both, *names, signal_number=how)
        assert answers(a, addresses[0][0])
        stream.goes_on(size=1 << 16)
    assert [(host.inner(other), host.inner(other, 6)) for host, other in ((a, b), (b, a))] == addresses


def test_a_peer_that_knows_nothing_any_more_is_called_again(both):
    """Nobody tells a that b was killed: it finds out after 15 s (protocol §5)."""
    a, b = both
    address = a.inner(b)
    restart(both, "b", signal_number=signal.SIGKILL)
    assert answers(a, address, seconds=25)


def test_a_peer_that_is_kept_alive_calls_when_it_is_back(both):
    a, b = both
    peers = [{"name": "a", "key": a.key, "endpoint": a.endpoint(), "keepalive": 25}]
    b.node.kill()
    both.start("b", peers=peers)
    assert answers(a, a.inner(b), seconds=5)


def test_a_clock_a_year_back(both):
    """Timestamps of handshakes never go back, whatever the clock does (protocol §3)."""
    a, b = both
    address = a.inner(b)
    a.node.stop()
    year = 365 * 86400
    program = (
        f"import time, sys; real = time.time, time.time_ns; time.time = lambda: real[0]() - {year}; "
        f"time.time_ns = lambda: real[1]() - {year} * 10**9; "
        f"from zignet.node import main; sys.exit(main(['--config', {str(a.node.config)!r}]))"
    )
    start_with(a, program)
    assert answers(a, address)
    assert not any(reason.startswith("handshake") for reason in b.status()["peers"]["dropped"])


def start_with(host, program):
    """The host's node as a program of its own."""
    with host.node.log_file.open("wb") as log:
        host.node.process = host.namespace.popen([sys.executable, "-c", program], stdout=log, stderr=log)
    eventually(lambda: "ready" in host.node.log())


def test_a_stopped_peer_is_not_waited_for(both):
    a, b = both
    b.node.stop()
    assert "b has said farewell" in a.node.log()
    eventually(lambda: a.peer(b)["state"] != "connected")


# --- what cannot start


def refused(node):
    """What `zignet up` says instead of starting, and its exit code."""
    done = node.namespace.run(node.command("up"), timeout_s=15)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_no_key(neither):
    node = Running(neither["a"].namespace, neither.directory / "keyless", yaml.safe_dump(neither.config("a")))
    code, said = refused(node)
    assert code == 3
    assert "zignet init" in said
    assert str(node.state_dir / "identity") in said


def test_a_key_that_others_can_read(neither):
    node = Running(neither["a"].namespace, neither.directory / "open", yaml.safe_dump(neither.config("a")))
    node.state_dir.mkdir()
    (node.state_dir / "identity").write_bytes((neither["a"].directory / "state/identity").read_bytes())
    (node.state_dir / "identity").chmod(0o644)
    code, said = refused(node)
    assert code == 3
    assert "chmod" in said


def test_the_port_is_taken(neither):
    before = neither["a"].namespace.snapshot()
    with neither["a"].namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
        other.bind(("::", PORT))
        code, said = refused(neither["a"].prepare(neither.config("a")))
    assert code == 1
    assert f"[::]:{PORT}" in said
    assert "another program" in said
    assert neither["a"].namespace.snapshot() == before


def test_a_broken_address_book(neither):
    """A file of addresses that cannot be read is put aside, and the person is told."""
    a, b = neither
    book = a.directory / "state" / NAME
    book.write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    neither.start_all()
    assert a.reaches(a.inner(b))
    assert NAME in a.node.log()
    assert a.node.stop() == b.node.stop() == 0
    with closing(sqlite3.connect(book)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
