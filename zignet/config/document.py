"""YAML text to a tree that remembers its lines.

Only what a configuration needs: mappings with text for keys, lists, and values as they were written. What a
value means is for its reader to say, so `off` is a word where a word is due and false where a flag is.
Anchors, aliases and tags are refused, and so there is nothing that grows when it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from zignet.config.problem import ConfigError, Problem

__all__ = ["MAX_BYTES", "Items", "Node", "Scalar", "Table", "compose"]

MAX_BYTES = 8 << 20  # of a configuration file
MAX_NODES = 1_000_000
MAX_DEPTH = 16

_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's parser is twenty times as fast


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value, as text."""

    line: int  # from 1
    text: str
    plain: bool  # written without quotes

    @property
    def is_null(self) -> bool:
        """Nothing was written, or one of YAML's words for it."""
        return self.plain and self.text in ("", "~", "null")


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    line: int
    items: list[Node]


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping: key -> (line of the key, value)."""

    line: int
    entries: dict[str, tuple[int, Node]]


Node = Scalar | Items | Table


def compose(text: str, file: str) -> tuple[Node | None, list[Problem]]:
    """The tree of a document, None for an empty one, and the mistakes that do not end it (keys given twice).

    Raises `ConfigError` where the text is not YAML, or YAML of a kind that is refused.
    """
    try:
        return _Composer(text, file).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigError([Problem(file, mark.line + 1 if mark else 0, "", f"not YAML: {what}")]) from None
    except (yaml.YAMLError, UnicodeError) as error:
        what = str(error).partition("\n")[0]
        raise ConfigError([Problem(file, 0, "", f"not YAML: {what}")]) from None


class _Composer:
    """From the parser's events; recursion is bounded by MAX_DEPTH."""

    def __init__(self, text: str, file: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self._file = file
        self._nodes = 0
        self._problems: list[Problem] = []

    def document(self) -> tuple[Node | None, list[Problem]]:
        root: Node | None = None
        begun = False
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if begun:
                    raise self._refusal(event, "a second document (---) in the file")
                begun = True
                root = self._node(next(self._events), 0)
        return root, self._problems

    def _node(self, event: yaml.Event, depth: int) -> Node:
        line = _line(event)
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise self._refusal(event, "nested too deeply" if depth > MAX_DEPTH else "too many values")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise self._refusal(
                event, "anchors and aliases (& and *) are not supported; put quotes around a text"
            )
        if getattr(event, "tag", None) is not None:
            raise self._refusal(event, "tags (!) are not supported; put quotes around a text")
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(line, event.value, event.style in (None, ""))
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
                items.append(self._node(event, depth + 1))
            return Items(line, items)
        return Table(line, self._entries(depth))

    def _entries(self, depth: int) -> dict[str, tuple[int, Node]]:
        entries: dict[str, tuple[int, Node]] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            if not isinstance(key, Scalar):
                raise self._refusal(event, "a key must be a word")
            if key.text in entries:
                first = entries[key.text][0]
                self._problems.append(
                    Problem(self._file, key.line, key.text, f"given twice; the first is in line {first}")
                )
                continue
            entries[key.text] = (key.line, value)
        return entries

    def _refusal(self, event: yaml.Event, message: str) -> ConfigError:
        return ConfigError([*self._problems, Problem(self._file, _line(event), "", message)])


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0
