"""UDP: one port for all peers, IPv4 and IPv6, with segmentation offload both ways where the kernel has it.

One `sendmsg` carries up to 64 datagrams of one size (UDP_SEGMENT, Linux 4.18), one `recvmsg` brings as many of one
sender (UDP_GRO, Linux 5.0). A kernel without them, or one whose driver refuses, gets them one by one.

What is not data comes by a second socket of the same port, `side`, so that a flood of handshakes fills that one's
buffer and leaves data alone; the kernel parts them (`filter`). Where it does not, all comes by the first.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from collections import Counter, deque
from typing import Any

from zignet.transport.filter import attach_filter, attach_selector, kinds, messages

__all__ = ["Address", "Udp", "UdpError"]

log = logging.getLogger("zignet.udp")

Address = tuple[Any, ...]  # what recvfrom gives and sendto takes

# linux/udp.h, linux/in.h, linux/in6.h, asm-generic/socket.h
UDP_SEGMENT = 103
UDP_GRO = 104
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER = 10, 23
PMTUDISC_DO = 2  # DF; too large is EMSGSIZE, by what the route is known to carry
IP_MTU = 14
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
IP_TOS, IP_RECVTOS = 1, 13

BUFFER = 8 << 20  # bytes, each way
SIDE_BUFFER = 1 << 20  # bytes: some 800 handshakes, a quarter of a second's work
ANCILLARY = socket.CMSG_SPACE(4) * 3
ERRORS_PER_READ = 16
HEADERS = {4: 28, 6: 48}  # bytes of IP and UDP

_SIZE = struct.Struct("=H")
_INT = struct.Struct("=i")


class UdpError(Exception):
    """The socket can't be opened; the text says why and what to do."""


class Udp:
    """The underlay socket. Never blocks; what it can't send is counted, and lost as on any network."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.side: socket.socket | None = None
        self._back: deque[tuple[bytes, int, Address, int]] = deque()  # what `side` brought and is data
        self.v6 = sock.family == socket.AF_INET6
        self.segmenting = True
        self.dropped: Counter[str] = Counter()
        self.too_large: Any = None  # called with (address, size) when a datagram does not fit its way
        self._ancillary: dict[tuple[int, int], list[tuple[int, int, bytes]]] = {}
        self._mark = sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)
        self._prepare(sock, BUFFER)

    @classmethod
    def open(cls, host: str, port: int, mark: int = 0) -> Udp:
        """Bind. `host` is numeric; `::` takes IPv4 too. `mark` keeps the datagrams out of our own TUN.

        Raises `UdpError`.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        where = f"udp://[{host}]:{port}" if ":" in host else f"udp://{host}:{port}"
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            advice = f' Set `listen: ["udp://0.0.0.0:{port}"]`.' if family == socket.AF_INET6 else ""
            raise UdpError(f"{where}: this system has no such sockets ({error.strerror}).{advice}") from error
        try:
            _join(sock, mark)
            sock.bind((host, port))
        except OSError as error:
            sock.close()
            why = {
                errno.EADDRINUSE: "another program has this port: stop it, or choose another in `listen`",
                errno.EADDRNOTAVAIL: "no interface of this host has this address",
                errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE",
            }.get(error.errno or 0, error.strerror or str(error))
            raise UdpError(f"cannot listen on {where}: {why}") from error
        return cls(sock)

    def _prepare(self, sock: socket.socket, buffer: int) -> None:
        ip, ip6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
        for force, plain in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            if not _set(sock, socket.SOL_SOCKET, force, buffer):
                _set(sock, socket.SOL_SOCKET, plain, buffer)
        _set(sock, ip, IP_MTU_DISCOVER, PMTUDISC_DO)
        _set(sock, ip, IP_RECVTOS, 1)
        if self.v6:
            _set(sock, ip6, IPV6_MTU_DISCOVER, PMTUDISC_DO)
            _set(sock, ip6, socket.IPV6_RECVTCLASS, 1)
        if not _set(sock, socket.IPPROTO_UDP, UDP_GRO, 1):
            log.info("this kernel has no UDP_GRO: datagrams are received one by one")

    def guard(self, x: bytes, secret: int) -> None:
        """From now on only what may be a message for us comes in, and handshakes by `side`.

        `x` is our key's X25519 form, `secret` what our indices are `marked` with.
        """
        self._part()
        for sock in (self.sock, self.side):
            if sock is not None and not attach_filter(sock, messages(x, secret)):
                log.info("this kernel does not filter datagrams: malformed ones cost some time each")

    def _part(self) -> None:
        """Let what is not data wait in a socket of its own.

        The first was bound alone, so that a port which is taken was found to be. Both need UDP_GRO: the kernel asks
        any one of them whether trains are wanted.
        """
        side = socket.socket(self.sock.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            _join(side, self._mark)
            for sock in (self.sock, side):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            side.bind(self.sock.getsockname())
        except OSError as error:
            log.info("handshakes and data share one socket: %s", error)
            side.close()
            return
        if not attach_selector(self.sock, kinds()):
            log.info("handshakes and data share one socket: this kernel does not part them")
            side.close()
            return
        self.side = side
        self._prepare(side, SIDE_BUFFER)

    @property
    def port(self) -> int:
        """The local port."""
        return int(self.sock.getsockname()[1])

    @property
    def local(self) -> str:
        """Where it listens, as a configuration says it."""
        return f"udp://{self.text(self.sock.getsockname())}"

    def fileno(self) -> int:
        """The descriptor."""
        return self.sock.fileno()

    def close(self) -> None:
        """Close it. Idempotent."""
        self.sock.close()
        if self.side is not None:
            self.side.close()

    # --- addresses

    def address(self, host: str, port: int) -> Address:
        """The socket's own form of a numeric address, in which it also comes back. Raises ValueError."""
        try:
            if not self.v6:
                return (socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, host)), port)
            if ":" not in host:
                return (
                    f"::ffff:{socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, host))}",
                    port,
                    0,
                    0,
                )
            bare, _, zone = host.partition("%")
            scope = socket.if_nametoindex(zone) if zone else 0
            return (
                socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, bare)),
                port,
                0,
                scope,
            )
        except OSError as error:
            raise ValueError(f"{host} can't be reached from this socket") from error

    @staticmethod
    def packed(address: Address) -> bytes:
        """18 bytes: the IP address (IPv4 mapped), the port, big-endian (protocol §3, cookies)."""
        host, port = address[0], address[1]
        if ":" in host:
            ip = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
        else:
            ip = bytes(10) + b"\xff\xff" + socket.inet_pton(socket.AF_INET, host)
        return ip + int(port).to_bytes(2, "big")

    @staticmethod
    def text(address: Address) -> str:
        """As people write it: 192.0.2.1:51830, [2001:db8::1]:51830."""
        host = _shown(address)
        return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"

    @staticmethod
    def version(address: Address) -> int:
        """4 or 6: what the datagrams to it are."""
        return 6 if ":" in _shown(address) else 4

    def ceiling(self, address: Address) -> int:
        """The largest datagram, in bytes, that the route to `address` takes, as far as this host knows."""
        version = self.version(address)
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        host = _shown(address)
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                if self._mark:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._mark)
                probe.connect((host, address[1], *address[2:]) if version == 6 else (host, address[1]))
                level, option = (socket.IPPROTO_IP, IP_MTU) if version == 4 else (socket.IPPROTO_IPV6, 24)
                return min(65_507, probe.getsockopt(level, option) - HEADERS[version])
        except OSError:
            return 1500 - HEADERS[version]

    # --- out

    def send(self, datagrams: memoryview, size: int, address: Address, ecn: int = 0) -> None:
        """Send datagrams that lie side by side, each but the last of `size` bytes (0: there is one).

        At most 64, and 65,507 bytes. `ecn`: the ECN field (RFC 3168) of their IP headers.
        """
        try:
            if not size and not ecn:
                self.sock.sendto(datagrams, address)
            elif not size or self.segmenting:
                self.sock.sendmsg((datagrams,), self._control(size, ecn), 0, address)
            else:
                self._one_by_one(datagrams, size, address, ecn)
        except OSError as error:
            self._failed(error.errno or errno.EIO, datagrams, size, address, ecn)

    def _control(self, size: int, ecn: int) -> list[tuple[int, int, bytes]]:
        known = self._ancillary.get((size, ecn))
        if known is None:
            known = []
            if size:
                known.append((socket.IPPROTO_UDP, UDP_SEGMENT, _SIZE.pack(size)))
            if ecn:
                known.append((socket.IPPROTO_IP, IP_TOS, _INT.pack(ecn)))
                if self.v6:
                    known.append((socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _INT.pack(ecn)))
            if len(self._ancillary) < 4096:
                self._ancillary[size, ecn] = known
        return known

    def _one_by_one(self, datagrams: memoryview, size: int, address: Address, ecn: int) -> None:
        for at in range(0, len(datagrams), size):
            self.send(datagrams[at : at + size], 0, address, ecn)

    def _failed(self, code: int, datagrams: memoryview, size: int, address: Address, ecn: int) -> None:
        if code == errno.EAGAIN:
            self.dropped["the socket's buffer is full"] += 1
        elif size and code in (errno.EIO, errno.EOPNOTSUPP):  # EIO: an interface without checksum offload
            if self.segmenting:
                log.info("segmentation of UDP does not work here: datagrams are sent one by one")
            self.segmenting = False
            self._one_by_one(datagrams, size, address, ecn)
        elif code == errno.EMSGSIZE or (
            code == errno.EINVAL and size
        ):  # EINVAL: a segment, before Linux 6.14
            self.dropped["too large for the path"] += 1
            if self.too_large is not None:
                self.too_large(address, size or len(datagrams))
        else:  # ENETUNREACH, EHOSTUNREACH, EPERM (a firewall), ECONNREFUSED (an earlier datagram's ICMP), …
            self.dropped[f"not sent: {errno.errorcode.get(code, code)}"] += 1

    # --- in

    def receive_into(self, buffer: memoryview) -> tuple[int, int, Address, int] | None:
        """(bytes, size of each datagram or 0, sender, ECN field), or None where nothing waits."""
        if self._back:
            data, size, address, ecn = self._back.popleft()
            buffer[: len(data)] = data
            return len(data), size, address, ecn
        return self._receive(self.sock, buffer)

    def receive_beside(self, buffer: memoryview) -> tuple[int, int, Address, int] | None:
        """The same from `side`. A train may have data in it: see `put_back`."""
        return self._receive(self.side, buffer) if self.side is not None else None

    def put_back(self, data: bytes, size: int, address: Address, ecn: int) -> None:
        """Have `receive_into` bring this next."""
        self._back.append((data, size, address, ecn))

    def _receive(self, sock: socket.socket, buffer: memoryview) -> tuple[int, int, Address, int] | None:
        for _ in range(ERRORS_PER_READ):
            try:
                count, control, _, address = sock.recvmsg_into((buffer,), ANCILLARY)
            except BlockingIOError:
                return None
            except OSError as error:  # an ICMP error about something sent before
                self.dropped[f"told: {errno.errorcode.get(error.errno or 0, error.errno)}"] += 1
                continue
            size = ecn = 0
            for level, kind, data in control:
                if kind == UDP_GRO and level == socket.IPPROTO_UDP:
                    size = _INT.unpack_from(data)[0]
                elif kind in (IP_TOS, socket.IPV6_TCLASS):
                    ecn = data[0] & 3  # IP_TOS is one byte; the class is an int, little-endian here
            return count, size, address, ecn
        return None


def _shown(address: Address) -> str:
    """The host, an IPv4 address as such and not mapped (RFC 4291 §2.5.5.2)."""
    host = str(address[0])
    return host.removeprefix("::ffff:") if "." in host else host


def _join(sock: socket.socket, mark: int) -> None:
    """What must be set before a socket is bound. Raises OSError."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if mark:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)


def _set(sock: socket.socket, level: int, option: int, value: int) -> bool:
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True
