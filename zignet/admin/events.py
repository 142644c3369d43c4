"""What happens, told to whoever listens: found by asking the packet process now and then, as long as somebody does.

    event: peer      {"event": "connected" | "left", "key", "name", "address"}
    event: flows     open flows by protocol, when their numbers changed
    event: reload    {"error": null, or why the old configuration stays}
    event: decision  what the inbound policy has decided
    event: node      {"state": "running" | "away"}: whether the packet process answers

The questions never take more than a twentieth of the packet process's time. Who reads too slowly to follow is
disconnected; a client of server-sent events connects again by itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from zignet.admin.fresh import SHARE, Asked
from zignet.admin.refused import Refused
from zignet.control import ControlError
from zignet.control.messages import Peer, Pulse

__all__ = ["Events", "Sight", "changes"]

LISTENERS = 16
BACKLOG = 256  # events that a listener may be behind; of 10,000 peers that come at once it hears by asking
PERIOD_S, LONGEST_S = 1.0, 10.0  # between two looks
ALIVE_S = 15.0  # a comment, so that both ends notice a dead connection

Event = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of the packet process at one moment."""

    pulse: Pulse
    peers: Mapping[str, Peer]  # connected ones, by key

    @property
    def loaded(self) -> float:
        """When the configuration was read, counted from the node's start."""
        return self.pulse["uptime_s"] - self.pulse["loaded_age_s"]


def changes(before: Sight | None, after: Sight) -> Iterator[Event]:
    """What happened between two moments; before the first nothing was."""
    pulse = after.pulse
    if before is None:
        yield "node", {"state": pulse["state"]}
        yield "flows", pulse["flows"]
        return
    if pulse["state"] != before.pulse["state"]:
        yield "node", {"state": pulse["state"]}
    for key, peer in after.peers.items():
        if key not in before.peers:
            yield "peer", {"event": "connected", **_who(peer)}
    for key, peer in before.peers.items():
        if key not in after.peers:
            yield "peer", {"event": "left", **_who(peer)}
    if pulse["flows"] != before.pulse["flows"]:
        yield "flows", pulse["flows"]
    error = pulse["last_reload_error"]
    if after.loaded > before.loaded + 0.1 or error != before.pulse["last_reload_error"]:
        yield "reload", {"error": error}


def _who(peer: Peer) -> dict[str, Any]:
    return {"key": peer["key"], "name": peer["name"], "address": peer["address"]}


class Events:
    """The listeners, and the watch that is kept for them."""

    def __init__(self, node: Asked, period_s: float = PERIOD_S) -> None:
        self._node = node
        self._period_s = period_s
        self._listeners: set[asyncio.Queue[bytes | None]] = set()
        self._watch: asyncio.Task[None] | None = None
        self._number = 0

    @property
    def listeners(self) -> int:
        """How many there are."""
        return len(self._listeners)

    def tell(self, kind: str, document: Mapping[str, Any]) -> None:
        """Something happened."""
        if not self._listeners:
            return
        self._number += 1
        data = json.dumps(document, separators=(",", ":"))
        text = f"event: {kind}\nid: {self._number}\ndata: {data}\n\n".encode()
        for queue in list(self._listeners):
            if queue.qsize() < BACKLOG:
                queue.put_nowait(text)
            else:
                self._listeners.discard(queue)
                queue.put_nowait(None)

    def stream(self) -> AsyncGenerator[bytes, None]:
        """The events from now on, as text/event-stream. Raises `Refused` where too many listen."""
        if len(self._listeners) >= LISTENERS:
            raise Refused(503, f"{LISTENERS} listen already; close one, or ask now and then instead")
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._listeners.add(queue)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._look())
        return self._stream(queue)

    def close(self) -> None:
        """Disconnect everybody."""
        if self._watch is not None:
            self._watch.cancel()
        for queue in self._listeners:
            queue.put_nowait(None)
        self._listeners.clear()

    async def _stream(self, queue: asyncio.Queue[bytes | None]) -> AsyncGenerator[bytes, None]:
        try:
            yield b"retry: 2000\n\n"
            while True:
                try:
                    async with asyncio.timeout(ALIVE_S):
                        text = await queue.get()
                except TimeoutError:
                    text = b": still here\n\n"
                if text is None:
                    return
                yield text
        finally:
            self._listeners.discard(queue)

    async def _look(self) -> None:
        clock = asyncio.get_running_loop().time
        before: Sight | None = None
        away = False
        while self._listeners:
            begun = clock()
            try:
                after = await self._sight()
            except ControlError:
                if not away:
                    self.tell("node", {"state": "away"})
                away, before = True, None
            else:
                for kind, document in changes(before, after):
                    self.tell(kind, document)
                away, before = False, after
            await asyncio.sleep(max(self._period_s, min(SHARE * (clock() - begun), LONGEST_S)))

    async def _sight(self) -> Sight:
        (answer,) = await self._node.ask({"do": "pulse"})
        pulse: Pulse = answer["pulse"]
        lines = await self._node.ask({"do": "peers", "connected": True}) if pulse["connected"] else []
        return Sight(pulse, {peer["key"]: peer for line in lines for peer in line["peers"]})
