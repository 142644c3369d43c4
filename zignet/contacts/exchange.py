"""Contacts as text, to keep and to carry. Written as JSON; read as that, or as lines.

{"contacts": [{"name": "alice", "key": "…", "note": "…", "tags": ["friend"]}]}

A line is a link (`zignet:KEY?name=…`), or `name key` as in a file of peers, whatever follows; behind `#` is a comment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from zignet.contacts.contact import Contact, ContactError
from zignet.contacts.link import SCHEME, parse_link
from zignet.identity import BadKey, PublicKey

__all__ = ["MOST_BYTES", "Unreadable", "dump", "parse"]

MOST_BYTES = 16 << 20
_LEAST_WORDS = 2


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An entry that is no contact."""

    place: str  # "line 3", "entry 3"
    why: str


def dump(contacts: Iterable[Contact]) -> str:
    """All of them, as JSON."""
    return json.dumps({"contacts": [contact.to_json() for contact in contacts]}, indent=2, ensure_ascii=False)


def parse(text: str) -> list[Contact | Unreadable]:
    """The contacts in their order. Raises `ContactError` where the text as a whole can't be read."""
    if len(text) > MOST_BYTES:
        raise ContactError(f"That is more than {MOST_BYTES >> 20} MiB.")
    text = text.removeprefix("\N{BYTE ORDER MARK}")
    if text.lstrip().startswith(("{", "[")):
        return _from_json(text)
    found: list[Contact | Unreadable] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            contact = _from_line(line.strip())
        except (ContactError, BadKey) as error:
            found.append(Unreadable(f"line {number}", str(error)))
        else:
            if contact is not None:
                found.append(contact)
    return found


def _from_line(line: str) -> Contact | None:
    if line.lower().startswith(SCHEME):
        key, name = parse_link(line)
        if not name:
            raise ContactError("The link has no name.")
        return Contact(name, key)
    words = line.partition("#")[0].split()
    if not words:
        return None
    if len(words) < _LEAST_WORDS:
        raise ContactError("Expected a name and a key.")
    return Contact(words[0], PublicKey.from_text(words[1]))


def _from_json(text: str) -> list[Contact | Unreadable]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ContactError(f"It looks like JSON, and is not: {error}.") from None
    entries = document.get("contacts") if isinstance(document, dict) else document
    if not isinstance(entries, list):
        raise ContactError('There is no list "contacts" in it.')
    found: list[Contact | Unreadable] = []
    for number, entry in enumerate(entries, 1):
        try:
            found.append(_from_entry(entry))
        except (ContactError, BadKey) as error:
            found.append(Unreadable(f"entry {number}", str(error)))
    return found


def _from_entry(entry: Any) -> Contact:
    if not isinstance(entry, dict):
        raise ContactError("Expected an object with name and key.")
    name, key, note, tags = (entry.get(word, usual) for word, usual in _FIELDS)
    if not all(isinstance(text, str) for text in (name, key, note)):
        raise ContactError("name, key and note are texts.")
    if not isinstance(tags, list) or not all(isinstance(text, str) for text in tags):
        raise ContactError("tags are a list of texts.")
    return Contact(name, PublicKey.from_text(key), note, tuple(tags))


_FIELDS: tuple[tuple[str, Any], ...] = (("name", ""), ("key", ""), ("note", ""), ("tags", []))
