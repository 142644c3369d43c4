"""A program that says whether a key may come in: exit code 0 is a match, 1 is none, anything else is a failure.

It gets the key in ZIGNET_KEY, ZIGNET_KEY_BASE58 and ZIGNET_KEY_HEX, and as one line of JSON on standard input. The
first line that it prints is its reason. No shell is between, and nothing else of ours: no descriptors, no environment.

It has a time limit, a limit on what it prints, and a session of its own, which ends with it: what it leaves running
there is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress

from zignet.config import ScriptPolicy
from zignet.identity import PublicKey
from zignet.policy.source import Finding, SourceError
from zignet.policy.sources.turns import Turns

__all__ = ["ScriptSource"]

MATCH, NO_MATCH = 0, 1  # exit codes

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = 4096  # bytes of what it prints
_MOST = 1 << 20  # bytes that it may print
_BURIAL_S = 5.0  # until one that was killed is gone
_LIMITS = ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 256), (resource.RLIMIT_FSIZE, 64 << 20))


class ScriptSource:
    """See `Source`."""

    def __init__(self, policy: ScriptPolicy, recheck_s: float) -> None:
        self.label = f"script {policy.command[0]}"
        self._command = policy.command
        self._timeout_s = policy.timeout_s
        self._valid_s = recheck_s if policy.cache_s is None else policy.cache_s
        self._turns = Turns(policy.at_once)

    async def look(self, key: PublicKey) -> Finding:
        """See `Source`. It waits for its turn, which is not counted as the script's time."""
        async with self._turns.turn():
            run = _Run(self._command, key)
            try:
                async with asyncio.timeout(self._timeout_s):
                    await run.ended
            except TimeoutError:
                raise SourceError(f"no answer within {self._timeout_s:g} s, so it was killed") from None
            finally:
                code = await run.bury()
        if run.printed > _MOST:
            raise SourceError(f"it printed more than {_MOST >> 20} MiB, so it was killed")
        if code not in (MATCH, NO_MATCH):
            what = _first_line(run.complaint) or _first_line(run.said)
            raise SourceError(_failure(code) + (f": {what}" if what else ""))
        return Finding(code == MATCH, _first_line(run.said) or f"exit code {code}", self._valid_s)

    def watch(self, changed: Callable[[], None]) -> None:
        """See `Source`. A script tells of no changes: it is asked again when its answer is too old."""

    async def close(self) -> None:
        """See `Source`."""
        await self._turns.close()


class _Run:
    """One process, from its start to its burial."""

    def __init__(self, command: tuple[str, ...], key: PublicKey) -> None:
        """Raises `SourceError` where it can't be started."""
        forms = {"key": key.name, "base58": key.base58, "hex": key.hex}
        self._process = _start(command, forms)
        _limit(self._process.pid)
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(self._process.pid)
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.printed = 0
        self.said = bytearray()
        self.complaint = bytearray()
        self._loop.add_reader(self._pidfd, self._end)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._outputs = ((self._process.stdout, self.said), (self._process.stderr, self.complaint))
        for stream, kept in self._outputs:
            os.set_blocking(stream.fileno(), False)
            self._loop.add_reader(stream.fileno(), self._read, stream.fileno(), kept)

    def _end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        if not self.ended.done():
            self.ended.set_result(None)

    def _read(self, descriptor: int, kept: bytearray) -> bool:
        """Whether there may be more."""
        try:
            piece = os.read(descriptor, 65536)
        except BlockingIOError:
            return False
        except OSError:
            piece = b""
        if not piece:
            self._loop.remove_reader(descriptor)
            return False
        kept += piece[: _KEPT - len(kept)]
        self.printed += len(piece)
        if self.printed > _MOST:
            self._loop.remove_reader(descriptor)
            self._end()
            return False
        return True

    async def bury(self) -> int:
        """Kill what is left, and give everything back. Returns the exit code, or minus the signal that it died of."""
        # It has not been waited for, so its number is still that of its process group, and of nobody else's.
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        gone = asyncio.Event()
        self._loop.add_reader(self._pidfd, gone.set)
        try:
            async with asyncio.timeout(_BURIAL_S):
                await gone.wait()
        except TimeoutError:
            pass  # the kernel holds it, e.g. in a file system that hangs; whoever is started next reaps it
        finally:
            for stream, kept in self._outputs:
                while self._read(stream.fileno(), kept):
                    pass
                self._loop.remove_reader(stream.fileno())
                stream.close()
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        code = self._process.poll()
        return -signal.SIGKILL if code is None else code


def _start(command: tuple[str, ...], forms: dict[str, str]) -> subprocess.Popen[bytes]:
    environment = {"PATH": _PATH, "LANG": "C.UTF-8", "ZIGNET_KEY": forms["key"]}
    environment |= {f"ZIGNET_KEY_{name.upper()}": forms[name] for name in ("base58", "hex")}
    ours, its = os.pipe()[::-1]
    try:
        os.write(ours, json.dumps(forms).encode() + b"\n")  # a pipe holds more than that
        os.close(ours)
        return subprocess.Popen(
            command,
            stdin=its,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise SourceError(f"it can't be started: {_why(error, command[0])}") from None
    finally:
        os.close(its)


def _why(error: OSError, program: str) -> str:
    match error:
        case FileNotFoundError() if os.path.exists(program):
            return "the interpreter that its first line names (#!) is not there"
        case PermissionError():
            return f"{error.strerror}; is it executable (chmod +x), and may user {os.geteuid()} reach it?"
        case OSError(errno=8):  # ENOEXEC
            return f"{error.strerror}; a script needs a first line such as #!/bin/sh"
        case _:
            return error.strerror or type(error).__name__


def _limit(pid: int) -> None:
    """What none of them needs is not to be had. The time that it has is limited by us."""
    for which, most in _LIMITS:
        with suppress(OSError, ValueError):  # it is over already, or belongs to another user (set-user-ID)
            _, hard = resource.prlimit(pid, which)
            most_now = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.prlimit(pid, which, (most_now, most_now))


def _failure(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return f"it died of {signal.Signals(-code).name}"
    return f"it died of signal {-code}"


def _first_line(text: bytes | bytearray) -> str:
    return text.strip().split(b"\n", 1)[0].decode("utf-8", "replace").strip()
