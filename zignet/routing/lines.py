"""Rule lines with where they came from, kept compactly: long lists are mostly text that nobody looks at."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, overload

__all__ = ["Line", "Lines", "read_lines"]


class Line(NamedTuple):
    """One rule line as written, and its place for messages, e.g. `zignet.yaml:12`."""

    text: str
    where: str


class Lines(Sequence[Line]):
    """Many lines in one block of UTF-8: 50 bytes a line where a list of `Line` takes 220.

    Immutable; made from (text, file, line number) triples, whose files should come in runs.
    """

    __slots__ = ("_ends", "_files", "_numbers", "_text")

    def __init__(self, triples: Iterable[tuple[str, str, int]] = ()) -> None:
        text = bytearray()
        self._ends = array("L")  # byte offsets
        self._numbers = array("L")
        self._files: list[tuple[int, str]] = []  # (the first index of the run, file)
        for content, file, number in triples:
            if not self._files or self._files[-1][1] != file:
                self._files.append((len(self._ends), file))
            text += content.encode("utf-8", "surrogatepass")
            self._ends.append(len(text))
            self._numbers.append(number)
        self._text = bytes(text)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Line: ...

    @overload
    def __getitem__(self, index: slice) -> Lines: ...

    def __getitem__(self, index: int | slice) -> Line | Lines:
        if isinstance(index, slice):
            return Lines(self._triple(at) for at in range(*index.indices(len(self))))
        at = range(len(self))[index]  # negative ones too; IndexError
        text, file, number = self._triple(at)
        return Line(text, f"{file}:{number}")

    def __iter__(self) -> Iterator[Line]:
        begin = 0
        for run, (first, file) in enumerate(self._files):
            last = self._files[run + 1][0] if run + 1 < len(self._files) else len(self)
            pairs = zip(islice(self._ends, first, last), islice(self._numbers, first, last), strict=True)
            for end, number in pairs:
                yield Line(self._text[begin:end].decode("utf-8", "surrogatepass"), f"{file}:{number}")
                begin = end

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lines):
            return NotImplemented
        return (self._text, self._ends, self._numbers, self._files) == (
            other._text,
            other._ends,
            other._numbers,
            other._files,
        )

    def __hash__(self) -> int:
        return hash((self._text, tuple(self._files)))

    def __repr__(self) -> str:
        return f"<{len(self)} rule lines>"

    def _triple(self, at: int) -> tuple[str, str, int]:
        begin = self._ends[at - 1] if at else 0
        text = self._text[begin : self._ends[at]].decode("utf-8", "surrogatepass")
        file = next(file for first, file in reversed(self._files) if first <= at)
        return text, file, self._numbers[at]


def read_lines(text: Iterable[str], file: str) -> Iterator[tuple[str, str, int]]:
    """A rule file's lines as triples for `Lines`. Empty ones and comments (`#`, `//`) are left out.

    A comment after a rule needs a blank on both sides of its `#`, since an exit may be called `Tokyo #1`.
    """
    for number, raw in enumerate(text, 1):
        line = raw.strip()
        if not line or line.startswith(("#", "//")):
            continue
        yield line.partition(" # ")[0].rstrip(), file, number
