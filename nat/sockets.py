"""The one place where sockets that leave this host are made.

All of them carry the bypass mark, so that the policy rule that sends everything else into the TUN leaves them
alone; where an exit is tied to an interface they are bound to it too, which also escapes another program's TUN.
"""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress
from socket import SocketType

__all__ = ["Underlay", "family_of", "literal", "sockaddr", "text_of"]

STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
DATAGRAM = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
RAW = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC

AF_INET = int(socket.AF_INET)
AF_INET6 = int(socket.AF_INET6)
SO_MARK = socket.SO_MARK

# What the kernel would do with a packet: linux/rtnetlink.h
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
NLM_F_REQUEST = 1
RTA_DST, RTA_MARK = 1, 16
HERE = frozenset((2, 3, 4, 5))  # rtm_type: RTN_LOCAL; RTN_BROADCAST, RTN_ANYCAST, RTN_MULTICAST
MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 §2.5.5.2
_NLMSG = struct.Struct("=IHHII")
_RTMSG = struct.Struct("=8BI")  # family, length of dst, src, tos, table, protocol, scope, type, flags
_RTATTR = struct.Struct("=HH")


def family_of(address: bytes) -> int:
    """AF_INET for 4 bytes, AF_INET6 for 16."""
    return AF_INET if len(address) == 4 else AF_INET6


def text_of(address: bytes) -> str:
    """An address as people write it."""
    return socket.inet_ntop(family_of(address), address)


def literal(name: str) -> bytes | None:
    """The 4 or 16 bytes of an address in its usual notation; None for a name."""
    try:
        return socket.inet_pton(AF_INET6 if ":" in name else AF_INET, name)
    except (OSError, ValueError):
        return None


def sockaddr(address: bytes, port: int) -> tuple[str, int]:
    """What `connect` and `sendto` take."""
    return text_of(address), port


class Underlay:
    """Makes marked, non-blocking sockets. `mark` 0 makes plain ones (no TUN to escape)."""

    def __init__(self, mark: int = 0) -> None:
        self.mark = mark
        self._routes: SocketType | None = None  # netlink, for questions about routes
        self._asked = 0

    def _made(self, family: int, kind: int, protocol: int, device: str) -> SocketType:
        made = SocketType(family, kind, protocol)
        try:
            if self.mark:
                made.setsockopt(socket.SOL_SOCKET, SO_MARK, self.mark)
            if device:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        except OSError:
            made.close()
            raise
        return made

    def tcp(self, family: int, device: str = "") -> SocketType:
        """A stream socket."""
        return self._made(family, STREAM, 0, device)

    def udp(self, family: int, device: str = "") -> SocketType:
        """A datagram socket."""
        return self._made(family, DATAGRAM, 0, device)

    def is_own(self, address: bytes) -> bool:
        """Whether what is sent to an address of 4 or 16 bytes would come to this host, or to all on a link.

        Its routes say so: an address may be the host's without being on an interface (a local route of a whole
        prefix, "AnyIP"). An address without a route is not.
        """
        if address.startswith(MAPPED) and len(address) == 16:
            address = address[12:]
        if not any(address):
            return True  # a connect to "unspecified" goes to loopback
        with suppress(OSError):
            return self._kind(address) in HERE
        return self._goes_by_itself(address)

    def _kind(self, address: bytes) -> int:
        """The type of the route there, 0 for none. Raises OSError where the kernel does not tell."""
        size = 8 * len(address)
        body = _RTMSG.pack(family_of(address), size, 0, 0, 0, 0, 0, 0, 0)
        body += _RTATTR.pack(_RTATTR.size + len(address), RTA_DST) + address
        body += _RTATTR.pack(_RTATTR.size + 4, RTA_MARK) + self.mark.to_bytes(4, sys.byteorder)
        if self._routes is None:
            self._routes = SocketType(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._asked = (self._asked + 1) & 0xFFFFFFFF
        head = _NLMSG.pack(_NLMSG.size + len(body), RTM_GETROUTE, NLM_F_REQUEST, self._asked, 0)
        self._routes.send(head + body)
        while True:  # the answer is there at once; that of an earlier question may be in front of it
            answer = self._routes.recv(4096, socket.MSG_DONTWAIT)
            _, kind, _, number, _ = _NLMSG.unpack_from(answer)
            if number == self._asked:
                return answer[_NLMSG.size + 7] if kind == RTM_NEWROUTE else 0

    def _goes_by_itself(self, address: bytes) -> bool:
        """Whether what is sent there is sent from there: true of addresses on interfaces."""
        sock = self.udp(family_of(address))
        try:
            sock.connect(sockaddr(address, 9))  # sends nothing
            return socket.inet_pton(family_of(address), sock.getsockname()[0].partition("%")[0]) == address
        except OSError:
            return False
        finally:
            sock.close()

    def icmp(self, family: int, device: str = "") -> SocketType:
        """A raw ICMP (or ICMPv6) socket."""
        protocol = socket.IPPROTO_ICMP if family == AF_INET else socket.IPPROTO_ICMPV6
        return self._made(family, RAW, protocol, device)
