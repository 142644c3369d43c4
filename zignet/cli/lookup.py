"""The addresses of a name for `zignet route explain`: by the node's own server, or by the system's resolver."""

from __future__ import annotations

import queue
import socket
import threading
import time
from dataclasses import dataclass

from zignet.cli.dns_query import ask, parse, server_at
from zignet.cli.errors import Fault
from zignet.cli.text import printable

__all__ = ["SYSTEM", "Found", "SystemLookup", "by_node"]

SYSTEM = "the system's resolver"
_MOST = 8  # addresses of a name that are looked at


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it."""

    addresses: tuple[str, ...]  # IPv4 first
    by: str
    took_s: float
    trouble: str = ""  # a sentence, where there are none


def by_node(name: str, listen: str) -> Found:
    """Ask the node's server at `listen` for both families."""
    begun = time.monotonic()
    addresses: list[str] = []
    rcodes: list[str] = []
    try:
        for query in (*parse(name, "A"), *parse(name, "AAAA")):
            answer = ask(query, server_at(listen), tcp=False)
            rcodes.append(answer.rcode)
            addresses += [record.data for record in answer.records if record.kind == query.kind]
    except Fault as error:
        text = f"The node's name server gave no answer: {error}. `zignet dns status` says where it listens."
        return Found((), listen, time.monotonic() - begun, text)
    trouble = "" if addresses else _why(name, rcodes)
    return Found(tuple(addresses[:_MOST]), listen, time.monotonic() - begun, trouble)


def _why(name: str, rcodes: list[str]) -> str:
    name = printable(name)
    if "NXDOMAIN" in rcodes:
        return f"There is no name {name}: see whether it is spelt right; `zignet dns query {name}` says who was asked."
    if "SERVFAIL" in rcodes:
        return (
            f"The name servers that were asked for {name} gave no answer, or the pool of fake addresses is full: "
            f"`zignet dns query {name}` and `zignet status` say which."
        )
    if "REFUSED" in rcodes:
        return f"The node refuses to look {name} up: it is not answered here, and `dns.others` is refuse."
    return f"The name {name} exists and has no address."


class SystemLookup:
    """getaddrinfo beside everything else: nobody can tell it how long it may take."""

    def __init__(self, name: str, port: int) -> None:
        self._name, self._port = name, port
        self._begun = time.monotonic()
        self._result: queue.SimpleQueue[Found] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def wait(self, patience_s: float) -> Found:
        """The answer, if it comes within so many seconds of the beginning."""
        left = self._begun + patience_s - time.monotonic()
        try:
            return self._result.get(timeout=max(left, 0.001))
        except queue.Empty:
            text = f"{SYSTEM} has not answered for {printable(self._name)} within {patience_s:g} s."
            return Found((), SYSTEM, time.monotonic() - self._begun, text.capitalize())

    def _run(self) -> None:
        trouble = ""
        try:
            found = socket.getaddrinfo(self._name, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            found = []
            said = getattr(error, "strerror", None) or str(error)
            trouble = f"{printable(self._name)} does not resolve here, says {SYSTEM}: {said}."
        unique = dict.fromkeys(str(where[0]).partition("%")[0] for *_, where in found)
        addresses = sorted(unique, key=lambda text: ":" in text)[:_MOST]
        self._result.put(Found(tuple(addresses), SYSTEM, time.monotonic() - self._begun, trouble))
