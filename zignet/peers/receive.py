# cython: boundscheck=False, wraparound=False
"""From the underlay to the TUN, in the order in which a datagram meets it.

 1. `on_event`  one receive call brings up to 64 datagrams of one sender, side by side (UDP_GRO)
 2. `message`   by type: handshakes leave for the hub; data finds its session by the index
 3. `open`      counter against the window, then the seal. The frame is opened so that its payload lands right behind
                the payload before it: what its headers cover there is saved first, and put back after
 4. `frame`     does it go on where the packet before ended? Then the two are one; else that one leaves first
 5. `leave`     an IP header of our own making, one write to the TUN for all that was joined. What a peer wants to be
                dialled (an exit flow) goes through the gateway's NAT, in its buffer, and never out as it is

Control frames, fragments, ICMP errors and whatever is refused go to the hub, in plain Python.
`boundscheck` is off because every length is compared before the bytes are read.
"""

from __future__ import annotations

import errno
import os
import struct
from collections import Counter
from typing import Any

import cython
from cryptography.exceptions import InvalidTag

from nat.checksum import adjust, adjust_udp, finish, sum16
from zignet.noise import Suite, aead
from zignet.peers.ready import gone, made

if cython.compiled:
    from cython.cimports.cpython.bytearray import PyByteArray_AS_STRING
    from cython.cimports.cpython.bytes import PyBytes_AS_STRING
    from cython.cimports.libc.errno import errno as c_errno
    from cython.cimports.libc.string import memcmp, memcpy, memmove
    from cython.cimports.posix.unistd import write as c_write

__all__ = ["WINDOW", "Opening", "Receiver"]

READS_PER_EVENT = 32
HEADER: cython.int = 16  # bytes of a data message in front of what it seals (protocol §4)
TAG: cython.int = 16
FRAME: cython.int = 4
LEAST: cython.int = HEADER + FRAME + TAG
BASE: cython.int = (
    128  # where the frame of the first datagram is put: room for the headers that we write in front of it
)
MOST_HEAD = 104  # bytes: frame header, an IPv6 header, and the longest TCP header
MOST_PACKET: cython.int = 65_535  # bytes of one write, IP header included
RECEIVE = 65_536  # bytes of one receive call
MOST_CACHED = 16  # sizes of datagrams
LEAST_QUICK: cython.int = 256  # bytes of a piece: smaller ones would need too many views of the buffers
MOST_DATAGRAMS: cython.int = 64  # of one super-datagram: UDP_MAX_SEGMENTS of linux/udp.h
WINDOW = 8_192  # counters, protocol §4
FULL: cython.int = WINDOW
END: cython.ulonglong = 1 << 60  # of counters, protocol §4
SMALL: cython.int = 64  # counters: what a session starts with, most have no more

TCP: cython.int = 6
UDP: cython.int = 17
ICMP: cython.int = 1
ICMPV6: cython.int = 58
V6: cython.int = 0x01
PARTIAL: cython.int = 0x02
EXIT: cython.int = 0x04
BACK: cython.int = 0x08
NAMED: cython.int = 0x10
WHOLE: cython.int = 4
NUMBER: cython.Py_ssize_t = 4  # bytes, of a destination's number (protocol §6, exit flows)
NUMBERS: cython.uint = 1 << 24  # they are below
SYN: cython.int = 0x02
RST: cython.int = 0x04
ACK: cython.int = 0x10
PSH: cython.int = 0x08
FIN_SYN_RST: cython.int = 0x07
DATA: cython.int = 4
BUNDLE: cython.int = 255
LENGTH: cython.Py_ssize_t = 2  # bytes in front of each frame of a bundle
NEEDS_CSUM: cython.int = 1
GSO_TCPV4: cython.int = 1
GSO_TCPV6: cython.int = 4
GSO_UDP_L4: cython.int = 5

_NEVER = float("inf")
_EMPTY = bytearray()  # nobody writes into it
_COUNTER = struct.Struct("<Q")
_NONCE = struct.Struct(">Q")
_DATA = struct.Struct("<IIQ")
_SEQUENCE = struct.Struct(">I")


@cython.cclass
class Opening:
    """The receiving half of a session: its key, the counters that it has seen (RFC 6479), whose it is."""

    decrypt: Any  # None: the cipher must be made first, see `zignet.peers.ready`
    key: Any  # a bytearray of our own; None: erased
    session: Any = cython.declare(object, visibility="public")
    peer: Any = cython.declare(object, visibility="public")  # None until the session is valid
    index = cython.declare(cython.uint, visibility="readonly")
    big: cython.bint  # AES-GCM: the nonce is big-endian (protocol §4)
    until = cython.declare(cython.double, visibility="public")  # REJECT_AFTER_TIME, in monotonic seconds
    next: cython.ulonglong  # one more than the greatest counter seen
    few: cython.ulonglong  # a bit for each of the first SMALL counters, as long as there are no others
    seen: bytearray  # a bit for each counter, by its remainder; empty as long as there are few
    received = cython.declare(cython.ulonglong, visibility="readonly")  # messages

    def __init__(self, suite: Suite, key: bytes | bytearray, index: int) -> None:
        self.decrypt = None
        self.key = bytearray(key)
        self.session = None
        self.peer = None
        self.index = index
        self.big = suite == Suite.AES
        self.until = _NEVER
        self.next = 0
        self.received = 0
        self.few = 0
        self.seen = _EMPTY

    def wake(self) -> None:
        """Make the cipher."""
        if self.key is not None:
            self.decrypt = aead(Suite.AES if self.big else Suite.CHACHA, self.key).decrypt_into
            made(self)

    def rest(self) -> None:
        """Let go of the cipher; the key stays."""
        self.decrypt = None

    def erase(self) -> None:
        """Overwrite the key. Idempotent."""
        if self.key is not None:
            self.key[:] = bytes(len(self.key))
        self.key = self.decrypt = None
        gone(self)

    @property
    def expected(self) -> int:
        """How many messages the counters say that there were."""
        return self.next

    @cython.ccall
    def fresh(self, counter: cython.ulonglong) -> cython.bint:
        """Whether this counter was not seen yet, and is not too old to know."""
        if counter >= self.next:
            return True
        size: cython.ulonglong = len(self.seen) * 8
        if size == 0:
            return not (self.few >> counter) & 1
        if self.next - counter > size:
            return False
        bit: cython.ulonglong = counter % size
        return not self.seen[bit >> 3] & (1 << (bit & 7))

    @cython.ccall
    def mark(self, counter: cython.ulonglong) -> cython.void:
        """Remember a fresh counter, once the seal was found good."""
        self.received += 1
        size: cython.ulonglong = len(self.seen) * 8
        if size == 0:
            if counter < SMALL:
                self.few |= cython.cast(cython.ulonglong, 1) << counter
                self.next = max(self.next, counter + 1)
                return
            self.grow()
            size = FULL
        if counter >= self.next:
            self.forget(counter, size)
            self.next = counter + 1
        bit: cython.ulonglong = counter % size
        self.seen[bit >> 3] |= 1 << (bit & 7)

    @cython.cfunc
    def mark_run(self, count: cython.Py_ssize_t) -> cython.void:
        """Remember the next `count` counters, which came in order."""
        at: cython.ulonglong = self.next
        end: cython.ulonglong = at + count
        if not self.seen:
            self.grow()
        size: cython.ulonglong = FULL
        bit: cython.ulonglong
        while at < end:
            bit = at % size
            if bit & 7 == 0 and end - at >= 8:
                self.seen[bit >> 3] = 0xFF
                at += 8
            else:
                self.seen[bit >> 3] |= 1 << (bit & 7)
                at += 1
        self.next = end
        self.received += count

    @cython.cfunc
    def forget(self, counter: cython.ulonglong, size: cython.ulonglong) -> cython.void:
        """Clear the bits of the counters between the greatest so far and a greater one."""
        bit: cython.ulonglong
        at: cython.ulonglong = self.next
        if counter - at >= size:
            self.seen[:] = bytes(len(self.seen))
            return
        while at < counter:
            bit = at % size
            if bit & 7 == 0 and counter - at >= 8:
                self.seen[bit >> 3] = 0
                at += 8
            else:
                self.seen[bit >> 3] &= ~(1 << (bit & 7)) & 0xFF
                at += 1
        bit = counter % size
        self.seen[bit >> 3] &= ~(1 << (bit & 7)) & 0xFF

    @cython.cfunc
    def grow(self) -> cython.void:
        """From the first few counters to the full window."""
        self.seen = bytearray(FULL // 8)
        k: cython.int
        for k in range(SMALL // 8):
            self.seen[k] = (self.few >> (8 * k)) & 0xFF


@cython.cclass
class Receiver:
    """Opens what the underlay brings and writes it to the TUN. One per underlay socket."""

    loop: Any
    transport: Any
    tun: Any
    fd: cython.int
    header: cython.Py_ssize_t  # bytes of the virtio_net_hdr
    openings: Any  # index -> Opening
    hub: Any = cython.declare(object, visibility="public")
    exits: Any = cython.declare(object, visibility="public")  # number -> Destination
    gateway: Any = cython.declare(object, visibility="public")  # carries the packets of guests
    packets: Any = cython.declare(object, visibility="public")  # judges whole packets; None: there are none
    most6 = cython.declare(
        cython.int, visibility="public"
    )  # bytes of a whole IPv6 packet; larger ones are slow
    dropped: Any = cython.declare(object, visibility="readonly")
    offload: cython.int  # what the TUN takes, TUN_F_*
    join_tcp = cython.declare(cython.bint, visibility="public")
    join_udp = cython.declare(cython.bint, visibility="public")
    sums = cython.declare(cython.bint, visibility="public")  # the TUN takes NEEDS_CSUM
    rx: bytearray
    rx_view: cython.uchar[::1]
    rx_memory: Any
    plain: bytearray
    view: cython.uchar[::1]
    memory: Any
    nonce: bytearray
    nonce_view: cython.uchar[::1]
    saved: bytearray
    saved_view: cython.uchar[::1]
    fresh_head: bytearray
    fresh_view: cython.uchar[::1]
    sealed_cache: dict[int, list[Any]]
    frame_cache: dict[Any, list[Any]]
    # The packet that is being joined: a frame header at BASE, the transport header, `payload` bytes.
    peer: Any  # None: there is none
    kind: cython.int  # its transport protocol
    extra: cython.Py_ssize_t  # bytes in front of the transport header: a number, an IP header, or nothing
    head: cython.Py_ssize_t  # bytes of the transport header
    payload: cython.Py_ssize_t
    size: cython.Py_ssize_t  # payload of the first piece; all but the last are equal
    pieces: cython.int
    sequence: cython.uint  # where the next piece must start
    # What the datagrams of one session add up to, until `settle`
    opening: Opening | None
    bytes_in: cython.Py_ssize_t
    data_in: cython.int
    turn: cython.ulonglong  # of the last event
    many: cython.bint  # whether it brought more than one datagram
    packets_out = cython.declare(cython.ulonglong, visibility="readonly")

    def __init__(self, loop: Any, transport: Any, tun: Any, openings: Any) -> None:
        self.loop = loop
        self.transport = transport
        self.tun = tun
        self.fd = tun.fileno()
        self.header = tun.header
        self.openings = openings
        self.exits = {}
        self.gateway = self.packets = None
        self.most6 = 1500
        self.dropped = Counter()
        self.rx = bytearray(RECEIVE)
        self.rx_view = self.rx
        self.rx_memory = memoryview(self.rx)
        self.plain = bytearray(BASE + 2 * MOST_PACKET + 2048)
        self.view = self.plain
        self.memory = memoryview(self.plain)
        self.nonce = bytearray(12)
        self.nonce_view = self.nonce
        self.saved = bytearray(MOST_HEAD)
        self.saved_view = self.saved
        self.fresh_head = bytearray(MOST_HEAD)
        self.fresh_view = self.fresh_head
        self.sealed_cache = {}
        self.frame_cache = {}
        self.peer = None
        self.opening = None
        self.kind = self.extra = self.head = self.payload = self.size = self.pieces = self.sequence = 0
        self.bytes_in = self.data_in = 0
        self.packets_out = 0
        self.turn = 0
        self.many = False
        self.look_at_offload()

    def look_at_offload(self) -> None:
        """What the TUN takes in super-packets, as it is now."""
        offload = int(self.tun.offload)
        self.sums = self.header != 0 and offload & 0x01 != 0
        self.join_tcp = self.sums and offload & 0x06 == 0x06
        self.join_udp = self.sums and offload & 0x60 == 0x60

    # --- 1. receive

    def on_event(self, mask: int) -> None:
        """Datagrams are waiting."""
        transport = self.transport
        turn: cython.ulonglong = self.loop.turns
        # One that comes alone is not made to wait for a look whether there are more: the loop tells that as well.
        most: cython.int = READS_PER_EVENT if self.many or turn == self.turn + 1 else 1
        self.turn = turn
        count: cython.int = 0
        while count < most:
            got = transport.receive_into(self.rx_memory)
            if got is None:
                break
            count += 1
            total, size, address, ecn = got
            self.datagrams(total, size, address, ecn)
        self.many = count > 1
        self.leave()
        self.settle(None)

    def abort(self) -> None:
        """A fault in this code, with one batch: what was not yet written of it is lost."""
        self.dropped["internal error"] += 1
        self.peer = None
        self.opening = None

    @cython.ccall
    def datagrams(
        self, total: cython.Py_ssize_t, size: cython.Py_ssize_t, address: Any, ecn: cython.int
    ) -> cython.void:
        """`total` bytes of datagrams in the receive buffer, each but the last of `size` bytes (0: there is one)."""
        at: cython.Py_ssize_t = 0
        length: cython.Py_ssize_t
        if size <= 0:
            size = total
        while at < total:
            length = size if total - at > size else total - at
            self.message(at, length, address, ecn)
            at += length
            if self.peer is not None and length == size and ecn == 0:
                at = self.stream(at, total, size, address)

    @cython.cfunc
    def stream(
        self, at: cython.Py_ssize_t, total: cython.Py_ssize_t, size: cython.Py_ssize_t, address: Any
    ) -> cython.Py_ssize_t:
        """The quick way of steps 2 to 4, for as long as one full datagram follows on another; where it ends.

        It differs from the long way in nothing but speed: one comparison of the headers with those expected.
        """
        opening: Opening | None = self.opening
        if opening is None or opening.peer is not self.peer or address != self.peer.address:
            return (
                at  # the last datagram was another peer's, and was dropped: what is joined is not this one's
            )
        rx = self.rx_view
        view = self.view
        nonce_view = self.nonce_view
        plain: cython.Py_ssize_t = size - HEADER - TAG
        covered: cython.Py_ssize_t = FRAME + self.extra + self.head
        piece: cython.Py_ssize_t = plain - covered
        step: cython.uint = piece
        payload: cython.Py_ssize_t = self.payload
        if piece != self.size or payload % piece or piece < LEAST_QUICK:
            return at
        tcp: cython.bint = self.kind == TCP
        field: cython.Py_ssize_t = FRAME + self.extra + 4  # of the sequence number
        most: cython.Py_ssize_t = min((total - at) // size, (MOST_PACKET - 40 - plain - payload) // piece + 1)
        if not tcp:
            most = min(most, MOST_DATAGRAMS - self.pieces)
        buffer: bytearray = self.plain
        expected: bytearray = buffer[BASE : BASE + covered]
        saved: bytearray = self.saved
        sealed: list[Any] = self.sealed_slices(size)
        frames: list[Any] = self.frame_slices(plain, piece)
        if opening.decrypt is None:
            opening.wake()
        decrypt: Any = opening.decrypt
        nonce: bytearray = self.nonce
        received: bytearray = self.rx
        index: cython.uint = opening.index
        counter: cython.ulonglong = opening.next
        number: cython.Py_ssize_t = at // size
        place: cython.Py_ssize_t = payload // piece
        sequence: cython.uint = self.sequence
        put: cython.Py_ssize_t = BASE + payload
        done: cython.Py_ssize_t = 0
        lost: cython.bint = False
        other: cython.bint = False
        k: cython.int
        while done < most:
            if cython.compiled:
                if (
                    _little32(rx, at) != DATA
                    or _little32(rx, at + 4) != index
                    or _little32(rx, at + 8) != counter & 0xFFFFFFFF
                    or _little32(rx, at + 12) != counter >> 32
                ):
                    break
                for k in range(8):
                    nonce_view[4 + k] = (counter >> (8 * (7 - k) if opening.big else 8 * k)) & 0xFF
                memcpy(cython.address(self.saved_view[0]), cython.address(view[put]), covered)
            else:
                if received[at : at + HEADER] != _DATA.pack(DATA, index, counter):
                    break
                (_NONCE if opening.big else _COUNTER).pack_into(nonce, 4, counter)
                saved = buffer[put : put + covered]
            try:
                decrypt(nonce, sealed[number + done], None, frames[place + done])
            except (InvalidTag, TypeError):  # TypeError: the key was erased
                lost = True
                break
            done += 1
            counter += 1
            at += size
            if cython.compiled:
                if tcp:
                    expected[field] = sequence >> 24
                    expected[field + 1] = (sequence >> 16) & 0xFF
                    expected[field + 2] = (sequence >> 8) & 0xFF
                    expected[field + 3] = sequence & 0xFF
                if memcmp(cython.address(view[put]), PyByteArray_AS_STRING(expected), covered) != 0:
                    other = True
                    break
                memcpy(cython.address(view[put]), cython.address(self.saved_view[0]), covered)
            else:
                if tcp:
                    _SEQUENCE.pack_into(expected, field, sequence)
                if buffer[put : put + covered] != expected:
                    other = True
                    break
                buffer[put : put + covered] = saved
            put += piece
            sequence = (sequence + step) & 0xFFFFFFFF
        if not cython.compiled and (lost or other):
            self.saved[:covered] = saved
        if done:
            opening.mark_run(done)
            self.bytes_in += done * size
            self.data_in = 1
        self.payload = put - BASE
        self.pieces += done - 1 if other else done
        self.sequence = sequence
        if lost:
            self.restore(put, covered)
            self.dropped["not authentic"] += 1
            at += size
        elif other:
            self.frame(opening, True, put, covered, plain, 0, address, size)
        return at

    @cython.cfunc
    def sealed_slices(self, size: cython.Py_ssize_t) -> list[Any]:
        """Views of what is sealed in received datagrams of one size."""
        known: list[Any] | None = self.sealed_cache.get(size)
        if known is None:
            if len(self.sealed_cache) >= MOST_CACHED:
                self.sealed_cache.clear()
            known = self.sealed_cache[size] = [
                self.rx_memory[place + HEADER : place + size] for place in range(0, RECEIVE - size + 1, size)
            ]
        return known

    @cython.cfunc
    def frame_slices(self, plain: cython.Py_ssize_t, piece: cython.Py_ssize_t) -> list[Any]:
        """Views of where the frames of one packet are opened, `piece` bytes apart."""
        key = (plain, piece)
        known: list[Any] | None = self.frame_cache.get(key)
        if known is None:
            if len(self.frame_cache) >= MOST_CACHED:
                self.frame_cache.clear()
            known = self.frame_cache[key] = [
                self.memory[place : place + plain] for place in range(BASE, BASE + MOST_PACKET + piece, piece)
            ]
        return known

    # --- 2. by type

    @cython.cfunc
    def message(
        self, at: cython.Py_ssize_t, length: cython.Py_ssize_t, address: Any, ecn: cython.int
    ) -> cython.void:
        """One datagram."""
        rx = self.rx_view
        if rx[at] != DATA:
            self.hub.handshake(self.rx_memory[at : at + length], address)
            return
        if length < LEAST or rx[at + 1] | rx[at + 2] | rx[at + 3]:
            self.dropped["malformed"] += 1
            return
        index: cython.uint = _little32(rx, at + 4)
        if self.opening is None or self.opening.index != index:
            found: Opening | None = self.openings.get(index)
            if found is None:
                self.dropped["no such session"] += 1
                return
            if self.loop.now >= found.until:
                self.dropped["session too old"] += 1
                return
            self.settle(found)
        opening: Opening | None = self.opening
        if opening is None:
            return
        counter: cython.ulonglong = _little32(rx, at + 12)
        counter = (counter << 32) | _little32(rx, at + 8)
        if counter >= END or not opening.fresh(counter):
            self.dropped["replayed or too old"] += 1
            return
        self.open(opening, counter, at, length, address, ecn)

    @cython.cfunc
    def settle(self, opening: Opening | None) -> cython.void:
        """Tell the peer what came of it, before another's turn."""
        before: Opening | None = self.opening
        if before is not None and self.bytes_in and before.peer is not None:
            before.peer.received(self.loop.now, self.bytes_in, self.data_in != 0, before.session)
        self.bytes_in = self.data_in = 0
        self.opening = opening

    # --- 3. open

    @cython.cfunc
    def open(
        self,
        opening: Opening,
        counter: cython.ulonglong,
        at: cython.Py_ssize_t,
        length: cython.Py_ssize_t,
        address: Any,
        ecn: cython.int,
    ) -> cython.void:
        """Open the datagram at `at` behind what is being joined, or at BASE."""
        plain: cython.Py_ssize_t = length - HEADER - TAG
        joining: cython.bint = self.peer is not None
        if joining and (
            self.peer is not opening.peer
            or self.head + self.payload + plain > MOST_PACKET - 40
            or plain <= FRAME + self.extra + self.head
        ):
            self.leave()
            joining = False
        covered: cython.Py_ssize_t = FRAME + self.extra + self.head if joining else 0
        put: cython.Py_ssize_t = BASE
        if joining:
            put += self.payload
            if cython.compiled:
                memcpy(cython.address(self.saved_view[0]), cython.address(self.view[put]), covered)
            else:
                self.saved[:covered] = self.plain[put : put + covered]
        if cython.compiled:
            k: cython.int
            for k in range(8):
                self.nonce_view[4 + k] = (counter >> (8 * (7 - k) if opening.big else 8 * k)) & 0xFF
        else:
            (_NONCE if opening.big else _COUNTER).pack_into(self.nonce, 4, counter)
        if opening.decrypt is None:
            opening.wake()
        try:
            opening.decrypt(
                self.nonce,
                self.rx_memory[at + HEADER : at + length],
                None,
                self.memory[put : put + plain],
            )
        except (InvalidTag, TypeError):  # TypeError: the key was erased in this very batch
            self.restore(put, covered)
            self.dropped["not authentic"] += 1
            return
        opening.mark(counter)
        self.bytes_in += length
        known: cython.bint = opening.peer is not None and address == opening.peer.address
        if not known and not self.notice(opening, address, length):
            return
        self.frame(opening, joining, put, covered, plain, ecn, address, length)

    @cython.cfunc
    def restore(self, put: cython.Py_ssize_t, covered: cython.Py_ssize_t) -> cython.void:
        """Put back what the headers of a frame have covered."""
        if not covered:
            return
        if cython.compiled:
            memcpy(cython.address(self.view[put]), cython.address(self.saved_view[0]), covered)
        else:
            self.plain[put : put + covered] = self.saved[:covered]

    @cython.cfunc
    def notice(self, opening: Opening, address: Any, length: cython.Py_ssize_t) -> cython.bint:
        """The session is not valid yet, or the address is another one. Whether the frame may be looked at."""
        if opening.peer is None:
            # The hub may write (and so may we, through it): what was being joined has left, for its peer differs.
            self.hub.first(opening.session, address)
            if opening.peer is None:
                self.dropped["not admitted"] += 1
                return False
        if address != opening.peer.address:
            self.hub.moved(opening.peer, address, length)
        return True

    # --- 4. join

    @cython.cfunc
    def frame(
        self,
        opening: Opening,
        joining: cython.bint,
        put: cython.Py_ssize_t,
        covered: cython.Py_ssize_t,
        plain: cython.Py_ssize_t,
        ecn: cython.int,
        address: Any,
        length: cython.Py_ssize_t,
    ) -> cython.void:
        """The frame that was opened at `put`: the next piece of what is being joined, or a new packet."""
        view = self.view
        if not self.marked(put, ecn):
            self.restore(put, covered)
            return
        if joining:
            if self.follows(put, covered, plain):
                self.restore(put, covered)
                self.data_in = 1
                piece: cython.Py_ssize_t = plain - covered
                self.payload += piece
                self.pieces += 1
                self.sequence = (self.sequence + cython.cast(cython.uint, piece)) & 0xFFFFFFFF
                if piece < self.size or (self.kind == TCP and view[BASE + FRAME + self.extra + 13] & PSH):
                    self.leave()
                return
            # It does not: the old packet gets its tail back and leaves, and the new one moves to the front.
            if cython.compiled:
                memcpy(cython.address(self.fresh_view[0]), cython.address(view[put]), covered)
            else:
                self.fresh_head[:covered] = self.plain[put : put + covered]
            self.restore(put, covered)
            self.leave()
            if cython.compiled:
                memmove(cython.address(view[BASE]), cython.address(view[put]), plain)
                memcpy(cython.address(view[BASE]), cython.address(self.fresh_view[0]), covered)
            else:
                self.plain[BASE : BASE + plain] = self.plain[put : put + plain]
                self.plain[BASE : BASE + covered] = self.fresh_head[:covered]
        if view[BASE] == BUNDLE and view[BASE + 1] | view[BASE + 2] | view[BASE + 3] == 0:
            self.unbundle(opening, plain, ecn, address, length)
        else:
            self.begin(opening.peer, opening.session, plain, address, length)

    @cython.cfunc
    def marked(self, at: cython.Py_ssize_t, ecn: cython.int) -> cython.bint:
        """Combine the ECN field of the frame at `at` with that of its datagram (RFC 6040). False: it is dropped."""
        view = self.view
        if (ecn or view[at + 2] & 3) and view[at] in (ICMP, WHOLE, TCP, UDP):
            mark: cython.int = self.hub.ecn(view[at + 2] & 3, ecn)
            if mark < 0:
                self.dropped["congestion"] += 1
                return False
            view[at + 2] = (view[at + 2] & 0xFC) | mark
        return True

    @cython.cfunc
    def unbundle(
        self,
        opening: Opening,
        plain: cython.Py_ssize_t,
        ecn: cython.int,
        address: Any,
        length: cython.Py_ssize_t,
    ) -> cython.void:
        """The frames of a bundle at BASE, one after the other. Each moves to BASE itself: what was there has left."""
        view = self.view
        at: cython.Py_ssize_t = BASE + FRAME
        end: cython.Py_ssize_t = BASE + plain
        size: cython.Py_ssize_t
        while at < end:
            size = (view[at] << 8) | view[at + 1] if end - at >= LENGTH else 0
            at += LENGTH
            if size < FRAME or size > end - at or view[at] not in (ICMP, WHOLE, TCP, UDP):
                self.dropped["malformed"] += 1
                return
            if cython.compiled:
                memmove(cython.address(view[BASE]), cython.address(view[at]), size)
            else:
                self.plain[BASE : BASE + size] = self.plain[at : at + size]
            at += size
            if self.marked(BASE, ecn):
                self.begin(opening.peer, opening.session, size, address, length)
                self.leave()

    @cython.cfunc
    def follows(
        self, put: cython.Py_ssize_t, covered: cython.Py_ssize_t, plain: cython.Py_ssize_t
    ) -> cython.bint:
        """Whether the frame at `put` goes on where the joined packet ends (as the kernel's GRO decides)."""
        view = self.view
        piece: cython.Py_ssize_t = plain - covered
        front: cython.Py_ssize_t = FRAME + self.extra
        at: cython.Py_ssize_t = put + front
        base: cython.Py_ssize_t = BASE + front
        if piece > self.size or not _same(view, BASE, put, front):
            return False
        if self.kind == UDP:
            length: cython.Py_ssize_t = (view[at + 4] << 8) | view[at + 5]
            return self.pieces < MOST_DATAGRAMS and _same(view, base, at, 4) and length == piece + 8
        flags: cython.int = view[at + 13]
        if flags & ~PSH != ACK or _read32(view, at + 4) != self.sequence:
            return False
        if not (
            _same(view, base, at, 4)  # ports
            and _same(view, base + 8, at + 8, 5)  # acknowledgement, length of the header
            and _same(view, base + 14, at + 14, 2)  # window
            and _same(view, base + 18, at + 18, self.head - 18)  # urgent pointer, options
        ):
            return False
        if flags & PSH:
            view[base + 13] |= PSH
        return True

    @cython.cfunc
    def begin(
        self,
        peer: Any,
        session: Any,
        plain: cython.Py_ssize_t,
        address: Any,
        length: cython.Py_ssize_t,
    ) -> cython.void:
        """A frame of `plain` bytes at BASE that follows nothing."""
        view = self.view
        protocol: cython.int = view[BASE]
        flags: cython.int = view[BASE + 1]
        extra: cython.Py_ssize_t = NUMBER if flags & ~(V6 | PARTIAL | BACK) == EXIT else 0
        if extra:
            flags &= V6 | PARTIAL
        elif protocol == WHOLE:
            extra = self.plain_header(plain)
            if extra:
                protocol = view[BASE + FRAME + (6 if extra == 40 else 9)]
                flags &= PARTIAL
        at: cython.Py_ssize_t = BASE + FRAME + extra
        inside: cython.Py_ssize_t = plain - FRAME - extra
        if protocol == 0:
            self.hub.control(peer, session, bytes(self.memory[BASE : BASE + plain]), address, length)
            return
        self.data_in = 1
        if protocol == TCP and inside >= 20 and flags & ~(V6 | PARTIAL) == 0:
            self.head = (view[at + 12] >> 4) * 4
            if self.head < 20 or self.head > inside:
                self.dropped["malformed"] += 1
                return
        elif protocol == UDP and inside >= 8 and flags & ~(V6 | PARTIAL) == 0:
            self.head = 8
            said: cython.Py_ssize_t = (view[at + 4] << 8) | view[at + 5]
            if said < inside and not flags & PARTIAL:  # something lies behind the datagram (RFC 9868)
                self.hub.slow_frame(peer, session, bytes(self.memory[BASE : BASE + plain]))
                return
            if said != inside:
                self.dropped["malformed"] += 1
                return
        elif (
            protocol == ICMP
            and inside >= 8
            and not extra
            and ((flags == 0 and view[at] in (0, 8)) or (flags == V6 and view[at] in (128, 129)))
        ):
            self.head = 8
        else:
            self.hub.slow_frame(peer, session, bytes(self.memory[BASE : BASE + plain]))
            return
        self.peer = peer
        self.kind = protocol
        self.extra = extra
        self.payload = self.size = inside - self.head
        self.pieces = 1
        if protocol == TCP:
            self.sequence = (_read32(view, at + 4) + cython.cast(cython.uint, self.size)) & 0xFFFFFFFF
            joinable: cython.bint = self.join_tcp and view[at + 13] == ACK
        else:
            joinable = protocol == UDP and self.join_udp
        if not (joinable and flags & PARTIAL and self.size > 0):
            self.leave()

    # --- 5. leave

    @cython.cfunc
    def leave(self) -> cython.void:
        """Write what was joined to the TUN, if there is anything."""
        peer = self.peer
        if peer is None:
            return
        self.peer = None
        view = self.view
        frame: cython.Py_ssize_t = BASE
        if view[frame] == WHOLE:
            self.leave_whole(peer)
            return
        protocol: cython.int = view[frame]
        flags: cython.int = view[frame + 1]
        traffic: cython.uint = view[frame + 2]
        hops: cython.uint = view[frame + 3]
        v6: cython.bint = flags & V6
        l4: cython.Py_ssize_t = frame + FRAME + self.extra
        total: cython.Py_ssize_t = self.head + self.payload
        super_packet: cython.bint = self.pieces > 1
        ip: cython.Py_ssize_t
        if protocol == ICMP:
            self.echo(peer, l4, total, v6, traffic, hops)
            return
        number: cython.uint = 0
        guest: Any = None
        source: Any = peer
        if self.extra:
            number = _read32(view, frame + FRAME)
            if flags & BACK:
                source = self.origin(peer, number, protocol, l4)
            else:
                guest = source = self.guest_of(peer, number, l4 + total)
            if source is None:
                return
        elif peer.services is not None and self.closed(peer, protocol, l4):
            return
        ip = l4 - (40 if v6 else 20)
        addresses: cython.uint = source.in6 if v6 else source.in4
        if guest is not None:
            addresses = _fold(addresses + (number >> 16) + (number & 0xFFFF))
        if v6:
            self.header6(source.way6, ip, protocol, total, traffic, hops)
        else:
            self.header4(source.way4, addresses, ip, protocol, total, traffic, hops)
        if guest is not None:  # the target is the number
            k: cython.Py_ssize_t
            for k in range(4):
                view[l4 - 4 + k] = (number >> (24 - 8 * k)) & 0xFF
        if protocol == UDP:
            view[l4 + 4] = (total >> 8) & 0xFF
            view[l4 + 5] = total & 0xFF
        if not self.seal_off(ip, l4, total, flags, addresses, addresses):
            return
        if guest is None:
            self.write(ip - self.header, l4 + total, super_packet)
            return
        self.gateway.guest(self.plain, ip - self.header, l4 + total - ip + self.header, guest)

    @cython.cfunc
    def seal_off(
        self,
        ip: cython.Py_ssize_t,
        l4: cython.Py_ssize_t,
        total: cython.Py_ssize_t,
        flags: cython.int,
        missing: cython.uint,
        addresses: cython.uint,
    ) -> cython.bint:
        """The checksum of a TCP or UDP packet of `total` bytes at `l4`, and its virtio_net_hdr. False: it is dropped.

        `addresses` is the sum of both, `missing` of those that the checksum does not have yet.
        """
        view = self.view
        protocol: cython.int = self.kind
        v6: cython.bint = l4 - ip == 40
        field: cython.Py_ssize_t = 16 if protocol == TCP else 6
        pseudo: cython.uint = addresses + protocol + total
        virtio: cython.bint = False
        if flags & PARTIAL and self.sums:
            pseudo = _fold(pseudo)
            view[l4 + field] = pseudo >> 8
            view[l4 + field + 1] = pseudo & 0xFF
            virtio = True
        elif flags & PARTIAL:
            self.fill(l4, total, field, pseudo, protocol)
        elif protocol == TCP or view[l4 + 6] | view[l4 + 7]:
            (adjust_udp if protocol == UDP else adjust)(self.plain, l4 + field, missing)
        elif v6:
            self.dropped["UDP over IPv6 without a checksum"] += 1
            return False
        if self.header:
            self.virtio(ip - self.header, ip, l4, field, virtio, self.pieces > 1, protocol, v6)
        return True

    # --- whole packets

    @cython.cfunc
    def plain_header(self, plain: cython.Py_ssize_t) -> cython.Py_ssize_t:
        """The bytes of the IP header in the whole packet at BASE. 0: not for the packet path, or malformed."""
        view = self.view
        ip: cython.Py_ssize_t = BASE + FRAME
        size: cython.Py_ssize_t
        near: cython.Py_ssize_t
        if view[BASE + 1] & ~(PARTIAL | BACK) or plain < FRAME + 20 + 8:
            return 0
        if view[ip] == 0x45:
            size = 20
            near = ip + (16 if view[BASE + 1] & BACK else 12)
            if (
                view[ip + 1] | view[ip + 2] | view[ip + 3] | (view[ip + 6] & 0xBF) | view[ip + 7]
                or view[ip + 8] | view[ip + 10] | view[ip + 11]
                or view[ip + 9] not in (TCP, UDP)
            ):
                return 0
            return 0 if _read32(view, near) else size
        if view[ip] != 0x60 or plain < FRAME + 40 + 8 or view[ip + 6] not in (TCP, UDP):
            return 0
        if plain > FRAME + self.most6:
            return 0
        near = ip + (24 if view[BASE + 1] & BACK else 8)
        if view[ip + 1] & 0xF0 or view[ip + 4] | view[ip + 5] | view[ip + 7]:
            return 0
        if _read32(view, near) | _read32(view, near + 4) | _read32(view, near + 8) | _read32(view, near + 12):
            return 0
        return 40

    @cython.cfunc
    def leave_whole(self, peer: Any) -> cython.void:
        """As `leave`, for a packet that brought its IP header: TCP or UDP, whose other address is judged."""
        view = self.view
        ip: cython.Py_ssize_t = BASE + FRAME
        l4: cython.Py_ssize_t = ip + self.extra
        flags: cython.int = view[BASE + 1]
        back: cython.bint = flags & BACK != 0
        v6: cython.bint = self.extra == 40
        size: cython.Py_ssize_t = 16 if v6 else 4
        source: cython.Py_ssize_t = ip + (8 if v6 else 12)
        near: cython.Py_ssize_t = source + size if back else source
        far: cython.Py_ssize_t = source if back else source + size
        total: cython.Py_ssize_t = self.head + self.payload
        if back and self.kind == TCP and view[l4 + 13] & (SYN | ACK) == SYN:
            self.dropped["from exits: a connection the wrong way round"] += 1
            return
        if (
            back and self.kind == UDP and peer.services is not None
        ):  # else it would reach what the peer itself may not
            own_port: cython.int = (view[l4 + 2] << 8) | view[l4 + 3]
            far_port: cython.int = (view[l4] << 8) | view[l4 + 1]
            if not peer.services.expects(UDP, own_port, far_port, self.loop.now):
                self.dropped["from exits: an answer that nobody asked for"] += 1
                return
        address: Any = None
        if self.packets is not None:
            key = bytes(self.memory[far : far + size])
            if back:
                address = self.packets.near(peer, key)
            else:
                key += self.kind.to_bytes(1, "big") + bytes(self.memory[l4 + 2 : l4 + 4])
                address = self.packets.stand_in(peer, key)
        if address is None:
            self.hub.refused_whole(peer, bytes(self.memory[BASE : l4 + 8]))
            return
        if cython.compiled:
            memcpy(cython.address(view[near]), PyBytes_AS_STRING(address), size)
        else:
            self.plain[near : near + size] = address
        missing: cython.uint = _sum_of(view, near, size)
        if v6:
            view[ip] |= view[BASE + 2] >> 4
            view[ip + 1] |= (view[BASE + 2] & 0x0F) << 4
            view[ip + 4] = total >> 8
            view[ip + 5] = total & 0xFF
            view[ip + 7] = view[BASE + 3]
        else:
            view[ip + 1] = view[BASE + 2]
            view[ip + 2] = (total + 20) >> 8
            view[ip + 3] = (total + 20) & 0xFF
            view[ip + 8] = view[BASE + 3]
            checksum: cython.uint = ~_sum_of(view, ip, 20) & 0xFFFF
            view[ip + 10] = checksum >> 8
            view[ip + 11] = checksum & 0xFF
        if self.kind == UDP:
            view[l4 + 4] = (total >> 8) & 0xFF
            view[l4 + 5] = total & 0xFF
        if self.seal_off(ip, l4, total, flags, missing, _sum_of(view, source, 2 * size)):
            self.write(ip - self.header, l4 + total, self.pieces > 1)

    @cython.cfunc
    def closed(self, peer: Any, protocol: cython.int, l4: cython.Py_ssize_t) -> cython.bint:
        """Whether the peer may not send this to this host (`zignet.peers.services`); it is told."""
        view = self.view
        services: Any = peer.services
        far: cython.int = (view[l4] << 8) | view[l4 + 1]
        own: cython.int = (view[l4 + 2] << 8) | view[l4 + 3]
        bits: bytes
        if protocol == TCP:
            flags: cython.int = view[l4 + 13]
            if flags & (SYN | ACK) != SYN and (flags & RST or not services.narrowed):
                return False
            bits = services.tcp
        else:
            bits = services.udp
        if bits[own >> 3] & (1 << (own & 7)) or services.expects(protocol, own, far, self.loop.now):
            return False
        self.hub.closed(peer, bytes(self.memory[BASE : l4 + self.head]))
        return True

    @cython.cfunc
    def origin(self, peer: Any, number: cython.uint, protocol: cython.int, l4: cython.Py_ssize_t) -> object:
        """Whose answer this is: the destination, if it has this number and is by this very peer; else None."""
        found: Any = self.exits.get(number)
        if found is None or found.peer is not peer.peer:
            self.dropped["exit flows: an answer for nobody"] += 1
            return None
        if protocol == UDP:
            found.answered(self.loop.now)
        elif self.view[l4 + 13] & (SYN | ACK) == SYN:
            self.dropped["exit flows: a connection the wrong way round"] += 1
            return None
        if self.payload or (protocol == TCP and self.view[l4 + 13] & FIN_SYN_RST):
            self.book(found, protocol == UDP, l4)
        return found

    @cython.cfunc
    def book(self, destination: Any, udp: cython.bint, l4: cython.Py_ssize_t) -> cython.void:
        """Tell the books of an exit flow (`zignet.peers.carried`), once for each write to the TUN."""
        flows: Any = destination.flows
        if flows is None:
            return
        view = self.view
        key: cython.ulonglong = (_read32(view, l4) >> 16) | ((_read32(view, l4) & 0xFFFF) << 16)
        key = (key << 2) | (2 if view[BASE + 1] & V6 else 0) | (1 if udp else 0)
        flow: Any = flows.get(key)
        if flow is None:
            return
        flow.touched = self.loop.now
        flow.down += self.payload
        if not udp and view[l4 + 13] & FIN_SYN_RST:
            flow.inward(view[l4 + 13], self.loop.now)

    @cython.cfunc
    def guest_of(self, peer: Any, number: cython.uint, end: cython.Py_ssize_t) -> object:
        """The peer as one whose packets we dial for. None: it is refused, and told."""
        guest: Any = peer.guest
        if guest is None or number == 0 or number >= NUMBERS:
            self.hub.slow_frame(peer, None, bytes(self.memory[BASE:end]))
            return None
        return guest

    @cython.cfunc
    def echo(
        self,
        peer: Any,
        l4: cython.Py_ssize_t,
        total: cython.Py_ssize_t,
        v6: cython.bint,
        traffic: cython.uint,
        hops: cython.uint,
    ) -> cython.void:
        """A ping or its answer: ICMP has no pseudo-header, ICMPv6 has (RFC 4443 §2.3)."""
        ip: cython.Py_ssize_t = l4 - (40 if v6 else 20)
        if self.view[l4] == (128 if v6 else 8) and peer.services is not None and not peer.services.icmp:
            self.hub.closed(peer, bytes(self.memory[BASE : l4 + self.head]))
            return
        if v6:
            self.header6(peer.way6, ip, ICMPV6, total, traffic, hops)
            adjust(self.plain, l4 + 2, peer.in6)
        else:
            self.header4(peer.way4, peer.in4, ip, ICMP, total, traffic, hops)
        if self.header:
            self.virtio(ip - self.header, ip, l4, 2, False, False, ICMP, v6)
        self.write(ip - self.header, l4 + total, False)

    @cython.cfunc
    def fill(
        self,
        l4: cython.Py_ssize_t,
        total: cython.Py_ssize_t,
        field: cython.Py_ssize_t,
        pseudo: cython.uint,
        protocol: cython.int,
    ) -> cython.void:
        """The whole checksum, for a TUN that does not take NEEDS_CSUM."""
        view = self.view
        view[l4 + field] = view[l4 + field + 1] = 0
        value: cython.uint = finish(sum16(self.plain, l4, total, pseudo))
        if value == 0 and protocol == UDP:
            value = 0xFFFF  # RFC 768
        view[l4 + field] = value >> 8
        view[l4 + field + 1] = value & 0xFF

    @cython.cfunc
    def header4(
        self,
        addresses: bytes,
        in4: cython.uint,
        ip: cython.Py_ssize_t,
        protocol: cython.int,
        length: cython.Py_ssize_t,
        traffic: cython.uint,
        hops: cython.uint,
    ) -> cython.void:
        """An IPv4 header in front of `length` bytes: its source and target, and their sum (protocol §6)."""
        view = self.view
        total: cython.uint = length + 20
        view[ip] = 0x45
        view[ip + 1] = traffic
        view[ip + 2] = total >> 8
        view[ip + 3] = total & 0xFF
        view[ip + 4] = view[ip + 5] = 0
        view[ip + 6] = 0x40  # DF
        view[ip + 7] = 0
        view[ip + 8] = hops
        view[ip + 9] = protocol
        checksum: cython.uint = 0x4500 + traffic + total + 0x4000 + (hops << 8) + protocol + in4
        checksum = ~_fold(checksum) & 0xFFFF
        view[ip + 10] = checksum >> 8
        view[ip + 11] = checksum & 0xFF
        if cython.compiled:
            memcpy(cython.address(view[ip + 12]), cython.cast(cython.p_char, addresses), 8)
        else:
            self.plain[ip + 12 : ip + 20] = addresses

    @cython.cfunc
    def header6(
        self,
        addresses: bytes,
        ip: cython.Py_ssize_t,
        protocol: cython.int,
        length: cython.Py_ssize_t,
        traffic: cython.uint,
        hops: cython.uint,
    ) -> cython.void:
        """The same for IPv6."""
        view = self.view
        view[ip] = 0x60 | (traffic >> 4)
        view[ip + 1] = (traffic & 0x0F) << 4
        view[ip + 2] = view[ip + 3] = 0
        view[ip + 4] = length >> 8
        view[ip + 5] = length & 0xFF
        view[ip + 6] = protocol
        view[ip + 7] = hops
        if cython.compiled:
            memcpy(cython.address(view[ip + 8]), cython.cast(cython.p_char, addresses), 32)
        else:
            self.plain[ip + 8 : ip + 40] = addresses

    @cython.cfunc
    def virtio(
        self,
        at: cython.Py_ssize_t,
        ip: cython.Py_ssize_t,
        l4: cython.Py_ssize_t,
        field: cython.Py_ssize_t,
        partial: cython.bint,
        super_packet: cython.bint,
        protocol: cython.int,
        v6: cython.bint,
    ) -> cython.void:
        """The virtio_net_hdr (virtio 1.2 §5.1.6.1) in front of the packet; its fields are little-endian here."""
        view = self.view
        k: cython.Py_ssize_t
        for k in range(10):
            view[at + k] = 0
        if not partial:
            return
        view[at] = NEEDS_CSUM
        view[at + 6] = l4 - ip
        view[at + 8] = field
        if super_packet:
            view[at + 1] = GSO_UDP_L4 if protocol == UDP else GSO_TCPV6 if v6 else GSO_TCPV4
            view[at + 2] = (l4 - ip + self.head) & 0xFF
            view[at + 4] = self.size & 0xFF
            view[at + 5] = self.size >> 8

    @cython.cfunc
    def write(
        self, start: cython.Py_ssize_t, end: cython.Py_ssize_t, super_packet: cython.bint
    ) -> cython.void:
        """One packet for the TUN."""
        code: cython.int = 0
        if cython.compiled:
            if c_write(self.fd, cython.address(self.view[start]), end - start) < 0:
                code = c_errno
        else:
            try:
                os.write(self.fd, self.memory[start:end])
            except OSError as error:
                code = error.errno or errno.EIO
        if not code:
            self.packets_out += 1
            return
        self.dropped["tun write: " + os.strerror(code)] += 1
        if super_packet and code in (errno.EINVAL, errno.EOPNOTSUPP):
            self.tun.disable_offload()
            self.look_at_offload()


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _fold(total: cython.uint) -> cython.uint:
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _sum_of(view: cython.uchar[::1], at: cython.Py_ssize_t, size: cython.Py_ssize_t) -> cython.uint:
    """The folded sum of an even number of bytes."""
    total: cython.uint = 0
    end: cython.Py_ssize_t = at + size
    while at < end:
        total += (view[at] << 8) | view[at + 1]
        at += 2
    return _fold(total)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _read32(view: cython.uchar[::1], at: cython.Py_ssize_t) -> cython.uint:
    high: cython.uint = (view[at] << 8) | view[at + 1]
    return (high << 16) | (view[at + 2] << 8) | view[at + 3]


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _little32(view: cython.uchar[::1], at: cython.Py_ssize_t) -> cython.uint:
    high: cython.uint = (view[at + 3] << 8) | view[at + 2]
    return (high << 16) | (view[at + 1] << 8) | view[at]


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _same(
    view: cython.uchar[::1], one: cython.Py_ssize_t, other: cython.Py_ssize_t, length: cython.Py_ssize_t
) -> cython.bint:
    k: cython.Py_ssize_t
    for k in range(length):  # noqa: SIM110 -- a loop in C
        if view[one + k] != view[other + k]:
            return False
    return True
