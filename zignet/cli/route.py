"""`zignet route explain`: the way of one request, from its name to what its exit does."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from zignet.cli.errors import ExitCode, Fault
from zignet.cli.files import load
from zignet.cli.text import printable
from zignet.control import Client, NotPermitted, NotRunning
from zignet.control.messages import Explanation, Question, Step

if TYPE_CHECKING:
    from rich.console import Console

    from zignet.config import Config

__all__ = ["Answer", "Destination", "answer", "as_json", "parse", "show"]

Protocol = Literal["tcp", "udp"]

_PORTS: dict[str, tuple[int, Protocol]] = {
    "http": (80, "tcp"),
    "https": (443, "tcp"),
    "ws": (80, "tcp"),
    "wss": (443, "tcp"),
    "quic": (443, "udp"),
    "h3": (443, "udp"),
    "ftp": (21, "tcp"),
    "ssh": (22, "tcp"),
    "smtp": (25, "tcp"),
    "imaps": (993, "tcp"),
    "dns": (53, "udp"),
}
_DEFAULT_PORT = 443
_ADDRESSES = 8  # of a name, how many are asked about


@dataclass(frozen=True, slots=True)
class Destination:
    """What the person asked about."""

    name: str | None  # None where an address was given
    address: str | None
    port: int
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Answer:
    """The explanation for the first address, and where other addresses would go another way."""

    destination: Destination
    addresses: list[str]
    live: bool  # from the running node, not from the file alone
    enters: bool  # the TUN; otherwise the rest is only what would be
    explanation: Explanation
    others: dict[str, Explanation]  # by address: those that leave otherwise


def parse(text: str, udp: bool) -> Destination:
    """A URL, a host, host:port, an address, [v6]:port. Raises `Fault` (usage)."""
    scheme, colon, _ = text.partition("://")
    try:
        parts = urlsplit(text if colon else f"//{text}")
        bare = ip_address(text.strip("[]")) if not colon else None
    except ValueError:
        bare = None
    try:
        if bare is not None:
            return Destination(None, str(bare), _DEFAULT_PORT, "udp" if udp else "tcp")
        parts = urlsplit(text if colon else f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _unclear(text, str(error)) from error
    if port == 0:
        raise _unclear(text, "there is no port 0")
    if not host:
        raise _unclear(text, "there is no host in it")
    known = _PORTS.get(scheme.lower()) if colon else (_DEFAULT_PORT, "tcp")
    if known is None and port is None:
        raise _unclear(text, f"the port of {scheme}:// is not known here, so name it: host:port")
    usual, protocol = known or (_DEFAULT_PORT, "tcp")
    try:
        return Destination(None, str(ip_address(host)), port or usual, "udp" if udp else protocol)
    except ValueError:
        return Destination(_ascii(host), None, port or usual, "udp" if udp else protocol)


def answer(destination: Destination, path: Path | None, source: str | None, resolve: bool) -> Answer:
    """Ask the running node, or the configuration where none runs."""
    config = load(path)
    addresses = _addresses(destination, resolve)
    asked: list[str | None] = [*addresses] or [None]
    with _explainer(config) as (ask, live):
        explanations = [ask(_question(destination, address, source)) for address in asked]
    first = explanations[0]
    steps = [_named(destination, addresses, resolve)]
    outside = _outside(config, addresses[0]) if addresses else None
    if outside is not None:
        steps.append(Step(stage="tun", text=outside))
    first["steps"][:0] = steps
    others = {
        str(address): other
        for address, other in zip(asked[1:], explanations[1:], strict=True)
        if (other["exit"], other["rule"]) != (first["exit"], first["rule"])
    }
    return Answer(destination, addresses, live, outside is None, first, others)


def as_json(found: Answer) -> dict[str, object]:
    """What `zignet route explain --json` prints."""
    destination = found.destination
    return {
        "name": destination.name,
        "addresses": found.addresses,
        "port": destination.port,
        "protocol": destination.protocol,
        "live": found.live,
        "enters": found.enters,
        **found.explanation,
        "others": found.others,
    }


def show(console: Console, found: Answer) -> None:
    """The way, one line for each step."""
    from rich.markup import escape
    from rich.table import Table

    from zignet.cli.flows import table

    explanation, destination = found.explanation, found.destination
    host = destination.name or destination.address or ""
    leaves = "leaves by" if found.enters else "meets no rule; by the rules it would leave by"
    console.print(
        f"[bold]{escape(printable(host))}[/] port {destination.port}/{destination.protocol} {leaves} "
        f"[bold]{escape(explanation['exit'])}[/]{' (refused)' if explanation['refused'] else ''}"
    )
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for step in explanation["steps"]:
        grid.add_row(f"  {step['stage']}", escape(printable(step["text"])))
    for address, other in found.others.items():
        grid.add_row("  but", f"to {address} it leaves by {escape(other['exit'])}: {escape(other['rule'])}")
    console.print(grid)
    source = (
        "the rules of the running node"
        if found.live
        else "the configuration alone; no running node was reached"
    )
    console.print(f"[dim]from {source}[/]")
    if flows := explanation.get("flows"):
        console.print("\nThe latest like it:")
        console.print(table(flows, console.width))


@contextmanager
def _explainer(config: Config) -> Iterator[tuple[Callable[[Question], Explanation], bool]]:
    """How to ask, and whether it is a running node that answers."""
    with ExitStack() as stack:
        try:
            client = stack.enter_context(Client(config.state_dir))
        except (NotRunning, NotPermitted):
            client = None
        yield (_from_file(config), False) if client is None else (client.explain, True)


def _from_file(config: Config) -> Callable[[Question], Explanation]:
    from zignet.control.explain import explain
    from zignet.exits import build_exits
    from zignet.routing import build_rules

    rules = build_rules(config, build_exits(config))
    return lambda question: explain(rules, question, config.sniff.server_first)


def _outside(config: Config, address: str) -> str | None:
    """Why flows to this address never enter the TUN, or None where they do."""
    ip = ip_address(address)
    if ip.is_loopback or ip.is_link_local or ip.is_multicast:
        return f"{address} does not leave this machine or its link, so it never enters ZigNet"
    if config.listening and ip in (config.tun.range if ip.version == 4 else config.tun.range6):
        return f"{address} is an address of peers (tun.range): it goes to whoever has it, sealed (see `zignet peers`)"
    for network in config.proxy.bypass:
        if ip in network:
            return f"{address} is in proxy.bypass ({network}), so it never enters ZigNet"
    if config.proxy.mode == "off":
        return "proxy.mode is off: only what is routed to the interface by hand enters ZigNet"
    return None


def _question(destination: Destination, address: str | None, source: str | None) -> Question:
    question = Question(
        name=destination.name, address=address, port=destination.port, protocol=destination.protocol
    )
    if source is not None:
        question["source"] = source
    return question


def _addresses(destination: Destination, resolve: bool) -> list[str]:
    if destination.name is None:
        return [destination.address or ""]
    if not resolve:
        return []
    try:
        found = socket.getaddrinfo(destination.name, destination.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    unique = dict.fromkeys(str(where[0]).partition("%")[0] for *_, where in found)
    return list(unique)[:_ADDRESSES]


def _named(destination: Destination, addresses: list[str], resolve: bool) -> Step:
    if destination.name is None:
        text = f"{destination.address} is an address; a flow to it may still carry a name"
    elif addresses:
        text = f"{destination.name} is {', '.join(addresses)} (by the system's resolver)"
    elif resolve:
        text = f"{destination.name} does not resolve here; rules about addresses can't be judged"
    else:
        text = f"{destination.name} was not looked up; rules about addresses can't be judged"
    return Step(stage="name", text=text)


def _ascii(host: str) -> str:
    """An international name as it goes over the wire."""
    from zignet.routing import ascii_name

    try:
        return ascii_name(host)
    except ValueError as error:
        raise _unclear(host, str(error)) from error


def _unclear(text: str, why: str) -> Fault:
    return Fault(f"{printable(text)!r} is not a URL, a host, or host:port: {why}", ExitCode.USAGE)
