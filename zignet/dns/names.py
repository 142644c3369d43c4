"""All of Magic DNS, wired: made by the node where its configuration has a `dns` section.

applications ─► Server ─► Answers ─► Zone (Directory) | Fakes (FakeStore) | FORWARD ─► Exchange ─► Upstreams
engine's dialler ─► Resolver ─► Exchange          engine's flows ─► HijackChooser ─► FakeChooser ─► the rules
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING

from dnslib import QTYPE

from nat.engine import Engine
from nat.exit import Chooser
from nat.loop import Loop, Timer
from nat.sockets import Underlay
from zignet.config import Config, DnsConfig
from zignet.control.messages import Named, NamesStatus
from zignet.dns.answers import Answers
from zignet.dns.choice import FakeChooser, Which
from zignet.dns.directory import NodeDirectory
from zignet.dns.exchange import Exchange
from zignet.dns.fakes import Fakes
from zignet.dns.hijack import PORT, HijackChooser, OwnServer
from zignet.dns.lead import Lead, wanted
from zignet.dns.resolver import Resolver
from zignet.dns.server import Server
from zignet.dns.store import FakeStore
from zignet.dns.upstreams import Upstreams
from zignet.dns.wire import AAAA, ANY, HTTPS, SVCB, A
from zignet.dns.zone import Zone
from zignet.exits import AnyExit
from zignet.routing import Rules
from zignet.system.names import Applied, Mode

if TYPE_CHECKING:
    from zignet.peers import Hub

__all__ = ["Names"]

log = logging.getLogger("zignet.dns")

SAVE_S = 0.02  # how long what was given may be only in memory
REMEMBER_S = 60.0  # when mappings were last used is written that often …
REMEMBERED = 5_000  # … for so many


class Names:
    """Resolver, fake addresses and server of one node."""

    def __init__(self, loop: Loop, underlay: Underlay, config: Config, own: Collection[str]) -> None:
        """`own`: this node's addresses on the TUN, as text."""
        assert config.dns is not None
        self._loop = loop
        self._config = config
        self._settings: DnsConfig = config.dns
        self._own = tuple(own)
        pools = self._settings.fake_range, self._settings.fake_range6
        self._store = FakeStore(config.state_dir, " ".join(map(str, pools)), note=log.warning)
        self.fakes = Fakes(*pools, self._store, time.time)
        # Whoever has flows to fake addresses: each gives the addresses that they go to
        self.users: list[Callable[[], Iterable[bytes]]] = []
        self.fakes.live = lambda: {address for user in self.users for address in user()}
        self.fakes.restore(self._store.rows(), self._store.ceiling)
        given = [(server.host, server.port) for server in self._settings.upstreams]
        ours = [server.host for server in self._settings.listen if server.port == PORT]
        self.upstreams = Upstreams(given, own=(*own, *ours), note=log.info)
        self.exchange = Exchange(loop, underlay, self.upstreams)
        self.resolver = Resolver(loop, self.exchange)
        self.server: Server
        self._directory: NodeDirectory
        self._answers: Answers
        self._saving: Timer | None = None
        self._remembering: Timer | None = None
        self._store.wake = self._wake
        self.lead = Lead(loop, config.state_dir, self._led)
        self._link = ("", 0)
        self._own_server = OwnServer([])

    def attach(self, engine: Engine, hub: Hub | None, rules: Rules, exits: Mapping[str, AnyExit]) -> None:
        """Take part in a node, before its server listens."""
        tun = self._config.tun
        own = [_packed(text) for text in self._own]
        self._directory = NodeDirectory(own, tun.range6, hub)
        ranges: tuple[IPv4Network | IPv6Network, ...] = (
            *(tun.range, tun.range6),
            *(self.fakes.pool4, self.fakes.pool6),
        )
        zone = Zone(self._directory, ranges, self._fake_name)
        self._zone = zone
        self._which_now = self._which(rules, exits)
        self._answers = Answers(
            zone,
            self.fakes,
            self._which_now,
            forwards=self._settings.others == "forward",
            ipv6=any(":" in text for text in self._own),
        )
        self.server = Server(
            self._loop,
            self._answers,
            self.exchange,
            own=frozenset(self._own),
            strangers=(tun.range, tun.range6),
        )
        engine.resolve_with(self.resolver)
        self.users.append(lambda: (flow.target for flow in engine.flows()))
        if hub is not None:
            self.users.append(hub.live_addresses)

    def lead_here(self, link: str, index: int) -> None:
        """Have the system's names that are ours come here, as `dns.mode` says. `link`: the TUN."""
        self._link = (link, index)
        captures = self._config.proxy.mode == "global" and bool(self._own_server.addresses)
        self.lead.want(
            wanted(
                self._settings,
                self._own,
                link,
                index,
                self._which_now.domains(),
                captures=captures,
                bypass=self._config.proxy.bypass,
            )
        )

    @property
    def hijacks(self) -> bool:
        """Whether flows to port 53 that enter the TUN are answered here."""
        return self.lead.applied.mechanism is Mode.HIJACK

    def _led(self, applied: Applied) -> None:
        self.upstreams.stand_in(applied.upstreams, applied.upstream_file)

    def listen(self) -> None:
        """Answer where the configuration says, and at port 53 of our own addresses. Raises OSError for the first."""
        for server in self._settings.listen:
            try:
                self.server.listen(server.host, server.port)
            except OSError as error:
                raise OSError(error.errno, f"dns.listen: {server}: {error.strerror}") from error
        for host in self._own:
            try:
                if (host, PORT) not in self.server.addresses:  # else: `dns.listen` has it
                    self.server.listen(host, PORT)
            except OSError as error:
                log.warning("names are not answered at %s port %d: %s", host, PORT, error.strerror)
            else:
                self._own_server.addresses.append(_packed(host))
        self._remember()

    def chooser(self, rules: Rules, exits: Mapping[str, AnyExit]) -> Chooser:
        """The rules, for flows to fake addresses as well."""
        chooser = FakeChooser(rules, exits, self.fakes)
        return HijackChooser(chooser, self._own_server, lambda: self.hijacks)

    def reload(self, settings: DnsConfig | None, rules: Rules, exits: Mapping[str, AnyExit]) -> None:
        """Other rules, other lists, other upstreams, other peers; where it listens and the pools stay."""
        if settings is not None:
            self._settings = settings
            self.upstreams.use([(server.host, server.port) for server in settings.upstreams])
        self._directory.peers_changed()
        self._which_now = self._which(rules, exits)
        self._answers.rules_changed(self._which_now, forwards=self._settings.others == "forward")
        if self._link[0]:
            self.lead_here(*self._link)

    def peers_changed(self) -> None:
        """Somebody is a contact now, or is not any more."""
        self._directory.peers_changed()

    @property
    def others(self) -> str:
        """forward | refuse"""
        return self._settings.others

    @property
    def cached(self) -> int:
        """Names whose answer from the upstreams is remembered."""
        return self.resolver.kept

    def why(self, name: str, kind: str) -> tuple[str, str]:
        """Where an answer comes from, and a sentence. Raises ValueError for a type that nobody knows."""
        number = number_of(kind)
        if self._zone.answer(name, number) is not None:
            return "zone", "this node's own names and addresses"
        if number in (A, AAAA, ANY, HTTPS, SVCB) and self._which_now(name):
            return "fake", self._which_now.reason(name)
        if self._settings.others == "forward":
            asked = ", ".join(_shown(host, port) for host, port in self.upstreams.servers(self._loop.now))
            to = f"to {asked}" if asked else "but there is no name server to ask"
            return "forwarded", f"{to}; {self._which_now.why_real(name)}" if number in (A, AAAA) else to
        return "refused", "dns.others: refuse"

    def named(self, name: str) -> Named:
        """What the server would answer for the addresses of a name (lower case); nothing is given for it."""
        source, text = self.why(name, "A")
        found = self.fakes.peek(name) if source == "fake" else None
        if found is None:
            return Named(source=source, text=text, addresses=[], given=False)
        number, given = found
        both = self.fakes.address4(number), self.fakes.address6(number)
        return Named(source=source, text=text, addresses=[str(ip_address(one)) for one in both], given=given)

    def flush(self) -> int:
        """Forget answers that are kept; fake addresses stay. How many answers that were."""
        return self.resolver.flush() + self._answers.flush()

    def status(self) -> NamesStatus:
        """For people."""
        return NamesStatus(
            listen=[_shown(host, port) for host, port in self.server.addresses],
            upstreams=[_shown(host, port) for host, port in self.upstreams.servers(self._loop.now)],
            pools=[str(self.fakes.pool4), str(self.fakes.pool6)],
            names=len(self.fakes),
            room=self.fakes.size - 2,
            answered=dict(self._answers.counts),
            outstanding=len(self.exchange),
            asked=self.exchange.asked,
            dropped=dict(self.server.dropped),
        )

    def close(self) -> None:
        """Answer no more; what was given is in the file afterwards, and the system's names are as they were."""
        self.lead.close()
        for timer in (self._saving, self._remembering):
            if timer is not None:
                timer.cancel()
        self.server.close()
        self.resolver.close()
        self.exchange.close()
        self._store.save(self.fakes.touched(REMEMBERED))
        self._store.close(self.fakes.next)

    def _which(self, rules: Rules, exits: Mapping[str, AnyExit]) -> Which:
        return Which(rules, exits, self._settings.fake, self._settings.real)

    def _fake_name(self, address: bytes) -> str | None:
        found = self.fakes.lookup(address)
        return None if found is None else found[0]

    def _wake(self) -> None:
        self._saving = self._loop.call_later(SAVE_S, self._store.save)

    def _remember(self) -> None:
        touched = self.fakes.touched(REMEMBERED)
        if touched:
            self._store.save(touched)
        self._remembering = self._loop.call_later(REMEMBER_S, self._remember)


def _packed(text: str) -> bytes:
    return ip_address(text).packed


def number_of(kind: str) -> int:
    """`A`, `TYPE65` (RFC 3597 §5). Raises ValueError."""
    text = kind.upper()
    if text.startswith("TYPE") and text[4:].isdigit():
        return int(text[4:])
    try:
        return int(QTYPE.reverse[text])
    except KeyError:
        raise ValueError(f"{kind} is no type of record") from None


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
