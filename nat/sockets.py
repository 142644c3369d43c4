"""The one place where sockets that leave this host are made.

All of them carry the bypass mark, so that the policy rule that sends everything else into the TUN leaves them
alone; where an exit is tied to an interface they are bound to it too, which also escapes another program's TUN.
"""

from __future__ import annotations

import socket
from socket import SocketType

__all__ = ["Underlay", "family_of", "literal", "sockaddr", "text_of"]

STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
DATAGRAM = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
RAW = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC

AF_INET = int(socket.AF_INET)
AF_INET6 = int(socket.AF_INET6)
SO_MARK = socket.SO_MARK


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
        """Whether an address of 4 or 16 bytes is this host's: what is sent there is sent from there."""
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
