"""A node whose names come from a file: `python -m tests.lab.named_node CONFIG`, with `names.json` beside it.

    {"fakes": ["www.example", ...], "answers": {"www.example": ["192.0.2.3"]}}

The fakes get the addresses 198.19.0.2, .3, … in their order; the answers are what this node's resolver finds. All else
is as in `zignet up`: the rules, the engine, the peers.
"""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from nat.exit import Lookup, Reason, Refusal, Route
from zignet.config import load_config
from zignet.dns.fakes import Fakes
from zignet.exits.peer import lead
from zignet.node import Node

POOL4, POOL6 = IPv4Network("198.19.0.0/16"), IPv6Network("2001:2::/64")


class Journal:
    def reserve(self, ceiling: int) -> None: ...

    def release(self, numbers: object) -> None: ...

    def assigned(self, number: int, key: str, wall: int) -> None: ...


class Answers:
    """The resolver."""

    def __init__(self, answers: dict[str, list[str]]) -> None:
        self._answers = {
            name: [
                socket.inet_pton(socket.AF_INET6 if ":" in each else socket.AF_INET, each) for each in found
            ]
            for name, found in answers.items()
        }

    def resolve(self, name: str, done: Callable[[Sequence[bytes] | Refusal], None]) -> Lookup:
        done(self._answers.get(name) or Refusal(Reason.HOST_UNREACHABLE, f"{name} does not exist"))
        return self

    def cancel(self) -> None: ...


class Chooser:
    """The rules, with the name that a fake address stands for."""

    def __init__(self, node: Node, fakes: Fakes) -> None:
        self._node = node
        self._fakes = fakes

    def choose(
        self, protocol: int, source: bytes, source_port: int, target: bytes, port: int, name: str | None
    ) -> Route | None:
        found = self._fakes.lookup(target)
        rules: Any = self._node.rules
        if found is None:
            route: Route | None = rules.choose(protocol, source, source_port, target, port, name)
            return route
        name, by = found
        if by:
            return Route(self._node.exits[by], "sniffed before", True, name)
        route = rules.choose(protocol, source, source_port, bytes(len(target)), port, name)
        assert route is not None
        return Route(route.exit, route.rule, True, name)


class NamedNode(Node):
    """The node."""

    def __init__(self, path: Path) -> None:
        super().__init__(load_config(path), path, 1024)
        self.given = json.loads((path.parent / "names.json").read_text())
        self.plan = replace(self.plan, routes=(str(POOL4), str(POOL6)))

    def _serve(self, place: Any) -> None:
        fakes = Fakes(POOL4, POOL6, Journal(), lambda: 1000.0)
        for name in self.given["fakes"]:
            fakes.number_of(name)
        lead(self.exits.values(), fakes)
        chooser = Chooser(self, fakes)
        self.engine.choose_with(chooser)
        self.engine.resolve_with(Answers(self.given["answers"]))
        assert self.hub is not None
        self.hub.lead_names(fakes, chooser)
        super()._serve(place)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="zignet: %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    NamedNode(Path(sys.argv[1])).run()
