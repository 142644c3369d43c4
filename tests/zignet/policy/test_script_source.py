"""The script source, with real scripts: good ones, and bad ones."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import psutil
import pytest

from tests.zignet.policy.keys import KEYS
from zignet.config import ScriptPolicy
from zignet.policy import Finding, SourceError
from zignet.policy.judge import Judge
from zignet.policy.sources.script import ScriptSource

A, B = KEYS[:2]
PATIENCE_S = 60.0


@pytest.fixture
def script(tmp_path: Path):
    def write(text: str, interpreter: str = "#!/bin/sh") -> tuple[str, ...]:
        file = tmp_path / "verify.sh"
        file.unlink(missing_ok=True)
        file.write_text(f"{interpreter}\n{text}\n")
        file.chmod(0o755)
        return (str(file),)

    return write


def look(command: tuple[str, ...], **changes) -> Finding:
    """One look, by a policy that may take long unless it says otherwise; nothing is left open of it."""

    async def scene() -> Finding:
        source = ScriptSource(ScriptPolicy(command=command, **{"timeout_s": PATIENCE_S, **changes}), 300.0)
        try:
            return await source.look(A)
        finally:
            await source.close()

    before = set(os.listdir("/proc/self/fd"))
    try:
        return asyncio.run(scene())
    finally:
        assert set(os.listdir("/proc/self/fd")) <= before


def error(command: tuple[str, ...], **changes) -> str:
    with pytest.raises(SourceError) as caught:
        look(command, **changes)
    return str(caught.value)


def test_exit_codes(script):
    assert look(script("exit 0")) == Finding(True, "exit code 0", 300.0)
    assert look(script("exit 1")) == Finding(False, "exit code 1", 300.0)
    assert look(script("echo; echo ' paid until May '; echo more"), cache_s=9.0) == Finding(
        True, "paid until May", 9.0
    )
    assert look(script("echo unknown; echo x >&2; exit 1")).reason == "unknown"
    assert error(script("echo 'no network' >&2; exit 2")) == "exit code 2: no network"
    assert error(script("echo said; exit 127")) == "exit code 127: said"
    assert error(script("kill -SEGV $$")) == "it died of SIGSEGV"


def test_what_it_gets(script, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("ZIGNET_TEST_SECRET", "hunter2")
    leaked, other = os.pipe()
    os.set_inheritable(leaked, True)
    seen = tmp_path / "seen"
    command = script(
        f"import json, os, sys\njson.dump([json.load(sys.stdin), dict(os.environ), sys.argv[1:], os.getcwd(), "
        f"os.listdir('/proc/self/fd'), os.getpgrp() == os.getpid() == os.getsid(0)], open({str(seen)!r}, 'w'))",
        "#!/usr/bin/env python3",
    )
    try:
        assert look((*command, "$HOME", "a b;c")).matches
    finally:
        os.close(leaked)
        os.close(other)
    given, environment, arguments, folder, descriptors, leads = json.loads(seen.read_text())
    assert given == {"key": A.name, "base58": A.base58, "hex": A.hex}
    assert {name: value for name, value in environment.items() if name.startswith("ZIGNET")} == {
        "ZIGNET_KEY": A.name,
        "ZIGNET_KEY_BASE58": A.base58,
        "ZIGNET_KEY_HEX": A.hex,
    }
    assert environment.keys() - {"ZIGNET_KEY", "ZIGNET_KEY_BASE58", "ZIGNET_KEY_HEX"} <= {
        "PATH",
        "LANG",
        "LC_CTYPE",
    }
    assert (arguments, folder, leads) == (["$HOME", "a b;c"], "/", True)
    assert len(descriptors) <= 5  # three, the list's own, and the file


def test_input_that_nobody_reads(script):
    assert look(script("exec <&-; exit 0")).matches


def test_output_is_bounded_and_harmless(script):
    assert len(look(script("head -c 300000 /dev/zero | tr '\\0' x")).reason) <= 4096
    assert "printed more than 1 MiB" in error(script("yes"))
    assert "printed more than 1 MiB" in error(script("yes >&2"))
    assert look(script("head -c 3000 /dev/urandom")).matches


def test_a_reason_of_garbage_is_shown_as_text(script):
    async def scene() -> None:
        policy = ScriptPolicy(command=script("printf '\\033[31m\\000\\377red\\r'"), timeout_s=PATIENCE_S)
        judge = Judge([policy], "deny", [ScriptSource(policy, 300.0)], time.monotonic)
        verdict = await judge.decide(A)
        assert verdict.allowed
        assert verdict.reason.isprintable()
        assert "red" in verdict.reason
        await judge.close()

    asyncio.run(scene())


def alive(pids: list[int]) -> list[int]:
    return [
        pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    ]


def wait_for(condition) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_that_hangs_is_killed_with_its_children(script, tmp_path: Path):
    pids = tmp_path / "pids"
    command = script(f"trap '' TERM\nsleep 1000 &\necho $! >>{pids}\necho $$ >>{pids}\nwait\nsleep 1000")
    assert error(command, timeout_s=1.0) == "no answer within 1 s, so it was killed"
    found = [int(pid) for pid in pids.read_text().split()]
    assert len(found) == 2
    wait_for(lambda: not alive(found))


def test_children_that_outlive_it_are_killed_and_not_waited_for(script, tmp_path: Path):
    pids = tmp_path / "pids"
    command = script(f"(trap '' HUP TERM; sleep 1000) &\necho $! >{pids}\necho fine\nexit 0")
    assert look(command).reason == "fine"  # although a child holds its output open
    wait_for(lambda: not alive([int(pids.read_text())]))


def test_no_more_than_so_many_at_once(script, tmp_path: Path):
    places = tmp_path / "places"
    places.mkdir()
    command = script(f"touch {places}/$$; ls {places} | wc -l; sleep 0.1; rm {places}/$$")

    async def scene() -> list[Finding]:
        source = ScriptSource(ScriptPolicy(command=command, at_once=3, timeout_s=PATIENCE_S), 300.0)
        return await asyncio.gather(*(source.look(A) for _ in range(20)))

    assert max(int(found.reason) for found in asyncio.run(scene())) <= 3


def test_closing_kills(script, tmp_path: Path):
    pid = tmp_path / "pid"
    command = script(f"echo $$ >{pid}.new; mv {pid}.new {pid}; sleep 1000")

    async def scene() -> int:
        source = ScriptSource(ScriptPolicy(command=command, timeout_s=PATIENCE_S), 300.0)
        asking = asyncio.create_task(source.look(A))
        while not pid.exists():
            await asyncio.sleep(0.02)
        await source.close()
        for raiser in (asking, source.look(B)):
            with pytest.raises(SourceError, match="closed"):
                await raiser
        return int(pid.read_text())

    found = asyncio.run(scene())
    wait_for(lambda: not alive([found]))


def test_one_who_gives_up_waiting_leaves_nothing_running(script, tmp_path: Path):
    pid = tmp_path / "pid"
    command = script(f"echo $$ >{pid}.new; mv {pid}.new {pid}; sleep 1000")

    async def scene() -> None:
        source = ScriptSource(ScriptPolicy(command=command, timeout_s=PATIENCE_S), 300.0)
        asking = asyncio.create_task(source.look(A))
        while not pid.exists():
            await asyncio.sleep(0.02)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(scene())
    wait_for(lambda: not alive([int(pid.read_text())]))


def test_what_can_not_be_started(script, tmp_path: Path):
    assert error((str(tmp_path / "none"),)) == "it can't be started: No such file or directory"
    assert "interpreter that its first line names" in error(script("", "#!/no/such/thing"))
    command = script("exit 0", "exit 0")
    assert "needs a first line such as #!/bin/sh" in error(command)
    Path(command[0]).chmod(0o644)
    assert "chmod +x" in error(command)
    assert "chmod +x" in error((str(tmp_path),))


def test_limits(script):
    command = script("while [ $(ulimit -n) != 256 ]; do sleep 0.05; done; echo $(ulimit -c) $(ulimit -n)")
    assert look(command).reason == "0 256"
