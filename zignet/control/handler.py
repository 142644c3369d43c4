"""Which question goes to which method of the node, and the checks on what came over the socket."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_address
from itertools import islice
from typing import Any, Protocol

from zignet.control.messages import (
    Admission,
    Decided,
    DnsStatus,
    DnsWhy,
    Explanation,
    Flow,
    Identity,
    Peer,
    Ping,
    Pulse,
    Question,
    Rule,
    Status,
)
from zignet.control.session import Handler

__all__ = ["FLOWS_PER_LINE", "Answers", "DnsReport", "RequestError", "handler_for"]

FLOWS_PER_LINE = 200
PEERS_PER_LINE = 25  # their names cost some arithmetic
RULES_PER_LINE = 50  # each is read from its text
MOST_KEYS = 1_000  # of identities asked for at once
MOST = 1 << 53  # of a number in a request: what JSON carries exactly
PROTOCOLS = ("tcp", "udp")
NO_DNS = "this node answers no names: there is no `dns` in its configuration, or it is off"


class RequestError(Exception):
    """A request can't be answered; the text is for the person who asked."""


class Answers(Protocol):
    """What the node answers. Any of these may raise `RequestError`."""

    def status(self) -> Status:
        """The node as it is now."""
        ...

    def pulse(self) -> Pulse:
        """The little of it that costs nothing, whatever the number of flows."""
        ...

    def flows(self, ended: bool, limit: int | None = None, before: int | None = None) -> Iterable[Flow]:
        """Open flows, newest first; with `ended` the recently ended ones too.

        With `limit` the newest so many of them, and with `before` of those only that have a lower id.
        Iterated over many turns of the packet loop, so it must stand flows that come and go meanwhile.
        """
        ...

    def explain(self, question: Question) -> Explanation:
        """How such a flow would leave by the rules in force."""
        ...

    def rules(self, offset: int, limit: int | None) -> Iterable[Rule]:
        """The rules in force, from one on, the default last."""
        ...

    def peers(
        self, every: bool, connected: bool = False, offset: int = 0, limit: int | None = None
    ) -> Iterable[Peer]:
        """The peers that are connected or configured; with `every` all that were ever given an address, with
        `connected` those only that have a session. `offset` and `limit` choose some of them."""
        ...

    def identity(self, of: str) -> Identity:
        """Whose key, or whose address on this host, that is."""
        ...

    def admission(self, key: str, proto: str | None = None, port: int | None = None) -> Admission:
        """What the configuration's lists say of a key, and whether it may reach a service."""
        ...

    def publish(self, request: Mapping[str, Any]) -> float:
        """Publish a service for a while, or end that; for how many seconds it holds."""
        ...

    def policy_check(self, key: str) -> Iterable[Decided | None]:
        """Whether this key would be let in. Iterated over now and then; None means "not yet"."""
        ...

    def ping(self, peer: str) -> Iterable[Ping | None]:
        """One sealed ping. Iterated over now and then; None means "not yet"."""
        ...

    def reload(self) -> Iterable[None] | None:
        """Read the configuration again; on `RequestError` the old one stays in force.

        What takes a while is iterated over until it is done, now and then.
        """
        ...


class DnsReport(Protocol):
    """What the node's name server answers. Any of these may raise `RequestError`."""

    def status(self) -> DnsStatus:
        """The name server as it is now."""
        ...

    def why(self, name: str, kind: str) -> DnsWhy:
        """Where the answer for this name (lower case, no dot at the end) and type (`A`, `TYPE65`) comes from."""
        ...

    def flush(self) -> int:
        """Forget the upstreams' answers; how many these were. Fake addresses stay: programs hold them."""
        ...


def handler_for(node: Answers, dns: Callable[[], DnsReport | None] = lambda: None) -> Handler:
    """The handler of a `ControlSession`. `dns` gives what answers for the name server, None without one."""

    def named() -> DnsReport:
        if (report := dns()) is None:
            raise RequestError(NO_DNS)
        return report

    def handle(request: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
        match request.get("do"):
            case "status":
                yield {"status": node.status()}
            case "pulse":
                yield {"pulse": node.pulse()}
            case "flows":
                limit, before = _number(request, "limit"), _number(request, "before")
                flows = iter(node.flows(request.get("ended") is True, limit, before))
                while part := list(islice(flows, FLOWS_PER_LINE)):
                    yield {"flows": part}
            case "explain":
                yield {"explanation": node.explain(_question(request))}
            case "peers":
                offset, limit = _number(request, "offset") or 0, _number(request, "limit")
                every, connected = request.get("all") is True, request.get("connected") is True
                peers = iter(node.peers(every, connected, offset, limit))
                while listed := list(islice(peers, PEERS_PER_LINE)):
                    yield {"peers": listed}
            case "identity":
                yield {"identity": node.identity(_who(request, "of"))}
            case "identities":
                of = _keys(request)
                for at in range(0, len(of), PEERS_PER_LINE):
                    yield {"identities": [node.identity(key) for key in of[at : at + PEERS_PER_LINE]]}
            case "admission":
                yield {"admission": node.admission(_who(request, "key"), *_service(request))}
            case "policy-check":
                for decided in node.policy_check(_who(request, "key")):
                    yield {} if decided is None else {"decided": decided}
            case "rules":
                rules = iter(node.rules(_number(request, "offset") or 0, _number(request, "limit")))
                while read := list(islice(rules, RULES_PER_LINE)):
                    yield {"rules": read}
            case "publish":
                yield {"published": node.publish(request)}
            case "ping":
                for result in node.ping(_who(request, "peer")):
                    yield {} if result is None else {"ping": result}
            case "dns":
                yield {"dns": named().status()}
            case "dns-why":
                yield {"why": named().why(*_query(request))}
            case "dns-flush":
                yield {"flushed": named().flush()}
            case "reload":
                for _ in node.reload() or ():
                    yield {}  # not yet
                yield {"reloaded": True}
            case unknown:
                raise RequestError(
                    f"unknown request {str(unknown)[:40]!r}: it is one of status, pulse, flows, explain, "
                    "peers, identity, identities, admission, policy-check, rules, publish, ping, dns, dns-why, "
                    "dns-flush, reload"
                )

    return handle


def _question(request: dict[str, Any]) -> Question:
    name, address, port = request.get("name"), request.get("address"), _port(request.get("port"))
    protocol = request.get("protocol", "tcp")
    if name is not None and (not isinstance(name, str) or len(name) > 255):
        raise RequestError("name is a string of at most 255 characters")
    if protocol not in PROTOCOLS:
        raise RequestError("protocol is tcp or udp")
    question = Question(name=name, address=_address(address), port=port, protocol=protocol)
    if (source := _address(request.get("source"))) is not None:
        question["source"] = source
    if (source_port := request.get("source_port")) is not None:
        question["source_port"] = _port(source_port)
    return question


def _who(request: dict[str, Any], key: str) -> str:
    name = request.get(key)
    if not isinstance(name, str) or not 0 < len(name) <= 255:
        raise RequestError(f"{key} is a name, a key or a local address")
    return name


def _keys(request: dict[str, Any]) -> list[str]:
    keys = request.get("of")
    if not isinstance(keys, list) or len(keys) > MOST_KEYS:
        raise RequestError(f"of is a list of at most {MOST_KEYS:,} keys")
    return [_who({"of": key}, "of") for key in keys]


def _number(request: dict[str, Any], key: str) -> int | None:
    number = request.get(key)
    if number is not None and (not isinstance(number, int) or not 0 <= number <= MOST):
        raise RequestError(f"{key} is a number, 0 or more")
    return number


def _port(number: object) -> int:
    if not isinstance(number, int) or not 0 < number < 65536:
        raise RequestError("a port is a number from 1 to 65535")
    return number


def _service(request: dict[str, Any]) -> tuple[str | None, int | None]:
    proto, port = request.get("proto"), request.get("port")
    if proto not in (None, *PROTOCOLS, "icmp"):
        raise RequestError("proto is tcp, udp or icmp")
    if port is None:
        return proto, None
    if proto not in PROTOCOLS:
        raise RequestError("a port needs the proto tcp or udp")
    return proto, _port(port)


def _query(request: dict[str, Any]) -> tuple[str, str]:
    name, kind = request.get("name"), request.get("type")
    if not isinstance(name, str) or len(name) > 255:
        raise RequestError("name is a string of at most 255 characters")
    if not isinstance(kind, str) or not 0 < len(kind) <= 16:
        raise RequestError("type is a record type, e.g. A")
    return name.lower().removesuffix("."), kind.upper()


def _address(text: object) -> str | None:
    if text is None:
        return None
    try:
        return str(ip_address(str(text)))
    except ValueError as error:
        raise RequestError(f"{str(text)[:64]!r} is not an IP address") from error
