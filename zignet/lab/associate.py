"""The datagram half of the lab's SOCKS5 proxy (RFC 1928 §7), with whole trains of datagrams per call."""

from __future__ import annotations

import socket
import struct
from socket import SocketType

from nat.loop import ERROR, READ, Handler, Loop

__all__ = ["UDP_GRO", "UDP_SEGMENT", "Association", "trains"]

UDP_SEGMENT, UDP_GRO = 103, 104  # linux/udp.h
SO_RCVBUFFORCE, SO_SNDBUFFORCE = 33, 32  # asm-generic/socket.h
NAME = 3  # RFC 1928 §5, DOMAINNAME
HEADER = {1: 10, 4: 22}  # bytes before the payload, by address type
MAX_TRAIN = 64  # datagrams of one UDP_SEGMENT call
DATAGRAM = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
BUFFER = 1 << 22


def trains(socket_: SocketType, data: bytearray) -> tuple[memoryview, int, tuple[str, int]]:
    """One receive: the bytes, the size of each datagram in them (UDP_GRO), and their sender."""
    count, extra, _, sender = socket_.recvmsg_into([data], 64)
    size = count
    for level, kind, value in extra:
        if level == socket.IPPROTO_UDP and kind == UDP_GRO:
            (size,) = struct.unpack("i", value[:4])
    return memoryview(data)[:count], size, sender[:2]


class Association(Handler):
    """Two sockets: one for the client, and one whose port the far ends see. Lives as long as `control`."""

    def __init__(self, loop: Loop, control: SocketType) -> None:
        self.loop = loop
        self.control = control
        self.family = control.family
        self.inner = self.bind(control.getsockname()[0], self.family)
        self.outer: dict[int, SocketType] = {}
        self.bound: tuple[str, int] = self.inner.getsockname()[:2]
        self.client: tuple[str, int] | None = None
        self.data = bytearray(1 << 16)
        loop.watch(self.inner.fileno(), self, READ)
        loop.hand_over(control.fileno(), Control(self))

    def bind(self, host: str, family: int) -> SocketType:
        """A datagram socket with room for bursts."""
        made = SocketType(family, DATAGRAM)
        made.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
            try:
                made.setsockopt(socket.SOL_SOCKET, option, BUFFER)
            except PermissionError:
                pass
        made.bind((host, 0))
        return made

    def on_event(self, mask: int) -> None:
        """From the client: strip the header of each, and send runs to one far end in one call."""
        for _ in range(16):
            try:
                view, size, self.client = trains(self.inner, self.data)
            except BlockingIOError:
                return
            except OSError:
                continue
            start, end = 0, len(view)
            while start < end:
                length = 0
                if end - start > 4 and view[start + 2] == 0:
                    length = (
                        7 + view[start + 4] if view[start + 3] == NAME else HEADER.get(view[start + 3], 0)
                    )
                header = bytes(view[start : start + length])
                run: list[memoryview] = []
                while start < end and len(run) < MAX_TRAIN and self.data.startswith(header, start, end):
                    run.append(view[start + length : start + size])
                    start += size
                if length and len(header) == length:  # else a fragment or nonsense
                    self.send(header, run)

    def abort(self) -> None:
        """A fault of the proxy's own."""
        self.close()

    def send(self, header: bytes, run: list[memoryview]) -> None:
        """Datagrams of one size (the last may be shorter) to the far end that the header names."""
        if header[3] == NAME:  # by the hosts file: nothing of a lab waits long for that
            try:
                port = int.from_bytes(header[-2:], "big")
                found = socket.getaddrinfo(header[5:-2].decode(), port, type=socket.SOCK_DGRAM)[0]
            except (OSError, UnicodeError):
                return
            family, far = found[0], found[4][:2]
        else:
            family = socket.AF_INET if header[3] == 1 else socket.AF_INET6
            far = (socket.inet_ntop(family, header[4:-2]), int.from_bytes(header[-2:], "big"))
        outer = self.outer.get(family)
        if outer is None:
            outer = self.outer[family] = self.bind("", family)
            self.loop.watch(outer.fileno(), Outer(self, outer), READ)
        extra = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", len(run[0])))] if len(run) > 1 else []
        try:
            outer.sendmsg(run, extra, 0, far)
        except OSError:
            return  # datagrams may be lost

    def back(self, outer: SocketType) -> None:
        """From a far end to the client, each with its header."""
        view, size, far = trains(outer, self.data)
        if self.client is None:
            return
        packed = socket.inet_pton(outer.family, far[0])
        kind = 1 if len(packed) == 4 else 4
        header = bytes((0, 0, 0, kind)) + packed + struct.pack(">H", far[1])
        pieces = [view[start : start + size] for start in range(0, len(view), max(size, 1))]
        most = max(1, 65000 // (size + len(header)))
        for start in range(0, len(pieces), most):
            parts = [part for piece in pieces[start : start + most] for part in (header, piece)]
            segment = struct.pack("H", size + len(header))
            extra = [(socket.IPPROTO_UDP, UDP_SEGMENT, segment)] if len(parts) > 2 else []
            try:
                self.inner.sendmsg(parts, extra, 0, self.client)
            except OSError:
                return

    def close(self) -> None:
        """The control connection has ended, and the relay with it."""
        for resource in (self.control, self.inner, *self.outer.values()):
            self.loop.close(resource)


class Control(Handler):
    """Watches the TCP connection that the association hangs on."""

    def __init__(self, association: Association) -> None:
        self.association = association

    def on_event(self, mask: int) -> None:
        """Only its end is of interest."""
        try:
            ended = bool(mask & ERROR) or self.association.control.recv(4096) == b""
        except BlockingIOError:
            return
        except OSError:
            ended = True
        if ended:
            self.association.close()

    def abort(self) -> None:
        """A fault of the proxy's own."""
        self.association.close()


class Outer(Handler):
    """The far side of an association, for one address family."""

    def __init__(self, association: Association, outer: SocketType) -> None:
        self.association = association
        self.outer = outer

    def on_event(self, mask: int) -> None:
        """From far ends."""
        for _ in range(16):
            try:
                self.association.back(self.outer)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of an earlier datagram

    def abort(self) -> None:
        """A fault of the proxy's own."""
        self.association.close()
