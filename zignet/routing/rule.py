"""One rule line to one `Rule`: what it asks of a flow, and the exit it names."""

from __future__ import annotations

from collections.abc import Callable, Collection
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

from zignet.routing.names import ascii_name
from zignet.routing.nearest import did_you_mean
from zignet.routing.regex import Regex, RegexError

__all__ = [
    "ALIASES",
    "RESERVED",
    "Always",
    "Condition",
    "Domain",
    "Keyword",
    "Network",
    "Pattern",
    "Ports",
    "Prefix",
    "Rule",
    "RuleError",
    "Suffix",
    "check_exit",
    "exit_name",
    "parse_rule",
]


class Domain(NamedTuple):
    """Exactly this name."""

    name: str


class Suffix(NamedTuple):
    """This name and every name below it."""

    name: str


class Keyword(NamedTuple):
    """Names that contain this text."""

    text: str


class Pattern(NamedTuple):
    """Names that the expression is found in."""

    regex: Regex


class Prefix(NamedTuple):
    """An address, the target's or the source's, in this network."""

    network: bytes  # 4 or 16 bytes; host bits are ignored
    length: int  # bits
    of_source: bool


class Ports(NamedTuple):
    """A target port within one of these ranges, both ends included."""

    ranges: tuple[tuple[int, int], ...]


class Network(NamedTuple):
    """One of these IP protocols."""

    protocols: tuple[int, ...]


class Always(NamedTuple):
    """Every flow."""


Condition = Domain | Suffix | Keyword | Pattern | Prefix | Ports | Network | Always


class Rule(NamedTuple):
    """A condition and the exit for what meets it."""

    condition: Condition
    exit: str  # as written; see `exit_name`
    by_name: bool  # the exit is given the flow's name rather than its address
    packet: bool = False  # the exit is given the packets, not the flow


class RuleError(Exception):
    """A rule line that can't be used: `where` is its place, `message` says what to change."""

    def __init__(self, where: str, message: str) -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.where = where
        self.message = message


# Clash's names of the built-in exits
ALIASES = {"DIRECT": "direct", "REJECT": "block", "REJECT-DROP": "block"}
RESERVED = frozenset({"direct", "block"} | ALIASES.keys())
_NO_RESOLVE, _BY_NAME, _PACKET = "no-resolve", "by-name", "packet"
_OPTIONS = (_NO_RESOLVE, _BY_NAME, _PACKET)
_ARROWS = ("->", "→")

_PROTOCOLS = {"tcp": (6,), "udp": (17,), "icmp": (1, 58)}

_GEO = "there is no database of places here; list the networks as IP-CIDR, or the names as DOMAIN-SUFFIX"
_PROCESS = "a packet does not tell which process sent it"
_LOGIC = "a rule has one condition; write several rules, the first match wins"
_UNSUPPORTED = {
    **dict.fromkeys(("GEOIP", "GEOSITE", "IP-ASN", "SRC-GEOIP", "SRC-IP-ASN"), _GEO),
    **dict.fromkeys(("PROCESS-NAME", "PROCESS-PATH", "PROCESS-NAME-REGEX", "UID"), _PROCESS),
    **dict.fromkeys(("AND", "OR", "NOT", "SUB-RULE"), _LOGIC),
    **dict.fromkeys(
        ("RULE-SET", "DOMAIN-SET"),
        'put the rules into a file and name it under routes: "- file: ./rules.txt"',
    ),
    **dict.fromkeys(("IN-PORT", "IN-TYPE", "IN-USER", "IN-NAME"), "there is one way in, the TUN"),
    **dict.fromkeys(("URL-REGEX", "USER-AGENT"), "what a flow carries is not read beyond its name"),
    "DOMAIN-WILDCARD": "use DOMAIN-SUFFIX or DOMAIN-REGEX",
    "SRC-PORT": "the source's port is chosen at random by most applications",
    "IP-SUFFIX": "addresses are compared from the front; use IP-CIDR",
    "DSCP": "the marking of packets is not looked at",
    "FINAL": "its name is MATCH here",
}


def parse_rule(text: str, where: str = "") -> Rule:
    """A line in Clash's format or an arrow. Raises `RuleError`."""
    kind, comma, _ = text.partition(",")
    kind = kind.strip().upper()
    try:
        if comma and (kind in _KINDS or kind == "MATCH"):
            return _clash(kind, text)
        if comma and kind in _UNSUPPORTED:
            raise ValueError(f"{kind} is not supported: {_UNSUPPORTED[kind]}")
        for arrow in _ARROWS:
            left, found, right = text.partition(arrow)
            if found:
                return _arrow(left.strip(), right.strip())
        if comma:
            raise ValueError(f'unknown rule type "{kind}"{did_you_mean(kind, [*_KINDS, "MATCH"])}')
    except ValueError as error:
        raise RuleError(where, str(error)) from None
    if not text.strip():
        raise RuleError(where, "an empty rule")
    raise RuleError(
        where, f'"{text.strip()}" is not a rule; write TYPE,value,exit or "*.example.com -> exit"'
    )


def exit_name(written: str, known: Collection[str], where: str = "") -> str:
    """The exit that a rule means: one of `known`, or Clash's name of a built-in. Raises `RuleError`."""
    if written in known:
        return written
    alias = ALIASES.get(written)
    if alias is not None:
        return alias
    raise RuleError(where, f'unknown exit "{written}"{did_you_mean(written, known)}')


def check_exit(rule: Rule, exit_: str, is_peer: bool, where: str = "") -> None:
    """Whether the exit can do what the rule asks of it. Raises `RuleError`."""
    if rule.packet and not is_peer:
        raise RuleError(where, f'packet sends whole packets, which only a peer takes, and "{exit_}" is none')


def _clash(kind: str, text: str) -> Rule:
    """TYPE,value,exit[,option]...; MATCH has no value, and an expression may hold commas."""
    fields = [field.strip() for field in text.split(",")]
    least = 2 if kind == "MATCH" else 3
    options = set()
    while len(fields) > least and fields[-1].lower() in _OPTIONS:
        option = fields.pop().lower()
        if option == _NO_RESOLVE and not kind.endswith(("CIDR", "CIDR6")):
            raise ValueError(f"no-resolve belongs to IP-CIDR, not to {kind}")
        options.add(option)
    way_out = fields[-1]
    if len(fields) < least or not way_out:
        shape = "MATCH,exit" if kind == "MATCH" else f"{kind},value,exit"
        raise ValueError(f'"{text.strip()}": expected {shape}')
    if len(fields) > least and kind != "DOMAIN-REGEX":
        raise ValueError(f'unknown option "{way_out}"{did_you_mean(way_out, _OPTIONS)}')
    condition = Always() if kind == "MATCH" else _KINDS[kind](",".join(fields[1:-1]))
    return _rule(condition, way_out, options)


def _rule(condition: Condition, way_out: str, options: Collection[str]) -> Rule:
    if _PACKET in options:
        if not isinstance(condition, Prefix) or condition.of_source:
            raise ValueError(
                "packet belongs to IP-CIDR: a whole packet has an address, and nothing else is asked"
            )
        if _BY_NAME in options:
            raise ValueError("packet and by-name: a packet tells no name")
    return Rule(condition, way_out, _BY_NAME in options, _PACKET in options)


def _arrow(left: str, right: str) -> Rule:
    """`pattern -> exit [by-name|packet]`."""
    options = []
    words = right.rsplit(None, 1)
    if len(words) == 2 and words[1].lower() in (_BY_NAME, _PACKET):
        right = words[0]
        options.append(words[1].lower())
    if not right:
        raise ValueError("there is no exit after the arrow")
    return _rule(_arrow_condition(left), right, options)


def _arrow_condition(left: str) -> Condition:
    if left == "*":
        return Always()
    if left.startswith(("*.", "+.")):
        return _suffix(left)
    if "/" in left or ":" in left or _is_address(left):
        return _target(left)
    return _domain(left)


def _domain(value: str) -> Domain:
    if _is_address(value):
        raise ValueError(f'"{value}" is an address; use IP-CIDR')
    return Domain(ascii_name(value))


def _suffix(value: str) -> Suffix:
    """Clash's own `+.x` and the habitual `*.x` and `.x` all mean x and what is below it."""
    for front in ("*.", "+.", "."):
        if value.startswith(front):
            value = value[len(front) :]
            break
    return Suffix(_domain(value).name)


def _keyword(value: str) -> Keyword:
    if not value:
        raise ValueError("an empty keyword would match every name")
    if not value.isascii():
        raise ValueError(f'"{value}": names are compared in ASCII (xn--…), which this can\'t be found in')
    return Keyword(value.lower())


def _pattern(value: str) -> Pattern:
    try:
        return Pattern(Regex(value))
    except RegexError as error:
        raise ValueError(f'"{value}": {error}') from None


def _target(value: str) -> Prefix:
    return _prefix(value, False)


def _source(value: str) -> Prefix:
    return _prefix(value, True)


def _prefix(value: str, of_source: bool) -> Prefix:
    """`address/bits`, or an address alone. Bits beyond the length are ignored, as Clash does."""
    address, slash, bits = value.partition("/")
    try:
        packed = (IPv6Address if ":" in address else IPv4Address)(address).packed
    except AddressValueError:
        raise ValueError(f'"{value}" is not an address or a network such as 203.0.113.0/24') from None
    width = len(packed) * 8
    if len(packed) == 16 and "%" in address:
        raise ValueError(f'"{value}": a network has no zone')
    if not slash:
        return Prefix(packed, width, of_source)
    if not (bits.isascii() and bits.isdigit() and len(bits) <= 3 and int(bits) <= width):
        raise ValueError(f'"{value}": the length after the slash is 0 to {width}')
    return Prefix(packed, int(bits), of_source)


def _ports(value: str) -> Ports:
    """One port, a range `a-b`, or several of both with `/` between them."""
    ranges = []
    for part in value.split("/"):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        low, high = _port(first), _port(last if dash else first)
        if low > high:
            raise ValueError(f'"{part}": the range runs backwards')
        ranges.append((low, high))
    return Ports(tuple(ranges))


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError(f'"{text}" is not a port (1 to 65535)')
    return int(text)


def _network(value: str) -> Network:
    protocols = _PROTOCOLS.get(value.lower())
    if protocols is None:
        raise ValueError(f'unknown network "{value}"{did_you_mean(value, _PROTOCOLS)}')
    return Network(protocols)


def _is_address(text: str) -> bool:
    if ":" not in text and not text[-1:].isdigit():
        return False
    try:
        (IPv6Address if ":" in text else IPv4Address)(text)
    except AddressValueError:
        return False
    return True


_KINDS: dict[str, Callable[[str], Condition]] = {
    "DOMAIN": _domain,
    "DOMAIN-SUFFIX": _suffix,
    "DOMAIN-KEYWORD": _keyword,
    "DOMAIN-REGEX": _pattern,
    "IP-CIDR": _target,
    "IP-CIDR6": _target,
    "SRC-IP-CIDR": _source,
    "DST-PORT": _ports,
    "NETWORK": _network,
}
