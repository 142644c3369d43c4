"""Fuzz targets of the packet path. `python -m tests.zignet.peers.fuzz --seconds 600` runs them long, the suite briefly.

The peer is the enemy: its frames are the vectors, mutated, and sealed with good keys; between them come datagrams that
nobody has sealed. A run is repeatable by its seed (but for keys that are random); a failure prints seed and input.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from nat.packet import Packet
from tests.fuzzing import main
from tests.nat.world import VIRTIO
from tests.zignet.peers.pair import (
    ALL,
    CSUM,
    ONE4,
    ONE6,
    PEER,
    PLACE4,
    PLACE6,
    Came,
    Host,
    Judge,
    Keys,
    as_kernel,
    cut,
    echo,
    met,
    session,
    tcp,
    trains,
    udp,
    unfinished,
)
from tests.zignet.peers.pair import (
    whole as whole_of,
)
from tests.zignet.wire.fuzz import EXITS, FRAMES, PIECES, WHOLES, mutate
from tests.zignet.wire.packets import quoted_under
from zignet.noise import Suite
from zignet.peers.destinations import Destination
from zignet.peers.peer import Peer
from zignet.wire import (
    BadDatagram,
    BadFrame,
    Budget,
    Fragments,
    combine,
    is_known,
    parse_data,
    parse_exit,
    rebuild,
    split,
    strip,
    to_exit,
    unbundle,
    unseal,
    unwrap,
    wrap,
)
from zignet.wire.icmp import is_error

HEADERS = ((0, 0), (10, 0), (10, CSUM), (10, ALL))
ELSEWHERE = ("198.51.100.9", 4000)
WAYS = {False: (PLACE4, ONE4), True: (PLACE6, ONE6)}
NUMBER = 7  # of a destination by the peer
FAKES = (bytes((198, 19, 0, 7)), bytes.fromhex("20010002") + bytes(11) + b"\x07")
BACK = {False: (FAKES[0], ONE4), True: (FAKES[1], ONE6)}
FAR4, FAR6 = bytes((203, 0, 113, 5)), bytes.fromhex("20010db8") + bytes(11) + b"\5"
WHOLE_OUT = {False: (ONE4, FAR4), True: (ONE6, FAR6)}  # as the sender of the frame knows them
WHOLE_BACK = {False: (FAR4, PLACE4), True: (FAR6, PLACE6)}
NEIGHBOUR4, NEIGHBOUR6 = bytes((100, 64, 0, 10)), bytes(15) + b"\x0a"


def flow(rng: random.Random) -> list[bytes]:
    """Frames that a receiver may join: a few segments, or datagrams, that follow on each other."""
    v6, size, count = rng.random() < 0.5, rng.choice((1, 30, 200, 300, 300, 1300)), rng.randint(1, 6)
    payload = rng.randbytes(size * (count - 1) + rng.randint(1, size))
    if rng.random() < 0.5:
        packet = udp(WAYS[v6], payload)
    else:
        options = rng.choice((b"", bytes((1,)) * 4, bytes((1,)) * 40))
        packet = tcp(WAYS[v6], payload, seq=rng.choice((1000, 2**32 - 300)), options=options)
    at = 40 if v6 else 20
    head = at + (8 if packet[6 if v6 else 9] == 17 else (packet[at + 12] >> 4) * 4)
    frames = [strip(piece, partial=True) for piece in cut(packet, head, size)]
    if rng.random() < 0.2:
        back = rng.random() < 0.5
        ends = WHOLE_BACK if back else WHOLE_OUT
        packet = whole_of(quoted_under(packet[:at], *ends[v6]) + packet[at:])
        return [wrap(unfinished(piece)[1], back=back, partial=True) for piece in cut(packet, head, size)]
    if rng.random() < 0.3:
        return [to_exit(frame, NUMBER, back=True) for frame in frames]
    return frames


def hostile(rng: random.Random) -> list[bytes]:
    """Frames, most of them good in part."""
    frames: list[bytes] = []
    while len(frames) < 12 and rng.random() < 0.8:
        kind = rng.random()
        if kind < 0.5:
            frames += flow(rng)
        elif kind < 0.7:
            frames.append(mutate(rng, rng.choice(FRAMES + EXITS + WHOLES), FRAMES + EXITS + WHOLES))
        elif kind < 0.8:
            frames.append(together(rng, frames))
        else:
            frames += (
                split(rng.choice(FRAMES), rng.randrange(3), 60)
                if rng.random() < 0.5
                else [rng.choice(PIECES)]
            )
    for _ in range(rng.choice((0, 0, 1, 3))):
        if frames:
            at = rng.randrange(len(frames))
            frames[at] = mutate(rng, frames[at], FRAMES)
    return frames


def together(rng: random.Random, frames: list[bytes]) -> bytes:
    """A bundle, of whatever it should and should not hold."""
    inside = rng.choices(FRAMES + frames, k=rng.randrange(6))
    return bytes((255, 0, 0, 0)) + b"".join(
        len(one).to_bytes(2, "big") + one for one in inside if len(one) < 300
    )


class Naive:
    """What a host must write: each datagram by itself, by the slow path."""

    def __init__(self, keys: Keys, ways: dict[bool, tuple[bytes, bytes]]) -> None:
        self.keys = keys
        self.ways = ways
        self.number = 0  # of the destination that it may answer for
        self.seen: set[int] = set()
        self.fragments = Fragments(Budget())

    def datagram(self, datagram: bytes, ecn: int, now: float) -> list[bytes]:
        try:
            index, counter = parse_data(datagram)
            if index != self.keys.index or counter in self.seen:
                return []
            frame = unseal(self.keys.suite, self.keys.key, datagram)
        except BadDatagram:
            return []
        self.seen.add(counter)
        return self.frame(lenient(frame), ecn, now)

    def frame(self, frame: bytes, ecn: int, now: float) -> list[bytes]:
        if frame[0] == 44 and is_known(frame):
            whole = self.fragments.add(frame, now)
            return [] if whole is None or whole[0] in (0, 44, 255) else self.frame(whole, 0, now)
        if frame[0] == 255 and is_known(frame) and not any(frame[2:4]):
            return [packet for one in unbundle(frame)[0] for packet in self.frame(lenient(one), ecn, now)]
        traffic = combine(frame[2], ecn)
        if frame[0] == 4 and is_known(frame):
            return [] if traffic is None else self.whole(frame[:2] + bytes((traffic,)) + frame[3:])
        if len(frame) > 3 and frame[1] & 4:
            return [] if traffic is None else self.exit(frame, traffic)
        if traffic is None or frame[0] not in (1, 6, 17):
            return []
        try:
            return [rebuild(frame, *self.ways[bool(frame[1] & 1)], traffic=traffic)]
        except BadFrame:
            return []

    def whole(self, frame: bytes) -> list[bytes]:
        """One that brings its IP header; everybody may send anything anywhere."""
        v6, back = frame[4:5] >= b"\x60", frame[1] & 8 != 0
        peer, own = self.ways[v6]
        try:
            packet = unwrap(frame, own if back else peer, peer)
        except BadFrame:
            return []
        head = 40 if v6 else 20
        if back and packet[6 if v6 else 9] == 6 and packet[head + 13] & 0x12 == 0x02:
            return []
        if back and packet[6 if v6 else 9] == (58 if v6 else 1) and packet[head] == (128 if v6 else 8):
            return []
        if packet[6 if v6 else 9] == (58 if v6 else 1) and is_error(v6, packet[head]):
            size = 16 if v6 else 4
            source, target = packet[head - 2 * size : head - size], packet[head - size : head]
            quoted = packet[head + 8 + head - 2 * size : head + 8 + head]
            if not back and quoted[:size] != target:
                return []
            assert not back or quoted[:size] == own
            assert source
        return [packet]

    def exit(self, frame: bytes, traffic: int) -> list[bytes]:
        """What comes back from a destination."""
        try:
            flow = parse_exit(frame)
            if not flow.back or flow.number != self.number:
                return []
            packet = rebuild(flow.frame, *BACK[bool(frame[1] & 1)], traffic=traffic)
        except BadFrame:
            return []
        begins = frame[0] == 6 and flow.frame[17] & 0x12 == 0x02
        return [] if begins else [packet]


def lenient(frame: bytes) -> bytes:
    """A partial checksum that is not zero is overlooked on the quick path: it is computed anew in any case."""
    v6 = frame[4:5] == b"\x60"
    if frame[0] == 4 and len(frame) > 44 and frame[1] & ~8 == 2:
        head = 40 if v6 else 20
        at = {6: 20, 17: 10}.get(frame[4 + (6 if v6 else 9)])
        at = None if at is None else at + head
    else:
        at = {6: 20, 17: 10}.get(frame[0])
    if at is None or frame[1] & ~15 or not frame[1] & 2:
        return frame
    at += 4 if frame[1] & 4 else 0
    if len(frame) < at + 2:
        return frame
    return frame[:at] + b"\0\0" + frame[at + 2 :]


# Invariant: whatever comes, nothing is raised; what is written is, in its order, what the slow path makes of each
# authentic datagram by itself; each is a whole packet from the peer to this host; and a good one that follows arrives.
def fuzz_receiver(rng: random.Random) -> None:
    header, offload = rng.choice(HEADERS)
    host = Host(header=header, offload=offload, plain=False)
    try:
        link, keys = met(host, rng.choice(list(Suite)))
        naive, counter = Naive(keys, WAYS), 0
        naive.number = lead(host, link.peer)
        datagrams: list[bytes] = []
        for frame in hostile(rng):
            datagram = keys.seal(counter, frame)
            counter += rng.choice((1, 1, 1, 1, 2, 600))
            if rng.random() < 0.1:
                datagram = mutate(rng, datagram, datagrams or [datagram])
            datagrams.append(datagram)
            if rng.random() < 0.1:
                datagrams.insert(rng.randrange(len(datagrams)), rng.choice(datagrams))
        expected: list[bytes] = []
        got: list[bytes] = []
        for batch in trains(one for one in datagrams if one):
            ecn, address = rng.choice((0, 0, 0, 1, 2, 3)), rng.choice((PEER, PEER, PEER, ELSEWHERE))
            host.wire.coming.append(Came(b"".join(batch), len(batch[0]), address, ecn))
            expected += [packet for one in batch for packet in naive.datagram(one, ecn, host.loop.now)]
            if rng.random() < 0.5:
                got += read(host)
        while host.wire.coming:
            got += read(host)
        assert got == expected
        good = udp(WAYS[True], b"good")
        assert host.read([keys.seal(counter, strip(good))]) == [good]
        assert link.rx_bytes > 0
    finally:
        host.close()


# Invariant: the same with two peers, wherever they are and whatever they repeat, whose flows look alike: each packet
# comes from who has sealed it.
def fuzz_neighbours(rng: random.Random) -> None:
    host = Host(offload=ALL)
    try:
        first, keys = met(host)
        address = rng.choice((PEER, ELSEWHERE))
        link = host.knows(NEIGHBOUR4, NEIGHBOUR6, address, 1400)
        made, others = session(link, Suite.AES, 9)
        host.openings[9] = made.opening
        sides = [
            (Naive(keys, WAYS), PEER),
            (Naive(others, {False: (NEIGHBOUR4, ONE4), True: (NEIGHBOUR6, ONE6)}), address),
        ]
        sides[0][0].number = lead(host, first.peer)  # the other one may not answer for it
        counters, sent = [0, 0], [[], []]
        frames = flow(rng)
        expected: list[bytes] = []
        for frame in [*frames, *frames]:
            side = rng.randrange(2)
            naive, place = sides[side]
            batch = [rng.choice(sent[side])] if sent[side] and rng.random() < 0.3 else []
            batch.append(naive.keys.seal(counters[side], frame))
            counters[side] += 1
            sent[side] += batch
            for train in trains(batch):
                host.wire.coming.append(Came(b"".join(train), len(train[0]), place, 0))
                expected += [packet for one in train for packet in naive.datagram(one, 0, 0.0)]
        got: list[bytes] = []
        while host.wire.coming:
            host.receiver.on_event(1)
            got += as_kernel(host.written())
        assert got == expected
    finally:
        host.close()


def lead(host: Host, peer: Peer) -> int:
    """A destination by the peer; its number."""
    destination = Destination(peer, NUMBER, "www.example", FAKES, (ONE4, ONE6))
    host.receiver.exits[NUMBER] = destination
    host.receiver.packets = host.rare.packets = Judge()
    host.rare.destinations = {NUMBER: destination}
    return NUMBER


def read(host: Host) -> list[bytes]:
    """One event; the packets that were written, each looked at."""
    host.receiver.on_event(1)
    packets = as_kernel(host.written())
    for packet in packets:
        view = Packet(bytearray(packet))
        assert view.parse(0, len(packet)) == 0
        assert view.length == len(packet)
        peer, own = WAYS[view.version == 6]
        assert own == view.target() or peer == view.source()
    host.sent()  # refusals
    return packets


# Invariant: datagrams that nobody has sealed change nothing, whatever they are: nothing is written, no counter is
# taken, and of what is being joined no byte.
def fuzz_garbage(rng: random.Random) -> None:
    host = Host(offload=ALL)
    try:
        link, keys = met(host, rng.choice(list(Suite)))
        naive = Naive(keys, WAYS)
        naive.number = lead(host, link.peer)
        frames = flow(rng)
        good = [keys.seal(counter, frame) for counter, frame in enumerate(frames)]
        line: list[bytes] = []
        for datagram in good:
            for _ in range(rng.choice((0, 0, 1, 2))):
                garbage = bytearray(mutate(rng, datagram, good) or b"\4")
                if rng.random() < 0.7:
                    garbage[:16] = datagram[:16]
                    garbage[-1] ^= len(garbage) > 16
                if bytes(garbage) not in good:
                    line.append(bytes(garbage))
            line.append(datagram)
        for batch in trains(line):
            host.wire.coming.append(Came(b"".join(batch), len(batch[0]), PEER, 0))
        got: list[bytes] = []
        while host.wire.coming:
            host.receiver.on_event(1)
            got += as_kernel(host.written())
        assert got == [packet for frame in frames for packet in naive.frame(frame, 0, 0.0)]
        assert all(note[0] == "handshake" for note in host.hub.notes)
    finally:
        host.close()


PACKETS = [
    make(way, b"payload" * 20) for way in ((ONE4, PLACE4), (ONE6, PLACE6)) for make in (tcp, udp, echo)
]


# Invariant: any packet from the TUN, with any virtio_net_hdr, raises nothing. What is sent is in frames that fit the
# path; if there was no offload in it, they carry what the slow path makes of the packet, or what it refuses and so
# does the other side.
def fuzz_sender(rng: random.Random) -> None:
    header = rng.choice((0, 10))
    host = Host(header=header, offload=0, plain=False)
    try:
        room = rng.choice((100, 600, 1400))
        _, keys = met(host, rng.choice(list(Suite)), room=room)
        counter = 0
        for _ in range(4):
            packet = rng.choice(PACKETS)
            virtio = bytes(10)
            if rng.random() < 0.3 and packet[9 if packet[0] == 0x45 else 6] in (6, 17):
                virtio, packet = unfinished(packet, rng.choice((0, 1, 50, 100)))
            packet = mutate(rng, packet, PACKETS)
            if rng.random() < 0.3:
                virtio = VIRTIO.pack(*(rng.choice((0, 1, rng.randrange(256))) for _ in range(6)))
            sent = host.give(packet or b"\0", virtio)
            frames = keys.open([datagram for call in sent for datagram in call.datagrams], counter)
            counter += len(frames)
            assert all(len(frame) <= room for frame in frames)
            if frames and not (header and any(virtio)):
                whole = joined(frames)
                try:
                    assert whole == [strip(packet)] or (whole[0][0] == 6 and whole[0][1] & 2)
                except BadFrame:
                    for frame in whole:
                        try:
                            rebuild(frame, *WAYS[bool(frame[1] & 1)])
                        except BadFrame:
                            continue
                        assert packet[0] >> 4 == 4  # its header checksum is the kernel's business
    finally:
        host.close()


def joined(frames: list[bytes]) -> list[bytes]:
    """The frames, and those that pieces make."""
    fragments = Fragments(Budget())
    done = [fragments.add(frame, 0.0) if frame[0] == 44 else frame for frame in frames]
    return [frame for frame in done if frame is not None]


TARGETS: list[Callable[[random.Random], None]] = [
    fuzz_receiver,
    fuzz_neighbours,
    fuzz_garbage,
    fuzz_sender,
]


if __name__ == "__main__":
    main(__doc__, TARGETS)
