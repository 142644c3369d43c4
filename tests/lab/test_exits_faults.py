"""An exit that is killed under live flows, on real kernels: the errors that applications see, and how it goes on.

app ── sealed ── exit ── web 192.0.2.3
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6

from tests.lab.peers import ECHO, eventually, ping, servers, udp
from tests.lab.test_exits import ANSWERS, ROUTES, begin, connect, ending, exit_flows, fake
from zignet.lab.hosts import Hosts

pytestmark = pytest.mark.root

LOCAL = ["203.0.113.192/26", "2001:db8:5::/64"]  # of the exit, without being on an interface
IP_MTU_DISCOVER, IP_MTU, IPV6_MTU_DISCOVER, IPV6_MTU, PMTUDISC_DO = 10, 14, 23, 24, 2  # linux/in.h, in6.h
TOLD = 7010
TRICKLE = 7009  # a server that says something now and then, and hears nothing


@pytest.fixture(scope="module")
def net():
    with Hosts("app", "exit", "web") as hosts:
        begin(hosts, "app", routes=ROUTES)
        begin(hosts, "exit", exit={"allow": ["app"]})
        with servers(hosts["web"]), trickle(hosts["web"]):
            eventually(lambda: connect(hosts, "www.example", ECHO) == 0, 20.0)
            yield hosts


@contextlib.contextmanager
def trickle(host):
    listener = host.namespace.socket(socket.AF_INET6)
    listener.bind(("::", TRICKLE))
    listener.listen()

    def say(end):
        with end, contextlib.suppress(OSError):
            while True:
                end.sendall(b".")
                time.sleep(0.1)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                end, _ = listener.accept()
                threading.Thread(target=say, args=(end,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def outcome(end):
    """How a stream that only listens ends: an errno, or 0."""
    try:
        while end.recv(100):
            pass
    except TimeoutError:
        return errno.ETIMEDOUT
    except OSError as error:
        return error.errno
    return 0


def test_an_exit_is_killed_and_comes_back(net):
    app, exit_ = net["app"], net["exit"].node
    begun = app.node.process.pid
    talking = app.namespace.connect(fake("www.example"), ECHO, timeout_s=90.0)
    listening = [
        app.namespace.connect(fake("www.example", version), TRICKLE, timeout_s=90.0) for version in (4, 6)
    ]
    datagrams = udp(app, fake("www.example"), timeout_s=1.0)
    with talking, listening[0], listening[1], datagrams:
        assert ending(talking) == "on"
        assert all(end.recv(1) == b"." for end in listening)
        assert answered(datagrams)
        exit_.kill()
        killed = time.monotonic()
        assert ending(talking) == "reset"  # its kernel repeats the segment, until one is answered
        assert [outcome(end) for end in listening] == [errno.ECONNRESET] * 2
        told_s = time.monotonic() - killed
        assert 15.0 < told_s < 60.0
        # Who begins now hears within seconds that the host can't be reached.
        asked = time.monotonic()
        assert connect(net, "www.example", ECHO) == errno.EHOSTUNREACH
        assert time.monotonic() - asked < 14.0
        assert not answered(datagrams)
        begin(net, "exit", exit={"allow": ["app"]})
        eventually(lambda: connect(net, "www.example", ECHO) == 0, 30.0)
        eventually(lambda: answered(datagrams), 30.0)
        with app.namespace.connect(fake("www.example"), ECHO, timeout_s=20.0) as end:
            assert ending(end) == "on"
    assert app.node.process.pid == begun
    assert app.node.process.poll() is None


def answered(end):
    try:
        end.send(b"datagram")
        return end.recv(100) == b"datagram"
    except OSError:  # in vain, or an ICMP error about an earlier one
        return False


def test_an_exit_that_is_restarted_at_once(net):
    """Nobody has missed it for long; the streams of before are reset by the new one, and a connect waits a moment."""
    app, exit_ = net["app"], net["exit"].node
    talking = app.namespace.connect(fake("www.example"), ECHO, timeout_s=60.0)
    listening = app.namespace.connect(fake("www.example"), TRICKLE, timeout_s=60.0)
    with talking, listening:
        assert ending(talking) == "on"
        exit_.kill()
        begin(net, "exit", exit={"allow": ["app"]})
        assert connect(net, "www.example", ECHO) == 0
        assert ending(talking) == "reset"
        assert outcome(listening) == errno.ECONNRESET


def test_an_exit_that_stops_says_so(net):
    """`zignet down`, a reboot: its streams are reset at once, those that only listen too."""
    app, exit_ = net["app"], net["exit"].node
    listening = app.namespace.connect(fake("www.example", 6), TRICKLE, timeout_s=60.0)
    with listening:
        assert listening.recv(1) == b"."
        exit_.stop()
        stopped = time.monotonic()
        assert outcome(listening) == errno.ECONNRESET
        assert time.monotonic() - stopped < 14.0
    begin(net, "exit", exit={"allow": ["app"]})
    eventually(lambda: connect(net, "www.example", ECHO) == 0, 30.0)


@pytest.mark.parametrize("name", ["own.example", "anyip.example", "loop.example"])
def test_an_exit_serves_nobody_what_is_its_own(net, name):
    """It has servers at these addresses, which its own programs reach; a peer's flows do not, TCP or UDP."""
    host = net["exit"].namespace
    for prefix in LOCAL:
        host.run(["ip", "route", "replace", "local", prefix, "dev", "lo"])
    address = ANSWERS[name][0]
    with servers(net["exit"]):
        with host.connect(address, ECHO, timeout_s=20.0) as end:
            assert ending(end) == "on"
        for version in (4, 6):
            assert connect(net, name, ECHO, version) == errno.ECONNREFUSED
            with udp(net["app"], fake(name, version), timeout_s=15.0) as end:
                end.send(b"x")
                with pytest.raises(OSError, match=r"No route to host|Permission denied"):
                    end.recv(100)  # "administratively prohibited", as kernels say it


@pytest.mark.parametrize("version", [4, 6])
def test_the_address_among_them_that_may_be_dialled_is(net, version):
    assert connect(net, "mixed.example", ECHO, version) == 0
    with udp(net["app"], fake("mixed.example", version), timeout_s=15.0) as end:
        end.send(b"x")
        assert end.recv(100) == b"x"


@pytest.mark.parametrize("version", [4, 6])
def test_a_way_behind_the_exit_that_is_too_narrow(net, version):
    """A router there says so by ICMP: the application's kernel believes it, and datagrams arrive all the same."""
    app, exit_, web = (net[name].namespace for name in ("app", "exit", "web"))
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    level, discover, mtu = (
        (socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_MTU)
        if version == 6
        else (socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_MTU)
    )
    far = web.socket(family, socket.SOCK_DGRAM)
    far.bind(("::" if version == 6 else "0.0.0.0", TOLD))
    far.settimeout(15.0)
    near = app.socket(family, socket.SOCK_DGRAM)
    near.settimeout(15.0)
    near.connect((fake("www.example", version), TOLD))
    with far, near:
        near.setsockopt(level, discover, PMTUDISC_DO)
        near.send(bytes(1350))
        data, sender = far.recvfrom(65536)
        own = ANSWERS["www.example"][version == 6]
        too_large = narrow(own, sender[:2], len(data))
        kind = socket.IPPROTO_ICMPV6 if version == 6 else socket.IPPROTO_ICMP
        with web.socket(family, socket.SOCK_RAW, kind) as raw:

            def told():
                raw.sendto(too_large, (sender[0], 0))
                with contextlib.suppress(OSError):
                    return near.getsockopt(level, mtu) == 1300
                return False

            eventually(told, 20.0)

        def goes(size):  # several were told, and each is an error of whatever is sent next
            with contextlib.suppress(OSError):
                near.send(bytes(size))
                return True
            return False

        eventually(lambda: goes(1200))
        assert len(far.recv(65536)) == 1200
        assert not any(goes(1350) for _ in range(3))
    exit_.run(["ip", "route", "flush", "cache"])


def narrow(own, exit_, size):
    """ICMP "too big", of a router with an MTU of 1300, about a datagram of so many bytes from the exit."""
    if ":" in own:
        quoted = IPv6(src=exit_[0], dst=own) / UDP(sport=exit_[1], dport=TOLD, len=size + 8)
        return bytes(IPv6(src=own, dst=exit_[0]) / ICMPv6PacketTooBig(mtu=1300) / quoted)[40:]
    quoted = IP(src=exit_[0], dst=own) / UDP(sport=exit_[1], dport=TOLD, len=size + 8)
    return bytes(ICMP(type=3, code=4, nexthopmtu=1300) / quoted)


def test_one_peer_does_not_get_all_flows(net):
    """Its share of TCP, and of UDP; another one as soon as one has ended."""
    app, exit_ = net["app"].namespace, net["exit"].node
    exit_.stop()
    few = {"half_open": 40, "udp": 80}  # 20 and 20
    begin(net, "exit", exit={"allow": ["app"]}, limits=few)
    eventually(lambda: connect(net, "www.example", ECHO) == 0, 30.0)
    eventually(lambda: not [flow for flow in exit_flows(net) if flow["ended_s"] is None], 20.0)
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(app.connect(fake("www.example"), ECHO, 20.0)) for _ in range(20)]
        assert connect(net, "www.example", ECHO) == errno.ECONNREFUSED
        sockets = [stack.enter_context(udp(net["app"], fake("www.example"), 15.0)) for _ in range(20)]
        assert all(answered(end) for end in sockets)
        more = stack.enter_context(udp(net["app"], fake("www.example"), 15.0))
        more.send(b"x")
        with pytest.raises(OSError, match=r"No route to host|Permission denied"):
            more.recv(100)
        assert all(ending(end) == "on" for end in ends)
        ends[0].close()
        eventually(lambda: connect(net, "www.example", ECHO) == 0, 20.0)
    net["exit"].node.stop()
    begin(net, "exit", exit={"allow": ["app"]})
    eventually(lambda: connect(net, "www.example", ECHO) == 0, 30.0)


@pytest.mark.parametrize("version", [4, 6])
def test_a_ping_is_answered_at_home(net, version):
    """It shows that the name leads here, and nothing of the far end: the exit dials TCP and UDP, and is not asked."""
    before = len(exit_flows(net))
    assert ping(net["app"], fake("nowhere.example", version)) == 1
    assert len(exit_flows(net)) == before
