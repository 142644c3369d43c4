# cython: boundscheck=False, wraparound=False
"""From the TUN to a peer, in the order in which a packet meets it.

 1. `outward`   the gateway hands over a packet whose target lies in ZigNet's range: whose is it, is it ours to send?
                Or a fake address, which stands for a destination by a peer's exit: its packets carry a number
    `whole`     the same for a packet of another network, which a rule may send to a peer with its IP header
 2. `tcp` `udp` the IP header becomes a frame header of 4 bytes; the checksum loses the addresses (protocol §6)
 3. `cut`       a super-packet becomes segments: each header is laid over the tail of the segment before it, in the
                one buffer that the packet was read into
 4. `bundle`    small packets wait until the TUN has been read, and share a datagram (protocol §6)
 5. `append`    frame by frame, sealed, into the buffer of datagrams
 6. `flush`     all of them leave by one call (UDP_SEGMENT)

Whatever is rare (options, fragments, ICMP errors, packets larger than the path) goes by `slow`, in plain Python.
`boundscheck` is off because every length is compared before the bytes are read.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any

import cython

from zignet.noise import Suite, aead
from zignet.peers.ready import gone, made

if cython.compiled:
    from cython.cimports.libc.string import memcpy

__all__ = ["MOST_SEGMENTS", "Sealing", "Sender"]

MOST_SEGMENTS = 64  # of one call: UDP_MAX_SEGMENTS of linux/udp.h
MOST_BYTES = 65_507  # of one call: what an IPv4 UDP datagram holds
MOST_CACHED = 16  # sizes of segments

HEADER: cython.int = 16  # bytes of a data message in front of what it seals (protocol §4)
TAG: cython.int = 16
FRAME: cython.int = 4
SEGMENTS: cython.int = MOST_SEGMENTS
LENGTH: cython.int = 2  # bytes in front of each frame of a bundle
SMALL: cython.Py_ssize_t = 512  # bytes of a frame that shares a datagram with others
LEAST_QUICK: cython.int = 256  # bytes of a piece: smaller ones would need too many views of the buffers
BYTES: cython.int = MOST_BYTES
TCP: cython.int = 6
UDP: cython.int = 17
FRAGMENT: cython.int = 44
ICMP: cython.int = 1
ICMPV6: cython.int = 58
V6: cython.int = 0x01
PARTIAL: cython.int = 0x02
EXIT: cython.int = 0x04
BACK: cython.int = 0x08
WHOLE: cython.int = 4
NUMBER: cython.Py_ssize_t = 4  # bytes, of a destination's number (protocol §6, exit flows)
NEEDS_CSUM: cython.int = 1
FIN_PSH: cython.int = 0x09
FIN_RST: cython.int = 0x05
SYN: cython.int = 0x02
ACK: cython.int = 0x10
SYN_URG: cython.int = 0x22
CWR: cython.int = 0x80
DATA: cython.int = 4
BUNDLE: cython.int = 255

_DATA = struct.Struct("<IIQ")
_LITTLE = struct.Struct("<Q")
_BIG = struct.Struct(">Q")
_SEQUENCE = struct.Struct(">I")


@cython.cclass
class Sealing:
    """The sending half of a session: its key, its counter, the index by which the receiver knows it."""

    encrypt: Any  # None: the cipher must be made first, see `zignet.peers.ready`
    key: Any  # a bytearray of our own; None: erased
    counter = cython.declare(cython.ulonglong, visibility="public")  # of the next message
    index = cython.declare(cython.uint, visibility="readonly")
    big: cython.bint  # AES-GCM: the nonce is big-endian (protocol §4)

    def __init__(self, suite: Suite, key: bytes | bytearray, index: int) -> None:
        self.encrypt = None
        self.key = bytearray(key)
        self.counter = 0
        self.index = index
        self.big = suite == Suite.AES

    def wake(self) -> None:
        """Make the cipher."""
        if self.key is not None:
            self.encrypt = aead(Suite.AES if self.big else Suite.CHACHA, self.key).encrypt_into
            made(self)

    def rest(self) -> None:
        """Let go of the cipher; the key stays."""
        self.encrypt = None

    def erase(self) -> None:
        """Overwrite the key. Idempotent."""
        if self.key is not None:
            self.key[:] = bytes(len(self.key))
        self.key = self.encrypt = None
        gone(self)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def minus(field: cython.uint, delta: cython.uint) -> cython.uint:
    """RFC 1624 equation 3, on a checksum as it stands in a header."""
    total: cython.uint = (~field & 0xFFFF) + delta
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def sum_of(view: cython.uchar[::1], at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.uint:
    """The folded sum of the 16-bit words of an even number of bytes."""
    total: cython.uint = 0
    while at < end:
        total += (view[at] << 8) | view[at + 1]
        at += 2
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


@cython.cclass
class Sender:
    """Seals what the gateway's buffer holds. One per TUN."""

    raw: bytearray  # the gateway's buffer
    view: cython.uchar[::1]
    memory: Any
    header: cython.Py_ssize_t  # bytes of the virtio_net_hdr in front of a packet
    out: bytearray
    out_view: cython.uchar[::1]
    out_memory: Any
    end: cython.Py_ssize_t  # of the datagrams in `out`
    count: cython.int  # of them
    size: cython.Py_ssize_t  # of the first one; all but the last are equal
    sent: cython.Py_ssize_t  # bytes of this packet that have left already
    nonce: bytearray
    nonce_view: cython.uchar[::1]
    frame_cache: dict[Any, list[Any]]
    datagram_cache: dict[int, list[Any]]
    address: Any  # where they go
    ecn: cython.int
    shared: bytearray  # a bundle in the making
    shared_view: cython.uchar[::1]
    shared_memory: Any
    shared_end: cython.Py_ssize_t
    shared_count: cython.int  # frames in it
    shared_ecn: cython.int
    shared_link: Any
    shared_sealing: Sealing | None
    loop: Any
    transport: Any
    peers: Any = cython.declare(object, visibility="public")  # local address -> Peer
    exits: Any = cython.declare(object, visibility="public")  # fake address -> Destination
    ways: Any = cython.declare(
        object, visibility="public"
    )  # target, protocol, port -> Peer for a packet, or None
    # Of the packet that was looked at last
    v6: cython.bint
    simple: cython.bint  # neither options nor a fragment
    protocol: cython.int
    total: cython.Py_ssize_t  # bytes, as its IP header says
    traffic: cython.uint
    hops: cython.uint
    # Of the frames that are being made
    extra: (
        cython.Py_ssize_t
    )  # bytes between frame header and transport header: a number, an IP header, or nothing
    wrapped: cython.bint  # with its IP header
    number: cython.uint
    delta: cython.uint  # RFC 1624: what to add to have the addresses out
    own4: bytes
    own6: bytes
    hub: Any = cython.declare(object, visibility="public")
    dropped: Any = cython.declare(object, visibility="readonly")

    def __init__(
        self, loop: Any, raw: bytearray, header: int, transport: Any, own4: bytes, own6: bytes
    ) -> None:
        self.loop = loop
        self.raw = raw
        self.view = raw
        self.memory = memoryview(raw)
        self.header = header
        self.transport = transport
        self.own4 = own4
        self.own6 = own6
        self.out = bytearray(MOST_BYTES + 2048)
        self.out_view = self.out
        self.out_memory = memoryview(self.out)
        self.end = self.count = self.size = self.sent = 0
        self.address = None
        self.ecn = 0
        self.shared = bytearray(MOST_BYTES)
        self.shared_view = self.shared
        self.shared_memory = memoryview(self.shared)
        self.shared[0] = BUNDLE
        self.shared_end = self.shared_count = self.shared_ecn = 0
        self.shared_link = self.shared_sealing = None
        self.nonce = bytearray(12)
        self.nonce_view = self.nonce
        self.frame_cache = {}
        self.datagram_cache = {}
        self.peers = {}
        self.exits = {}
        self.ways = {}
        self.v6 = self.simple = self.wrapped = False
        self.protocol = self.total = self.traffic = self.hops = 0
        self.extra = self.number = self.delta = 0
        self.dropped = Counter()

    # --- 1. whose is it?

    def outward(self, at: cython.Py_ssize_t, length: cython.Py_ssize_t) -> None:
        """A packet in the gateway's buffer, from `at` on, for some peer, or for a destination by some peer's exit."""
        if not self.look(at, length):
            self.dropped["to peers: truncated"] += 1
            return
        if self.v6:
            key = bytes(self.memory[at + 24 : at + 40])
            mine = bytes(self.memory[at + 8 : at + 24]) == self.own6
        else:
            key = bytes(self.memory[at + 16 : at + 20])
            mine = bytes(self.memory[at + 12 : at + 16]) == self.own4
        peer: Any = self.peers.get(key)
        destination: Any = None
        if peer is None:
            destination = self.exits.get(key)
            if destination is None:
                self.hub.nobody(at, length)
                return
            peer = destination.peer
        if not mine:  # C5: nothing is passed on for somebody else, but for what the peer itself has asked for
            if destination is not None:
                self.hub.foreign(at, length)
            elif self.hub.is_answer(peer, at, self.v6):
                self.carry(peer.link, at, length, BACK, 0, True)
            else:
                self.dropped["to peers: not from this host"] += 1
            return
        link: Any = peer.link
        if destination is not None and (
            (link is not None and link.tunnel.dead) or not self.is_plain(at, length, destination)
        ):
            self.hub.first_packet(at, length)
            return
        if link is None:
            link = self.hub.wake(peer)
        if destination is None:
            self.carry(link, at, length, 0, 0, False)
        else:
            self.book(destination, at, at + length)
            self.carry(link, at, length, EXIT, destination.number, False)

    def whole(self, at: cython.Py_ssize_t, length: cython.Py_ssize_t) -> bool:
        """A packet in the gateway's buffer for an address outside of ZigNet. False: it is not for a peer.

        Fragments are not: they come again when they are put together.
        """
        if not self.look(at, length):
            return False
        view = self.view
        ip: cython.Py_ssize_t = 40 if self.v6 else 20
        if self.v6:
            if self.protocol == FRAGMENT:
                return False
            key = bytes(self.memory[at + 24 : at + 40])
            mine = bytes(self.memory[at + 8 : at + 24]) == self.own6
        else:
            if (view[at + 6] & 0x3F) | view[at + 7]:
                return False
            ip = (view[at] & 0x0F) * 4
            key = bytes(self.memory[at + 16 : at + 20])
            mine = bytes(self.memory[at + 12 : at + 16]) == self.own4
        port: cython.uint = 0
        if self.protocol in (TCP, UDP) and length >= ip + 4:
            port = (view[at + ip + 2] << 8) | view[at + ip + 3]
        key += ((self.protocol << 16) | port).to_bytes(3, "big")
        peer: Any = self.ways.get(key, False)
        if peer is False:
            peer = self.hub.way(key)
        if peer is None:
            return False
        if not mine:  # C5
            self.dropped["to exits: not from this host"] += 1
            return True
        link: Any = peer.link
        if link is None:
            link = self.hub.wake(peer)
        self.carry(link, at, length, 0, 0, True)
        return True

    def exit(self, at: int, length: int, link: Any, number: int, flags: int) -> None:
        """A packet in the gateway's buffer, of the destination with this number, whatever its addresses are.

        `flags`: EXIT, and BACK where it goes to the application's side. `settle` must follow.
        """
        if self.look(at, length):
            self.carry(link, at, length, flags, number, False)

    @cython.cfunc
    def look(self, at: cython.Py_ssize_t, length: cython.Py_ssize_t) -> cython.bint:
        """Read the IP header at `at`. False: there is not all of it."""
        view = self.view
        self.v6 = view[at] >> 4 == 6
        if length < (40 if self.v6 else 20):
            return False
        if self.v6:
            self.protocol = view[at + 6]
            self.total = 40 + ((view[at + 4] << 8) | view[at + 5])
            self.traffic = ((view[at] & 0x0F) << 4) | (view[at + 1] >> 4)
            self.hops = view[at + 7]
            self.simple = True
        else:
            self.protocol = view[at + 9]
            self.total = (view[at + 2] << 8) | view[at + 3]
            self.traffic = view[at + 1]
            self.hops = view[at + 8]
            self.simple = view[at] == 0x45 and ((view[at + 6] & 0x3F) | view[at + 7]) == 0
        return True

    @cython.cfunc
    def is_plain(self, at: cython.Py_ssize_t, length: cython.Py_ssize_t, destination: Any) -> cython.bint:
        """Whether the exit knows what this packet's number means, and the rules have said yes."""
        view = self.view
        l4: cython.Py_ssize_t = at + (40 if self.v6 else 20)
        if not self.simple or at + length < l4 + 8:
            return False
        if self.protocol == TCP:
            return at + length >= l4 + 20 and not view[l4 + 13] & SYN
        if self.protocol != UDP or self.loop.now >= destination.answered_until:
            return False
        return ((view[l4 + 2] << 8) | view[l4 + 3]) in destination.ports

    @cython.cfunc
    def book(self, destination: Any, at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.void:
        """Tell the books of an exit flow (`carried`), once for each packet that was read, of whatever size.

        Not of bare acknowledgements: they tell nothing that the data they are for does not.
        """
        view = self.view
        l4: cython.Py_ssize_t = at + (40 if self.v6 else 20)
        udp: cython.bint = self.protocol == UDP
        payload: cython.Py_ssize_t = end - l4 - (8 if udp else (view[l4 + 12] >> 4) * 4)
        ends: cython.bint = not udp and view[l4 + 13] & FIN_RST != 0
        if payload <= 0 and not ends:
            return
        flows: Any = destination.flows
        if flows is None:
            return
        key: cython.ulonglong = _read32(view, l4)
        key = (key << 2) | (2 if self.v6 else 0) | (1 if udp else 0)
        flow: Any = flows.get(key)
        if flow is None and udp:
            flow = destination.unseen(key, self.loop.now)
        if flow is None:
            return
        flow.touched = self.loop.now
        if payload > 0:
            flow.up += payload
        if ends:
            flow.outward(view[l4 + 13], self.loop.now)

    @cython.cfunc
    def carry(
        self,
        link: Any,
        at: cython.Py_ssize_t,
        length: cython.Py_ssize_t,
        flags: cython.int,
        number: cython.uint,
        whole: cython.bint,
    ) -> cython.void:
        """The packet that was looked at leaves by a link, with a number if it is one of an exit flow, or `whole`."""
        view = self.view
        ip: cython.Py_ssize_t = 40 if self.v6 else 20
        gso: cython.bint = self.header != 0 and view[1] != 0
        if self.total > length or (self.total < length and not gso):
            if self.total < ip or self.total > length:
                self.dropped["to peers: bad length"] += 1
                return
            length = self.total
        traffic: cython.uint = self.traffic
        protocol: cython.int = self.protocol
        ecn: cython.int = self.traffic & 3
        session = link.ready(self.loop.now)
        if session is None:
            self.hub.stage(link, bytes(self.memory[: at + length]))
            return
        self.wrapped = whole
        self.extra = ip if whole else NUMBER if flags else 0
        if self.shared_count and (
            link is not self.shared_link or self.shared_ecn != ecn or gso or length + self.extra > SMALL + 16
        ):
            self.settle()  # it must not be overtaken
        self.begin(link.address, ecn)
        l4: cython.Py_ssize_t = at + ip
        end: cython.Py_ssize_t = at + length
        if not flags and self.simple and link.services is not None:
            self.note(link, l4, end)
        if whole:  # the address of the application's host alone is taken out
            near: cython.Py_ssize_t = at + self.near(flags & BACK != 0)
            self.delta = 0xFFFF - sum_of(view, near, near + (16 if self.v6 else 4))
        elif flags:
            self.number = number
            self.delta = 0xFFFF - sum_of(view, at + (8 if self.v6 else 12), at + ip)
        else:
            self.delta = 0xFFFF - cython.cast(cython.uint, link.in6 if self.v6 else link.in4)
        if self.v6 and not whole:
            flags |= V6
        if whole and self.header < FRAME:
            done: cython.bint = False  # no room in front of the IP header
        elif self.simple and protocol == TCP and end - l4 >= 20:
            done = self.tcp(link, session.sealing, l4, end, flags, traffic, self.hops)
        elif self.simple and protocol == UDP and end - l4 >= 8:
            done = self.udp(link, session.sealing, l4, end, flags, traffic, self.hops)
        elif self.simple and protocol == (ICMPV6 if self.v6 else ICMP) and end - l4 >= 8 and not self.extra:
            done = self.echo(link, session.sealing, l4, end, flags, traffic, self.hops)
        else:
            done = False
        if done:
            self.flush(link, True)
        elif whole:
            self.hub.slow_whole(link, at, length, flags & BACK != 0)
        elif self.extra:
            self.hub.slow_exit(link, at, length, number, flags & BACK != 0)
        else:
            self.hub.slow(link, at, length)

    @cython.cfunc
    def note(self, link: Any, l4: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.void:
        """Its answers may come in, whatever the peer may reach here (`zignet.peers.services`)."""
        view = self.view
        if (self.protocol == TCP and end - l4 >= 20 and view[l4 + 13] & (SYN | ACK) == SYN) or (
            self.protocol == UDP and end - l4 >= 8
        ):
            own: cython.int = (view[l4] << 8) | view[l4 + 1]
            far: cython.int = (view[l4 + 2] << 8) | view[l4 + 3]
            link.services.asks(self.protocol, own, far, self.loop.now)

    @cython.cfunc
    def begin(self, address: Any, ecn: cython.int) -> cython.void:
        """A new packet; whatever a fault of ours has left of the one before is lost."""
        self.address = address
        self.ecn = ecn
        self.end = self.count = self.sent = 0

    # --- 2. from IP header to frame header

    @cython.cfunc
    def tcp(
        self,
        link: Any,
        sealing: Sealing,
        l4: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        flags: cython.int,
        traffic: cython.uint,
        hops: cython.uint,
    ) -> cython.bint:
        """One TCP packet, of whatever size. False: not for this path."""
        view = self.view
        head: cython.Py_ssize_t = (view[l4 + 12] >> 4) * 4
        payload: cython.Py_ssize_t = end - l4 - head
        if head < 20 or payload < 0:
            return False
        room: cython.Py_ssize_t = link.room - FRAME - self.extra - head  # payload bytes of one datagram
        if room < 64:
            return False
        size: cython.Py_ssize_t = payload
        if self.header and view[1]:
            size = view[4] | (view[5] << 8)
            if size == 0:
                return False
        size = min(size, room)
        if payload > size and view[l4 + 13] & SYN_URG:
            return False  # no kernel segments these (RFC 7413, RFC 9293 §3.8.5): the frame is cut
        if view[l4 + 13] & SYN:
            self.hub.clamp(link, l4, end, self.extra, self.header != 0 and view[0] & NEEDS_CSUM != 0)
        self.checksum(l4 + 16, payload > size)
        if (self.header and view[0] & NEEDS_CSUM) or payload > size:
            flags |= PARTIAL
        self.cut(link, sealing, l4, head, payload, size, TCP, flags, traffic, hops)
        return True

    @cython.cfunc
    def udp(
        self,
        link: Any,
        sealing: Sealing,
        l4: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        flags: cython.int,
        traffic: cython.uint,
        hops: cython.uint,
    ) -> cython.bint:
        """One datagram, or a super-datagram of many. False: not for this path."""
        view = self.view
        payload: cython.Py_ssize_t = end - l4 - 8
        size: cython.Py_ssize_t = payload
        if self.header and view[1]:
            size = view[4] | (view[5] << 8)
            if size == 0:
                return False
        if size > link.room - FRAME - self.extra - 8:
            return False  # datagrams are not cut; the frame is
        if self.header and view[0] & NEEDS_CSUM:
            self.checksum(l4 + 6, True)
            flags |= PARTIAL
        elif payload > size:
            return False
        elif view[l4 + 6] | view[l4 + 7]:
            self.checksum(l4 + 6, False)
            if not view[l4 + 6] | view[l4 + 7]:
                view[l4 + 6] = view[l4 + 7] = 0xFF  # RFC 768: a computed zero
        elif self.v6:
            self.dropped["to peers: UDP over IPv6 without a checksum"] += 1
            return True
        self.cut(link, sealing, l4, 8, payload, size, UDP, flags, traffic, hops)
        return True

    @cython.cfunc
    def echo(
        self,
        link: Any,
        sealing: Sealing,
        l4: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        flags: cython.int,
        traffic: cython.uint,
        hops: cython.uint,
    ) -> cython.bint:
        """A ping or its answer. False: not for this path (errors quote addresses)."""
        kind: cython.int = self.view[l4]
        if end - l4 > link.room - FRAME or (self.header and self.view[0] & NEEDS_CSUM):
            return False
        if flags & V6:
            if kind not in {128, 129}:
                return False
            self.checksum(l4 + 2, False)
        elif kind not in {0, 8}:
            return False
        self.cut(link, sealing, l4, 8, end - l4 - 8, end - l4 - 8, ICMP, flags, traffic, hops)
        return True

    @cython.cfunc
    def checksum(self, at: cython.Py_ssize_t, cut: cython.bint) -> cython.void:
        """The checksum at `at` as it would be if both addresses were zero; zero if it is left to the receiver."""
        view = self.view
        value: cython.uint = 0
        if not cut and not (self.header and view[0] & NEEDS_CSUM):
            value = minus((view[at] << 8) | view[at + 1], self.delta)
        view[at] = value >> 8
        view[at + 1] = value & 0xFF

    # --- 3. cut

    @cython.cfunc
    def cut(
        self,
        link: Any,
        sealing: Sealing,
        l4: cython.Py_ssize_t,
        head: cython.Py_ssize_t,
        payload: cython.Py_ssize_t,
        size: cython.Py_ssize_t,
        protocol: cython.int,
        flags: cython.int,
        traffic: cython.uint,
        hops: cython.uint,
    ) -> cython.void:
        """Seal the transport packet at `l4` as frames of at most `size` bytes of payload each."""
        view = self.view
        front: cython.Py_ssize_t = FRAME + self.extra  # bytes before the transport header
        at: cython.Py_ssize_t = l4 - front
        view[at] = WHOLE if self.wrapped else protocol
        view[at + 1] = flags
        view[at + 2] = traffic
        view[at + 3] = hops
        if self.wrapped:
            self.blank(at + FRAME, flags & BACK != 0)
        elif self.extra:
            view[at + 4] = self.number >> 24
            view[at + 5] = (self.number >> 16) & 0xFF
            view[at + 6] = (self.number >> 8) & 0xFF
            view[at + 7] = self.number & 0xFF
        if payload <= size:
            payload += front + head
            if payload <= SMALL:
                self.bundle(link, sealing, at, payload)
                return
            self.append(sealing, self.memory[at : at + payload], payload, None)
            return
        last: cython.uint = 0
        sequence: cython.uint = 0
        if protocol == TCP:
            last = view[l4 + 13]  # FIN and PSH go with the last piece, CWR with the first
            view[l4 + 13] = last & ~FIN_PSH
            sequence = _read32(view, l4 + 4)
        else:
            view[l4 + 4] = (size + 8) >> 8
            view[l4 + 5] = (size + 8) & 0xFF
        whole: cython.Py_ssize_t = front + head
        template: bytes = bytes(self.memory[at : at + whole])
        quick: cython.bint = size >= LEAST_QUICK
        frames: list[Any] = self.frame_slices(at, whole + size, size) if quick else []
        places: list[Any] = self.datagram_slices(HEADER + whole + size + TAG) if quick else []
        piece: cython.Py_ssize_t = size
        number: cython.int = 0
        while True:
            if piece == size and quick:
                self.append(sealing, frames[number], whole + piece, places)
                number += 1
            else:
                self.append(sealing, self.memory[at : at + whole + piece], whole + piece, None)
            payload -= piece
            if payload <= 0:
                return
            at += piece
            piece = size if payload > size else payload
            if cython.compiled:
                memcpy(cython.address(view[at]), cython.cast(cython.p_char, template), whole)
            else:
                self.raw[at : at + whole] = template
            l4 = at + front
            if protocol == TCP:
                sequence = (sequence + size) & 0xFFFFFFFF
                if cython.compiled:
                    view[l4 + 4] = sequence >> 24
                    view[l4 + 5] = (sequence >> 16) & 0xFF
                    view[l4 + 6] = (sequence >> 8) & 0xFF
                    view[l4 + 7] = sequence & 0xFF
                else:
                    _SEQUENCE.pack_into(self.raw, l4 + 4, sequence)
                view[l4 + 13] = (last if payload <= size else last & ~FIN_PSH) & ~CWR
            elif piece != size:
                view[l4 + 4] = (piece + 8) >> 8
                view[l4 + 5] = (piece + 8) & 0xFF

    @cython.cfunc
    def near(self, back: cython.bint) -> cython.Py_ssize_t:
        """Where in the IP header of a whole packet the address of the application's host stands."""
        if self.v6:
            return 24 if back else 8
        return 16 if back else 12

    @cython.cfunc
    def blank(self, ip: cython.Py_ssize_t, back: cython.bint) -> cython.void:
        """What of an IP header the receiver writes anew is zero (protocol §6): so all segments have the same one."""
        view = self.view
        near: cython.Py_ssize_t = ip + self.near(back)
        k: cython.Py_ssize_t
        if self.v6:
            view[ip] = 0x60
            view[ip + 1] &= 0x0F
            view[ip + 4] = view[ip + 5] = view[ip + 7] = 0
        else:
            view[ip + 1] = view[ip + 2] = view[ip + 3] = view[ip + 8] = view[ip + 10] = view[ip + 11] = 0
        for k in range(16 if self.v6 else 4):
            view[near + k] = 0

    @cython.cfunc
    def frame_slices(
        self, at: cython.Py_ssize_t, length: cython.Py_ssize_t, step: cython.Py_ssize_t
    ) -> list[Any]:
        """Views of the gateway's buffer, `step` apart: kept, for a stream asks for the same ones over and over."""
        key = (at, length, step)
        known: list[Any] | None = self.frame_cache.get(key)
        if known is None:
            if len(self.frame_cache) >= MOST_CACHED:
                self.frame_cache.clear()
            last = len(self.raw) - length
            known = self.frame_cache[key] = [
                self.memory[place : place + length] for place in range(at, last + 1, step)
            ]
        return known

    @cython.cfunc
    def datagram_slices(self, size: cython.Py_ssize_t) -> list[Any]:
        """Views of what is sealed in datagrams of one size, likewise."""
        known: list[Any] | None = self.datagram_cache.get(size)
        if known is None:
            if len(self.datagram_cache) >= MOST_CACHED:
                self.datagram_cache.clear()
            known = self.datagram_cache[size] = [
                self.out_memory[place + HEADER : place + size]
                for place in range(0, min(MOST_BYTES, MOST_SEGMENTS * size) - size + 1, size)
            ]
        return known

    # --- 4. bundle

    @cython.cfunc
    def bundle(
        self, link: Any, sealing: Sealing, at: cython.Py_ssize_t, length: cython.Py_ssize_t
    ) -> cython.void:
        """Keep a small frame until `settle`. Others that wait are for the same link, with the same ECN field."""
        if self.shared_count and (
            sealing is not self.shared_sealing or self.shared_end + LENGTH + length > link.room
        ):
            self.settle()
        if self.shared_count == 0:
            self.shared_end = FRAME
            self.shared_link = link
            self.shared_sealing = sealing
            self.shared_ecn = self.ecn
        end: cython.Py_ssize_t = self.shared_end
        view = self.shared_view
        view[end] = length >> 8
        view[end + 1] = length & 0xFF
        end += LENGTH
        if cython.compiled:
            memcpy(cython.address(view[end]), cython.address(self.view[at]), length)
        else:
            self.shared[end : end + length] = self.memory[at : at + length]
        self.shared_end = end + length
        self.shared_count += 1

    def settle(self) -> None:
        """The TUN has been read for now: send what waits. One frame goes as it is."""
        count: cython.int = self.shared_count
        if count == 0:
            return
        link: Any = self.shared_link
        sealing: Sealing | None = self.shared_sealing
        self.shared_count = 0
        self.shared_link = self.shared_sealing = None
        if sealing is None:
            return
        self.begin(link.address, self.shared_ecn)
        start: cython.Py_ssize_t = FRAME + LENGTH if count == 1 else 0
        self.append(sealing, self.shared_memory[start : self.shared_end], self.shared_end - start, None)
        self.flush(link, True)

    # --- 5. seal

    @cython.cfunc
    def append(
        self, sealing: Sealing, frame: Any, length: cython.Py_ssize_t, places: list[Any] | None
    ) -> cython.void:
        """Add a frame to the datagrams, as a data message. `places` are those of datagrams of this one's size."""
        if self.count == SEGMENTS or self.end + length + HEADER + TAG > BYTES:
            self.sent += self.end
            self.leave()
        if sealing.encrypt is None:
            sealing.wake()
        end: cython.Py_ssize_t = self.end
        counter: cython.ulonglong = sealing.counter
        sealing.counter = counter + 1
        start: cython.Py_ssize_t = end + HEADER
        stop: cython.Py_ssize_t = start + length + TAG
        if cython.compiled:
            out = self.out_view
            nonce = self.nonce_view
            index: cython.uint = sealing.index
            k: cython.int
            out[end] = DATA
            out[end + 1] = out[end + 2] = out[end + 3] = 0
            for k in range(4):
                out[end + 4 + k] = (index >> (8 * k)) & 0xFF
            for k in range(8):
                out[end + 8 + k] = (counter >> (8 * k)) & 0xFF
                nonce[4 + k] = (counter >> (8 * (7 - k) if sealing.big else 8 * k)) & 0xFF
        else:
            _DATA.pack_into(self.out, end, DATA, sealing.index, counter)
            (_BIG if sealing.big else _LITTLE).pack_into(self.nonce, 4, counter)
        sealing.encrypt(
            self.nonce, frame, None, self.out_memory[start:stop] if places is None else places[self.count]
        )
        if self.count == 0:
            self.size = stop - end
        self.count += 1
        self.end = stop

    def frames(self, link: Any, session: Any, frames: list[bytes], address: Any, is_data: bool) -> None:
        """Seal frames that were made elsewhere, and send them to an address. All but the last are of one size."""
        self.settle()
        self.begin(address, 0)
        for frame in frames:
            self.append(session.sealing, frame, len(frame), None)
        self.flush(link, is_data)

    # --- 6. flush

    @cython.cfunc
    def flush(self, link: Any, is_data: cython.bint) -> cython.void:
        """Send what is left, and tell the link."""
        total: cython.Py_ssize_t = self.sent + self.end
        self.sent = 0
        if total:
            link.sent(self.loop.now, total, is_data)
            self.leave()

    @cython.cfunc
    def leave(self) -> cython.void:
        """One call for all the datagrams."""
        if self.end:
            self.transport.send(
                self.out_memory[: self.end], self.size if self.count > 1 else 0, self.address, self.ecn
            )
            self.end = self.count = 0


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _read32(view: cython.uchar[::1], at: cython.Py_ssize_t) -> cython.uint:
    high: cython.uint = (view[at] << 8) | view[at + 1]
    return (high << 16) | (view[at + 2] << 8) | view[at + 3]
