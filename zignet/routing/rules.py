"""All rules as tables, and the question they answer: which exit does this flow leave by?

Each table answers with the lowest index of its rules that match, so "first match wins" holds across kinds:

    NETWORK, MATCH   a dictionary by protocol    ┐
    DST-PORT         an array by port            ├ certain: known at the SYN
    IP-CIDR, SRC-…   PrefixTable                 ┘
    DOMAIN…          DomainTable                   asked only while one of its rules could still win
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from nat.exit import Exit, Route
from zignet.exits import BUILT_IN
from zignet.routing.domains import DomainTable
from zignet.routing.explain import Considered, Explanation
from zignet.routing.lines import Line
from zignet.routing.prefixes import NO_RULE, PrefixTable, pack
from zignet.routing.rule import (
    Always,
    Condition,
    Network,
    Ports,
    Prefix,
    RuleError,
    check_exit,
    exit_name,
    parse_rule,
)

if TYPE_CHECKING:
    from zignet.config import Config

__all__ = ["Rules", "build_rules", "check_lines"]

_PORTED = frozenset((6, 17))  # TCP and UDP: their flows have ports, and may tell a name
_UNNAMED = (Always, Network, Ports, Prefix)  # conditions that need no name
_SHOWN = 8  # rules in an explanation's list
_KEPT = 4096  # routes kept ready


def build_rules(config: Config, exits: Mapping[str, Exit]) -> Rules:
    """The rules of a configuration. Raises `RuleError`."""
    return Rules.parse(config.routes, exits)


def check_lines(
    lines: Sequence[Line], exits: Collection[str], peers: Collection[str] = ()
) -> Iterator[RuleError]:
    """What is wrong with the lines, one error for each bad one; `direct`, `block` and peers are known exits."""
    known = {*exits, *peers, *BUILT_IN}
    for text, where in lines:
        try:
            rule = parse_rule(text, where)
            name = exit_name(rule.exit, known, where)
            check_exit(rule, name, name in peers and name not in exits, where)
        except RuleError as error:
            yield error


class Rules:
    """An ordered set of rules (`nat.exit.Chooser`). Immutable to its users; a reload makes a new one."""

    __slots__ = (
        "_domain_indices",
        "_domains",
        "_exits",
        "_first_domain",
        "_last",
        "_lines",
        "_ports",
        "_protocols",
        "_routes",
        "_source4",
        "_source6",
        "_target4",
        "_target6",
        "_whole",
    )

    def __init__(self, lines: Sequence[Line], exits: Mapping[str, Exit]) -> None:
        """As `parse`."""
        self._lines = lines
        self._exits: dict[str, Exit] = {**BUILT_IN, **exits}
        self._domains = DomainTable()
        self._domain_indices = array("I")
        self._ports: array[int] | None = None
        self._protocols: dict[int, int] = {}
        self._last = len(lines)  # the first MATCH, or the default behind all rules
        self._routes: dict[int, Route] = {}  # of rules that won lately, at most _KEPT
        networks: dict[tuple[int, bool], list[int]] = {}
        self._whole: list[tuple[Prefix, str]] = []  # networks whose packets leave as they are, and the exit

        for index, (text, where) in enumerate(lines):
            rule = parse_rule(text, where)
            name = exit_name(rule.exit, self._exits, where)
            check_exit(rule, name, getattr(self._exits[name], "kind", "") == "peer", where)
            if index > self._last:
                continue  # never reached, but still checked
            match rule.condition:
                case Always():
                    self._last = index
                case Network(protocols):
                    for protocol in protocols:
                        self._protocols.setdefault(protocol, index)  # never above the last
                case Ports(ranges):
                    self._add_ports(ranges, index)
                case Prefix(network, _, of_source):
                    networks.setdefault((len(network), of_source), []).append(pack(rule.condition, index))
                    if rule.packet:
                        self._whole.append((rule.condition, name))
                case domain:
                    self._domains.add(domain, index)
                    self._domain_indices.append(index)

        self._first_domain = self._domain_indices[0] if self._domain_indices else NO_RULE
        tables = {key: PrefixTable(key[0] * 8, found) for key, found in networks.items()}
        self._target4, self._target6 = tables.get((4, False)), tables.get((16, False))
        self._source4, self._source6 = tables.get((4, True)), tables.get((16, True))

    @classmethod
    def parse(cls, lines: Sequence[Line], exits: Mapping[str, Exit]) -> Rules:
        """Rules from (text, where) pairs; `direct` and `block` are known whether or not `exits` has them.

        Raises `RuleError` with the place of the first line that is wrong. The lines are kept: their text is
        what people are shown.
        """
        return cls(lines, exits)

    def __len__(self) -> int:
        return len(self._lines)

    def choose(
        self, protocol: int, source: bytes, source_port: int, target: bytes, port: int, name: str | None
    ) -> Route | None:
        """The route of a flow, or None when it depends on a name that is not known yet (name None).

        That is so if a rule about names stands ahead of the first certain match, or if the winner hands its
        exit the name. Only TCP and UDP flows tell a name: others are decided at once.
        Asked for each new flow, so it is written for speed: 1-2 µs.
        """
        best = self._protocols.get(protocol, self._last)
        if protocol in _PORTED:
            if self._ports is not None and self._ports[port] < best:
                best = self._ports[port]
        elif name is None:
            name = ""
        if len(target) == 4:
            if self._target4 is not None:
                best = self._target4.first(target, best)
        elif self._target6 is not None:
            best = self._target6.first(target, best)
        if len(source) == 4:
            if self._source4 is not None:
                best = self._source4.first(source, best)
        elif self._source6 is not None:
            best = self._source6.first(source, best)
        if self._first_domain < best:
            if name is None:
                return None
            if name:
                best = self._domains.first(name, best)
        route = self._routes.get(best)
        if route is None:
            route = self._route(best)
        if name is None and route.by_name:
            return None
        return route

    def whole(self, protocol: int, source: bytes, source_port: int, target: bytes, port: int) -> Route | None:
        """The route of a packet that leaves as it is, or None where its flow is the engine's.

        A packet tells no name, so rules about names are not asked: their names have fake addresses.
        """
        if not self._whole:
            return None
        route = self.choose(protocol, source, source_port, target, port, "")
        return route if route is not None and route.whole else None

    @property
    def networks(self) -> Sequence[tuple[Prefix, str]]:
        """Where whole packets go, each with its exit's name, whichever rule is the first."""
        return self._whole

    def conditions(self) -> Iterator[tuple[Condition, str]]:
        """What each rule that may ever decide asks, and the exit's name."""
        for text, where in self._lines[: self._last]:
            rule = parse_rule(text, where)
            yield rule.condition, exit_name(rule.exit, self._exits, where)

    def listed(self, offset: int, limit: int | None = None) -> Iterator[Considered]:
        """All rules in their order, from one on, at most so many; the default that no line states comes last."""
        stop = len(self._lines) + 1 if limit is None else min(offset + limit, len(self._lines) + 1)
        for index in range(offset, stop):
            if index == len(self._lines):
                yield Considered(index, "default", "", "direct")
            else:
                text, where = self._lines[index]
                leaves_by = exit_name(parse_rule(text, where).exit, self._exits, where)
                yield Considered(index, text.strip(), where, leaves_by)

    def by_name(self, name: str) -> Route | None:
        """The route of the first rule about names that this one matches, if there is a flow that it could decide:
        one that no rule ahead of it decides for all flows."""
        best = self._domains.first(name, self._last)
        return self._route(best) if best < self._last else None

    def explain(
        self, protocol: int, source: bytes, source_port: int, target: bytes, port: int, name: str | None
    ) -> Explanation:
        """The same question as `choose`, answered for people."""
        route = self.choose(protocol, source, source_port, target, port, name)
        certain = self._certain(protocol, source, target, port)
        found = {*certain, *(self._domains.each(name) if name else ())}
        has_name = protocol in _PORTED
        ahead = bisect_left(self._domain_indices, min(certain)) if has_name else 0
        return Explanation(
            route=route,
            matches=tuple(self._considered(index) for index in sorted(found)),
            at_syn=self.choose(protocol, source, source_port, target, port, None) is not None,
            undecided_by=tuple(map(self._considered, self._domain_indices[: min(ahead, _SHOWN)])),
            undecided_count=ahead,
        )

    def _add_ports(self, ranges: Sequence[tuple[int, int]], index: int) -> None:
        if self._ports is None:
            self._ports = array("I", (NO_RULE,)) * 65536
        for low, high in ranges:
            for port in range(low, high + 1):
                if self._ports[port] == NO_RULE:
                    self._ports[port] = index

    def _certain(self, protocol: int, source: bytes, target: bytes, port: int) -> list[int]:
        """The first match of each table that needs no name; never empty."""
        found = [self._last, self._protocols.get(protocol, NO_RULE)]
        if self._ports is not None and protocol in _PORTED:
            found.append(self._ports[port])
        by_target = self._target4 if len(target) == 4 else self._target6
        by_source = self._source4 if len(source) == 4 else self._source6
        if by_target is not None:
            found.append(by_target.first(target, NO_RULE))
        if by_source is not None:
            found.append(by_source.first(source, NO_RULE))
        return [index for index in found if index != NO_RULE]

    def _route(self, index: int) -> Route:
        """The route of a rule, read from its line again: of 100,000 rules few ever win."""
        if len(self._routes) >= _KEPT:
            self._routes.clear()
        if index == len(self._lines):
            route = Route(self._exits["direct"], "default")
        else:
            text, where = self._lines[index]
            rule = parse_rule(text, where)
            exit_ = self._exits[exit_name(rule.exit, self._exits, where)]
            # A peer resolves the name itself: the address is the one that is near to this host.
            named = not isinstance(rule.condition, _UNNAMED) and getattr(exit_, "kind", "") == "peer"
            route = Route(exit_, text.strip(), rule.by_name or named, whole=rule.packet)
        self._routes[index] = route
        return route

    def _considered(self, index: int) -> Considered:
        route = self._route(index)
        where = self._lines[index][1] if index < len(self._lines) else ""
        return Considered(index, route.rule, where, route.exit.name)
