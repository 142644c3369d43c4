"""Machines on one cable: the cable does what it is told, and a node can be configured for it."""

import socket
import stat
import struct
from pathlib import Path

import pytest
import yaml

from tests.lab.peers import bytes_round, servers
from zignet.lab.hosts import Hosts

pytestmark = pytest.mark.root

UDP_SEGMENT, UDP_GRO = 103, 104
TRAINS, TRAIN, SIZE = 20, 40, 1000
PINGS = 300


@pytest.fixture(scope="module")
def pair():
    with Hosts("a", "b") as hosts:
        yield hosts


@pytest.fixture
def cable(pair):
    """The pair's; whole again after the test."""
    yield pair
    pair.lose(0)
    pair.set_mtu(1500)


def answered(host, address, *options):
    """How many of `PINGS` come back."""
    done = host.namespace.run(["ping", "-q", "-c", str(PINGS), "-i", "0.002", "-W", "1", *options, address])
    return int(done.stdout.partition(" received")[0].rpartition(" ")[2])


def arrived(hosts):
    """The sizes in which datagrams come out that went in as trains."""
    near, far = hosts
    with (
        far.namespace.socket(kind=socket.SOCK_DGRAM) as to,
        near.namespace.socket(kind=socket.SOCK_DGRAM) as end,
    ):
        to.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
        to.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        to.bind((far.address, 5000))
        to.settimeout(0.2)
        for _ in range(TRAINS):
            end.sendmsg(
                [bytes(TRAIN * SIZE)],
                [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", SIZE))],
                0,
                (far.address, 5000),
            )
        sizes = []
        try:
            while True:
                sizes.append(len(to.recv(1 << 16)))
        except TimeoutError:
            return sizes


def test_two_machines_reach_each_other(pair):
    a, b = pair
    assert a.reaches(b.address)
    assert b.reaches(a.address6)


def test_three_machines_reach_each_other():
    with Hosts("a", "b", "c", mtu=1280) as hosts:
        a, b, c = hosts
        assert a.reaches(b.address)
        assert b.reaches(c.address6)
        assert c.reaches(a.address)
        assert answered(c, a.address, "-c1", "-M", "do", "-s", "1252") == 1
        assert answered(c, a.address, "-c1", "-M", "do", "-s", "1253") == 0
    assert not any(Path("/run/netns", space.name).exists() for space in hosts.namespaces)
    assert not hosts.directory.exists()


def test_the_mtu_can_be_changed(cable):
    a, b = cable
    cable.set_mtu(1300)
    assert answered(a, b.address, "-c1", "-M", "do", "-s", "1273") == 0
    cable.set_mtu(1500)
    assert answered(a, b.address, "-c1", "-M", "do", "-s", "1273") == 1


@pytest.mark.parametrize("family", ["address", "address6"])
def test_both_directions_lose(cable, family):
    a, b = cable
    cable.lose(0.3)
    assert 0.3 < answered(a, getattr(b, family)) / PINGS < 0.7  # 0.49, give or take seven deviations
    cable.lose(0)
    assert answered(a, getattr(b, family)) == PINGS


def test_one_machine_can_be_cut_off(cable):
    a, b = cable
    cable.lose(1, "b")
    assert not a.reaches(b.address, within_s=0.1)


def test_datagrams_of_a_train_are_lost_one_by_one(cable):
    cable.lose(0.1)
    sizes = arrived(cable)
    assert set(sizes) == {SIZE}
    assert TRAINS * TRAIN * 0.8 < len(sizes) < TRAINS * TRAIN


def test_a_machine_moves_and_comes_back(cable):
    a, b = cable
    before = b.namespace.snapshot()
    old = b.address
    cable.move("b")
    assert b.address != old
    assert a.reaches(b.address)
    assert a.reaches(b.address6)
    assert not a.reaches(old, within_s=0.1)
    cable.move("b")
    assert b.namespace.snapshot() == before


def test_the_configuration_of_a_node(cable):
    a, b = cable
    node = a.prepare(cable.config("a", version=6, cipher="chacha20"))
    config = yaml.safe_load(node.config.read_text())
    assert config["peers"] == [{"name": "b", "key": b.key, "endpoint": "[2001:db8::2]:51830"}]
    assert config["inbound"]["allow"] == [b.key]
    assert config["cipher"] == "chacha20"
    assert a.namespace.run(node.command("check")).returncode == 0
    assert stat.S_IMODE((node.state_dir / "identity").stat().st_mode) == 0o600
    assert cable.config("b")["peers"][0]["key"] == a.key  # the same at each look


def round_trip(host, address):
    """The shortest of five, in milliseconds."""
    done = host.namespace.run(["ping", "-q", "-c", "5", "-i", "0.1", address])
    return float(done.stdout.rpartition(" = ")[2].partition("/")[0])


def test_a_cable_with_a_delay():
    with Hosts("a", "b", "c") as hosts:
        a, b, c = hosts
        hosts.delay("a", 0.05)
        assert round_trip(a, b.address) >= 100
        assert round_trip(a, b.address6) >= 100
        assert round_trip(b, c.address) < 100
        with servers(b):
            assert bytes_round(a, b.address, 8 << 20) == 8 << 20
