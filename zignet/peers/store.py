"""Which IPv4 address each peer has here, kept in SQLite under the state directory.

    store = Store(state_dir, network, aliases, keep=lambda key: ..., note=log.warning)
    store.addresses_for(keys)      {X25519 form: IPv4 address as a number}, new keys get the lowest free one
    store.give(key, ed, wall)      the same for one who comes now: what is new is in the file when `save` returns
    store.fix({key: address})      what the configuration says wins, and whoever had that address moves
    store.saw([Seen(...)])         when and where peers were last seen

An address once given stays with its key, whatever becomes of the process. When the range is full, the key that was
not seen for the longest gives its address up, unless `keep` wants it (a configured or a live peer).

The file holds no secret, but tells whom one talks to: mode 0600. What goes wrong with it is told once, and is
never the end of the node: a damaged or foreign file is put aside, and where nothing can be written all
goes on in memory.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import TypeVar

from zignet.identity.names import encode_name

__all__ = ["NAME", "Known", "Seen", "Store"]

NAME = "peers.db"

_FIRST = 2  # after the network's own address and this host's
_APPLICATION = 0x5A69674E  # "ZigN"
_VERSION = 1
_AT_ONCE = 500  # keys in one query
_CHECKED = 64 << 20  # bytes: a larger file is not read through at start
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_SCHEMA = f"""
    CREATE TABLE peers (
        key BLOB PRIMARY KEY NOT NULL,          -- X25519 form, 32 bytes
        ed BLOB,                                -- Ed25519 form, once it is known
        host INTEGER UNIQUE,                    -- address, counted from the start of the range
        first_seen INTEGER NOT NULL DEFAULT 0,  -- seconds since 1970; 0: never
        last_seen INTEGER NOT NULL DEFAULT 0,
        endpoint TEXT                           -- the last path's
    ) WITHOUT ROWID;
    CREATE INDEX by_last_seen ON peers (last_seen, host);
    PRAGMA application_id = {_APPLICATION};
    PRAGMA user_version = {_VERSION};
"""
_FREE = """
    SELECT host + 1, next FROM (
        SELECT host, lead(host, 1, :stop) OVER (ORDER BY host) AS next FROM (
            SELECT :start - 1 AS host UNION ALL SELECT host FROM peers WHERE host >= :start AND host < :stop))
    WHERE next > host + 1 LIMIT 64
"""
_SAW = """
    UPDATE peers SET ed = coalesce(?, ed), last_seen = max(last_seen, ?), endpoint = coalesce(?, endpoint),
        first_seen = CASE first_seen WHEN 0 THEN ? ELSE first_seen END
    WHERE key = ?
"""
_ROW = "SELECT key, ed, host, first_seen, last_seen, endpoint FROM peers"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen:
    """A peer was there."""

    key: bytes  # X25519 form
    ed: bytes | None  # None: it was told before
    wall: int  # seconds since 1970
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a peer from earlier."""

    ed: bytes | None
    first_seen: int  # seconds since 1970; 0: never
    last_seen: int
    endpoint: str | None


class Store:
    """The table of addresses. Raises no error of SQLite's or the disk's: see `note`."""

    def __init__(
        self,
        directory: Path,
        network: IPv4Network,
        aliases: IPv4Network,  # the block at the network's end that is not for peers
        *,
        keep: Callable[[bytes], bool] = lambda key: False,  # must this key's address not be given to another?
        note: Callable[[str], None] = lambda text: None,  # what people should know, in sentences
    ) -> None:
        self._path = directory / NAME
        self._base = int(network.network_address)
        self._stop = int(aliases.network_address) - self._base
        self._start = _FIRST
        self._recycled_at_once = max(1, (self._stop - _FIRST) // 1024)  # few, and no scan for every newcomer
        self._keep = keep
        self._note = note
        self._fixed: frozenset[bytes] = frozenset()
        self._free: list[list[int]] = []  # [start, stop) of holes, the last one first; empty: look for more
        self._highest = 0  # host that was given to anybody in this run
        # What was given, key -> host, wall, and what was seen: every transaction begins with them
        self._given: dict[bytes, tuple[int, int]] = {}
        self._seen: list[Seen] = []
        self._in_memory = False
        self._db = self._open()

    def close(self) -> None:
        """Let go of the file."""
        self.save()
        with suppress(sqlite3.Error):
            self._db.close()

    # --- addresses

    def address_for(self, key: bytes, wall: int = 0) -> int | None:
        """The address of one key; None if all are taken. `wall`: a newcomer counts as seen then."""
        return self.addresses_for((key,), wall).get(key)

    def addresses_for(self, keys: Iterable[bytes], wall: int = 0) -> dict[bytes, int]:
        """The addresses of many keys, in one transaction. Keys for which none is left are not in it."""
        wanted = list(dict.fromkeys(keys))
        hosts = self._do(lambda: self._hosts_for(wanted, wall))
        self._highest = max(self._highest, max(hosts.values(), default=0))
        return {key: self._base + host for key, host in hosts.items()}

    def give(self, key: bytes, ed: bytes, wall: int) -> int | None:
        """As `address_for`, without a transaction for each new key: call `save`, soon, for all of them."""
        self._seen.append(Seen(key, ed, wall))
        if key in self._given:
            return self._base + self._given[key][0]
        query = "SELECT host FROM peers WHERE key = ? AND host >= ? AND host < ?"
        try:
            row = self._db.execute(query, (key, _FIRST, self._stop)).fetchone()
        except sqlite3.Error:
            return self.address_for(key, wall)  # where it is seen to
        if row is not None:
            return self._base + int(row[0])
        if not self._free:
            return self.address_for(key, wall)
        (host,) = self._next(1)
        self._given[key] = host, wall
        self._highest = max(self._highest, host)
        return self._base + host

    def save(self) -> None:
        """Write what was given, and seen."""
        if self._given or self._seen:
            self._do(lambda: None)

    def fix(self, fixed: Mapping[bytes, int]) -> dict[bytes, int | None]:
        """Give these keys these addresses. Returns who had one of them, and has another now (None: none was left).

        Raises ValueError if an address is not one for peers, or is given to two.
        """
        hosts = {key: address - self._base for key, address in fixed.items()}
        if len(set(hosts.values())) < len(hosts):
            raise ValueError("two peers have the same fixed address")
        if any(not _FIRST <= host < self._stop for host in hosts.values()):
            raise ValueError("a fixed address is not one that a peer can have")
        self._fixed = frozenset(fixed)
        moved = self._do(lambda: self._fix(hosts))
        self._highest = max([self._highest, *hosts.values(), *(host or 0 for host in moved.values())])
        return {key: None if host is None else self._base + host for key, host in moved.items()}

    def _hosts_for(self, keys: list[bytes], wall: int) -> dict[bytes, int]:
        found: dict[bytes, int] = {}
        for at in range(0, len(keys), _AT_ONCE):
            some = keys[at : at + _AT_ONCE]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, host FROM peers WHERE key IN ({marks}) AND host >= ? AND host < ?"  # noqa: S608
            found.update(self._db.execute(query, (*some, _FIRST, self._stop)))
        missing = [key for key in keys if key not in found]
        if missing:
            found.update(self._give(missing, wall, frozenset(keys)))
        return found

    def _give(self, keys: list[bytes], wall: int, busy: frozenset[bytes]) -> dict[bytes, int]:
        """New addresses, lowest first, for keys that have none (in this range)."""
        given: dict[bytes, int] = {}
        while len(given) < len(keys) and (hosts := self._take(len(keys) - len(given), busy)):
            some = dict(zip(keys[len(given) :], hosts, strict=False))
            self._insert((key, host, wall, wall) for key, host in some.items())
            given.update(some)
        return given

    def _insert(self, rows: Iterable[tuple[bytes, int, int, int]]) -> None:
        self._db.executemany(
            "INSERT INTO peers (key, host, first_seen, last_seen) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (key) DO UPDATE SET host = excluded.host",
            rows,
        )

    def _take(self, count: int, busy: frozenset[bytes]) -> list[int]:
        """Free hosts, lowest first: up to `count`, at least one, or none if there is none."""
        if not self._free:
            bounds = {"start": self._start, "stop": self._stop}
            self._free = [list(hole) for hole in self._db.execute(_FREE, bounds)][::-1]
        if not self._free:
            self._free = [[host, host + 1] for host in self._recycle(busy)][::-1]
        return self._next(count)

    def _next(self, count: int) -> list[int]:
        """The lowest of those that are known to be free."""
        hosts: list[int] = []
        while self._free and len(hosts) < count:
            start, stop = self._free.pop()
            end = min(stop, start + count - len(hosts))
            hosts += range(start, end)
            if end < stop:
                self._free.append([end, stop])
        return hosts

    def _recycle(self, busy: frozenset[bytes]) -> list[int]:
        """Forget those who were not seen for the longest; their hosts, in order."""
        query = "SELECT key, host FROM peers WHERE host >= ? AND host < ? ORDER BY last_seen, host"
        old: list[tuple[bytes, int]] = []
        for key, host in self._db.execute(query, (self._start, self._stop)):
            if key not in busy and key not in self._fixed and not self._keep(key):
                old.append((key, host))
                if len(old) == self._recycled_at_once:
                    break
        self._db.executemany("DELETE FROM peers WHERE key = ?", [(key,) for key, _ in old])
        return sorted(host for _, host in old)

    def _fix(self, hosts: dict[bytes, int]) -> dict[bytes, int | None]:
        self._free = []
        moving: list[bytes] = []
        for key, host in hosts.items():
            query = "SELECT key FROM peers WHERE host = ? AND key != ?"
            moving += [other for (other,) in self._db.execute(query, (host, key))]
        both = [(key,) for key in (*moving, *hosts)]
        self._db.executemany("UPDATE peers SET host = NULL WHERE key = ?", both)
        self._db.executemany(
            "INSERT INTO peers (key, host) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET host = excluded.host",
            hosts.items(),
        )
        homeless = [key for key in moving if key not in hosts]
        found = self._give(homeless, 0, frozenset(homeless))
        return {key: found.get(key) for key in homeless}

    # --- seen

    def saw(self, peers: Iterable[Seen], at_once: bool = True) -> None:
        """Remember when and where these were seen, in one transaction; if not at once, then call `save`, soon."""
        self._seen += peers
        if at_once:
            self.save()

    def known(self, key: bytes) -> Known | None:
        """What is known of a key that had an address before."""
        query = "SELECT ed, first_seen, last_seen, endpoint FROM peers WHERE key = ?"
        row = self._do(lambda: self._db.execute(query, (key,)).fetchone())
        return None if row is None else Known(*row)

    def find(self, key: bytes | None, address: int | None) -> tuple[bytes, str, int, int] | None:
        """(X25519 form, name, address, last seen) of the one that had this key, or this address."""
        host = None if address is None else address - self._base
        query = (
            "SELECT key, ed, host, last_seen FROM peers "
            "WHERE (key = ? OR host = ?) AND ed IS NOT NULL AND host IS NOT NULL"
        )
        try:  # a question changes nothing: no transaction
            row = self._db.execute(query, (key, host)).fetchone()
        except sqlite3.Error:
            return None
        if row is None:
            return None
        x, ed, host, seen = row
        return x, encode_name(ed), self._base + host, seen

    def everyone(self) -> list[tuple[bytes, str, int, int, str | None]]:
        """(X25519 form, name, address, last seen, last endpoint) of all that were ever here."""
        query = (
            "SELECT key, ed, host, last_seen, endpoint FROM peers WHERE ed IS NOT NULL AND host IS NOT NULL"
        )
        rows = self._do(lambda: self._db.execute(query).fetchall())
        return [
            (x, encode_name(ed), self._base + host, seen, endpoint) for x, ed, host, seen, endpoint in rows
        ]

    # --- the file, and what can be wrong with it

    def _do(self, work: Callable[[], T]) -> T:
        """Run `work` as one transaction: all of it is in the file afterwards, or (kill -9) none."""
        while True:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._insert((key, host, wall, wall) for key, (host, wall) in self._given.items())
                rows = ((one.ed, one.wall, one.endpoint, one.wall, one.key) for one in self._seen)
                self._db.executemany(_SAW, rows)
                done = work()
                self._db.execute("COMMIT")
                self._given, self._seen = {}, []
                return done
            except BaseException as error:
                self._free = []
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                if not isinstance(error, sqlite3.Error) or self._in_memory:
                    raise
                self._recover(error)

    def _recover(self, error: sqlite3.Error) -> None:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
            self._start = (
                self._highest + 1
            )  # what was given in this run, and may be lost now, is not given again
            self._db = self._replace(self._db, str(error))
        else:
            self._db = self._leave_file(self._db, error)

    def _open(self) -> sqlite3.Connection:
        db = None
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            db = _connect(self._path)
            wrong = _why_not_ours(db, self._path)
        except (OSError, sqlite3.Error) as error:
            if db is None or getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
                return self._leave_file(db, error)
            wrong = str(error)
        return db if wrong is None else self._replace(db, wrong)

    def _replace(self, db: sqlite3.Connection, why: str) -> sqlite3.Connection:
        """Put the file aside, and begin a new one with what can be read out of it."""
        rows = _rescued(db)
        db.close()
        try:
            aside = _put_aside(self._path)
            db = _connect(self._path)
            _insert(db, rows)
        except (OSError, sqlite3.Error) as error:
            return self._leave_file(None, error, rows)
        self._note(
            f"{self._path}: {why}. It was kept as {aside.name}; {len(rows)} peers could be read out of it, any other "
            "gets a new address."
        )
        return db

    def _leave_file(
        self, db: sqlite3.Connection | None, error: Exception, rows: Iterable[tuple[object, ...]] = ()
    ) -> sqlite3.Connection:
        """Go on in memory, from what the file says."""
        self._in_memory = True
        memory = sqlite3.connect(":memory:", isolation_level=None)
        memory.executescript(_SCHEMA)
        _insert(memory, rows or _rescued(db) or _read_only(self._path))
        if db is not None:
            db.close()
        self._note(
            f"{self._path} can't be written ({error}). ZigNet goes on without it: peers that come now may have "
            "other addresses after a restart."
        )
        return memory


def _connect(path: Path) -> sqlite3.Connection:
    """An open database of ours, made if there is none. Raises OSError, sqlite3.Error."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    os.close(descriptor)  # SQLite gives its side files the mode of this one
    db = sqlite3.connect(path, timeout=1.0, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")  # survives kill -9; a power cut may cost the last addresses
        if db.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
            db.close()
            raise
    return db


def _why_not_ours(db: sqlite3.Connection, path: Path) -> str | None:
    """What is wrong with a file that SQLite has opened, or None. Raises sqlite3.Error."""
    if db.execute("PRAGMA application_id").fetchone() != (_APPLICATION,):
        return "this is not a table of ZigNet's peers"
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != _VERSION:
        return f"it has version {version} of the table, and this program knows {_VERSION}"
    if path.stat().st_size <= _CHECKED:
        (state,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            return "the file is damaged"
    db.execute(f"{_ROW} LIMIT 1").fetchone()
    return None


def _rescued(db: sqlite3.Connection | None) -> list[tuple[object, ...]]:
    """All rows that can still be read."""
    rows: list[tuple[object, ...]] = []
    if db is not None:
        with suppress(sqlite3.Error):
            for row in db.execute(_ROW):
                if isinstance(row[0], bytes) and all(isinstance(row[at], int | None) for at in (2, 3, 4)):
                    rows.append(row)
    return rows


def _read_only(path: Path) -> list[tuple[object, ...]]:
    for mode in ("mode=ro", "immutable=1"):  # the second where there is a log that can't be written
        with suppress(sqlite3.Error):
            uri = f"{path.absolute().as_uri()}?{mode}"
            with closing(sqlite3.connect(uri, timeout=1.0, uri=True)) as db:
                if rows := _rescued(db):
                    return rows
    return []


def _insert(db: sqlite3.Connection, rows: Iterable[tuple[object, ...]]) -> None:
    db.execute("BEGIN")
    db.executemany("INSERT OR IGNORE INTO peers VALUES (?, ?, ?, ?, ?, ?)", rows)
    db.execute("COMMIT")


def _put_aside(path: Path) -> Path:
    """Rename the database and its side files; the new name. Raises OSError."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
    return aside
