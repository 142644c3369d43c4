# cython: boundscheck=False, wraparound=False
"""The packet path of TCP: one read from the TUN, one look-up, a rewrite in place, one write back.

 1. `on_event`   reads one packet (of up to 64 KiB) into the one long-lived buffer, up to 64 times a wake-up
 2. `handle`     takes the slice of addresses and ports as the key: 12 bytes of IPv4, 36 of IPv6
 3. `translate`  puts the 12 (36) bytes of the other side there and adds precomputed deltas to the checksums
 4. `put`        writes the packet back, its virtio_net_hdr untouched: a super-packet costs what a small one costs

Everything that is not TCP of a known flow leaves this file for `udp` (a datagram) or `slow` (all else).
`boundscheck` is off because every length is compared before the bytes are read; `HEADROOM` covers the rest.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import cython

from nat.loop import ERROR
from nat.packet import Packet

if cython.compiled:
    from cython.cimports.cpython.bytearray import PyByteArray_AS_STRING
    from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
    from cython.cimports.libc.errno import errno as c_errno
    from cython.cimports.libc.string import memcpy
    from cython.cimports.posix.unistd import read as c_read
    from cython.cimports.posix.unistd import write as c_write

__all__ = ["Gateway", "Rewrite"]

READS_PER_EVENT = 64
MAX_PACKET = 65_536  # bytes, without the virtio_net_hdr
HEADROOM = 64  # bytes behind the longest packet

NEEDS_CSUM: cython.int = 1  # virtio_net_hdr.flags: the checksum holds the pseudo-header only
FIN: cython.int = 0x01
SYN: cython.int = 0x02
RST: cython.int = 0x04
TCP: cython.int = 6
UDP: cython.int = 17


@cython.cclass
class Rewrite:
    """What happens to the packets of one direction of a flow.

    `new` replaces addresses and ports (12 or 36 bytes); `addresses` and `full` are the RFC 1624 deltas of the
    addresses alone (IPv4 header checksum, partial TCP checksum) and with the ports (full TCP checksum).
    """

    new: bytes
    addresses: cython.uint
    full: cython.uint
    outward: cython.bint  # towards the listener
    watched = cython.declare(cython.bint, visibility="public")  # the table counts this flow's silence
    local: cython.bint  # the answer goes into this TUN, and not to another source
    flow: Any = cython.declare(object, visibility="public")

    def __init__(self, flow: Any, new: bytes, addresses: int, full: int, outward: bool, local: bool) -> None:
        self.flow = flow
        self.new = new
        self.addresses = addresses
        self.full = full
        self.outward = outward
        self.local = local
        self.watched = True


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def complemented(field: cython.uint, delta: cython.uint) -> cython.uint:
    """RFC 1624 equation 3, on a checksum as it stands in a header."""
    total: cython.uint = (~field & 0xFFFF) + delta
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def partial_sum(field: cython.uint, delta: cython.uint) -> cython.uint:
    """The same for a sum that was not complemented yet (NEEDS_CSUM)."""
    total: cython.uint = field + delta
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _big(view: cython.uchar[::1], at: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.ulonglong:
    """Up to 8 bytes as a number, big-endian."""
    number: cython.ulonglong = 0
    while at < end:
        number = (number << 8) | view[at]
        at += 1
    return number


@cython.cclass
class Gateway:
    """The TUN's end of the engine. One per device; also the *source* of the flows that came from this host."""

    fd: cython.int
    header = cython.declare(cython.int, visibility="readonly")
    raw = cython.declare(bytearray, visibility="readonly")
    view: cython.uchar[::1]
    memory: Any
    rewrites = cython.declare(dict, visibility="readonly")
    loop: Any
    tun: Any
    table: Any = cython.declare(object, visibility="public")
    udp: Any = cython.declare(object, visibility="public")
    slow: Any = cython.declare(object, visibility="public")
    peers: Any = cython.declare(object, visibility="public")
    whole: Any = cython.declare(
        object, visibility="public"
    )  # takes packets of some networks as they are; see `handle`
    near4: cython.uint  # the peers' IPv4 block, but for the aliases in it
    mask4: cython.uint
    alias4: cython.uint
    alias_mask4: cython.uint
    near6: cython.ulonglong  # the upper half of the peers' IPv6 addresses
    mask6: cython.ulonglong
    fake4: cython.uint  # the addresses that stand for names
    fake_mask4: cython.uint
    fake6: cython.ulonglong
    fake_mask6: cython.ulonglong
    gone: Any = cython.declare(object, visibility="public")
    dropped: Any = cython.declare(object, visibility="readonly")
    packets_in = cython.declare(cython.ulonglong, visibility="readonly")
    guest_packets = cython.declare(cython.ulonglong, visibility="readonly")
    packets_out = cython.declare(cython.ulonglong, visibility="readonly")
    bytes_in = cython.declare(cython.ulonglong, visibility="readonly")
    turn: cython.ulonglong  # of the last event
    many: cython.bint  # whether it brought more than one packet
    no_header: bytes
    packet: Any  # a scratch view of the buffer

    def __init__(self, loop: Any, tun: Any) -> None:
        self.loop = loop
        self.tun = tun
        self.fd = tun.fileno()
        self.header = tun.header
        self.raw = bytearray(self.header + MAX_PACKET + HEADROOM)
        self.view = self.raw
        self.memory = memoryview(self.raw)
        self.rewrites = {}
        self.no_header = bytes(self.header)
        self.dropped = Counter()
        self.packet = Packet(self.raw)
        self.peers = None
        self.whole = None
        self.near4 = self.mask4 = self.alias4 = self.alias_mask4 = 0
        self.near6 = self.mask6 = 0
        self.fake4 = self.fake_mask4 = 0
        self.fake6 = self.fake_mask6 = 0
        self.packets_in = 0
        self.guest_packets = 0
        self.packets_out = 0
        self.bytes_in = 0
        self.turn = 0
        self.many = False

    # --- 1. read

    def on_event(self, mask: int) -> None:
        """Packets are waiting, or the interface has gone.

        One that comes alone is not made to wait for a look whether there are more: the loop tells that as well.
        """
        turn: cython.ulonglong = self.loop.turns
        most: cython.int = READS_PER_EVENT if self.many or turn == self.turn + 1 else 1
        self.turn = turn
        count: cython.int = 0
        while count < most:
            n = self.get()
            if n <= 0:
                if n == -errno.EAGAIN:
                    break
                if n == -errno.EINTR:
                    continue
                self.gone(os.strerror(-n) if n else "end of file")
                return
            count += 1
            self.packets_in += 1
            self.bytes_in += n
            if n > self.header:
                self.handle(n)
        self.many = count > 1
        if self.peers is not None:
            self.peers.settle()
        if mask & ERROR:
            self.gone("the interface is no longer there")

    @cython.cfunc
    def get(self) -> cython.Py_ssize_t:
        """Bytes read, or -errno."""
        if cython.compiled:
            n: cython.Py_ssize_t = c_read(self.fd, cython.address(self.view[0]), self.header + MAX_PACKET)
            return n if n >= 0 else -c_errno
        try:
            return os.readv(self.fd, [self.memory])
        except OSError as error:
            return -(error.errno or errno.EIO)

    def abort(self) -> None:
        """A fault in this code, with one packet: that one is lost."""
        self.dropped["internal error"] += 1

    # --- 2. classify

    @cython.cfunc
    def handle(self, n: cython.Py_ssize_t) -> cython.void:
        """The packet that is the first `n` bytes of the buffer goes where it belongs."""
        at: cython.Py_ssize_t = self.header
        length: cython.Py_ssize_t = n - at
        first: cython.uint = self.view[at]
        protocol: cython.uint
        l4: cython.Py_ssize_t
        rewrite: Rewrite | None
        if first == 0x45 and length >= 28:
            protocol = self.view[at + 9]
            l4 = at + 20
            if (self.view[at + 6] & 0x3F) | self.view[at + 7]:
                protocol = 0  # a fragment
        elif (first >> 4) == 6 and length >= 48:
            protocol = self.view[at + 6]
            l4 = at + 40
        else:
            protocol = 0
            l4 = at
        if protocol == TCP and l4 + 20 <= n:
            rewrite = self.rewrites.get(self.key(at + 12, 12) if first == 0x45 else self.key(at + 8, 36))
            if rewrite is not None and (rewrite.local or not rewrite.outward):  # else: only its guest may
                flags: cython.uint = self.view[l4 + 13]
                if not (flags & SYN and rewrite.outward):
                    if rewrite.watched:
                        rewrite.flow.touched = self.loop.now
                    self.translate(rewrite, at, l4)
                    if rewrite.outward or rewrite.local:
                        self.put(n)
                    else:
                        rewrite.flow.source.deliver(at, length)
                    if flags & (FIN | RST):
                        self.table.closing_flags(rewrite.flow, rewrite.outward, flags)
                    return
        elif protocol == UDP and self.udp is not None and self.udp.datagram(at, length):
            return
        if self.peers is not None and (self.is_near(at, length) or self.is_fake(at, length)):
            self.peers.outward(at, length)
        elif self.whole is None or not self.whole(at, length):
            self.slow(at, length)

    def lead_to_peers(
        self, peers: Any, block4: IPv4Network, aliases4: IPv4Network, block6: IPv6Network
    ) -> None:
        """Packets for these blocks, but for the aliases, go to `peers.outward(at, length)`, in this buffer.

        `peers.settle()` follows when no more are there.
        """
        self.peers = peers
        self.near4, self.mask4 = int(block4.network_address), int(block4.netmask)
        self.alias4, self.alias_mask4 = int(aliases4.network_address), int(aliases4.netmask)
        self.near6, self.mask6 = int(block6.network_address) >> 64, int(block6.netmask) >> 64

    def lead_names_to_peers(self, block4: IPv4Network, block6: IPv6Network) -> None:
        """So do packets for addresses that stand for names; what is not for a peer's exit comes back by `slow`."""
        self.fake4, self.fake_mask4 = int(block4.network_address), int(block4.netmask)
        self.fake6, self.fake_mask6 = int(block6.network_address) >> 64, int(block6.netmask) >> 64

    def is_name(self, at: int, length: int) -> bool:
        """Whether the packet at `at` is for an address that may stand for a name."""
        return self.is_fake(at, length)

    @cython.cfunc
    @cython.inline
    def is_fake(self, at: cython.Py_ssize_t, length: cython.Py_ssize_t) -> cython.bint:
        """Whether the target may be an address that stands for a name."""
        if self.view[at] >> 4 == 4:
            if length < 20 or not self.fake_mask4:
                return False
            return _big(self.view, at + 16, at + 20) & self.fake_mask4 == self.fake4
        if length < 40 or not self.fake_mask6:
            return False
        return _big(self.view, at + 24, at + 32) & self.fake_mask6 == self.fake6

    @cython.cfunc
    @cython.inline
    def is_near(self, at: cython.Py_ssize_t, length: cython.Py_ssize_t) -> cython.bint:
        """Whether the target is a peer's local address."""
        if self.view[at] >> 4 == 4:
            if length < 20:
                return False
            target: cython.uint = _big(self.view, at + 16, at + 20)
            return target & self.mask4 == self.near4 and target & self.alias_mask4 != self.alias4
        if length < 40:
            return False
        return _big(self.view, at + 24, at + 32) & self.mask6 == self.near6

    @cython.cfunc
    @cython.inline
    def key(self, at: cython.Py_ssize_t, size: cython.Py_ssize_t) -> bytes:
        """A slice of the buffer."""
        if cython.compiled:
            return PyBytes_FromStringAndSize(cython.cast(cython.p_char, cython.address(self.view[at])), size)
        return bytes(self.memory[at : at + size])

    def guest(self, buffer: bytearray, start: cython.Py_ssize_t, n: cython.Py_ssize_t, source: Any) -> None:
        """`n` bytes of `buffer`, a virtio_net_hdr and a plain TCP or UDP packet, from a source that is not this host.

        The NAT carries it, or `source.first(at, length)` looks at it in this buffer; it never goes out as it is.
        """
        if start < 0 or n > len(self.raw) - HEADROOM or start + n > len(buffer):
            raise ValueError("a packet outside of its buffer")
        if cython.compiled:
            memcpy(cython.address(self.view[0]), PyByteArray_AS_STRING(buffer) + start, n)
        else:
            self.memory[:n] = memoryview(buffer)[start : start + n]
        at: cython.Py_ssize_t = self.header
        length: cython.Py_ssize_t = n - at
        v6: cython.bint = self.view[at] >> 4 == 6
        l4: cython.Py_ssize_t = at + (40 if v6 else 20)
        self.guest_packets += 1
        if l4 + 8 > n:
            return
        if self.view[at + (6 if v6 else 9)] == TCP:
            rewrite: Rewrite | None = self.rewrites.get(self.key(at + 8, 36) if v6 else self.key(at + 12, 12))
            if rewrite is not None and rewrite.outward and rewrite.flow.source is source and l4 + 20 <= n:
                flags: cython.uint = self.view[l4 + 13]
                if not flags & SYN:
                    if rewrite.watched:
                        rewrite.flow.touched = self.loop.now
                    self.translate(rewrite, at, l4)
                    self.put(n)
                    if flags & (FIN | RST):
                        self.table.closing_flags(rewrite.flow, True, flags)
                    return
        elif self.udp is not None and self.udp.datagram(at, length, source):
            return
        source.first(at, length)

    # --- 3. rewrite in place

    @cython.cfunc
    def translate(self, rewrite: Rewrite, at: cython.Py_ssize_t, l4: cython.Py_ssize_t) -> cython.void:
        """The packet at `at`, its TCP header at `l4`, gets the other side's addresses, ports and checksums."""
        view = self.view
        checksum: cython.uint
        size: cython.Py_ssize_t = len(rewrite.new) - 4  # of both addresses; the ports may lie further on
        if view[at] >> 4 == 4:
            checksum = complemented((view[at + 10] << 8) | view[at + 11], rewrite.addresses)
            view[at + 10] = checksum >> 8
            view[at + 11] = checksum & 0xFF
            at += 12
        else:
            at += 8
        if cython.compiled:
            memcpy(cython.address(view[at]), PyBytes_AS_STRING(rewrite.new), size)
            memcpy(cython.address(view[l4]), PyBytes_AS_STRING(rewrite.new) + size, 4)
        else:
            self.raw[at : at + size] = rewrite.new[:size]
            self.raw[l4 : l4 + 4] = rewrite.new[size:]
        l4 += 16
        checksum = (view[l4] << 8) | view[l4 + 1]
        if self.header and view[0] & NEEDS_CSUM:
            checksum = partial_sum(checksum, rewrite.addresses)
        else:
            checksum = complemented(checksum, rewrite.full)
        view[l4] = checksum >> 8
        view[l4 + 1] = checksum & 0xFF

    # --- 4. write

    @cython.cfunc
    def put(self, n: cython.Py_ssize_t) -> cython.void:
        """Write the first `n` bytes of the buffer to the TUN."""
        code: cython.int = 0
        if cython.compiled:
            if c_write(self.fd, cython.address(self.view[0]), n) < 0:
                code = c_errno
        else:
            try:
                os.write(self.fd, self.memory[:n])
            except OSError as error:
                code = error.errno or errno.EIO
        if code:
            self.refused(code, self.header != 0 and self.view[1] != 0)
        else:
            self.packets_out += 1

    def pass_on(self, rewrite: Rewrite, at: int, length: int, l4: int) -> None:
        """Rewrite the packet in the buffer and write it: a SYN, which the slow path has judged."""
        self.translate(rewrite, at, l4)
        if rewrite.outward or rewrite.local:
            self.put(at + length)
        else:
            rewrite.flow.source.deliver(at, length)

    def segment_size(self) -> int:
        """Of the packet in the buffer, if it is a super-packet; else 0."""
        return self.view[4] | (self.view[5] << 8) if self.header and self.view[1] else 0

    def feed(self, packet: bytes) -> None:
        """Handle a packet as if it had been read: a reassembled one."""
        n = self.header + len(packet)
        self.raw[:n] = self.no_header + packet
        self.handle(n)

    def feed_reads(self, reads: Iterable[bytes]) -> None:
        """Handle packets that were kept as they were read, their virtio_net_hdr included."""
        for read in reads:
            self.raw[: len(read)] = read
            self.handle(len(read))
        if self.peers is not None:
            self.peers.settle()

    def parsed(self, read: bytes, quoted: bool = False) -> Packet | None:
        """A packet that was kept as it was read, back in the buffer and parsed; None if it is malformed.

        `quoted`: only its beginning was kept.
        """
        self.raw[: len(read)] = read
        if self.packet.parse(self.header, len(read) - self.header, False, quoted):
            return None
        return self.packet

    def replay(self, read: bytes) -> None:
        """Pass on a SYN that was held back."""
        packet = self.parsed(read)
        if packet is not None:
            rewrite = self.rewrites.get(packet.key())
            if rewrite is not None:
                self.pass_on(rewrite, packet.start, packet.length, packet.l4)

    def chosen(self, flow: Any) -> None:
        """As a source: the rules decide."""

    def deliver(self, start: int, length: int) -> None:
        """As a source: the packet in the buffer goes to an application of this host."""
        self.put(start + length)

    def send(self, packet: bytes) -> None:
        """Write a packet that was made here (complete checksums, no offload)."""
        if packet:
            self.write([self.no_header, packet] if self.header else [packet])

    def write(self, pieces: list[Any], segmented: bool = False) -> None:
        """Write one packet from pieces, the first of them its virtio_net_hdr where there is one."""
        try:
            os.writev(self.fd, pieces)
        except OSError as error:
            self.refused(error.errno or errno.EIO, segmented)
        else:
            self.packets_out += 1

    def refused(self, code: int, segmented: bool) -> None:
        """The kernel did not take a packet. A refused super-packet means that offload does not work here."""
        self.dropped["tun write: " + os.strerror(code)] += 1
        if segmented and code in (errno.EINVAL, errno.EOPNOTSUPP):
            self.tun.disable_offload()
