"""From the tree to dataclasses: a field says how its value is read, a section is a class of such fields."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from zignet.config import values
from zignet.config.document import Items, Node, Scalar, Table
from zignet.config.problem import Problem
from zignet.identity import KeyFileError, PublicKey, read_psk
from zignet.routing import did_you_mean

__all__ = [
    "Reader",
    "Reading",
    "key_of",
    "keys",
    "many",
    "of_type",
    "one",
    "others_may_read",
    "path",
    "psk_file",
    "read_fields",
    "read_section",
    "setting",
]

S = TypeVar("S")


@dataclass(slots=True)
class Reading:
    """One document being read: where its paths start, and what was wrong so far."""

    file: str
    folder: Path
    problems: list[Problem]

    def complain(self, line: int, key: str, message: str) -> None:
        """Note a mistake and go on, so that one run shows them all."""
        self.problems.append(Problem(self.file, line, key, message))


class _Missing:
    """There is no value; what is wrong, if anything, was noted."""


_MISSING = _Missing()

Reader = Callable[[Node, str, Reading], Any]


def setting(default: Any, reader: Reader, *, key: str = "") -> Any:
    """A dataclass field that the file may set; `key` where the file's word is not the field's."""
    metadata = {"read": reader, "key": key}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def key_of(name: str, metadata: Mapping[str, Any]) -> str:
    """What a field is called in the file."""
    return cast(str, metadata.get("key") or name)


def one(parse: Callable[[str], Any]) -> Reader:
    """A single value."""

    def read(node: Node, key: str, reading: Reading) -> Any:
        if not isinstance(node, Scalar):
            reading.complain(node.line, key, "expected a single value")
        elif node.is_null:
            reading.complain(node.line, key, "there is no value")
        else:
            try:
                return parse(node.text)
            except ValueError as error:
                reading.complain(node.line, key, str(error))
        return _MISSING

    return read


def many(parse: Callable[[str], Any]) -> Reader:
    """A list of single values, as a tuple."""
    read_one = one(parse)

    def read(node: Node, key: str, reading: Reading) -> Any:
        if isinstance(node, Scalar) and node.is_null:
            return _MISSING
        if not isinstance(node, Items):
            reading.complain(node.line, key, "expected a list, such as [a, b]")
            return _MISSING
        values = [read_one(item, f"{key}[{at}]", reading) for at, item in enumerate(node.items)]
        return tuple(value for value in values if value is not _MISSING)

    return read


def path(node: Node, key: str, reading: Reading) -> Any:
    """A path; relative ones start at the configuration's folder, and `~` is the home directory."""

    def resolve(text: str) -> Path:
        if "\0" in text:
            raise ValueError("a path has no zero byte")
        try:
            return reading.folder / Path(text).expanduser()
        except RuntimeError:
            raise ValueError(f'"{text}": whose home directory is not known') from None

    return one(resolve)(node, key, reading)


def keys(node: Node, key: str, reading: Reading) -> Any:
    """A list of public keys, as a set."""
    found = many(PublicKey.from_text)(node, key, reading)
    return frozenset(found) if isinstance(found, tuple) else found


def psk_file(node: Node, key: str, reading: Reading) -> Any:
    """The path, once it is seen that a pre-shared key is in it, and that others can't read it."""
    found = path(node, key, reading)
    if isinstance(found, Path):
        try:
            read_psk(found)
        except KeyFileError as error:
            reading.complain(node.line, key, str(error))
    return found


def read_section(
    kind: type[S], node: Node, key: str, reading: Reading, readers: Mapping[str, Reader] | None = None
) -> S:
    """A dataclass from a mapping; what is missing or wrong keeps its default."""
    return kind(**read_fields(kind, node, key, reading, readers))


def read_fields(
    kind: type, node: Node, key: str, reading: Reading, readers: Mapping[str, Reader] | None = None
) -> dict[str, Any]:
    """Those fields of a dataclass that a mapping sets rightly.

    `readers` overrides or adds to those of the fields, by the file's words.
    """
    known: dict[str, tuple[str, Reader]] = {}
    for part in fields(kind):
        word = key_of(part.name, part.metadata)
        reader = (readers or {}).get(word) or part.metadata.get("read")
        if reader is not None:
            known[word] = (part.name, reader)
    values = {}
    for word, (line, child) in entries(node, key, reading).items():
        place = f"{key}.{word}" if key else word
        if word not in known:
            reading.complain(line, place, f"unknown key{did_you_mean(word, known)}")
            continue
        name, reader = known[word]
        value = reader(child, place, reading)
        if value is not _MISSING:
            values[name] = value
    return values


def entries(node: Node, key: str, reading: Reading) -> dict[str, tuple[int, Node]]:
    """The entries of a mapping; none, and a complaint, where it is something else."""
    if isinstance(node, Table):
        return node.entries
    if not (isinstance(node, Scalar) and node.is_null):
        switched_on = isinstance(node, Scalar) and node.text.lower() in ("yes", "true", "on")
        hint = "; {} is all defaults" if switched_on else ""
        reading.complain(node.line, key, f"expected keys with values, such as {{name: value}}{hint}")
    return {}


def of_type(
    node: Node,
    key: str,
    line: int,
    reading: Reading,
    keys_by_type: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]],
    what: str,  # e.g. "an exit"
) -> tuple[str, Table] | None:
    """The type that a mapping says it is of, and the entries that such a one may have; None if it is of no type.

    `keys_by_type` has the keys that each type must have, and those that it may have.
    """
    table = entries(node, key, reading)
    given = table.get("type")
    if given is None:
        reading.complain(line, f"{key}.type", f"missing; one of {', '.join(keys_by_type)}")
        return None
    kind = one(values.choice(*keys_by_type))(given[1], f"{key}.type", reading)
    if kind not in keys_by_type:
        return None
    required, optional = keys_by_type[kind]
    known = (*required, *optional)
    every = {word for pair in keys_by_type.values() for words in pair for word in words}
    for word, (at, _) in table.items():
        if word != "type" and word not in known:
            unknown = "unknown key" if word not in every else f"{what} of type {kind} has no such key"
            reading.complain(at, f"{key}.{word}", unknown + did_you_mean(word, ("type", *known)))
    for word in required:
        if word not in table:
            reading.complain(line, f"{key}.{word}", f"missing; {what} of type {kind} needs it")
    return kind, Table(node.line, {word: table[word] for word in known if word in table})


def others_may_read(file: Path) -> bool:
    """Whether a file is open to everybody on this machine. One that is not there is not."""
    try:
        return bool(file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH))
    except OSError:
        return False
