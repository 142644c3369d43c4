"""The packet process, and the only place where all parts are wired: `python -m zignet.node --config FILE`.

    claim the state directory ─► open the TUN ─► addresses ─► probe ─► listeners ─► routes ─► loop ─► all of it back

Started by `zignet up`, which replaces itself by this process, so that nothing of the command line stays in memory.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Container, Generator, Iterator
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nat.engine import Engine
from nat.loop import READ, Handler, Loop
from nat.settings import Settings
from nat.sockets import Underlay
from nat.table import AliasPool
from nat.tun import (
    AddressWatch,
    Applied,
    Offload,
    Plan,
    TunError,
    apply,
    loopback_answers,
    open_tun,
    probe_offload,
    remove,
    sync,
)
from zignet import rights
from zignet.cli.errors import Fault, guarded
from zignet.config import Config, ConfigError, DnsConfig, LimitsConfig, load_config
from zignet.control import DnsReport, Place, handler_for
from zignet.control.process import ControlProcess, command_line
from zignet.control.service import ControlService
from zignet.control.session import Handler as Handling
from zignet.exits import AnyExit, ExitSetupError, build_exits, peers_in_rules
from zignet.report import Report
from zignet.routing import RuleError, Rules, build_rules

if TYPE_CHECKING:
    from zignet.config import OfferConfig
    from zignet.dns.names import Names
    from zignet.exits.guests import GuestExit
    from zignet.identity import PublicKey, SecretKey
    from zignet.offering import Offering
    from zignet.peers import Hub
    from zignet.peers.packets import Terms
    from zignet.transport import Udp

__all__ = ["Node", "main"]

log = logging.getLogger("zignet")

SPARE_DESCRIPTORS = 64
FOR_NAMES = 2048  # queries to name servers, connections of those who ask
NEED_RESTART = (
    *("state_dir", "key_file", "key_log", "cipher", "listen", "tun", "proxy"),
    *("limits", "sniff", "timeouts", "mark", "table"),
)
# Of a super-packet for a peer: with a path MTU of 1420 it makes 45 segments, and so much goes out with one call. With
# 65,536 bytes there were two more, in a call of their own: 15 to 20 % more CPU time per byte.
GSO_SIZE = (
    62_000  # not where packets are forwarded: a larger one that comes from elsewhere would be cut to segments
)
NAMES_JOURNAL = "names.journal"  # of zignet.system.names, which is not loaded to look for it
FORWARDING_JOURNAL = "forwarding.journal"  # of zignet.system.forwarding, likewise
LOOK_AGAIN_S = 0.05  # for a reload that takes a while


class Node:
    """A running ZigNet: one TUN, one engine, one control socket."""

    def __init__(self, config: Config, path: Path | None, most_flows: int) -> None:
        self.config = config
        self._most_flows = most_flows  # what the descriptor limit leaves
        self.path = path
        self.state = "starting"
        self.reload_error = ""
        self._notes: set[str] = set()
        self.ipv6 = True
        self.exits: dict[str, AnyExit] = build_exits(config)
        self.rules: Rules = build_rules(config, self.exits)
        self.loop = Loop()
        self.started = self.loaded = self.loop.now
        self.failure = ""
        self.tun: Any = None
        self.engine: Engine
        self.secret = own_key(config)
        self.address6 = own_address6(config, self.secret)
        self.hub: Hub | None = None  # None: no peers are configured
        self.names: Names | None = None  # None: no `dns` section
        self.control: ControlProcess | None = None  # None: nothing in the configuration needs it
        self.token = ""
        self.underlay = Underlay(config.mark)
        self.forwards = False  # the kernel sends peers' packets on
        self.plan = plan_of(config, self.address6)
        self.offering: Offering | None = None  # None: no peers

    def run(self) -> None:
        """From nothing to a stopped node, and everything back as it was. Raises what went wrong, as a Fault."""
        place = Place.claim(self.config.state_dir)
        try:
            self._with_tun(place)
        finally:
            place.close()

    def _with_tun(self, place: Place) -> None:
        settings = self.config.tun
        underlay = open_underlay(self.config)  # before anything is changed: the port may be taken
        device = "auto" if settings.descriptor is None else f"fd:{settings.descriptor}"
        self.tun = open_tun(device, settings.name, settings.offload)
        self.plan = replace(self.plan, name=self.tun.name)
        given = settings.descriptor is not None
        try:
            if not given:
                self._configure()
            self.forwards = forward(self)
            self.engine = self._engine()
            if self.secret is not None and underlay is not None:
                self.hub = build_hub(self, self.secret, underlay)
            self.names = build_names(self)
            if not given:
                self._probe_listener()
                self._note(apply(self.plan))
            self._serve(place)
        finally:
            stop_forwarding(self.config.state_dir)
            if not given:
                remove(self.plan)
            self.tun.close()
            if underlay is not None:
                underlay.close()

    def _configure(self) -> None:
        """Addresses first, traffic last: no packet of an application meets a half-made engine."""
        applied = apply(replace(self.plan, capture=False))
        self.ipv6 = applied.ipv6
        self._note(applied)
        probe_offload(self.tun)

    def _note(self, applied: Applied) -> None:
        """What the person should know of the set-up, once."""
        for note in applied.notes:
            if note not in self._notes:
                log.info("%s", note)
                self._notes.add(note)

    def _engine(self) -> Engine:
        config = self.config
        aliases = {4: AliasPool(config.tun.aliases.network_address.packed, config.tun.aliases.prefixlen)}
        if self.ipv6:
            network = config.tun.aliases6
            aliases[16] = AliasPool(network.network_address.packed, network.prefixlen)
        engine = Engine(
            self.loop,
            self.tun,
            Underlay(config.mark),
            self.rules,
            aliases,
            replace(settings_of(config), flows=self._most_flows),
            super_datagrams=bool(self.tun.offload & (Offload.USO4 | Offload.USO6)),
        )
        loopback = config.tun.listener == "loopback"
        engine.listen(b"\x7f\x00\x00\x01" if loopback else config.tun.address.packed)
        if self.ipv6:  # no loopback here: there is no route_localnet for IPv6
            try:
                engine.listen(self.address6.packed)
            except OSError as error:
                if config.tun.descriptor is None:
                    raise
                log.info("IPv6 is not carried: %s is not on %s (%s)", self.address6, self.tun.name, error)
                self.ipv6 = False
        engine.gateway.gone = self._gone
        return engine

    def _probe_listener(self) -> None:
        listener = self.engine.listeners[0]
        alias = socket.inet_ntoa(self.config.tun.aliases[1].packed)
        if loopback_answers(self.tun, alias, socket.inet_ntoa(listener.address), listener.port):
            return
        raise Fault(
            f"a test connection through {self.tun.name} to the listener on {socket.inet_ntoa(listener.address)} "
            "got no answer. Something drops packets for 127.0.0.0/8 that come from another interface: Docker, "
            "kube-proxy and some firewalls do. Either allow them (see `zignet doctor`), or set "
            "`tun: {listener: tun}` in the configuration."
        )

    def _serve(self, place: Place) -> None:
        engine, loop = self.engine, self.loop
        handler = handler_for(Report(self), self._names_report)
        service = ControlService(loop, place.listener, handler)
        watch = AddressWatch(self.tun.name)
        if self.config.tun.descriptor is None:
            loop.watch(watch.fileno(), Addresses(watch, self._resync), READ)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: loop.stop())
        signal.signal(signal.SIGHUP, lambda *_: loop.soon(self._hang_up))
        if self.names is not None:
            try:
                self.names.listen()
            except OSError as error:
                raise Fault(str(error.strerror)) from error
        engine.icmp.prepare()
        self.control = build_control(self, handler)
        give_up_rights(self)  # before the first thread
        engine.start()
        if self.hub is not None:
            self.hub.start()
        if self.control is not None:
            self.control.start()
        if self.names is not None and self.config.tun.descriptor is None:
            self.names.lead_here(self.tun.name, socket.if_nametoindex(self.tun.name))
        self.state = "running"
        log.info(
            "ready: %s on %s, %d rules, mode %s",
            self.config.tun.address,
            self.tun.name,
            len(self.rules),
            self.config.proxy.mode,
        )
        notify("READY=1")
        gc.collect()
        gc.freeze()  # what stands now is never garbage: the collector need not look at it again
        gc.set_threshold(50_000, 20, 100)
        loop.run()
        notify("STOPPING=1")
        self.state = "stopping"
        log.info("stopping")
        service.close()
        watch.close()
        if self.control is not None:
            self.control.close()
            if self.config.admin is not None:
                from zignet.admin.listen import remove_admin_socket

                remove_admin_socket(self.config.state_dir)
        if self.hub is not None:
            self.hub.close()
        if self.names is not None:
            self.names.close()
        engine.close()
        loop.dispose()
        if self.failure:
            raise Fault(self.failure)

    # --- while it runs

    def _names_report(self) -> DnsReport | None:
        if self.names is None:
            return None
        from zignet.dns.report import NamesReport

        return NamesReport(self.names)

    def _gone(self, why: str) -> None:
        """The interface was deleted underneath."""
        self.failure = (
            f"the interface {self.tun.name} has gone ({why}): somebody deleted it, or its owner closed it. "
            "ZigNet has stopped and taken its rules back; start it again."
        )
        self.loop.forget(self.tun.fileno())
        self.loop.stop()

    def _resync(self) -> None:
        """The host's own addresses changed; the rules that keep its own traffic out follow, and peers are told."""
        log.info("the host's addresses changed")
        if self.hub is not None:
            self.hub.roam()
        if self.config.proxy.mode != "global":
            return
        threading.Thread(target=quietly, args=(lambda: sync(self.plan),), daemon=True).start()

    def _hang_up(self) -> None:
        notify("RELOADING=1")
        self._go_on(self.reload())

    def _go_on(self, steps: Iterator[None]) -> None:
        for _ in steps:
            self.loop.call_later(LOOK_AGAIN_S, lambda: self._go_on(steps))
            return
        notify("READY=1")

    def reload(self) -> Generator[None, None, str]:
        """Read the configuration again: rules and exits change, live flows stay. Returns the error, or "".

        A thread reads, because a long list takes a second, and because the name of a proxy is resolved through
        this very loop. To be iterated over now and then, until it is done.
        """
        loading = Loading(self.path)
        loading.start()
        while loading.is_alive():
            yield
        if loading.loaded is None:
            self.reload_error = loading.error
            log.error("the configuration was not reloaded, the old one stays in force:\n%s", loading.error)
            return self.reload_error
        config, self.exits, self.rules = loading.loaded
        fixed = [name for name in NEED_RESTART if getattr(config, name) != getattr(self.config, name)]
        if fixed:
            log.warning("reloaded, but for %s: these need a restart", ", ".join(fixed))
        self._warn_of_names(config)
        if config.exit.packets and not self.forwards:
            log.warning("reloaded, but for exit.packets: this needs a restart")
        self.config = replace(
            self.config,
            routes=config.routes,
            exits=config.exits,
            peers=config.peers,
            inbound=config.inbound,
            dns=config.dns,
            exit=config.exit,
            publish=config.publish,
            admin=config.admin,
        )
        if self.offering is not None and self.hub is not None:
            self.offering.configure(config)
            lead_packets(self, self.hub)
        elif config.listening:
            log.warning("peers are configured now: this needs a restart")
        if self.control is not None:
            from zignet.admin.settings import Settings

            self.control.reload(Settings.of(config, self.token).dump())
        elif config.controlled:
            log.warning("inbound.policies or admin are configured now: this needs a restart")
        if self.names is not None:
            self.names.reload(config.dns, self.rules, self.exits)
            lead_flows(self, self.names)
        else:
            self.engine.choose_with(self.rules)
        self.loaded = self.loop.now
        self.reload_error = ""
        log.info("reloaded: %d rules", len(self.rules))
        return ""

    def _warn_of_names(self, config: Config) -> None:
        """What of the `dns` section a reload does not change."""
        old, new = self.config.dns, config.dns
        if (old is None) != (new is None):
            log.warning(
                "reloaded, but names are still %s: this needs a restart",
                "not answered" if old is None else "answered",
            )
        elif old is not None and new is not None:
            for name in ("listen", "fake_range", "fake_range6"):
                if getattr(old, name) != getattr(new, name):
                    log.warning("reloaded, but for dns.%s: this needs a restart", name)


class Loading(threading.Thread):
    """Reads a configuration beside the packet loop: `loaded`, or `error`."""

    def __init__(self, path: Path | None) -> None:
        super().__init__(daemon=True)
        self._path = path
        self.loaded: tuple[Config, dict[str, AnyExit], Rules] | None = None
        self.error = "internal error"

    def run(self) -> None:
        """In the thread."""
        try:
            config = load_config(self._path) if self._path is not None else Config.default()
            config = with_names(config)
            exits = build_exits(config)
            self.loaded = config, exits, build_rules(config, exits)
        except (ConfigError, RuleError, ExitSetupError, OSError) as error:
            self.error = str(error)


class Addresses(Handler):
    """Hears of the host's addresses."""

    def __init__(self, watch: AddressWatch, changed: Callable[[], None]) -> None:
        self._watch = watch
        self._changed = changed

    def on_event(self, mask: int) -> None:
        """Netlink messages wait."""
        if self._watch.drain():
            self._changed()


# Peers cost 15 MiB; a node without them does not load what only they need.


def own_key(config: Config) -> SecretKey | None:
    """This node's key, if it has peers. Raises `KeyFileError`."""
    if not config.listening:
        return None
    from zignet.identity import read_key

    return read_key(config.identity_file)


def own_address6(config: Config, secret: SecretKey | None) -> IPv6Address:
    """This host's IPv6 address on the TUN: its key's, if it has peers."""
    from zignet.identity.address import address6

    return config.tun.address6 if secret is None else address6(config.tun.range6, secret.public.x)


def open_underlay(config: Config) -> Udp | None:
    """The socket that peers are reached by. Raises `Fault`."""
    if not config.listening:
        return None
    from zignet.transport import Udp, UdpError

    (listen,) = config.listening
    try:
        return Udp.open(listen.host, listen.port, config.mark)
    except UdpError as error:
        raise Fault(str(error)) from error


def build_hub(node: Node, secret: SecretKey, underlay: Udp) -> Hub:
    """What talks to peers, wired to the engine's gateway."""
    from zignet.exits.guests import may_dial
    from zignet.noise import Stamps
    from zignet.offering import Offering
    from zignet.peers import Hub, Local, StampFile, Store, device

    config, tun = node.config, node.config.tun
    state = config.state_dir
    stamps = StampFile(state, log.warning)
    hub = Hub(
        node.engine,
        node.tun,
        underlay,
        secret,
        Local(
            address4=tun.address.packed,
            address6=node.address6.packed,
            range6=tun.range6,
            device=device(state, note=log.warning),
            stamps=Stamps(stamps.reserved, stamps.persist),
            cipher=config.cipher,
            key_log=config.key_log,
        ),
        partial(Store, state, tun.range, tun.aliases, note=log.warning),
    )
    hub.packets.is_outside = partial(
        may_dial, private=True, own=own_ranges(config), mine=node.underlay.is_own
    )
    hub.packets.is_own = node.underlay.is_own
    hub.divide_packets(tun.mtu)
    node.offering = Offering(node.loop, hub, state, partial(peers_changed, node, hub))
    node.offering.configure(config)
    lead_packets(node, hub)
    node.engine.gateway.lead_to_peers(hub.sender, tun.range, tun.aliases, lower_half(tun.range6))
    return hub


def build_control(node: Node, handler: Handling) -> ControlProcess | None:
    """The control process, not started, where the configuration needs it. Raises `Fault`."""
    config = node.config
    if not config.controlled:
        return None
    from zignet.admin.listen import admin_listeners
    from zignet.admin.settings import Settings
    from zignet.admin.token import admin_token
    from zignet.control.user import user_of
    from zignet.identity import KeyFileError

    try:
        user = user_of(config.state_dir)
        listeners = []
        if config.admin is not None:
            own = [str(config.tun.address), *([str(node.address6)] if node.ipv6 else [])]
            listeners = admin_listeners(config.state_dir, own if config.admin.http else (), log.warning)
            node.token = admin_token(config.state_dir)
    except (OSError, KeyFileError) as error:
        raise Fault(f"the control process can't be prepared: {error}") from error
    if user.note:
        log.warning("the control process runs as %s: %s", user.name, user.note)
    return ControlProcess(
        node.loop,
        user,
        command_line(),
        handler,
        Settings.of(config, node.token).dump(),
        listeners,
        None if node.hub is None else node.hub.asking,
    )


def give_up_rights(node: Node) -> None:
    """Keep CAP_NET_ADMIN: marked sockets, and addresses, routes and rules, also at the end. And what more is needed."""
    config = node.config
    kept: set[int] = {rights.Cap.NET_ADMIN}
    if node.control is not None:
        kept |= node.control.needs
    if tuple(map(int, os.uname().release.split("-")[0].split(".")[:2])) < (5, 7) and any(
        exit_.interface for exit_ in config.exits.values()
    ):
        kept.add(rights.Cap.NET_RAW)  # SO_BINDTODEVICE needed it then
    others = rights.capabilities() - kept
    places = [config.state_dir, *([node.path] if node.path is not None else [])]
    for place in places:
        if rights.Cap.DAC_OVERRIDE in others and not rights.may_reach(place, others):
            log.info("%s is another user's: the right to go there (CAP_DAC_OVERRIDE) is kept", place)
            kept.add(rights.Cap.DAC_OVERRIDE)
    try:
        rights.keep(kept)
    except OSError as error:
        log.warning("this process keeps more rights than it needs: %s", error)


def with_names(config: Config) -> Config:
    """A rule that names a peer needs fake addresses, without a `dns` section as well."""
    if config.dns is None and peers_in_rules(config):
        return replace(config, dns=DnsConfig(listen=()))
    return config


def put_names_back(state_dir: Path) -> None:
    """What a node that died has left, if this one has nothing to do with names."""
    if not (state_dir / NAMES_JOURNAL).exists():
        return
    from zignet.system.names import DamagedJournalError, NamesError, restore

    try:
        restored = restore(state_dir)
    except (NamesError, DamagedJournalError) as error:
        log.warning("names: %s", error)
    else:
        for line in (*restored.done, *restored.left):
            log.info("names: %s", line)


def build_names(node: Node) -> Names | None:
    """Magic DNS, wired to the engine, where the configuration has it. Raises `Fault`."""
    config = node.config
    if config.dns is None:
        put_names_back(config.state_dir)
        return None
    from zignet.dns.names import Names

    own = [str(config.tun.address), *([str(node.address6)] if node.ipv6 else [])]
    names = Names(node.loop, Underlay(config.mark), config, own)
    names.attach(node.engine, node.hub, node.rules, node.exits)
    lead_flows(node, names)
    return names


def lead_flows(node: Node, names: Names) -> None:
    """Flows to fake addresses go by the rules, and those for a peer's exit to the peer; also at a reload."""
    from zignet.exits.peer import lead

    lead(node.exits.values(), names.fakes)
    chooser = names.chooser(node.rules, node.exits)
    node.engine.choose_with(chooser)
    if node.hub is not None:
        node.hub.lead_names(names.fakes, chooser)


def peers_changed(node: Node, hub: Hub, config: Config) -> None:
    """The hub has other peers, or a list of members others in it."""
    offer_exit(node, hub, config)
    lead_packets(node, hub)
    if node.names is not None:
        node.names.peers_changed()


def offer_exit(node: Node, hub: Hub, config: Config) -> None:
    """What peers may have this host dial; also at a reload."""
    from zignet.config.members import members_of
    from zignet.config.offer import ALL
    from zignet.exits.guests import GuestExit

    allow = config.exit.allow
    if not allow:
        hub.offer_exit(None, lambda key: False)
        hub.offer_packets(None)
        return
    assert node.offering is not None
    keys = members_of(None if allow == ALL else allow, config.peers, node.offering.files.content)
    offer = config.exit
    exit_ = GuestExit(
        private=offer.private,
        ports=frozenset(offer.ports),
        carries_tcp=offer.tcp,
        carries_udp=offer.udp,
        own=own_ranges(node.config),
        mine=node.underlay.is_own,
    )
    limits = node.config.limits
    hub.guests.shares = {  # so that no guest alone can push out the flows of others
        socket.IPPROTO_TCP: max(16, min(node._most_flows // 4, limits.half_open // 2)),
        socket.IPPROTO_UDP: max(16, limits.udp // 4),
    }
    hub.offer_exit(exit_, lambda key: keys is None or key in keys)
    hub.offer_packets(packets_of(offer, exit_, keys) if offer.packets and node.forwards else None)
    if node.engine.dialler.resolver is None and node.config.dns is None:
        resolve_for_peers(node)


def forward(node: Node) -> bool:
    """Have the kernel send peers' packets on, where the configuration says so. Raises `Fault`."""
    config, plan = node.config, node.plan
    stop_forwarding(config.state_dir)  # what a node that was killed has left
    if not (config.exit.packets and config.exit.allow):
        return False
    if config.tun.descriptor is not None:
        log.warning("exit.packets: whoever made the interface has to forward; packets of peers are not taken")
        return False
    from zignet.system.forwarding import ForwardingError, Wanted, begin

    try:
        begin(
            config.state_dir,
            Wanted(plan.name, plan.addresses, plan.peers, plan.fwmark if plan.capture else 0),
        )
    except ForwardingError as error:
        raise Fault(str(error)) from error
    return True


def stop_forwarding(state_dir: Path) -> None:
    """Take it back, if there is anything."""
    if not (state_dir / FORWARDING_JOURNAL).exists():
        return
    from zignet.system.forwarding import ForwardingError, restore

    try:
        lost = restore(state_dir)
    except ForwardingError as error:
        lost = [str(error)]
    for line in lost:
        log.warning("forwarding: %s", line)


def packets_of(offer: OfferConfig, exit_: GuestExit, keys: Container[PublicKey] | None) -> Terms:
    """The same for whole packets."""
    from zignet.peers.packets import Terms

    return Terms(
        may=lambda link: keys is None or link.peer.key in keys,
        may_send=exit_.may,
        ports=frozenset(offer.ports),
        tcp=offer.tcp,
        udp=offer.udp,
    )


def own_ranges(config: Config) -> tuple[IPv4Network | IPv6Network, ...]:
    """What no exit sends anything to: the addresses of ZigNet here."""
    own = config.tun.range, config.tun.range6
    return own if config.dns is None else (*own, config.dns.fake_range, config.dns.fake_range6)


def lead_packets(node: Node, hub: Hub) -> None:
    """Packets that a rule sends as they are go to the peer that it names; also at a reload."""
    exits = node.exits
    hub.lead_packets(node.rules, lambda name: exits[name].key.x)  # type: ignore[union-attr]


def resolve_for_peers(node: Node) -> None:
    """Names by this host's own hosts file and name servers."""
    from zignet.dns.exchange import Exchange
    from zignet.dns.resolver import Resolver
    from zignet.dns.upstreams import Upstreams

    upstreams = Upstreams(own=(str(node.config.tun.address), str(node.address6)), note=log.info)
    node.engine.resolve_with(Resolver(node.loop, Exchange(node.loop, Underlay(node.config.mark), upstreams)))


def lower_half(network: IPv6Network) -> IPv6Network:
    """Where the addresses of keys lie (protocol §1)."""
    return IPv6Network((network.network_address, network.prefixlen + 1))


def plan_of(config: Config, own6: IPv6Address | None = None) -> Plan:
    """What the system is to be told. `own6`: this host's IPv6 address, if it is its key's."""
    tun, dns = config.tun, config.dns
    pools: tuple[tuple[str, str], ...] = ()
    if dns is not None:
        pools = ("dns.fake_range", str(dns.fake_range)), ("dns.fake_range6", str(dns.fake_range6))
    return Plan(
        name=tun.name,
        mtu=tun.mtu,
        addresses=(str(tun.address), str(own6 or tun.address6)),
        aliases=(str(tun.aliases), str(tun.aliases6)),
        routes=tuple(block for _, block in pools),
        ranges=(("tun.range", str(tun.range)), ("tun.range6", str(tun.range6)), *pools),
        peers=(str(tun.range), str(lower_half(tun.range6))) if config.listening else (),
        peer_mtu=tun.route_mtu,
        gso_size=GSO_SIZE if config.listening and not config.exit.packets else 0,
        route_localnet=tun.listener == "loopback",
        capture=config.proxy.mode == "global",
        fwmark=config.mark,
        table=config.table,
        bypass=tuple(str(network) for network in config.proxy.bypass),
    )


def settings_of(config: Config) -> Settings:
    """What the engine is told."""
    return Settings(
        flows=config.limits.flows,
        half_open=config.limits.half_open,
        udp_flows=config.limits.udp,
        sniff_s=config.sniff.timeout_s,
        sniff_bytes=config.sniff.limit,
        server_first=frozenset(config.sniff.server_first),
        dial_s=config.timeouts.dial_s,
        tcp_idle_s=config.timeouts.tcp_idle_s,
        udp_idle_s=config.timeouts.udp_idle_s,
        dns_idle_s=config.timeouts.dns_idle_s,
    )


def notify(message: str) -> None:
    """Tell systemd, where it asked (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(message.encode(), address)
        except OSError as error:
            log.warning("systemd was not told %s: %s", message, error)


def quietly(action: Callable[[], object]) -> None:
    """Run in a thread; a failure is a line in the log."""
    try:
        action()
    except TunError as error:
        log.error("%s", error)


def raise_descriptor_limit(limits: LimitsConfig, names: bool = False) -> int:
    """Two descriptors a TCP flow, at most one a UDP flow, some for queries. Returns how many TCP flows there can be."""
    spare = SPARE_DESCRIPTORS + (FOR_NAMES if names else 0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * limits.flows + limits.udp + spare
    try:  # root may raise the hard limit, up to fs.nr_open
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        most = min(limits.flows, (hard - min(spare, SPARE_DESCRIPTORS + hard // 4)) // 2)
        if most < limits.flows:
            log.info("at most %d flows at once, not %d: the descriptor limit is %d", most, limits.flows, hard)
        return most
    return limits.flows


def main(arguments: list[str] | None = None) -> int:
    """The packet process. Returns an `ExitCode`."""
    parser = argparse.ArgumentParser(prog="zignet up", add_help=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("-v", action="count", default=0)
    parser.add_argument("-q", action="count", default=0)
    options = parser.parse_args(arguments)
    level = logging.WARNING if options.q else logging.DEBUG if options.v else logging.INFO
    logging.basicConfig(level=level, format="zignet: %(message)s", stream=sys.stderr)

    def start() -> None:
        config = load_config(options.config) if options.config is not None else Config.default()
        config = with_names(config)
        signal.signal(
            signal.SIGTERM, signal.default_int_handler
        )  # a stop while starting takes everything back
        Node(config, options.config, raise_descriptor_limit(config.limits, config.dns is not None)).run()

    return guarded(start, lambda: options.v > 0)


if __name__ == "__main__":
    sys.exit(main())
