"""One identity on two devices at once: the newest wins, and both are told."""

import pytest

from tests.lab.peers import eventually, ping
from zignet.identity import write_key
from zignet.lab.hosts import Hosts

pytestmark = pytest.mark.root

PUT_OFF = "another device with this node's key has connected there"
TAKEN_OVER = "another device has taken over"


@pytest.fixture(scope="module")
def net():
    """a, and two devices of one key: b and c."""
    with Hosts("a", "b", "c") as hosts:
        a, b, c = hosts
        state = c.directory / "state"
        state.mkdir(parents=True)
        write_key(state / "identity", b.secret)
        c.secret = b.secret
        hosts.start("a", peers=[{"name": "b", "key": b.key}])
        for name in ("b", "c"):
            peers = [{"name": "a", "key": a.key, "endpoint": a.endpoint(), "keepalive": 1}]
            hosts.start(name, peers=peers, inbound={"default_action": "deny"})
        yield hosts
        assert not any("Traceback" in host.node.log() for host in hosts)


def is_at(net, host):
    """Whether a talks to this device."""
    return net["a"].peer(net["b"])["path"] == host.endpoint()


def test_the_newest_wins_and_both_are_told(net):
    a, b, c = net
    first, second = (
        (b, c) if is_at(net, c) else (c, b)
    )  # both have called at their start: the first was put off
    for number, (older, newer) in enumerate(((second, first), (first, second)), 1):
        told = older.node.log().count(PUT_OFF)
        noted = a.node.log().count(TAKEN_OVER)
        assert newer.reaches(newer.inner(a))  # its user wants it
        assert is_at(net, newer), number
        eventually(lambda: older.node.log().count(PUT_OFF) > told)
        assert a.node.log().count(TAKEN_OVER) > noted
        assert ping(a, a.inner(b)) == 1


def test_who_was_put_off_does_not_come_back_by_itself(net):
    """Its keepalive of a second does not begin a handshake."""
    a, b, c = net
    newer, older = (b, c) if is_at(net, b) else (c, b)
    handshakes = a.status()["peers"]["handshakes"]
    with pytest.raises(AssertionError):
        eventually(lambda: is_at(net, older), seconds=3)
    assert a.status()["peers"]["handshakes"] == handshakes
    assert older.peer(a)["state"] == "idle"
    assert ping(newer, newer.inner(a)) == 1
