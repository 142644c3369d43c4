"""The shapes of what goes over the control socket. All of them are plain JSON objects.

Times are in seconds, sizes in bytes; an age counts back from now.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

__all__ = [
    "ConfigStatus",
    "ExitStatus",
    "Explanation",
    "Flow",
    "FlowCounts",
    "InterfaceStatus",
    "Question",
    "Status",
    "Step",
    "Totals",
]


class InterfaceStatus(TypedDict):
    """The TUN."""

    name: str
    mtu: int
    address: str
    address6: str | None
    offload: str  # e.g. "tso4 tso6 uso", or "off"
    listener: str  # loopback | tun


class ExitStatus(TypedDict):
    """One exit, and what went through it since the start."""

    name: str
    type: str  # direct | block | socks5 | http
    address: str  # of the proxy; the interface of a direct exit; or ""
    flows: int  # open now
    up_bytes: int
    down_bytes: int
    dials: int
    failures: int
    last_error: str | None
    last_error_age_s: float | None


class FlowCounts(TypedDict):
    """Open flows by protocol."""

    tcp: int
    udp: int
    icmp: int
    half_open: int  # of the TCP ones, those without a handshake yet
    limit: int


class Totals(TypedDict):
    """Since the start."""

    flows: int
    up: int
    down: int
    packets_in: int  # read from the TUN
    packets_out: int
    dropped: dict[str, int]  # by reason


class ConfigStatus(TypedDict):
    """The configuration in force."""

    path: str | None  # None: built-in defaults
    loaded_age_s: float
    last_reload_error: str | None


class Status(TypedDict):
    """`{"do": "status"}` → `{"status": Status}`."""

    version: str
    pid: int
    uptime_s: float
    state: str
    compiled: bool
    mode: str  # global | off
    rules: int
    interface: InterfaceStatus
    exits: list[ExitStatus]
    flows: FlowCounts
    totals: Totals
    config: ConfigStatus


class Flow(TypedDict):
    """`{"do": "flows", "ended": bool}` → lines of `{"flows": [Flow, …]}`, up to 200 in each."""

    id: int
    protocol: str  # tcp | udp | icmp
    source: str  # address:port
    target: str
    name: str | None
    known_by: str  # sni | host | h2 | quic | dns | address | …
    ech: bool  # the name is the outer one of an encrypted ClientHello
    rule: str
    exit: str
    state: str
    up: int
    down: int
    age_s: float
    idle_s: float
    ended_s: float | None  # how long ago it ended
    error: str | None


class Question(TypedDict):
    """`{"do": "explain", …}`: how would this flow leave?"""

    name: str | None
    address: str | None  # None: it does not resolve
    port: int
    protocol: Literal["tcp", "udp"]
    source: NotRequired[str]


class Step(TypedDict):
    """One step of the way of a flow."""

    stage: str  # name | syn | sniff | rule | exit
    text: str


class Explanation(TypedDict):
    """The answer to a `Question`: `{"explanation": Explanation}`."""

    rule: str
    where: str  # file:line of the rule; "" for the default that no line states
    exit: str
    exit_type: str
    exit_address: str
    decided: Literal["syn", "sniff"]  # before or after the name is known
    refused: bool  # the exit does not carry it
    steps: list[Step]
    flows: NotRequired[list[Flow]]  # the latest real ones like it, where a node is running
