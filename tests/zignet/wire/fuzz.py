"""Fuzz targets of the wire. `python -m tests.zignet.wire.fuzz --seconds 600` runs them long, the suite briefly.

Inputs are the vectors, mutated. A run is repeatable by its seed; a failure prints the seed and the number of the input.
"""

from __future__ import annotations

import io
import json
import random
import struct
from collections.abc import Callable

from nat.packet import Packet
from tests.fuzzing import main
from tests.zignet.wire.make_vectors import FOLDER
from zignet.cli.wire_dump import line
from zignet.noise import Suite
from zignet.wire import (
    BadFrame,
    Budget,
    Fragments,
    bundle,
    clamp_mss,
    parse_control,
    parse_exit,
    rebuild,
    seal,
    strip,
    to_exit,
    unbundle,
    unwrap,
    wrap,
)
from zignet.wire.capture import BadCapture, Capture
from zignet.wire.describe import Describer
from zignet.wire.fragment import LIMIT_BYTES, MOST_UNFINISHED
from zignet.wire.keylog import BadLine, KeyLog, format_line, parse_line
from zignet.wire.links import LINKS, Finder, apart

_FRAMES = json.loads((FOLDER / "frames.json").read_text(encoding="utf-8"))
PACKETS = [bytes.fromhex(vector["packet"]) for vector in _FRAMES["packets"]]
FRAMES = [bytes.fromhex(vector["frame"]) for vector in (*_FRAMES["packets"], *_FRAMES["control"])]
EXITS = [bytes.fromhex(vector["frame"]) for vector in _FRAMES["exits"]]
WHOLES = [bytes.fromhex(vector["frame"]) for vector in _FRAMES["wholes"]]
PIECES = [bytes.fromhex(piece) for vector in _FRAMES["fragments"] for piece in vector["pieces"]]
KEY = bytes(range(32))
LINE = format_line(1, 1, 2, KEY, KEY, "a" * 56)
DATAGRAM = seal(Suite.CHACHA, KEY, 2, 0, FRAMES[0])
ADDRESSES = {size: (bytes((7,)) * size, bytes((9,)) * size) for size in (4, 16)}


def mutate(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """The data with up to five small damages."""
    damaged = bytearray(data)
    for _ in range(rng.randint(0, 5)):
        at = rng.randint(0, len(damaged))
        what = rng.randrange(7)
        if what < 2 and at < len(damaged):
            damaged[at] ^= 1 << rng.randrange(8)
        elif what == 2 and at < len(damaged):
            damaged[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 44, 58, rng.randrange(256)))
        elif what == 3:
            del damaged[at : at + rng.randint(1, 20)]
        elif what == 4:
            damaged[at:at] = rng.randbytes(rng.randint(1, 20))
        elif what == 5:
            other = rng.choice(others)
            damaged[at:] = other[rng.randint(0, len(other)) :]
        else:
            del damaged[at:]
    return bytes(damaged)


# Invariant: any bytes give a frame or raise BadFrame; a frame that came out goes in, and comes out again.
def fuzz_strip(rng: random.Random) -> None:
    packet = mutate(rng, rng.choice(PACKETS), PACKETS)
    try:
        frame = strip(packet, partial=rng.random() < 0.3)
    except BadFrame:
        return
    rebuild(frame, *ADDRESSES[16 if frame[1] & 1 else 4])


# Invariant: any bytes give a packet or raise BadFrame; the packet parses, is from and to whom it was said to be, and
# its frame is the one that it came from (but that a partial one has its checksum now).
def fuzz_rebuild(rng: random.Random) -> None:
    frame = mutate(rng, rng.choice(FRAMES), FRAMES)
    source, target = ADDRESSES[16 if len(frame) > 1 and frame[1] & 1 else 4]
    try:
        packet = rebuild(frame, source, target)
    except BadFrame:
        return
    view = Packet(bytearray(packet))
    assert view.parse(0, len(packet)) == 0
    assert (view.source(), view.target(), view.length) == (source, target, len(packet))
    if frame[1] & 2:
        assert view.transport_sum_ok()
        return
    again, at = strip(packet), 4 + {6: 16, 17: 6, 1: 2}[frame[0]]
    if frame[0] != 17 and {frame[at : at + 2], again[at : at + 2]} == {b"\0\0", b"\xff\xff"}:
        again = again[:at] + frame[at : at + 2] + again[at + 2 :]  # the two zeros of one's complement
    assert again == frame


# Invariant: any bytes give a control frame or raise BadFrame; what was read is written again as it was.
def fuzz_control(rng: random.Random) -> None:
    frame = mutate(rng, rng.choice(FRAMES[-8:]), FRAMES)
    try:
        encoded = parse_control(frame).encode()
    except BadFrame:
        return
    assert frame.startswith(encoded)
    assert not any(frame[len(encoded) :])


# Invariant: any pieces, in any order and time, raise nothing; no more is held than may be, and in the end nothing.
def fuzz_fragments(rng: random.Random) -> None:
    budget, now = Budget(), 0.0
    peers = [Fragments(budget) for _ in range(3)]
    for _ in range(60):
        now += rng.choice((0, 0, 0, 0.1, 3))
        whole = rng.choice(peers).add(mutate(rng, rng.choice(PIECES), PIECES), now)
        assert whole is None or whole[0] != 44
        assert budget.held <= LIMIT_BYTES
        assert all(len(peer) <= MOST_UNFINISHED for peer in peers)
    budget.expire(now + 10)
    assert (budget.held, len(budget), sum(map(len, peers))) == (0, 0, 0)


# Invariant: any bytes are taken apart without an error; what is taken is what they begin with, and may be in a bundle.
def fuzz_unbundle(rng: random.Random) -> None:
    whole = bundle([one for one in rng.choices(FRAMES, k=rng.randrange(5)) if one[0] in (1, 6, 17)])
    data = mutate(rng, whole, [whole, *FRAMES])
    frames, fault = unbundle(data)
    assert data[4:].startswith(bundle(frames)[4:])
    assert fault or data[4:] == bundle(frames)[4:]


# Invariant: any bytes are a frame of an exit flow or raise BadFrame; what was taken apart is put together as it was.
def fuzz_exit(rng: random.Random) -> None:
    frame = mutate(rng, rng.choice(EXITS), EXITS)
    try:
        one = parse_exit(frame)
    except BadFrame:
        return
    assert to_exit(one.frame, one.number, one.meaning, back=one.back) == frame


# Invariant: any bytes are a whole packet or raise BadFrame; the packet parses, has the address that was given to it
# and no other of ours, and its frame is the one that it came from (but that a partial one has its checksum now).
def fuzz_whole(rng: random.Random) -> None:
    frame = mutate(rng, rng.choice(WHOLES), WHOLES)
    near, peer = ADDRESSES[16 if len(frame) > 4 and frame[4] >> 4 == 6 else 4]
    try:
        packet = unwrap(frame, near, peer)
    except BadFrame:
        return
    back = frame[1] & 8 != 0
    view = Packet(bytearray(packet))
    assert view.parse(0, len(packet)) == 0
    assert (view.target() if back else view.source(), view.length) == (near, len(packet))
    assert view.l4 == (20 if len(near) == 4 else 40)
    if frame[1] & 2:
        assert view.transport_sum_ok()
        return
    again = bytearray(wrap(packet, back=back, own=peer))
    at = {(4, 6): 40, (4, 17): 30, (6, 6): 60, (6, 17): 50, (6, 58): 46}.get((view.version, view.protocol))
    zeros = {b"\0\0", b"\xff\xff"}
    if at is not None and view.protocol != 17 and {bytes(again[at : at + 2]), frame[at : at + 2]} == zeros:
        again[at : at + 2] = frame[at : at + 2]  # the two zeros of one's complement
    assert again == frame


# Invariant: nothing but the segment's options and checksum changes, and nothing outside of it.
def fuzz_mss(rng: random.Random) -> None:
    segment = mutate(rng, FRAMES[0][4:], FRAMES)
    buffer = bytearray(b"before" + segment + b"behind")

    def kept() -> bytes:
        return bytes(buffer[:22] + buffer[24:26] + buffer[6 + len(segment) :])

    before = kept()
    clamp_mss(buffer, 6, 6 + len(segment), rng.randint(1, 0xFFFF), partial=rng.random() < 0.3)
    assert kept() == before


# Invariant: any bytes, sealed or not, are described and printed on one line.
def fuzz_describe(rng: random.Random) -> None:
    describer = Describer(KeyLog.read(io.StringIO(LINE)))
    under = {"time": 1.0, "from": "a", "to": "b", "ecn": 0}
    frame = mutate(rng, rng.choice(FRAMES + PIECES + EXITS + WHOLES), FRAMES).ljust(4, b"\0")
    for datagram in (seal(Suite.CHACHA, KEY, 2, 0, frame), mutate(rng, DATAGRAM, [DATAGRAM])):
        for piece in apart(memoryview(datagram * rng.choice((1, 1, 3)))):
            facts = describer.message(piece, 0.0, rng.choice((0, 0, 0, 5)))
            if facts is not None:
                json.dumps(facts)
                assert line(under | facts).isprintable()


# Invariant: any bytes are a capture whose records end in one of three ways, or raise BadCapture; any record is looked
# into without an error.
def fuzz_capture(rng: random.Random) -> None:
    link = rng.choice([*LINKS, 7])
    packet = bytes(LINKS.get(link, 0)) + rng.choice(PACKETS)
    if rng.random() < 0.5:
        record = struct.pack("<IIII", 1, 2, len(packet), len(packet)) + packet
        data = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link) + record * 2
    else:
        body = struct.pack("<IIIII", 0, 1, 2, len(packet), len(packet)) + packet + bytes(-len(packet) % 4)
        size = struct.pack("<I", len(body) + 12)
        data = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
        data += struct.pack("<IIHHII", 1, 20, link, 0, 0, 20) + (b"\6\0\0\0" + size + body + size) * 2
    finder = Finder()
    try:
        capture = Capture(io.BytesIO(mutate(rng, data, [data])))
        for each in capture:
            finder.find(each.link, each.data)
    except BadCapture:
        return
    assert capture.problem is not None or not capture.damaged


# Invariant: any text is a session or raises BadLine; a session is written again as a line that says the same.
def fuzz_keylog(rng: random.Random) -> None:
    text = mutate(rng, LINE.encode(), [LINE.encode()]).decode("latin-1")
    try:
        session = parse_line(text)
    except BadLine:
        return
    keys = session.send_key, session.receive_key
    again = format_line(session.suite, session.local_index, session.remote_index, *keys, session.peer)
    assert parse_line(again) == session


TARGETS: list[Callable[[random.Random], None]] = [
    fuzz_strip,
    fuzz_rebuild,
    fuzz_control,
    fuzz_fragments,
    fuzz_unbundle,
    fuzz_exit,
    fuzz_whole,
    fuzz_mss,
    fuzz_describe,
    fuzz_capture,
    fuzz_keylog,
]


if __name__ == "__main__":
    main(__doc__, TARGETS)
