"""Hosts in memory: the TUN is a socket pair, the wire a list, the keys are real, the hub only takes notes.

    one.give(packet, virtio) -> what it sends            other.take(datagrams) -> what it writes to its TUN

`kernel` stands for the operating system: it finishes checksums and cuts super-packets as the virtio_net_hdr says, and
knows nothing of our code. Packets that go in and packets that come out are compared in that form.
"""

from __future__ import annotations

import os
import struct
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any, NamedTuple

from scapy.utils import checksum as scapy_checksum

from nat.fragments import Reassembler
from nat.gateway import Gateway
from tests.nat.world import NO_VIRTIO, VIRTIO, Device, Written
from zignet.identity import SecretKey
from zignet.noise import Suite
from zignet.peers.hub import Hub
from zignet.peers.peer import Link, Peer
from zignet.peers.rare import Rare
from zignet.peers.receive import Opening, Receiver
from zignet.peers.send import Sealing, Sender
from zignet.peers.session import Session
from zignet.wire import parse_data, seal, unseal

CSUM, TSO, USO = 0x01, 0x06, 0x60  # TUN_F_* of linux/if_tun.h, both versions of each
ALL = CSUM | TSO | USO
GSO_TCP4, GSO_TCP6, GSO_UDP = 1, 4, 5  # virtio_net_hdr.gso_type
SEALED = 32  # bytes that a data message adds to its frame
MOST = 65_507  # bytes of one call
FILL = b"\xa5"

ONE4, ONE6 = bytes((100, 64, 0, 1)), bytes.fromhex("fd5a69676e650001") + bytes(range(8))
OTHER4, OTHER6 = bytes((10, 99, 1, 7)), bytes.fromhex("fd00000000990001") + bytes(range(8, 16))
PLACE4, PLACE6 = bytes((100, 64, 0, 9)), bytes.fromhex("fd5a69676e650009") + bytes(range(9, 17))
# The other side's own names of the two: `HERE` is what the first calls `PLACE`, `OTHER` is the first.
HERE4, HERE6 = bytes((10, 99, 2, 3)), bytes.fromhex("fd00000000990002") + bytes(range(5, 13))


class Sent(NamedTuple):
    """One call of the sender's transport."""

    datagrams: list[bytes]
    size: int
    address: Any
    ecn: int


class Came(NamedTuple):
    """One call of the receiver's transport."""

    data: bytes
    size: int
    address: Any
    ecn: int


class Wire:
    """Both transports: what is sent is kept, what is to come waits."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.coming: deque[Came] = deque()

    def send(self, datagrams: memoryview, size: int, address: Any, ecn: int = 0) -> None:
        data = bytes(datagrams)
        assert 0 < len(data) <= MOST
        assert size != len(data), "one datagram has size 0"
        step = size or len(data)
        pieces = [data[at : at + step] for at in range(0, len(data), step)]
        assert len(pieces) <= 64
        self.sent.append(Sent(pieces, size, address, ecn))

    def receive_into(self, buffer: memoryview) -> Came | None:
        if not self.coming:
            return None
        came = self.coming.popleft()
        buffer[: len(came.data)] = came.data
        buffer[len(came.data) :] = FILL * (len(buffer) - len(came.data))
        return came._replace(data=len(came.data))  # type: ignore[arg-type]


class Tun(Device):
    """A TUN that says what it takes, and stops saying so when told."""

    def __init__(self, header: int, offload: int) -> None:
        super().__init__(header)
        self.offload = offload

    def disable_offload(self) -> None:
        super().disable_offload()
        self.offload = 0


class Tunnel:
    """What a link asks of its tunnel: one session to send on, for ever good."""

    deadline = float("inf")
    dead = False
    received_at = float("inf")

    def __init__(self) -> None:
        self.owner: Any = None
        self.sending: Session | None = None
        self.sent_data: list[bool] = []
        self.heard_data: list[tuple[Session, bool]] = []

    def before_send(self, now: float) -> bool:
        return self.sending is not None

    def sent(self, now: float, is_data: bool) -> bool:
        self.sent_data.append(is_data)
        return False

    def heard(self, session: Session, now: float, is_data: bool) -> bool:
        self.heard_data.append((session, is_data))
        return False


class Notes:
    """Stands for the hub: writes down what is handed over. Its `ecn` is the hub's own."""

    ecn = Hub.ecn

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.notes: list[tuple[Any, ...]] = []
        self.woken: Link | None = None  # what `wake` finds
        self.admits: Link | None = None  # whom `first` lets in

    def wake(self, peer: Peer) -> Any:
        self.notes.append(("wake", peer))
        return self.woken

    def nobody(self, at: int, length: int) -> None:
        self.notes.append(("nobody", bytes(self.gateway.raw[at : at + length])))

    def stage(self, link: Link, packet: bytes) -> None:
        self.notes.append(("stage", link, packet))

    def slow(self, link: Link, at: int, length: int) -> None:
        self.notes.append(("slow", link, bytes(self.gateway.raw[at : at + length])))

    def clamp(self, link: Link, at: int, end: int, extra: int, partial: bool) -> None:
        self.notes.append(("clamp", link, bytes(self.gateway.raw[at:end]), partial))

    def first_packet(self, at: int, length: int) -> None:
        self.notes.append(("first_packet", bytes(self.gateway.raw[at : at + length])))

    def foreign(self, at: int, length: int) -> None:
        self.notes.append(("foreign", bytes(self.gateway.raw[at : at + length])))

    def slow_exit(self, link: Link, at: int, length: int, number: int, back: bool) -> None:
        self.notes.append(("slow_exit", link, bytes(self.gateway.raw[at : at + length]), number, back))

    def slow_whole(self, link: Link, at: int, length: int, back: bool) -> None:
        self.notes.append(("slow_whole", link, bytes(self.gateway.raw[at : at + length]), back))

    def refused_whole(self, link: Link, frame: bytes) -> None:
        self.notes.append(("refused_whole", link, frame))

    def is_answer(self, peer: Peer, at: int, v6: bool) -> bool:
        return False

    def handshake(self, datagram: memoryview, address: Any) -> None:
        self.notes.append(("handshake", bytes(datagram), address))

    def first(self, session: Session, address: Any) -> None:
        self.notes.append(("first", session, address))
        if self.admits is not None:
            session.opening.peer = self.admits

    def moved(self, link: Link, address: Any, size: int) -> None:
        self.notes.append(("moved", link, address, size))

    def control(self, link: Link, session: Session, frame: bytes, address: Any, size: int) -> None:
        self.notes.append(("control", link, session, frame, address, size))

    def slow_frame(self, link: Link, session: Session, frame: bytes) -> None:
        self.notes.append(("slow_frame", link, session, frame))

    def arm(self, link: Link) -> None:
        raise AssertionError("no tunnel here has asked for it")

    def of(self, *kinds: str) -> list[tuple[Any, ...]]:
        """The notes of these kinds, without the kind."""
        return [note[1:] for note in self.notes if note[0] in kinds]


class Judge:
    """Stands for `Packets`: everything may pass, or what is not in `no`."""

    def __init__(self) -> None:
        self.no: set[bytes] = set()
        self.asked: list[bytes] = []

    mtu = 1500

    def admits(self, link: Any) -> bool:
        return True

    def may_come(self, source: bytes) -> bool:
        return source not in self.no

    def near(self, link: Any, far: bytes) -> bytes | None:
        self.asked.append(far)
        return None if far in self.no else (ONE4 if len(far) == 4 else ONE6)

    def stand_in(self, link: Any, key: bytes) -> bytes | None:
        self.asked.append(key)
        return None if key[:-3] in self.no else (link.peer.address4 if len(key) == 7 else link.peer.address6)


class Moment:
    """A loop whose time stands still while its turns go by: whoever looks at their number reads all that waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._turns = 0

    @property
    def turns(self) -> int:
        self._turns += 1
        return self._turns


class Host:
    """One side. `plain`: the rare is handed to the notes; else it is dealt with as in a node."""

    def __init__(
        self,
        own4: bytes = ONE4,
        own6: bytes = ONE6,
        header: int = 10,
        offload: int = ALL,
        plain: bool = True,
    ) -> None:
        self.own = {False: own4, True: own6}
        self.loop = Moment()
        self.device = Tun(header, offload)
        self.gateway = Gateway(self.loop, self.device)
        self.wire = Wire()
        self.hub = Notes(self.gateway)
        self.sender = Sender(self.loop, self.gateway.raw, header, self.wire, own4, own6)
        self.sender.hub = self.hub
        self.openings: dict[int, Opening] = {}
        self.receiver = Receiver(self.loop, self.wire, self.device, self.openings)
        self.receiver.hub = self.hub
        self.dropped: Counter[str] = Counter()
        engine: Any = SimpleNamespace(gateway=self.gateway, loop=self.loop, fragments=Reassembler())
        self.rare = Rare(engine, self.sender, self.dropped, own4, own6)
        if not plain:
            for name in ("slow", "slow_exit", "clamp", "nobody", "slow_frame", "slow_whole", "refused_whole"):
                setattr(self.hub, name, getattr(self.rare, name))
        # Whatever is fed to the gateway, once it is put together, goes to the peers.
        everything = ip_network("0.0.0.0/0"), ip_network("255.255.255.255/32"), ip_network("::/0")
        self.gateway.lead_to_peers(self.sender, *everything)  # type: ignore[arg-type]

    def knows(self, address4: bytes, address6: bytes, address: Any, room: int) -> Link:
        """Have a link to a peer at these local addresses, behind an address of the underlay."""
        peer = Peer(KEY, None, address4, address6)
        link: Any = Link(self.hub, peer, Tunnel(), None)  # type: ignore[arg-type]
        link.address, link.room = address, room
        link.between(self.own[False], self.own[True])
        peer.link = link
        self.sender.peers[address4] = self.sender.peers[address6] = peer
        return link

    def give(self, packet: Any, virtio: bytes = NO_VIRTIO) -> list[Sent]:
        """The gateway has read a packet for a peer, and nothing else; what is sent at once."""
        return self.give_all((virtio, packet))

    def give_all(self, *read: tuple[bytes, Any]) -> list[Sent]:
        """It has read several, one after the other: (virtio_net_hdr, packet)."""
        for virtio, packet in read:
            raw = (virtio if self.device.header else b"") + bytes(packet)
            self.gateway.raw[: len(raw)] = raw
            self.sender.outward(self.device.header, len(raw) - self.device.header)
        self.sender.settle()
        return self.sent()

    def sent(self) -> list[Sent]:
        sent, self.wire.sent = self.wire.sent, []
        return sent

    def take(self, *batches: Any, address: Any = None, ecn: int = 0) -> list[Written]:
        """Batches come, each one receive call: a list of datagrams of one size (but the last), or a `Came`."""
        for batch in batches:
            if not isinstance(batch, Came):
                assert trains(batch) == [batch]
                batch = Came(b"".join(batch), len(batch[0]), address or PEER, ecn)
            self.wire.coming.append(batch)
        self.receiver.on_event(1)
        return self.written()

    def written(self) -> list[Written]:
        return list(iter(self.device.take, None))

    def read(self, *batches: Any, **how: Any) -> list[bytes]:
        """As `take`, but the packets as the kernel makes them of what is written."""
        return as_kernel(self.take(*batches, **how))

    def close(self) -> None:
        self.device.close()


KEY = SecretKey(bytes((5,)) * 32).public
PEER = ("192.0.2.1", 51830)  # where the peer of `host_with_peer` is
ROOM = 1400  # bytes of a frame


@contextmanager
def host(**how: Any) -> Iterator[Host]:
    """A host for the length of a block."""
    made = Host(**how)
    try:
        yield made
    finally:
        made.close()


class Keys(NamedTuple):
    """Of one direction of one session, as a naive end holds them."""

    suite: Suite
    key: bytes
    index: int

    def seal(self, counter: int, frame: bytes) -> bytes:
        return seal(self.suite, self.key, self.index, counter, frame)

    def open(self, datagrams: Iterable[bytes], first: int = 0) -> list[bytes]:
        """Frames of datagrams whose counters are to be `first` and so on."""
        frames = []
        for counter, datagram in enumerate(datagrams, first):
            assert parse_data(datagram) == (self.index, counter)
            frames.append(unseal(self.suite, self.key, datagram))
        return frames


def session(link: Link, suite: Suite, index: int, key: bytes | None = None) -> tuple[Session, Keys]:
    """A session of one's own with both halves on the same key, to send on and to receive on."""
    key = key or os.urandom(32)
    sealing, opening = Sealing(suite, key, index), Opening(suite, key, index)
    made = Session(link.tunnel, (sealing, opening), (index, index), suite, bytes(8), PEER, True, 0.0)
    opening.session = made
    opening.peer = link
    link.tunnel.sending = made
    return made, Keys(suite, key, index)


def met(host: Host, suite: Suite = Suite.CHACHA, index: int = 7, room: int = ROOM) -> tuple[Link, Keys]:
    """A peer of the host with a session whose other end is the test."""
    link = host.knows(PLACE4, PLACE6, PEER, room)
    made, keys = session(link, suite, index)
    host.openings[index] = made.opening
    return link, keys


def join(one: Host, other: Host, suite: Suite = Suite.AES, room: int = ROOM) -> tuple[Link, Link]:
    """Two hosts that know each other: a session each way, and each one's own addresses for the other."""
    links = one.knows(PLACE4, PLACE6, PEER, room), other.knows(OTHER4, OTHER6, PEER, room)
    keys = os.urandom(32), os.urandom(32)
    for link, host, out, back in ((links[0], one, 0, 1), (links[1], other, 1, 0)):
        halves = Sealing(suite, keys[out], 7), Opening(suite, keys[back], 7)
        made = Session(link.tunnel, halves, (7, 7), suite, bytes(8), PEER, True, 0.0)  # type: ignore[arg-type]
        halves[1].session, halves[1].peer = made, link
        link.tunnel.sending = made
        host.openings[7] = halves[1]
    return links


def way(host: Host, v6: bool, out: bool = True) -> tuple[bytes, bytes]:
    """Source and target of what the host sends its peer (`met`), or gets from it."""
    own, peer = host.own[v6], PLACE6 if v6 else PLACE4
    return (own, peer) if out else (peer, own)


def trains(datagrams: Iterable[bytes]) -> list[list[bytes]]:
    """Datagrams as UDP_GRO joins them: all of one size but the last, which may be shorter."""
    found: list[list[bytes]] = []
    for datagram in datagrams:
        last = found[-1] if found else []
        if not last or len(last) == 64 or not len(last[-1]) == len(last[0]) >= len(datagram):
            found.append([datagram])
        else:
            last.append(datagram)
    return found


# --- the kernel


def as_kernel(written: Iterable[Written]) -> list[bytes]:
    """The packets that a kernel makes of what was written."""
    return [packet for each in written for packet in kernel(each.header, each.raw)]


def kernel(virtio: bytes, raw: bytes) -> list[bytes]:
    """The packets that a kernel makes of one packet and its virtio_net_hdr (virtio 1.2 §5.1.6.2): each whole."""
    if not any(virtio):
        return [raw]
    flags, gso, head, size, start, offset = VIRTIO.unpack(virtio)
    v6 = raw[0] >> 4 == 6
    protocol = raw[6 if v6 else 9]
    assert flags == 1
    assert (start, offset) == (40 if v6 else 20, 16 if protocol == 6 else 6)
    at = start + offset
    assert raw[at : at + 2] == _pseudo(raw, start).to_bytes(2, "big")
    if not gso:
        return [whole(raw)]
    assert gso == {6: GSO_TCP6 if v6 else GSO_TCP4, 17: GSO_UDP}[protocol]
    assert head == start + ((raw[start + 12] >> 4) * 4 if protocol == 6 else 8)
    assert 0 < size < len(raw) - head
    return cut(raw, head, size)


def cut(raw: bytes, head: int, size: int) -> list[bytes]:
    """The segments of a packet whose headers have `head` bytes, `size` bytes of payload in each, checksums and all."""
    start = 40 if raw[0] >> 4 == 6 else 20
    pieces = []
    for at in range(head, len(raw), size):
        piece = bytearray(raw[:head] + raw[at : at + size])
        if raw[6 if start == 40 else 9] == 6:
            sequence = int.from_bytes(raw[start + 4 : start + 8], "big") + at - head
            piece[start + 4 : start + 8] = (sequence & 0xFFFFFFFF).to_bytes(4, "big")
            if at + size < len(raw):
                piece[start + 13] &= ~0x09  # FIN and PSH
            if at > head:
                piece[start + 13] &= ~0x80  # CWR
        else:
            piece[start + 4 : start + 6] = (len(piece) - start).to_bytes(2, "big")
        pieces.append(whole(piece))
    return pieces


def whole(raw: bytes | bytearray) -> bytes:
    """A packet without options with its lengths and checksums, by scapy's sum."""
    packet = bytearray(raw)
    v6 = packet[0] >> 4 == 6
    start = 40 if v6 else 20
    protocol = packet[6 if v6 else 9]
    if v6:
        packet[4:6] = (len(packet) - 40).to_bytes(2, "big")
    else:
        packet[2:4] = len(packet).to_bytes(2, "big")
        packet[10:12] = bytes(2)
        packet[10:12] = scapy_checksum(bytes(packet[:20])).to_bytes(2, "big")
    at = start + {6: 16, 17: 6, 1: 2, 58: 2}[protocol]
    packet[at : at + 2] = bytes(2)
    pseudo = b"" if protocol == 1 else _pseudo_header(packet, start)
    value = scapy_checksum(pseudo + bytes(packet[start:]))
    packet[at : at + 2] = (value or (0xFFFF if protocol == 17 else 0)).to_bytes(2, "big")
    return bytes(packet)


def _pseudo_header(raw: bytes | bytearray, start: int) -> bytes:
    addresses = bytes(raw[8:40] if start == 40 else raw[12:20])
    return addresses + struct.pack("!IHBB", len(raw) - start, 0, 0, raw[6 if start == 40 else 9])


def _pseudo(raw: bytes, start: int) -> int:
    return int(scapy_checksum(_pseudo_header(raw, start))) ^ 0xFFFF


def unfinished(raw: bytes, size: int = 0) -> tuple[bytes, bytes]:
    """(virtio_net_hdr, packet) as a kernel gives it: its checksum not computed, and a super-packet if `size`."""
    v6 = raw[0] >> 4 == 6
    start, protocol = (40, raw[6]) if v6 else (20, raw[9])
    offset = 16 if protocol == 6 else 6
    head = start + ((raw[start + 12] >> 4) * 4 if protocol == 6 else 8)
    gso = 0
    if size:
        gso = GSO_UDP if protocol == 17 else GSO_TCP6 if v6 else GSO_TCP4
    packet = bytearray(raw)
    packet[start + offset : start + offset + 2] = _pseudo(raw, start).to_bytes(2, "big")
    return VIRTIO.pack(1, gso, head if gso else 0, size, start, offset), bytes(packet)


# --- packets, quickly made


def tcp(
    way: tuple[bytes, bytes],
    payload: bytes = b"",
    *,
    seq: int = 1000,
    ack: int = 2000,
    flags: int = 0x10,
    window: int = 500,
    options: bytes = b"",
    ports: tuple[int, int] = (40_000, 443),
    traffic: int = 0,
    hops: int = 64,
    urgent: int = 0,
) -> bytes:
    """A TCP segment as IP packet, its checksums right."""
    head = struct.pack(
        "!HHIIBBHHH", *ports, seq & 0xFFFFFFFF, ack, (20 + len(options)) << 2, flags, window, 0, urgent
    )
    return whole(_ip(way, 6, traffic, hops) + head + options + payload)


def udp(
    way: tuple[bytes, bytes],
    payload: bytes = b"",
    *,
    ports: tuple[int, int] = (40_000, 53),
    traffic: int = 0,
    hops: int = 64,
) -> bytes:
    """A UDP datagram as IP packet, its checksums right."""
    return whole(_ip(way, 17, traffic, hops) + struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload)


def echo(
    way: tuple[bytes, bytes], payload: bytes = b"", *, reply: bool = False, traffic: int = 0, hops: int = 64
) -> bytes:
    """A ping, or its answer, as IP packet, its checksums right."""
    v6 = len(way[0]) == 16
    kind = (129 if reply else 128) if v6 else (0 if reply else 8)
    body = struct.pack("!BBHHH", kind, 0, 0, 77, 1) + payload
    return whole(_ip(way, 58 if v6 else 1, traffic, hops) + body)


def _ip(way: tuple[bytes, bytes], protocol: int, traffic: int, hops: int) -> bytes:
    source, target = way
    if len(source) == 16:
        return struct.pack("!IHBB16s16s", 6 << 28 | traffic << 20, 0, protocol, hops, source, target)
    return struct.pack("!BBHHHBBH4s4s", 0x45, traffic, 0, 0, 0x4000, hops, protocol, 0, source, target)
