"""Files that a configuration is made of."""

from __future__ import annotations

import stat
from pathlib import Path

__all__ = ["read_text"]


def read_text(file: Path, most: int) -> str:
    """A text file of at most `most` bytes.

    Raises `ValueError` with a message that names the file where that is not plain already.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # before it is opened: a pipe would wait for its writer
            raise ValueError(f"{file} is not a file")
        with file.open("rb") as stream:
            content = stream.read(most + 1)
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from None
    if len(content) > most:
        raise ValueError(f"{file} is larger than {most >> 20} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{file} is not UTF-8 text (line {line})") from None
