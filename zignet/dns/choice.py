"""Which names get fake addresses, and what a flow to such an address means: the rules, with the name known. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from nat.exit import Chooser, Exit, Reason, Refusal, Route
from zignet.dns.fakes import Fakes
from zignet.dns.patterns import Patterns
from zignet.exits import AnyExit, Block
from zignet.exits.names import is_sendable
from zignet.routing import Rules
from zignet.routing.rule import Domain, Keyword, Pattern, Suffix

__all__ = ["STALE", "FakeChooser", "Which"]

PLAIN = frozenset(("direct", "block"))  # kinds of exits that have no use for a fake address
NEVER = frozenset(("local", "localhost", "arpa", "zignet"))  # tops: RFC 6762, RFC 6761, RFC 3172, and our own
ALL = "."
MOST_DOMAINS = 1_000
UNSPECIFIED = {4: bytes(4), 16: bytes(16)}


class Which:
    """`is_fake(name)` for `Answers`: what a rule about names sends to an exit that wants the name, but for a list."""

    def __init__(
        self, rules: Rules, exits: Mapping[str, AnyExit], fake: Collection[str], real: Collection[str]
    ) -> None:
        self._rules = rules
        self._exits = exits
        self._patterns = fake
        self._fake = Patterns(fake)
        self._real = Patterns(real)

    def __call__(self, name: str) -> bool:
        """Lower case, without a trailing dot."""
        if not is_sendable(name) or name in self._real:
            return False
        if name.rpartition(".")[2] in NEVER:
            return False
        if name in self._fake:
            return True
        route = self._rules.by_name(name)
        if route is None:
            return False
        exit_ = self._exits.get(route.exit.name)
        return exit_ is not None and exit_.kind not in PLAIN

    def reason(self, name: str) -> str:
        """Why this name gets a fake address."""
        if name in self._fake:
            return "dns.fake lists it"
        route = self._rules.by_name(name)
        return f"rule {route.rule}" if route is not None else ""

    def why_real(self, name: str) -> str:
        """Why this name gets none."""
        if name in self._real:
            return "dns.real lists it"
        if name.rpartition(".")[2] in NEVER:
            return "names of this kind are never led to an exit"
        route = self._rules.by_name(name)
        if route is None:
            return "no rule about names leads it to an exit"
        return f"rule {route.rule} needs no fake address"

    def domains(self) -> tuple[str, ...]:
        """What the system has to ask us about: `zignet`, and domains with fake addresses; or `.`, all names."""
        found = {"zignet", *(pattern.removeprefix("*.") for pattern in self._patterns)}
        for condition, name in self._rules.conditions():
            exit_ = self._exits.get(name)
            if exit_ is None or exit_.kind in PLAIN:
                continue
            if isinstance(condition, Keyword | Pattern):
                return (ALL,)
            if isinstance(condition, Domain | Suffix):
                found.add(condition.name)
            if len(found) > MOST_DOMAINS:
                return (ALL,)
        return tuple(found)


# The exit of a fake address that means nothing: never a wrong site
_STALE = Refusal(Reason.HOST_UNREACHABLE, "no name has this fake address (any more)")
STALE = Route(Block("stale", "stale", _STALE), "a fake address without a name")


class FakeChooser:
    """In front of the rules (`nat.exit.Chooser`): a flow to a fake address has its name at the SYN."""

    def __init__(self, rules: Chooser, exits: Mapping[str, Exit], fakes: Fakes) -> None:
        self._rules = rules
        self._exits = exits
        self._fakes = fakes

    def choose(
        self, protocol: int, source: bytes, source_port: int, target: bytes, port: int, name: str | None
    ) -> Route | None:
        """See `Chooser`. Rules about addresses can't match: what the name resolves to is the exit's to find out."""
        fakes = self._fakes
        if fakes.number_at(target) < 0:
            return self._rules.choose(protocol, source, source_port, target, port, name)
        found = fakes.use(target)
        if found is None:
            return STALE
        name, exit_name = found
        if exit_name:
            exit_ = self._exits.get(exit_name)
            rule = f"sniffed before: {name} -> {exit_name}"
            return STALE if exit_ is None else Route(exit_, rule, True, name, again=True)
        route = self._rules.choose(protocol, source, source_port, UNSPECIFIED[len(target)], port, name)
        assert route is not None  # the seam's promise: with a name the rules always answer
        return Route(route.exit, route.rule, True, name)
