"""Dialling by name: the families take turns, the first that stands wins, errors tell the truth (RFC 8305)."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat import race as race_module
from nat.dial import Dialler
from nat.exit import DialName, Reason, Refusal
from nat.race import MOST_ADDRESSES, in_turn, permitted
from nat.sockets import Underlay
from tests.nat.world import LabLoop, Origin, closed_port, packed

pytestmark = pytest.mark.packet_path

V4, V6 = packed("127.0.0.1"), packed("::1")
UNROUTED = packed("255.255.255.255")  # connect() itself fails


class Names:
    """A resolver of a test: answers at once, or when told to."""

    def __init__(self, answers):
        self.answers = answers
        self.waiting = []
        self.cancelled = 0

    def resolve(self, name, done):
        answer = self.answers.get(name)
        if answer is None:
            self.waiting.append(done)
        else:
            done(answer)
        return self

    def cancel(self):
        self.cancelled += 1


class Bench:
    def __init__(self, patience_s=30.0):
        self.loop = LabLoop()
        self.dialler = Dialler(self.loop, Underlay(0), patience_s)
        self.names = self.dialler.resolver = Names({})
        self.stood, self.failed = [], []

    def dial(self, answer, port, may_dial=None):
        if answer is not None:
            self.names.answers["www.example"] = answer
        plan = DialName("www.example", port, may_dial=may_dial)
        return self.dialler.dial(
            plan, lambda *stood: self.stood.append(stood), lambda *why: self.failed.append(why)
        )

    def end(self):
        self.loop.until(lambda: self.stood or self.failed)
        self.loop.settle()
        assert len(self.stood) + len(self.failed) == 1
        assert len(self.dialler.races) == len(self.dialler.waiting) == 0
        return self.failed[0] if self.failed else None

    def peer(self):
        assert self.end() is None
        return self.stood[0][0].sock.getpeername()[0]

    def close(self):
        for attempt, _ in self.stood:
            self.loop.close(attempt.sock)
        self.loop.turn()
        self.loop.dispose()


@pytest.fixture
def bench(no_leak):
    made = Bench()
    yield made
    made.close()


@pytest.fixture
def both():
    """One port, open in both families."""
    first = Origin("127.0.0.1")
    second = socket.create_server(("::1", first.address[1]), family=socket.AF_INET6)
    yield first.address[1]
    first.socket.close()
    second.close()


def test_ipv6_goes_first(bench, both):
    bench.dial([V4, V6], both)
    assert bench.peer() == "::1"


def test_a_refusal_leads_to_the_next_at_once(bench, server, monkeypatch):
    monkeypatch.setattr(race_module, "ATTEMPT_DELAY_S", 3600.0)
    bench.dial([V4, V6], server.address[1])  # open in IPv4 only
    assert bench.peer() == "127.0.0.1"


def test_what_fails_in_connect_leads_to_the_next_at_once(bench, server, monkeypatch):
    monkeypatch.setattr(race_module, "ATTEMPT_DELAY_S", 3600.0)
    bench.dial([UNROUTED, UNROUTED, V4], server.address[1])
    assert bench.peer() == "127.0.0.1"


def full(backlog_host="127.0.0.2"):
    """A listener whose queue is full: connections to it neither stand nor fail."""
    listener = socket.create_server((backlog_host, 0), backlog=0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    return listener, fillers


def test_a_silent_address_is_tried_beside_the_next(bench):
    listener, fillers = full()
    port = listener.getsockname()[1]
    with socket.create_server(("127.0.0.1", port)):
        race = bench.dial([packed("127.0.0.2"), V4], port)
        assert not race.ended
        assert bench.peer() == "127.0.0.1"
        assert len(bench.dialler.waiting) == 0  # the silent one is closed
    for each in (listener, *fillers):
        each.close()


@pytest.mark.parametrize(
    ("addresses", "reason"),
    [
        ([V4, V6], Reason.REFUSED),
        ([UNROUTED, V4], Reason.REFUSED),
        ([V4, UNROUTED], Reason.REFUSED),
    ],
)
def test_the_truest_reason_is_told(bench, addresses, reason):
    bench.dial(addresses, closed_port()[1])
    assert bench.end()[0] is reason


def test_every_reason_has_a_rank():
    assert set(race_module._TRUEST) == set(Reason)


def test_a_name_without_an_address(bench):
    race = bench.dial(Refusal(Reason.HOST_UNREACHABLE, "it does not exist"), 80)
    assert race.ended
    assert bench.end() == (Reason.HOST_UNREACHABLE, "it does not exist")


def test_nobody_resolves(bench):
    bench.dialler.resolver = None
    assert bench.dial([V4], 80).ended
    assert bench.end()[0] is Reason.FAILED


def test_only_what_is_allowed_is_dialled(bench, both):
    asked = []

    def may_dial(address):
        asked.append(address)
        return address != V6

    bench.dial([V6, V4], both, may_dial)
    assert bench.peer() == "127.0.0.1"
    assert set(asked) == {V4, V6}


def test_nothing_is_allowed(bench, both):
    bench.dial([V6, V4], both, lambda address: False)
    assert bench.end() == (Reason.PROHIBITED, "www.example has no address that may be dialled")


def test_cancelled_while_it_is_looked_up(bench):
    race = bench.dial(None, 80)
    race.cancel()
    assert (race.ended, bench.names.cancelled, len(bench.dialler.races)) == (True, 1, 0)
    assert not bench.stood
    assert not bench.failed


def test_cancelled_while_it_connects(bench):
    listener, fillers = full()
    race = bench.dial([packed("127.0.0.2")], listener.getsockname()[1])
    race.cancel()
    bench.loop.settle()
    assert (len(bench.dialler.waiting), bench.stood, bench.failed) == (0, [], [])
    for each in (listener, *fillers):
        each.close()


def test_patience_covers_the_look_up(bench):
    bench.dial(None, 80)
    bench.loop.pass_time(31)
    assert bench.end()[0] is Reason.TIMED_OUT
    assert bench.names.cancelled == 1


def test_patience_covers_the_attempts(bench):
    listener, fillers = full()
    bench.dial([packed("127.0.0.2")], listener.getsockname()[1])
    bench.loop.pass_time(31)
    assert bench.end() == (Reason.TIMED_OUT, "the connection timed out")
    for each in (listener, *fillers):
        each.close()


addresses = st.lists(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16), max_size=40)


@given(addresses)
def test_turns(found):
    ordered = in_turn(found)
    assert len(ordered) == min(len(set(found)), MOST_ADDRESSES)
    assert set(ordered) <= set(found)
    for version in (4, 16):
        mine = [address for address in dict.fromkeys(found) if len(address) == version]
        taken = [address for address in ordered if len(address) == version]
        assert taken == mine[: len(taken)]
    sizes = [len(address) for address in ordered]
    while len(set(sizes)) == 2:
        assert sizes[:2] == [16, 4]
        sizes = sizes[2:]


@given(addresses, st.binary(min_size=1, max_size=1))
def test_what_is_permitted(found, first):
    result = permitted("x.example", found, lambda address: address[:1] >= first)
    if isinstance(result, Refusal):
        assert all(address[:1] < first for address in found)
    else:
        assert all(address[:1] >= first for address in result)
