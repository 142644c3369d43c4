"""The loop on real descriptors: who is told what, when, and what happens when a handler fails."""

import os
import select
import signal
import socket
import threading
import time

import pytest

from nat.loop import EDGE, READ, WRITE, Handler, Loop
from tests.nat.world import LabLoop

pytestmark = pytest.mark.packet_path


class Noting(Handler):
    """Notes its events, then does what the test says."""

    def __init__(self, then=None):
        self.masks = []
        self.aborted = 0
        self.then = then

    def on_event(self, mask):
        self.masks.append(mask)
        if self.then is not None:
            self.then(mask)

    def abort(self):
        self.aborted += 1


@pytest.fixture
def pair():
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


def test_tells_a_handler_what_its_descriptor_is_ready_for(loop, pair):
    handler = Noting()
    loop.watch(pair[0].fileno(), handler, READ)
    loop.turn()
    assert handler.masks == []
    pair[1].send(b"x")
    loop.turn()
    loop.turn()  # level-triggered: told again
    assert handler.masks == [select.EPOLLIN] * 2
    loop.forget(pair[0].fileno())
    loop.turn()
    assert len(handler.masks) == 2
    assert pair[0].recv(9) == b"x"  # it is still open


def test_an_edge_is_told_once_and_again_after_rearming(loop, pair):
    handler = Noting()
    loop.watch(pair[0].fileno(), handler, READ | EDGE)
    pair[1].send(b"x")
    loop.settle()
    assert len(handler.masks) == 1
    loop.rearm(pair[0].fileno(), READ | WRITE | EDGE)
    loop.settle()
    assert handler.masks[1:] == [select.EPOLLIN | select.EPOLLOUT]


def test_another_handler_takes_over(loop, pair):
    first, second = Noting(), Noting()
    loop.watch(pair[0].fileno(), first, READ)
    loop.hand_over(pair[0].fileno(), second)
    pair[1].send(b"x")
    loop.turn()
    assert (len(first.masks), len(second.masks)) == (0, 1)


def test_the_far_end_s_close_is_told(loop, pair):
    handler = Noting()
    loop.watch(pair[0].fileno(), handler, READ)
    pair[1].close()
    loop.turn()
    assert handler.masks[0] & select.EPOLLRDHUP


def test_a_failing_handler_is_aborted_and_stops_nobody(loop, caplog):
    pairs = [socket.socketpair() for _ in range(3)]
    handlers = [Noting(), Noting(lambda mask: 1 // 0), Noting()]
    for (ours, theirs), handler in zip(pairs, handlers, strict=True):
        loop.watch(ours.fileno(), handler, READ)
        theirs.send(b"x")
    loop.turn()
    assert [len(handler.masks) for handler in handlers] == [1, 1, 1]
    assert [handler.aborted for handler in handlers] == [0, 1, 0]
    assert "ZeroDivisionError" in caplog.text
    for ends in pairs:
        for end in ends:
            end.close()


def test_an_abort_that_fails_too_is_only_logged(loop, pair, caplog):
    class Hopeless(Noting):
        def abort(self):
            raise RuntimeError("and again")

    loop.watch(pair[0].fileno(), Hopeless(lambda mask: 1 // 0), READ)
    pair[1].send(b"x")
    loop.turn()
    assert "and again" in caplog.text


def test_an_event_never_reaches_the_next_owner_of_a_number(loop):
    """Both are ready in one turn, and whichever comes first closes the other and opens a descriptor."""
    pairs = [socket.socketpair() for _ in range(2)]
    opened = []

    def close_the_other(mine):
        other = pairs[1 - mine][0]
        number = other.fileno()
        loop.close(other)
        opened.append(os.dup(0))
        assert opened[0] != number

    handlers = [Noting(lambda mask, mine=mine: close_the_other(mine)) for mine in (0, 1)]
    for (ours, theirs), handler in zip(pairs, handlers, strict=True):
        theirs.send(b"x")
        loop.watch(ours.fileno(), handler, READ | EDGE)
    loop.settle()
    assert sorted(len(handler.masks) for handler in handlers) == [0, 1]
    assert [handler.aborted for handler in handlers] == [0, 0]
    assert sum(ours.fileno() == -1 for ours, _ in pairs) == 1  # closed at the end of the turn
    os.close(opened[0])
    for ends in pairs:
        for end in ends:
            end.close()


def test_closes_sockets_and_bare_descriptors_at_the_end_of_a_turn(loop, pair):
    reader, writer = os.pipe()
    seen = []
    loop.soon(lambda: (loop.close(pair[0]), loop.close(reader), seen.append(pair[0].fileno() >= 0)))
    loop.turn()
    assert seen == [True]
    assert pair[0].fileno() == -1
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(reader)
    os.close(writer)


def test_timers_fire_in_order_and_can_be_taken_back(loop):
    fired = []
    start = loop.now  # what delays count from
    loop.call_later(0.03, lambda: fired.append("late"))
    loop.call_later(0.01, lambda: fired.append("early"))
    cancelled = loop.call_later(0.02, lambda: fired.append("never"))
    cancelled.cancel()
    loop.call_later(0.02, lambda: 1 // 0)
    loop.until(lambda: len(fired) == 2)
    assert fired == ["early", "late"]
    assert time.monotonic() - start >= 0.03
    cancelled.cancel()  # harmless


def test_soon_is_the_next_turn_not_this_one(loop):
    order = []

    def first():
        order.append("first")
        loop.soon(lambda: order.append("second"))

    loop.soon(first)
    loop.turn()
    assert order == ["first"]
    loop.turn()
    assert order == ["first", "second"]


def test_now_moves_with_the_turns(loop):
    loop.turn()
    before = loop.now
    time.sleep(0.002)
    loop.turn()
    assert loop.now > before


def test_turns_are_counted(loop):
    for number in range(1, 4):
        loop.turn()
        assert loop.turns == number


def test_events_in_quick_succession_are_all_told(loop, pair):
    """Whether the loop sleeps between them or stays awake; and timers still fire."""
    near, far = pair
    far.setblocking(True)
    got = []

    def answer(mask):
        got.append(near.recv(100))
        near.send(b"pong")

    loop.watch(near.fileno(), Noting(answer), READ)

    def play():
        for _ in range(300):
            far.send(b"ping")
            far.recv(100)

    thread = threading.Thread(target=play)
    thread.start()
    loop.until(lambda: len(got) == 300)
    thread.join()
    fired = []
    loop.call_later(0.01, lambda: fired.append("timer"))
    loop.until(lambda: fired)


def test_another_thread_stops_it():
    loop = Loop()
    thread = threading.Timer(0.05, loop.stop)
    thread.start()
    loop.run()
    thread.join()
    loop.dispose()


def test_a_signal_stops_it():
    loop = Loop()
    before = signal.signal(signal.SIGUSR1, lambda *_: loop.stop())
    thread = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    thread.start()
    loop.run()
    thread.join()
    signal.signal(signal.SIGUSR1, before)
    loop.dispose()


def test_waking_more_often_than_the_pipe_holds_is_harmless(loop):
    for _ in range(70_000):
        loop.wake()
    loop.settle(20)


class Item:
    def __init__(self, touched):
        self.touched = touched


def test_sweeps_its_expiries_by_itself_though_one_of_them_fails(caplog):
    loop = LabLoop()
    ended = []

    def broken(item):
        raise ValueError("this one fails")

    first = loop.expiry(0.01, broken)
    second = loop.expiry(0.01, ended.append)
    item = Item(loop.now)
    first.add(Item(loop.now))
    second.add(item)
    loop.call_later(0.6, loop.stop)
    loop.run()
    assert ended == [item]
    assert "this one fails" in caplog.text
    assert len(first) == 0
    loop.dispose()


def test_dispose_leaves_no_descriptor(no_leak):
    loop = Loop()
    ours, theirs = socket.socketpair()
    loop.watch(ours.fileno(), Noting(), READ)
    loop.close(ours)
    theirs.close()
    loop.dispose()


def test_a_stop_before_the_first_turn_is_obeyed_once():
    loop = Loop()
    turns: list[int] = []
    loop.stop()
    loop.run()  # returns at once
    loop.soon(lambda: (turns.append(1), loop.stop()))
    loop.run()
    loop.dispose()
    assert turns == [1]
