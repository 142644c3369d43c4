"""Those who come get an address at once, and are written down together."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.zignet.peers.test_store import ALIASES, RANGE, TINY, Notes, ip, key
from zignet.peers.store import NAME, Seen, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path, RANGE, ALIASES)
    made.address_for(key(1))  # so that it knows what is free
    return made


def written(store: Store) -> dict[bytes, int]:
    """What another process finds in the file: hosts by key."""
    with sqlite3.connect(store._path) as other:
        found = dict(other.execute("SELECT key, host FROM peers WHERE host IS NOT NULL"))
    other.close()
    return found


def test_the_same_addresses_as_with_a_transaction_each(store: Store, tmp_path: Path):
    other = Store(tmp_path / "other", RANGE, ALIASES)
    numbers = [*range(1, 300), *range(290, 310), 1, 5]
    assert [store.give(key(one), key(7), 9) for one in numbers] == [
        other.address_for(key(one), 9) for one in numbers
    ]
    store.save()
    assert store.addresses_for(map(key, numbers)) == other.addresses_for(map(key, numbers))


def test_it_is_in_the_file_when_save_returns(store: Store, tmp_path: Path):
    given = [store.give(key(number), key(7), 1_234) for number in (1, 2, 3)]
    assert written(store) == {key(1): 2}
    store.save()
    assert written(store) == {key(1): 2, key(2): 3, key(3): 4}
    known = store.known(key(3))
    assert known is not None
    assert (known.first_seen, known.last_seen) == (1_234, 1_234)
    assert [Store(tmp_path, RANGE, ALIASES).give(key(number), key(7), 0) for number in (1, 2, 3)] == given


@pytest.mark.parametrize(
    "what",
    [
        lambda store: store.address_for(key(50)),
        lambda store: store.saw([Seen(key(2), key(2), 77)]),
        lambda store: store.known(key(2)),
        lambda store: store.everyone(),
        lambda store: store.fix({key(9): ip("100.64.0.9")}),
        lambda store: store.close(),
    ],
)
def test_whatever_else_is_done_finds_it_written(store: Store, what):
    address = store.give(key(2), key(7), 1)
    what(store)
    assert written(store)[key(2)] == address - ip("100.64.0.0")


def test_seen_in_the_same_turn(store: Store):
    store.give(key(2), key(7), 50)
    store.saw([Seen(key(2), key(7), 60, "192.0.2.1:5")])
    known = store.known(key(2))
    assert known is not None
    assert (known.ed, known.first_seen, known.last_seen, known.endpoint) == (key(7), 50, 60, "192.0.2.1:5")


def test_one_whose_address_is_fixed_for_another_moves(store: Store):
    first = store.give(key(2), key(7), 1)
    assert first is not None
    moved = store.fix({key(3): first})
    assert list(moved) == [key(2)]
    assert store.give(key(2), key(7), 1) == moved[key(2)] != first
    assert store.give(key(3), key(7), 1) == first


def test_a_full_range(tmp_path: Path):
    store = Store(tmp_path, *TINY)
    given = [store.give(key(number), key(7), 1_000 + number) for number in range(126)]
    assert len(set(given)) == 126
    assert None not in given
    assert store.give(key(200), key(7), 3_000) == given[0]  # of whoever was not seen for the longest
    busy = Store(tmp_path / "busy", *TINY, keep=lambda _: True)
    assert [busy.give(key(number), key(7), 0) is None for number in range(130)] == [False] * 126 + [True] * 4
    busy.save()


def test_kill_takes_only_what_was_not_saved(tmp_path: Path):
    child = os.fork()
    if child == 0:
        store = Store(tmp_path, RANGE, ALIASES)
        store.address_for(key(1))
        store.give(key(2), key(7), 0)
        store.save()
        store.give(key(3), key(7), 0)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert written(Store(tmp_path, RANGE, ALIASES)) == {key(1): 2, key(2): 3}


def test_a_file_that_is_damaged_meanwhile(tmp_path: Path):
    """What was given and not yet saved is in the new file, and given to nobody else."""
    notes = Notes()
    store = Store(tmp_path, RANGE, ALIASES, note=notes)
    store.addresses_for(map(key, range(1_000, 3_000)))
    given = {key(number): store.give(key(number), key(7), 0) for number in range(2, 40)}
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (tmp_path / NAME).open("r+b") as file:
        file.seek(4096)
        file.write(b"\xaa" * ((tmp_path / NAME).stat().st_size - 4096))
    store._db.execute("PRAGMA cache_size = 0")
    store._db.execute("PRAGMA shrink_memory")
    store.save()
    assert len(notes) == 1
    assert {one: store.give(one, key(7), 0) for one in given} == given
    later = [store.give(key(number), key(7), 0) for number in range(100, 140)]
    assert not set(later) & set(given.values())
    store.save()
    assert {one: ip("100.64.0.0") + host for one, host in written(store).items()}.items() >= given.items()


def test_a_disk_on_which_nothing_can_be_written(store: Store, monkeypatch: pytest.MonkeyPatch):
    given = {key(number): store.give(key(number), key(7), 0) for number in (2, 3)}
    store._db.execute("PRAGMA query_only = 1")
    store.save()
    assert store._in_memory
    assert {one: store.give(one, key(7), 0) for one in given} == given
    assert store.give(key(4), key(7), 0) not in given.values()


def test_whoever_is_seen_is_written_with_the_others(store: Store, tmp_path: Path):
    store.saw([Seen(key(1), key(7), 50, "192.0.2.1:5")])
    store.saw([Seen(key(1), None, 60), Seen(key(1), None, 70)], at_once=False)
    other = Store(tmp_path, RANGE, ALIASES)
    before, after = other.known(key(1)), store.known(key(1))
    assert before is not None
    assert before.last_seen == 50
    assert after is not None
    assert (after.ed, after.last_seen, after.endpoint) == (key(7), 70, "192.0.2.1:5")
    store.saw([Seen(key(1), None, 80)], at_once=False)
    store.close()
    known = other.known(key(1))
    assert known is not None
    assert known.last_seen == 80


def test_one_that_comes_is_known_by_name(store: Store):
    store.give(key(2), key(9), 50)
    assert [(x, seen) for x, _, _, seen, _ in store.everyone()] == [(key(2), 50)]
    store.address_for(key(3))  # configured, and never here
    store.give(key(3), key(8), 60)
    assert [(x, seen) for x, _, _, seen, _ in store.everyone()] == [(key(2), 50), (key(3), 60)]
