"""The file source, with real files that change under it."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from tests.zignet.policy.keys import KEYS
from zignet.config import FilePolicy
from zignet.policy import SourceError
from zignet.policy.build import make_judge
from zignet.policy.sources import file as module
from zignet.policy.sources.file import FileSource

A, B, C = KEYS[:3]
PATIENCE_S = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "allowed.txt"
    found.write_text(f"# ours\n{A} alice\n{B}\n")
    return found


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.05)


class Watched:
    """A source that is watched, and a flag for its changes."""

    def __init__(self, path: Path) -> None:
        self.source = FileSource(FilePolicy(path=path))
        self.changed = asyncio.Event()
        self.source.watch(self.changed.set)

    async def change(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.changed.wait()
        self.changed.clear()

    async def matches(self, key) -> bool:
        return (await self.source.look(key)).matches


def test_what_it_says(path: Path):
    async def scene() -> None:
        source = FileSource(FilePolicy(path=path))
        assert source.label == f"file {path}"
        found = await source.look(A)
        assert (found.matches, found.reason, found.valid_s) == (True, "line 2 (alice)", None)
        assert (await source.look(B)).reason == "line 3"
        found = await source.look(C)
        assert (found.matches, found.reason) == (False, "not among its 2 keys")
        assert source.notes == ()
        await source.close()
        with pytest.raises(SourceError, match="closed"):
            await source.look(A)

    asyncio.run(scene())


def test_bad_lines_are_noted(path: Path):
    async def scene() -> None:
        path.write_text(f"{A}\nnonsense\n" + "x\n" * 30)
        source = FileSource(FilePolicy(path=path))
        assert (await source.look(A)).matches
        assert source.notes[0].startswith('line 2: "nonsense" has 8 characters')
        assert source.notes[-1] == "and 11 more lines that are no keys"
        await source.close()

    asyncio.run(scene())


@pytest.mark.usefixtures("quick")
def test_changes_are_seen(path: Path):
    async def scene() -> None:
        watched = Watched(path)
        assert await watched.matches(A)
        path.write_text(f"{B}\n{C}\n")  # in place
        await watched.change()
        assert [await watched.matches(key) for key in (A, B, C)] == [False, True, True]
        fresh = path.with_name("fresh")
        fresh.write_text(f"{A}\n{C}\n")
        os.utime(fresh, ns=(0, os.stat(path).st_mtime_ns))  # of equal size and age
        fresh.rename(path)
        await watched.change()
        assert [await watched.matches(key) for key in (A, B, C)] == [True, False, True]
        path.write_text("")
        await watched.change()
        assert [await watched.matches(key) for key in (A, B, C)] == [False, False, False]
        await watched.source.close()

    asyncio.run(scene())


@pytest.mark.usefixtures("quick")
def test_a_file_that_is_gone_is_not_a_list_of_nobody(path: Path):
    async def scene() -> None:
        watched = Watched(path)
        assert await watched.matches(A)
        path.unlink()
        await watched.change()
        with pytest.raises(SourceError, match=f"{re.escape(str(path))}: No such file"):
            await watched.matches(A)
        path.mkdir()
        await watched.change()
        with pytest.raises(SourceError, match="is not a file"):
            await watched.matches(A)
        path.rmdir()
        path.write_text(f"{C}\n")
        await watched.change()
        assert await watched.matches(C)
        await watched.source.close()

    asyncio.run(scene())


@pytest.mark.root
def test_a_file_that_the_user_may_not_read(path: Path, tmp_path: Path):
    import multiprocessing

    path.chmod(0)
    os.chmod(tmp_path, 0o755)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        said = pool.apply(_as_nobody, (path,))
    assert said == f"{path}: Permission denied for user nobody: chmod or chown it, or its directory"


def _as_nobody(path: Path) -> str:
    # The directories above belong to root alone: they are entered before the rights are gone.
    os.chdir(path.parent)
    os.setuid(65534)
    try:
        asyncio.run(FileSource(FilePolicy(path=Path(path.name))).look(A))
    except SourceError as error:
        return str(error).replace(path.name, str(path), 1)
    return "it could"


@pytest.mark.usefixtures("quick")
def test_a_file_that_is_being_written_is_waited_for(path: Path):
    """While it changes from look to look it is not read: nobody is thrown out by half a list."""

    async def scene() -> None:
        watched = Watched(path)
        assert await watched.matches(A)
        with path.open("w") as stream:
            seen = module._signature_of
            states = 0

            def growing(where: Path):
                nonlocal states
                states += 1
                if states < 20:
                    stream.write(f"# {states}\n")
                elif states == 20:
                    stream.write(f"{A}\n{C}\n")
                stream.flush()
                return seen(where)

            module._signature_of = growing
            try:
                await watched.change()
            finally:
                module._signature_of = seen
        assert states > 20
        assert [await watched.matches(key) for key in (A, B, C)] == [True, False, True]
        await watched.source.close()

    asyncio.run(scene())


@pytest.mark.usefixtures("quick")
def test_the_judge_hears_of_it(path: Path):
    async def scene() -> None:
        from zignet.config import InboundConfig

        told = asyncio.Queue()
        inbound = InboundConfig(policies=(FilePolicy(path=path),))
        judge = make_judge(
            inbound, asyncio.get_running_loop().time, lambda key, verdict: told.put_nowait((key, verdict))
        )
        judge.start()
        assert (await judge.decide(A)).allowed
        judge.keep(A)
        path.write_text(f"{B}\n")
        async with asyncio.timeout(PATIENCE_S):
            key, verdict = await told.get()
        assert (key, verdict.allowed) == (A, False)
        path.unlink()
        while (status := judge.status()[0]).last_error is None:
            await asyncio.sleep(0.05)
            await judge.decide(A)
        assert "No such file" in status.last_error
        await judge.close()

    asyncio.run(scene())


def test_many_keys_are_loaded_beside_the_loop(path: Path):
    """One load for all who ask at first; the loop goes on meanwhile."""

    async def scene() -> None:
        source = FileSource(FilePolicy(path=path))
        loads = 0
        read = module.read_keys

        def counted(where: Path):
            nonlocal loads
            loads += 1
            return read(where)

        module.read_keys = counted
        try:
            found = await asyncio.gather(*(source.look(A) for _ in range(100)))
        finally:
            module.read_keys = read
        assert all(each.matches for each in found)
        assert loads == 1
        await source.close()

    asyncio.run(scene())
