"""What the running node tells people: its status, its flows, the way of a flow that does not exist yet."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from heapq import nlargest
from ipaddress import ip_address
from itertools import chain
from typing import TYPE_CHECKING, Any, TypedDict

import zignet
from nat.exit import Exit
from nat.flow import Flow as EngineFlow
from nat.flow import State
from nat.sockets import text_of
from zignet.control import (
    Admission,
    ConfigStatus,
    Decided,
    ExitStatus,
    Explanation,
    Flow,
    FlowCounts,
    Identity,
    IdentityStatus,
    InterfaceStatus,
    Peer,
    PeerCounts,
    Ping,
    Pulse,
    Question,
    RequestError,
    Rule,
    Status,
    Totals,
)
from zignet.control.explain import explain, explain_again, explain_stale, hijacked
from zignet.control.process import resident
from zignet.packet_path import compiled_modules

if TYPE_CHECKING:
    from zignet.dns.names import Names
    from zignet.node import Node
    from zignet.peers import Hub

__all__ = ["Report"]

PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp"}
LEASE_S = 30.0  # of a service that is published for a while
MOST_MEMBERS = 100  # whom it is published to
DNS_PORT = 53
KNOWN_BY = {"tls": "sni", "http": "host"}


class PeerFacts(TypedDict):
    """The part of a `Status` that only a node with peers has."""

    identity: IdentityStatus | None
    peers: PeerCounts | None


class Report:
    """Answers for the control socket (`zignet.control.Answers`)."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def status(self) -> Status:
        """The node as it is now."""
        node = self._node
        engine, config = node.engine, node.config
        now = engine.loop.now
        tally, gateway = engine.tally, engine.gateway
        live = list(self._flows())
        up = sum(moved(flow)[0] for flow in live)
        down = sum(moved(flow)[1] for flow in live)
        return Status(
            version=zignet.__version__,
            pid=os.getpid(),
            memory=resident(os.getpid()),
            uptime_s=round(now - node.started, 3),
            state=node.state,
            compiled=all(compiled_modules().values()),
            mode=config.proxy.mode,
            rules=len(node.rules),
            interface=InterfaceStatus(
                name=node.tun.name,
                mtu=node.tun.mtu,
                address=str(config.tun.address),
                address6=str(node.address6) if node.ipv6 else None,
                offload=offload_text(int(node.tun.offload)),
                listener=config.tun.listener,
            ),
            **self._peers(),
            control=None if node.control is None else node.control.status(),
            names=None if node.names is None else node.names.status(),
            exits=list(self._exits(live, now)),
            flows=self._counts(),
            totals=Totals(
                flows=tally.flows + len(live),
                up=tally.up + up,
                down=tally.down + down,
                packets_in=gateway.packets_in,
                packets_out=gateway.packets_out,
                dropped=dict(gateway.dropped),
            ),
            config=ConfigStatus(
                path=str(node.path) if node.path is not None else None,
                loaded_age_s=round(now - node.loaded, 3),
                last_reload_error=node.reload_error or None,
            ),
        )

    def _counts(self) -> FlowCounts:
        engine, hub = self._node.engine, self._node.hub
        tcp, udp = hub.carried_counts() if hub is not None else (0, 0)
        return FlowCounts(
            tcp=len(engine.table) + tcp,
            udp=len(engine.udp.flows) + udp,
            icmp=len(engine.icmp.flows),
            half_open=len(engine.table.half_open),
            past_nat=tcp + udp,
            limit=engine.table.limit,
        )

    def pulse(self) -> Pulse:
        """The little of it that costs nothing, whatever the number of flows."""
        node = self._node
        now, gateway = node.engine.loop.now, node.engine.gateway
        peers = self._peers()["peers"]
        return Pulse(
            state=node.state,
            uptime_s=round(now - node.started, 3),
            flows=self._counts(),
            packets_in=gateway.packets_in,
            packets_out=gateway.packets_out,
            connected=peers["connected"] if peers is not None else 0,
            loaded_age_s=round(now - node.loaded, 3),
            last_reload_error=node.reload_error or None,
        )

    def _exits(self, live: Iterable[EngineFlow], now: float) -> Iterator[ExitStatus]:
        node = self._node
        counts: dict[str, list[int]] = {}
        for flow in live:
            if flow.route is not None:
                count = counts.setdefault(flow.route.exit.name, [0, 0, 0])
                up, down = moved(flow)
                count[0] += 1
                count[1] += up
                count[2] += down
        known: dict[str, Exit] = dict(node.exits)
        if node.hub is not None and node.hub.guests.exit is not None:
            known[node.hub.guests.exit.name] = node.hub.guests.exit
        for name, exit_ in known.items():
            ended = node.engine.tally.of(name)
            flows, up, down = counts.get(name, (0, 0, 0))
            yield ExitStatus(
                name=name,
                type=getattr(exit_, "kind", ""),
                address=getattr(exit_, "where", ""),
                flows=flows,
                up_bytes=ended.up + up,
                down_bytes=ended.down + down,
                dials=ended.dials,
                failures=ended.failures,
                last_error=ended.last_error or None,
                last_error_age_s=round(now - ended.last_error_at, 3) if ended.last_error else None,
            )

    def _flows(self) -> Iterator[EngineFlow]:
        """All live ones: the engine's, and those that go to a peer's exit past its NAT."""
        hub = self._node.hub
        return chain(self._node.engine.flows(), hub.carried() if hub is not None else ())

    def flows(self, ended: bool, limit: int | None = None, before: int | None = None) -> Iterable[Flow]:
        """Open flows, newest first; with `ended` the recently ended ones too. `limit`, `before`: some of them."""
        engine = self._node.engine
        if limit is not None:
            every = chain(self._flows(), engine.tally.recent if ended else ())
            older = (flow for flow in every if before is None or flow.number < before)
            chosen = nlargest(limit, older, key=lambda flow: flow.number)
        else:
            chosen = sorted(self._flows(), key=lambda flow: flow.number, reverse=True)
            if ended:
                chosen += reversed(engine.tally.recent)
        return (shown(flow, engine.loop.now) for flow in chosen)

    def rules(self, offset: int, limit: int | None) -> Iterable[Rule]:
        """The rules in force, from one on, the default last."""
        return (
            Rule(number=each.index, rule=each.rule, where=each.where, exit=each.exit)
            for each in self._node.rules.listed(offset, limit)
        )

    def explain(self, question: Question) -> Explanation:
        """How such a flow would leave by the rules in force, and how the latest ones like it did."""
        node, names = self._node, self._node.names
        name, address = (question["name"] or "").removesuffix(".").lower(), question["address"]
        packed = ip_address(address).packed if address else b""
        named = names.named(name) if names is not None and name else None
        if names is not None and names.hijacks and question["port"] == DNS_PORT:
            answer = hijacked()
        elif names is not None and address and names.fakes.number_at(packed) >= 0:
            answer = self._explain_fake(names, packed, question)
        else:
            fake = not address and named is not None and named["source"] == "fake"
            answer = explain(node.rules, question, node.config.sniff.server_first, fake=fake)
        answer["dns"] = named
        answer["peer"] = self._peer_of(answer["exit"], packed)
        answer["flows"] = self._alike(name, address, question)
        return answer

    def _explain_fake(self, names: Names, address: bytes, question: Question) -> Explanation:
        found = names.fakes.lookup(address)
        if found is None:
            return explain_stale(question)
        name, exit_name = found
        if not exit_name:
            return explain(self._node.rules, Question(**{**question, "name": name}), fake=True)
        exit_ = self._node.exits.get(exit_name)
        return explain_again(exit_, name, question) if exit_ is not None else explain_stale(question)

    def _peer_of(self, exit_name: str, address: bytes) -> Peer | None:
        """Whose address it is, or the peer that is the exit."""
        hub, exit_ = self._node.hub, self._node.exits.get(exit_name)
        if hub is None:
            return None
        from zignet.exits import PeerExit
        from zignet.peers import report

        peer = hub.table.by_address.get(address)
        if peer is None and isinstance(exit_, PeerExit):
            peer = hub.table.by_key.get(exit_.key.x)
        return report.row(hub, peer, report.Shares(hub)) if peer is not None else None

    def _alike(self, name: str, address: str | None, question: Question) -> list[Flow]:
        """The latest flows to the same destination; or the very one from this port."""
        engine, port = self._node.engine, question.get("source_port")
        alike = [
            flow
            for flow in (*self._flows(), *engine.tally.recent)
            if flow.target_port == question["port"]
            and (port is None or flow.source_port == port)
            and ((name and flow.name == name) or (address and text_of(flow.target) == address))
        ]
        alike.sort(key=lambda flow: flow.number)
        return [shown(flow, engine.loop.now) for flow in alike[-5:]]

    def _peers(self) -> PeerFacts:
        if self._node.hub is None:
            return PeerFacts(identity=None, peers=None)
        from zignet.peers import report

        return PeerFacts(identity=report.identity(self._node.hub), peers=report.counts(self._node.hub))

    def peers(
        self, every: bool, connected: bool = False, offset: int = 0, limit: int | None = None
    ) -> Iterable[Peer]:
        """The peers, if there may be any."""
        hub = self._hub()
        from zignet.peers import report

        return report.rows(hub, every, connected, offset, limit)

    def identity(self, of: str) -> Identity:
        """Whose key, or whose address on this host, that is."""
        hub = self._hub()
        from zignet.identity import BadKey
        from zignet.peers import report

        try:
            found = report.whose(hub, of)
        except BadKey as error:
            raise RequestError(str(error)) from error
        if found is None:
            raise RequestError(f"nobody here has the address {of}")
        return found

    def admission(self, key: str, proto: str | None = None, port: int | None = None) -> Admission:
        """What the configuration's lists say of a key, and whether it may reach a service."""
        hub = self._hub()
        from zignet.identity import BadKey
        from zignet.peers import report

        try:
            return report.admission(hub, key, proto, port)
        except BadKey as error:
            raise RequestError(str(error)) from error

    def policy_check(self, key: str) -> Iterable[Decided | None]:
        """Whether this key would be let in, asked of whoever decides."""
        hub = self._hub()
        from zignet.identity import BadKey
        from zignet.peers import report

        try:
            return report.policy_check(hub, key)
        except BadKey as error:
            raise RequestError(str(error)) from error

    def ping(self, peer: str) -> Iterable[Ping | None]:
        """One sealed ping."""
        hub = self._hub()
        from zignet.identity import BadKey
        from zignet.peers import report

        try:
            found = hub.table.find(peer)
        except BadKey as error:
            raise RequestError(str(error)) from error
        if found is None:
            if hub.is_own(peer):
                raise RequestError(f"{peer} is this node itself")
            raise RequestError(
                f"nobody here is called {peer}: it is a name or a key of a peer in the configuration, of one that is "
                "connected, or a local address (see `zignet peers`)"
            )
        return report.ping(hub, found)

    def publish(self, request: Mapping[str, Any]) -> float:
        """A lease of a service (`zignet serve`), until it is renewed or its time is over."""
        from zignet.config.publish import PublishConfig, service_name

        self._hub()
        offering = self._node.offering
        assert offering is not None
        name, proto, port, to = (request.get(word) for word in ("name", "proto", "port", "to"))
        try:
            if not isinstance(name, str):
                raise ValueError("name is a text")
            name = service_name(name)
            if request.get("end") is True:
                offering.withdraw(name)
                return 0.0
            if proto not in ("tcp", "udp") or not isinstance(port, int) or not 0 < port < 65536:
                raise ValueError("proto is tcp or udp, and port a number from 1 to 65535")
            if (
                not isinstance(to, list)
                or not all(isinstance(text, str) for text in to)
                or len(to) > MOST_MEMBERS
            ):
                raise ValueError(f"to is a list of at most {MOST_MEMBERS} texts")
            offering.lease(PublishConfig(name, proto, port, tuple(to)), LEASE_S)
        except ValueError as error:
            raise RequestError(str(error)) from error
        return LEASE_S

    def _hub(self) -> Hub:
        if self._node.hub is None:
            raise RequestError(
                "this node has no peers: its configuration has neither `listen` nor `peers` nor `inbound`"
            )
        return self._node.hub

    def reload(self) -> Iterator[None]:
        """Read the configuration again."""
        error = yield from self._node.reload()
        if error:
            raise RequestError(error)


def moved(flow: EngineFlow) -> tuple[int, int]:
    """Bytes so far, up and down."""
    relay = getattr(flow, "relay", None)
    return (flow.up, flow.down) if relay is None else (relay.up, relay.down)


def shown(flow: EngineFlow, now: float) -> Flow:
    """A flow as the command line gets it."""
    relay = getattr(flow, "relay", None)
    touched = flow.touched if relay is None else relay.touched
    up, down = moved(flow)
    end = flow.ended or now
    protocol = PROTOCOLS.get(flow.protocol, str(flow.protocol))
    return Flow(
        id=flow.number,
        protocol=protocol,
        source=endpoint(flow.source_address, flow.source_port, protocol),
        target=endpoint(flow.target, flow.target_port, protocol),
        name=flow.name or None,
        known_by=KNOWN_BY.get(flow.known_by, flow.known_by),
        ech=flow.ech,
        rule=flow.route.rule if flow.route is not None else "",
        exit=flow.route.exit.name if flow.route is not None else "",
        state="ended" if flow.ended else State(flow.state).name.lower().replace("_", "-"),
        up=up,
        down=down,
        age_s=round(end - flow.born, 6),
        idle_s=round(now - touched, 3),
        ended_s=round(now - flow.ended, 3) if flow.ended else None,
        error=flow.error or None,
    )


def endpoint(address: bytes, port: int, protocol: str) -> str:
    """An address and port as people write them; ICMP has no ports."""
    text = text_of(address)
    if protocol == "icmp":
        return text
    return f"[{text}]:{port}" if len(address) == 16 else f"{text}:{port}"


def offload_text(flags: int) -> str:
    """What the kernel gives and takes in super-packets (TUN_F_* of linux/if_tun.h)."""
    names = {0x02: "tso4", 0x04: "tso6", 0x20: "uso4", 0x40: "uso6"}
    return " ".join(name for bit, name in names.items() if flags & bit) or "off"
