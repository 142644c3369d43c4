"""A query of a database, SQLite or PostgreSQL: a row in its result is a match.

`:key`, `:base58` and `:hex` are bound, never pasted. Where the row's first column is a text, that is the reason.
Nothing can be changed: SQLite is told so for the connection, PostgreSQL for the transaction. A connection that was lost
is replaced before it is used, so a database that comes back is there for the next who asks.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from zignet.config import DatabasePolicy
from zignet.identity import PublicKey
from zignet.policy.source import Finding, SourceError
from zignet.policy.sources.turns import Turns

__all__ = ["DatabaseSource"]

_SQLITE = "sqlite:///"
_CLASS = re.compile(r"^<class '[^']*'>: ")  # SQLAlchemy's way of telling asyncpg's errors


class DatabaseSource:
    """See `Source`."""

    def __init__(self, policy: DatabasePolicy, recheck_s: float) -> None:
        assert policy.url is not None  # the configuration sees to it
        self.label = f"database {policy.url}"
        self._timeout_s = policy.timeout_s
        self._valid_s = recheck_s if policy.cache_s is None else policy.cache_s
        self._turns = Turns(policy.at_once)
        self._file = (
            Path(policy.url.text.removeprefix(_SQLITE)) if policy.url.text.startswith(_SQLITE) else None
        )
        self._engine = _engine(policy.url.text, policy.at_once, policy.timeout_s)
        self._query = sqlalchemy.text(
            policy.query.replace("::", r"\:\:")
        )  # PostgreSQL's casts are no parameters
        self._secrets = [word for word in (make_url(policy.url.text).password,) if word]

    async def look(self, key: PublicKey) -> Finding:
        """See `Source`. It waits for its turn, which is not counted as the database's time."""
        async with self._turns.turn():
            if self._file is not None:
                _check(self._file)
            connections: list[AsyncConnection] = []
            asking = asyncio.create_task(self._ask(key, connections))
            try:
                done, _ = await asyncio.wait({asking}, timeout=self._timeout_s)
            finally:
                if not asking.done():
                    await self._give_up(asking, connections)
        if not done:
            raise SourceError(f"no answer within {self._timeout_s:g} s")
        try:
            row = asking.result()
        except Exception as error:  # of the driver, of SQLAlchemy, of the network
            raise SourceError(self._why(error)) from None
        if row is None:
            return Finding(False, "no row in the result", self._valid_s)
        reason = row[0].strip() if row and isinstance(row[0], str) else ""
        return Finding(True, reason or "a row in the result", self._valid_s)

    def watch(self, changed: Callable[[], None]) -> None:
        """See `Source`. A database tells of no changes: it is asked again when its answer is too old."""

    async def close(self) -> None:
        """See `Source`."""
        await self._turns.close()
        await self._engine.dispose()

    async def _ask(self, key: PublicKey, connections: list[AsyncConnection]) -> tuple[Any, ...] | None:
        """The first row; of a million others none is fetched."""
        forms = {"key": key.name, "base58": key.base58, "hex": key.hex}
        values = {name: forms[name] for name in self._query.compile().params}
        async with self._engine.connect() as connection:
            connections.append(connection)
            async with connection.stream(self._query, values) as rows:
                row = await rows.fetchone()
                return None if row is None else tuple(row)

    async def _give_up(self, asking: asyncio.Task[Any], connections: list[AsyncConnection]) -> None:
        """End a query that takes too long. SQLite's runs in a thread, which has to be told."""
        if self._file is not None and connections:
            driver = (await connections[0].get_raw_connection()).driver_connection
            if driver is not None:
                await driver.interrupt()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    def _why(self, error: Exception) -> str:
        """The first line of what the driver says, without the query, its parameters, or the password."""
        said = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
        said = _CLASS.sub("", said.split("\n", 1)[0])
        for word in self._secrets:
            said = said.replace(word, "***")
        return said


def _check(file: Path) -> None:
    """What SQLite says of all of this is "unable to open database file"."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise SourceError(f"{file} is not a file")
        if not os.access(file, os.R_OK, effective_ids=True):
            raise SourceError(f"{file}: user {os.geteuid()} may not read it")
    except OSError as error:
        raise SourceError(f"{file}: {error.strerror}") from None


def _engine(text: str, most: int, timeout_s: float) -> AsyncEngine:
    if text.startswith(_SQLITE):
        # mode=rw: a file that is not there is an error, and not a new database
        where = "file:" + quote(text.removeprefix(_SQLITE))
        url = URL.create("sqlite+aiosqlite", database=where, query={"mode": "rw", "uri": "true"})
        arguments: dict[str, Any] = {"timeout": timeout_s}
    else:
        url = make_url(text).set(drivername="postgresql+asyncpg")
        if mode := url.query.get("sslmode"):  # as libpq calls it
            url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
        arguments = {"timeout": timeout_s, "command_timeout": timeout_s}
    engine = create_async_engine(
        url,
        connect_args=arguments,
        pool_size=most,
        max_overflow=0,
        pool_timeout=timeout_s,
        pool_pre_ping=True,
        hide_parameters=True,
        execution_options={} if text.startswith(_SQLITE) else {"postgresql_readonly": True},
    )
    if text.startswith(_SQLITE):
        event.listen(engine.sync_engine, "connect", _read_only)
    return engine


def _read_only(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA query_only = ON")
    cursor.close()
