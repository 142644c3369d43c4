"""A list of names: `example.com` is that name, `*.example.com` it and all below it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Patterns"]


class Patterns:
    """Names by pattern; the cost is one look-up for each label of a name."""

    __slots__ = ("_below", "_names")

    def __init__(self, patterns: Iterable[str]) -> None:
        """As the configuration has them: lower case, with `*.` in front or nothing."""
        each = list(patterns)
        self._names = frozenset(each)
        self._below = frozenset(text[2:] for text in each if text.startswith("*."))

    def __contains__(self, name: str) -> bool:
        if name in self._names:
            return True
        while self._below and name:
            if name in self._below:
                return True
            name = name.partition(".")[2]
        return False
