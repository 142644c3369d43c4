"""The far end of the bench: lean servers, so that what is measured is what lies between.

Run as `python -m zignet.bench.origin small|bulk`; prints `ready` when it listens, on all addresses. `small`
answers requests and echoes, `bulk` gives and takes streams and counts datagrams. Ports are in `PORTS`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from socket import SocketType
from typing import NamedTuple

from nat.loop import EDGE, READ, WRITE, Handler, Loop
from zignet.lab.associate import UDP_GRO, trains

__all__ = ["PORTS", "REQUEST", "RESPONSE", "main"]


class Ports(NamedTuple):
    """Where each server listens."""

    request: int = 8080
    echo: int = 8007
    address: int = 8011  # tells the client's address, to see which way it came
    sink: int = 5001
    source: int = 5002
    datagrams: int = 5003


PORTS = Ports()
REQUEST = b"GET / HTTP/1.0\r\nHost: origin.example\r\n\r\n"
BODY = b"hello from the origin"
RESPONSE = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)

STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
BLOCK = 1 << 20  # bytes of one sendfile or recv
RECEIVE_BUFFER = 8 << 20
ACK_EVERY = 32 * 1200  # bytes of datagrams


class Listener(Handler):
    """Accepts and hands each connection to `begin`."""

    def __init__(
        self, loop: Loop, port: int, begin: Callable[[SocketType], None], defer: bool = False
    ) -> None:
        self.begin = begin
        self.socket = SocketType(socket.AF_INET, STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if defer:  # wake only when the request is there, so that most connections cost four system calls
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 3)
        self.socket.bind(("", port))
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
            self.begin(SocketType(fileno=fd))

    def abort(self) -> None:
        """One bad connection does not end the listener."""


class Conversation(Handler):
    """A connection: `serve` is called when something has come; it says whether to go on."""

    def __init__(self, loop: Loop, end: SocketType, serve: Callable[[SocketType, int], bool]) -> None:
        self.loop = loop
        self.socket = end
        self.serve = serve

    def on_event(self, mask: int) -> None:
        """Serve until there is nothing to do."""
        try:
            going = self.serve(self.socket, mask)
        except BlockingIOError:
            return
        except OSError:
            going = False
        if not going:
            self.loop.close(self.socket)

    def abort(self) -> None:
        """A fault of the server's own."""
        self.loop.close(self.socket)


def answer(end: SocketType, mask: int = 0) -> bool:
    """One request, one response, and this side closes first."""
    if end.recv(4096):
        end.send(RESPONSE)
    return False


def echo(end: SocketType, mask: int) -> bool:
    """Send back what came."""
    data = end.recv(65536)
    if data:
        end.send(data)
    return bool(data)


def give(memory: int) -> Callable[[SocketType, int], bool]:
    """Send zeros without end, from the page cache."""

    def serve(end: SocketType, mask: int) -> bool:
        os.sendfile(end.fileno(), memory, 0, BLOCK)
        return True

    return serve


class Sink:
    """Takes a stream to its end, then answers with (bytes, first, last) in monotonic seconds."""

    def __init__(self, buffer: bytearray) -> None:
        self.buffer = buffer
        self.total = 0
        self.first = 0.0

    def __call__(self, end: SocketType, mask: int) -> bool:
        """A part of the stream."""
        for _ in range(4):
            count = end.recv_into(self.buffer)
            now = time.monotonic()
            if count == 0:
                end.send(struct.pack("<Qdd", self.total, self.first, now))
                return False
            self.first = self.first or now
            self.total += count
        return True


class Datagrams(Handler):
    """Counts datagrams, and now and then tells their sender how many bytes of its run have come."""

    def __init__(self, loop: Loop, port: int) -> None:
        self.socket = SocketType(
            socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
        self.socket.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, 33, RECEIVE_BUFFER)  # SO_RCVBUFFORCE
        self.socket.bind(("", port))
        self.buffer = bytearray(1 << 16)
        self.runs: dict[bytes, list[int]] = {}  # run → [bytes, bytes acknowledged]
        loop.watch(self.socket.fileno(), self, READ)

    def on_event(self, mask: int) -> None:
        """Take all that waits. The first 8 bytes of each datagram name its run."""
        for _ in range(64):
            try:
                view, _, sender = trains(self.socket, self.buffer)
            except BlockingIOError:
                return
            run = self.runs.setdefault(bytes(view[:8]), [0, 0])
            run[0] += len(view)
            if run[0] - run[1] >= ACK_EVERY or len(view) == 8:  # 8 bytes alone are a question
                run[1] = run[0]
                self.socket.sendto(struct.pack("<Q", run[0]), sender)

    def abort(self) -> None:
        """One bad datagram does not end the counter."""


def small(loop: Loop) -> None:
    """Requests, echoes, and who asks."""

    def begin_answer(end: SocketType) -> None:
        try:
            answer(end)
            loop.close(end)
        except BlockingIOError:
            loop.watch(end.fileno(), Conversation(loop, end, answer), READ)
        except OSError:
            loop.close(end)

    def begin_echo(end: SocketType) -> None:
        loop.watch(end.fileno(), Conversation(loop, end, echo), READ)

    def begin_address(end: SocketType) -> None:
        end.send(json.dumps(end.getpeername()[0]).encode())
        loop.close(end)

    Listener(loop, PORTS.request, begin_answer, defer=True)
    Listener(loop, PORTS.echo, begin_echo)
    Listener(loop, PORTS.address, begin_address)


def bulk(loop: Loop) -> None:
    """Streams and datagrams."""
    memory = os.memfd_create("zeros")
    os.ftruncate(memory, BLOCK)
    buffer = bytearray(BLOCK)
    serve = give(memory)

    def begin_source(end: SocketType) -> None:
        loop.watch(end.fileno(), Conversation(loop, end, serve), WRITE)

    def begin_sink(end: SocketType) -> None:
        loop.watch(end.fileno(), Conversation(loop, end, Sink(buffer)), READ & ~EDGE)

    Listener(loop, PORTS.source, begin_source)
    Listener(loop, PORTS.sink, begin_sink)
    Datagrams(loop, PORTS.datagrams)


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM."""
    loop = Loop()
    {"small": small, "bulk": bulk}[arguments[0]](loop)
    signal.signal(signal.SIGTERM, lambda *_: loop.stop())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us, and will stop us
    print("ready", flush=True)
    loop.run()


if __name__ == "__main__":
    main(sys.argv[1:])
