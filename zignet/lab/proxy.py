"""An upstream proxy for labs: SOCKS5 (RFC 1928, 1929) and HTTP CONNECT (RFC 9110 §9.3.6) on one port.

Run as `python -m zignet.lab.proxy HOST PORT [USERNAME:PASSWORD]`; prints `ready` when it listens. Names are
resolved by the system, that is by the lab's hosts file.
"""

from __future__ import annotations

import base64
import errno
import os
import signal
import socket
import struct
import sys
from socket import SocketType

from nat.loop import READ, WRITE, Handler, Loop
from zignet.lab.associate import Association
from zignet.lab.tunnel import BOTH, GONE, Tunnel, reset

__all__ = ["Proxy", "main"]

CONNECT, UDP_ASSOCIATE = 1, 3  # RFC 1928 §4
NO_AUTH, BY_PASSWORD, NOT_ACCEPTABLE = 0, 2, 0xFF
IPV4, NAME, IPV6 = 1, 3, 4
GENERAL_FAILURE, NET_UNREACHABLE, HOST_UNREACHABLE, REFUSED, NOT_SUPPORTED = 1, 3, 4, 5, 7
REPLY_OF = {
    errno.ECONNREFUSED: REFUSED,
    errno.EHOSTUNREACH: HOST_UNREACHABLE,
    errno.ETIMEDOUT: HOST_UNREACHABLE,
    errno.ENETUNREACH: NET_UNREACHABLE,
}
HTTP_OF = {errno.ETIMEDOUT: b"504 Gateway Timeout"}
NOWHERE = b"\x01\x00\x00\x00\x00\x00\x00"  # the bound address 0.0.0.0:0, in a reply
STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
MAX_REQUEST = 8192  # bytes


class Proxy(Handler):
    """The listener. `users` maps user names to passwords; empty means that anybody may."""

    def __init__(self, loop: Loop, host: str, port: int, users: dict[str, str] | None = None) -> None:
        self.loop = loop
        self.users = users or {}
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = SocketType(family, STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        self.socket.bind((host, port))
        self.socket.listen(4096)
        loop.watch(self.socket.fileno(), self, READ)

    def on_event(self, mask: int) -> None:
        """Accept all that wait."""
        for _ in range(64):
            try:
                fd, _ = self.socket._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            os.set_blocking(fd, False)
            end = SocketType(fileno=fd)
            self.loop.watch(fd, Client(self, end), BOTH)

    def abort(self) -> None:
        """One bad client does not end the listener."""


class Client(Handler):
    """A client before its tunnel stands: what it said so far, and what is expected next."""

    __slots__ = ("far", "gone", "held", "proxy", "socket", "stage")

    def __init__(self, proxy: Proxy, end: SocketType) -> None:
        self.proxy = proxy
        self.socket = end
        self.held = b""
        self.gone = False  # nothing more will come; what is held still counts
        self.far: Far | None = None
        self.stage = self.first_byte

    def on_event(self, mask: int) -> None:
        """More of the request."""
        if not mask & READ:
            return
        try:
            data = self.socket.recv(MAX_REQUEST)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(self.held) > MAX_REQUEST:
            self.close()
            return
        self.gone = bool(mask & GONE)
        self.held += data
        self.stage()

    def abort(self) -> None:
        """A fault of the proxy's own."""
        self.close()

    def close(self) -> None:
        """Give the client up."""
        self.proxy.loop.close(self.socket)
        if self.far is not None:
            self.proxy.loop.close(self.far.socket)

    # --- SOCKS5

    def first_byte(self) -> None:
        """5 is SOCKS; everything else is taken for HTTP."""
        self.stage = self.greeting if self.held[0] == 5 else self.http_head
        self.stage()

    def greeting(self) -> None:
        """VER, NMETHODS, METHODS (RFC 1928 §3)."""
        held = self.held
        if len(held) < 2 or len(held) < 2 + held[1]:
            return
        wanted = BY_PASSWORD if self.proxy.users else NO_AUTH
        offered = held[2 : 2 + held[1]]
        self.held = held[2 + held[1] :]
        if wanted not in offered:
            self.socket.send(bytes((5, NOT_ACCEPTABLE)))
            self.close()
            return
        self.socket.send(bytes((5, wanted)))
        self.stage = self.password if wanted == BY_PASSWORD else self.request
        if self.held:
            self.stage()

    def password(self) -> None:
        """VER, ULEN, UNAME, PLEN, PASSWD (RFC 1929 §2)."""
        held = self.held
        if len(held) < 2 or len(held) < 3 + held[1] or len(held) < 3 + held[1] + held[2 + held[1]]:
            return
        end_of_name = 2 + held[1]
        end = end_of_name + 1 + held[end_of_name]
        user, secret = held[2:end_of_name].decode(), held[end_of_name + 1 : end].decode()
        self.held = held[end:]
        welcome = self.proxy.users.get(user) == secret
        self.socket.send(bytes((1, 0 if welcome else 1)))
        if not welcome:
            self.close()
            return
        self.stage = self.request
        if self.held:
            self.stage()

    def request(self) -> None:
        """VER, CMD, RSV, ATYP, DST.ADDR, DST.PORT (RFC 1928 §4)."""
        held = self.held
        if len(held) < 5:
            return
        kind = held[3]
        start = 5 if kind == NAME else 4
        size = {IPV4: 4, IPV6: 16, NAME: held[4]}.get(kind)
        if size is None:
            self.refuse(0)
            return
        if len(held) < start + size + 2:
            return
        host = held[start : start + size]
        (port,) = struct.unpack_from(">H", held, start + size)
        self.held = held[start + size + 2 :]
        if held[1] == UDP_ASSOCIATE:
            self.associate()
        elif held[1] != CONNECT:
            self.socket.send(bytes((5, NOT_SUPPORTED, 0)) + NOWHERE)
            self.close()
        elif kind == NAME:
            self.dial_name(host.decode(), port)
        else:
            self.dial(socket.AF_INET if kind == IPV4 else socket.AF_INET6, host, port)

    def associate(self) -> None:
        """A relay of datagrams that lives as long as this connection (RFC 1928 §7)."""
        association = Association(self.proxy.loop, self.socket)
        address, port = association.bound
        packed = socket.inet_pton(association.family, address)
        kind = IPV4 if len(packed) == 4 else IPV6
        self.socket.send(bytes((5, 0, 0, kind)) + packed + struct.pack(">H", port))

    # --- HTTP

    def http_head(self) -> None:
        """CONNECT host:port, and the proxy's Basic credentials (RFC 9110 §9.3.6, §11.7)."""
        head, end, rest = self.held.partition(b"\r\n\r\n")
        if not end:
            return
        self.held = rest
        lines = head.split(b"\r\n")
        method, _, target = lines[0].partition(b" ")
        authority = target.rpartition(b" ")[0].decode()
        if method != b"CONNECT":
            self.answer_http(b"405 Method Not Allowed")
        elif self.proxy.users and not self.known(lines[1:]):
            self.answer_http(b'407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="lab"')
        else:
            host, _, port = authority.rpartition(":")
            self.dial_name(host.strip("[]"), int(port), http=True)

    def known(self, headers: list[bytes]) -> bool:
        """Whether the credentials are those of a user."""
        for line in headers:
            name, _, value = line.partition(b":")
            scheme, _, token = value.strip().partition(b" ")
            if name.lower() == b"proxy-authorization" and scheme.lower() == b"basic":
                user, _, secret = base64.b64decode(token).decode().partition(":")
                return self.proxy.users.get(user) == secret
        return False

    def answer_http(self, status: bytes) -> None:
        """A final answer."""
        self.socket.send(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
        self.close()

    # --- the far end

    def dial_name(self, host: str, port: int, http: bool = False) -> None:
        """Resolve, then dial the first address."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            self.refuse(errno.EHOSTUNREACH, http)
            return
        family, _, _, _, address = found[0]
        self.dial(family, socket.inet_pton(family, str(address[0])), port, http)

    def dial(self, family: int, host: bytes, port: int, http: bool = False) -> None:
        """Begin to connect."""
        self.stage = self.wait
        end = SocketType(family, STREAM)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.far = far = Far(self, end, http)
        code = end.connect_ex((socket.inet_ntop(family, host), port))
        if code not in (0, errno.EINPROGRESS):
            self.refuse(code, http)
            return
        self.proxy.loop.watch(end.fileno(), far, BOTH)

    def wait(self) -> None:
        """What the client says before the answer is the tunnel's."""

    def refuse(self, code: int, http: bool = False) -> None:
        """The connection could not be made."""
        if http:
            self.answer_http(HTTP_OF.get(code, b"502 Bad Gateway"))
            if self.far is not None:
                self.proxy.loop.close(self.far.socket)
            return
        self.socket.send(bytes((5, REPLY_OF.get(code, GENERAL_FAILURE), 0)) + NOWHERE)
        self.close()


class Far(Handler):
    """The socket towards the origin while it connects."""

    __slots__ = ("client", "http", "socket")

    def __init__(self, client: Client, end: SocketType, http: bool) -> None:
        self.client = client
        self.socket = end
        self.http = http

    def on_event(self, mask: int) -> None:
        """Connected, or not."""
        client = self.client
        code = 0
        if mask & ~(READ | WRITE) or not mask & WRITE:
            code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            client.refuse(code, self.http)
            return
        if not mask & WRITE:
            return
        try:
            client.socket.send(
                b"HTTP/1.1 200 Connection established\r\n\r\n" if self.http else b"\x05\x00\x00" + NOWHERE
            )
        except OSError:
            reset(self.socket)
            client.close()
            return
        tunnel = Tunnel(client.proxy.loop, client.socket, self.socket)
        tunnel.left.held = client.held
        if client.held or client.gone:
            tunnel.left.pump(True)
        if mask & READ:
            tunnel.right.on_event(mask)

    def abort(self) -> None:
        """A fault of the proxy's own."""
        self.client.close()


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM."""
    host, port, *users = arguments
    loop = Loop()
    Proxy(loop, host, int(port), dict(user.split(":", 1) for user in users))
    signal.signal(signal.SIGTERM, lambda *_: loop.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us, and will stop us
    print("ready", flush=True)
    loop.run()


if __name__ == "__main__":
    main(sys.argv[1:])
