"""The endpoints of a configuration, `host:port`: where the host is a name, the system's resolver is asked in a thread.

The loop never waits. An answer is used for a handshake, and asked for anew when handshakes go unanswered: the
address behind a name changes.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from nat.loop import Loop
from zignet.transport import Udp

__all__ = ["Endpoints"]

log = logging.getLogger("zignet.peers")

AT_ONCE = 8  # questions to the resolver, each in a thread of its own

Found = Callable[[Any], None]  # with an address, or None


class Endpoints:
    """Turns `host:port` into an address of the transport. All but `_resolve` runs in the loop."""

    def __init__(self, loop: Loop, transport: Udp) -> None:
        self._loop = loop
        self._transport = transport
        self._asking: dict[str, list[Found]] = {}  # who waits for the answer about an endpoint
        self._queue: deque[str] = deque()  # of them, those that are not asked about yet
        self._threads = 0
        self._told: set[str] = set()  # endpoints whose trouble was told

    def numeric(self, endpoint: str) -> Any:
        """The address of a numeric endpoint, or None where it is a name. Raises ValueError: not from this socket."""
        host, port = split(endpoint)
        try:
            return self._transport.address(host, port)
        except ValueError:
            if is_numeric(host):
                raise
            return None

    def ask(self, endpoint: str, found: Found) -> None:
        """Call `found` in the loop with the first address behind a name that this socket can reach, or with None.

        A question that is under way is not asked twice.
        """
        waiting = self._asking.get(endpoint)
        if waiting is not None:
            waiting.append(found)
            return
        self._asking[endpoint] = [found]
        self._queue.append(endpoint)
        self._next()

    def complain(self, endpoint: str, problem: object) -> None:
        """Tell what is wrong with an endpoint, once until it is well again."""
        if endpoint not in self._told:
            self._told.add(endpoint)
            log.warning("the endpoint %s: %s", endpoint, problem)

    def _next(self) -> None:
        while self._queue and self._threads < AT_ONCE:
            self._threads += 1
            threading.Thread(target=self._resolve, args=(self._queue.popleft(),), daemon=True).start()

    def _resolve(self, endpoint: str) -> None:
        host, port = split(endpoint)
        address, problem = None, "it resolves to nothing that can be reached from this socket"
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            answers, problem = [], f"it does not resolve ({error})"
        for *_, where in answers:
            with suppress(ValueError):
                address = self._transport.address(str(where[0]), port)
                break
        with suppress(OSError):  # the loop has ended meanwhile
            self._loop.from_thread(partial(self._resolved, endpoint, address, problem))

    def _resolved(self, endpoint: str, address: Any, problem: str) -> None:
        self._threads -= 1
        self._next()
        if address is None:
            self.complain(endpoint, problem)
        else:
            self._told.discard(endpoint)
        for found in self._asking.pop(endpoint):
            found(address)


def split(endpoint: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6]:port`."""
    host, _, port = endpoint.rpartition(":")
    return host.strip("[]"), int(port)


def is_numeric(host: str) -> bool:
    """Whether a host is an address and not a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
        return True
    return False
