"""Honest connect, blocked flows, and exits that misbehave: the application is told the truth, and soon."""

import contextlib
import errno
import socket
import struct
import threading
import time

import pytest

from zignet.lab.internet import OFFICE, TOKYO
from zignet.lab.namespace import start_module

pytestmark = pytest.mark.root

SOON_S = 3.0
NO_ROUTE = "198.51.100.200"  # the router answers: net unreachable
NOBODY = "203.0.113.222"  # on the origins' wire, but nobody has it: host unreachable after the router's ARP
VOID = "198.51.100.250"  # the router swallows it


@pytest.fixture(scope="module", autouse=True)
def void(net):
    net.router.netlink(lambda ip: ip.route("add", dst=f"{VOID}/32", type="blackhole"))
    net.router.sysctl("net.ipv4.neigh.origin.mcast_solicit", 1)


@contextlib.contextmanager
def elapsed_at_most(seconds):
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < seconds


@pytest.mark.parametrize(
    ("exit_", "host", "error"),
    [
        ("direct", "203.0.113.30", errno.ECONNREFUSED),
        ("tokyo", "203.0.113.30", errno.ECONNREFUSED),
        ("direct", "2001:db8:4::30", errno.ECONNREFUSED),
        ("tokyo", "2001:db8:4::30", errno.ECONNREFUSED),
        ("direct", NO_ROUTE, errno.ENETUNREACH),
        ("tokyo", NO_ROUTE, errno.ENETUNREACH),
        ("direct", NOBODY, errno.EHOSTUNREACH),
        ("tokyo", NOBODY, errno.EHOSTUNREACH),
    ],
)
def test_connect_tells_why(net, engine, exit_, host, error):
    engine([f"MATCH,{exit_}"])
    with elapsed_at_most(8), pytest.raises(OSError) as caught:  # noqa: PT011
        net.host.connect(host, 81, timeout_s=8)
    assert caught.value.errno == error


@pytest.mark.parametrize("exit_", ["direct", "tokyo", "office"])
def test_silence_is_silence(net, engine, exit_):
    engine([f"MATCH,{exit_}"])
    with pytest.raises(TimeoutError):
        net.host.connect(VOID, 80, timeout_s=1.5)


def test_an_http_proxy_that_cannot_connect(net, engine):
    engine(["MATCH,office"])
    with elapsed_at_most(SOON_S), pytest.raises(OSError):  # noqa: PT011
        net.host.connect("203.0.113.30", 81)


@pytest.mark.parametrize("exit_", ["down", "wrong"])
def test_an_exit_that_is_down_or_refuses_us_fails_at_once(net, engine, exit_):
    node = engine([f"MATCH,{exit_}"])
    with elapsed_at_most(SOON_S), pytest.raises(OSError) as caught:  # noqa: PT011
        net.host.connect("203.0.113.30", 80)
    assert not isinstance(caught.value, TimeoutError)
    (flow,) = [flow for flow in node.flows() if flow["protocol"] == "tcp"]
    assert flow["exit"] == exit_
    assert flow["error"]


def test_an_undecided_flow_whose_exit_is_down_is_reset(net, engine):
    engine(["DOMAIN,video.example,down", "MATCH,direct"])
    with elapsed_at_most(SOON_S), net.host.connect("203.0.113.10", 80) as end:
        end.sendall(b"GET / HTTP/1.1\r\nHost: video.example\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            end.recv(1)


def test_blocked(net, engine):
    engine(["MATCH,block"])
    for host in ("203.0.113.30", "2001:db8:4::30"):
        with elapsed_at_most(SOON_S), pytest.raises(ConnectionRefusedError):
            net.host.connect(host, 80)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with net.host.socket(family, socket.SOCK_DGRAM) as end:
            end.settimeout(SOON_S)
            end.connect((host, 7))
            end.send(b"x")
            with pytest.raises(OSError) as caught:  # noqa: PT011
                end.recv(1)
            assert caught.value.errno in (errno.EACCES, errno.EHOSTUNREACH, errno.ECONNREFUSED)


def test_udp_to_a_closed_port_is_refused(net, engine):
    engine(["MATCH,direct"])
    for host in ("203.0.113.30", "2001:db8:4::30"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with net.host.socket(family, socket.SOCK_DGRAM) as end:
            end.settimeout(SOON_S)
            end.connect((host, 4444))
            end.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                end.recv(1)


# --- exits that misbehave


def silent(end):
    time.sleep(4)


def resets(end):
    end.recv(10)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def closes(end):
    end.recv(10)


def speaks_nonsense(end):
    end.sendall(b"\xff" * 300)
    time.sleep(1)


def trickles(end):
    """A SOCKS5 proxy in single bytes, and then an echo."""
    end.recv(10)
    for byte in b"\x05\x00":
        time.sleep(0.02)
        end.sendall(bytes((byte,)))
    end.recv(10)
    for byte in b"\x05\x00\x00\x01" + bytes(6) + b"hello":
        time.sleep(0.02)
        end.sendall(bytes((byte,)))
    while data := end.recv(4096):
        end.sendall(data)


@pytest.fixture
def misbehaving(net):
    """Starts an exit in `office` that treats every connection in its own way; gives its configuration."""
    listeners = []

    def start(behave):
        listener = net.office.socket()
        listener.bind((OFFICE, 0))
        listener.listen(16)
        listeners.append(listener)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    end, _ = listener.accept()
                    threading.Thread(target=treat, args=(end,), daemon=True).start()

        def treat(end):
            with end, contextlib.suppress(OSError):
                behave(end)

        threading.Thread(target=serve, daemon=True).start()
        return f"exits:\n  odd: {{type: socks5, address: '{OFFICE}:{listener.getsockname()[1]}'}}\n"

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize("behave", [silent, resets, closes, speaks_nonsense])
def test_an_exit_that_breaks_the_handshake(net, engine, misbehaving, behave):
    node = engine(["DST-PORT,7,odd", "MATCH,direct"], "timeouts: {dial: 1}\n", exits=misbehaving(behave))
    with elapsed_at_most(SOON_S), pytest.raises(OSError):  # noqa: PT011
        net.host.connect("203.0.113.30", 7)
    assert [flow["error"] for flow in node.flows() if flow["exit"] == "odd"] != [None]
    with net.host.connect("203.0.113.30", 25) as other:  # nobody else suffers
        assert other.recv(3) == b"220"


def test_an_exit_that_trickles(net, engine, misbehaving):
    engine(["MATCH,odd"], exits=misbehaving(trickles))
    with net.host.connect("203.0.113.30", 7) as end:
        data = b""
        while len(data) < 5:
            data += end.recv(5)
        assert data == b"hello"
        end.sendall(b"and back")
        assert end.recv(8) == b"and back"


def test_an_exit_that_dies_under_a_live_flow(net, engine):
    proxy = start_module(net.tokyo, "zignet.lab.proxy", TOKYO, "1099")
    node = engine(["MATCH,mortal"], exits=f"exits:\n  mortal: {{type: socks5, address: '{TOKYO}:1099'}}\n")
    with net.host.connect("203.0.113.30", 7) as end:
        end.sendall(b"alive")
        assert end.recv(5) == b"alive"
        proxy.kill()
        proxy.wait()
        with contextlib.suppress(ConnectionResetError):  # its kernel says FIN, or RST if bytes were left
            assert end.recv(1) == b""
    with elapsed_at_most(SOON_S), pytest.raises(OSError):  # noqa: PT011
        net.host.connect("203.0.113.30", 7)
    assert node.ask("status", "--json")["state"] == "running"
