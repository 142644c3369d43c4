"""The control process's main: the asyncio loop, and in it the judge, the channel to the packet process, and the API."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zignet.admin.node import NodeClient
from zignet.admin.settings import Settings
from zignet.identity import BadKey, PublicKey

if TYPE_CHECKING:
    from zignet.admin.api import Api
    from zignet.config import InboundConfig
    from zignet.policy.judge import Judge, Verdict

__all__ = ["Control", "run"]

log = logging.getLogger("zignet.admin")

LINE_BYTES = 64 << 10
STATUS_S = 5.0
FIRST_STATUS_S = 0.5  # while it is news
CLOSE_S = 1.5  # for all that ends; then the process does


def run(
    settings: int,
    policy: int,
    questions: Sequence[int],
    listeners: Sequence[int],
    covered: Sequence[Path],
    level: int = logging.INFO,
) -> int:
    """Until the packet process hangs up, or a signal. Numbers are descriptors; `covered`: what can't be seen here."""
    logging.basicConfig(level=level, format="zignet: %(message)s", stream=sys.stderr)
    control = Control(settings, covered)
    ends = [socket.socket(fileno=each) for each in (policy, *questions)]
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(control.serve(ends[0], ends[1:], [socket.socket(fileno=each) for each in listeners]))
    return 0


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class Control:
    """All that runs here."""

    def __init__(self, settings: int, covered: Sequence[Path] = ()) -> None:
        self._settings = settings
        self._covered = covered
        self.judge: Judge | None = None
        self._inbound: InboundConfig | None = None
        self._channel: Channel
        self._api: Api | None = None
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(
        self, policy: socket.socket, questions: Sequence[socket.socket], listeners: Sequence[socket.socket]
    ) -> None:
        """Until the channel closes, or SIGTERM."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._ended.set)
        settings = Settings.load(self._settings)
        node = await NodeClient.open(questions)
        policy.setblocking(False)
        _, channel = await loop.create_connection(lambda: Channel(self), sock=policy)
        self._channel = channel
        await self._judge_by(settings)
        servers = None
        if listeners:
            from zignet.admin.app import create_app, create_servers

            app = create_app(node, lambda: self.judge, Path.cwd(), settings.token)
            self._api = app.ctx.api
            servers = await create_servers(app, listeners)
        status = asyncio.create_task(self._tell_status())
        await self._ended.wait()
        status.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                if self.judge is not None:
                    await self.judge.close()
                if servers is not None:
                    await servers.close()
        node.close()
        self._channel.close()

    def end(self) -> None:
        """The packet process has hung up."""
        self._ended.set()

    # --- the judge

    async def _judge_by(self, settings: Settings) -> None:
        """Have the judge of this configuration, if it is another than before."""
        inbound = settings.config.inbound
        if inbound == self._inbound:
            return
        before, self.judge, self._inbound = self.judge, None, inbound
        if inbound.policies:
            from zignet.policy.build import make_judge

            self._warn_of_covered(inbound)
            self.judge = make_judge(inbound, time.monotonic, self._changed)
            self.judge.start()
        if before is not None:
            await before.close()

    def _warn_of_covered(self, inbound: InboundConfig) -> None:
        """Files that this process can't see, and so would take for missing."""
        for policy in inbound.policies:
            for file in files_of(policy):
                for place in self._covered:
                    if file.is_relative_to(place) and not file.exists():
                        log.error(
                            "inbound.policies: %s can't be read by the user %s, which policies are asked as: %s is "
                            "closed to it. Move the file to where that user may read it, for example /etc/zignet",
                            *(file, user_name(), place),
                        )

    def heard(self, message: dict[str, Any]) -> None:
        """A line of the packet process."""
        match message:
            case {"admit": str(name)}:
                self._spawn(self._decide(name))
            case {"forget": str(name)}:
                if self.judge is not None:
                    with suppress(BadKey):
                        self.judge.forget(PublicKey.from_text(name))
            case {"configure": int()}:
                self._spawn(self._configure())
            case _:
                log.error("the packet process sent what is no message")
                self.end()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _decide(self, name: str) -> None:
        judge = self.judge
        if judge is None:
            return
        from zignet.policy.judge import Busy

        try:
            key = PublicKey.from_text(name)
            verdict = await judge.decide(key)
        except (BadKey, Busy):
            return  # it will be asked again
        if judge is self.judge:
            self._tell(key, verdict)
            judge.keep(key)

    def _changed(self, key: PublicKey, verdict: Verdict) -> None:
        self._tell(key, verdict)

    def _tell(self, key: PublicKey, verdict: Verdict) -> None:
        if self._api is not None:
            self._api.decided(key, verdict)
        valid_s = verdict.valid_s
        self._channel.send(
            {
                "decided": key.name,
                "allowed": verdict.allowed,
                "reason": verdict.reason,
                "valid_s": None if valid_s == float("inf") else valid_s,
                "rights": ["packets"] if verdict.allowed else [],
                "provisional": verdict.provisional,
            }
        )

    async def _configure(self) -> None:
        try:
            settings = Settings.load(self._settings)
        except ValueError:
            return  # the packet process is writing them again, and will say so
        await self._judge_by(settings)
        self._channel.send({"configured": True})
        self._say_status()

    async def _tell_status(self) -> None:
        delay_s = FIRST_STATUS_S
        while True:
            self._say_status()
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, STATUS_S)

    def _say_status(self) -> None:
        sources = [] if self.judge is None else [asdict(each) for each in self.judge.status()]
        while len(line := encoded({"ready": True, "sources": sources})) > LINE_BYTES and sources:
            for each in sources:
                each["notes"] = each["notes"][: len(each["notes"]) // 2]
            if not any(each["notes"] for each in sources):
                sources.pop()
        self._channel.write(line)


class Channel(asyncio.Protocol):
    """Decisions to the packet process, and its questions."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._held = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._control.end()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._held += data
        *lines, rest = self._held.split(b"\n")
        self._held = rest
        for line in lines:
            self._control.heard(json.loads(line))

    def send(self, message: dict[str, Any]) -> None:
        """A line."""
        self.write(encoded(message))

    def write(self, line: bytes) -> None:
        """A line, ready made."""
        self._transport.write(line)

    def close(self) -> None:
        """Hang up."""
        self._transport.close()


def encoded(message: dict[str, Any]) -> bytes:
    """A line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def files_of(policy: Any) -> list[Path]:
    """The files that a policy names."""
    found: list[Path] = []
    match policy.type:
        case "file":
            found.append(policy.path)
        case "script":
            found.append(Path(policy.command[0]))
        case "database" if policy.url is not None and policy.url.text.startswith("sqlite:///"):
            found.append(Path(policy.url.text.removeprefix("sqlite:///")))
    return found


def user_name() -> str:
    """The user that this process is."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
