"""Addresses by key: stable, unique, recycled in order; and a file that may be anything."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.peers.store import NAME, Seen, Store

RANGE = IPv4Network("100.64.0.0/10")
ALIASES = IPv4Network("100.127.0.0/16")
TINY = IPv4Network("10.9.8.0/24"), IPv4Network("10.9.8.128/25")  # 126 peers


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def ip(text: str) -> int:
    return int(IPv4Address(text))


class Notes(list[str]):
    def __call__(self, text: str) -> None:
        self.append(text)


def test_lowest_first_after_ones_own(tmp_path: Path):
    store = Store(tmp_path, RANGE, ALIASES)
    assert store.addresses_for([key(1), key(2), key(1)]) == {
        key(1): ip("100.64.0.2"),
        key(2): ip("100.64.0.3"),
    }
    assert store.address_for(key(3)) == ip("100.64.0.4")
    assert store.address_for(key(1)) == ip("100.64.0.2")


def test_the_same_after_a_restart(tmp_path: Path):
    store = Store(tmp_path / "deep" / "state", RANGE, ALIASES)
    before = store.addresses_for(map(key, range(700)))  # more than one query's worth
    store.close()
    notes = Notes()
    again = Store(tmp_path / "deep" / "state", RANGE, ALIASES, note=notes)
    assert again.addresses_for(map(key, reversed(range(700)))) == before
    assert notes == []


def test_found_by_key_and_by_address(tmp_path: Path):
    store = Store(tmp_path, RANGE, ALIASES)
    first, second = (store.address_for(key(number), 7) for number in (1, 2))
    assert store.find(key(1), None) is None  # nobody is known by half of a key
    store.saw([Seen(key(1), key(91), 1000)])
    found = store.find(key(1), None)
    assert found is not None
    assert (found[0], found[2], found[3]) == (key(1), first, 1000)
    assert store.find(None, first) == found
    assert store.find(None, second) is None
    assert store.find(None, None) is None
    assert store.find(None, 5) is None


def test_nobody_else_may_read_it(tmp_path: Path):
    before = os.umask(0)
    try:
        store = Store(tmp_path / "state", RANGE, ALIASES)
        store.address_for(key(1))
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()}
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)
    assert set(modes) >= {NAME, f"{NAME}-wal"}
    assert set(modes.values()) == {0o600}
    store.close()
    (tmp_path / "state" / NAME).chmod(0o644)
    Store(tmp_path / "state", RANGE, ALIASES).close()
    assert (tmp_path / "state" / NAME).stat().st_mode & 0o777 == 0o600


def test_the_range_ends_before_the_aliases(tmp_path: Path):
    store = Store(tmp_path, *TINY, keep=lambda key: True)
    given = store.addresses_for(map(key, range(200)))
    assert sorted(given.values()) == list(range(ip("10.9.8.2"), ip("10.9.8.128")))
    assert store.address_for(key(900)) is None


def test_addresses_follow_the_range(tmp_path: Path):
    Store(tmp_path, RANGE, ALIASES).addresses_for(map(key, range(200)))
    store = Store(tmp_path, *TINY)
    assert store.address_for(key(5)) == ip("10.9.8.7")
    assert store.address_for(key(150)) == ip("10.9.8.2")  # had one beyond the new range; recycles the oldest


def test_a_fixed_address_wins_and_who_had_it_moves(tmp_path: Path):
    store = Store(tmp_path, RANGE, ALIASES)
    store.addresses_for([key(1), key(2), key(3)])
    moved = store.fix({key(9): ip("100.64.0.3"), key(8): ip("100.100.1.1")})
    assert moved == {key(2): ip("100.64.0.5")}
    assert store.addresses_for([key(2), key(8), key(9)]) == {
        key(2): ip("100.64.0.5"),
        key(8): ip("100.100.1.1"),
        key(9): ip("100.64.0.3"),
    }
    assert store.fix({key(9): ip("100.64.0.3"), key(8): ip("100.100.1.1")}) == {}


def test_two_fixed_ones_may_change_places(tmp_path: Path):
    store = Store(tmp_path, RANGE, ALIASES)
    one, two = (store.address_for(key(number)) for number in (1, 2))
    assert one is not None
    assert two is not None
    assert store.fix({key(1): two, key(2): one}) == {}
    assert store.addresses_for([key(1), key(2)]) == {key(1): two, key(2): one}


def test_what_a_fixed_one_left_is_free(tmp_path: Path):
    store = Store(tmp_path, RANGE, ALIASES)
    store.addresses_for([key(1), key(2)])
    store.fix({key(1): ip("100.64.9.9")})
    assert store.address_for(key(3)) == ip("100.64.0.2")


@pytest.mark.parametrize("address", ["100.64.0.0", "100.64.0.1", "100.127.0.0", "100.63.0.5", "100.128.0.1"])
def test_addresses_that_are_no_peers(tmp_path: Path, address: str):
    with pytest.raises(ValueError, match="not one that"):
        Store(tmp_path, RANGE, ALIASES).fix({key(1): ip(address)})


def test_one_fixed_address_for_two(tmp_path: Path):
    with pytest.raises(ValueError, match="two peers"):
        Store(tmp_path, RANGE, ALIASES).fix({key(1): ip("100.64.0.9"), key(2): ip("100.64.0.9")})


def test_the_longest_unseen_gives_way(tmp_path: Path):
    kept = {key(0)}
    store = Store(tmp_path, *TINY, keep=kept.__contains__)
    given = store.addresses_for(map(key, range(126)))
    store.saw(Seen(key(number), b"e" * 32, 1000 + number) for number in range(126) if number != 7)
    store.fix({key(7): given[key(7)]})  # never seen, but configured
    assert store.address_for(key(200), wall=3000) == given[key(1)]
    assert store.address_for(key(201), wall=3000) == given[key(2)]
    assert store.address_for(key(1), wall=3000) == given[key(3)]  # it comes back, to another
    assert store.address_for(key(0)) == given[key(0)]
    assert store.known(key(2)) is None


def test_a_newcomer_is_not_the_first_to_go(tmp_path: Path):
    store = Store(tmp_path, *TINY)
    given = store.addresses_for(map(key, range(126)), wall=500)
    store.address_for(key(200), wall=600)
    assert store.address_for(key(201), wall=700) == given[key(1)]


def test_who_asks_at_once_does_not_push_each_other_out(tmp_path: Path):
    store = Store(tmp_path, *TINY)
    assert len(store.addresses_for(map(key, range(200)))) == 126


def test_what_was_seen(tmp_path: Path):
    store = Store(tmp_path, RANGE, ALIASES)
    store.address_for(key(1))
    assert store.known(key(1)).first_seen == 0
    store.saw([Seen(key(1), b"e" * 32, 50, "192.0.2.1:51830")])
    store.saw([Seen(key(1), b"e" * 32, 70), Seen(key(2), b"f" * 32, 70)])  # one that has no address: nothing
    store.saw([Seen(key(1), b"e" * 32, 60)])  # the clock was set back
    store.close()
    store = Store(tmp_path, RANGE, ALIASES)
    known = store.known(key(1))
    assert (known.ed, known.first_seen, known.last_seen) == (b"e" * 32, 50, 70)
    assert known.endpoint == "192.0.2.1:51830"
    assert store.known(key(2)) is None


def test_a_hundred_thousand(tmp_path: Path):
    keys = [os.urandom(32) for _ in range(100_000)]
    begun = time.process_time()
    store = Store(tmp_path, RANGE, ALIASES)
    first = store.addresses_for(keys)
    store.close()
    store = Store(tmp_path, RANGE, ALIASES)
    again = store.addresses_for(keys)
    took = time.process_time() - begun
    assert first == again
    assert len(set(first.values())) == 100_000
    assert took < 6  # of which it takes about 1.5


class Naive:
    """A dictionary, and no thought of speed. One recycled at a time, as with any small range."""

    def __init__(self) -> None:
        self.hosts: dict[int, int] = {}
        self.seen: dict[int, int] = {}
        self.fixed: set[int] = set()

    def give(self, peers: list[int], wall: int, kept: set[int]) -> dict[int, int]:
        for peer in peers:
            if peer in self.hosts:
                continue
            free = set(range(2, 128)) - set(self.hosts.values())
            if not free:
                old = [one for one in self.hosts if one not in kept | self.fixed | set(peers)]
                if not old:
                    break
                victim = min(old, key=lambda one: (self.seen[one], self.hosts[one]))
                free = {self.hosts.pop(victim)}
                del self.seen[victim]
            self.hosts[peer] = min(free)
            self.seen.setdefault(peer, wall)
        return {peer: self.hosts[peer] for peer in peers if peer in self.hosts}

    def fix(self, fixed: dict[int, int], kept: set[int]) -> None:
        self.fixed = set(fixed)
        homeless = [one for one, host in self.hosts.items() if host in fixed.values() and one not in fixed]
        order = [one for host in fixed.values() for one in homeless if self.hosts[one] == host]
        for one in (*homeless, *fixed):
            self.hosts.pop(one, None)
        self.hosts.update(fixed)
        for one in fixed:
            self.seen.setdefault(one, 0)
        self.give(order, 0, kept)


PEERS = st.integers(0, 160)
STEPS = st.one_of(
    st.tuples(st.just("give"), st.lists(PEERS, min_size=1, max_size=5, unique=True)),
    st.tuples(
        st.just("give"), st.builds(lambda at, count: list(range(at, at + count)), PEERS, st.integers(1, 130))
    ),
    st.tuples(st.just("saw"), st.lists(PEERS, max_size=4)),
    st.tuples(
        st.just("fix"),
        st.lists(
            st.tuples(PEERS, st.integers(2, 127)),
            max_size=3,
            unique_by=(lambda one: one[0], lambda one: one[1]),
        ),
    ),
    st.tuples(st.just("restart"), st.none()),
)


@given(st.lists(STEPS, max_size=12), st.sets(PEERS, max_size=5))
def test_the_same_as_a_dictionary(steps: list[tuple[str, object]], kept: set[int]):
    keep = {key(peer) for peer in kept}
    naive = Naive()
    with tempfile.TemporaryDirectory() as place:
        store = Store(Path(place), *TINY, keep=keep.__contains__)
        for wall, (what, argument) in enumerate(steps, 1):
            if what == "give":
                expected = naive.give(argument, wall, kept)
                found = store.addresses_for(map(key, argument), wall)
                base = int(TINY[0].network_address)
                assert found == {key(peer): base + host for peer, host in expected.items()}
            elif what == "saw":
                store.saw(Seen(key(peer), b"", wall) for peer in argument)
                naive.seen.update(dict.fromkeys(set(argument) & set(naive.seen), wall))
            elif what == "fix":
                naive.fix(dict(argument), kept)
                store.fix({key(peer): int(TINY[0].network_address) + host for peer, host in argument})
            else:
                store.close()
                naive.fixed = set()
                store = Store(Path(place), *TINY, keep=keep.__contains__)
        hosts = [*naive.hosts.values()]
        assert len(hosts) == len(set(hosts))
        store.close()


# --- what happens to the process, and to the file

CHILD = """
import sys
from ipaddress import IPv4Network
from pathlib import Path
from zignet.peers.store import Store
store = Store(Path(sys.argv[1]), IPv4Network("100.64.0.0/10"), IPv4Network("100.127.0.0/16"))
number = 0
while True:
    some = [(number + k).to_bytes(32, "big") for k in range(7)]
    for key, address in store.addresses_for(some).items():
        print(int.from_bytes(key), address, flush=True)
    number += 7
"""


@pytest.mark.parametrize("lines", [1, 40, 333])
def test_killed_in_mid_write(tmp_path: Path, lines: int):
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        told = [child.stdout.readline() for _ in range(lines)]
        os.kill(child.pid, signal.SIGKILL)
        told += child.stdout.readlines()
    pairs = [line.split() for line in told if line.endswith("\n")]
    assert len(pairs) >= lines
    notes = Notes()
    store = Store(tmp_path, RANGE, ALIASES, note=notes)
    assert notes == []
    expected = {key(int(number)): int(address) for number, address in pairs}
    assert store.addresses_for(expected) == expected
    assert store.address_for(b"new" * 10 + b"!!") not in expected.values()


@pytest.mark.parametrize(
    "content",
    [
        b"not a database, but a text that somebody put here",
        os.urandom(5000),
        b"SQLite format 3\0" + b"\xff" * 4080,
    ],
)
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes):
    (tmp_path / NAME).write_bytes(content)
    notes = Notes()
    store = Store(tmp_path, RANGE, ALIASES, note=notes)
    given = store.addresses_for([key(1), key(2)])
    store.close()
    assert len(notes) == 1
    assert "kept as peers.db.damaged-1" in notes[0]
    assert (tmp_path / f"{NAME}.damaged-1").read_bytes() == content
    again = Store(tmp_path, RANGE, ALIASES, note=notes)
    assert again.addresses_for(given) == given
    assert len(notes) == 1


def test_somebody_elses_database(tmp_path: Path):
    with sqlite3.connect(tmp_path / NAME) as other:
        other.execute("CREATE TABLE peers (key, value)")
        other.execute("INSERT INTO peers VALUES ('a', 'precious')")
    other.close()
    (tmp_path / f"{NAME}.damaged-1").write_text("an earlier one")
    notes = Notes()
    store = Store(tmp_path, RANGE, ALIASES, note=notes)
    assert store.address_for(key(1)) == ip("100.64.0.2")
    assert "not a table of ZigNet's peers" in notes[0]
    with sqlite3.connect(tmp_path / f"{NAME}.damaged-2") as kept:
        assert kept.execute("SELECT value FROM peers").fetchall() == [("precious",)]
    kept.close()


def test_a_later_version(tmp_path: Path):
    Store(tmp_path, RANGE, ALIASES).address_for(key(1))
    with sqlite3.connect(tmp_path / NAME) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    notes = Notes()
    store = Store(tmp_path, RANGE, ALIASES, note=notes)
    assert "version 99" in notes[0]
    assert store.address_for(key(1)) == ip("100.64.0.2")  # read out of it


def test_what_can_be_read_of_a_damaged_file_is_kept(tmp_path: Path):
    store = Store(tmp_path, RANGE, ALIASES)
    before = store.addresses_for(map(key, range(3000)))
    store.close()
    content = bytearray((tmp_path / NAME).read_bytes())
    content[-8192:] = b"\xaa" * 8192
    (tmp_path / NAME).write_bytes(content)
    notes = Notes()
    store = Store(tmp_path, RANGE, ALIASES, note=notes)
    after = store.addresses_for(map(key, range(3000)))
    assert len(notes) == 1
    assert len(set(after.values())) == 3000
    assert sum(before[one] == after[one] for one in before) > 1000


def test_damaged_while_it_is_open(tmp_path: Path):
    """No address of this run is given to another key, though the table that said so is gone."""
    notes = Notes()
    store = Store(tmp_path, RANGE, ALIASES, note=notes)
    given = store.addresses_for(map(key, range(2000)))
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = (tmp_path / NAME).read_bytes()
    with (tmp_path / NAME).open("r+b") as file:
        file.seek(4096)
        file.write(b"\xaa" * (len(content) - 4096))
    store._db.execute("PRAGMA cache_size = 0")
    store._db.execute("PRAGMA shrink_memory")
    fresh = store.addresses_for(map(key, range(5000, 5100)))
    assert len(notes) == 1
    assert len(fresh) == 100
    assert not set(fresh.values()) & set(given.values())


def test_a_full_disk(tmp_path: Path):
    notes = Notes()
    store = Store(tmp_path, RANGE, ALIASES, note=notes)
    before = store.addresses_for(map(key, range(50)))
    store._db.execute("PRAGMA max_page_count = 1")
    after = store.addresses_for(map(key, range(2000)))
    store.addresses_for(map(key, range(5000)))
    store.saw([Seen(key(1), b"e" * 32, 50)])
    assert len(after) == 2000
    assert {one: after[one] for one in before} == before
    assert len(notes) == 1
    assert "full" in notes[0]
    store.close()
    assert Store(tmp_path, RANGE, ALIASES).addresses_for(before) == before


MOUNTED = """
import subprocess, sys
from ipaddress import IPv4Network
from pathlib import Path
from zignet.peers.store import Store
place, what = Path(sys.argv[1]), sys.argv[2]
run = lambda *words: subprocess.run(["mount", *words], check=True)
run("--make-rprivate", "/")
run("-t", "tmpfs", "-o", "size=192k", "none", str(place))
ranges = IPv4Network("100.64.0.0/10"), IPv4Network("100.127.0.0/16")
keys = [number.to_bytes(32, "big") for number in range(4000)]
notes = []
store = Store(place, *ranges, note=notes.append)
few = store.addresses_for(keys[:20])
if what == "read-only":
    store.close()
    run("-o", "remount,ro", "none", str(place))
    store = Store(place, *ranges, note=notes.append)
many = store.addresses_for(keys)
store.addresses_for(reversed(keys))
assert len(set(many.values())) == 4000
assert {key: many[key] for key in few} == few
assert len(notes) == 1, notes
print(notes[0])
"""


@pytest.mark.root
@pytest.mark.parametrize(("what", "word"), [("full", "full"), ("read-only", "can't be written")])
def test_a_real_disk(tmp_path: Path, what: str, word: str):
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", MOUNTED, str(tmp_path), what],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert word in done.stdout


def test_a_directory_in_its_place(tmp_path: Path):
    (tmp_path / NAME).mkdir()
    notes = Notes()
    store = Store(tmp_path, RANGE, ALIASES, note=notes)
    assert store.address_for(key(1)) == ip("100.64.0.2")
    assert len(notes) == 1
