"""The pump between real sockets: every byte, every end, every way to die."""

import os
import random
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat.loop import EDGE, READ, WRITE
from nat.relay import BUFFER, MAX_PIPES, RESET_ON_CLOSE, SPLICE_AFTER, Pipes, Relay
from tests.nat.world import LabLoop, Origin, descriptors, read_some

pytestmark = pytest.mark.packet_path


class Owner:
    """Notes how each relay ended."""

    def __init__(self):
        self.ended = []

    def relay_ended(self, relay, error):
        self.ended.append((relay, error, relay.up, relay.down))


def tcp_pair():
    """(the far end, our end) of a real TCP connection."""
    origin = Origin()
    ours = socket.create_connection(origin.address)
    theirs = origin.socket.accept()[0]
    origin.close()
    return ours, theirs


def unix_pair():
    return socket.socketpair()


PAIRS = {"tcp": tcp_pair, "unix": unix_pair}


class Bench:
    """app ── local │ relay │ exit ── far."""

    def __init__(self, make=tcp_pair, loop=None, pipes=None, small=False, **more):
        self.loop = loop or LabLoop()
        self.own_loop = loop is None
        self.pipes = pipes or Pipes()
        self.owner = Owner()
        self.app, local = make()
        self.far, exit_ = make()
        for sock in (self.app, local, exit_, self.far):
            sock.setblocking(False)
            if small:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        self.local, self.exit = local, exit_
        self.relay = Relay(self.owner, self.loop, self.pipes, "the flow", local, exit_, **more)
        self.loop.watch(local.fileno(), self.relay.local, READ | EDGE)
        self.loop.watch(exit_.fileno(), self.relay.exit, READ | WRITE | EDGE)
        self.relay.start()

    @property
    def error(self):
        return self.owner.ended[0][1] if self.owner.ended else None

    def carry(self, sender, receiver, data, chunk=lambda: 65_536):
        """Send all of `data`, and read until as much has come out."""
        got = bytearray()
        sent = 0

        def step():
            nonlocal sent
            while sent < len(data):
                try:
                    sent += sender.send(data[sent : sent + chunk()])
                except BlockingIOError:
                    break
            while (some := read_some(receiver)) is not None:
                got.extend(some)
                if not some:
                    break
            return sent == len(data) <= len(got)

        self.loop.until(step)
        return bytes(got)

    def end_of(self, sock):
        """What a socket still holds, and whether it ended with a "fin" or a "reset"."""
        got = bytearray()

        def step():
            try:
                while (some := read_some(sock)) is not None:
                    if not some:
                        return "fin"
                    got.extend(some)
            except ConnectionResetError:
                return "reset"
            return None

        return self.loop.until(step), bytes(got)

    def close(self):
        if not self.owner.ended:
            self.relay.fail("the test is over")
        self.loop.turn()
        self.app.close()
        self.far.close()
        self.pipes.dispose()
        if self.own_loop:
            self.loop.dispose()


@pytest.fixture(params=PAIRS)
def bench(request, no_leak):
    made = Bench(PAIRS[request.param])
    yield made
    made.close()


@pytest.fixture
def tcp(no_leak):
    made = Bench()
    yield made
    made.close()


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    sock.close()


@pytest.mark.parametrize("size", [1, 1000, BUFFER - 1, BUFFER, BUFFER + 1, SPLICE_AFTER * 5 + 7])
def test_every_byte_both_ways(bench, size):
    data = random.Random(size).randbytes(size)
    assert bench.carry(bench.app, bench.far, data) == data
    assert bench.carry(bench.far, bench.app, data[::-1]) == data[::-1]
    assert (bench.relay.up, bench.relay.down) == (size, size)
    assert not bench.owner.ended


@settings(max_examples=10)
@given(
    up=st.integers(0, 600_000),
    down=st.integers(0, 600_000),
    seed=st.integers(0, 1000),
    small=st.booleans(),
    ahead=st.tuples(st.binary(max_size=200), st.binary(max_size=200)),
)
def test_random_chunks_both_ways_at_once(up, down, seed, small, ahead):
    source = random.Random(seed)
    made = Bench(small=small, ahead_up=ahead[0], ahead_down=ahead[1])
    sends = {made.app: source.randbytes(up), made.far: source.randbytes(down)}
    got = {made.far: bytearray(), made.app: bytearray()}
    sent = dict.fromkeys(sends, 0)
    ended = set()

    def step():
        for sock, data in sends.items():
            if sock in ended:
                continue
            try:
                for _ in range(source.randrange(4)):
                    chunk = data[sent[sock] : sent[sock] + source.choice((1, 7, 1448, 20_000, 300_000))]
                    sent[sock] += sock.send(chunk) if chunk else 0
            except BlockingIOError:
                pass
            if sent[sock] == len(data):
                sock.shutdown(socket.SHUT_WR)
                ended.add(sock)
        for sock, buffer in got.items():
            if source.random() < 0.7:
                buffer.extend(read_some(sock, source.choice((10, 4096, 1 << 18))) or b"")
        return made.owner.ended and all(read_into(sock, buffer) for sock, buffer in got.items())

    def read_into(sock, buffer):
        while some := read_some(sock):
            buffer.extend(some)
        return some == b""

    made.loop.until(step, 30)
    assert bytes(got[made.far]) == ahead[0] + sends[made.app]
    assert bytes(got[made.app]) == ahead[1] + sends[made.far]
    assert made.owner.ended == [(made.relay, "", up + len(ahead[0]), down + len(ahead[1]))]
    made.close()


@pytest.mark.parametrize("first", ["app", "far"])
def test_half_close(bench, first):
    one, other = (bench.app, bench.far) if first == "app" else (bench.far, bench.app)
    one.send(b"the last words")
    one.shutdown(socket.SHUT_WR)
    assert bench.end_of(other) == ("fin", b"the last words")
    assert not bench.owner.ended
    data = os.urandom(300_000)
    assert bench.carry(other, one, data) == data
    other.shutdown(socket.SHUT_WR)
    assert bench.end_of(one) == ("fin", b"")
    bench.loop.settle()
    assert bench.error == ""


@pytest.mark.parametrize("first", ["app", "far"])
@pytest.mark.parametrize("size", [0, 100, 100_000])
def test_a_reset_is_carried_over_behind_what_came_before_it(tcp, first, size):
    one, other = (tcp.app, tcp.far) if first == "app" else (tcp.far, tcp.app)
    data = os.urandom(size)
    assert tcp.carry(one, other, b"hello") == b"hello"
    one.send(data)
    reset(one)
    assert tcp.end_of(other) == ("reset", data)
    tcp.loop.settle()
    assert "reset" in tcp.error


@pytest.mark.parametrize("first", ["app", "far"])
@pytest.mark.parametrize("size", [0, 100_000])
def test_a_reset_after_the_other_side_s_end_of_file_is_still_a_reset(tcp, first, size):
    """Else what was cut off would look whole."""
    one, other = (tcp.app, tcp.far) if first == "app" else (tcp.far, tcp.app)
    other.send(b"request")
    other.shutdown(socket.SHUT_WR)
    assert tcp.end_of(one) == ("fin", b"request")
    data = os.urandom(size)
    one.send(data)
    reset(one)
    kind, got = tcp.end_of(other)
    assert (kind, got) == ("reset", data)


@pytest.mark.parametrize("first", ["app", "far"])
def test_a_reset_is_no_end_of_file_on_the_way(tcp, first):
    """No FIN goes ahead of the RST: not even for a moment does the stream look complete."""
    one, other = (tcp.app, tcp.far) if first == "app" else (tcp.far, tcp.app)
    far_of_other = tcp.local if other is tcp.app else tcp.exit
    shut = []
    fd = far_of_other.fileno()
    one.send(b"some")
    reset(one)

    def state():
        # tcp_info's first byte: 1 is ESTABLISHED, 4 and 5 are FIN_WAIT1 and 2, 7 is CLOSE.
        if far_of_other.fileno() == fd:
            shut.append(far_of_other.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])
        return tcp.owner.ended

    tcp.owner.relay_ended = lambda relay, error: (state(), tcp.owner.ended.append((relay, error, 0, 0)))
    tcp.loop.until(lambda: tcp.owner.ended)
    assert set(shut) <= {1}
    assert tcp.end_of(other) == ("reset", b"some")


@pytest.mark.parametrize("first", ["app", "far"])
def test_a_side_that_dies_while_the_other_is_blocked(first, no_leak):
    made = Bench(small=True)
    one, other = (made.app, made.far) if first == "app" else (made.far, made.app)
    stuffed = 0

    def stuff():  # nobody reads on the other side
        nonlocal stuffed
        try:
            while True:
                stuffed += one.send(bytes(65_536))
        except BlockingIOError:
            return

    for _ in range(30):
        stuff()
        made.loop.turn()
    assert stuffed < 4_000_000
    reset(other)  # the one who does not read
    made.loop.until(lambda: made.owner.ended)
    made.loop.turn()
    assert made.end_of(one)[0] == "reset"
    made.close()


def test_an_application_that_dies_does_not_wait_for_a_stalled_exit(no_leak):
    made = Bench(small=True)
    for _ in range(40):
        try:
            made.app.send(bytes(65_536))
        except BlockingIOError:
            pass
        made.loop.turn()
    reset(made.app)
    made.loop.until(lambda: made.owner.ended)
    assert made.error == "reset by the application"
    made.close()


@pytest.mark.parametrize("after", [0, SPLICE_AFTER * 3], ids=["copied", "spliced"])
@pytest.mark.parametrize("first", ["app", "far"])
def test_a_slow_reader_bounds_what_is_held(first, after, no_leak):
    """Everything that the sender got rid of lies in the kernel's small buffers, our buffer or one pipe."""
    made = Bench(small=True)
    one, other = (made.app, made.far) if first == "app" else (made.far, made.app)
    warm = random.Random(1).randbytes(after)
    if warm:
        assert made.carry(one, other, warm) == warm
    data = random.Random(2).randbytes(4_000_000)
    sent = 0
    stuck = 0
    while stuck < 50:
        try:
            sent += one.send(data[sent : sent + 65_536])
            stuck = 0
        except BlockingIOError:
            stuck += 1
        made.loop.turn()
    held = 1024 * 1024 if after else BUFFER
    assert sent < held + 600_000  # the kernel doubles what it is asked for, and has two sockets on each side
    assert (made.relay.up if first == "app" else made.relay.down) < after + sent
    # The reader wakes up: nothing is lost, nothing comes twice.
    rest = made.carry(one, other, data[sent:])
    while len(rest) < len(data):
        rest += made.loop.until(lambda: read_some(other))
    assert rest == data
    made.close()


def test_long_directions_go_through_a_pipe_and_give_it_back(no_leak):
    made = Bench()
    taken = []

    class Watching(Pipes):
        def take(self):
            taken.append(super().take())
            return taken[-1]

    made.relay.pipes = made.pipes = Watching()
    short = bytes(SPLICE_AFTER - 1)
    made.carry(made.app, made.far, short)
    assert taken == []
    data = os.urandom(3_000_000)
    assert made.carry(made.app, made.far, data) == data
    assert len(taken) >= 1
    assert made.pipes.made == 1
    made.loop.settle()
    assert len(made.pipes.idle) == 1  # an idle flow holds none
    made.close()


def test_without_pipes_it_copies(no_leak):
    made = Bench()

    class None_(Pipes):
        def take(self):
            return None

    made.relay.pipes = None_()
    data = os.urandom(3_000_000)
    assert made.carry(made.app, made.far, data) == data
    made.close()


def test_a_pipe_with_bytes_in_it_is_never_given_to_another_flow(no_leak):
    """The relay dies while its pipe is full: the next flow must not get those bytes."""
    pipes = Pipes()
    made = Bench(small=True, pipes=pipes)
    warm = bytes(SPLICE_AFTER * 2)
    assert made.carry(made.app, made.far, warm) == warm
    for _ in range(60):
        try:
            made.app.send(b"secret" * 10_000)
        except BlockingIOError:
            pass
        made.loop.turn()
    assert pipes.made == 1
    assert pipes.idle == []
    made.relay.fail("died")
    assert pipes.made == 0
    made.loop.turn()
    other = Bench(pipes=pipes)
    data = os.urandom(1_000_000)
    assert other.carry(other.app, other.far, data) == data
    other.close()
    made.close()


def test_the_pool_has_a_limit(no_leak):
    pipes = Pipes()
    made = [pipes.take() for _ in range(MAX_PIPES)]
    assert all(made)
    assert pipes.take() is None
    pipes.discard(made.pop())
    last = pipes.take()
    assert last is not None
    for pipe in made:
        pipes.give_back(pipe)
    pipes.dispose()
    pipes.discard(last)
    assert pipes.made == 0


def test_bytes_that_were_read_ahead_go_first(no_leak):
    made = Bench(ahead_up=b"hello, ", ahead_down=b"welcome, ")
    assert made.carry(made.app, made.far, b"world") in (b"hello, ", b"hello, world")
    made.far.send(b"friend")
    got = bytearray()
    made.loop.until(lambda: got.extend(read_some(made.app) or b"") or len(got) == 15)
    assert got == b"welcome, friend"
    made.close()


def test_what_waits_in_a_socket_at_the_start_is_moved(no_leak):
    """The edges went by while somebody else had the sockets."""
    app, local = tcp_pair()
    far, exit_ = tcp_pair()
    app.send(b"early")
    far.send(b"bird")
    far.shutdown(socket.SHUT_WR)
    loop, owner, pipes = LabLoop(), Owner(), Pipes()
    for sock in (local, exit_, app, far):
        sock.setblocking(False)

    class Nobody:
        def on_event(self, mask):
            pass

    for sock in (local, exit_):
        loop.watch(sock.fileno(), Nobody(), READ | EDGE)
    loop.settle()
    relay = Relay(owner, loop, pipes, None, local, exit_)
    loop.hand_over(local.fileno(), relay.local)
    loop.hand_over(exit_.fileno(), relay.exit)
    relay.start()
    loop.settle()
    assert far.recv(99) == b"early"
    assert app.recv(99) == b"bird"
    assert app.recv(99) == b""
    app.close()
    loop.until(lambda: owner.ended)
    loop.turn()
    far.close()
    loop.dispose()


def test_a_turn_is_shared(no_leak):
    """A flow that could fill its turn lets the others have theirs."""
    made = Bench(unix_pair)
    other = Bench(unix_pair, loop=made.loop, pipes=made.pipes)
    data = os.urandom(9_000_000)
    done = []
    other.app.send(b"small")
    assert made.carry(made.app, made.far, data) == data
    done.append(other.far.recv(99))
    assert done == [b"small"]
    other.close()
    made.close()


def test_every_move_is_noted_for_the_idle_time_out(tcp):
    tcp.relay.touched = 0.0
    tcp.carry(tcp.app, tcp.far, b"x")
    assert tcp.relay.touched > 0.0
    tcp.relay.touched = 0.0
    tcp.carry(tcp.far, tcp.app, b"x")
    assert tcp.relay.touched > 0.0


def test_failing_twice_and_events_after_the_end_are_harmless(tcp):
    tcp.carry(tcp.app, tcp.far, b"x")
    stream = tcp.relay.local
    tcp.relay.fail("once")
    stream.on_event(READ)
    stream.abort()
    assert not stream.start()
    assert [error for _, error, _, _ in tcp.owner.ended] == ["once"]
    assert tcp.end_of(tcp.app)[0] == "reset"


def test_an_internal_error_resets_both_sides(tcp):
    tcp.relay.local.abort()
    assert tcp.error == "internal error"
    assert tcp.end_of(tcp.app)[0] == "reset"
    assert tcp.end_of(tcp.far)[0] == "reset"


def test_a_thousand_relays_leave_nothing_open():
    loop, pipes = LabLoop(), Pipes()
    before = descriptors()
    for number in range(200):
        made = Bench(unix_pair, loop=loop, pipes=pipes)
        made.app.send(b"x" * 100)
        loop.turn()
        if number % 3 == 0:
            made.app.close()
            made.far.close()
            loop.until(lambda made=made: made.owner.ended)
        made.close()
    pipes.dispose()
    assert descriptors() == before
    loop.dispose()
