"""What the way between two nodes does to them: loss, small and shrinking MTUs, addresses that change, copies."""

import socket
import subprocess
import time

import pytest

from tests.lab.peers import Stream, bytes_round, eventually, ping, servers, udp
from zignet.lab.hosts import PORT, Hosts

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", params=[4, 6], ids=["over-v4", "over-v6"])
def net(request):
    with Hosts("a", "b", "c") as hosts:
        for name in ("a", "b"):
            hosts.start(name, version=request.param)
        hosts.version = request.param
        hosts.one_by_one()
        with servers(hosts["b"]):
            yield hosts


@pytest.fixture
def cable(net):
    """Whole, and of the usual MTU, before and after the test."""
    yield net
    net.lose(0)
    net.set_mtu(1500)


@pytest.fixture
def b(net):
    """The address of b on a."""
    return net["a"].inner(net["b"])


def path(net, of="b", on="a"):
    return net[on].peer(net[of])["path"]


def mtu(net, of="b", on="a"):
    return net[on].peer(net[of])["path_mtu"]


# --- loss


@pytest.mark.parametrize("net", [4], indirect=True, ids=["over-v4"])
@pytest.mark.parametrize(("share", "size"), [(0.01, 4 << 20), (0.1, 1 << 20), (0.3, 40 << 10)])
def test_tcp_moves_through_loss(cable, b, share, size):
    """With 30 % what one connection sends again may be lost six times in a row, a minute long; not so with three."""
    cable.lose(share, "a", "b")
    for tries_left in (2, 1, 0):
        try:
            assert bytes_round(cable["a"], b, size, seconds=36.0) == size
            break
        except TimeoutError:
            assert tries_left


@pytest.mark.parametrize("net", [4], indirect=True, ids=["over-v4"])
def test_a_handshake_gets_through_loss(cable):
    cable["a"].node.stop()
    cable.lose(0.3, "a", "b")
    cable.start("a", version=cable.version)
    assert cable["a"].reaches(cable["a"].inner(cable["b"]), within_s=90)


# --- sizes


def test_a_small_mtu(cable):
    """The least that IPv6 allows, from the beginning."""
    for name in "ab":
        cable[name].node.stop()
    cable.set_mtu(1280)
    for name in "ab":
        cable.start(name, version=cable.version)
    for version in (4, 6):
        inside = cable["a"].inner(cable["b"], version)
        assert cable["a"].reaches(inside)
        assert bytes_round(cable["a"], inside, 2 << 20) == 2 << 20
        assert ping(cable["a"], inside, "-s", "20000") == 1
    assert mtu(cable) == mtu(cable, "a", "b") == (1252 if cable.version == 4 else 1232)


def test_an_mtu_that_shrinks_during_a_transfer(cable, b):
    for name in "ab":
        cable[name].node.stop()
        cable.start(name, version=cable.version)
    assert cable["a"].reaches(b)
    eventually(lambda: mtu(cable) == (1472 if cable.version == 4 else 1452))
    with Stream(cable["a"], b) as stream:
        stream.goes_on()
        cable.set_mtu(1280)
        stream.goes_on()
        assert mtu(cable) <= 1252


# --- addresses


@pytest.mark.parametrize("who", ["a", "b"])
def test_an_address_that_changes_during_a_transfer(cable, b, who):
    """The other side learns it from the first datagram: the ping has it sent at once, and not after a time-out."""
    a, other = cable["a"], cable["b" if who == "a" else "a"]
    inside = cable[who].inner(other)
    pinging = cable[who].namespace.popen(["ping", "-q", "-i", "0.2", inside], stdout=subprocess.DEVNULL)
    with Stream(a, b) as stream:
        stream.goes_on()
        cable.move(who)
        stream.goes_on()
    pinging.terminate()
    assert other.peer(cable[who])["path"] == cable[who].endpoint(cable.version)


def copies(net, send, count):
    """What a sends to b by `send`, kept from b: `count` datagrams that are authentic, and new."""
    with net["a"].namespace.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as tap:
        tap.bind(("eth0", 0x0003))  # ETH_P_ALL: outgoing ones too
        tap.settimeout(3)
        net.lose(1, "b")
        send()
        taken = []
        header = 28 if net.version == 4 else 48
        while len(taken) < count:
            packet, (_, kind, direction, *_) = tap.recvfrom(2048)
            to_b = (
                packet[header - 6 : header - 4] == PORT.to_bytes(2, "big")
                and packet[header : header + 1] == b"\4"
            )
            if direction == 4 and kind in (0x0800, 0x86DD) and to_b:  # PACKET_OUTGOING
                taken.append(packet[header:])
        net.lose(0)
        return taken


def test_copies_from_elsewhere_do_not_move_the_path(cable, b):
    a, c = cable["a"], cable["c"]
    assert a.reaches(b)
    before = path(cable, "a", "b")
    time.sleep(0.6)  # a challenge was sent just now, and there is one in 0.5 s
    with udp(a, b) as end, c.namespace.socket(family_of(cable), socket.SOCK_DGRAM) as thief:
        taken = copies(cable, lambda: [end.send(b"x" * 600) for _ in range(20)], 20)
        to = cable["b"].address if cable.version == 4 else cable["b"].address6
        for copy in taken:
            thief.sendto(copy, (to, PORT))
        heard = received(thief)
        assert [datagram[0] for datagram in heard] == [4]  # a challenge, which only a can answer
        assert sum(map(len, heard)) <= 3 * sum(map(len, taken))
        for copy in taken:  # once more: now these are replayed
            thief.sendto(copy, (to, PORT))
        assert received(thief) == []
    assert path(cable, "a", "b") == before
    assert cable["b"].status()["peers"]["dropped"]["replayed or too old"] >= 20
    with udp(a, b) as end:
        end.send(b"still here")
        assert end.recv(100) == b"still here"


def family_of(net):
    return socket.AF_INET if net.version == 4 else socket.AF_INET6


def received(end, seconds=0.7):
    """All that comes within some time."""
    heard = []
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        end.settimeout(left)
        try:
            heard.append(end.recv(2048))
        except TimeoutError:
            break
    return heard


def test_no_fault_was_logged(net):
    for name in "ab":
        assert "Traceback" not in net[name].node.log()
        assert "internal error" not in net[name].status()["totals"]["dropped"]
