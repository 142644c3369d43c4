# cython: boundscheck=False, wraparound=False
"""UDP in user space: a flow per pair of endpoints, a mapping per source endpoint and exit.

Outward, in the order a datagram meets them: `datagram` (a known flow: one look-up, one send, a super-datagram
goes on with UDP_SEGMENT), `open` (a new flow: rules, or hold and sniff), `Mapping.send`.
Inward: `Mapping.on_event` receives straight behind the room for the headers (merged by UDP_GRO), `answer` writes
the headers before it, and one write carries all of it to the TUN.

A mapping is endpoint-independent (RFC 4787 §4.1): one socket for all targets of a source address and port, and
whoever writes to it is delivered. Flows that were never answered are the first to go when there are too many.
"""

from __future__ import annotations

import struct
from typing import Any

import cython

from nat.craft import UdpTemplate
from nat.exit import Route
from nat.flow import Flow, Source, State
from nat.gateway import Gateway
from nat.loop import Loop
from nat.settings import Settings
from nat.sockets import sockaddr
from nat.tally import Tally

if cython.compiled:
    from cython.cimports.cpython.bytes import PyBytes_FromStringAndSize

__all__ = ["MAX_DATAGRAM", "ROOM", "Udp", "UdpFlow"]

MAX_DATAGRAM = 65_535  # bytes of payload that one receive may bring, merged
VNET = 10  # bytes of virtio_net_hdr
ROOM = VNET + 40 + 8  # before the payload: virtio_net_hdr, IPv6, UDP
NEEDS_CSUM = 1
GSO_UDP_L4 = 5
DNS_PORT = 53

virtio = struct.Struct("=BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset


class UdpFlow(Flow):
    """One source endpoint talking to one target."""

    __slots__ = ("answered", "by_name", "header", "hop_limit", "key", "mapping", "sockaddr", "template")

    key: bytes
    mapping: Any
    sockaddr: tuple[str, int]
    template: UdpTemplate | None  # of the answers
    hop_limit: int  # of the last datagram from the application
    answered: bool
    by_name: bool
    header: bytes  # what a relay wants before each payload

    def settle(self) -> None:
        """Let go of the mapping."""
        super().settle()
        self.mapping = None
        self.template = None


@cython.cclass
class Udp:
    """All UDP of one gateway."""

    gateway: Gateway
    loop: Any
    raw: bytearray
    view: cython.uchar[::1]
    memory: Any
    header: cython.int
    flows = cython.declare(dict, visibility="readonly")
    limit: cython.Py_ssize_t
    one_way: Any
    steady: Any
    dns: Any
    mappings: Any = cython.declare(object, visibility="readonly")
    chooser: Any = cython.declare(object, visibility="public")
    tally: Any
    room: bytearray
    room_view: Any
    segments_in: cython.bint  # the TUN takes super-datagrams

    def __init__(
        self,
        loop: Loop,
        gateway: Gateway,
        settings: Settings,
        tally: Tally,
        offloads: bool,
    ) -> None:
        self.gateway = gateway
        self.loop = loop
        self.raw = gateway.raw
        self.view = gateway.raw
        self.memory = memoryview(gateway.raw)
        self.header = gateway.header
        self.flows = {}
        self.limit = settings.udp_flows
        self.one_way = loop.expiry(settings.udp_idle_s, self.remove)
        self.steady = loop.expiry(settings.udp_idle_s, self.remove)
        self.dns = loop.expiry(settings.dns_idle_s, self.remove)
        self.tally = tally
        self.chooser = None
        self.mappings = None
        self.room = bytearray(ROOM + MAX_DATAGRAM + 64)
        self.room_view = memoryview(self.room)
        self.segments_in = offloads

    def attach(self, mappings: Any) -> None:
        """The part that opens sockets."""
        self.mappings = mappings

    def receive_room(self) -> memoryview:
        """The buffer that answers are received into, the payload at `ROOM`."""
        return self.room_view

    # --- outward

    def datagram(self, at: cython.Py_ssize_t, length: cython.Py_ssize_t, source: Any = None) -> bool:
        """The gateway's buffer holds a UDP packet without options or fragments: send it on, if its flow is known.

        `source`: whose it is, if it did not come from this host.
        """
        view = self.view
        start: cython.Py_ssize_t
        size: cython.Py_ssize_t
        hop_limit: cython.int
        if view[at] >> 4 == 4:
            start, size, hop_limit = at + 12, 12, view[at + 8]
        else:
            start, size, hop_limit = at + 8, 36, view[at + 7]
        if cython.compiled:
            key = PyBytes_FromStringAndSize(cython.cast(cython.p_char, cython.address(view[start])), size)
        else:
            key = bytes(self.memory[start : start + size])
        flow = self.flows.get(key)
        if flow is None or flow.source is not (self.gateway if source is None else source):
            return False
        payload: cython.Py_ssize_t = start + size + 4
        end: cython.Py_ssize_t = payload - 8 + ((view[payload - 4] << 8) | view[payload - 3])
        if end > at + length or end < payload:
            return False
        segment: cython.int = 0
        if self.header and view[1] & 0x7F == GSO_UDP_L4:
            segment = view[4] | (view[5] << 8)
        flow.touched = self.loop.now
        flow.up += end - payload
        if flow.hop_limit != hop_limit:
            flow.hop_limit = hop_limit
        flow.mapping.send(flow, self.memory[payload:end], segment)
        return True

    def open(
        self,
        source: Source,
        key: bytes,
        source_address: bytes,
        source_port: int,
        target: bytes,
        target_port: int,
        hop_limit: int,
    ) -> UdpFlow | None:
        """A new flow, without a mapping yet; None when there is no room."""
        if len(self.flows) >= self.limit:
            oldest = self.one_way.oldest() or self.dns.oldest() or self.steady.oldest()
            if oldest is None:
                return None
            oldest.error = "too many flows"
            self.remove(oldest)
        flow = UdpFlow(source, 17, source_address, source_port, target, target_port, self.loop.now)
        flow.key = key
        flow.mapping = None
        flow.hop_limit = hop_limit
        flow.answered = False
        flow.by_name = False
        flow.header = b""
        flow.sockaddr = sockaddr(target, target_port)
        flow.template = UdpTemplate(target, target_port, source_address, source_port)
        self.flows[key] = flow
        self.one_way.add(flow)
        return flow

    def settle(self, flow: UdpFlow, route: Route) -> Any:
        """The route is known: join a mapping of its exit. None, or the refusal of the exit."""
        flow.route = route
        if route.name:
            flow.name = route.name
            flow.known_by = "dns"
        flow.by_name = bool(route.name or (route.by_name and flow.name))
        refusal = self.mappings.join(flow)
        if refusal is None:
            flow.state = State.ESTABLISHED
        return refusal

    def remove(self, flow: UdpFlow) -> None:
        """Forget a flow; its mapping goes with its last one."""
        if self.flows.pop(flow.key, None) is None:
            return
        for queue in (self.one_way, self.steady, self.dns):
            queue.discard(flow)
        if flow.mapping is not None:
            flow.mapping.leave(flow)
        flow.state = State.CLOSED
        flow.ended = self.loop.now
        self.tally.ended(flow)
        flow.settle()

    # --- inward

    def answer(
        self,
        source: Source,
        template: UdpTemplate,
        flow: UdpFlow | None,
        at: cython.Py_ssize_t,
        n: cython.Py_ssize_t,
        segment: cython.Py_ssize_t,
    ) -> None:
        """`room[at:at+n]` is what came back: write its headers before it, and all of it to the source.

        `segment` is the size of the datagrams that the kernel has merged, or 0.
        """
        if flow is not None:
            flow.touched = self.loop.now
            flow.down += n
            if not flow.answered:
                self.first_answer(flow)
        if segment and segment < n and not self.segments_in:
            # Backwards: each header is written over the end of the datagram before.
            starts = list(range(at, at + n, segment))
            pieces = [bytes(self.room_view[start : min(start + segment, at + n)]) for start in starts]
            for piece in pieces:
                self.room[ROOM : ROOM + len(piece)] = piece
                self.answer(source, template, None, ROOM, len(piece), 0)
            return
        partial: cython.bint = self.header != 0
        headers: cython.Py_ssize_t = template.header_length
        start: cython.Py_ssize_t = at - headers
        template.write(self.room, start, n, partial)
        super_datagram: cython.bint = segment != 0 and segment < n
        if self.header:
            start -= VNET
            virtio.pack_into(
                self.room,
                start,
                NEEDS_CSUM,
                GSO_UDP_L4 if super_datagram else 0,
                headers,
                segment if super_datagram else 0,
                headers - 8,
                6,
            )
        source.write([self.room_view[start : at + n]], super_datagram)

    def first_answer(self, flow: UdpFlow) -> None:
        """It is a conversation now: it stays when one-way flows have to go."""
        flow.answered = True
        self.one_way.discard(flow)
        (self.dns if flow.target_port == DNS_PORT else self.steady).add(flow)
