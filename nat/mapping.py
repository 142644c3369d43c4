"""Where datagrams leave: one socket per source endpoint and exit, direct or through a relay (SOCKS5)."""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import Sequence
from socket import SocketType
from typing import Any

from nat.craft import UdpTemplate, Unreachable, code_of, icmp_error
from nat.dial import Attempt, Dialler
from nat.exit import Associate, MayDial, Reason, Refusal, StandIn, UdpDirect
from nat.loop import READ, Handler, Loop
from nat.naming import Naming, has_way
from nat.race import Race, permitted
from nat.sockets import AF_INET, Underlay, family_of, literal, sockaddr, text_of
from nat.udp import MAX_DATAGRAM, ROOM, Udp, UdpFlow

__all__ = ["Mapping", "Mappings"]

log = logging.getLogger("zignet.udp")

SOL_UDP = socket.IPPROTO_UDP
UDP_SEGMENT = 103  # linux/udp.h
UDP_GRO = 104
IP_RECVERR = 11  # linux/in.h
IPV6_RECVERR = 25
MSG_ERRQUEUE = 0x2000
ORIGIN_ICMP, ORIGIN_ICMP6 = 2, 3  # linux/errqueue.h, sock_extended_err.ee_origin
extended_error = struct.Struct("=IBBBBII")  # errno, origin, type, code, pad, info, data
control_int = struct.Struct("=i")
control_u16 = struct.Struct("=H")

# Codes of "destination unreachable": ICMP (RFC 792, RFC 1122 §3.2.2.1), ICMPv6 (RFC 4443 §3.1)
UNREACHABLE = {
    Reason.REFUSED: (3, 4),
    Reason.HOST_UNREACHABLE: (1, 3),
    Reason.NET_UNREACHABLE: (0, 0),
    Reason.PROHIBITED: (13, 1),
    Reason.FAILED: (13, 1),
}
RECEIVES_PER_EVENT = 16
CONTROL = socket.CMSG_SPACE(4)
ERROR_CONTROL = 512
STRANGERS = 256  # senders that the source has never written to, remembered per mapping
MAX_SEGMENTS = 64  # UDP_MAX_SEGMENTS of older kernels; newer ones take 128
MAX_SENT = 65_507  # bytes of one sendmsg
WAITING_DATAGRAMS = 32  # until a relay stands
DEFAULT_HOPS = 64
HOPS4 = (int(socket.IPPROTO_IP), int(socket.IP_TTL))
HEADERS_DIFFER = 20  # bytes, of IPv6 and IPv4
HOPS6 = (int(socket.IPPROTO_IPV6), int(socket.IPV6_HOPLIMIT))
RECEIVE_BUFFER = 1 << 20


def packed(host: str) -> bytes:
    """The address that recvmsg names, without its zone."""
    host = host.partition("%")[0]
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


class Mapping(Handler):
    """The outside of one source endpoint, by one exit, in one address family."""

    __slots__ = ("_strangers", "flows", "hops", "key", "may_dial", "owner", "sock", "source")

    def __init__(self, owner: Mappings, key: tuple[Any, ...], first: UdpFlow, sock: SocketType) -> None:
        self.owner = owner
        self.key = key
        self.may_dial: MayDial | None = None
        self.hops = HOPS4 if sock.family == AF_INET else HOPS6
        self.source = first.source
        self.sock = sock
        self.flows: dict[tuple[str, int], UdpFlow] = {}
        self._strangers: dict[tuple[str, int], UdpTemplate] = {}

    def add(self, flow: UdpFlow) -> None:
        """A flow leaves here."""
        self.flows[flow.sockaddr] = flow
        flow.mapping = self

    def leave(self, flow: UdpFlow) -> None:
        """A flow has ended; the last one takes the mapping along."""
        if self.flows.get(flow.sockaddr) is flow:
            del self.flows[flow.sockaddr]
        if not self.flows:
            self.close()

    def close(self) -> None:
        """Close the socket."""
        self.owner.forget(self)
        self.owner.loop.close(self.sock)

    def fail(self, error: str) -> None:
        """The way out is broken: all of its flows end, and the next datagram tries again."""
        for flow in list(self.flows.values()):
            flow.error = error
            self.owner.udp.remove(flow)

    def abort(self) -> None:
        """A fault in this code."""
        self.fail("internal error")

    def send(self, flow: UdpFlow, payload: memoryview, segment: int) -> None:
        """A datagram of the flow, or `payload` of several, each `segment` bytes long."""
        control = []
        if segment:
            control.append((SOL_UDP, UDP_SEGMENT, control_u16.pack(segment)))
        if flow.hop_limit != DEFAULT_HOPS:
            control.append((*self.hops, control_int.pack(flow.hop_limit)))
        for again in (True, False):
            try:
                if control:
                    self.sock.sendmsg((payload,), control, 0, flow.sockaddr)
                else:
                    self.sock.sendto(payload, flow.sockaddr)
            except BlockingIOError:
                self.owner.dropped["udp: the exit takes no more"] += 1
            except OSError as error:
                if error.errno in (errno.EINVAL, errno.EMSGSIZE, errno.EIO) and segment:
                    self.one_by_one(flow, payload, segment)
                elif error.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPROTO):
                    self.read_errors()  # of an earlier datagram, whose error kept this one from being sent
                    if again:
                        continue
                    if error.errno != errno.ECONNREFUSED:
                        self.owner.unreachable(flow, payload, error.errno)
                else:
                    self.owner.dropped[f"udp: {os.strerror(error.errno or 0)}"] += 1
            return

    def one_by_one(self, flow: UdpFlow, payload: memoryview, segment: int) -> None:
        """The way out takes no super-datagrams."""
        for start in range(0, len(payload), segment):
            self.send(flow, payload[start : start + segment], 0)

    def on_event(self, mask: int) -> None:
        """Answers, or errors."""
        if mask & 0x8:  # EPOLLERR
            self.read_errors()
            if not self.flows:
                return
        udp = self.owner.udp
        room = self.owner.room
        for _ in range(RECEIVES_PER_EVENT):
            try:
                n, control, _flags, peer = self.sock.recvmsg_into(room, CONTROL)
            except BlockingIOError:
                return
            except OSError:
                continue  # told by the error queue
            segment = 0
            for level, kind, data in control:
                if level == SOL_UDP and kind == UDP_GRO:
                    segment = control_int.unpack_from(data)[0]
            self.deliver(udp, peer[:2], ROOM, n, segment)
            if not self.flows:  # it has failed meanwhile
                return

    def deliver(self, udp: Udp, peer: tuple[str, int], at: int, n: int, segment: int) -> None:
        """What `peer` sent, to the source; whether the source has written to it before or not."""
        flow = self.flows.get(peer)
        if flow is not None:
            assert flow.template is not None
            udp.answer(self.source, flow.template, flow, at, n, segment)
            return
        template = self._strangers.get(peer)
        if template is None:
            if len(self._strangers) >= STRANGERS:
                self._strangers.clear()
            some = next(iter(self.flows.values()), None)
            if some is None:
                return
            address = packed(peer[0])
            if len(address) != len(some.source_address):
                return  # of the other family than the application, which asked for a name
            template = UdpTemplate(address, peer[1], some.source_address, some.source_port)
            self._strangers[peer] = template
        udp.answer(self.source, template, None, at, n, segment)

    def read_errors(self) -> None:
        """ICMP errors that our datagrams caused: each goes to the application whose datagram it was."""
        for _ in range(RECEIVES_PER_EVENT):
            try:
                data, control, _flags, peer = self.sock.recvmsg(2048, ERROR_CONTROL, MSG_ERRQUEUE)
            except OSError:
                return
            flow = self.flows.get(peer[:2]) if peer else None
            if flow is None:
                continue
            for _level, _kind, error in control:
                if len(error) >= extended_error.size:
                    self.owner.icmp_error(flow, data, error)


class Relayed(Mapping):
    """A mapping behind a relay: each datagram carries its far end's address, and a connection keeps it alive."""

    __slots__ = ("_attempt", "_plan", "_resolved", "_waiting")

    def __init__(
        self, owner: Mappings, key: tuple[Any, ...], first: UdpFlow, sock: SocketType, plan: Associate
    ) -> None:
        super().__init__(owner, key, first, sock)
        self._plan = plan
        self._resolved: dict[tuple[str, int], UdpFlow] = {}
        self._waiting: list[tuple[bytes, bytes]] | None = []
        self._attempt: Attempt | Race | None = owner.dialler.dial(plan.control, self._stood, self._refused)

    def add(self, flow: UdpFlow) -> None:
        """A flow leaves here; its header is made once."""
        assert flow.route is not None
        target = flow.route.target(flow.target, flow.target_port, flow.name or "")
        flow.header = self._plan.encapsulate.header(target)
        super().add(flow)

    def close(self) -> None:
        """Close both connections."""
        super().close()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()

    def send(self, flow: UdpFlow, payload: memoryview, segment: int) -> None:
        """Each datagram gets a header of its own; those of a super-datagram go in as few calls as the kernel allows."""
        step = segment or max(len(payload), 1)
        pieces = [payload[start : start + step] for start in range(0, max(len(payload), 1), step)]
        if self._waiting is None:
            size = len(flow.header) + step
            most = max(1, min(MAX_SEGMENTS, MAX_SENT // size))
            for start in range(0, len(pieces), most):
                self._put(flow.header, pieces[start : start + most], size)
        else:
            room = WAITING_DATAGRAMS - len(self._waiting)
            self._waiting += [(flow.header, bytes(piece)) for piece in pieces[:room]]
            if len(pieces) > room:
                self.owner.dropped["udp: the exit is not there yet"] += len(pieces) - room

    def _put(self, header: bytes, pieces: Sequence[bytes | memoryview], size: int) -> None:
        """Send datagrams of the same flow, of `size` bytes each with the header; the last may be shorter."""
        control = [(SOL_UDP, UDP_SEGMENT, control_u16.pack(size))] if len(pieces) > 1 else []
        try:
            self.sock.sendmsg([part for piece in pieces for part in (header, piece)], control)
        except BlockingIOError:
            self.owner.dropped["udp: the exit takes no more"] += len(pieces)
        except OSError as error:
            if control:  # no UDP_SEGMENT here, or larger than the path takes
                for piece in pieces:
                    self._put(header, [piece], size)
            elif error.errno == errno.ECONNREFUSED:
                self.owner.loop.soon(lambda: self.fail("the exit's relay has closed its port"))
            else:
                self.owner.dropped[f"udp: {os.strerror(error.errno or 0)}"] += 1

    def _stood(self, attempt: Attempt, rest: bytes) -> None:
        handshake: Any = self._plan.control.handshake
        address, port = handshake.relay
        try:
            self.sock.connect(sockaddr(address, port))
        except OSError as error:
            self.fail(f"the exit's relay cannot be reached: {error.strerror}")
            return
        assert attempt.sock is not None
        lifeline = Lifeline(self, attempt.sock)
        self.owner.loop.hand_over(attempt.sock.fileno(), lifeline)
        waiting, self._waiting = self._waiting or [], None
        for header, payload in waiting:
            self._put(header, [payload], 0)
        if attempt.readable:  # its edge has gone by: perhaps the exit has closed already
            lifeline.on_event(READ)

    def _refused(self, reason: Reason, message: str) -> None:
        self._attempt = None
        self.owner.loop.soon(lambda: self.fail(message))

    def deliver(self, udp: Udp, peer: tuple[str, int], at: int, n: int, segment: int) -> None:
        """Unwrap what the relay passes on, datagram by datagram, in order: headers are written over the one before."""
        if segment and segment < n:
            for start in range(at, at + n, segment):
                self.deliver(udp, peer, start, min(segment, at + n - start), 0)
                if not self.flows:
                    return
            return
        parsed = self._plan.encapsulate.parse(self.owner.room_memory[at : at + n])
        if parsed is None:
            self.owner.dropped["udp: malformed datagram from the exit"] += 1
            return
        address, port, offset = parsed
        peer = sockaddr(address, port)
        flow = self.flows.get(peer) or self._named(peer)
        if flow is None and len(address) != len(next(iter(self.flows.values())).target):
            return
        super().deliver(udp, peer if flow is None else flow.sockaddr, at + offset, n - offset, 0)

    def _named(self, peer: tuple[str, int]) -> UdpFlow | None:
        """The flow whose name the exit has resolved to `peer`: its answers come from the address that was asked."""
        flow = self._resolved.get(peer)
        if flow is None or flow.mapping is not self:
            waiting = (
                f for f in self.flows.values() if f.by_name and not f.answered and f.target_port == peer[1]
            )
            flow = next(waiting, None)
            if flow is not None:
                self._resolved[peer] = flow
        return flow

    def read_errors(self) -> None:
        """The relay's port is closed: the association has ended."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.fail(f"the exit's relay: {os.strerror(code)}")


class Lifeline(Handler):
    """The connection that keeps an association (RFC 1928 §7): when it ends, the association does."""

    __slots__ = ("_mapping", "_sock")

    def __init__(self, mapping: Relayed, sock: SocketType) -> None:
        self._mapping = mapping
        self._sock = sock

    def on_event(self, mask: int) -> None:
        """The exit says something (ignored), or goes."""
        for _ in range(4):
            try:
                if self._sock.recv(4096):
                    continue
            except BlockingIOError:
                return
            except OSError:
                pass
            self._mapping.fail("the exit ended the association")
            return


class Mappings:
    """All mappings, by (source, source endpoint, exit, family)."""

    def __init__(self, loop: Loop, udp: Udp, underlay: Underlay, dialler: Dialler, dropped: Any) -> None:
        self.loop = loop
        self.udp = udp
        self.underlay = underlay
        self.dialler = dialler
        self.dropped = dropped
        self.room_memory: memoryview = udp.receive_room()
        self.room = [self.room_memory[ROOM : ROOM + MAX_DATAGRAM]]
        self._by_key: dict[tuple[Any, ...], Mapping] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def join(self, flow: UdpFlow) -> Refusal | None:
        """Give the flow its mapping, a new one if need be; or the reason why it gets none.

        A flow to a name that is resolved here gets a stand-in first, which holds its datagrams.
        """
        assert flow.route is not None
        exit_ = flow.route.exit
        # A relay tells answers apart by the addresses that it has found for names, which nobody here knows: so each
        # name has a relay of its own.
        name = flow.route.name
        key = (flow.source, flow.source_address, flow.source_port, exit_, family_of(flow.target), name)
        mapping = self._by_key.get(key)
        if mapping is None:
            plan = exit_.udp()
            if isinstance(plan, Refusal):
                return plan
            if isinstance(plan, UdpDirect):
                if plan.ports and flow.target_port not in plan.ports:
                    return Refusal(Reason.PROHIBITED, f"port {flow.target_port} is not offered")
                if plan.stand_in is not None:
                    return self._stand_in(flow, plan, plan.stand_in)
                if name:
                    return self._resolve(flow, plan)
                if plan.may_dial is not None and not plan.may_dial(flow.target):
                    return Refusal(Reason.PROHIBITED, "the exit does not send to this address")
            return self._enter(flow, key, plan)
        if mapping.may_dial is not None and not mapping.may_dial(flow.target):
            return Refusal(Reason.PROHIBITED, "the exit does not send to this address")
        mapping.add(flow)
        return None

    def _stand_in(self, flow: UdpFlow, plan: UdpDirect, stand_in: StandIn) -> Refusal | None:
        """The flow's datagrams go to another address, and its answers come from there."""
        assert flow.route is not None
        address = stand_in(flow.route.target(flow.target, flow.target_port, flow.name or ""))
        return address if isinstance(address, Refusal) else self.named(flow, plan, [address])

    def _resolve(self, flow: UdpFlow, plan: UdpDirect) -> Refusal | None:
        assert flow.route is not None
        address = literal(flow.route.name)
        if address is not None:
            allowed = permitted(flow.route.name, [address], plan.may_dial)
            return allowed if isinstance(allowed, Refusal) else self.named(flow, plan, allowed)
        if self.dialler.resolver is None:
            return Refusal(Reason.FAILED, "names are not resolved on this host")
        flow.mapping = naming = Naming(self, flow, plan)
        naming.start(self.dialler.resolver)
        return naming.refusal

    def named(self, flow: UdpFlow, plan: UdpDirect, addresses: list[bytes]) -> Refusal | None:
        """A flow's name has these addresses: it goes to the first that there is a way to."""
        usual = len(flow.target)
        ordered = sorted(addresses, key=lambda address: len(address) != usual)  # the application's own family
        address = next((each for each in ordered if has_way(self.underlay, each, plan.device)), ordered[0])
        flow.sockaddr = sockaddr(address, flow.target_port)
        assert flow.route is not None
        exit_, family = flow.route.exit, family_of(address)
        # A stand-in's is not found by `join`, where the next flow of this source would go to its own target.
        shared = "" if plan.stand_in is None else "stand-ins"
        key = (flow.source, flow.source_address, flow.source_port, exit_, family, shared)
        mapping = self._by_key.get(key)
        if mapping is not None and flow.sockaddr in mapping.flows:
            # Two names at one address: who answers there must be told apart, so this one has a socket of its own.
            key = (*key[:-1], "only " + (flow.route.name or text_of(flow.target)))
        return self._enter(flow, key, plan)

    def _enter(self, flow: UdpFlow, key: tuple[Any, ...], plan: UdpDirect | Associate) -> Refusal | None:
        mapping = self._by_key.get(key)
        if mapping is None:
            family = key[4]
            try:
                mapping = self._made(key, flow, plan, family)
            except OSError as error:
                return Refusal(Reason.FAILED, f"no socket: {error.strerror}")
            mapping.may_dial = plan.may_dial if isinstance(plan, UdpDirect) else None
            self._by_key[key] = mapping
        mapping.add(flow)
        return None

    def _made(self, key: tuple[Any, ...], flow: UdpFlow, plan: UdpDirect | Associate, family: int) -> Mapping:
        if isinstance(plan, Associate):
            sock = self.underlay.udp(family_of(plan.control.address), plan.control.device)
            self._merge(sock)
            mapping: Mapping = Relayed(self, key, flow, sock, plan)
        else:
            sock = self.underlay.udp(family, plan.device)
            level, option = (
                (socket.IPPROTO_IP, IP_RECVERR) if family == AF_INET else (socket.IPPROTO_IPV6, IPV6_RECVERR)
            )
            sock.setsockopt(level, option, 1)
            self._merge(sock)
            mapping = Mapping(self, key, flow, sock)
        self.loop.watch(sock.fileno(), mapping, READ)
        return mapping

    def _merge(self, sock: SocketType) -> None:
        """Receive many datagrams at once."""
        try:
            sock.setsockopt(SOL_UDP, UDP_GRO, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        except OSError:
            pass  # before Linux 5.0: one datagram a receive

    def forget(self, mapping: Mapping) -> None:
        """It has closed."""
        self._by_key.pop(mapping.key, None)

    # --- errors, to the application

    def quoted(self, flow: UdpFlow, payload: bytes | memoryview) -> bytes:
        """The beginning of the packet that the application sent."""
        template = UdpTemplate(flow.source_address, flow.source_port, flow.target, flow.target_port)
        packet = bytearray(template.header_length + len(payload))
        packet[template.header_length :] = payload
        template.write(packet, 0, len(payload), False)
        return bytes(packet[:512])

    def icmp_error(self, flow: UdpFlow, payload: bytes, error: bytes) -> None:
        """Pass on an ICMP error as the sender of the datagram would have got it. `error`: sock_extended_err."""
        _code, origin, kind, code, _pad, info, _data = extended_error.unpack_from(error)
        offender = error[extended_error.size :]
        if origin == ORIGIN_ICMP and len(offender) >= 8:
            source = offender[4:8]
        elif origin == ORIGIN_ICMP6 and len(offender) >= 24:
            source = offender[8:24]
        else:
            return
        if len(source) != len(flow.target):
            self._other_family(flow, payload, (origin, kind, code), info)
            return
        message = icmp_error(kind, code, info, source, flow.source_address, quoted=self.quoted(flow, payload))
        flow.source.send(message)

    def _other_family(self, flow: UdpFlow, payload: bytes, what: tuple[int, int, int], mtu: int) -> None:
        """The name of an IPv6 flow led to an IPv4 address, or the other way round: the error in its own words."""
        origin, kind, _ = what
        if what in ((ORIGIN_ICMP, 3, 3), (ORIGIN_ICMP6, 1, 4)):
            self.refuse(flow, payload, Reason.REFUSED)
        elif what == (ORIGIN_ICMP, 3, 4) or (origin, kind) == (ORIGIN_ICMP6, 2):
            own, code = code_of(Unreachable.FRAGMENTATION_NEEDED, len(flow.target))
            mtu += HEADERS_DIFFER if origin == ORIGIN_ICMP else -HEADERS_DIFFER
            quoted = self.quoted(flow, payload)
            message = icmp_error(own, code, mtu, flow.target, flow.source_address, quoted=quoted)
            flow.source.send(message)
        elif kind == (3 if origin == ORIGIN_ICMP else 1):
            self.refuse(flow, payload, Reason.HOST_UNREACHABLE)

    def refuse(self, flow: UdpFlow, payload: bytes | memoryview, reason: Reason) -> None:
        """The ICMP error that says why a datagram of the flow is not sent; on a time-out there is none."""
        code = UNREACHABLE.get(reason)
        if code is None:
            return
        kind, sub = (3, code[0]) if len(flow.target) == 4 else (1, code[1])
        quoted = self.quoted(flow, payload)
        flow.source.send(icmp_error(kind, sub, 0, flow.target, flow.source_address, quoted=quoted))

    def unreachable(self, flow: UdpFlow, payload: memoryview, code: int) -> None:
        """This host has no route: what the application would have seen at once."""
        network = code == errno.ENETUNREACH
        self.refuse(flow, payload, Reason.NET_UNREACHABLE if network else Reason.HOST_UNREACHABLE)
        flow.error = os.strerror(code)
