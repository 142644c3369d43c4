"""A node that is only its control socket: the real session, handler and place, in a thread."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from zignet.control import (
    Admission,
    Answers,
    ControlSession,
    Decided,
    DnsStatus,
    DnsWhy,
    Explanation,
    Flow,
    Identity,
    Peer,
    Ping,
    Place,
    Pulse,
    Question,
    Reach,
    RequestError,
    Rule,
    Status,
    handler_for,
)


def sample_flow(number: int, **changes: Any) -> Flow:
    flow: dict[str, Any] = {
        "id": number,
        "protocol": "tcp",
        "source": f"100.64.0.1:{40000 + number % 20000}",
        "target": "203.0.113.5:443",
        "name": "www.video.example",
        "known_by": "sni",
        "ech": False,
        "rule": "*.video.example -> tokyo",
        "exit": "tokyo",
        "state": "established",
        "up": 1234,
        "down": 56_789_012,
        "age_s": 12.5,
        "idle_s": 0.2,
        "ended_s": None,
        "error": None,
    }
    return Flow(**{**flow, **changes})


def sample_key(number: int) -> str:
    """56 characters, as a key's name has; nobody's."""
    return f"{'abcdefghijklmnopqrstuvwxyz234567'[number % 32] * 48}{number:08d}"


def sample_peer(number: int, **changes: Any) -> Peer:
    peer: dict[str, Any] = {
        "name": f"peer{number}",
        "key": sample_key(number),
        "address": f"100.64.{number >> 8 & 0xFF}.{number & 0xFF}",
        "address6": f"fd5a:6967:6e65::{number:x}",
        "configured": True,
        "contact": False,
        "services": [],
        "admitted": "The configuration names this key as a peer (peers).",
        "state": "connected",
        "path": "203.0.113.9:51830",
        "path_mtu": 1472,
        "cipher": "AES-256-GCM",
        "handshake_age_s": 65.0,
        "idle_s": 0.2,
        "received": 56_789_012,
        "sent": 1234,
        "rtt_s": 0.01234,
        "loss": 0.015,
        "last_seen": 1_790_000_000.0,
        "exit_flows": 0,
        "guest_flows": 0,
    }
    return Peer(**{**peer, **changes})


def sample_ping(**changes: Any) -> Ping:
    ping: dict[str, Any] = {
        "peer": "peer2",
        "key": sample_key(2),
        "path": "203.0.113.9:51830",
        "rtt_s": 0.01234,
        "handshake": False,
        "error": None,
    }
    return Ping(**{**ping, **changes})


SAMPLE_STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "pid": 4321,
    "memory": 40 << 20,
    "uptime_s": 3725.0,
    "state": "running",
    "compiled": True,
    "mode": "global",
    "rules": 4,
    "interface": {
        "name": "zig0",
        "mtu": 1500,
        "address": "100.64.0.1",
        "address6": None,
        "offload": "tso4 tso6 uso",
        "listener": "loopback",
    },
    "identity": {
        "key": sample_key(0),
        "address": "100.64.0.1",
        "address6": "fd5a:6967:6e65:1234:5678:9abc:def0:1234",
        "listen": "udp://[::]:51830",
        "cipher": "AES-256-GCM",
    },
    "control": {
        "pid": 4322,
        "user": "nobody",
        "state": "running",
        "uptime_s": 65.0,
        "memory": 60 << 20,
        "restarts": 2,
        "last_error": "it was killed by signal 9",
        "last_error_age_s": 65.0,
        "sources": [
            {
                "label": "file /etc/zignet/members.txt",
                "asked": 12,
                "matched": 7,
                "failed": 1,
                "pending": 0,
                "last_error": "no such file",
                "last_error_age_s": 5.0,
                "notes": ["line 7 is no key"],
            }
        ],
    },
    "peers": {
        "known": 3,
        "connected": 2,
        "pending": 1,
        "handshakes": 14,
        "under_load": False,
        "dropped": {"handshake: wrong mac1": 5, "no such session": 2},
    },
    "names": {
        "listen": ["127.0.0.1:53530", "100.64.0.1:53"],
        "upstreams": ["192.0.2.53:53"],
        "pools": ["198.19.0.0/16", "2001:2::/64"],
        "names": 12,
        "room": 65533,
        "answered": {"fake": 80, "zone": 3, "forwarded": 40, "refused": 0, "malformed": 0, "pool full": 0},
        "outstanding": 1,
        "asked": 44,
        "dropped": {"from another host": 2},
    },
    "exits": [
        {
            "name": "tokyo",
            "type": "socks5",
            "address": "192.0.2.10:1080",
            "flows": 2,
            "up_bytes": 10_000,
            "down_bytes": 5_000_000,
            "dials": 7,
            "failures": 1,
            "last_error": "SOCKS5 proxy: host unreachable",
            "last_error_age_s": 61.0,
        }
    ],
    "flows": {"tcp": 2, "udp": 1, "icmp": 0, "half_open": 0, "past_nat": 0, "limit": 65536},
    "totals": {
        "flows": 12,
        "up": 10_000,
        "down": 5_000_000,
        "packets_in": 9000,
        "packets_out": 9001,
        "dropped": {"malformed": 3},
    },
    "config": {"path": "/etc/zignet/zignet.yaml", "loaded_age_s": 3725.0, "last_reload_error": None},
}


SAMPLE_DNS: dict[str, Any] = {
    "listen": ["127.0.0.1:53530", "100.64.0.1:53"],
    "mechanism": "resolved",
    "why": "systemd-resolved governs names here: /etc/resolv.conf names 127.0.0.53",
    "changes": ["systemd-resolved: link zig0: server 100.64.0.1, domains ~video.example ~zignet"],
    "notes": [],
    "domains": ["video.example", "zignet"],
    "upstreams": ["192.0.2.53"],
    "others": "forward",
    "fakes": 3,
    "fakes_limit": 65_000,
    "cached": 12,
    "queries": {"fake": 5, "zone": 2, "forwarded": 40, "refused": 0},
}


class SampleDns:
    """A node's name server, as far as the control socket shows it."""

    def __init__(self) -> None:
        self.shown: dict[str, Any] = dict(SAMPLE_DNS)
        self.asked: list[tuple[str, str]] = []
        self.flushed = 0

    def status(self) -> DnsStatus:
        return self.shown  # type: ignore[return-value]

    def why(self, name: str, kind: str) -> DnsWhy:
        self.asked.append((name, kind))
        if name == "unknown.example":
            raise RequestError("nobody knows why")
        return {"source": "fake", "text": "rule zignet.yaml:9 *.video.example -> peer_us"}

    def flush(self) -> int:
        self.flushed += 1
        return 12


class SampleNode:
    """Answers as a node would; tests change its fields."""

    def __init__(self) -> None:
        self.open_flows: list[Flow] = [sample_flow(2), sample_flow(1, name=None, known_by="address")]
        self.ended_flows: list[Flow] = [sample_flow(0, state="ended", ended_s=3.0)]
        self.open_peers: list[Peer] = [
            sample_peer(2),
            sample_peer(1, state="idle", path="", handshake_age_s=None, rtt_s=None, loss=None),
        ]
        self.earlier_peers: list[Peer] = [sample_peer(9, name="", configured=False, state="idle")]
        self.pings: list[Ping | None] = [sample_ping()]  # what comes of each, None: not yet
        self.pinged: list[str] = []
        self.reload_error: str | None = None
        self.questions: list[Question] = []
        self.dns: SampleDns | None = SampleDns()

    def status(self) -> Status:
        return SAMPLE_STATUS  # type: ignore[return-value]

    def pulse(self) -> Pulse:
        return Pulse(
            state="running",
            uptime_s=3725.0,
            flows=SAMPLE_STATUS["flows"],
            packets_in=9000,
            packets_out=9001,
            connected=2,
            loaded_age_s=3725.0,
            last_reload_error=None,
        )

    def flows(self, ended: bool, limit: int | None = None, before: int | None = None) -> Iterable[Flow]:
        flows = [*self.open_flows, *(self.ended_flows if ended else ())]
        if before is not None:
            flows = [flow for flow in flows if flow["id"] < before]
        return iter(flows[:limit])

    def rules(self, offset: int, limit: int | None) -> Iterable[Rule]:
        rules = [("*.video.example -> tokyo", "zignet.yaml:9", "tokyo"), ("default", "", "direct")]
        listed = [
            Rule(number=number, rule=rule, where=where, exit=exit_)
            for number, (rule, where, exit_) in enumerate(rules)
        ]
        return iter(listed[offset:][:limit])

    def identity(self, of: str) -> Identity:
        for peer in self.open_peers:
            if of in (peer["key"], peer["address"], peer["address6"]):
                return Identity(
                    key=peer["key"],
                    name=peer["name"],
                    address=peer["address"],
                    address6=peer["address6"],
                    own=False,
                    configured=peer["configured"],
                    online=peer["state"] == "connected",
                    last_seen=peer["last_seen"],
                )
        raise RequestError(f"nobody here has the address {of}")

    def explain(self, question: Question) -> Explanation:
        self.questions.append(question)
        return Explanation(
            rule="*.video.example -> tokyo",
            where="zignet.yaml:9",
            exit="tokyo",
            exit_type="socks5",
            exit_address="192.0.2.10:1080",
            decided="sniff",
            refused=False,
            steps=[{"stage": "rule", "text": "zignet.yaml:9: *.video.example -> tokyo"}],
            flows=self.open_flows[:1],
        )

    def peers(
        self, every: bool, connected: bool = False, offset: int = 0, limit: int | None = None
    ) -> Iterable[Peer]:
        peers = [*self.open_peers, *(self.earlier_peers if every else ())]
        if connected:
            peers = [peer for peer in peers if peer["state"] == "connected"]
        return iter(peers[offset:][:limit])

    def admission(self, key: str, proto: str | None = None, port: int | None = None) -> Admission:
        service = None
        if proto is not None:
            service = Reach(proto=proto, port=port, allowed=port != 22, reason="Because.")
        if any(key == peer["key"] for peer in self.open_peers):
            reason = "The configuration names this key as a peer (peers)."
            return Admission(allowed=True, reason=reason, service=service)
        return Admission(allowed=None, reason="", service=service)

    def policy_check(self, key: str) -> Iterable[Decided | None]:
        yield None
        yield Decided(key=key, allowed=True, reason="Policy 1 (file members.txt) admits this key: line 3.")

    def ping(self, peer: str) -> Iterable[Ping | None]:
        self.pinged.append(peer)
        if peer == "nobody":
            raise RequestError("nobody here is called nobody")
        return iter(self.pings)

    def reload(self) -> None:
        if self.reload_error is not None:
            raise RequestError(self.reload_error)


@contextmanager
def serving(state_dir: Path, node: Answers) -> Iterator[Path]:
    """The loop of a node with nothing but its control socket, until the block ends."""
    place = Place.claim(state_dir)
    wake, woken = socket.socketpair()
    with ExitStack() as stack:
        stack.callback(place.close)
        stack.callback(wake.close)
        thread = threading.Thread(target=_loop, args=(place, woken, node))
        thread.start()
        try:
            yield state_dir
        finally:
            wake.send(b"x")
            thread.join(10)
            woken.close()


def _loop(place: Place, woken: socket.socket, node: Answers) -> None:
    selector = selectors.DefaultSelector()
    selector.register(place.listener, selectors.EVENT_READ, None)
    selector.register(woken, selectors.EVENT_READ, "stop")
    with selector:
        while True:
            for key, _ in selector.select():
                if key.data == "stop":
                    for other in list(selector.get_map().values()):
                        if isinstance(other.data, ControlSession):
                            other.fileobj.close()  # type: ignore[union-attr]
                    return
                if key.data is None:
                    connection, _ = place.listener.accept()
                    connection.setblocking(False)
                    session = ControlSession(handler_for(node, lambda: getattr(node, "dns", None)))
                    selector.register(connection, selectors.EVENT_READ, session)
                else:
                    _turn(selector, key.fileobj, key.data)  # type: ignore[arg-type]


def _turn(selector: selectors.BaseSelector, connection: socket.socket, session: ControlSession) -> None:
    try:
        data = connection.recv(4096) if session.wants_read else None
    except BlockingIOError:
        data = None
    except OSError:
        data = b""
    if data:
        session.receive(data)
    try:
        if session.wants_write and (chunk := session.pending()):
            session.sent(connection.send(chunk))
    except BlockingIOError:
        pass
    except OSError:
        data = b""
    if data == b"" or (session.closing and not session.wants_write):
        selector.unregister(connection)
        connection.close()
        return
    events = selectors.EVENT_READ if session.wants_read else 0
    events |= selectors.EVENT_WRITE if session.wants_write else 0
    if session.waiting:
        time.sleep(0.01)  # as the packet loop, which asks again after a while
        session.resume()
        events |= selectors.EVENT_WRITE
    selector.modify(connection, events or selectors.EVENT_READ, session)


@pytest.fixture
def node() -> SampleNode:
    return SampleNode()


@pytest.fixture
def running(tmp_path: Path, node: SampleNode) -> Iterator[Path]:
    """The state directory of a running sample node."""
    with serving(tmp_path / "state", node) as state_dir:
        yield state_dir


@pytest.fixture
def make_flow() -> Any:
    return sample_flow


@pytest.fixture
def make_peer() -> Any:
    return sample_peer


@pytest.fixture
def make_ping() -> Any:
    return sample_ping
