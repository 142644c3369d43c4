"""Loads the files of tests/vectors, and delivers bytes to a sniffer in every way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sniff import Answer, Found, Outcome, StreamSniffer

ROOT = Path(__file__).parent.parent / "vectors"


@dataclass(frozen=True)
class Vector:
    label: str
    blobs: tuple[bytes, ...]  # one for a stream, each datagram otherwise
    found: Found

    @property
    def data(self) -> bytes:
        return self.blobs[0]

    def __str__(self) -> str:
        return self.label


def load(folder: str) -> list[Vector]:
    return [_read(path) for path in sorted((ROOT / folder).glob("*.hex"))]


def _read(path: Path) -> Vector:
    says: dict[str, str] = {}
    blocks = [""]
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            key, _, value = line[1:].partition(":")
            says[key.strip()] = value.strip()
        elif line:
            blocks[-1] += line
        else:
            blocks.append("")
    found = Found(says["protocol"], says["name"], says["ech"] == "yes")
    return Vector(path.stem, tuple(bytes.fromhex(block) for block in blocks), found)


def feed_all(pieces: Iterable[bytes], limit: int = 16384) -> Answer:
    """The last answer, after checking what must hold of every answer on the way."""
    sniffer = StreamSniffer(limit)
    fed = b""
    final: Answer | None = None
    answer: Answer = Outcome.NEED_MORE
    for piece in pieces:
        answer = sniffer.feed(piece)
        fed += piece
        assert answer in (Outcome.NEED_MORE, Outcome.NOT_THIS) or isinstance(answer, Found)
        if final is not None:
            assert answer == final, "a final answer changed"
        elif answer is not Outcome.NEED_MORE:
            final = answer
        assert len(fed) < limit or final is not None, "undecided beyond the limit"
    assert sniffer.data == fed
    return answer


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def sniff(data: bytes, limit: int = 16384) -> Answer:
    """The answer, the same in all three ways of delivery: whole, byte by byte, with bytes behind it."""
    whole = feed_all([data], limit)
    assert feed_all(byte_by_byte(data), limit) == whole
    if whole is not Outcome.NEED_MORE:
        assert feed_all([data + b"\0\xff trailing\r\n\r\n" * 20], limit) == whole
        assert feed_all([data, b"trailing"], limit) == whole
    return whole
