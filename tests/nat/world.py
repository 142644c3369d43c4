"""An engine without root: its TUN is a socket pair, its clock can be pushed, its aliases are 127.99.0.0/16.

The test plays the applications' kernel: it puts packets in with `Device.put` and takes out what the engine
writes. Since all of 127/8 is this host's, a test can also connect to the engine's listener *from an alias*,
with a real socket: that is the connection that the kernel would have made of the rewritten packets.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet as Scapy
from scapy.utils import checksum as scapy_checksum

from nat.engine import Engine
from nat.exit import Dial, Reason, Refusal, Route, Target, UdpDirect
from nat.loop import Loop
from nat.settings import Settings
from nat.sockets import Underlay
from nat.table import AliasPool

VIRTIO = struct.Struct("=BBHHHH")
NO_VIRTIO = bytes(10)
APP4, FAR4 = "100.64.0.1", "203.0.113.5"
APP6, FAR6 = "fd00::1", "2001:db8::5"
ALIAS4 = bytes((127, 99, 0, 0))
ALIAS6 = socket.inet_pton(socket.AF_INET6, "fd00:0:0:ffff::")
SYN, ACK, RST, FIN, PSH = "S", "A", "R", "F", "P"


class Written(NamedTuple):
    """A packet that the engine wrote."""

    header: bytes  # its virtio_net_hdr, or b""
    raw: bytes

    @property
    def packet(self) -> Scapy:
        """As scapy reads it."""
        return IP(self.raw) if self.raw[0] >> 4 == 4 else IPv6(self.raw)


class Device:
    """A TUN whose other end is the test."""

    def __init__(self, header: int = 0) -> None:
        self.header = header
        self.name = "pair"
        self.mtu = 1500
        self.disabled = 0
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._ours, self._theirs):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

    def fileno(self) -> int:
        return self._ours.fileno()

    def disable_offload(self) -> None:
        self.disabled += 1

    def put(self, packet: Scapy | bytes, header: bytes = NO_VIRTIO) -> None:
        """The kernel gives the engine a packet."""
        self._theirs.send((header if self.header else b"") + bytes(packet))

    def take(self) -> Written | None:
        """The next packet that the engine has written, if there is one."""
        try:
            data = self._theirs.recv(1 << 17)
        except BlockingIOError:
            return None
        return Written(data[: self.header], data[self.header :])

    def vanish(self) -> None:
        """As if the interface had been deleted."""
        self._theirs.close()

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


class LabLoop(Loop):
    """A loop that tests take turns of, and whose time-outs they can bring about."""

    def __init__(self) -> None:
        super().__init__()
        self.queues: list[Any] = []

    def expiry(self, delay_s: float, expired: Callable[[Any], None]) -> Any:
        queue = super().expiry(delay_s, expired)
        self.queues.append(queue)
        return queue

    def turn(self) -> None:
        """One turn, with what is there."""
        self.soon(self.stop)
        self.run()

    def until(self, condition: Callable[[], Any], seconds: float = 10.0) -> Any:
        """Turn until something is true; returns it."""
        deadline = time.monotonic() + seconds
        while True:
            result = condition()
            if result:
                return result
            assert time.monotonic() < deadline, "it did not happen"
            self.call_later(0.002, self.stop)
            self.run()

    def settle(self, turns: int = 4) -> None:
        """Turn a few times: all that can happen at once has happened then."""
        for _ in range(turns):
            self.turn()

    def pass_time(self, seconds: float) -> None:
        """As if so much time had passed, for all that shares a delay."""
        now = time.monotonic() + seconds
        for queue in self.queues:
            queue.sweep(now)


@dataclass(frozen=True)
class Way:
    """An exit of a test: wherever a flow wants to go, it goes to one loopback address; or is refused."""

    name: str = "way"
    to: tuple[str, int] | None = None
    refusal: Refusal | None = None
    handshake: Callable[[], Any] | None = field(default=None, compare=False)
    datagrams: Any = field(default_factory=UdpDirect, compare=False)

    def tcp(self, target: Target) -> Dial | Refusal:
        if self.refusal is not None:
            return self.refusal
        shake = self.handshake() if self.handshake is not None else None
        if self.to is None:
            return Dial(target.address, target.port, shake)
        return Dial(packed(self.to[0]), self.to[1], shake)

    def udp(self) -> Any:
        if self.refusal is not None:
            return self.refusal
        return self.datagrams() if callable(self.datagrams) else self.datagrams


BLOCK = Way("block", refusal=Refusal(Reason.PROHIBITED, "a rule"))


class Rules:
    """A chooser of a test: one way out for all, or one for each name (then the name is needed)."""

    def __init__(self, default: Way, names: dict[str, Way] | None = None, by_name: bool = False) -> None:
        self.default = default
        self.names = names or {}
        self.by_name = by_name
        self.asked: list[tuple[int, str, int, str, int, str | None]] = []

    def choose(
        self, protocol: int, source: bytes, source_port: int, target: bytes, port: int, name: str | None
    ) -> Route | None:
        self.asked.append((protocol, text(source), source_port, text(target), port, name))
        if name is None and self.names:
            return None
        way = self.names.get(name or "", self.default)
        return Route(way, f"to {way.name}", self.by_name and bool(name))


class World:
    """An engine, the device it reads, and the clock it lives by."""

    def __init__(
        self,
        chooser: Any = None,
        settings: Settings | None = None,
        header: int = 0,
        alias4: tuple[bytes, int] = (ALIAS4, 16),
        super_datagrams: bool = False,
    ) -> None:
        self.loop = LabLoop()
        self.device = Device(header)
        self.rules = chooser or Rules(Way())
        self.engine = Engine(
            self.loop,
            self.device,
            Underlay(0),
            self.rules,
            {4: AliasPool(*alias4), 16: AliasPool(ALIAS6, 64)},
            settings or Settings(),
            super_datagrams=super_datagrams,
        )
        self.gone: list[str] = []
        self.engine.gateway.gone = self.vanished
        self.listener4 = self.engine.listen(packed("127.0.0.1"))
        self.listener6 = self.engine.listen(packed("::1"))
        self.engine.start()

    def vanished(self, why: str) -> None:
        self.gone.append(why)
        self.loop.forget(self.device.fileno())

    @property
    def table(self) -> Any:
        return self.engine.table

    def give(self, packet: Scapy | bytes, header: bytes = NO_VIRTIO) -> list[Written]:
        """Put one packet in; what the engine writes at once."""
        self.device.put(packet, header)
        self.loop.turn()
        return self.written()

    def written(self) -> list[Written]:
        """All that the engine has written and nobody has taken."""
        return list(iter(self.device.take, None))

    def answer(self, seconds: float = 10.0) -> Written:
        """The next packet that the engine writes, however long it takes."""
        written: Written = self.loop.until(self.device.take, seconds)
        return written

    def flow(self) -> Any:
        """The only live flow."""
        (flow,) = self.engine.flows()
        return flow

    def connect(self, syn: Scapy, timeout: float = 5.0) -> socket.socket:
        """The kernel's side of a flow whose rewritten SYN is `syn`: connects to the listener from the alias."""
        made = socket.socket(socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(timeout)
        made.bind((syn.src, syn.sport))
        made.connect((syn.dst, syn.dport))
        return made

    def close(self) -> None:
        self.engine.close()
        self.loop.turn()
        self.device.close()
        self.loop.dispose()


@contextmanager
def world(*args: Any, **kwargs: Any) -> Iterator[World]:
    """An engine for the length of a block."""
    made = World(*args, **kwargs)
    try:
        yield made
    finally:
        made.close()


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def transport_at(packet: Scapy) -> int:
    """Where the transport header starts, by scapy's account."""
    layer = packet
    at = 0
    while not str(layer.name).startswith(("TCP", "UDP", "ICMP")):
        at += len(layer) - len(layer.payload)
        layer = layer.payload
    return at


def sums_right(raw: bytes) -> bool:
    """Whether scapy computes every checksum of a packet just as it stands there."""
    packet = IP(raw) if raw[0] >> 4 == 4 else IPv6(raw)
    layer: Scapy = packet
    while layer and layer.name not in ("IP in ICMP", "IPv6 in ICMPv6", "Raw"):  # a quote is as it was sent
        for name in ("chksum", "cksum"):
            if name in layer.fields:
                delattr(layer, name)
        layer = layer.payload
    return bytes(packet) == raw


def completed(raw: bytes, start: int, offset: int) -> bytes:
    """What a network card makes of a NEEDS_CSUM packet: sums from `start` on, over what stands in the field."""
    at = start + offset
    value = scapy_checksum(raw[start:]) or 0xFFFF
    return raw[:at] + value.to_bytes(2, "big") + raw[at + 2 :]


def partial(packet: Scapy) -> tuple[bytes, bytes]:
    """(virtio_net_hdr, packet) as the kernel gives an unfinished checksum: only the pseudo-header is summed."""
    raw = bytes(packet)
    start = transport_at(packet.__class__(raw))
    protocol = 6 if packet.haslayer("TCP") else 17
    offset = 16 if protocol == 6 else 6
    addresses = raw[12:20] if raw[0] >> 4 == 4 else raw[8:40]
    pseudo = addresses + struct.pack("!IHBB", len(raw) - start, 0, 0, protocol)
    value = scapy_checksum(pseudo) ^ 0xFFFF
    at = start + offset
    raw = raw[:at] + value.to_bytes(2, "big") + raw[at + 2 :]
    return VIRTIO.pack(1, 0, 0, 0, start, offset), raw


class Origin:
    """A TCP server on loopback; tests accept by hand."""

    def __init__(self, host: str = "127.0.0.1", backlog: int = 16) -> None:
        self.socket = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=backlog
        )
        self.socket.setblocking(False)
        self.address: tuple[str, int] = self.socket.getsockname()[:2]

    def accept(self) -> socket.socket | None:
        try:
            accepted, _ = self.socket.accept()
        except BlockingIOError:
            return None
        accepted.settimeout(5)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return accepted

    def close(self) -> None:
        self.socket.close()


def closed_port(host: str = "127.0.0.1") -> tuple[str, int]:
    """An address where nobody listens."""
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
        address: tuple[str, int] = one.getsockname()[:2]
        return address


def udp_server(host: str = "127.0.0.1") -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((host, 0))
    made.setblocking(False)
    return made


def received(sock: socket.socket, size: int = 1 << 16) -> Any:
    """One datagram with its sender, or None."""
    try:
        return sock.recvfrom(size)
    except BlockingIOError:
        return None


def read_some(sock: socket.socket, size: int = 1 << 16) -> bytes | None:
    """What a socket holds now: None for nothing, b"" at its end. A reset is raised."""
    patience = sock.gettimeout()
    sock.setblocking(False)
    try:
        return sock.recv(size)
    except BlockingIOError:
        return None
    finally:
        sock.settimeout(patience)


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))
