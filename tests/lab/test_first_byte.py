"""How often a request has to go to a peer's exit and back, on a link so long that nothing else counts."""

import pytest

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


def trips(net, name):
    """Of the connection, and until its first byte."""
    return [round(seconds / (2 * ONE_WAY) - 0.25) for seconds in net.first_byte(name)]


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
