"""One endpoint of the API, described where it is written: served, checked and documented from the same words.

@endpoint("GET", "/api/identity", Identity, Parameter("ip", Address()), declined=404)
async def identity(self, ip=None): ...
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Any, NotRequired, Protocol, TypeVar, get_args, get_origin, get_type_hints

from zignet.admin.refused import Refused
from zignet.identity import BadKey, PublicKey

__all__ = [
    "Address",
    "Choice",
    "Endpoint",
    "Flag",
    "Key",
    "Number",
    "Parameter",
    "Text",
    "endpoint",
    "endpoints_of",
]

JSON = "application/json"

F = TypeVar("F", bound=Callable[..., Any])


class Kind(Protocol):
    """What the value of a parameter may be."""

    def read(self, text: str) -> Any:
        """The value. Raises ValueError, whose text continues a sentence about it: "is not …"."""
        ...

    def schema(self) -> dict[str, Any]:
        """The same as JSON Schema."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """Any text of one line."""

    most: int = 255  # characters

    def read(self, text: str) -> str:
        """See `Kind`."""
        if not 0 < len(text) <= self.most or not text.isprintable():
            raise ValueError(f"is not a text of 1 to {self.most} characters")
        return text

    def schema(self) -> dict[str, Any]:
        """See `Kind`."""
        return {"type": "string", "minLength": 1, "maxLength": self.most}


@dataclass(frozen=True, slots=True)
class Key:
    """A public key as a name, base58 or hexadecimal."""

    def read(self, text: str) -> PublicKey:
        """See `Kind`."""
        try:
            return PublicKey.from_text(text)
        except BadKey as error:
            raise ValueError(f"is not a key: {error}") from None

    def schema(self) -> dict[str, Any]:
        """See `Kind`."""
        return {
            "type": "string",
            "minLength": 32,
            "maxLength": 64,
            "pattern": "^[0-9A-Za-z]+$",
            "examples": ["25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenm3iqb"],
        }


@dataclass(frozen=True, slots=True)
class Address:
    """An IPv4 or IPv6 address."""

    def read(self, text: str) -> str:
        """See `Kind`."""
        try:
            return str(ip_address(text))
        except ValueError:
            raise ValueError("is not an IP address") from None

    def schema(self) -> dict[str, Any]:
        """See `Kind`."""
        return {
            "type": "string",
            "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}],
            "examples": ["100.64.0.1"],
        }


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number, both bounds included."""

    low: int
    high: int

    def read(self, text: str) -> int:
        """See `Kind`."""
        if not (text.isascii() and text.isdigit() and len(text) <= 16 and self.low <= int(text) <= self.high):
            raise ValueError(f"is not a number from {self.low} to {self.high}")
        return int(text)

    def schema(self) -> dict[str, Any]:
        """See `Kind`."""
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]

    def read(self, text: str) -> str:
        """See `Kind`."""
        if text not in self.words:
            raise ValueError(f"is not one of {', '.join(self.words)}")
        return text

    def schema(self) -> dict[str, Any]:
        """See `Kind`."""
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Flag:
    """`true` or `false`."""

    def read(self, text: str) -> bool:
        """See `Kind`."""
        if text not in ("true", "false"):
            raise ValueError("is neither true nor false")
        return text == "true"

    def schema(self) -> dict[str, Any]:
        """See `Kind`."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of the query, or of the path where the path names it."""

    name: str
    kind: Kind
    text: str  # what it means, for people
    required: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method of one path."""

    method: str
    path: str  # with {parameters}
    summary: str
    handler: str  # the method of the API's class
    answer: Any  # a TypedDict; or a media type for what is no JSON
    parameters: tuple[Parameter, ...] = ()
    declined: int = 400  # the status where the packet process declines, in its own words
    body: Any = None  # the TypedDict that a request brings, as JSON

    @property
    def also(self) -> tuple[int, ...]:
        """Statuses that only some have."""
        return () if self.body is None else (409, 415)

    @property
    def media(self) -> str:
        """The type of what it answers."""
        return self.answer if isinstance(self.answer, str) else JSON

    @property
    def changes(self) -> bool:
        """Whether it changes something, and so needs the token."""
        return self.method != "GET"

    def in_path(self, parameter: Parameter) -> bool:
        """Whether a parameter is a part of the path."""
        return f"{{{parameter.name}}}" in self.path

    def read_body(self, media: str, text: bytes) -> dict[str, Any]:
        """The document of a request, checked. Raises `Refused`."""
        if media.partition(";")[0].strip().lower() != JSON:
            raise Refused(415, f"the body is to be {JSON}")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise Refused(400, "the body is not JSON") from None
        if not isinstance(found, dict):
            raise Refused(400, "the body is not an object")
        hints = get_type_hints(self.body, include_extras=True)
        for name, value in found.items():
            if name not in hints:
                raise Refused(400, _unknown(name, list(hints)))
            if not _is(value, hints[name]):
                raise Refused(400, f"{name} is not what it should be: see /openapi.json")
        for name, hint in hints.items():
            if name not in found and get_origin(hint) is not NotRequired:
                raise Refused(400, f"{name} is missing")
        return found

    def read(self, query: Mapping[str, Sequence[str]], path: Mapping[str, str]) -> dict[str, Any]:
        """The values of the parameters that were given. Raises `Refused`."""
        known = {parameter.name: parameter for parameter in self.parameters if not self.in_path(parameter)}
        for name in query:
            if name not in known:
                raise Refused(400, _unknown(name, list(known)))
        given: dict[str, Any] = {}
        for parameter in self.parameters:
            name = parameter.name
            values = [path[name]] if name in path else query.get(name, ())
            if len(values) > 1:
                raise Refused(400, f"{name} is given more than once")
            if values:
                try:
                    given[name] = parameter.kind.read(values[0])
                except ValueError as error:
                    raise Refused(400, f"{name} {error}") from None
            elif parameter.required:
                raise Refused(400, f"{name} is missing: {parameter.text}")
        return given


def endpoint(
    method: str, path: str, answer: Any, *parameters: Parameter, declined: int = 400, body: Any = None
) -> Callable[[F], F]:
    """Make a method of the API's class an endpoint; the first line of its docstring is the summary."""

    def mark(handler: F) -> F:
        summary = (handler.__doc__ or "").partition("\n")[0].rstrip(".")
        described = Endpoint(method, path, summary, handler.__name__, answer, parameters, declined, body)
        handler.__endpoint__ = described  # type: ignore[attr-defined]
        return handler

    return mark


def endpoints_of(api: type) -> Iterator[Endpoint]:
    """All endpoints of a class, in the order in which they are written."""
    for member in vars(api).values():
        if isinstance(described := getattr(member, "__endpoint__", None), Endpoint):
            yield described


def _is(value: object, hint: Any) -> bool:
    """Whether a value of JSON is a text, or a list of texts, as a TypedDict of a body says."""
    if get_origin(hint) is NotRequired:
        (hint,) = get_args(hint)
    if hint is str:
        return isinstance(value, str)
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _unknown(name: str, known: list[str]) -> str:
    shown = "".join(letter if letter.isprintable() else "?" for letter in name[:40])
    near = get_close_matches(name, known, 1)
    if near:
        return f"unknown parameter {shown}: did you mean {near[0]}?"
    return f"unknown parameter {shown}: " + (f"known are {', '.join(known)}" if known else "none is known")
