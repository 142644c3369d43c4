"""Rules about names, as tables: the lowest index of all that match, however many there are.

Exact names and suffixes are one dictionary each. A name's suffixes are looked up one by one, and no deeper
than the deepest rule, so a name of 127 labels costs no more than the rules can use. It is a suffix trie whose
nodes are found by their whole path: as few steps as with a dictionary per node, in 125 bytes a rule instead of 170.
Keywords and expressions are tried in order, and only while they could still win.
"""

from __future__ import annotations

from sys import maxsize

from zignet.routing.names import MAX_NAME
from zignet.routing.rule import Domain, Keyword, Pattern, Suffix

__all__ = ["DomainCondition", "DomainTable"]

DomainCondition = Domain | Suffix | Keyword | Pattern


class DomainTable:
    """Filled in the order of the rules, then only read."""

    __slots__ = ("_depth", "_exact", "_keywords", "_patterns", "_suffixes")

    def __init__(self) -> None:
        self._exact: dict[str, int] = {}
        self._suffixes: dict[str, int] = {}
        self._depth = 0  # labels of the longest suffix
        self._keywords: list[tuple[int, str]] = []
        self._patterns: list[tuple[int, Pattern]] = []

    def add(self, condition: DomainCondition, index: int) -> None:
        """A rule's condition; indices must rise."""
        match condition:
            case Domain(name):
                self._exact.setdefault(name, index)
            case Suffix(name):
                self._suffixes.setdefault(name, index)
                self._depth = max(self._depth, name.count(".") + 1)
            case Keyword(text):
                self._keywords.append((index, text))
            case Pattern():
                self._patterns.append((index, condition))

    def first(self, name: str, best: int) -> int:
        """The lowest index of a rule that matches `name`, or `best` if that is lower."""
        if len(name) > MAX_NAME:
            return best  # not a domain name, whatever it is
        index = self._exact.get(name)
        if index is not None and index < best:
            best = index
        suffixes = self._suffixes
        if suffixes:
            rest = name
            if name.count(".") >= self._depth:  # labels in front that no rule goes down to
                rest = ".".join(name.rsplit(".", self._depth)[1:])
            while rest:
                index = suffixes.get(rest)
                if index is not None and index < best:
                    best = index
                rest = rest.partition(".")[2]
        if self._keywords:
            best = self._first_keyword(name, best)
        if self._patterns:
            best = self._first_pattern(name, best)
        return best

    def each(self, name: str) -> list[int]:
        """The lowest index among exact names, suffixes, keywords, expressions: of each that matches."""
        if len(name) > MAX_NAME:
            return []
        labels = name.split(".")
        suffixes = [".".join(labels[start:]) for start in range(len(labels))]
        found = [
            self._exact.get(name, maxsize),
            min(self._suffixes.get(suffix, maxsize) for suffix in suffixes),
            self._first_keyword(name, maxsize),
            self._first_pattern(name, maxsize),
        ]
        return [index for index in found if index != maxsize]

    def _first_keyword(self, name: str, best: int) -> int:
        for index, keyword in self._keywords:
            if index >= best:
                break
            if keyword in name:
                return index
        return best

    def _first_pattern(self, name: str, best: int) -> int:
        for index, pattern in self._patterns:
            if index >= best:
                break
            if pattern.regex.search(name):
                return index
        return best
