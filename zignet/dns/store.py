"""The fake addresses that were given, in SQLite under the state directory (`zignet.dns.fakes.Journal`).

What was reserved or given back is in the file when the call returns; what was given is written by the next `save`,
which is to come within a moment. After a `kill -9` a name of the last moment may get another number, but no number
means another name. The file tells which sites were visited: mode 0600. One that is damaged, or somebody else's, is put
aside; where nothing can be written all goes on in memory, and that is said once.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from zignet.dns.fakes import FIRST, Row

__all__ = ["NAME", "FakeStore"]

NAME = "names.db"

_APPLICATION = 0x5A694E61  # "ZiNa"
_VERSION = 1
_SCHEMA = f"""
    CREATE TABLE fakes (
        number INTEGER PRIMARY KEY,     -- in both pools
        key TEXT NOT NULL,              -- name, or name and exit with a blank between them
        used INTEGER NOT NULL,          -- seconds since 1970
        proven INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE pool (one INTEGER PRIMARY KEY CHECK (one = 1), pools TEXT NOT NULL, ceiling INTEGER NOT NULL);
    PRAGMA application_id = {_APPLICATION};
    PRAGMA user_version = {_VERSION};
"""


_ROWS = """
    SELECT number, key, used, proven FROM fakes
    WHERE typeof(key) = 'text' AND typeof(used) = 'integer' AND typeof(proven) = 'integer' ORDER BY used, number
"""


class FakeStore:
    """The file. Raises no error of SQLite's or the disk's: see `note`."""

    def __init__(
        self, directory: Path, pools: str, *, note: Callable[[str], None] = lambda text: None
    ) -> None:
        """`pools` says what the numbers are counted from: other pools begin anew."""
        self._path = directory / NAME
        self._pools = pools
        self._note = note
        self._unsaved: list[tuple[int, str, int]] = []
        self.wake: Callable[[], None] = lambda: None  # there is something to `save`
        self.ceiling = FIRST
        self._db = self._open()

    def rows(self) -> Iterator[Row]:
        """All of them, least recently used first."""
        try:
            yield from self._db.execute(_ROWS)
        except sqlite3.Error as error:
            self._leave(error)

    def reserve(self, ceiling: int) -> None:
        """See `Journal`."""
        self._do([("UPDATE pool SET ceiling = max(ceiling, ?)", [(ceiling,)])])

    def release(self, numbers: Collection[int]) -> None:
        """See `Journal`."""
        self._do([("DELETE FROM fakes WHERE number = ?", [(number,) for number in numbers])])

    def assigned(self, number: int, key: str, wall: int) -> None:
        """See `Journal`."""
        if not self._unsaved:
            self.wake()
        self._unsaved.append((number, key, wall))

    def save(self, touched: Iterable[tuple[int, int, int]] = ()) -> None:
        """Write what was given; and when it was last used: (wall, proven, number)."""
        self._do([("UPDATE fakes SET used = ?, proven = ? WHERE number = ?", list(touched))])

    def close(self, ceiling: int = 0) -> None:
        """Let go of the file. `ceiling`: no number from there on was ever given, whatever was reserved."""
        self.save()
        if ceiling:
            self._do([("UPDATE pool SET ceiling = min(ceiling, ?)", [(ceiling,)])])
        with suppress(sqlite3.Error):
            self._db.close()

    # --- the file, and what can be wrong with it

    def _do(self, work: list[tuple[str, list[tuple[int, ...]]]]) -> None:
        """One transaction; what was given before comes first in it."""
        unsaved, self._unsaved = self._unsaved, []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO fakes (number, key, used) VALUES (?, ?, ?)", unsaved)
            for statement, rows in work:
                self._db.executemany(statement, rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            self._leave(error)

    def _leave(self, error: Exception) -> None:
        """Go on without the file."""
        with suppress(AttributeError, sqlite3.Error):
            self._db.close()
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._db.executescript(_SCHEMA)
        self._db.execute("INSERT INTO pool VALUES (1, ?, ?)", (self._pools, FIRST))
        self._note(
            f"{self._path} can't be written ({error}). ZigNet goes on without it: after a restart, fake addresses that "
            "applications still remember may mean other names."
        )

    def _open(self) -> sqlite3.Connection:
        try:
            try:
                return self._connect()
            except (sqlite3.DatabaseError, ValueError) as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                aside = self._path.with_name(f"{NAME}.damaged")
                for suffix in ("-wal", "-shm", ""):
                    with suppress(FileNotFoundError):
                        os.replace(f"{self._path}{suffix}", f"{aside}{suffix}")
                self._note(
                    f"{self._path}: {error}. It was kept as {aside.name}; names get new fake addresses."
                )
                return self._connect()
        except (OSError, sqlite3.Error, ValueError) as error:
            self._leave(error)
            return self._db

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
        db = sqlite3.connect(self._path, timeout=1.0, isolation_level=None)
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(
            "PRAGMA synchronous = NORMAL"
        )  # survives kill -9; after a power cut no application remembers
        if db.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        if db.execute("PRAGMA application_id").fetchone() != (_APPLICATION,):
            raise ValueError("this is not a table of ZigNet's names")
        if db.execute("PRAGMA user_version").fetchone() != (_VERSION,):
            raise ValueError("it is from another version of ZigNet")
        if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise ValueError("the file is damaged")
        found = db.execute("SELECT pools, ceiling FROM pool").fetchone()
        if found is not None and found[0] == self._pools:
            self.ceiling = int(found[1])
            return
        db.execute("BEGIN IMMEDIATE")
        db.execute("DELETE FROM fakes")
        db.execute("INSERT OR REPLACE INTO pool VALUES (1, ?, ?)", (self._pools, FIRST))
        db.execute("COMMIT")
