"""The database source, with SQLite and a PostgreSQL of our own."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from tests.zignet.policy.keys import KEYS
from tests.zignet.policy.postgres import Postgres
from zignet.config import DatabasePolicy
from zignet.config.url import database_url
from zignet.policy import Finding, SourceError
from zignet.policy.judge import Judge
from zignet.policy.sources.database import DatabaseSource

A, B = KEYS[:2]
PATIENCE_S = 60.0
PASSWORD = "s3cret pass@word"
QUERY = "select 1 from members where key = :key"
ENDLESS = (
    "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n where i <> :key"
)
MANY = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n where i <> :key"


def source_of(url: str, query: str = QUERY, **changes) -> DatabaseSource:
    made = DatabasePolicy(url=database_url(url), query=query, **{"timeout_s": PATIENCE_S, **changes})
    return DatabaseSource(made, 300.0)


def look(url: str, query: str = QUERY, key=A, **changes) -> Finding:
    async def scene() -> Finding:
        source = source_of(url, query, **changes)
        try:
            return await source.look(key)
        finally:
            await source.close()

    return asyncio.run(scene())


def error(url: str, query: str = QUERY, **changes) -> str:
    with pytest.raises(SourceError) as caught:
        look(url, query, **changes)
    return str(caught.value)


# SQLite


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A database with A in it; no thread of its driver is left behind."""
    found = tmp_path / "it's 100% ours.db"
    with sqlite3.connect(found) as database:
        database.execute("create table members (key text, base58 text, hex text, name text)")
        database.execute("insert into members values (?, ?, ?, ' alice ')", (A.name, A.base58, A.hex))
    database.close()
    before = threading.active_count()
    yield found
    end = time.monotonic() + PATIENCE_S
    while threading.active_count() > before:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_row_is_a_match(file: Path):
    url = f"sqlite:///{file}"
    assert look(url) == Finding(True, "a row in the result", 300.0)
    assert look(url, key=B, cache_s=7.0) == Finding(False, "no row in the result", 7.0)
    assert look(url, "select name from members where base58 = :base58").reason == "alice"
    assert look(url, "select 0 from members where hex = :hex and key = :key").matches
    assert look(url, "select null from members where key = :key").matches


def test_no_more_than_a_row_is_fetched(file: Path):
    assert look(f"sqlite:///{file}", MANY).matches


def test_sqlite_changes_nothing_and_makes_nothing(file: Path):
    url = f"sqlite:///{file}"
    for query in (
        "delete from members where key = :key returning 1",
        "insert into members (key) select :key returning 1",
    ):
        said = error(url, query)
        assert said == "attempt to write a readonly database"
    assert look(url).matches
    none = file.with_name("none.db")
    assert error(f"sqlite:///{none}") == f"{none}: No such file or directory"
    assert error(f"sqlite:///{file.parent}") == f"{file.parent} is not a file"
    assert not none.exists()


def test_what_sqlite_says_is_told_in_one_line(file: Path):
    assert error(f"sqlite:///{file}", "select 1 from nobody where x = :key") == "no such table: nobody"
    assert error(f"sqlite:///{file}", "selekt :key") == 'near "selekt": syntax error'
    file.write_bytes(b"no database" * 1000)
    assert error(f"sqlite:///{file}") == "file is not a database"


def test_a_query_of_sqlite_without_end(file: Path):
    async def scene() -> None:
        source = source_of(f"sqlite:///{file}", ENDLESS, timeout_s=0.5, at_once=1)
        for _ in range(3):  # the one connection is given back each time
            with pytest.raises(SourceError, match="no answer within"):
                await source.look(A)
        await source.close()

    asyncio.run(scene())


def test_a_database_of_sqlite_that_is_locked(file: Path):
    with sqlite3.connect(file, isolation_level=None) as writer:
        writer.execute("begin exclusive")
        said = error(f"sqlite:///{file}", timeout_s=0.5)
        assert said in ("database is locked", "no answer within 0.5 s")
        writer.execute("rollback")
    writer.close()
    assert look(f"sqlite:///{file}").matches


def test_many_ask_few_connections(file: Path):
    async def scene() -> None:
        source = source_of(f"sqlite:///{file}", at_once=2)
        before = threading.active_count()
        found = await asyncio.gather(*(source.look(A) for _ in range(200)))
        assert all(each.matches for each in found)
        assert threading.active_count() <= before + 2
        await source.close()
        with pytest.raises(SourceError, match="closed"):
            await source.look(A)

    asyncio.run(scene())


def test_closing_ends_what_is_under_way(file: Path):
    async def scene() -> None:
        source = source_of(f"sqlite:///{file}", ENDLESS)
        asking = [asyncio.create_task(source.look(A)) for _ in range(9)]
        await asyncio.sleep(0.2)
        await source.close()
        for each in asking:
            with pytest.raises(SourceError, match="closed"):
                await each

    asyncio.run(scene())


# PostgreSQL


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    made = Postgres(PASSWORD)
    try:

        async def fill() -> None:
            connection = await asyncpg.connect(
                host=str(made.sockets), user="zignet", password=PASSWORD, database="postgres"
            )
            await connection.execute("create table members (key text, raw bytea, name text)")
            await connection.execute("insert into members values ($1, $2, 'alice')", A.name, A.ed)
            await connection.close()

        asyncio.run(fill())
        yield made
    finally:
        made.close()


@pytest.fixture
def url(server: Postgres) -> str:
    return f"postgresql://zignet:{quote(PASSWORD)}@/postgres?host={server.sockets}"


def test_postgresql(url: str):
    assert look(url) == Finding(True, "a row in the result", 300.0)
    assert look(url, key=B) == Finding(False, "no row in the result", 300.0)
    assert look(url, "select name from members where raw = decode(:hex, 'hex')").reason == "alice"
    assert look(url, "select name::varchar from members where key = :key::text").reason == "alice"
    assert look(url, "select :key::text from generate_series(1, 10000000)").matches
    assert look(f"{url}&sslmode=disable").matches


def test_postgresql_changes_nothing(url: str):
    said = error(url, "delete from members where key = :key returning 1")
    assert said == "cannot execute DELETE in a read-only transaction"
    assert look(url).matches


def test_what_postgresql_says_is_told_without_the_password(url: str, server: Postgres):
    assert error(url, "select 1 from nobody where x = :key") == 'relation "nobody" does not exist'
    wrong = url.replace(quote(PASSWORD), "hunter2secret")
    assert error(wrong) == 'password authentication failed for user "zignet"'
    for bad in (f"{url}&nonsense=1", url.replace("/postgres?", "/none?"), f"{url}&sslmode=perhaps"):
        said = error(bad)
        assert PASSWORD not in said
        assert quote(PASSWORD) not in said
    source = source_of(url)
    assert source.label == "database postgresql://zignet:***@/postgres"


def test_a_query_of_postgresql_that_takes_too_long(url: str):
    async def scene() -> None:
        source = source_of(url, "select 1 from pg_sleep(1000) where :key <> ''", timeout_s=1.0, at_once=1)
        for _ in range(2):
            with pytest.raises(SourceError, match="no answer within 1 s"):
                await source.look(A)
        await source.close()

    asyncio.run(scene())
    running = (
        "select 1 from pg_stat_activity where query like '%pg_sleep(1000)%' and query not like '%activity%' "
    )
    running += "and :key <> ''"
    end = time.monotonic() + PATIENCE_S
    while look(url, running).matches:  # the server has been told
        assert time.monotonic() < end


def test_a_server_that_goes_away_in_the_middle_and_comes_back(url: str, server: Postgres):
    async def scene() -> None:
        policy = DatabasePolicy(
            url=database_url(url),
            query="select 1 from members, pg_sleep(1000) where key = :key and :hex <> ''",
            timeout_s=PATIENCE_S,
            on_error="stale",
        )
        slow = DatabaseSource(policy, 300.0)
        quick = source_of(url)
        clock = [0.0]
        judge = Judge([policy], "deny", [quick], lambda: clock[0], recheck_s=300.0)
        assert (await judge.decide(A)).allowed
        asking = asyncio.create_task(slow.look(A))
        await asyncio.sleep(1)
        await asyncio.to_thread(server.stop)
        with pytest.raises(SourceError) as caught:
            await asking
        assert "closed" in str(caught.value) or "terminat" in str(caught.value)
        clock[0] += 300
        verdict = await judge.decide(A)
        assert verdict.allowed
        assert "as it said before it failed" in verdict.reason
        assert not (await judge.decide(B)).allowed
        assert judge.status()[0].failed == 2
        await asyncio.to_thread(server.start)
        clock[0] += 10
        verdict = await judge.decide(A)
        assert verdict.reason.endswith("admits this key: a row in the result.")
        await judge.close()
        await slow.close()

    asyncio.run(scene())


def test_a_server_that_was_restarted_while_nobody_asked(url: str, server: Postgres):
    async def scene() -> None:
        source = source_of(url)
        assert (await source.look(A)).matches
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        assert (await source.look(A)).matches  # by a new connection, and without an error
        await source.close()

    asyncio.run(scene())
