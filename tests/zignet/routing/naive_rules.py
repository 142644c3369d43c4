"""Rules the slow way: one after the other, each by the plainest means of the standard library. The oracle."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from zignet.exits import Direct
from zignet.routing import Line

EXITS = {name: Direct(name) for name in ("tokyo", "office", "Tokyo #1")}
TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58


@dataclass(frozen=True)
class FlowKey:
    protocol: int
    source: bytes
    target: bytes
    port: int
    name: str | None


@dataclass(frozen=True)
class Spec:
    """A rule with its own idea of what it matches; None is "that depends on the name"."""

    text: str
    exit: str
    by_name: bool
    matches: Callable[[FlowKey], bool | None]


def choose(specs: list[Spec], flow: FlowKey) -> tuple[int, str, bool] | None:
    """(index, exit, by name) of the first rule that matches; None if the name must be known."""
    unknown = flow.name is None and flow.protocol in (TCP, UDP)
    for index, spec in enumerate(specs):
        answer = spec.matches(flow)
        if answer is None:
            return None
        if answer:
            return None if unknown and spec.by_name else (index, spec.exit, spec.by_name)
    return len(specs), "direct", False


def lines(specs: list[Spec]) -> list[Line]:
    return [Line(spec.text, f"rules:{number}") for number, spec in enumerate(specs, 1)]


def _about_name(test: Callable[[str], bool]) -> Callable[[FlowKey], bool | None]:
    def matches(flow: FlowKey) -> bool | None:
        if flow.name is None:
            return None if flow.protocol in (TCP, UDP) else False
        return bool(flow.name) and test(flow.name)

    return matches


def _about_address(text: str, which: str) -> Callable[[FlowKey], bool]:
    network = ipaddress.ip_network(text, strict=False)
    return lambda flow: ipaddress.ip_address(getattr(flow, which)) in network


KINDS = ["exact", "suffix", "keyword", "regex", "target", "source", "port", "network"]

# A small world, so that rules meet flows: few labels, few bits.
LABELS = st.sampled_from(["a", "b", "ads", "video", "x-1"])
NAMES = st.lists(LABELS, min_size=1, max_size=5).map(".".join)
OCTETS = st.sampled_from([0, 1, 2, 127, 128, 255])
ADDRESSES4 = st.tuples(OCTETS, OCTETS, OCTETS, OCTETS).map(bytes)
ADDRESSES6 = st.lists(OCTETS, min_size=16, max_size=16).map(bytes)
ADDRESSES = ADDRESSES4 | ADDRESSES6
PORTS = st.sampled_from([1, 53, 80, 443, 444, 445, 8080, 65535])
REGEXES = st.sampled_from([r"^a\.", r"a$", r"(ads|video)\.", r"[ab]{2,}", r"^(?:[a-z]+\.)*b$", r"\bx-\d"])


@st.composite
def networks(draw: st.DrawFn) -> str:
    address = draw(ADDRESSES)
    return f"{ipaddress.ip_address(address)}/{draw(st.integers(0, len(address) * 8))}"


def _ports_text(ranges: list[tuple[int, int]]) -> str:
    return "/".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    way_out = draw(st.sampled_from([*EXITS, "direct", "block"]))
    by_name = draw(st.sampled_from([False, False, False, True]))
    kind = draw(st.sampled_from(KINDS))
    arrow = None
    match kind:
        case "exact":
            value = draw(NAMES)
            text, arrow, test = f"DOMAIN,{value}", value, _about_name(lambda name: name == value)
        case "suffix":
            value = draw(NAMES)
            text, arrow = f"DOMAIN-SUFFIX,{value}", f"*.{value}"
            test = _about_name(lambda name: f".{name}".endswith(f".{value}"))
        case "keyword":
            value = draw(st.sampled_from(["a", "de", "x-", ".b.", "s.v"]))
            text, test = f"DOMAIN-KEYWORD,{value}", _about_name(lambda name: value in name)
        case "regex":
            value = draw(REGEXES)
            text, test = f"DOMAIN-REGEX,{value}", _about_name(lambda name: re.search(value, name) is not None)
        case "target":
            value = draw(networks())
            text, arrow, test = f"IP-CIDR,{value}", value, _about_address(value, "target")
        case "source":
            value = draw(networks())
            text, test = f"SRC-IP-CIDR,{value}", _about_address(value, "source")
        case "port":
            ranges = draw(
                st.lists(st.tuples(PORTS, PORTS).map(lambda pair: (min(pair), max(pair))), min_size=1)
            )
            text = f"DST-PORT,{_ports_text(ranges)}"

            def test(flow: FlowKey) -> bool:
                in_range = any(low <= flow.port <= high for low, high in ranges)
                return in_range and flow.protocol in (TCP, UDP)
        case _:
            word, numbers = draw(st.sampled_from([("tcp", {6}), ("UDP", {17}), ("icmp", {1, 58})]))
            text, test = f"NETWORK,{word}", lambda flow: flow.protocol in numbers
    if arrow is not None and draw(st.booleans()):
        line = f"{arrow} -> {way_out}" + (" by-name" if by_name else "")
    else:
        line = f"{text},{way_out}" + (",by-name" if by_name else "")
    return Spec(line, way_out, by_name, test)


@st.composite
def matches_all(draw: st.DrawFn) -> Spec:
    way_out = draw(st.sampled_from([*EXITS, "block"]))
    return Spec(
        draw(st.sampled_from([f"MATCH,{way_out}", f"* -> {way_out}"])), way_out, False, lambda _: True
    )


RULE_SETS = st.lists(specs() | specs() | specs() | specs() | matches_all(), max_size=14)


@st.composite
def flows(draw: st.DrawFn) -> FlowKey:
    family = draw(st.sampled_from([ADDRESSES4, ADDRESSES6]))
    protocol = draw(st.sampled_from([TCP, TCP, UDP, ICMP, ICMP6]))
    return FlowKey(protocol, draw(family), draw(family), draw(PORTS), draw(st.none() | st.just("") | NAMES))
