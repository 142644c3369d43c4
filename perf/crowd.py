"""Many peers in one process: each has a key and an address of its own, and they talk to one node.

Run in a namespace as `python -m perf.crowd JSON`; reads commands, one a line, and answers each with a line of JSON:

    connect A B   handshakes of those from A up to B, each confirmed by a keepalive; MTU challenges are answered
    ping          a ping through the tunnel from everyone who is connected, which the node's system answers
    listen S      nothing but answers to challenges and handshakes of the node, for S seconds

One socket has all the addresses: the kernel takes the whole of `NETWORK` as local, and each datagram says by IP_PKTINFO
which of them it comes from. Cookies are answered, so a node under load costs a peer one more round trip, as in life.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from typing import Any

from zignet.identity import SecretKey
from zignet.noise import (
    COOKIE_SIZE,
    NO_PSK,
    RESPONSE_SIZE,
    HandshakeError,
    InitiationPayload,
    Initiator,
    MacMaker,
    MessageType,
    Static,
    Suite,
    aead,
    nonce,
)
from zignet.wire import Answer, Challenge, Keepalive, parse_control

NETWORK = "198.18.0.0/15"  # RFC 2544: for benchmarks
FIRST = int.from_bytes(socket.inet_aton("198.18.0.1"))
PORT = 40_000
BUFFER = 32 << 20
AGAIN_S = 1.0  # what is not answered until then was lost

_DATA = struct.Struct("<IIQ")
_PKTINFO = struct.Struct("=I4s4s")
IP_PKTINFO = 8  # linux/in.h
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
PING = (
    bytes((1, 0, 0, 64)) + bytes((8, 0, 0xF7, 0xFF)) + bytes(4) + bytes(32)
)  # a frame: ICMP echo, its checksum


class Somebody:
    """One peer. Its index in all of its sessions is its number and the count of its handshakes."""

    __slots__ = (
        *("key", "static", "device", "way", "macs", "initiator", "since"),
        *("index", "send", "receive", "counter", "connected", "pongs"),
    )

    def __init__(self, number: int) -> None:
        secret = SecretKey.generate()
        self.key = secret.public.ed
        self.static = Static(secret.x)
        self.device = os.urandom(8)
        source = (FIRST + number).to_bytes(4)
        self.way = [(socket.IPPROTO_IP, IP_PKTINFO, _PKTINFO.pack(0, source, source))]
        self.macs: MacMaker | None = None
        self.initiator: Initiator | None = None
        self.since = 0.0
        self.index = 0  # the node's
        self.send: Any = None
        self.receive: Any = None
        self.counter = 0
        self.connected = False
        self.pongs = 0


class Crowd:
    """All of them."""

    def __init__(self, node: str, port: int, x: str, count: int, aes: bool = True) -> None:
        self.node = (node, port)
        self.x = bytes.fromhex(x)
        self.suite = Suite.AES if aes else Suite.CHACHA
        self.everyone = [Somebody(number) for number in range(count)]
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        for option in (SO_RCVBUFFORCE, SO_SNDBUFFORCE):
            self.socket.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        self.socket.bind(("0.0.0.0", PORT))
        self.epoll = select.epoll()
        self.epoll.register(self.socket, select.EPOLLIN)
        self.generation = 0  # of handshakes
        self.cookies = 0
        self.done: list[int] = []  # numbers whose handshake is over

    # --- commands

    def connect(self, first: int, last: int, at_once: int = 50) -> dict[str, Any]:
        """All messages are made before the time is taken."""
        started, ended, repeated = 0, 0, 0
        everyone = self.everyone[first:last]
        count = len(everyone)
        self.generation += 1
        for number, somebody in enumerate(everyone, first):
            self.begin(number, somebody)
        self.cookies, self.done = 0, []
        waiting: deque[int] = deque()
        begin = time.monotonic()
        while ended < count:
            while started < count and started - ended < at_once:
                self.initiate(everyone[started])
                waiting.append(started)
                started += 1
            self.hear(0.05)
            ended = len(self.done)
            now = time.monotonic()
            while waiting and (
                everyone[waiting[0]].initiator is None or now > everyone[waiting[0]].since + AGAIN_S
            ):
                number = waiting.popleft()
                if everyone[number].initiator is not None:
                    repeated += 1
                    self.initiate(everyone[number])
                    waiting.append(number)
        took = time.monotonic() - begin
        return {"per_second": count / took, "seconds": took, "cookies": self.cookies, "repeated": repeated}

    def ping(self) -> dict[str, Any]:
        """Data both ways: an echo request through the tunnel, the answer, and a keepalive for that."""
        for number, somebody in enumerate(self.everyone):
            if somebody.connected:
                self.seal(somebody, PING)
                if number % 100 == 99:
                    self.hear(0.0)
        until = time.monotonic() + 2.0
        while time.monotonic() < until and any(one.connected and not one.pongs for one in self.everyone):
            self.hear(0.05)
        return {"answered": sum(one.pongs > 0 for one in self.everyone)}

    def listen(self, seconds: float) -> dict[str, Any]:
        """Only what must be answered."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.hear(left)
        return {}

    # --- out

    def begin(self, number: int, somebody: Somebody) -> None:
        """A new handshake of one."""
        index = self.generation << 20 | (number + 1)
        payload = InitiationPayload(somebody.key, time.time_ns() // 1000, somebody.device, 1)
        somebody.initiator = Initiator.begin(somebody.static, self.x, NO_PSK, self.suite, index, payload)
        somebody.macs = MacMaker(self.x)

    def initiate(self, somebody: Somebody) -> None:
        """Send the initiation, with the cookie if there is one."""
        assert somebody.macs is not None
        assert somebody.initiator is not None
        somebody.since = time.monotonic()
        self.out(somebody, somebody.macs.add(somebody.initiator.message, somebody.since))

    def seal(self, somebody: Somebody, frame: bytes) -> None:
        """A data message."""
        sealed = somebody.send.encrypt(nonce(self.suite, somebody.counter), frame, None)
        self.out(somebody, _DATA.pack(MessageType.DATA, somebody.index, somebody.counter) + sealed)
        somebody.counter += 1

    def out(self, somebody: Somebody, message: bytes) -> None:
        while True:
            try:
                self.socket.sendmsg([message], somebody.way, 0, self.node)
                return
            except BlockingIOError:
                select.select([], [self.socket], [], 0.1)

    # --- in

    def hear(self, patience_s: float) -> None:
        """Whatever has come."""
        if not self.epoll.poll(patience_s):
            return
        for _ in range(256):
            try:
                message = self.socket.recv(2048)
            except BlockingIOError:
                return
            kind = message[0]
            at = 8 if kind == MessageType.RESPONSE else 4
            number = (int.from_bytes(message[at : at + 4], "little") - 1) & 0xFFFFF
            if number < len(self.everyone):
                self.take(number, self.everyone[number], kind, message)

    def take(self, number: int, somebody: Somebody, kind: int, message: bytes) -> None:
        if kind == MessageType.RESPONSE and len(message) == RESPONSE_SIZE:
            self.established(number, somebody, message)
        elif kind == MessageType.COOKIE and len(message) == COOKIE_SIZE:
            if somebody.macs is not None and somebody.macs.cookie_received(message, time.monotonic()):
                self.cookies += 1
                self.initiate(somebody)
        elif kind == MessageType.DATA and somebody.receive is not None:
            (counter,) = struct.unpack_from("<Q", message, 8)
            try:
                frame = somebody.receive.decrypt(nonce(self.suite, counter), message[16:], None)
            except Exception:  # of the session before this one
                return
            self.frame(somebody, frame, len(message))

    def established(self, number: int, somebody: Somebody, message: bytes) -> None:
        initiator = somebody.initiator
        if initiator is None:
            return
        try:
            initiator.finish(message)
        except HandshakeError:
            return
        somebody.send = aead(self.suite, initiator.keys.send)
        somebody.receive = aead(self.suite, initiator.keys.receive)
        somebody.index, somebody.counter, somebody.connected = initiator.remote_index, 0, True
        somebody.initiator = somebody.macs = None
        self.seal(somebody, Keepalive().encode())
        self.done.append(number)

    def frame(self, somebody: Somebody, frame: bytes, size: int) -> None:
        if frame[0] == 1:
            somebody.pongs += 1
            self.seal(somebody, Keepalive().encode())
        elif frame[0] == 0:
            message = parse_control(frame)
            if isinstance(message, Challenge):
                self.seal(somebody, Answer(message.token, message.path, size, PORT, bytes(16)).encode())


def main(arguments: str) -> None:
    crowd = Crowd(**json.loads(arguments))
    print("ready", flush=True)
    for line in sys.stdin:
        name, *words = line.split()
        numbers = (float(word) if "." in word else int(word) for word in words)
        print(json.dumps(getattr(crowd, name)(*numbers)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
