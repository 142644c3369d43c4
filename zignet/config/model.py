"""The configuration as values. A field's default is what holds where the file says nothing."""

# ruff: noqa: RUF009 -- `setting` is `dataclasses.field`

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any

from zignet.config import values
from zignet.config.offer import OfferConfig
from zignet.config.policy import PolicyConfig, read_policies
from zignet.config.publish import PublishConfig, read_publish
from zignet.config.reader import key_of, keys, many, one, path, psk_file, setting
from zignet.config.services import ServiceConfig, read_services
from zignet.config.url import Url
from zignet.identity import PublicKey
from zignet.routing import Lines

NAME_MODES = ("auto", "resolved", "networkmanager", "dnsmasq", "resolver", "resolvconf", "hijack", "off")

__all__ = [
    "AdminConfig",
    "Config",
    "DnsConfig",
    "DnsServer",
    "ExitConfig",
    "InboundConfig",
    "LimitsConfig",
    "Listen",
    "OfferConfig",
    "PeerConfig",
    "ProxyConfig",
    "SniffConfig",
    "TimeoutsConfig",
    "TunConfig",
]


@dataclass(frozen=True, slots=True)
class TunConfig:
    """The TUN interface and the addresses on it."""

    name: str = setting("zig0", one(values.interface))
    mtu: int = setting(1500, one(values.whole(1280, 65535)))  # bytes; IPv6 needs 1280 (RFC 8200 §5)
    range: IPv4Network = setting(IPv4Network("100.64.0.0/10"), one(values.range4))
    range6: IPv6Network = setting(IPv6Network("fd5a:6967:6e65::/48"), one(values.range6))
    peer_mtu: int = setting(1420, one(values.whole(1280, 9000)))  # bytes; of the routes to peers
    listener: str = setting("loopback", one(values.choice("loopback", "tun")))
    offload: str = setting("auto", one(values.choice("auto", "off")))
    descriptor: int | None = setting(None, one(values.device), key="device")  # a TUN that is already open

    @property
    def address(self) -> IPv4Address:
        """This host's own address: the range's first."""
        return self.range.network_address + 1

    @property
    def route_mtu(self) -> int:
        """The MTU of the routes to peers: no more than that of the interface."""
        return min(self.mtu, self.peer_mtu)

    @property
    def aliases(self) -> IPv4Network:
        """The NAT's alias block: the top /16 of the range, or its upper half if that is smaller."""
        length = max(16, self.range.prefixlen + 1)
        return IPv4Network((self.range.broadcast_address, length), strict=False)

    @property
    def address6(self) -> IPv6Address:
        """This host's own IPv6 address: `::1` of the range."""
        return self.range6.network_address + 1

    @property
    def aliases6(self) -> IPv6Network:
        """The NAT's IPv6 alias block: the top /64 of the range, or its upper half if that is smaller."""
        length = max(64, self.range6.prefixlen + 1)
        return IPv6Network((self.range6.broadcast_address, length), strict=False)


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """Which of the system's traffic enters the TUN."""

    mode: str = setting("global", one(values.choice("global", "off")))
    bypass: tuple[IPv4Network | IPv6Network, ...] = setting((), many(values.network))


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """How much at once, in flows."""

    flows: int = setting(65_536, one(values.whole(16, 4_194_304)))  # TCP
    half_open: int = setting(8_192, one(values.whole(16, 4_194_304)))  # of them, dialled or not accepted yet
    udp: int = setting(16_384, one(values.whole(16, 4_194_304)))


@dataclass(frozen=True, slots=True)
class SniffConfig:
    """How long and how much is read for a name, and where it is not waited for."""

    timeout_s: float = setting(0.3, one(values.duration(0.0, 10.0)), key="timeout")
    limit: int = setting(16_384, one(values.size(1024, 65_536)))  # bytes
    server_first: tuple[int, ...] = setting((), many(values.whole(1, 65535)))  # ports, besides the known ones


@dataclass(frozen=True, slots=True)
class TimeoutsConfig:
    """After how many seconds of silence something ends."""

    tcp_idle_s: float = setting(3600.0, one(values.duration(1.0, 30 * 86400.0)), key="tcp")
    udp_idle_s: float = setting(60.0, one(values.duration(1.0, 86400.0)), key="udp")
    dns_idle_s: float = setting(30.0, one(values.duration(1.0, 3600.0)), key="dns")  # after a DNS answer
    dial_s: float = setting(30.0, one(values.duration(0.1, 600.0)), key="dial")


@dataclass(frozen=True, slots=True)
class ExitConfig:
    """A way out. Which keys it may have depends on its type: see `KEYS_BY_TYPE`."""

    name: str
    type: str  # socks5 | http | direct | block
    address: str | None = setting(None, one(values.host_port))  # of a proxy, host:port
    username: str | None = setting(None, one(values.some_text))
    password_file: Path | None = setting(None, path)  # checked, not read
    udp: bool = setting(True, one(values.flag))  # whether the proxy is asked to carry UDP
    interface: str | None = setting(None, one(values.interface))  # tied to it


@dataclass(frozen=True, slots=True)
class DnsServer:
    """Where a name server is, ours or another."""

    host: str  # an address, without brackets
    port: int

    @classmethod
    def parse(cls, text: str) -> DnsServer:
        """From `192.0.2.1` or `[2001:db8::1]:5353`. Raises `ValueError`."""
        return cls(*values.name_server(text))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """Magic DNS, for a file that has this section."""

    listen: tuple[DnsServer, ...] = setting(
        (DnsServer("127.0.0.1", 53530),), many(DnsServer.parse)
    )  # besides port 53 of this node's own addresses
    mode: str = setting("off", one(values.choice(*NAME_MODES)))  # how the system's names come here
    upstreams: tuple[DnsServer, ...] = setting((), many(DnsServer.parse))  # (): the system's
    others: str = setting("forward", one(values.choice("forward", "refuse")))
    fake: tuple[str, ...] = setting((), many(values.names))  # besides those that the rules say
    real: tuple[str, ...] = setting((), many(values.names))  # not these
    fake_range: IPv4Network = setting(IPv4Network("198.19.0.0/16"), one(values.fake4))
    fake_range6: IPv6Network = setting(IPv6Network("2001:2::/64"), one(values.fake6))


@dataclass(frozen=True, slots=True)
class AdminConfig:
    """The Admin API, for a file that has this section. It is always at `admin.sock` in the state directory."""

    http: bool = setting(True, one(values.flag))  # at port 80 of this node's own addresses as well


@dataclass(frozen=True, slots=True)
class Listen:
    """Where peers' datagrams come in. `::` is IPv4 as well."""

    host: str  # an address, without brackets
    port: int  # 0: any that is free

    @classmethod
    def parse(cls, text: str) -> Listen:
        """From `udp://[::]:51830`. Raises `ValueError`."""
        return cls(*values.udp_address(text))

    def __str__(self) -> str:
        return f"udp://[{self.host}]:{self.port}" if ":" in self.host else f"udp://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """A peer that this host knows beforehand. There may be 100,000, so it is small: 350 bytes with all it holds."""

    name: str
    key: PublicKey
    endpoint: str | None = setting(None, one(values.host_port))  # host:port; the host may be a name
    psk_file: Path | None = setting(None, psk_file)  # checked, not kept: see `identity.read_psk`
    keepalive_s: int = setting(0, one(values.keepalive), key="keepalive")  # 0: none
    address: IPv4Address | None = setting(None, one(values.address4))  # its address here, if it is fixed
    contact: bool = field(
        default=False, metadata={"hidden": True}
    )  # not of the configuration: out of the contacts


@dataclass(frozen=True, slots=True)
class InboundConfig:
    """Who may come in: `deny` before the peers before `allow` before `policies` before `default_action`."""

    default_action: str = setting("deny", one(values.choice("deny", "allow")))
    allow: frozenset[PublicKey] = setting(frozenset(), keys)
    deny: frozenset[PublicKey] = setting(frozenset(), keys)
    policies: tuple[PolicyConfig, ...] = setting((), read_policies)  # asked in order about everybody else
    recheck_s: float = setting(300.0, one(values.duration(1.0, 86400.0)), key="recheck")  # how long they hold
    services: tuple[ServiceConfig, ...] | None = setting(
        None, read_services
    )  # of this host; None: all of them


DEFAULT_LISTEN = Listen("::", 51830)


@dataclass(frozen=True, slots=True)
class Config:
    """All of it. Equal configurations compare equal, so a reload sees which parts changed."""

    state_dir: Path = setting(lambda: Path("~/.zignet").expanduser(), path)
    key_file: Path | None = setting(None, path)  # None: `identity_file` says
    key_log: Path | None = setting(None, path)  # where session keys are written, for `zignet wire-dump`
    cipher: str = setting("auto", one(values.choice("auto", "aes", "chacha20")))
    listen: tuple[Listen, ...] = setting((), many(Listen.parse))  # (): `listening` says
    peers: tuple[PeerConfig, ...] = ()
    inbound: InboundConfig = field(default_factory=InboundConfig)
    publish: tuple[PublishConfig, ...] = setting((), read_publish)  # services that contacts are told of
    exit: OfferConfig = field(default_factory=OfferConfig)  # what peers may have this host dial
    tun: TunConfig = field(default_factory=TunConfig)
    proxy: ProxyConfig = field(default_factory=ProxyConfig)
    exits: Mapping[str, ExitConfig] = field(default_factory=dict)  # besides `direct` and `block`
    routes: Lines = field(default_factory=Lines)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    sniff: SniffConfig = field(default_factory=SniffConfig)
    timeouts: TimeoutsConfig = field(default_factory=TimeoutsConfig)
    dns: DnsConfig | None = None  # None: no names are answered here
    admin: AdminConfig | None = None  # None: there is no Admin API
    mark: int = setting(0x7A67, one(values.whole(1, 0xFFFFFFFF)))  # fwmark of our own sockets
    table: int = setting(31335, one(values.table))  # routing table whose default is the TUN

    @property
    def controlled(self) -> bool:
        """Whether anything of it is the control process's business."""
        return self.admin is not None or bool(self.inbound.policies)

    @property
    def identity_file(self) -> Path:
        """The file with this node's key."""
        return self.key_file or self.state_dir / "identity"

    @property
    def listening(self) -> tuple[Listen, ...]:
        """Where to listen: what the file says; port 51830 if it speaks of peers and not of that; else nowhere."""
        if self.listen:
            return self.listen
        wanted = self.peers or self.publish or self.inbound != InboundConfig()
        return (DEFAULT_LISTEN,) if wanted else ()

    @classmethod
    def default(cls) -> Config:
        """What holds without a file."""
        return cls()

    @classmethod
    def load(cls, file: Path) -> Config:
        """See `load_config`."""
        from zignet.config.load import load_config

        return load_config(file)

    @classmethod
    def parse(cls, text: str, file: Path | str = "zignet.yaml") -> Config:
        """See `parse_config`."""
        from zignet.config.load import parse_config

        return parse_config(text, file)

    def to_json(self) -> dict[str, Any]:
        """All values under the file's keys, in types that JSON knows, defaults filled in. Holds no secret."""
        shown: dict[str, Any] = _plain(self)
        return shown


def _plain(value: Any) -> Any:
    if isinstance(value, Lines):
        return [{"rule": line.text, "where": line.where} for line in value]
    if isinstance(value, TunConfig):
        return {**_section(value), "device": "auto" if value.descriptor is None else f"fd:{value.descriptor}"}
    if isinstance(value, InboundConfig):
        return {**_section(value), "services": "all" if value.services is None else _plain(value.services)}
    if isinstance(value, ServiceConfig):
        return value.shown()
    if isinstance(value, PublicKey | Listen | DnsServer | Url):
        return str(value)
    if is_dataclass(value):
        return _section(value)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, frozenset):
        return sorted(_plain(each) for each in value)
    if value is None or isinstance(value, str | int | float):
        return value
    return str(value)


def _section(value: Any) -> dict[str, Any]:
    shown = (part for part in fields(value) if not part.metadata.get("hidden"))
    return {key_of(part.name, part.metadata): _plain(getattr(value, part.name)) for part in shown}
