"""The shapes of what goes over the control socket. All of them are plain JSON objects.

Times are in seconds, sizes in bytes; an age counts back from now.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

__all__ = [
    "Admission",
    "ConfigStatus",
    "ControlStatus",
    "Decided",
    "DnsStatus",
    "DnsWhy",
    "ExitStatus",
    "Explanation",
    "Flow",
    "FlowCounts",
    "Identity",
    "IdentityStatus",
    "InterfaceStatus",
    "Named",
    "NamesStatus",
    "Offered",
    "Peer",
    "PeerCounts",
    "Ping",
    "Pulse",
    "Question",
    "Reach",
    "Rule",
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
    type: str  # direct | block | socks5 | http | peer; guests: what peers have dialled here
    address: str  # of the proxy; the interface of a direct exit; the beginning of a peer's key; or ""
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
    past_nat: int  # of all, those that leave by a peer's exit from their first packet on
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


class IdentityStatus(TypedDict):
    """Who this node is, and where peers reach it."""

    key: str  # 56 characters
    address: str
    address6: str
    listen: str
    cipher: str  # what it proposes: AES-256-GCM | ChaCha20-Poly1305


class PeerCounts(TypedDict):
    """Peers by state, and what was dropped of their traffic."""

    known: int
    connected: int  # a session stands
    pending: int  # handshakes of strangers that are not confirmed
    handshakes: int  # since the start
    under_load: bool
    dropped: dict[str, int]  # by reason


class Reach(TypedDict):
    """Whether a peer may reach a service of this host, if it may come in."""

    proto: str  # tcp | udp | icmp
    port: int | None  # None: any
    allowed: bool
    reason: str  # a sentence


class Admission(TypedDict):
    """`{"do": "admission", "key": str}` → `{"admission": Admission}`: what the configuration's lists say of a key.

    With `"proto"`, and perhaps `"port"`, also whether it may reach that.
    """

    allowed: bool | None  # None: `inbound.policies` decide
    reason: str  # a sentence; "" where they do
    service: Reach | None  # None: it was not asked about


class Identity(TypedDict):
    """`{"do": "identity", "of": str}` → `{"identity": Identity}`: whose key, or whose address on this host, that is.

    `{"do": "identities", "of": [str, …]}` → lines of `{"identities": [Identity, …]}`: of up to 1,000 keys.
    """

    key: str  # 56 characters
    name: str  # of the configuration; ""
    address: str | None  # what this host calls it; None: it has none yet
    address6: str
    own: bool  # this node itself
    configured: bool
    online: bool  # a session stands
    last_seen: float | None  # seconds since 1970


class Offered(TypedDict):
    """A service."""

    name: str
    proto: str  # tcp | udp
    port: int


class Peer(TypedDict):
    """`{"do": "peers"}` → lines of `{"peers": [Peer, …]}`.

    With `"all": true` those that were ever here too, with `"connected": true` only the connected; `"offset"` and
    `"limit"` are numbers of peers.
    """

    name: str  # of the configuration; "" for one that came by itself
    key: str  # 56 characters
    address: str  # what this host calls it
    address6: str
    configured: bool
    contact: bool  # whose name is in the contacts, and not in the configuration
    services: list[Offered]  # what it offers to us, as it says
    state: str  # idle | connecting | connected
    path: str  # host:port in use; or ""
    path_mtu: int  # bytes of a datagram; 0 without a path
    cipher: str  # of the session; or ""
    handshake_age_s: float | None
    idle_s: float | None  # since anything authentic came
    received: int  # bytes
    sent: int
    rtt_s: float | None  # of the last ping, or of the handshake
    loss: float | None  # share of the messages on this session that did not arrive here
    last_seen: float | None  # seconds since 1970, of a peer that is not connected
    exit_flows: int  # ours that leave by it, and are open
    guest_flows: int  # its own that leave by this host, and are open
    admitted: str | None  # why it may be here; None: it is not


class Decided(TypedDict):
    """`{"do": "policy-check", "key": str}` → `{"decided": Decided}`: whether the running node would let a key in."""

    key: str  # 56 characters
    allowed: bool | None  # None: whoever is to decide has not answered in time
    reason: str


class Ping(TypedDict):
    """`{"do": "ping", "peer": str}` → `{"ping": Ping}`: one sealed ping."""

    peer: str
    key: str
    path: str
    rtt_s: float | None  # None: no answer in time
    handshake: bool  # whether one had to be made first
    error: str | None


class Pulse(TypedDict):
    """`{"do": "pulse"}` → `{"pulse": Pulse}`: what may be asked every second, whatever the number of flows."""

    state: str
    uptime_s: float
    flows: FlowCounts
    packets_in: int  # since the start
    packets_out: int
    connected: int  # peers
    loaded_age_s: float  # of the configuration
    last_reload_error: str | None


class NamesStatus(TypedDict):
    """Magic DNS, as it is now."""

    listen: list[str]  # address:port
    upstreams: list[str]
    pools: list[str]
    names: int  # with fake addresses
    room: int  # how many there can be
    answered: dict[str, int]  # fake, zone, forwarded, refused, malformed, pool full
    outstanding: int  # queries to the upstreams
    asked: int  # queries to the upstreams so far
    dropped: dict[str, int]


class DnsStatus(TypedDict):
    """`{"do": "dns"}` → `{"dns": DnsStatus}`: the node's name server, and how this host's names come to it."""

    listen: list[str]  # address:port, [address]:port
    mechanism: str  # resolved | networkmanager | dnsmasq | resolver | resolvconf | hijack | off
    why: str  # that one was chosen
    changes: list[str]  # what was changed of the system
    notes: list[str]  # what a person should know, drift from what was written included
    domains: list[str]  # that the system leads here; ["."] is all names
    upstreams: list[str]  # that other names go to
    others: str  # what becomes of other names: forward | refuse
    fakes: int  # names that have a fake address now
    fakes_limit: int
    cached: int  # answers of the upstreams that are kept
    queries: dict[str, int]  # since the start, by what became of them: fake, zone, forwarded, refused, …


class DnsWhy(TypedDict):
    """`{"do": "dns-why", "name": str, "type": str}` → `{"why": DnsWhy}`: where the answer to a query comes from."""

    source: str  # fake | zone | forwarded | hosts | refused
    text: str  # e.g. "rule zignet.yaml:9 *.video.example -> peer_us"


class SourceStatus(TypedDict):
    """The source of one of `inbound.policies`, since the control process has started."""

    label: str
    asked: int
    matched: int
    failed: int
    pending: int
    last_error: str | None
    last_error_age_s: float | None
    notes: list[str]  # e.g. lines of a file that are no keys


class ControlStatus(TypedDict):
    """The control process."""

    pid: int | None
    user: str
    state: str  # starting | running | down
    uptime_s: float
    memory: int  # bytes, resident
    restarts: int
    last_error: str | None  # why it was started again
    last_error_age_s: float | None
    sources: list[SourceStatus]


class Status(TypedDict):
    """`{"do": "status"}` → `{"status": Status}`."""

    version: str
    pid: int
    memory: int  # bytes, resident
    uptime_s: float
    state: str
    compiled: bool
    mode: str  # global | off
    rules: int
    interface: InterfaceStatus
    identity: IdentityStatus | None  # None: no peers are configured
    peers: PeerCounts | None
    control: ControlStatus | None  # None: nothing in the configuration needs it
    names: NamesStatus | None  # None: no `dns` section
    exits: list[ExitStatus]
    flows: FlowCounts
    totals: Totals
    config: ConfigStatus


class Flow(TypedDict):
    """`{"do": "flows", "ended": bool}` → lines of `{"flows": [Flow, …]}`, up to 200 in each.

    With `"limit"` the newest so many of them, and with `"before"` of those only that are older than this id.
    """

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


class Rule(TypedDict):
    """`{"do": "rules", "offset": int, "limit": int}` → lines of `{"rules": [Rule, …]}`, in the order of the rules."""

    number: int  # from 0
    rule: str
    where: str  # file:line; "" for the default, which comes last
    exit: str


class Question(TypedDict):
    """`{"do": "explain", …}`: how would this flow leave?"""

    name: str | None
    address: str | None  # None: it does not resolve
    port: int
    protocol: Literal["tcp", "udp"]
    source: NotRequired[str]
    source_port: NotRequired[int]  # of a flow there is, or was: then only that one is shown


class Named(TypedDict):
    """What the node's name server would answer for the addresses of a name: part of an `Explanation`."""

    source: str  # fake | zone | forwarded | refused
    text: str  # why
    addresses: list[str]  # the fake ones, IPv4 and IPv6; of other names none
    given: bool  # the fake ones: the name has them. False: it would get them, if it were asked for now


class Step(TypedDict):
    """One step of the way of a flow."""

    stage: str  # name | tun | packet | syn | sniff | rule | exit | peer | path
    text: str


class Explanation(TypedDict):
    """The answer to a `Question`: `{"explanation": Explanation}`."""

    rule: str
    where: str  # file:line of the rule; "" for the default that no line states
    exit: str
    exit_type: str
    exit_address: str
    decided: Literal["syn", "sniff", "packet"]  # before or after the name is known, or without one
    refused: bool  # the exit does not carry it
    steps: list[Step]
    dns: NotRequired[Named | None]  # None: no name was asked about, or no name server is configured
    peer: NotRequired[Peer | None]  # the exit, or whose address it is
    flows: NotRequired[list[Flow]]  # the latest real ones like it, where a node is running
