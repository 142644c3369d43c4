"""The table of TCP flows beside a naive model of it, with small pools, small caps and a clock by hand."""

import gc
import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from nat.expiry import Expiry
from nat.flow import State
from nat.gateway import Gateway
from nat.table import CLOSING_S, HALF_OPEN_S, LINGER_S, TIME_WAIT_S, AliasPool, Table
from tests.nat.world import ALIAS4, ALIAS6, Device, packed

pytestmark = pytest.mark.packet_path

APP = packed("100.64.0.1")
APP6 = packed("fd00::1")
LISTENER, PORT = packed("127.0.0.1"), 5000
FIN, RST = 1, 4


class Clock:
    """What the table and its gateway ask of a loop."""

    def __init__(self):
        self.now = 1000.0
        self.queues = []

    def expiry(self, delay_s, expired):
        self.queues.append(Expiry(delay_s, expired))
        return self.queues[-1]

    def forward(self, seconds):
        self.now += seconds
        for queue in self.queues:
            queue.sweep(self.now)


class Lab:
    """A table with nothing around it."""

    def __init__(self, prefix=16, limit=65_536, half_open=8_192):
        self.clock = Clock()
        self.device = Device()
        self.gateway = Gateway(self.clock, self.device)
        pools = {4: AliasPool(ALIAS4, prefix), 16: AliasPool(ALIAS6, 64)}
        self.table = Table(self.gateway, self.clock.expiry, pools, limit, half_open)
        self.table.listen(LISTENER, PORT)
        self.table.listen(packed("::1"), PORT)
        self.evicted = []
        self.table.evicted = self.evicted.append

    def open(self, port, target=1, target_port=443, isn=0, app=APP):
        far = bytes(len(app) - 4) + target.to_bytes(4, "big")
        key = app + far + port.to_bytes(2, "big") + target_port.to_bytes(2, "big")
        return self.table.open(self.gateway, key, app, port, far, target_port, isn, self.clock.now)

    def established(self, *args, **kwargs):
        flow = self.open(*args, **kwargs)
        self.table.establish(flow)
        return flow

    def close(self):
        self.device.close()


@pytest.fixture
def lab():
    made = Lab()
    yield made
    made.close()


def flows_in_memory():
    return sum(type(thing).__name__ == "TcpFlow" for thing in gc.get_objects())


def alias_of(flow):
    size = len(flow.source_address)
    return flow.reverse[size : 2 * size]


@pytest.mark.parametrize("app", [APP, APP6], ids=["v4", "v6"])
def test_a_flow_is_found_from_both_sides_and_by_its_accept(lab, app):
    flow = lab.open(40_000, app=app)
    assert lab.table.get(flow.key) is flow
    assert lab.table.get(flow.reverse) is flow
    assert lab.table.accepted(alias_of(flow), 40_000) is flow
    assert lab.table.accepted(alias_of(flow), 40_001) is None
    assert list(lab.table) == [flow]
    assert len(lab.table) == 1
    assert flow.state == State.HALF_OPEN


def test_no_flow_of_a_family_that_nobody_listens_for():
    bare = Lab()
    table = Table(bare.gateway, bare.clock.expiry, {4: AliasPool(ALIAS4, 16)})
    assert table.open(bare.gateway, b"k" * 12, APP, 1, APP, 2, 3, 0.0) is None
    bare.close()


def test_every_new_flow_of_a_port_takes_the_next_alias(lab):
    flows = [lab.open(40_000, target) for target in range(5)]
    low = [int.from_bytes(alias_of(flow), "big") for flow in flows]
    assert low == list(range(low[0], low[0] + 5))
    assert low[0] == int.from_bytes(ALIAS4, "big") + 1  # never the network's own address
    other = lab.open(40_001)
    assert alias_of(other) == alias_of(flows[0])  # ports do not share aliases


def test_aliases_go_round_past_those_in_use():
    lab = Lab(prefix=29)  # six usable
    stays = lab.established(40_000, 0)
    seen = []
    for target in range(1, 11):
        flow = lab.open(40_000, target)
        seen.append(flow.alias)
        lab.table.remove(flow)
    assert seen == [1, 2, 3, 4, 5] * 2
    assert lab.table.get(stays.reverse) is stays
    lab.close()


def test_a_port_with_all_its_aliases_in_use_gets_no_more():
    lab = Lab(prefix=30)  # two usable
    first, second = lab.established(40_000, 0), lab.established(40_000, 1)
    assert lab.open(40_000, 2) is None
    assert lab.open(40_001, 2) is not None
    lab.table.remove(first)
    assert lab.open(40_000, 2).alias == 0
    assert second.alias == 1
    lab.close()


@pytest.mark.parametrize("prefix", [31, 32])
def test_a_block_without_room_for_an_alias(prefix):
    with pytest.raises(ValueError, match="at least 4"):
        AliasPool(ALIAS4, prefix)


def test_the_pool_stays_within_its_block():
    pool = AliasPool(packed("10.0.0.240"), 28)
    indexes = [pool.take(7) for _ in range(14)]
    addresses = {pool.address(index) for index in indexes}
    assert addresses == {packed(f"10.0.0.{n}") for n in range(241, 255)}
    assert pool.take(7) == indexes[0]
    large = AliasPool(ALIAS6, 64)
    assert large.address(large.usable - 1) == packed("fd00:0:0:ffff::fffe")


def test_half_open_flows_end_by_themselves(lab):
    flow = lab.open(40_000)
    lab.clock.forward(HALF_OPEN_S - 1)
    assert len(lab.table) == 1
    lab.clock.forward(2)
    assert len(lab.table) == 0
    assert lab.evicted == [flow]


def test_established_flows_are_nobody_s_business_here(lab):
    flow = lab.established(40_000)
    lab.clock.forward(100_000)
    assert lab.table.get(flow.key) is flow
    assert lab.evicted == []


@pytest.mark.parametrize("order", [(True, False), (False, True)])
@pytest.mark.parametrize("when", ["before", "after", "between"])
def test_both_fins_make_a_closed_flow_that_lingers_and_rests(order, when):
    lab = Lab(prefix=29)
    flow = lab.established(40_000)
    steps = [lambda out=out: lab.table.closing_flags(flow, out, FIN) for out in order]
    steps.insert({"before": 0, "between": 1, "after": 2}[when], lambda: lab.table.close(flow, lab.clock.now))
    for step in steps[:2]:
        step()
        assert flow.state != State.CLOSED
    steps[2]()
    assert flow.state == State.CLOSED
    lab.clock.forward(LINGER_S + 0.1)
    assert lab.table.get(flow.reverse) is flow  # the pair rests
    lab.clock.forward(TIME_WAIT_S)
    assert len(lab.table) == 0
    lab.close()


def test_a_reset_closes_at_once(lab):
    flow = lab.established(40_000)
    lab.table.close(flow, lab.clock.now)
    assert flow.state == State.CLOSING
    lab.table.closing_flags(flow, True, RST)
    assert flow.state == State.CLOSED


def test_a_half_open_flow_that_is_reset_is_given_up(lab):
    flow = lab.open(40_000)
    lab.table.closing_flags(flow, True, RST)
    assert lab.evicted == [flow]
    assert len(lab.table) == 0


def test_a_closing_flow_that_falls_silent_is_forgotten(lab):
    flow = lab.established(40_000)
    lab.table.close(flow, lab.clock.now)
    lab.table.close(flow, lab.clock.now)  # harmless
    lab.clock.forward(CLOSING_S - 1)
    flow.touched = lab.clock.now  # the kernel still delivers
    lab.clock.forward(2)
    assert len(lab.table) == 1
    lab.clock.forward(CLOSING_S)
    assert len(lab.table) == 0


def test_a_busy_port_of_a_large_block_does_not_keep_its_old_flows(lab):
    """What rests costs memory: only pairs that the port could come back to within TIME_WAIT do."""
    flow = lab.established(40_000)
    lab.table.close(flow, lab.clock.now)
    lab.table.closing_flags(flow, True, RST)
    lab.clock.forward(LINGER_S + 0.1)
    assert len(lab.table) == 0


def test_a_flow_gives_up_its_key_to_its_successor(lab):
    old = lab.established(40_000, isn=1)
    lab.table.replace(old)
    new = lab.open(40_000, isn=2)
    assert new.key == old.key
    assert new.reverse != old.reverse
    assert lab.table.get(new.key) is new
    assert lab.table.get(old.reverse) is old
    assert len(lab.table) == 2
    lab.table.remove(old)
    assert lab.table.get(new.key) is new
    assert len(lab.table) == 1


def test_a_syn_flood_pushes_out_only_its_own():
    lab = Lab(limit=200, half_open=50)
    friends = [lab.established(port) for port in range(1000, 1100)]
    leaving = [lab.established(port) for port in range(1200, 1210)]
    for flow in leaving:
        lab.table.close(flow, lab.clock.now)
    waiting = lab.open(999)
    for number in range(5_000):
        lab.clock.forward(0.001)
        assert lab.open(2000 + number) is not None
        assert len(lab.table.half_open) <= 50
    assert len(lab.evicted) == 5_001 - 50
    assert lab.evicted[0] is waiting
    assert all(lab.table.get(flow.key) is flow for flow in friends + leaving)
    assert len(lab.table) == 160
    lab.close()


def test_a_table_full_of_established_flows_takes_no_more():
    lab = Lab(limit=10, half_open=5)
    for port in range(10):
        lab.established(1000 + port)
    assert lab.open(5000) is None
    assert len(lab.table) == 10
    lab.close()


def test_flows_that_are_over_make_room_before_anyone():
    lab = Lab(prefix=29, limit=10, half_open=5)
    over = [lab.established(1000 + port) for port in range(9)]
    for flow in over:
        lab.table.close(flow, lab.clock.now)
        lab.table.closing_flags(flow, True, RST)
    half_open = lab.open(3000)
    others = [lab.established(4000 + port) for port in range(9)]
    assert all(others)
    assert lab.table.get(half_open.key) is half_open
    assert lab.evicted == []
    assert len(lab.table) <= 20
    lab.close()


@pytest.mark.parametrize("how", ["remove", "expire", "reset", "replace"])
def test_what_is_forgotten_needs_no_garbage_collector(lab, how):
    """No reference cycles: when nobody holds a flow any more, its memory is free."""
    gc.collect()
    gc.disable()
    try:
        flow = lab.open(40_000)
        if how == "remove":
            lab.table.remove(flow)
        elif how == "expire":
            lab.clock.forward(HALF_OPEN_S + 1)
        elif how == "reset":
            lab.table.establish(flow)
            lab.table.closing_flags(flow, True, RST)
            lab.table.close(flow, lab.clock.now)
            lab.clock.forward(LINGER_S + 1)
            lab.clock.forward(TIME_WAIT_S + 1)
        else:
            lab.table.replace(flow)
            lab.table.remove(flow)
        lab.evicted.clear()
        assert len(lab.table) == 0
        del flow
        assert flows_in_memory() == 0
    finally:
        gc.enable()


def test_a_flood_leaves_no_memory_behind():
    lab = Lab(limit=100, half_open=100)
    gc.collect()
    gc.disable()
    try:
        for number in range(3_000):
            lab.open(1 + number % 60_000, number)
            lab.evicted.clear()
        assert flows_in_memory() == 100
        assert len(lab.gateway.rewrites) == 200
    finally:
        gc.enable()
    lab.close()


class Model(RuleBasedStateMachine):
    """The naive model: every flow that should be there, in one list, looked through each time."""

    LIMIT, HALF_OPEN, PREFIX = 12, 5, 29
    flows = Bundle("flows")

    def __init__(self):
        super().__init__()
        self.lab = Lab(self.PREFIX, self.LIMIT, self.HALF_OPEN)
        self.live = {}  # reverse → (flow, state, replaced)
        self.gave_up = []
        self.lab.table.evicted = self.gave_up.append
        self.closed_at = {}  # pair → when it was closed
        self.fins = {}  # flow → the sides whose FIN was seen
        self.numbers = itertools.count(1)

    def teardown(self):
        self.lab.close()

    # What the table said that it gave up must have been half-open.
    def account(self):
        for flow in self.gave_up:
            assert self.state(flow) == State.HALF_OPEN
            del self.live[flow.reverse]
        self.gave_up.clear()

    def state(self, flow):
        return self.live[flow.reverse][1]

    def has(self, flow):
        return self.live.get(flow.reverse, (None,))[0] is flow

    def of_state(self, *states):
        return [flow for flow, state, _ in self.live.values() if state in states]

    def forget_some(self, states):
        """The table may have dropped some of these: see which."""
        for flow in self.of_state(*states):
            if self.lab.table.get(flow.reverse) is not flow:
                del self.live[flow.reverse]

    @rule(target=flows, port=st.integers(1, 3), target_number=st.integers(1, 4))
    def open(self, port, target_number):
        lab = self.lab
        same = [
            flow
            for flow, _, replaced in self.live.values()
            if not replaced and flow.source_port == port and flow.target[-1] == target_number
        ]
        if same:  # as `Tcp` does: a new SYN replaces
            (old,) = same
            lab.table.replace(old)
            self.live[old.reverse] = (old, self.state(old), True)
            if self.state(old) == State.HALF_OPEN:
                lab.table.remove(old)
                del self.live[old.reverse]
        over = len(self.of_state(State.CLOSED))
        counted = len(self.live) - over
        half_open = len(self.of_state(State.HALF_OPEN))
        established = len(self.of_state(State.ESTABLISHED))
        in_use = {flow.alias for flow, _, _ in self.live.values() if flow.source_port == port}
        flow = lab.open(port, target_number, isn=next(self.numbers))
        self.account()
        if over >= self.LIMIT:
            self.forget_some([State.CLOSED])
        if half_open == 0 and counted >= self.LIMIT:
            self.forget_some([State.CLOSING])
        if flow is None:
            assert established >= self.LIMIT or len(in_use) == 6
            return multiple()
        pair = (alias_of(flow), port)
        assert flow.alias not in {f.alias for f, _, _ in self.live.values() if f.source_port == port}
        if over < self.LIMIT:  # else memory comes first
            assert lab.clock.now - self.closed_at.get(pair, -1e9) >= TIME_WAIT_S
        self.live[flow.reverse] = (flow, State.HALF_OPEN, False)
        self.fins[flow] = set()
        return flow

    @rule(flow=flows)
    def establish(self, flow):
        if self.has(flow) and self.state(flow) == State.HALF_OPEN:
            self.lab.table.establish(flow)
            self.live[flow.reverse] = (flow, State.ESTABLISHED, self.live[flow.reverse][2])

    @rule(flow=flows)
    def close(self, flow):
        if self.has(flow) and self.state(flow) == State.ESTABLISHED:
            self.lab.table.close(flow, self.lab.clock.now)
            self.become(flow, State.CLOSED if len(self.fins[flow]) == 2 else State.CLOSING)

    def become(self, flow, state):
        self.live[flow.reverse] = (flow, state, self.live[flow.reverse][2])
        if state == State.CLOSED:
            self.closed_at[alias_of(flow), flow.source_port] = self.lab.clock.now

    @rule(flow=flows, outward=st.booleans(), flags=st.sampled_from((FIN, FIN, RST)))
    def flags(self, flow, outward, flags):
        if not self.has(flow):
            return
        before = self.state(flow)
        self.fins[flow] |= {True, False} if flags == RST else {outward}
        self.lab.table.closing_flags(flow, outward, flags)
        if before == State.HALF_OPEN and flags == RST:
            assert self.gave_up == [flow]
            self.account()
        elif before == State.CLOSING and len(self.fins[flow]) == 2:
            self.become(flow, State.CLOSED)

    @rule(flow=consumes(flows))
    def remove(self, flow):
        if self.has(flow):
            self.lab.table.remove(flow)
            del self.live[flow.reverse]
            self.closed_at.pop((alias_of(flow), flow.source_port), None)

    @rule(flow=flows)
    def packet(self, flow):
        """A packet of the flow was rewritten."""
        if self.has(flow) and flow.forth.watched:
            flow.touched = self.lab.clock.now

    @rule(seconds=st.sampled_from((0.5, LINGER_S + 0.1, 25.0, TIME_WAIT_S + 0.1, HALF_OPEN_S + 0.1)))
    def wait(self, seconds):
        now = self.lab.clock.now + seconds
        silent = {flow: now - flow.touched for flow, _, _ in self.live.values()}
        due = {
            State.HALF_OPEN: HALF_OPEN_S,
            State.CLOSING: CLOSING_S,
            State.CLOSED: TIME_WAIT_S,
            State.ESTABLISHED: 1e12,
        }
        self.lab.clock.forward(seconds)
        self.account()
        for flow, state, _ in list(self.live.values()):
            there = self.lab.table.get(flow.reverse) is flow
            if not there:
                assert silent[flow] >= due[state]
                del self.live[flow.reverse]
            else:
                assert silent[flow] < 3 * due[state] + 2 * seconds

    @invariant()
    def as_the_model_says(self):
        table, rewrites = self.lab.table, self.lab.gateway.rewrites
        assert len(table) == len(self.live)
        keys = {flow.key for flow, _, replaced in self.live.values() if not replaced}
        assert set(rewrites) == keys | set(self.live)
        assert {flow.number for flow in table} == {f.number for f, _, r in self.live.values() if not r}
        for reverse, (flow, state, replaced) in self.live.items():
            assert flow.state == state
            assert rewrites[reverse].flow is flow
            assert replaced or rewrites[flow.key].flow is flow
        assert len(self.of_state(State.HALF_OPEN)) <= self.HALF_OPEN
        assert len(self.live) - len(self.of_state(State.CLOSED)) <= self.LIMIT


Model.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestModel = Model.TestCase
