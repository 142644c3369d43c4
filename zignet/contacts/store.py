"""The file of contacts. Names and keys are each there once; a name counts as the same in upper case.

It tells whom one knows: nobody but its owner and the node may read it. Several processes may have it open: `version`
tells whether another one has written.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from zignet.contacts.contact import Contact, ContactError
from zignet.identity import BadKey, PublicKey

__all__ = ["MOST", "NAME", "Store", "read"]

NAME = "contacts.db"
MOST = 10_000  # contacts
MODE = 0o640  # the group is the node's, where its directory has that

_APPLICATION = 0x5A69_6743  # "ZigC"
_VERSION = 1
_PATIENCE_S = 5.0  # with another process that writes
_COLUMNS = "SELECT name, ed, note, tags, added FROM contacts"
_SCHEMA = f"""
    BEGIN;
    CREATE TABLE IF NOT EXISTS contacts (
        name TEXT PRIMARY KEY NOT NULL COLLATE NOCASE,
        x BLOB UNIQUE NOT NULL,                 -- X25519 form, 32 bytes
        ed BLOB NOT NULL,
        note TEXT NOT NULL,
        tags TEXT NOT NULL,                     -- with blanks between
        added INTEGER NOT NULL                  -- seconds since 1970
    ) WITHOUT ROWID;
    PRAGMA application_id = {_APPLICATION};
    PRAGMA user_version = {_VERSION};
    COMMIT;
"""

T = TypeVar("T")


class Store:
    """Open contacts. Everything raises `ContactError` where it can't be done, or the file can't be used."""

    def __init__(self, directory: Path, wall: Callable[[], float] = time.time) -> None:
        self.path = directory / NAME
        self._wall = wall
        with self._explained():
            _create(self.path)
            self._db = sqlite3.connect(self.path, timeout=_PATIENCE_S, isolation_level=None)
        try:
            with self._explained():
                (application,) = self._db.execute("PRAGMA application_id").fetchone()
                (version,) = self._db.execute("PRAGMA user_version").fetchone()
                if application == 0 and not self._db.execute("SELECT 1 FROM sqlite_master").fetchone():
                    self._db.executescript(_SCHEMA)
                elif application != _APPLICATION:
                    raise ContactError(f"{self.path} is another program's file; move it away.")
                elif version > _VERSION:
                    raise ContactError(f"{self.path} was written by a later version of ZigNet; use that one.")
        except ContactError:
            self._db.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def version(self) -> int:
        """Another number whenever another process has written."""
        with self._explained():
            (number,) = self._db.execute("PRAGMA data_version").fetchone()
            return int(number)

    def __iter__(self) -> Iterator[Contact]:
        """All, by name."""
        with self._explained():
            rows = self._db.execute(f"{_COLUMNS} ORDER BY name").fetchall()
        yield from _good(rows)

    def find(self, text: str) -> Contact | None:
        """By its name, or by its key in any form."""
        with self._explained():
            row = self._db.execute(f"{_COLUMNS} WHERE name = ?", (text,)).fetchone()
            if row is None:
                try:
                    x = PublicKey.from_text(text).x
                except BadKey:
                    return None
                row = self._db.execute(f"{_COLUMNS} WHERE x = ?", (x,)).fetchone()
        return None if row is None else _contact(row)

    def add(self, contact: Contact) -> Contact:
        """A new one; as it is kept."""
        kept = replace(contact, added=contact.added or int(self._wall()))
        with self._writing():
            other = self.find(contact.name)
            if other is not None:
                raise ContactError(_taken(contact, other))
            other = self.find(contact.key.name)
            if other is not None:
                raise ContactError(f"This key is known already, as {other.name}.")
            (count,) = self._db.execute("SELECT count(*) FROM contacts").fetchone()
            if count >= MOST:
                raise ContactError(f"There are {MOST:,} contacts already, and that is the most.")
            self._insert(kept)
        return kept

    def change(
        self,
        name: str,
        *,
        to: str | None = None,
        note: str | None = None,
        tags: tuple[str, ...] | None = None,
    ) -> Contact:
        """Another name, note or tags for the contact of this name or key."""
        with self._writing():
            old = self._there(name)
            new = replace(
                old,
                name=old.name if to is None else to,
                note=old.note if note is None else note,
                tags=old.tags if tags is None else tags,
            )
            other = self.find(new.name)
            if other is not None and other.key != old.key:
                raise ContactError(_taken(new, other))
            self._db.execute("DELETE FROM contacts WHERE x = ?", (old.key.x,))
            self._insert(new)
        return new

    def remove(self, name: str) -> Contact:
        """Forget the contact of this name or key; gives what it was."""
        with self._writing():
            old = self._there(name)
            self._db.execute("DELETE FROM contacts WHERE x = ?", (old.key.x,))
        return old

    def _there(self, name: str) -> Contact:
        found = self.find(name)
        if found is None:
            raise ContactError(f'There is no contact "{name}".')
        return found

    def _insert(self, contact: Contact) -> None:
        self._db.execute(
            "INSERT INTO contacts (name, x, ed, note, tags, added) VALUES (?, ?, ?, ?, ?, ?)",
            (
                *(contact.name, contact.key.x, contact.key.ed, contact.note),
                *(" ".join(contact.tags), contact.added),
            ),
        )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ContactError(f"{self.path}: {error}. {_advice(error)}") from error
        except OSError as error:
            raise ContactError(f"{self.path}: {error.strerror}.") from error


def read(directory: Path) -> tuple[Contact, ...]:
    """The contacts that are there, none if there is no file. For who may not write it. Raises `ContactError`."""
    path = directory / NAME
    if not path.exists():
        return ()
    try:
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_PATIENCE_S)
        ) as db:
            rows = db.execute(f"{_COLUMNS} LIMIT {MOST}").fetchall()
    except sqlite3.Error as error:
        raise ContactError(f"{path}: {error}.") from error
    return tuple(_good(rows))


def _good(rows: Iterable[tuple[str, bytes, str, str, int]]) -> Iterator[Contact]:
    for row in rows:
        with suppress(ContactError, BadKey, TypeError, AttributeError):  # somebody else has written it
            yield _contact(row)


def _create(path: Path) -> None:
    """An empty file of the directory's owner, the control process, also when root makes it. SQLite's own follow it."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, MODE)
    except FileExistsError:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise ContactError(f"{path} is not a file; move it away.") from None
        return
    with os.fdopen(descriptor, "wb"):
        os.fchmod(descriptor, MODE)  # whatever the umask: the control process's is narrower
        if os.geteuid() == 0:
            folder = path.parent.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)


def _contact(row: tuple[str, bytes, str, str, int]) -> Contact:
    name, ed, note, tags, added = row
    return Contact(name, PublicKey.from_bytes(ed), note, tuple(tags.split()), added)


def _taken(new: Contact, other: Contact) -> str:
    if other.key == new.key:
        return f"{other.name} is a contact already, with this key."
    return f'There is another contact of the name "{other.name}", with the key {other.key}.'


def _advice(error: sqlite3.Error) -> str:
    if isinstance(error, sqlite3.OperationalError):
        return "Is the disk full, or does another process hold it?"
    return "The file is damaged: move it away, and bring a copy back with `zignet contacts import`."
