"""The map of fake addresses against a naive one, and its promises: who is recycled, who never, what survives."""

import os
import signal
import sqlite3
import subprocess
import sys
from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from zignet.dns.fakes import FIRST, Fakes
from zignet.dns.store import NAME, FakeStore

POOL4, POOL6 = IPv4Network("198.19.0.0/16"), IPv6Network("2001:2::/64")
SMALL = IPv4Network("198.19.0.0/28")  # 13 names
MIN_AGE_S = 600


class Clock:
    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


class Memory:
    """A journal that remembers like a file whose writer was killed: what was not saved is lost."""

    def __init__(self):
        self.ceiling = FIRST
        self.rows = {}
        self.unsaved = {}

    def reserve(self, ceiling):
        self.ceiling = max(self.ceiling, ceiling)

    def release(self, numbers):
        for number in numbers:
            self.rows.pop(number, None)
            self.unsaved.pop(number, None)

    def assigned(self, number, key, wall):
        self.unsaved[number] = (key, wall)

    def save(self):
        self.rows |= self.unsaved
        self.unsaved = {}


@pytest.fixture
def clock():
    return Clock()


def numbers(fakes):
    """By name."""
    found = {fakes._table.key(number): number for number in range(fakes.next)}
    found = {key: number for key, number in found.items() if key[:1] not in ("", " ")}
    assert len(found) == len(fakes)
    return found


def made(clock, pool4=POOL4, **more):
    return Fakes(pool4, POOL6, Memory(), clock, **more)


def test_both_families_have_one_number(clock):
    fakes = made(clock)
    number = fakes.number_of("www.video.example")
    assert fakes.number_of("www.video.example") == number
    assert fakes.address4(number) == bytes((198, 19, 0, number))
    assert fakes.address6(number) == bytes.fromhex("20010002") + bytes(11) + bytes((number,))
    for address in (fakes.address4(number), fakes.address6(number)):
        assert fakes.lookup(address) == ("www.video.example", "")
        assert fakes.use(address) == ("www.video.example", "")


def test_a_name_by_an_exit_is_another(clock):
    fakes = made(clock)
    plain, tokyo, office = (fakes.number_of("a.example", by) for by in ("", "tokyo", "the office"))
    assert len({plain, tokyo, office}) == 3
    assert fakes.lookup(fakes.address4(office)) == ("a.example", "the office")


@pytest.mark.parametrize(
    "address", ["198.19.0.0", "198.19.0.1", "198.19.0.99", "198.19.255.255", "198.18.255.255", "0.0.0.0"]
)
def test_addresses_that_mean_nothing(clock, address):
    fakes = made(clock)
    fakes.number_of("a.example")
    assert fakes.lookup(bytes(map(int, address.split(".")))) is None


@pytest.mark.parametrize(
    "address", [bytes(16), b"\xff" * 16, POOL6.network_address.packed, POOL6.broadcast_address.packed]
)
def test_addresses_that_mean_nothing_v6(clock, address):
    fakes = made(clock)
    fakes.number_of("a.example")
    assert fakes.use(address) is None


def test_a_full_pool(clock):
    fakes = made(clock, SMALL)
    given_ = [fakes.number_of(f"{n}.example") for n in range(20)]
    assert given_[13:] == [None] * 7
    assert len(set(given_[:13])) == 13
    assert fakes.full == 7
    assert fakes.number_of("0.example") == given_[0]


def test_the_least_recently_used_goes_first_and_not_before_it_has_rested(clock):
    fakes = made(clock, SMALL)
    numbers = {n: fakes.number_of(f"{n}.example") for n in range(13)}
    clock.now += MIN_AGE_S - 1
    assert fakes.number_of("0.example") == numbers[0]  # used again
    assert fakes.number_of("new.example") is None
    clock.now += 2
    assert fakes.number_of("new.example") == numbers[1]
    assert fakes.lookup(fakes.address4(numbers[1])) == ("new.example", "")
    assert fakes.lookup(fakes.address4(numbers[0])) == ("0.example", "")


def test_what_a_live_flow_has_is_not_recycled(clock):
    live = set()
    fakes = made(clock, SMALL, live=lambda: live)
    numbers = [fakes.number_of(f"{n}.example") for n in range(13)]
    live |= {fakes.address4(numbers[0]), fakes.address6(numbers[1])}
    clock.now += 100 * MIN_AGE_S
    new = [fakes.number_of(f"new{n}.example") for n in range(20)]
    assert set(new) - {None} == set(numbers[2:])
    assert fakes.lookup(fakes.address4(numbers[0])) == ("0.example", "")
    assert fakes.lookup(fakes.address6(numbers[1])) == ("1.example", "")


def test_a_flood_of_names_pushes_out_its_own(clock):
    fakes = made(clock, SMALL)
    mine = [fakes.number_of(f"mine{n}.example") for n in range(5)]
    for number in mine:
        fakes.use(fakes.address4(number))
    for turn in range(200):
        clock.now += MIN_AGE_S / 4
        fakes.number_of(f"flood{turn}.example")
    for n, number in enumerate(mine):
        assert fakes.lookup(fakes.address4(number)) == (f"mine{n}.example", "")


class Kills(RuleBasedStateMachine):
    """Names, flows, time, saves and kills in any order: an address never means two names within the minimum age."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.journal = Memory()
        self.live = set()
        self.told = {}  # address -> name, until
        self.start()

    def start(self):
        self.fakes = Fakes(
            SMALL, POOL6, self.journal, self.clock, live=lambda: self.live, min_age_s=MIN_AGE_S
        )
        rows = sorted((wall, number, key) for number, (key, wall) in self.journal.rows.items())
        self.fakes.restore([(number, key, wall, 0) for wall, number, key in rows], self.journal.ceiling)

    @rule(n=st.integers(0, 30))
    def ask(self, n):
        number = self.fakes.number_of(f"{n}.example")
        if number is None:
            return
        address = self.fakes.address4(number)
        before = self.told.get(address)
        if before is not None and before[0] != f"{n}.example":
            assert before[1] <= self.clock.now, "an address that somebody still remembers"
            assert address not in self.live
        self.told[address] = (f"{n}.example", self.clock.now + MIN_AGE_S - 16)  # uses are noted coarsely

    @rule(n=st.integers(0, 15))
    def flow(self, n):
        address = self.fakes.address4(n)
        if self.fakes.use(address) is not None:
            self.live.add(address)

    @rule()
    def flows_end(self):
        self.live.clear()

    @rule(seconds=st.sampled_from([1, 100, MIN_AGE_S, 10 * MIN_AGE_S]))
    def time_passes(self, seconds):
        self.clock.now += seconds

    @rule()
    def save(self):
        self.journal.save()

    @rule()
    def kill(self):
        self.journal.unsaved = {}
        self.live.clear()
        self.start()

    @invariant()
    def both_ways_agree(self):
        for key, number in numbers(self.fakes).items():
            assert self.fakes.lookup(self.fakes.address4(number)) == (key, "")
            assert self.fakes._table.find(key) == number
        seen = []
        for ring in (0, 1):
            number = self.fakes._after[ring]
            while number != ring:
                seen.append(number)
                number = self.fakes._after[number]
        assert sorted([*seen, *self.fakes._ready]) == list(range(FIRST, self.fakes.next))


Kills.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestKills = Kills.TestCase


@given(st.lists(st.sampled_from([f"{n}.example" for n in range(50)]), max_size=200))
def test_against_a_dictionary(names):
    fakes = made(Clock())
    oracle = {}
    for name in names:
        number = fakes.number_of(name)
        assert oracle.setdefault(name, number) == number
    assert len(set(oracle.values())) == len(oracle) == len(fakes)


# --- in a file


def stored(directory, clock, pool4=POOL4, notes=None):
    store = FakeStore(directory, f"{pool4} {POOL6}", note=(notes if notes is not None else []).append)
    fakes = Fakes(pool4, POOL6, store, clock)
    fakes.restore(store.rows(), store.ceiling)
    return store, fakes


def test_names_keep_their_numbers(tmp_path, clock):
    store, fakes = stored(tmp_path, clock)
    numbers = {
        name: fakes.number_of(name, "x" * (n % 2)) for n, name in enumerate(["a.example", "b.example"])
    }
    fakes.use(fakes.address4(numbers["b.example"]))
    store.save(fakes.touched(100))
    store.close()
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    store, fakes = stored(tmp_path, clock)
    assert fakes.number_of("a.example") == numbers["a.example"]
    assert fakes.number_of("b.example", "x") == numbers["b.example"]
    assert fakes._proven[numbers["b.example"]]
    assert fakes.number_of("c.example") not in numbers.values()
    store.close()


def test_what_was_not_saved_is_not_given_to_another(tmp_path, clock):
    store, fakes = stored(tmp_path, clock)
    lost = fakes.number_of("lost.example")
    store._db.close()  # as a kill does: `save` did not come
    store, fakes = stored(tmp_path, clock)
    assert fakes.lookup(fakes.address4(lost)) is None
    assert fakes.number_of("other.example") > lost
    store.close()


def test_a_restart_wastes_no_numbers(tmp_path, clock):
    for turn in range(5):
        store, fakes = stored(tmp_path, clock)
        assert fakes.number_of(f"{turn}.example") == FIRST + turn
        store.close(fakes.next)


def test_in_a_small_pool_little_is_reserved(tmp_path, clock):
    for turn in range(5):  # five kills
        store, fakes = stored(tmp_path, clock, SMALL)
        assert fakes.number_of(f"{turn}.example")
        store.save()
        store._db.close()


def test_rows_of_other_kinds_are_left_out(tmp_path, clock):
    store, fakes = stored(tmp_path, clock)
    store._db.execute(
        "INSERT INTO fakes VALUES (5, 'a.example', 'yesterday', 0), (6, x'ff', 7, 0), (7, 'b.example', 7, 0)"
    )
    store.reserve(100)
    store.close()
    store, fakes = stored(tmp_path, clock)
    assert list(numbers(fakes)) == ["b.example"]
    store.close()


def test_other_pools_begin_anew(tmp_path, clock):
    store, fakes = stored(tmp_path, clock)
    fakes.number_of("a.example")
    store.close()
    store, fakes = stored(tmp_path, clock, IPv4Network("198.18.0.0/16"))
    assert len(fakes) == 0
    store.close()


def test_rows_are_bounded_by_the_pool(tmp_path, clock):
    store, fakes = stored(tmp_path, clock, SMALL)
    for n in range(200):
        clock.now += MIN_AGE_S
        fakes.number_of(f"{n}.example")
    store.save()
    assert store._db.execute("SELECT count(*) FROM fakes").fetchone()[0] <= 13
    store.close()


@pytest.mark.parametrize("content", [b"not a database at all" * 100, "other"])
def test_a_damaged_or_foreign_file_is_put_aside(tmp_path, clock, content):
    notes = []
    if content == "other":
        with sqlite3.connect(tmp_path / NAME) as db:
            db.execute("CREATE TABLE mine (x)")
    else:
        (tmp_path / NAME).write_bytes(content)
    store, fakes = stored(tmp_path, clock, notes=notes)
    number = fakes.number_of("a.example")
    store.close()
    assert "names.db.damaged" in notes[0]
    assert (tmp_path / "names.db.damaged").exists()
    store, fakes = stored(tmp_path, clock)
    assert fakes.number_of("a.example") == number
    store.close()


def test_where_nothing_can_be_written_it_goes_on(tmp_path, clock):
    notes = []
    (tmp_path / NAME).mkdir()
    store, fakes = stored(tmp_path, clock, notes=notes)
    assert fakes.number_of("a.example")
    store.save()
    assert len(notes) == 1
    assert "can't be written" in notes[0]
    store.close()


KILLED = """
import os, signal, sys, time
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from zignet.dns.fakes import Fakes
from zignet.dns.store import FakeStore
store = FakeStore(Path(sys.argv[1]), "pool")
fakes = Fakes(IPv4Network("198.19.0.0/16"), IPv6Network("2001:2::/64"), store, time.time)
fakes.restore(store.rows(), store.ceiling)
numbers = [fakes.number_of(f"{n}.example") for n in range(3000)]
store.save()
lost = fakes.number_of("lost.example")
print(numbers[7], lost, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9(tmp_path, clock):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, cwd=os.getcwd()
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept, lost = map(int, done.stdout.split())
    store = FakeStore(tmp_path, "pool")
    fakes = Fakes(POOL4, POOL6, store, clock)
    fakes.restore(store.rows(), store.ceiling)
    assert fakes.number_of("7.example") == kept
    assert fakes.lookup(fakes.address4(lost)) is None
    assert all(fakes.number_of(f"new{n}.example") > lost for n in range(2000))
    store.close()


def test_a_look_at_what_a_name_would_get(clock):
    """Nothing is given for it, and who asks in earnest gets just that."""
    fakes = made(clock, SMALL)
    for turn in range(13):
        seen = fakes.peek(f"{turn}.example")
        assert fakes.peek("other.example") == seen  # it was not given
        assert seen == (fakes.number_of(f"{turn}.example"), False)
        assert fakes.peek(f"{turn}.example") == (seen[0], True)
    assert fakes.peek("one-too-many.example") is None
    clock.now += 2 * MIN_AGE_S
    fakes.number_of("again.example")  # others are given back for it
    assert fakes.peek("next.example") == (fakes.number_of("next.example"), False)
