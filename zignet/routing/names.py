"""Domain names as rules and sniffers compare them: ASCII (A-labels), lower case, no trailing dot."""

from __future__ import annotations

import re

__all__ = ["MAX_NAME", "ascii_name"]

MAX_NAME = 253  # characters without the trailing dot (RFC 1035 §3.1: 255 bytes on the wire)

# LDH labels of RFC 1123 §2.1, and the underscore that real names hold
_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}", re.ASCII)

# UTS #46 §4, deviation characters: Python's codec (IDNA 2003) maps them away, and browsers keep them
_DEVIATE = frozenset("ßς\u200c\u200d")


def ascii_name(text: str) -> str:
    """A name as it would be sniffed: `Bücher.Example.` becomes `xn--bcher-kva.example`.

    Raises `ValueError` with a message for people.
    """
    name = text.removesuffix(".").lower()
    if not name.isascii():
        name = _a_labels(name)
    if len(name) > MAX_NAME or _NAME.fullmatch(name) is None:
        if "*" in name:
            raise ValueError(f'"{text}": a * stands only at the very front, as in *.example.com')
        raise ValueError(f'"{text}" is not a domain name')
    return name


def _a_labels(name: str) -> str:
    """The name with each label in its `xn--` form (RFC 3490)."""
    if _DEVIATE.intersection(name):
        raise ValueError(f'"{name}": standards disagree about ß, ς and joiners; write the name as xn--…')
    try:
        return name.encode("idna").decode("ascii").lower()
    except UnicodeError as error:
        raise ValueError(f'"{name}" is not a domain name ({error})') from error
