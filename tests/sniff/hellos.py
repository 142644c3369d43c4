"""Writes ClientHellos: a generator that knows nothing of the parser."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from hypothesis import strategies as st

GREASE = [0x0A0A + 0x1010 * i for i in range(16)]
SERVER_NAME, ECH = 0, 0xFE0D


def vector(data: bytes, size: int) -> bytes:
    return len(data).to_bytes(size, "big") + data


def server_name(name: bytes, kind: int = 0) -> bytes:
    return vector(bytes((kind,)) + vector(name, 2), 2)


def hello(
    extensions: Sequence[tuple[int, bytes]] | None,
    session: bytes = b"",
    suites: bytes = b"\x13\x01",
    compression: bytes = b"\0",
    version: bytes = b"\x03\x03",
) -> bytes:
    """A handshake message. Without extensions at all for None."""
    body = version + bytes(range(32)) + vector(session, 1) + vector(suites, 2) + vector(compression, 1)
    if extensions is not None:
        body += vector(b"".join(kind.to_bytes(2, "big") + vector(data, 2) for kind, data in extensions), 2)
    return b"\x01" + vector(body, 3)


def record(fragment: bytes, version: bytes = b"\x03\x01", kind: int = 22) -> bytes:
    return bytes((kind,)) + version + vector(fragment, 2)


def records(message: bytes, cuts: Iterable[int]) -> bytes:
    """The message in records that end at each of these offsets."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(message)}), len(message)]
    return b"".join(record(message[a:b]) for a, b in pairwise(edges))


_label = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?", fullmatch=True)
names = st.builds(
    lambda labels, top: ".".join([*labels, top]), st.lists(_label, max_size=5), st.just("example")
)


@st.composite
def hellos(draw: st.DrawFn) -> tuple[bytes, str, bool]:
    """(message, name, ech): with GREASE, unknown extensions in any order, and odd letter case in the name."""
    name = draw(st.none() | names)
    ech = draw(st.booleans())
    kinds = st.sampled_from(GREASE) | st.integers(1, 0xFFFF).filter(lambda kind: kind != ECH)
    extensions = draw(st.lists(st.tuples(kinds, st.binary(max_size=40)), max_size=12))
    if name is not None:
        shown = draw(st.sampled_from([name, name.upper(), name.title(), name + "."]))
        extensions.append((SERVER_NAME, server_name(shown.encode())))
    if ech:
        extensions.append((ECH, draw(st.binary(max_size=60))))
    extensions = draw(st.permutations(extensions))
    suites = b"".join(draw(st.lists(st.binary(min_size=2, max_size=2), min_size=1, max_size=30)))
    message = hello(extensions, draw(st.binary(max_size=32)), suites)
    return message, name or "", ech
