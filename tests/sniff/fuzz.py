"""Fuzz targets of the sniffers. `python -m tests.sniff.fuzz --seconds 600` runs them long, the suite briefly.

Inputs are the vectors and generated messages, mutated: bits, bytes, cuts, repeats, splices of two. A run is
repeatable by its seed; a failure prints the seed of the input and the input.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

from sniff import DatagramSniffer, Found, Outcome, StreamSniffer
from sniff.hostname import authority_name, host_name
from sniff.hpack import HpackError, decode_fields
from tests.fuzzing import main
from tests.sniff.initials import VERSIONS, ack, crypto, initial, other_long
from tests.sniff.vectors import load

STREAMS = [vector.data for folder in ("clienthello", "http1", "http2") for vector in load(folder)]
DATAGRAMS = [list(vector.blobs) for vector in load("quic")]
HELLOS = [vector.data[5:] for vector in load("clienthello")]
TOKENS = [
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"Host:",
    b" ",
    b"\t",
    b"://",
    b"@",
    b"HTTP/1.1",
    b"\x16\3\1",
    b"\0\0",
    b"\xff\xff",
]
LIMIT = 16384


def mutate(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """The data with up to six small damages."""
    damaged = bytearray(data)
    for _ in range(rng.randint(0, 6)):
        at = rng.randint(0, len(damaged))
        what = rng.randrange(8)
        if what == 0 and at < len(damaged):
            damaged[at] ^= 1 << rng.randrange(8)
        elif what == 1 and at < len(damaged):
            damaged[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif what == 2:
            del damaged[at : at + rng.randint(1, 20)]
        elif what == 3:
            damaged[at:at] = rng.randbytes(rng.randint(1, 20))
        elif what == 4:
            damaged[at:at] = rng.choice(TOKENS)
        elif what == 5:
            other = rng.choice(others)
            damaged[at:] = other[rng.randint(0, len(other)) :]
        elif what == 6:
            damaged[at:at] = damaged[at : at + rng.randint(1, 200)] * rng.randint(1, 30)
        else:
            del damaged[at:]
    return bytes(damaged)


def pieces(rng: random.Random, data: bytes) -> list[bytes]:
    edges = sorted({0, len(data), *(rng.randint(0, len(data)) for _ in range(rng.randint(0, 8)))})
    return [data[a:b] for a, b in pairwise(edges)]


def check_name(name: str) -> None:
    assert name == name.lower()
    assert host_name(name.encode()) == name


# Invariant: any bytes, in any pieces, give NEED_MORE, NOT_THIS or a Found with a proper name, and raise
# nothing. Whole, in pieces, and with more behind a final answer it is the same; beyond the limit it is final;
# `data` is what was fed.
def fuzz_stream(rng: random.Random) -> bytes:
    data = mutate(rng, rng.choice(STREAMS), STREAMS)
    limit = rng.choice((LIMIT, LIMIT, rng.randint(1, 300)))
    whole = StreamSniffer(limit).feed(data)
    sniffer = StreamSniffer(limit)
    answer: Found | Outcome = Outcome.NEED_MORE
    for piece in pieces(rng, data):
        after = sniffer.feed(piece)
        assert answer is Outcome.NEED_MORE or after == answer
        answer = after
    assert answer == whole
    assert sniffer.data == data
    if isinstance(whole, Found):
        check_name(whole.name)
    if whole is not Outcome.NEED_MORE:
        assert StreamSniffer(limit).feed(data + rng.randbytes(50)) == whole
    elif data:
        assert len(data) < limit
    return data


# Invariant: any datagrams give one of the three answers and raise nothing; a final one stays; after eight
# datagrams the answer is final.
def fuzz_datagrams(rng: random.Random) -> bytes:
    blobs = list(rng.choice(DATAGRAMS))
    pool = [blob for flow in DATAGRAMS for blob in flow]
    damaged = [
        mutate(rng, rng.choice((*blobs, *blobs, rng.choice(pool))), pool) for _ in range(rng.randint(1, 9))
    ]
    _feed_datagrams(damaged)
    return b"|".join(damaged)


# Invariant: the same for frames that are well sealed and ill made, which damage on the wire can't produce.
def fuzz_frames(rng: random.Random) -> bytes:
    hello = mutate(rng, rng.choice(HELLOS), HELLOS) if rng.random() < 0.5 else rng.choice(HELLOS)
    version = rng.choice(VERSIONS)
    datagrams = []
    for number in range(rng.randint(1, 5)):
        frames = []
        for _ in range(rng.randint(0, 8)):
            at = rng.randint(0, len(hello))
            frames.append(
                rng.choice(
                    (crypto(at, hello[at : at + rng.randint(0, 900)]), b"\1", bytes(30), ack(7, [(1, 2)]))
                )
            )
        payload = b"".join(frames) + (crypto(0, hello) if rng.random() < 0.3 else b"")
        if rng.random() < 0.5:
            payload = mutate(rng, payload, [hello])
        packet = initial(payload[:15000], version, number=number * rng.randint(1, 300), number_size=4)
        datagrams.append(packet + (other_long(version.zero_rtt, version) if rng.random() < 0.2 else b""))
    _feed_datagrams(datagrams)
    return b"|".join(datagrams)


def _feed_datagrams(datagrams: list[bytes]) -> None:
    sniffer = DatagramSniffer()
    answer: Found | Outcome = Outcome.NEED_MORE
    for datagram in datagrams:
        after = sniffer.feed(datagram)
        assert answer is Outcome.NEED_MORE or after == answer
        answer = after
    if isinstance(answer, Found):
        check_name(answer.name)
    assert answer is not Outcome.NEED_MORE or len(datagrams) < 8


# Invariant: a header block decodes, or raises HpackError; a decoded field comes out no longer than the
# densest code allows.
def fuzz_hpack(rng: random.Random) -> bytes:
    block = mutate(rng, rng.choice([stream[-60:] for stream in STREAMS]), STREAMS)
    try:
        for name, value in decode_fields(block):
            assert len(name) + len(value) <= 4096 + 2 * len(block)
    except HpackError:
        pass
    return block


# Invariant: what comes out of any bytes is "" or a name that comes out of itself.
def fuzz_names(rng: random.Random) -> bytes:
    raw = mutate(
        rng, rng.choice((b"www.video.example:443", b"a.b.c.", b"192.0.2.1", b"[::1]:80")), [b"x.example"]
    )
    check_name(host_name(raw))
    check_name(authority_name(raw))
    return raw


TARGETS: list[Callable[[random.Random], bytes]] = [
    fuzz_stream,
    fuzz_datagrams,
    fuzz_frames,
    fuzz_hpack,
    fuzz_names,
]


if __name__ == "__main__":
    main(__doc__, TARGETS)
