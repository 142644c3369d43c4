"""Paths and their MTU, against a network in memory with a clock by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.peers import path as module
from zignet.peers.path import FIRST_MTU, Paths, Probe, Switched
from zignet.wire import Challenge

HOME, CAFE, EVIL = ("192.0.2.1", 51830), ("198.51.100.7", 40000), ("203.0.113.66", 666)
NEVER = float("inf")


def tokens() -> Callable[[int], bytes]:
    count = itertools.count(1)
    return lambda size: next(count).to_bytes(size, "big")


def paths(ceiling: int = 1472, endpoints: tuple[object, ...] = (HOME,)) -> Paths:
    return Paths(endpoints, lambda address: ceiling, tokens())


class World:
    """One peer behind a network that loses what is larger than `mtu`, and what `lose` says."""

    def __init__(self, ceiling: int = 1472, mtu: int = 1472, rtt: float = 0.05) -> None:
        self.ceiling = ceiling
        self.paths = Paths((HOME,), lambda address: self.ceiling, tokens())
        self.mtu = mtu
        self.rtt = rtt
        self.now = 100.0
        self.lose: Callable[[Probe], bool] = lambda probe: False
        self.sent: list[tuple[float, Probe]] = []
        self.switched: list[object] = []
        self.coming: list[tuple[float, Probe]] = []
        self.sent_at = self.heard_at = 0.0
        self.traffic = False  # whether the peers talk anyway

    def start(self) -> World:
        self.paths.for_handshake(0)
        self.do(self.paths.established(HOME, self.now))
        return self

    def do(self, actions: list[object]) -> None:
        for action in actions:
            if isinstance(action, Switched):
                self.switched.append(action.address)
                continue
            self.sent.append((self.now, action))
            if action.size > self.kernel:
                self.do(self.paths.too_large(action.size, self.now))
            elif action.size <= self.mtu and not self.lose(action):
                self.coming.append((self.now + self.rtt, action))

    kernel = 1 << 16  # bytes that it sends at all

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            due = min([self.paths.deadline, *(when for when, _ in self.coming)])
            if due > end:
                break
            self.now = max(self.now, due)
            if self.traffic:
                self.sent_at = self.heard_at = self.now
            for arrival in [one for one in self.coming if one[0] <= self.now]:
                self.coming.remove(arrival)
                probe = arrival[1]
                self.heard_at = self.now
                size = probe.size or module.CHALLENGE
                self.do(self.paths.answered(probe.token, probe.number, size, probe.address, self.now))
            if self.now >= self.paths.deadline:
                self.do(self.paths.handle_timer(self.now, self.sent_at, self.heard_at))
                assert self.paths.deadline > self.now
        self.now = end

    def sizes(self) -> list[int]:
        return [probe.size for _, probe in self.sent]


def only(actions: list[object]) -> Probe:
    (probe,) = actions
    assert isinstance(probe, Probe)
    return probe


# --- the path in use


def test_the_size_of_a_challenge_is_the_wires():
    assert Challenge.SIZE + module.SEALED == module.CHALLENGE


def test_the_answered_initiation_proves_where_it_went():
    one = paths()
    assert one.address is None
    assert one.for_handshake(0) == HOME
    switched, probe = one.established(HOME, 5.0)
    assert switched == Switched(HOME, None)
    assert one.address == HOME
    assert one.mtu == FIRST_MTU
    assert one.room == FIRST_MTU - 32
    assert (probe.address, probe.size) == (HOME, 1472)


def test_a_response_from_elsewhere_proves_nothing_about_there():
    one = paths()
    one.for_handshake(0)
    switched, _, challenge = one.established(CAFE, 5.0)
    assert switched == Switched(HOME, None)
    assert one.address == HOME
    assert (challenge.address, challenge.size) == (CAFE, 0)


def test_the_responders_path():
    one = paths(endpoints=())
    assert one.for_handshake(0) is None
    assert one.confirmed(CAFE, CAFE, 5.0)[0] == Switched(CAFE, None)
    assert one.address == CAFE
    one.confirmed(CAFE, CAFE, 6.0)
    assert one.address == CAFE


def test_a_first_message_from_elsewhere_does_not_move_the_path():
    one = paths()
    one.for_handshake(0)
    one.established(HOME, 5.0)
    assert one.confirmed(CAFE, EVIL, 6.0) == []
    assert one.address == HOME
    fresh = paths(endpoints=())
    fresh.confirmed(CAFE, EVIL, 6.0)
    assert fresh.address == CAFE  # whoever made the message has got what was sent there


def test_roaming():
    one = paths()
    one.for_handshake(0)
    one.established(HOME, 0.0)
    probe = only(one.heard(CAFE, 100, 1.0))
    assert (probe.address, probe.size) == (CAFE, 0)
    assert one.address == HOME
    switched, search = one.answered(probe.token, probe.number, 56, CAFE, 1.2)
    assert switched == Switched(CAFE, HOME)
    assert one.address == CAFE
    assert search.number != probe.number
    assert one.mtu == FIRST_MTU


def test_a_new_path_starts_with_a_small_mtu_and_its_own_search():
    world = World().start()
    world.run(1)
    assert world.paths.mtu == 1472
    probe = only(world.paths.heard(CAFE, 100, world.now))
    world.mtu = 1392
    world.do(world.paths.answered(probe.token, probe.number, 56, CAFE, world.now))
    assert world.paths.mtu == FIRST_MTU
    world.run(30)
    assert world.paths.mtu == 1392


@pytest.mark.parametrize("what", ["source", "token", "number", "late", "twice"])
def test_answers_that_do_not_count(what: str):
    one = paths()
    one.for_handshake(0)
    one.established(HOME, 0.0)
    probe = only(one.heard(CAFE, 100, 1.0))
    token, number, source, when = probe.token, probe.number, CAFE, 1.1
    if what == "source":
        source = EVIL
    elif what == "token":
        token = bytes(16)
    elif what == "number":
        number += 1
    elif what == "late":
        when = 11.0
    else:
        one.answered(token, number, 56, source, when)
        only(one.heard(HOME, 100, 2.0))
        one.established(HOME, 2.1)
        assert one.address == HOME
    assert one.answered(token, number, 56, source, when) == []
    assert one.address == HOME


def test_an_answer_that_is_just_in_time():
    one = paths()
    one.for_handshake(0)
    one.established(HOME, 0.0)
    probe = only(one.heard(CAFE, 100, 1.0))
    one.answered(probe.token, probe.number, 56, CAFE, 10.9)
    assert one.address == CAFE


def test_answers_out_of_order_do_not_turn_the_path_back():
    one = paths()
    one.for_handshake(0)
    one.established(HOME, 0.0)
    first = only(one.heard(EVIL, 100, 1.0))
    second = only(one.heard(CAFE, 100, 2.0))
    one.answered(second.token, second.number, 56, CAFE, 2.1)
    assert one.answered(first.token, first.number, 56, EVIL, 2.2) == []
    assert one.address == CAFE


def test_one_challenge_in_half_a_second():
    one = paths()
    one.for_handshake(0)
    one.established(HOME, 0.0)
    assert one.heard(CAFE, 1000, 1.0)
    assert one.heard(CAFE, 1000, 1.25) == []
    assert one.heard(EVIL, 1000, 1.49) == []
    assert one.heard(CAFE, 1000, 1.5)


def test_never_more_than_three_times_what_came():
    one = paths()
    one.for_handshake(0)
    one.established(HOME, 0.0)
    sent = received = 0
    for step in range(200):
        received += 36
        for probe in one.heard(EVIL, 36, 1.0 + step * 0.6):
            sent += max(probe.size, module.CHALLENGE)
        assert sent <= 3 * received
    assert sent > received
    assert paths().heard(EVIL, 18, 1.0) == []  # 3 × 18 is less than a challenge
    assert paths().heard(EVIL, 19, 1.0)


def test_strange_addresses_cost_bounded_memory():
    one = paths()
    one.for_handshake(0)
    one.established(HOME, 0.0)
    for number in range(1000):
        one.heard(("192.0.2.9", number), 100, 1.0 + number)
    assert len(one._strange) <= 4
    assert len(one._waiting) <= 16


def test_handshakes_go_to_the_path_and_the_endpoint_in_turn():
    one = paths(endpoints=(HOME, ("2001:db8::1", 1)))
    assert [one.for_handshake(attempt) for attempt in range(3)] == [HOME, ("2001:db8::1", 1), HOME]
    one.confirmed(CAFE, CAFE, 1.0)
    assert [one.for_handshake(attempt) for attempt in range(4)] == [CAFE, HOME, ("2001:db8::1", 1), CAFE]
    one.for_handshake(1)
    one.established(HOME, 2.0)
    assert one.address == HOME


# --- the path MTU


@pytest.mark.parametrize(
    ("ceiling", "mtu", "found"),
    [
        (1472, 1472, 1472),
        (1452, 1452, 1452),
        (1472, 1464, 1452),
        (1472, 1232, 1232),
        (1472, 1251, 1232),
        (1472, 1252, 1252),
        (1472, 1400, 1392),
        (8972, 8972, 8972),
        (8972, 1472, 1472),
        (65507, 65507, 65507),
        (1440, 1500, 1440),
        (1232, 1500, 1232),
        (900, 1500, 900),
    ],
)
@pytest.mark.parametrize("traffic", [False, True])
def test_the_search(ceiling: int, mtu: int, found: int, traffic: bool):
    world = World(ceiling, mtu)
    world.traffic = traffic
    world.start().run(120)
    assert world.paths.mtu == found
    assert max(world.sizes(), default=0) <= ceiling


def test_one_answer_is_enough_and_the_largest_comes_first():
    world = World().start()
    world.run(50)
    assert world.sizes() == [1472]


def test_three_tries_a_second_apart():
    world = World(mtu=1452)
    world.traffic = True
    world.start().run(30)
    tries = [when - 100.0 for when, probe in world.sent if probe.size == 1472]
    assert tries == [0.0, 1.0, 2.0]
    assert [when - 100.0 for when, probe in world.sent if probe.size == 1452] == [3.0]


def test_two_lost_tries_are_no_proof():
    world = World()
    lost = itertools.count()
    world.lose = lambda probe: next(lost) < 2
    world.start().run(30)
    assert world.paths.mtu == 1472


def test_a_late_answer_to_a_larger_size_counts():
    world = World(rtt=3.5)
    world.traffic = True
    world.start().run(30)
    assert world.paths.mtu == 1472
    assert set(world.sizes()) == {1472, 1452}


def test_an_answer_that_says_less_came_is_not_believed_to_mean_more():
    one = paths()
    one.for_handshake(0)
    probe = one.established(HOME, 0.0)[1]
    one.answered(probe.token, probe.number, 1400, HOME, 0.1)
    assert one.mtu == 1400
    probe = only(one.handle_timer(1.0, 0.0, 0.9))
    one.answered(probe.token, probe.number, 9000, HOME, 1.1)
    assert one.mtu == 1472


def test_nobody_elses_answer_raises_the_mtu():
    one = paths()
    one.for_handshake(0)
    probe = one.established(HOME, 0.0)[1]
    assert one.answered(probe.token, probe.number, 1472, EVIL, 0.1) == []
    assert one.mtu == FIRST_MTU


def test_the_search_is_repeated_every_ten_minutes():
    world = World(mtu=1392)
    world.start().run(100)
    assert world.paths.mtu == 1392
    world.mtu = 1472
    world.run(499)
    assert world.paths.mtu == 1392
    world.run(2)
    assert world.paths.mtu == 1472


def test_what_the_kernel_refuses_needs_no_three_tries():
    world = World(ceiling=9000, mtu=1472)
    world.kernel = 1452
    world.start().run(0.5)
    assert world.paths.mtu == 1452
    assert world.sizes() == [9000, 8972, 8952, 4048, 1472, 1452]


def test_the_kernel_refuses_what_is_in_force():
    world = World().start()
    world.run(1)
    world.kernel = world.mtu = 1420
    world.do(world.paths.too_large(1472, world.now))
    assert world.paths.mtu == FIRST_MTU
    world.run(1)
    assert world.paths.mtu == 1420


def test_the_kernel_refuses_even_the_first_size():
    world = World().start()
    world.run(1)
    for size, left in ((1232, 1000), (1000, 548), (548, 548)):
        world.paths.too_large(size, world.now)
        assert world.paths.mtu == left


@pytest.mark.parametrize("heard", [False, True])
def test_a_black_hole_for_large_ones_is_found_within_a_minute(heard: bool):
    """Small ones still pass, so that the peer is never silent."""
    world = World().start()
    world.run(10)
    assert world.paths.mtu == 1472
    world.mtu = 1380
    world.traffic = heard
    world.sent_at = world.now + 20
    world.run(65)
    assert world.paths.mtu == FIRST_MTU
    world.run(30)
    assert world.paths.mtu == 1372


def test_an_idle_path_is_not_probed_again_and_again():
    world = World().start()
    world.run(10)
    before = len(world.sent)
    world.run(500)
    assert len(world.sent) == before


def test_a_used_path_is_confirmed_once_a_minute():
    world = World()
    world.traffic = True
    world.start().run(590)
    assert set(world.sizes()) == {1472}
    gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(world.sent)]
    assert gaps == pytest.approx([60.05] * 9)  # a minute after the last answer


def test_an_outage_is_no_black_hole():
    """Everything is lost for a while: that says nothing about sizes."""
    world = World()
    world.lose = lambda probe: True
    world.start().run(120)
    assert 1472 not in world.sizes()[3:]  # small ones ask whether the peer is there
    assert len(world.sent) < 15
    world.lose = lambda probe: False
    world.run(64)
    assert world.paths.mtu == 1452  # the size that was being tried counts as lost, no other
    world.run(600)
    assert world.paths.mtu == 1472


def test_silence_falls_back_and_waits_for_the_handshake():
    world = World().start()
    world.run(5)
    assert world.paths.mtu == 1472
    world.paths.silent()
    assert world.paths.mtu == FIRST_MTU
    assert world.paths.deadline == NEVER
    assert world.paths.address == HOME
    before = len(world.sent)
    world.run(1000)
    assert len(world.sent) == before
    world.mtu = 1452
    world.do(world.paths.established(HOME, world.now))
    world.run(10)
    assert world.paths.mtu == 1452
    assert world.switched == [HOME]


def test_a_handshake_on_a_good_path_disturbs_nothing():
    world = World().start()
    world.run(5)
    deadline = world.paths.deadline
    assert world.paths.established(HOME, world.now) == []
    assert world.paths.confirmed(HOME, HOME, world.now) == []
    assert (world.paths.mtu, world.paths.deadline) == (1472, deadline)


def test_the_interface_becomes_smaller():
    world = World().start()
    world.run(5)
    world.ceiling = 1372
    world.run(600)
    assert world.paths.mtu == 1372


@given(st.integers(548, 9000), st.integers(1232, 9000), st.lists(st.booleans(), max_size=40))
def test_whatever_is_lost_what_is_in_force_has_passed(mtu: int, ceiling: int, losses: list[bool]):
    """Invariant: a size above the first is in force only if a datagram of that size was answered."""
    world = World(ceiling, max(mtu, FIRST_MTU))
    world.traffic = True
    pattern = iter(losses)
    world.lose = lambda probe: next(pattern, False)
    world.start()
    for _ in range(20):
        world.run(7)
        assert FIRST_MTU <= world.paths.mtu <= min(world.mtu, ceiling)
    if not any(losses):
        best = max(size for size in (*module.LADDER, ceiling) if size <= min(world.mtu, ceiling))
        assert world.paths.mtu == best


STEPS = st.sampled_from(
    ["heard", "answer", "forged", "late", "established", "confirmed", "silent", "timer", "large"]
)


@given(st.lists(st.tuples(STEPS, st.sampled_from([HOME, CAFE, EVIL]), st.floats(0, 20)), max_size=40))
def test_only_an_address_that_answered_is_ever_the_path(steps: list[tuple[str, object, float]]):
    """Invariant: whatever happens in whatever order, nothing is raised, and the path has proved itself."""
    one = paths()
    now, proved, probes = 0.0, {None}, []
    for what, address, seconds in steps:
        now += seconds
        actions: list[object] = []
        if what == "heard" and address != one.address:
            actions = one.heard(address, 100, now)
        elif what in ("answer", "late") and probes:
            probe = probes.pop(-1 if what == "answer" else 0)
            proved.add(probe.address)
            actions = one.answered(probe.token, probe.number, probe.size or 56, probe.address, now)
        elif what == "forged" and probes:
            actions = one.answered(probes[-1].token, probes[-1].number, 1472, ("other", 1), now)
            assert actions == []
        elif what == "established":
            proved.add(one.for_handshake(int(seconds)))
            actions = one.established(address, now)
        elif what == "confirmed":
            proved.add(address)
            actions = one.confirmed(address, address, now)
        elif what == "silent":
            one.silent()
        elif what == "timer":
            actions = one.handle_timer(now, now, now)
        elif what == "large":
            actions = one.too_large(int(seconds * 80) + 1, now)
        probes += [action for action in actions if isinstance(action, Probe)]
        assert one.address in proved
        assert 548 <= one.mtu <= 1472
