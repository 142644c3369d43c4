"""The control process, as the packet process sees it: started, watched, started anew, and ended with the node.

    start ─► running ─► (dies, talks nonsense, is silent) ─► waits 0.2 … 10 s ─► start          close ─► ended

It gets one end of a channel for decisions, a few connections of the control service to ask with, sockets that listen
already, and its settings in a file in memory. It leaves by itself when the channel closes: so nothing is left of it
when this process is killed.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from nat.loop import READ, Handler, Loop
from zignet.control.line import LineChannel
from zignet.control.messages import ControlStatus, SourceStatus
from zignet.control.service import Adopted
from zignet.control.session import Handler as Answering
from zignet.control.user import User

__all__ = ["ControlProcess", "Judging", "command_line", "resident"]

log = logging.getLogger("zignet.control")

QUESTIONS = 4  # connections to ask with
FIRST_DELAY_S, LONGEST_DELAY_S = 0.2, 10.0  # before it is started anew
STABLE_S = 30.0  # after which its end is no row of failures
SILENT_S = 60.0  # it says something every few seconds
STOP_S = 4.0  # between SIGTERM and SIGKILL
MOST_SOURCES = 256
NONSENSE = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
)  # what a message that is none raises
MOST_TEXT = 1_000  # characters of a text that it sends


class Judging(Protocol):
    """Who wants its decisions."""

    def connect(self, send: Callable[[dict[str, Any]], bool]) -> None:
        """It is there, perhaps anew."""
        ...

    def disconnect(self) -> None:
        """It is not."""
        ...

    def resume(self) -> None:
        """There is room to send again."""
        ...

    def reloaded(self) -> None:
        """It judges by other rules now."""
        ...

    def told(self, message: dict[str, Any]) -> None:
        """A decision. Raises one of `NONSENSE` for what is none."""
        ...


class ControlProcess:
    """One for a node."""

    def __init__(
        self,
        loop: Loop,
        user: User,
        command: Sequence[str],
        handler: Answering,
        settings: bytes,
        listeners: Sequence[socket.socket] = (),
        judging: Judging | None = None,
    ) -> None:
        self._loop = loop
        self._user = user
        self._command = command
        self._handler = handler
        self._listeners = listeners
        self._judging = judging
        self._settings = os.memfd_create("settings", os.MFD_CLOEXEC)
        self._write(settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._exit: Exit | None = None
        self._channel: LineChannel | None = None
        self._questions: list[Adopted] = []
        self._delay_s = FIRST_DELAY_S
        self._started = self._heard = 0.0
        self._closing = False
        self._why = ""  # it was ended by us
        self.restarts = 0
        self.last_error = ""
        self._failed_at = 0.0
        self._sources: list[SourceStatus] = []
        self._ready = False

    # --- life

    def start(self) -> None:
        """Start it; what fails is said, and tried again."""
        if self._closing:
            return
        pairs = [socket.socketpair() for _ in range(1 + QUESTIONS)]
        theirs = [pair[1].fileno() for pair in pairs]
        listeners = [each.fileno() for each in self._listeners]
        user, realm = self._user, self._user.realm
        command = [
            *self._command,
            *("--parent", str(os.getpid())),
            *("--user", f"{user.uid}:{user.gid}"),
            *("--state", str(user.state)),
            *("--settings", str(self._settings)),
            *("--level", str(log.getEffectiveLevel())),
            *("--policy", str(theirs[0])),
            *("--questions", ",".join(map(str, theirs[1:]))),
        ]
        passed = [self._settings, *theirs, *listeners]
        if listeners:
            command += ["--listen", ",".join(map(str, listeners))]
        if realm is not None:
            command += ["--realm", ",".join(map(str, realm.descriptors))]
            passed += realm.descriptors
        if user.covered:
            command += ["--covered", os.pathsep.join(map(str, user.covered))]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=passed,
                start_new_session=True,  # Ctrl-C is for the node, which then ends it
                env=_environment(),
            )
            pidfd = os.pidfd_open(self._process.pid)
        except OSError as error:
            for end, _ in pairs:
                end.close()
            self._failed(f"it can't be started: {error.strerror}")
            return
        finally:
            for _, end in pairs:
                end.close()
        self._started = self._heard = self._loop.now
        self._ready = False
        self._why = ""
        self._exit = Exit(self._loop, pidfd, self._exited)
        first, *rest = (pair[0] for pair in pairs)
        self._channel = LineChannel(self._loop, first, self._told, self._room, self._broken)
        self._questions = [Adopted(self._loop, each, self._handler) for each in rest]
        self._loop.call_later(SILENT_S, self._look)

    def reload(self, settings: bytes) -> None:
        """Other settings: it takes them while it runs."""
        self._write(settings)
        if self._channel is not None:
            self._channel.send({"configure": len(settings)})

    def _write(self, settings: bytes) -> None:
        os.ftruncate(self._settings, 0)
        os.pwrite(self._settings, settings, 0)

    def close(self) -> None:
        """End it, now. Returns when it has gone."""
        self._closing = True
        self._hang_up()
        if self._process is not None and self._exit is not None:
            self._exit.end(signal.SIGTERM)
            if not self._exit.wait(STOP_S):
                log.warning("the control process did not end within %g s and is killed", STOP_S)
                self._exit.end(signal.SIGKILL)
                self._exit.wait(STOP_S)
            self._process.poll()
            self._exit.close()
            self._process = self._exit = None
        os.close(self._settings)
        self._user.close()

    # --- from it

    def _told(self, message: dict[str, Any]) -> None:
        self._heard = self._loop.now
        try:
            if "decided" in message:
                if self._judging is not None:
                    self._judging.told(message)
            elif message.get("ready") is True:
                self._sources = _sources(message.get("sources"))
                if not self._ready:
                    self._ready = True
                    if self._judging is not None and self._channel is not None:
                        self._judging.connect(self._channel.send)
            elif message.get("configured") is True:
                if self._judging is not None:
                    self._judging.reloaded()
            else:
                raise ValueError("a message of no known kind")
        except NONSENSE as error:
            self._broken(f"it sent what was not expected: {error}")

    def _room(self) -> None:
        if self._judging is not None:
            self._judging.resume()

    def _broken(self, why: str) -> None:
        """There is no talking to it any more."""
        self._why = self._why or why
        self._hang_up()
        self._loop.call_later(STOP_S, self._kill)

    def _kill(self) -> None:
        if self._exit is not None and self._channel is None:
            self._exit.end(signal.SIGKILL)

    def _look(self) -> None:
        """Whether it is still there, in more than name."""
        if self._channel is None:
            return
        if self._loop.now < self._heard + SILENT_S:
            self._loop.call_at(self._heard + SILENT_S, self._look)
        else:
            self._broken(f"it said nothing for {SILENT_S:.0f} s")
            self._kill()

    def _exited(self) -> None:
        assert self._process is not None
        code = self._process.poll()
        self._process = self._exit = None
        self._hang_up()
        how = f"it was killed by signal {-code}" if code is not None and code < 0 else f"it ended with {code}"
        self._failed(f"{self._why}; {how}" if self._why else how)

    def _failed(self, why: str) -> None:
        if self._closing:
            return
        if self._started and self._loop.now > self._started + STABLE_S:
            self._delay_s = FIRST_DELAY_S
        if why != self.last_error or self._delay_s == FIRST_DELAY_S:
            log.warning("the control process has failed and is started again: %s", why)
        self.last_error, self._failed_at = why, self._loop.now
        self.restarts += 1
        self._loop.call_later(self._delay_s, self.start)
        self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)

    def _hang_up(self) -> None:
        if self._judging is not None:
            self._judging.disconnect()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        for each in self._questions:
            each.close()
        self._questions = []

    @property
    def needs(self) -> frozenset[int]:
        """Capabilities without which it can't be started anew."""
        return frozenset(self._user.needs)

    # --- for people

    def status(self) -> ControlStatus:
        """How it is."""
        pid = self._process.pid if self._process is not None else None
        now = self._loop.now
        return ControlStatus(
            pid=pid,
            user=self._user.name,
            state="running" if self._ready and pid else "starting" if pid else "down",
            uptime_s=round(now - self._started, 3) if pid else 0.0,
            memory=resident(pid) if pid else 0,
            restarts=self.restarts,
            last_error=self.last_error or None,
            last_error_age_s=round(now - self._failed_at, 3) if self.last_error else None,
            sources=self._sources if self._ready else [],
        )


class Exit(Handler):
    """Hears that a process has ended, and ends it."""

    def __init__(self, loop: Loop, pidfd: int, ended: Callable[[], None]) -> None:
        self._loop = loop
        self._pidfd = pidfd
        self._ended = ended
        loop.watch(pidfd, self, READ)

    def on_event(self, mask: int) -> None:
        """It has."""
        self.close()
        self._ended()

    def end(self, number: int) -> None:
        """Send it a signal."""
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            pass
        except OSError as error:
            if error.errno != errno.ESRCH:
                log.error("the control process can't be ended: %s", error.strerror)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended by then."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        deadline = time.monotonic() + seconds
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))

    def close(self) -> None:
        """Watch no more."""
        self._loop.close(self._pidfd)


def command_line() -> list[str]:
    """The control process's command. -P keeps the working directory out of its module path."""
    return [sys.executable, "-P", "-m", "zignet.admin"]


def resident(pid: int) -> int:
    """Bytes of memory that a process has in use; 0 if it has gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _environment() -> dict[str, str]:
    """Ours, with what is found where we found it; the home directory may be one that it can't enter."""
    paths = [os.path.abspath(each) for each in sys.path if each]
    kept = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"}


def _sources(given: object) -> list[SourceStatus]:
    """What it says of its sources. Raises one of `NONSENSE`."""
    if not isinstance(given, list) or len(given) > MOST_SOURCES:
        raise ValueError("sources")
    return [
        SourceStatus(
            label=str(each["label"])[:MOST_TEXT],
            asked=int(each["asked"]),
            matched=int(each["matched"]),
            failed=int(each["failed"]),
            pending=int(each["pending"]),
            last_error=None if each["last_error"] is None else str(each["last_error"])[:MOST_TEXT],
            last_error_age_s=None if each["last_error"] is None else float(each["last_error_age_s"]),
            notes=[str(note)[:MOST_TEXT] for note in list(each["notes"])[:MOST_SOURCES]],
        )
        for each in given
    ]
