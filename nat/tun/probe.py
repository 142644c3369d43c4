"""Questions that only the running kernel can answer, asked before the packet loop starts.

Both write packets of our own making to the device, so its interface must be up; neither leaves anything
behind.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import time
from ipaddress import ip_address

from nat import header
from nat.checksum import CHECKSUM_AT_TCP, CHECKSUM_AT_UDP, finish, partial_checksum, sum16, transport_checksum
from nat.header import Protocol
from nat.tun.device import Offload, Tun
from nat.tun.errors import InterfaceGone

__all__ = ["loopback_answers", "probe_offload"]

SEGMENT = 1000  # bytes: payload of one segment
SEGMENTS = 3
ANSWER_S = 0.5  # the answer of a local socket takes microseconds
GONE = (errno.EIO, errno.EBADFD)  # the interface is down; it was deleted
READ_SIZE = 65536 + header.VNET_LENGTH  # bytes

IP4 = struct.Struct("!BBHHHBBH4s4s")
IP6 = struct.Struct("!IHBB16s16s")
TCP = struct.Struct("!HHIIBBHHH")
UDP = struct.Struct("!HHHH")
VNET = struct.Struct("=BBHHHH")

DATA_OFFSET = 5 << 4  # a TCP header of 20 bytes
SYN, RST, ACK, CWR = header.TCP_SYN, header.TCP_RST, header.TCP_ACK, header.TCP_CWR
SEQUENCE = 0x5A490000  # of the probe's SYN
PROBE_PORT = 9  # discard (RFC 863)

# A kernel drops these at once, before its firewall sees them: an IPv4 header with a wrong checksum (RFC 1122
# §3.2.1.2), an IPv6 source that exists on the loopback interface only (RFC 4291 §2.5.3).
SOURCE4, TARGET4 = ip_address("192.0.2.1").packed, ip_address("192.0.2.2").packed
SOURCE6, TARGET6 = ip_address("::1").packed, ip_address("2001:db8::2").packed


def probe_offload(tun: Tun) -> Offload:
    """Write one packet of each kind that is turned on, and turn off what the kernel answers with an error.

    Some kernels take the flags of TUNSETOFFLOAD and then refuse such packets with EINVAL. The packets go
    nowhere. Returns what stays in force. Raises `InterfaceGone` when the interface is down or deleted.
    """
    if not tun.header:
        return tun.offload
    left = tun.offload
    for feature, packet in _samples():
        if feature & left == feature and not _accepted(tun, packet):
            left &= ~feature
    if not left & Offload.CSUM:
        left = Offload.NONE
    return left if left == tun.offload else tun.set_offload(left)


def loopback_answers(tun: Tun, alias: str, address: str, port: int, *, timeout_s: float = ANSWER_S) -> bool:
    """Whether a SYN from the device reaches the listener at `address`:`port`, and its answer comes back.

    It comes from `alias`, an address of a block that is on-link on the device. The half-open connection is
    reset, so the listener never accepts it. False usually means that a firewall drops what enters 127.0.0.0/8
    from another interface than `lo`. Other packets that arrive meanwhile are lost: call it before traffic is
    led into the device. Raises `InterfaceGone`.
    """
    source, target = ip_address(alias).packed, ip_address(address).packed
    source_port = 1024 + int.from_bytes(os.urandom(2), "big") % 64000
    ports = struct.pack("!HH", port, source_port)
    answered = False
    _write(tun, _segment(source, target, source_port, port, SEQUENCE, SYN))
    deadline = time.monotonic() + timeout_s
    poll = select.poll()
    poll.register(tun.fileno(), select.POLLIN)
    while not answered and (left_s := deadline - time.monotonic()) > 0:
        poll.poll(left_s * 1000)
        answered = _drain(tun, source, ports)
    # Without an answer there may still be a half-open connection, whose answers get lost.
    _write(tun, _segment(source, target, source_port, port, SEQUENCE + 1, RST))
    return answered


def _drain(tun: Tun, source: bytes, ports: bytes) -> bool:
    """Read what is there; whether a SYN-ACK to us is among it."""
    ipv4 = len(source) == 4
    at, target_at = (IP4.size, header.IP4_TARGET) if ipv4 else (IP6.size, header.IP6_TARGET)
    while True:
        try:
            packet = os.read(tun.fileno(), READ_SIZE)[tun.header :]
        except BlockingIOError:
            return False
        except OSError as error:
            raise _gone(tun, error) from error
        ours = packet[target_at : target_at + len(source)] == source and packet[at : at + 4] == ports
        if (
            ours
            and len(packet) >= at + TCP.size
            and packet[at + header.TCP_FLAGS] & (SYN | ACK | RST) == SYN | ACK
        ):
            return True


def _accepted(tun: Tun, packet: bytes) -> bool:
    try:
        _write(tun, packet)
    except InterfaceGone:
        raise
    except OSError:
        return False
    return True


def _write(tun: Tun, packet: bytes) -> None:
    """`packet` starts with a virtio_net_hdr, which a device without one does not get."""
    try:
        os.write(tun.fileno(), packet if tun.header else packet[header.VNET_LENGTH :])
    except OSError as error:
        if error.errno in GONE:
            raise _gone(tun, error) from error
        raise


def _gone(tun: Tun, error: OSError) -> InterfaceGone:
    return InterfaceGone(f"cannot probe {tun.name}", os.strerror(error.errno or 0), "is the interface up?")


def _samples() -> list[tuple[Offload, bytes]]:
    """A feature, and what it lets us write, as a real sender would: partial checksum, several segments."""
    uso = Offload.USO4 | Offload.USO6
    return [
        (Offload.CSUM, _sample(4, Protocol.TCP, header.GSO_NONE)),
        (Offload.CSUM, _sample(6, Protocol.UDP, header.GSO_NONE)),
        (Offload.TSO4, _sample(4, Protocol.TCP, header.GSO_TCPV4)),
        (Offload.TSO6, _sample(6, Protocol.TCP, header.GSO_TCPV6)),
        (Offload.TSO_ECN, _sample(4, Protocol.TCP, header.GSO_TCPV4 | header.GSO_ECN)),
        (uso, _sample(4, Protocol.UDP, header.GSO_UDP_L4)),
        (uso, _sample(6, Protocol.UDP, header.GSO_UDP_L4)),
    ]


def _sample(version: int, protocol: int, gso_type: int) -> bytes:
    source, target = (SOURCE4, TARGET4) if version == 4 else (SOURCE6, TARGET6)
    payload = bytes(SEGMENT * (SEGMENTS if gso_type else 1))
    size = (TCP.size if protocol == Protocol.TCP else UDP.size) + len(payload)
    checksum = partial_checksum(source, target, protocol, size)
    if protocol == Protocol.TCP:
        flags = ACK | (CWR if gso_type & header.GSO_ECN else 0)
        transport = TCP.pack(PROBE_PORT, PROBE_PORT, 1, 1, DATA_OFFSET, flags, 65535, checksum, 0)
    else:
        transport = UDP.pack(PROBE_PORT, PROBE_PORT, size, checksum)
    network = _network(source, target, protocol, size, wrong=1)
    checksum_at = CHECKSUM_AT_TCP if protocol == Protocol.TCP else CHECKSUM_AT_UDP
    segment = SEGMENT if gso_type else 0
    headers = len(network) + len(transport) if gso_type else 0
    vnet = VNET.pack(header.VNET_NEEDS_CSUM, gso_type, headers, segment, len(network), checksum_at)
    return vnet + network + transport + payload


def _segment(source: bytes, target: bytes, source_port: int, port: int, sequence: int, flags: int) -> bytes:
    """A whole TCP segment without payload, behind an empty virtio_net_hdr."""
    fields = [source_port, port, sequence, 0, DATA_OFFSET, flags, 65535, 0, 0]
    fields[7] = transport_checksum(
        TCP.pack(*fields), 0, TCP.size, source=source, target=target, protocol=Protocol.TCP
    )
    return bytes(header.VNET_LENGTH) + _network(source, target, Protocol.TCP, TCP.size) + TCP.pack(*fields)


def _network(source: bytes, target: bytes, protocol: int, size: int, *, wrong: int = 0) -> bytes:
    """The IP header before `size` bytes; `wrong` is added to an IPv4 header's checksum."""
    if len(source) == 16:
        return IP6.pack(6 << 28, size, protocol, 64, source, target)
    bare = IP4.pack(0x45, 0, IP4.size + size, 0, header.IP4_DONT_FRAGMENT, 64, protocol, 0, source, target)
    checksum = (finish(sum16(bare, 0, len(bare), 0)) + wrong) & 0xFFFF
    return bare[: header.IP4_CHECKSUM] + struct.pack("!H", checksum) + bare[header.IP4_SOURCE :]
