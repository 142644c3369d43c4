"""A file of keys, one a line, in any notation; a million of them in a second.

    25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenm3iqb   alice     # what follows a key is its name
    FVen3X669xLzsi6N2V91DoiyzHzg1uAgqiT8jZ9nS96Z

A line that is no key is reported with its number, and the rest counts. Whether the bytes of a line are the key of
anybody is looked at in files of up to 10,000 lines, which people write; in longer ones it costs 30 µs a line and
nothing depends on it: see `keytable`.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from zignet.identity import BadKey, PublicKey, names
from zignet.policy.keytable import KeyTable

__all__ = ["KeyFile", "parse_keys", "read_keys"]

MOST_BYTES = 128 << 20
_PIECE = 128 << 10  # bytes decoded together
_LONGEST = 4096  # bytes of a line that are looked at
_MOST_BAD_LINES = 20  # told of
_MOST_NAMES = 10_000  # kept
_CAREFUL = 10_000  # lines of a file whose keys are looked at one by one
_LONGEST_NAME = 64  # characters
_BOM = b"\xef\xbb\xbf"


@dataclass(slots=True)
class KeyFile:
    """The keys of a file."""

    table: KeyTable
    names: dict[int, str] = field(default_factory=dict)  # by line
    bad: int = 0  # lines
    problems: list[str] = field(default_factory=list)  # about the first bad lines

    def line_of(self, key: PublicKey) -> int:
        """The line of this key or its negation, from 1; 0 if it is not there."""
        return self.table.line_of(key.ed)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, PublicKey) and self.line_of(key) > 0


def read_keys(file: Path) -> KeyFile:
    """The keys in a file. Raises `ValueError`, whose text names the file, where it can't be read."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # before it is opened: a pipe would wait for its writer
            raise ValueError(f"{file} is not a file")
        with file.open("rb", buffering=0) as stream:
            count = 1
            size = 0
            while piece := stream.read(_PIECE):
                count += piece.count(b"\n")
                size += len(piece)
                if size > MOST_BYTES:
                    raise ValueError(f"{file} is larger than {MOST_BYTES >> 20} MiB")
            stream.seek(0)
            return _parse(_pieces(stream), count)
    except PermissionError as error:
        me = f"for user {_user_name()}: chmod or chown it, or its directory"
        raise ValueError(f"{file}: {error.strerror} {me}") from None
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from None


def _user_name() -> str:
    """Who we are, for those who did not know: the control process runs as another user than the node."""
    with suppress(KeyError):
        return pwd.getpwuid(os.geteuid()).pw_name
    return str(os.geteuid())


def parse_keys(content: bytes) -> KeyFile:
    """As `read_keys`, for what is in a file. Raises nothing."""
    return _parse(iter([content.split(b"\n")]), content.count(b"\n") + 1)


def _pieces(stream: BinaryIO) -> Iterator[list[bytes]]:
    """Whole lines, many at a time. Of a line that is too long, its beginning."""
    rest = b""
    while piece := stream.read(_PIECE):
        lines = (rest + piece).split(b"\n")
        rest = lines.pop()[:_LONGEST]
        yield lines
    yield [rest]


def _parse(pieces: Iterator[list[bytes]], most: int) -> KeyFile:
    """`most` is how many lines there are; what was added to the file since they were counted is for the next time."""
    found = KeyFile(KeyTable(most))
    number = 1
    for lines in pieces:
        fitting = lines[: most + 1 - number]
        if number == 1 and fitting:
            fitting[0] = fitting[0].removeprefix(_BOM)
        _take(found, fitting, number, careful=most <= _CAREFUL)
        number += len(fitting)
    return found


def _take(found: KeyFile, lines: list[bytes], first: int, careful: bool) -> None:
    """The lines of one piece, of which the first has this number."""
    if not careful and set(map(len, lines)) == {names.NAME_LENGTH}:  # as machines write them
        with suppress(TypeError):  # there is one that is no key
            found.table.add(b"".join(names.decode_many(lines)), range(first, first + len(lines)))  # type: ignore[arg-type]
            return
    texts, numbers = [], []
    for number, line in enumerate(lines, first):
        words = line[:_LONGEST].split()
        if not words or words[0].startswith(b"#"):
            continue
        texts.append(words[0])
        numbers.append(number)
        if len(words) > 1 and len(found.names) < _MOST_NAMES and (name := _name(words[1:])):
            found.names[number] = name
    good, of_good = [], []
    for number, key in zip(numbers, _keys(texts, careful), strict=True):
        if isinstance(key, bytes):
            good.append(key)
            of_good.append(number)
        else:
            found.bad += 1
            if len(found.problems) < _MOST_BAD_LINES:
                found.problems.append(f"line {number}: {key}")
    found.table.add(b"".join(good), of_good)


def _keys(texts: list[bytes], careful: bool) -> list[bytes | str]:
    """Each key, or what is wrong with it."""
    keys = names.decode_many(texts)
    for at, key in enumerate(keys):
        if isinstance(key, str):
            keys[at] = f'"{_shown(texts[at])}" {key}'
    if careful:
        raw = [key for key in keys if isinstance(key, bytes)]
        looked_at = iter(PublicKey.from_many(raw))
        for at, key in enumerate(keys):
            if isinstance(key, bytes) and isinstance(bad := next(looked_at), BadKey):
                keys[at] = str(bad)
    return keys


def _name(words: list[bytes]) -> str:
    """What stands behind a key, up to a comment."""
    kept = []
    for word in words:
        if word.startswith(b"#"):
            break
        kept.append(word)
    return _shown(b" ".join(kept))


def _shown(text: bytes) -> str:
    shown = text[: 4 * _LONGEST_NAME].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in shown)[:_LONGEST_NAME]
