"""Dialling real loopback sockets, with a handshake that is cut anywhere, and exits that misbehave."""

import errno
import resource
import socket
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat.dial import Dialler, reason_of
from nat.exit import Dial, ExitFailure, Reason, Step
from nat.loop import READ
from nat.sockets import Underlay
from tests.nat.world import LabLoop, Origin, closed_port, packed, read_some

pytestmark = pytest.mark.packet_path

HELLO, MORE = b"let me in\n", b"the password\n"
WELCOME, GRANTED = b"who are you?\n", b"come in\n"


class Words:
    """A handshake of lines: two questions, two answers; what follows is the flow's."""

    def __init__(self):
        self.held = b""
        self.fed = 0

    def start(self):
        return HELLO

    def feed(self, data):
        self.fed += 1
        self.held += data
        if self.held.startswith(b"no"):
            raise ExitFailure(Reason.PROHIBITED, "it said no")
        send = b""
        if self.held.startswith(WELCOME) and self.fed:
            self.held = self.held[len(WELCOME) :]
            send = MORE
        if self.held.startswith(GRANTED):
            return Step(send, True, self.held[len(GRANTED) :])
        return Step(send)


class Result:
    """What a dial came to."""

    def __init__(self):
        self.stood = []
        self.failed = []

    def __bool__(self):
        return bool(self.stood or self.failed)


class Bench:
    def __init__(self, patience_s=30.0):
        self.loop = LabLoop()
        self.dialler = Dialler(self.loop, Underlay(0), patience_s)

    def dial(self, address, handshake=None, wait=True):
        result = Result()
        plan = Dial(packed(address[0]), address[1], handshake)
        attempt = self.dialler.dial(
            plan,
            lambda attempt, rest: result.stood.append((attempt, rest)),
            lambda reason, message: result.failed.append((reason, message)),
        )
        if wait:
            self.loop.until(lambda: result)
            self.loop.settle()
        return attempt, result

    def close(self):
        self.loop.turn()
        assert len(self.dialler.waiting) == 0
        self.loop.dispose()


@pytest.fixture
def bench(no_leak):
    made = Bench()
    yield made
    made.close()


def done(bench, result, *others):
    for attempt, _ in result.stood:
        bench.loop.close(attempt.sock)
    for other in others:
        other.close()


def test_stands(bench, origin):
    attempt, result = bench.dial(origin.address)
    assert [rest for _, rest in result.stood] == [b""]
    assert result.stood[0][0] is attempt
    assert not attempt.readable
    accepted = origin.accept()
    accepted.send(b"x")
    bench.loop.settle()
    assert attempt.readable  # noted for whoever takes the socket over
    assert attempt.sock.recv(9) == b"x"
    assert attempt.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    done(bench, result, accepted)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_refused(bench, host):
    attempt, result = bench.dial(closed_port(host))
    assert result.failed == [(Reason.REFUSED, "Connection refused")]
    assert attempt.sock is None


def test_an_address_of_no_use(bench):
    """An error that comes out of connect() itself, before anything is watched."""
    _, result = bench.dial(("255.255.255.255", 80), wait=False)
    assert result.failed == [(Reason.NET_UNREACHABLE, "Network is unreachable")]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ECONNREFUSED, Reason.REFUSED),
        (errno.EHOSTUNREACH, Reason.HOST_UNREACHABLE),
        (errno.ENETUNREACH, Reason.NET_UNREACHABLE),
        (errno.ETIMEDOUT, Reason.TIMED_OUT),
        (errno.EPERM, Reason.PROHIBITED),
        (errno.EPIPE, Reason.FAILED),
    ],
)
def test_what_an_errno_means(code, reason):
    assert reason_of(code) is reason


def test_patience_with_a_host_that_is_silent(bench):
    """A listener whose queue is full answers no SYN."""
    origin = Origin(backlog=0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(origin.address)
        fillers.append(filler)
    attempt, result = bench.dial(origin.address, wait=False)
    bench.loop.settle()
    assert not result
    bench.loop.pass_time(31.0)
    assert result.failed == [(Reason.TIMED_OUT, "the connection timed out")]
    assert attempt.sock is None
    done(bench, result, origin, *fillers)


def shake(bench, server, result, script, rest=b""):
    """Play the proxy: `script` in pieces."""
    peer = bench.loop.until(server.accept)
    for piece in script:
        peer.send(piece)
        bench.loop.settle(2)
    bench.loop.until(lambda: result)
    return peer


@pytest.mark.parametrize("cut", range(1, len(WELCOME + GRANTED)))
def test_a_handshake_cut_anywhere(bench, server, cut):
    attempt, result = bench.dial(server.address, Words(), wait=False)
    whole = WELCOME + GRANTED + b"tail"
    peer = shake(bench, server, result, [whole[:cut], whole[cut:]])
    assert [rest for _, rest in result.stood] == [b"tail"]
    assert peer.recv(99) in (HELLO + MORE, HELLO)
    done(bench, result, peer)
    assert attempt.sock is not None


@settings(max_examples=30)
@given(st.lists(st.integers(1, 12), max_size=8), st.binary(max_size=30))
def test_a_handshake_in_any_pieces(sizes, tail):
    bench, server = Bench(), Origin()
    _, result = bench.dial(server.address, Words(), wait=False)
    whole = WELCOME + GRANTED
    pieces = []
    for size in sizes:
        pieces.append(whole[:size])
        whole = whole[size:]
    peer = shake(bench, server, result, [piece for piece in (*pieces, whole + tail) if piece])
    attempt, rest = result.stood[0]
    bench.loop.settle()
    if rest != tail:
        rest += bench.loop.until(lambda: read_some(attempt.sock))
    assert not result.failed
    done(bench, result, peer, server)
    bench.close()


def test_what_follows_the_handshake_stays_in_the_socket_for_its_taker(bench, server):
    attempt, result = bench.dial(server.address, Words(), wait=False)
    peer = shake(bench, server, result, [WELCOME, GRANTED])
    peer.send(b"for the flow")
    bench.loop.settle()
    assert attempt.readable
    assert attempt.sock.recv(99) == b"for the flow"
    done(bench, result, peer)


def test_a_proxy_that_refuses(bench, server):
    attempt, result = bench.dial(server.address, Words(), wait=False)
    peer = shake(bench, server, result, [b"no way"])
    assert result.failed == [(Reason.PROHIBITED, "it said no")]
    assert attempt.sock is None
    done(bench, result, peer)


@pytest.mark.parametrize("said", [b"", b"who", WELCOME, WELCOME + b"come"])
@pytest.mark.parametrize("separately", [True, False])
def test_a_proxy_that_closes(bench, server, said, separately):
    """At once, also when its last words and its FIN come in one event."""
    _, result = bench.dial(server.address, Words(), wait=False)
    peer, _ = server.socket.accept()
    if separately:
        bench.loop.settle()
        assert peer.recv(99) == HELLO
        peer.send(said)
        bench.loop.settle()
    else:
        peer.send(said)
    peer.shutdown(socket.SHUT_WR)
    bench.loop.until(lambda: result, 2.0)
    assert result.failed == [(Reason.FAILED, "the exit closed the connection before it had answered")]
    peer.close()


def test_a_proxy_that_resets(bench, server):
    _, result = bench.dial(server.address, Words(), wait=False)
    peer = bench.loop.until(server.accept)
    bench.loop.settle()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    bench.loop.until(lambda: result)
    assert [reason for reason, _ in result.failed] == [Reason.FAILED]


def test_a_proxy_that_says_nothing(bench, server):
    _, result = bench.dial(server.address, Words(), wait=False)
    peer = bench.loop.until(server.accept)
    bench.loop.settle()
    bench.loop.pass_time(29.0)
    assert not result
    bench.loop.pass_time(31.0)
    assert result.failed == [(Reason.FAILED, "the exit accepted the connection and said nothing")]
    peer.close()


def test_a_proxy_that_trickles_is_not_waited_for_forever(bench, server):
    """Its bytes do not buy it more time."""
    _, result = bench.dial(server.address, Words(), wait=False)
    peer = bench.loop.until(server.accept)
    for _ in range(5):
        peer.send(b"w")
        bench.loop.settle(2)
    bench.loop.pass_time(31.0)
    assert [reason for reason, _ in result.failed] == [Reason.FAILED]
    peer.close()


def test_a_proxy_that_is_down_is_a_failure_of_the_exit_not_of_the_target(bench):
    _, result = bench.dial(closed_port(), Words())
    assert result.failed == [(Reason.FAILED, "the exit cannot be reached: Connection refused")]


def test_a_handshake_with_a_fault_fails_the_flow(bench, server, caplog):
    class Broken(Words):
        def feed(self, data):
            raise ZeroDivisionError

    _, result = bench.dial(server.address, Broken(), wait=False)
    peer = shake(bench, server, result, [b"x"])
    assert result.failed == [(Reason.FAILED, "internal error")]
    assert "ZeroDivisionError" in caplog.text
    peer.close()


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_cancelled(bench, server, turns):
    attempt, result = bench.dial(server.address, Words(), wait=False)
    for _ in range(turns):
        bench.loop.turn()
    attempt.cancel()
    attempt.cancel()
    bench.loop.pass_time(100.0)
    bench.loop.settle()
    assert not result
    assert attempt.sock is None
    peer, _ = server.socket.accept()
    peer.settimeout(2)
    assert peer.recv(99) in (b"", HELLO)
    peer.close()


def test_cancelled_after_it_stood(bench, server):
    attempt, result = bench.dial(server.address)
    attempt.cancel()
    bench.loop.settle()
    assert len(result.stood) == 1
    peer, _ = server.socket.accept()
    assert peer.recv(9) == b""
    peer.close()


def test_its_descriptor_can_be_handed_over(bench, server):
    attempt, result = bench.dial(server.address)
    seen = []

    class Taker:
        def on_event(self, mask):
            seen.append(mask)

    bench.loop.hand_over(attempt.sock.fileno(), Taker())
    peer, _ = server.socket.accept()
    peer.send(b"x")
    bench.loop.settle()
    assert len(seen) == 1
    assert seen[0] & READ
    done(bench, result, peer)


def run_out_of_descriptors():
    """In a process of its own: no socket for the dial; the application is to try again, not to be refused."""
    bench = Bench()
    server = Origin()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (server.socket.fileno() + 1, most))
    _, result = bench.dial(server.address)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, most))
    _, again = bench.dial(server.address)
    print(result.failed, len(again.stood))


def test_without_descriptors():
    code = "from tests.nat.test_dial import run_out_of_descriptors as run; run()"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "TIMED_OUT" in ran.stdout
    assert "Too many open files" in ran.stdout
    assert ran.stdout.strip().endswith(" 1")
