"""The command line's side of the control socket: blocking, with a time-out on every answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from zignet.control.messages import (
    Decided,
    DnsStatus,
    DnsWhy,
    Explanation,
    Flow,
    Peer,
    Ping,
    Question,
    Status,
)
from zignet.control.place import socket_address
from zignet.control.session import LINE_LIMIT

__all__ = ["Broken", "Client", "ControlError", "Declined", "NotPermitted", "NotRunning"]

TIMEOUT_S = 10.0
POLICY_TIMEOUT_S = 40.0  # a script, a database, a chain
PING_TIMEOUT_S = 20.0  # a handshake comes first, and the node is patient


class ControlError(Exception):
    """The node gave no answer; the text says why and what to do."""


class NotRunning(ControlError):
    """No node has this state directory."""


class NotPermitted(ControlError):
    """A node may be there, but this user may not talk to it."""


class Declined(ControlError):
    """The node answered with an error of its own."""


class Broken(ControlError):
    """The connection broke, or what came was no answer."""


class Client:
    """A connection to the running node: `with Client(state_dir) as client: client.status()`.

    Entering raises `NotRunning` or `NotPermitted`; every question `Declined` or `Broken`.
    """

    def __init__(self, state_dir: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._state_dir = state_dir
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._lines: Iterator[bytes] = iter(())

    def __enter__(self) -> Self:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self._timeout_s)
        try:
            with socket_address(self._state_dir) as address:
                sock.connect(address)
        except OSError as error:
            sock.close()
            raise self._explained(error) from error
        self._socket = sock
        self._lines = _lines(sock)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def status(self) -> Status:
        """The node as it is now."""
        return cast(Status, self._one({"do": "status"}, "status"))

    def flows(self, ended: bool = False) -> Iterator[Flow]:
        """Open flows, newest first; with `ended` the recently ended ones too."""
        for part in self.ask({"do": "flows", "ended": ended}):
            yield from cast("list[Flow]", part.get("flows", []))

    def explain(self, question: Question) -> Explanation:
        """How such a flow would leave by the rules in force."""
        return cast(Explanation, self._one({"do": "explain", **question}, "explanation"))

    def peers(self, every: bool = False) -> Iterator[Peer]:
        """The peers that are connected or configured; with `every` all that were ever given an address."""
        for part in self.ask({"do": "peers", "all": every}):
            yield from cast("list[Peer]", part.get("peers", []))

    def ping(self, peer: str) -> Ping:
        """One sealed ping of a peer. Raises `Declined` where nobody of that name is known."""
        return cast(Ping, self._one({"do": "ping", "peer": peer}, "ping", PING_TIMEOUT_S))

    def publish(self, name: str, proto: str, port: int, to: list[str]) -> float:
        """Publish a service; for how many seconds that holds. Raises `Declined`."""
        request = {"do": "publish", "name": name, "proto": proto, "port": port, "to": to}
        return float(cast(float, self._one(request, "published")))

    def withdraw(self, name: str) -> None:
        """End that before its time."""
        self._one({"do": "publish", "name": name, "end": True}, "published")

    def policy_check(self, key: str) -> Decided:
        """Whether the running node would let a key in. Raises `Declined` for what is no key."""
        return cast(Decided, self._one({"do": "policy-check", "key": key}, "decided", POLICY_TIMEOUT_S))

    def dns(self) -> DnsStatus:
        """The name server as it is now. Raises `Declined` where the node has none, as the next two do."""
        return cast(DnsStatus, self._one({"do": "dns"}, "dns"))

    def dns_why(self, name: str, kind: str) -> DnsWhy:
        """Where its answer for a name and a type comes from."""
        return cast(DnsWhy, self._one({"do": "dns-why", "name": name, "type": kind}, "why"))

    def dns_flush(self) -> int:
        """Have it forget the upstreams' answers; how many these were."""
        return int(cast(int, self._one({"do": "dns-flush"}, "flushed")))

    def reload(self) -> None:
        """Have the node read its configuration again. Raises `Declined` with the configuration's error."""
        self._one({"do": "reload"}, "reloaded")

    def ask(self, request: dict[str, Any], timeout_s: float | None = None) -> Iterator[dict[str, Any]]:
        """One request, and the lines of its answer."""
        if self._socket is None:
            raise Broken("the connection to the node is not open")
        timeout_s = timeout_s or self._timeout_s
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            for line in self._lines:
                answer = json.loads(line)
                if not isinstance(answer, dict):
                    raise Broken("the node sent something that is not an answer")
                if "error" in answer:
                    raise Declined(str(answer["error"]))
                if "end" in answer:
                    return
                yield answer
        except TimeoutError as error:
            raise Broken(f"the node did not answer within {timeout_s:g} s") from error
        except OSError as error:
            raise Broken(f"the connection to the node broke: {error.strerror}") from error
        except ValueError as error:
            raise Broken("the node sent something that is not an answer") from error
        raise Broken("the node closed the connection before its answer was whole")

    def _one(self, request: dict[str, Any], key: str, timeout_s: float | None = None) -> object:
        answer = {name: value for part in self.ask(request, timeout_s) for name, value in part.items()}
        if key not in answer:
            raise Broken(f"the node's answer has no {key}: is it of the same version as this command?")
        return answer[key]

    def _explained(self, error: OSError) -> ControlError:
        if isinstance(error, PermissionError):
            return NotPermitted(
                f"You may not talk to the node of {self._state_dir}: it belongs to another user. "
                "Run this command as that user, usually with sudo."
            )
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError, NotADirectoryError)):
            return NotRunning(
                f"ZigNet is not running: nothing answers in {self._state_dir}. Start it with `zignet up`. "
                "If it was started with sudo or with another configuration, give this command the same."
            )
        return Broken(f"can't connect to the node in {self._state_dir}: {error.strerror or error}")


def _lines(sock: socket.socket) -> Iterator[bytes]:
    """Whole lines; ends with the connection. Raises `Broken` for one that is too long, OSError."""
    held = bytearray()
    while data := sock.recv(1 << 16):
        held += data
        while (end := held.find(b"\n")) >= 0:
            yield bytes(held[:end])
            del held[: end + 1]
        if len(held) > LINE_LIMIT:
            raise Broken("the node sent a line without end")
