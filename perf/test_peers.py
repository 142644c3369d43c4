"""What our own code adds to the seal and the opening of a packet, beside the bare AEAD calls in the same run.

pytest perf/test_peers.py --benchmark-enable          the table of pytest-benchmark
pytest perf/test_peers.py -s -k ratio                 the ratio, in one line for each suite and kind of packet
pytest perf/test_peers.py -s -k services              the same path with and without rules about services

"Seal" is `Sender.outward`, from the packet in the gateway's buffer to the call of the transport, which throws the
datagrams away; "open" is `Receiver.on_event`, from the datagrams that the transport has brought to the write, into
/dev/null. Link and tunnel are real, and told of every batch. What the harness itself costs (it puts the packet, and the
datagrams, where they are expected) is measured and taken off. "Bare" is one `encrypt_into` and one `decrypt_into` of
`cryptography` for each frame, between two buffers that stay in the processor's cache.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest

from nat.checksum import partial_checksum
from zignet.identity import SecretKey
from zignet.noise import Suite, aead
from zignet.packet_path import compiled_modules
from zignet.peers.peer import Link, Peer
from zignet.peers.receive import Opening, Receiver
from zignet.peers.send import Sealing, Sender
from zignet.peers.session import Session
from zignet.peers.tunnel import Tunnel

OWN4, OWN6 = bytes((100, 64, 0, 1)), bytes(15) + b"\x01"
PEER4, PEER6 = bytes((100, 64, 0, 2)), bytes(15) + b"\x02"
ADDRESS = ("192.0.2.1", 51830)
VIRTIO = struct.Struct("=BBHHHH")
HEADER = 10  # bytes of a virtio_net_hdr
ROOM = 1400  # bytes of a frame: one segment
TCP = 32  # bytes of its header, with a timestamp
PIECE = ROOM - 4 - TCP
ROUNDS = 9
KINDS = {  # -> bytes of payload, calls in a round
    "super-packet": (45 * PIECE, 20),
    "segment": (PIECE, 500),
    "acknowledgement": (0, 500),
}
DATAGRAM = "datagram"
SUITES = pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name)


class Nowhere:
    """A transport that throws away what is sent, or keeps it for another end."""

    def __init__(self) -> None:
        self.kept: list[tuple[bytes, int]] | None = None
        self.queue: list[tuple[bytes, int]] = []

    def send(self, datagrams: memoryview, size: int, address: Any, ecn: int) -> None:
        if self.kept is not None:
            self.kept.append((bytes(datagrams), size))

    def receive_into(self, buffer: memoryview) -> tuple[int, int, Any, int] | None:
        if not self.queue:
            return None
        data, size = self.queue.pop()
        buffer[: len(data)] = data
        return len(data), size, ADDRESS, 0


class Tun:
    """A TUN that takes all kinds of packets, and forgets them."""

    header, offload = HEADER, 0x67

    def __init__(self) -> None:
        self.file = open("/dev/null", "wb")  # noqa: SIM115 -- as long as the test lives

    def fileno(self) -> int:
        return self.file.fileno()


class Way:
    """A sender, and a receiver that opens what it has sealed: one packet, again and again."""

    def __init__(self, suite: Suite, kind: str) -> None:
        payload, self.times = (1_200, 500) if kind == DATAGRAM else KINDS[kind]
        self.frames = max(1, payload // PIECE)
        self.frame = min(ROOM, 4 + TCP + payload)
        self.key = os.urandom(32)
        self.cipher = aead(suite, self.key)
        self.loop: Any = SimpleNamespace(now=1.0, turns=0)
        self.wire = Nowhere()
        self.raw = bytearray(HEADER + 65_600)
        self.packet = datagram(payload) if kind == DATAGRAM else packet(payload)
        self.head = self.packet[: HEADER + 20 + (8 if kind == DATAGRAM else TCP)]
        self.length = len(self.packet) - HEADER
        link = self.link(suite)
        self.sender = Sender(self.loop, self.raw, HEADER, self.wire, OWN4, OWN6)
        self.sender.peers = {PEER4: link.peer}
        self.receiver = Receiver(self.loop, self.wire, Tun(), {7: link.tunnel.sending.opening})

    def link(self, suite: Suite) -> Any:
        """Of a peer with one session, whose keys are the same in both directions."""
        sealing, opening = Sealing(suite, self.key, 7), Opening(suite, self.key, 7)
        tunnel = Tunnel(None, bytes(32))  # type: ignore[arg-type]
        peer = Peer(SecretKey(bytes(32)).public, None, PEER4, PEER6)
        hub: Any = SimpleNamespace(arm=lambda link: None)
        link: Any = Link(hub, peer, tunnel, None)  # type: ignore[arg-type]
        tunnel.sending = Session(tunnel, (sealing, opening), (7, 7), suite, bytes(8), ADDRESS, True, 0.0)
        opening.session, opening.peer = tunnel.sending, link
        link.address, link.room = ADDRESS, ROOM
        link.between(OWN4, OWN6)
        peer.link = link
        return link

    # --- what is measured

    def seal(self) -> None:
        """One packet."""
        self.place()
        self.sender.outward(HEADER, self.length)

    def place(self) -> None:
        """The harness of it: the headers, which the sender has written over."""
        self.raw[: len(self.head)] = self.head

    def sealed(self, count: int) -> list[tuple[bytes, int]]:
        """What the transport gets of so many packets, payload and all."""
        self.wire.kept = kept = []
        for _ in range(count):
            self.raw[: len(self.packet)] = self.packet
            self.sender.outward(HEADER, self.length)
        self.wire.kept = None
        return kept[::-1]

    def open(self) -> None:
        """One event for each receive call that waits."""
        self.receiver.on_event(1)

    def prepare(self, count: int) -> None:
        """Have so many receive calls wait, of counters that were not seen yet."""
        self.wire.queue = self.sealed(count)

    def bare(self) -> tuple[Callable[[], object], Callable[[], object]]:
        """The AEAD calls for one frame: to seal, and to open."""
        plain, sealed = memoryview(bytearray(self.frame)), memoryview(bytearray(self.frame + 16))
        nonce = bytearray(12)
        seal = partial(self.cipher.encrypt_into, nonce, plain, None, sealed)
        open_ = partial(self.cipher.decrypt_into, nonce, sealed, None, plain)
        seal()
        return seal, open_


def packet(payload: int) -> bytes:
    """A TCP packet from us to the peer as the kernel gives it: checksum left out, cut at PIECE if it is larger."""
    total = 20 + TCP + payload
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, total, 0, 0x4000, 64, 6, 0, OWN4, PEER4)
    checksum = partial_checksum(OWN4, PEER4, 6, TCP + payload)
    tcp = struct.pack("!HHIIBBHHH", 40_000, 443, 5, 6, TCP << 2, 0x10, 500, checksum, 0)
    options = bytes.fromhex("0101080a0000000100000002")
    large = payload > PIECE
    virtio = VIRTIO.pack(1, int(large), 20 + TCP if large else 0, PIECE if large else 0, 20, 16)
    return virtio + ip + tcp + options + os.urandom(payload)


def datagram(payload: int) -> bytes:
    """A UDP packet, in the same way."""
    total = 28 + payload
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, total, 0, 0x4000, 64, 17, 0, OWN4, PEER4)
    checksum = partial_checksum(OWN4, PEER4, 17, 8 + payload)
    udp = struct.pack("!HHHH", 40_000, 443, 8 + payload, checksum)
    return VIRTIO.pack(1, 0, 0, 0, 20, 6) + ip + udp + os.urandom(payload)


@pytest.mark.benchmark(group="peers")
@SUITES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["seal", "open", "bare seal", "bare open"])
def test_peers(benchmark: Any, what: str, kind: str, suite: Suite) -> None:
    way = Way(suite, kind)
    if what == "seal":
        benchmark(way.seal)
    elif what == "open":
        benchmark.pedantic(way.open, setup=partial(way.prepare, 1), rounds=200)
        assert way.receiver.packets_out > 0
    else:
        benchmark(way.bare()[what == "bare open"])


def cost(function: Callable[[], object], times: int) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    for _ in range(times):
        function()
    return (time.perf_counter() - start) / times


def opening(way: Way) -> float:
    """Seconds of one opening, the harness taken off."""
    way.prepare(way.times)
    queue, buffer = way.wire.queue[:], memoryview(bytearray(65_536))
    got = cost(partial(way.wire.receive_into, buffer), way.times)
    nothing = cost(partial(way.wire.receive_into, buffer), way.times)
    way.wire.queue = queue
    before = way.receiver.packets_out
    start = time.perf_counter()
    while way.wire.queue:
        way.receiver.on_event(1)
    whole = (time.perf_counter() - start) / way.times
    assert way.receiver.packets_out > before
    assert not way.receiver.dropped
    return whole - got - nothing / 32  # each event of up to 32 calls ends with one that brings nothing


@SUITES
@pytest.mark.parametrize("kind", KINDS)
def test_ratio(kind: str, suite: Suite) -> None:
    """No figure is asserted: see the acceptance run."""
    way = Way(suite, kind)
    seal, open_ = way.bare()
    many = way.times * way.frames
    rounds = [
        (
            cost(way.seal, way.times) - cost(way.place, way.times),
            opening(way),
            cost(seal, many),
            cost(open_, many),
        )
        for _ in range(ROUNDS)
    ]
    sealing, opened, bare_seal, bare_open = (median(one[i] for one in rounds) for i in range(4))
    sealing, opened = sealing / way.frames, opened / way.frames
    how = "compiled" if compiled_modules()["zignet.peers.send"] else "interpreted"
    print(
        f"\n{suite.name}, {kind}, frames of {way.frame} bytes, {how}: seal {sealing * 1e6:.2f} µs, open "
        f"{opened * 1e6:.2f} µs, bare {bare_seal * 1e6:.2f} + {bare_open * 1e6:.2f} µs, ratio "
        f"{(sealing + opened) / (bare_seal + bare_open):.2f}"
    )
    assert sealing > 0
    assert opened > 0


@pytest.mark.parametrize("kind", [*KINDS, DATAGRAM])
def test_services(kind: str) -> None:
    """What rules about services cost: an open port, and (datagrams) the answer to what this host has asked."""
    from zignet.peers.services import Rule, ServiceRules

    key = SecretKey(bytes(32)).public
    rules = {
        "none": None,
        "open": ServiceRules([Rule(6, ((443, 443),)), Rule(17, ((443, 443),))]).of(key),
        "answers": ServiceRules([]).of(key),
    }
    ways = {name: Way(Suite.AES, kind) for name in rules}
    for name, way in ways.items():
        (peer,) = way.sender.peers.values()
        peer.link.services = rules[name]
    answers = rules["answers"]
    assert answers is not None
    answers.asks(17, 443, 40_000, ways["answers"].loop.now)
    rounds = [
        {
            name: (cost(way.seal, way.times) - cost(way.place, way.times) + opening(way)) / way.frames
            for name, way in ways.items()
        }
        for _ in range(ROUNDS)
    ]
    spent = {name: median(one[name] for one in rounds) for name in rules}
    print(
        f"\n{kind}: {spent['none'] * 1e6:.2f} µs without rules; "
        f"x {spent['open'] / spent['none']:.3f} with the port open, "
        f"x {spent['answers'] / spent['none']:.3f} as an answer"
    )
    assert spent["none"] > 0
