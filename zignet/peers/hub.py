"""The node's end of all conversations: who knocks, who is let in, when something is due, which path is taken.

    receive ─► handshake | first | moved | control        send ─► wake | stage | nobody        timers ─► due

The packet path calls in when something is not its business. What the state machines (`tunnel`, `path`) answer is
carried out in `_tunnel` and `_paths`, and nowhere else. Nothing that is not authenticated costs memory (protocol §9).
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Network, ip_address
from itertools import islice
from pathlib import Path
from time import thread_time
from typing import TYPE_CHECKING, Any

from nat import craft
from nat.header import TCP_ACK
from nat.loop import READ
from zignet.identity import BadKey, KeyFileError, PublicKey, SecretKey, address6, matches, read_psk
from zignet.noise import (
    AES_IN_HARDWARE,
    COOKIE_SIZE,
    INITIATION_SIZE,
    NO_PSK,
    RESPONSE_SIZE,
    HandshakeError,
    MessageType,
    Responder,
    Stamps,
    Static,
    Suite,
)
from zignet.peers import actions
from zignet.peers.admission import ConfiguredAdmission
from zignet.peers.asking import Asking
from zignet.peers.carried import Carried
from zignet.peers.destinations import Destinations
from zignet.peers.door import Door
from zignet.peers.endpoints import Endpoints
from zignet.peers.gate import Gate
from zignet.peers.guest import Guests
from zignet.peers.hardware import has_aes, proposes_aes
from zignet.peers.key_log import KeyLogFile
from zignet.peers.packets import Packets, Terms
from zignet.peers.path import SEALED, Paths, Probe, Switched
from zignet.peers.peer import Link, Peer
from zignet.peers.rare import Rare
from zignet.peers.receive import Opening, Receiver
from zignet.peers.send import Sealing, Sender
from zignet.peers.services import Desk
from zignet.peers.session import Session
from zignet.peers.store import Seen, Store
from zignet.peers.table import Indices, Table
from zignet.peers.tunnel import REKEY_JITTER, Kit, Tunnel
from zignet.transport import marked
from zignet.wire import (
    Answer,
    BadFrame,
    Challenge,
    Farewell,
    FarewellReason,
    Keepalive,
    Offer,
    Offers,
    Ping,
    Pong,
    Refused,
    keylog,
    offers_frame,
    parse_control,
    parse_offers,
)
from zignet.wire.ecn import DROP, TABLE

if TYPE_CHECKING:
    from nat.engine import Engine
    from nat.exit import Chooser, Exit
    from zignet.config import InboundConfig, PeerConfig
    from zignet.peers.admission import Admission, Decision
    from zignet.peers.services import ServiceRules
    from zignet.routing import Rules
    from zignet.transport import Udp

__all__ = ["Hub", "Local"]

log = logging.getLogger("zignet.peers")

MOST_PENDING = 4_096  # sessions of strangers that are not valid yet (protocol §9)
SEEN_S = 60.0  # how often the store is told who was there
SEEN_AT_ONCE = 32  # in one turn of the loop
SWEEP_S = 5.0  # how late an unfinished frame may be given up
RECHECK_S = 30.0  # how often the policy is asked again, at least
RECHECKED_AT_ONCE = 200  # in one turn of the loop
MOST_PINGS = 64  # of one peer, unanswered
NAMED_PER_S = 10  # newcomers, in the log
CONFIGURED_AT_ONCE = 1_000  # peers: what all would take at once, for a moment, stays with the process


@dataclass(frozen=True, slots=True)
class Local:
    """This node, as its peers see it and as it sees itself."""

    address4: bytes
    address6: bytes
    range6: IPv6Network
    device: bytes
    stamps: Stamps
    cipher: str  # auto | aes | chacha20
    key_log: Path | None


class Hub:
    """All peers of one node."""

    def __init__(
        self,
        engine: Engine,
        tun: Any,
        transport: Udp,
        secret: SecretKey,
        local: Local,
        store: Callable[..., Store],
    ) -> None:
        self.engine = engine
        self.loop = engine.loop
        self.gateway = engine.gateway
        self.transport = transport
        self.local = local
        self.key = secret.public
        self.table = Table()
        self._wanted: Mapping[bytes, object] = {}  # whose addresses are being looked up
        self._remembered_at = 0.0
        self._saving = False  # at the end of this turn
        self._newcomers: list[Peer] = []  # of this turn
        self._named = (0, 0)  # a second, and how many newcomers it has had
        self._live: dict[Link, None] = {}  # the links, in the order of their making
        mark = int.from_bytes(os.urandom(4), "little") | 1
        self.indices = Indices(os.urandom, partial(marked, secret=mark))
        self.store = store(keep=self._is_busy)
        self.dropped: Counter[str] = Counter()
        self.handshakes = 0
        self.aes = proposes_aes(local.cipher)
        static = Static(secret.x)
        self._static = static
        self._kit = Kit(
            static=static,
            key=secret.public.ed,
            device=local.device,
            aes=self.aes,
            features=AES_IN_HARDWARE if local.cipher != "chacha20" and has_aes() else 0,
            stamp=lambda: local.stamps.next(time.time_ns() // 1000),
            jitter=lambda: random.uniform(0.0, REKEY_JITTER),  # noqa: S311 -- spreads retries, keeps no secret
            indices=self.indices,
            halves=self._halves,
        )
        self._ceiling = transport.ceiling  # one object for all paths
        self._rooms: dict[int, int] = {}  # and one for each of the few sizes that there are
        self.gate = Gate(static.public, self.loop, transport, self.dropped)
        self._pending: OrderedDict[int, Link] = (
            OrderedDict()
        )  # strangers by their session's index, oldest first
        self._key_log = KeyLogFile(local.key_log) if local.key_log is not None else None
        self.admission: Admission = ConfiguredAdmission("deny")
        self.asking = Asking(self)
        self._recheck_s = RECHECK_S
        self.endpoints = Endpoints(self.loop, transport)
        raw = self.gateway.raw
        self.sender = Sender(self.loop, raw, self.gateway.header, transport, local.address4, local.address6)
        self.sender.peers = self.table.by_address
        self.sender.hub = self
        self.receiver = Receiver(self.loop, transport, tun, self.indices.openings)
        self.receiver.hub = self
        self.door = Door(self.loop, transport, self.receiver, self.handshake, self.gate.behind, self.dropped)
        self.rare = Rare(engine, self.sender, self.dropped, local.address4, local.address6)
        self.slow, self.clamp, self.slow_exit = self.rare.slow, self.rare.clamp, self.rare.slow_exit
        self.slow_frame, self.closed = self.rare.slow_frame, self.rare.closed
        self.slow_whole, self.refused_whole = self.rare.slow_whole, self.rare.refused_whole
        self._desk = Desk()
        self._offers: Callable[[PublicKey], tuple[Offer, ...]] = lambda key: ()
        self.receiver.gateway = self.gateway
        self.guests = self.rare.guests = Guests(engine, self.sender, self.rare, self.dropped)
        self.destinations: Destinations | None = None
        own = local.address4, local.address6
        packets = Packets(self.sender, self.gateway, own, self.table.by_key.get)
        self.packets = self.rare.packets = self.receiver.packets = packets
        self.way, self.is_answer = packets.way, packets.is_answer
        transport.too_large = self._too_large
        transport.guard(static.public, mark)

    # --- life

    def start(self) -> None:
        """Hear the underlay from now on, and call whoever is to be kept alive."""
        self.loop.watch(self.transport.fileno(), self.receiver, READ)
        self.door.open()
        for peer in self.table:
            if peer.settings is not None and peer.settings.keepalive_s:
                link = self.wake(peer)
                self._tunnel(link, link.tunnel.start(self.loop.now))
        self.loop.call_later(SEEN_S, self._remember)
        self.loop.call_later(self._recheck_s, self._recheck)
        self._sweep()

    def _sweep(self) -> None:
        self.rare.expire()
        if self.destinations is not None:
            self.destinations.books.sweep(self.loop.now)
        self.loop.call_later(SWEEP_S, self._sweep)

    def close(self) -> None:
        """Say farewell to everyone, and erase all keys."""
        self.loop.forget(self.transport.fileno())
        self.door.close()
        for link in self.links():
            self._part(link, FarewellReason.STOPPED)
        for link in self._pending.values():
            link.tunnel.forget()
        self.asking.close()
        self.store.close()
        if self._key_log is not None:
            self._key_log.close()

    def configure(self, peers: Iterable[PeerConfig], inbound: InboundConfig) -> None:
        """Know these peers, and admit by these rules; at a reload, whoever is no longer admitted is told.

        What has not changed since the last call costs a look-up.
        """
        wanted = {config.key.x: config for config in peers}
        if wanted.pop(self.key.x, None) is not None:
            log.warning("a peer or contact with this node's own key is left out")
        self._recheck_s = min(RECHECK_S, inbound.recheck_s)
        self.admission = self.asking.configured(
            ConfiguredAdmission(
                *(inbound.default_action, inbound.allow, inbound.deny, self.table, self.table.knows)
            ),
            inbound.recheck_s if inbound.policies else None,
        )
        fixed = {x: int(one.address) for x, one in wanted.items() if one.address is not None}
        moved = self.store.fix(fixed) if fixed else {}
        changed = {x: one for x, one in wanted.items() if self._settings_of(x) != one or x in moved}
        self._wanted = wanted
        keys = list(changed)
        for at in range(0, len(keys), CONFIGURED_AT_ONCE):
            some = keys[at : at + CONFIGURED_AT_ONCE]
            addresses = self.store.addresses_for(some)
            for x in some:
                if x in addresses:
                    self._configure(changed[x], addresses[x].to_bytes(4, "big"))
                else:
                    log.warning("no address is left in tun.range for the peer %s", changed[x].name)
        self._wanted = {}
        for x, address in moved.items():
            if x in wanted or (peer := self.table.by_key.get(x)) is None:
                continue
            if address is not None:
                self._readdress(peer, address.to_bytes(4, "big"))
            else:  # all are taken: for such a one it is as if it had never come
                if peer.link is not None:
                    self._part(peer.link, FarewellReason.STOPPED)
                self.table.remove(peer)
        for peer in self.table:
            if peer.settings is not None and peer.key.x not in wanted:
                self.table.remove(peer)
                peer.settings = None
                if (link := peer.link) is not None:
                    link.tunnel.psk, link.tunnel.keepalive_s = NO_PSK, 0.0
                    self._locate(link)
                    self.table.add(peer)
        for link in self.links():  # the file may have another content
            if link.peer.settings is not None and link.peer.settings.psk_file is not None:
                link.tunnel.psk = self._psk(link.peer.settings)
        self._recheck_some(iter(self.links()), None)

    def _settings_of(self, x: bytes) -> PeerConfig | None:
        peer = self.table.by_key.get(x)
        return None if peer is None else peer.settings

    def _configure(self, config: PeerConfig, address4: bytes) -> None:
        peer = self.table.by_key.get(config.key.x)
        if peer is None:
            six = address6(self.local.range6, config.key.x).packed
            self.table.add(Peer(config.key, config, address4, six))
            return
        peer.settings = config
        self._readdress(peer, address4)
        if peer.link is not None:
            peer.link.tunnel.keepalive_s = float(config.keepalive_s)
            peer.link.tunnel.psk = self._psk(config)
            self._locate(peer.link)

    def _readdress(self, peer: Peer, address4: bytes) -> None:
        """Another local address."""
        self.table.remove(peer)
        peer.address4 = address4
        self.table.add(peer)
        if peer.link is not None:
            peer.link.between(self.local.address4, self.local.address6)

    def roam(self) -> None:
        """This host's addresses have changed: whoever we talk to shall see it at once, and not when we have data."""
        self.packets.forget()
        for link in self.links():
            self._control(link, Keepalive().encode())

    def links(self) -> list[Link]:
        """Whoever we talk to, or try to."""
        return list(self._live)

    def _is_busy(self, x: bytes) -> bool:
        """Whether the store must not give this key's address to another."""
        peer = self.table.by_key.get(x)
        return x in self._wanted or (
            peer is not None and (peer.settings is not None or peer.link is not None)
        )

    # --- links

    def wake(self, peer: Peer) -> Link:
        """The link of a peer, made if there is none."""
        if peer.link is None:
            peer.link = self._link(peer)
            self._live[peer.link] = None
            self._locate(peer.link)
        return peer.link

    def _link(self, peer: Peer) -> Link:
        settings = peer.settings
        psk = NO_PSK if settings is None else self._psk(settings)
        keepalive_s = 0.0 if settings is None else float(settings.keepalive_s)
        tunnel = Tunnel(self._kit, peer.key.x, psk, keepalive_s)
        link = Link(self, peer, tunnel, Paths((), self._ceiling, os.urandom))
        link.between(self.local.address4, self.local.address6)
        link.services = self._desk.open(peer.key)
        return link

    def _psk(self, settings: PeerConfig) -> bytes:
        if settings.psk_file is None:
            return NO_PSK
        try:
            return read_psk(settings.psk_file)
        except KeyFileError as error:
            log.error("%s: %s", settings.name, error)
            return os.urandom(32)  # no handshake succeeds, rather than one without it

    def _locate(self, link: Link) -> bool:
        """Find out where the configuration says that a peer is. True: its name is being looked up."""
        endpoint = link.peer.settings.endpoint if link.peer.settings is not None else None
        if endpoint is None:
            link.paths.endpoints = ()
            return False
        try:
            address = self.endpoints.numeric(endpoint)
        except ValueError as error:
            self.endpoints.complain(endpoint, error)
            link.paths.endpoints = ()
            return False
        if address is None:
            self.endpoints.ask(endpoint, partial(self._located, link))
            return True
        link.paths.endpoints = (address,)
        return False

    def _located(self, link: Link, address: Any) -> None:
        """The resolver has answered; with None where it could not, and what was known before stays."""
        if address is not None:
            link.paths.endpoints = (address,)
        unsent, link.unsent = link.unsent, None
        if unsent is not None and link.tunnel.is_trying and not self._call(link, *unsent):
            self._unreachable(link)

    def arm(self, link: Link) -> None:
        """Have `due` called when the link's next deadline comes."""
        when = min(link.tunnel.deadline, link.paths.deadline)
        timer = link.timer
        if timer is not None:
            if timer.callback is not None and timer.when <= when:
                return
            timer.cancel()
            link.timer = None
        if when != float("inf"):
            link.timer = self.loop.call_at(when, link)

    def due(self, link: Link) -> None:
        """Something of a link's is due, or was."""
        link.timer = None
        now = self.loop.now
        tunnel = link.tunnel
        if tunnel.deadline <= now:
            self._tunnel(link, tunnel.handle_timer(now))
        if link.paths.deadline <= now:
            if tunnel.before_send(now):
                self._paths(link, link.paths.handle_timer(now, tunnel.used_at, tunnel.received_at))
            else:
                self._silent(link)
        if tunnel.is_idle and link.waiting is None:
            self._forget(link)
        else:
            self.arm(link)

    # --- what the state machines say

    def _tunnel(self, link: Link, todo: list[actions.Action]) -> None:
        for action in todo:
            match action:
                case actions.Initiate(message, attempt):
                    self._initiate(link, message, attempt)
                case actions.Respond(message, origin):
                    self.transport.send(memoryview(message), 0, origin)
                case actions.Prepared(session):
                    self._enrol(session, None)
                case actions.Confirmed(session):
                    self._enrol(session, link)
                    self._usable(link, session)
                case actions.Established(session):
                    self._enrol(session, link)
                    link.rtt_s = time.monotonic() - link.asked_at
                    self._paths(link, link.paths.established(session.origin, self.loop.now))
                    self._usable(link, session)
                case actions.Superseded(sessions, _):
                    log.warning(
                        "%s: another device has taken over this identity; the older one is told",
                        link.peer.name,
                    )
                    for session in sessions:
                        self._farewell(link, session, FarewellReason.OTHER_DEVICE)
                        session.erase()
                case actions.Ended(reason):
                    self._ended(link, reason)
                case actions.Keepalive():
                    self._control(link, Keepalive().encode())
                case actions.Unheard():
                    self._silent(link)
                    self._locate(link)
                case actions.Dead(again):
                    self._dead(link, again)
                case actions.Resumed():
                    if self.destinations is not None:
                        self.destinations.probe(link.peer)
                case actions.GaveUp():
                    self._silent(link)
                    self._unreachable(link)
                case actions.Expired():
                    self._forget(link)
        self.arm(link)

    def _initiate(self, link: Link, message: bytes, attempt: int) -> None:
        decision = self.admission.admit(link.peer.key, self.loop.now)
        if decision.pending:
            self.asking.ask(link.peer.key)  # it was let in before, and may be again
        elif not decision.allowed:
            self._unreachable(link)  # a session would let it in
            return
        asked = attempt > 0 and self._locate(link)  # nobody has answered: a name may have another address now
        if self._call(link, message, attempt):
            return
        if asked or self._locate(link):
            link.unsent = (message, attempt)
        elif link.is_lost:
            self._unreachable(link)  # nobody knows where it is: it must come to us

    def _call(self, link: Link, message: bytes, attempt: int) -> bool:
        """Send an initiation. False: nobody knows where to."""
        address = link.paths.for_handshake(attempt)
        if address is None:
            return False
        link.asked_at = time.monotonic()
        self.transport.send(memoryview(message), 0, address)
        return True

    def _enrol(self, session: Session, link: Link | None) -> None:
        """The packet path opens messages of this session from now on, for `link` once that is valid."""
        opening = session.opening
        opening.session = session
        opening.peer = link
        opening.until = session.reject_at
        self.indices.openings[session.local_index] = opening

    def _usable(self, link: Link, session: Session) -> None:
        """Send what waits, or the keepalive that confirms the session."""
        self.handshakes += 1
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s: a new session, %s", link.peer.name, session)
        waiting = link.taken()
        self.gateway.feed_reads(waiting)
        if session.initiator and not waiting:  # a probe may be too large to arrive
            self._control(link, Keepalive().encode())
        self._tell(link)

    def _dead(self, link: Link, again: bool) -> None:
        """Whose connections are by this peer's exit is told; what is for the peer itself may wait longer."""
        self._unreachable(link, only_exits=True)
        if self.destinations is not None and not again:
            self.destinations.gone(link.peer)

    def _ended(self, link: Link, reason: int) -> None:
        self._silent(link)
        if self.destinations is not None and link.tunnel.dead:
            self.destinations.probe(link.peer)
        match reason:
            case FarewellReason.OTHER_DEVICE:
                log.warning(
                    "%s: another device with this node's key has connected there, and this one was put off. It will "
                    "connect again when you use it",
                    link.peer.name,
                )
            case FarewellReason.NOT_ADMITTED:
                log.warning("%s does not admit this node any more", link.peer.name)
            case _:
                log.info("%s has said farewell", link.peer.name)

    def _paths(self, link: Link, todo: Iterable[Probe | Switched]) -> None:
        for action in todo:
            match action:
                case Switched(address, before):
                    if before is not None:
                        log.info(
                            "%s: now at %s, before at %s",
                            link.peer.name,
                            self.transport.text(address),
                            self.transport.text(before),
                        )
                    self._path_changed(link)
                case Probe(address, token, number, size):
                    session = link.tunnel.sending
                    if session is not None and link.tunnel.before_send(self.loop.now):
                        padding = max(0, size - SEALED - Challenge.SIZE)
                        frame = Challenge(token, number, padding).encode()
                        self.sender.frames(link, session, [frame], address, False)
        self._path_changed(link)
        self.arm(link)

    def _silent(self, link: Link) -> None:
        """Nothing is known of the path any more."""
        link.paths.silent()
        self._path_changed(link)

    def _path_changed(self, link: Link) -> None:
        link.address = link.paths.address
        room = link.paths.room
        link.room = self._rooms.setdefault(room, room)

    def _too_large(self, address: Any, size: int) -> None:
        """The kernel has refused a datagram: whose path was that? Rare enough to look at all."""
        for link in self.links():
            if link.address == address:
                self.loop.soon(lambda link=link: self._shrink(link, size))  # type: ignore[misc]

    def _shrink(self, link: Link, size: int) -> None:
        self._paths(link, link.paths.too_large(size, self.loop.now))

    def _forget(self, link: Link) -> None:
        """Nothing was heard for so long that the peer counts as gone: only its address stays."""
        self._unreachable(link)
        if link.timer is not None:
            link.timer.cancel()
            link.timer = None
        link.unsent = None
        if link.peer.link is not link:  # a stranger's, that never became valid
            self._sweep_pending()
            return
        self._saw([link])
        self._desk.rest(link.peer.key, link.services)
        self.guests.dismiss(link)
        if link.fragments is not None:
            link.fragments.clear()
        link.peer.link = None
        del self._live[link]
        if link.peer.settings is None:
            self.table.remove(link.peer)

    def _part(self, link: Link, reason: FarewellReason) -> None:
        """End a conversation from our side."""
        now = self.loop.now
        for session in link.tunnel.valid(now):
            self._farewell(link, session, reason)
        link.tunnel.forget()
        self._forget(link)

    def _farewell(self, link: Link, session: Session, reason: FarewellReason) -> None:
        if link.address is not None:
            self.sender.frames(link, session, [Farewell(reason).encode()], link.address, False)

    # --- from the sender

    def nobody(self, at: int, length: int) -> None:
        """A packet for an address that is no peer's, and no destination's yet."""
        if self.gateway.is_name(at, length):
            self.first_packet(at, length)
        else:
            self.rare.nobody(at, length)

    def foreign(self, at: int, length: int) -> None:
        """A packet for such an address, but not from this host's own: the engine's NAT carries it."""
        self.gateway.slow(at, length)

    def first_packet(self, at: int, length: int) -> None:
        """A packet for an address that stands for a name, which the packet path does not carry by itself."""
        if self.destinations is not None:
            self.destinations.first(at, length)
        else:
            self.gateway.slow(at, length)

    def stage(self, link: Link, packet: bytes) -> None:
        """A packet, as it was read, waits for a session."""
        if not link.wait(packet):
            self.dropped["to peers: too much waits for a handshake"] += 1
        self._tunnel(link, link.tunnel.wanted(self.loop.now))
        if link.is_lost:
            self._unreachable(link)

    def _unreachable(self, link: Link, only_exits: bool = False) -> None:
        """Tell the senders of what waits, or of what waits for the peer's exit."""
        for read in link.taken():
            packet = self.gateway.parsed(read)
            if only_exits and (packet is None or packet.target() not in self.sender.exits):
                link.wait(read)
                continue
            self.dropped["to peers: not reachable"] += 1
            if packet is None:
                continue
            if self.destinations is not None:
                self.destinations.lost(packet)
            if packet.target() in self.sender.exits and packet.tcp_flags & TCP_ACK:
                self.gateway.send(craft.tcp_reset(packet))  # the exit has no more of this connection than we
            else:
                self.gateway.send(craft.unreachable(packet, craft.Unreachable.HOST))

    def _control(self, link: Link, frame: bytes) -> None:
        """Send a control frame on the path in use, if there is a session."""
        session = link.ready(self.loop.now)
        if session is not None:
            self.sender.frames(link, session, [frame], link.address, False)

    # --- exits (protocol §6)

    def lead_names(self, fakes: Any, chooser: Chooser) -> None:
        """Flows to these fake addresses (`zignet.dns.Fakes`) leave by the peers that the chooser says, if any.

        Also to be called at a reload, with the new chooser.
        """
        if self.destinations is None:
            own = self.local.address4, self.local.address6
            self.destinations = Destinations(
                *(self.engine, self.sender, self.rare, own, self.table.by_key.get),
                *(self.wake, self.stage, self.dropped),
            )
            self.rare.destinations = self.receiver.exits = self.destinations.by_number
            self.gateway.lead_names_to_peers(fakes.pool4, fakes.pool6)
        self.destinations.lead(fakes, chooser)

    def carried(self) -> list[Carried]:
        """This host's own flows that leave by peers' exits, past the NAT; the oldest first."""
        return self.destinations.books.flows() if self.destinations is not None else []

    def carried_counts(self) -> tuple[int, int]:
        """How many these are, TCP and UDP."""
        return self.destinations.books.counts() if self.destinations is not None else (0, 0)

    def live_addresses(self) -> list[bytes]:
        """Fake addresses that may have flows."""
        return self.destinations.live() if self.destinations is not None else []

    def offer_exit(self, exit_: Exit | None, may: Callable[[PublicKey], bool]) -> None:
        """From now on these keys may have connections dialled here, by that exit; None: nobody may."""
        self.guests.exit = exit_
        self.guests.may = lambda link: may(link.peer.key)
        for link in self.links():
            self.guests.recheck(link)

    # --- services of this host

    def serve(self, services: ServiceRules | None) -> None:
        """From now on these may be reached by peers; None: all that there are. Live connections are looked at again."""
        self._desk.change(services, (*self.links(), *self._pending.values()))

    def reach(self, key: PublicKey, proto: str, port: int | None) -> tuple[bool, str]:
        """Whether a key, once it is in, may reach a service here (tcp, udp, icmp; None: any port), and a sentence."""
        return self._desk.reach(key, proto, port)

    def tell(self, offers: Callable[[PublicKey], tuple[Offer, ...]]) -> None:
        """From now on these are offered to the owners of keys, who are told."""
        self._offers = offers
        for link in self.links():
            if link.told != offers(link.peer.key):
                self._tell(link)

    def _tell(self, link: Link) -> None:
        offers = self._offers(link.peer.key)
        if offers or link.told:
            link.told = offers
            self._control(link, offers_frame(offers))

    def lead_packets(self, rules: Rules, key_of: Callable[[str], bytes]) -> None:
        """Packets for the networks of these rules leave whole, by the peers that they name; also at a reload."""
        self.packets.lead(rules, key_of)

    def offer_packets(self, terms: Terms | None) -> None:
        """From now on this host sends packets on for peers as this says; None: not at all. Also at a reload."""
        self.packets.offer(terms, self.links())

    def divide_packets(self, mtu: int) -> None:
        """Whole IPv6 packets with more bytes than this go on in fragments."""
        self.packets.mtu = self.receiver.most6 = mtu

    # --- from the receiver

    def ecn(self, inner: int, outer: int) -> int:
        """RFC 6040 figure 4; -1: drop."""
        mark = TABLE[inner << 2 | outer]
        return -1 if mark == DROP else mark

    def first(self, session: Session, address: Any) -> None:
        """The first message of a session that stood aside: it is valid now."""
        link: Link = session.tunnel.owner
        now = self.loop.now
        self._pending.pop(session.local_index, None)
        decision = self.admission.admit(link.peer.key, now)  # still? It was when the initiation came
        if decision.pending:
            self.asking.ask(link.peer.key)
        if not (decision.allowed or decision.pending) or not (link.peer.address4 or self._welcome(link)):
            link.tunnel.drop_next()
            return
        todo = link.tunnel.opened(session, now, False)
        ended: list[actions.Action] = [action for action in todo if isinstance(action, actions.Superseded)]
        if ended:
            self._tunnel(link, ended)  # on the path as it still is
            todo = [action for action in todo if action not in ended]
        self._paths(link, link.paths.confirmed(session.origin, address, now))
        self._tunnel(link, todo)

    def _welcome(self, link: Link) -> bool:
        """A stranger has become a peer: it gets an address."""
        key = link.peer.key
        known = self.table.by_key.get(key.x)
        if known is not None and known.settings is not None:
            return False  # configured since its initiation came, perhaps with a key of its own: it shall try again
        if known is not None and known.link is not None:  # two handshakes of one stranger: the newest wins
            known.link.tunnel.forget()
            self._forget(known.link)
        address = self.store.give(key.x, key.ed, int(time.time()))
        if address is None:
            self.dropped["no address is left for a new peer"] += 1
            return False
        link.peer.address4 = address.to_bytes(4, "big")
        link.peer.link = link
        self._live[link] = None
        link.between(self.local.address4, self.local.address6)
        self.rare.let_in(link.peer.address4, link.peer.address6)
        self.table.add(link.peer)
        self._newcomers.append(link.peer)
        self._save_soon()
        return True

    def _save_soon(self) -> None:
        """Have all that the store was told in this turn written at its end."""
        if not self._saving:
            self._saving = True
            self.loop.soon(self._save)

    def _save(self) -> None:
        self._saving = False
        self.store.save()
        newcomers, self._newcomers = self._newcomers, []
        second, count = int(self.loop.now), self._named[1]
        if second != self._named[0]:
            if count > NAMED_PER_S:
                log.info("%d more have connected", count - NAMED_PER_S)
            count = 0
        for peer in newcomers[: max(0, NAMED_PER_S - count)]:
            log.info("%s has connected, and is %s here", peer.key.name, ".".join(map(str, peer.address4)))
        self._named = second, count + len(newcomers)

    def moved(self, link: Link, address: Any, size: int) -> None:
        """An authentic datagram came from another address than the path's."""
        self._paths(link, link.paths.heard(address, size, self.loop.now))

    def control(self, link: Link, session: Session, frame: bytes, address: Any, size: int) -> None:
        """A control frame, and the size of the datagram that brought it."""
        try:
            message = parse_control(frame)
        except BadFrame as error:
            self.dropped[f"control: {error}"] += 1
            return
        now = self.loop.now
        match message:
            case Ping(token):
                self._control(link, Pong(token).encode())
            case Pong(token):
                sent = link.pings.pop(token, None) if link.pings is not None else None
                if sent is not None:
                    link.rtt_s = time.monotonic() - sent
            case Challenge(token, path, _):
                sending = link.tunnel.sending
                if sending is not None and link.tunnel.before_send(now):
                    packed = self.transport.packed(address)
                    port = int.from_bytes(packed[16:], "big")
                    answer = Answer(token, path, size, port, packed[:16]).encode()
                    self.sender.frames(link, sending, [answer], address, False)
            case Answer(token, path, brought, _, _):
                self._paths(link, link.paths.answered(token, path, brought, address, now))
            case Refused():
                self.rare.refused(link, message)
            case Offers(body):
                self._offered(link, body)
            case Farewell(reason):
                self._tunnel(link, link.tunnel.receive_farewell(session, reason, now))

    def _offered(self, link: Link, body: bytes) -> None:
        """The peer says which services it offers to us; kept of those whom we know."""
        if link.peer.settings is None:
            return
        try:
            link.offers = parse_offers(body)
        except BadFrame as error:
            self.dropped[f"control: {error}"] += 1

    # --- handshakes

    def handshake(self, datagram: memoryview, address: Any) -> None:
        """A datagram that is not data: cheapest checks first."""
        size = len(datagram)
        kind = datagram[0]
        if kind == MessageType.INITIATION and size == INITIATION_SIZE:
            self._initiation(bytes(datagram), address)
        elif kind == MessageType.RESPONSE and size == RESPONSE_SIZE:
            self._response(bytes(datagram), address)
        elif kind == MessageType.COOKIE and size == COOKIE_SIZE:
            message = bytes(datagram)
            tunnel = self.indices.tunnels.get(int.from_bytes(message[4:8], "little"))
            if tunnel is None or not tunnel.receive_cookie(message, self.loop.now):
                self.dropped["a cookie for nothing"] += 1
        else:
            self.dropped["not a message"] += 1

    @property
    def pending(self) -> int:
        """Sessions of strangers that are not valid yet."""
        return len(self._pending)

    def _initiation(self, message: bytes, address: Any) -> None:
        if not self.gate.passes(message, address):
            return
        self.answer(message, address)

    def answer(self, message: bytes, address: Any) -> None:
        """An initiation that is worth opening."""
        began = thread_time()
        self._answer(message, address)
        self.gate.spent(thread_time() - began)

    def _answer(self, message: bytes, address: Any) -> None:
        now = self.loop.now
        link = None
        try:
            responder = Responder.open(self._static, message)
            link = self._caller(responder, message, address, now)
            if link is None:
                return
            self._tunnel(link, link.tunnel.receive_initiation(responder, address, now))
        except HandshakeError as error:
            self.dropped[f"handshake: {error}"] += 1
            if link is not None and link.tunnel.is_idle:
                self._forget(link)
            return
        if not link.peer.address4:
            self._pend(link)

    def _caller(self, responder: Responder, message: bytes, address: Any, now: float) -> Link | None:
        """Whose initiation this is, if it may come in; it waits where that is not known yet."""
        ed, x = responder.payload.key, responder.remote
        if x == self.key.x or not matches(ed, x):
            self.dropped["handshake: a key that is not its own"] += 1
            return None
        peer = self.table.by_key.get(x)
        try:
            key = PublicKey.from_forms(ed, x) if peer is None else peer.key
        except BadKey:
            self.dropped["handshake: not a key"] += 1
            return None
        decision = self.admission.admit(key, now)
        if decision.pending:
            if peer is None or peer.link is None:
                self.asking.wait(key, message, address)
                return None
            self.asking.ask(key)  # it is here: until there is an answer it stays
        elif not decision.allowed:
            self.not_admitted(key, decision)
            return None
        if peer is not None:
            return self.wake(peer)
        return self._link(Peer(key, None, b"", address6(self.local.range6, key.x).packed))

    def not_admitted(self, key: PublicKey, decision: Decision) -> None:
        """A handshake gets no answer."""
        self.dropped["handshake: not admitted"] += 1
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s was not admitted: %s", key.name, decision.reason)

    def _pend(self, link: Link) -> None:
        """Keep a stranger's session for a while; the oldest make room."""
        session = link.tunnel.next
        assert session is not None
        self._pending[session.local_index] = link
        self._sweep_pending()

    def _sweep_pending(self) -> None:
        """Forget the oldest of them where there are too many, and whatever was given up."""
        while self._pending:
            oldest = next(iter(self._pending.values()))
            if len(self._pending) <= MOST_PENDING and oldest.tunnel.next is not None:
                return
            self._pending.popitem(last=False)
            oldest.tunnel.forget()
            if oldest.timer is not None:
                oldest.timer.cancel()

    def _response(self, message: bytes, address: Any) -> None:
        tunnel = self.indices.tunnels.get(int.from_bytes(message[8:12], "little"))
        if tunnel is None:
            self.dropped["handshake: a response to nothing"] += 1
            return
        if not self.gate.passes(message, address):
            return
        try:
            todo = tunnel.receive_response(message, address, self.loop.now)
        except HandshakeError as error:
            self.dropped[f"handshake: {error}"] += 1
            return
        self._tunnel(tunnel.owner, todo)

    def _halves(
        self, suite: Suite, send: bytearray, receive: bytearray, local_index: int, remote_index: int
    ) -> tuple[Sealing, Opening]:
        if self._key_log is not None:
            tunnel = self.indices.tunnels[local_index]
            key: PublicKey = tunnel.owner.peer.key
            self._key_log.write(
                keylog.format_line(suite, local_index, remote_index, bytes(send), bytes(receive), key.name)
            )
        return Sealing(suite, send, remote_index), Opening(suite, receive, local_index)

    # --- now and then

    def _remember(self) -> None:
        """Tell the store who has been heard since the last time."""
        self._remember_some(
            iter([link for link in self.links() if link.tunnel.received_at >= self._remembered_at])
        )
        self._remembered_at = self.loop.now
        self.loop.call_later(SEEN_S, self._remember)

    def _remember_some(self, links: Iterator[Link]) -> None:
        """A few in each turn: there may be a hundred thousand."""
        some = list(islice(links, SEEN_AT_ONCE))
        if some:
            self._saw(some)
            self.loop.soon(partial(self._remember_some, links))

    def _saw(self, links: Iterable[Link]) -> None:
        wall = time.time() - self.loop.now
        seen = (
            Seen(
                link.peer.key.x,
                link.peer.key.ed if link.peer.settings is not None else None,  # else `_welcome` has told it
                int(wall + link.tunnel.received_at),
                self.transport.text(link.address) if link.address is not None else None,
            )
            for link in links
            if link.tunnel.received_at
        )
        self.store.saw(seen, at_once=False)
        self._save_soon()

    def _recheck(self) -> None:
        """Ask the policy about whoever is here (mission G4)."""
        self.recheck_all()
        self.loop.call_later(self._recheck_s, self._recheck)

    def recheck_all(self) -> None:
        """The same now, a few in each turn."""
        self._recheck_some(iter(self.links()))

    def _recheck_some(self, links: Iterator[Link], most: int | None = RECHECKED_AT_ONCE) -> None:
        some = list(islice(links, most))
        for link in some:
            decision = self.admission.admit(link.peer.key, self.loop.now)
            if decision.pending:
                self.asking.ask(link.peer.key)
            elif not decision.allowed:
                self.turn_out(link, decision)
        if some and most is not None:
            self.loop.soon(partial(self._recheck_some, links))

    def turn_out(self, link: Link, decision: Decision) -> None:
        """Somebody who is here is not admitted any more: all sessions and flows end at once."""
        if link not in self._live:
            return
        if link.tunnel.renewed_at:
            log.info("%s is not admitted any more: %s", link.peer.name, decision.reason)
        address4, address6 = link.peer.address4, link.peer.address6
        self._part(link, FarewellReason.NOT_ADMITTED)
        self.rare.turned_out(address4, address6)

    # --- for people

    def ping(self, link: Link) -> bytes | None:
        """Send a sealed ping; its token, or None where there is no session."""
        if link.ready(self.loop.now) is None:
            return None
        token = os.urandom(8)
        if link.pings is None:
            link.pings = {}
        while len(link.pings) >= MOST_PINGS:
            del link.pings[next(iter(link.pings))]
        link.pings[token] = time.monotonic()
        self._control(link, Ping(token).encode())
        return token

    def is_own(self, text: str) -> bool:
        """Whether a person means this node itself: a key in any form, or a local address of its own."""
        try:
            return ip_address(text).packed in (self.local.address4, self.local.address6)
        except ValueError:
            pass
        try:
            return PublicKey.from_text(text) == self.key
        except BadKey:
            return False

    def connect(self, link: Link) -> None:
        """Make a session, if there is none."""
        if link.ready(self.loop.now) is None:
            self._tunnel(link, link.tunnel.wanted(self.loop.now))
