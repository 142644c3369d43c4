"""The endpoints of a configuration, `host:port`: where the host is a name, the system's resolver is asked in a thread.

The loop never waits. An answer is used for a handshake, and asked for anew when handshakes go unanswered: the
address behind a name changes.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

from nat.loop import Loop
from zignet.transport import Udp

__all__ = ["Endpoints"]

log = logging.getLogger("zignet.peers")

AT_ONCE = 8  # questions to the resolver


class Endpoints:
    """Turns `host:port` into an address of the transport."""

    def __init__(self, loop: Loop, transport: Udp) -> None:
        self._loop = loop
        self._transport = transport
        self._gate = threading.BoundedSemaphore(AT_ONCE)
        self._asking: set[str] = set()

    def numeric(self, endpoint: str) -> Any:
        """The address of a numeric endpoint, or None where it is a name. Raises ValueError: not from this socket."""
        host, port = split(endpoint)
        try:
            return self._transport.address(host, port)
        except ValueError:
            if is_numeric(host):
                raise
            return None

    def ask(self, endpoint: str, found: Callable[[Any], None]) -> None:
        """Call `found` in the loop with the first address behind a name that this socket can reach."""
        if endpoint in self._asking:
            return
        self._asking.add(endpoint)
        threading.Thread(target=self._resolve, args=(endpoint, found), daemon=True).start()

    def _resolve(self, endpoint: str, found: Callable[[Any], None]) -> None:
        host, port = split(endpoint)
        address = None
        try:
            with self._gate:
                answers = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            log.warning("the endpoint %s does not resolve: %s", endpoint, error)
            answers = []
        for *_, where in answers:
            try:
                address = self._transport.address(str(where[0]), port)
                break
            except ValueError:
                continue

        def tell() -> None:
            self._asking.discard(endpoint)
            if address is not None:
                found(address)

        self._loop.from_thread(tell)


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
