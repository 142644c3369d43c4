"""How often a request has to go to a peer's exit and back, on a link so long that nothing else counts."""

import socket

import pytest

from tests.lab.peers import CLOSED
from zignet.lab.regions import EDITIONS, Regions

pytestmark = pytest.mark.root

ONE_WAY = 0.4  # seconds
TRIES = 3  # on a busy machine one may be late by a whole trip


@pytest.fixture(scope="module")
def net():
    with Regions() as regions:
        regions.delay("laptop", ONE_WAY)
        for address in (f"192.0.2.{EDITIONS['here']}", regions["peer_us"].address):
            assert regions["laptop"].reaches(address)  # ARP asks once, and that is a trip of its own
        regions.up()
        yield regions


def trips(net, name, *options):
    """Of the connection, and until its first byte."""
    return [round(seconds / (2 * ONE_WAY) - 0.25) for seconds in net.first_byte(name, "laptop", *options)]


def test_the_first_byte_costs_what_tcp_costs_anyway(net):
    """The name goes with the SYN, and the exit's answer is the SYN-ACK: one round trip; the request is the second."""
    for name in ("www.plain.example", "www.video.example"):
        assert [1, 2] in (trips(net, name) for _ in range(TRIES))


def test_a_session_costs_one_more_and_once(net):
    node = net["laptop"].node

    def cold():
        node.stop()
        node.start()
        net.wait_for_names()
        return trips(net, "www.video.example")

    assert [2, 3] in (cold() for _ in range(TRIES))


def test_data_in_the_syn_saves_one(net):
    """TCP Fast Open (RFC 7413), which both hosts must allow: the name and the request go together."""
    name, laptop, peer = "www.video.example", net["laptop"].namespace, net["peer_us"].namespace
    trips(net, name)  # a session
    laptop.sysctl("net.ipv4.tcp_fastopen", 5)  # clients, without a cookie
    try:
        assert trips(net, name, "--tcp-fastopen") == [0, 2]  # the exit's system does not allow it
        peer.sysctl("net.ipv4.tcp_fastopen", 3)  # servers
        assert [0, 1] in (trips(net, name, "--tcp-fastopen") for _ in range(TRIES))
        with laptop.socket() as end:  # and a site that refuses: the next look says so
            end.settimeout(20)
            end.sendto(b"early", socket.MSG_FASTOPEN, (net.address(name), CLOSED))
            with pytest.raises(ConnectionRefusedError):
                end.recv(1)
    finally:
        for namespace in (laptop, peer):
            namespace.sysctl("net.ipv4.tcp_fastopen", 1)
