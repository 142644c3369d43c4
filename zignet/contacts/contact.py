"""A contact."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from zignet.config.values import peer_name
from zignet.identity import PublicKey

__all__ = ["MOST_NOTE", "MOST_TAGS", "Contact", "ContactError", "tag"]

MOST_NOTE = 1_000  # characters
MOST_TAGS = 16
_TAG = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


class ContactError(ValueError):
    """Something is not as a contact's must be, or not there; the text is a sentence for people."""


@dataclass(frozen=True, slots=True)
class Contact:
    """Somebody. The name is a DNS label, as a peer's, and resolves as `name.zignet`. Raises `ContactError`."""

    name: str
    key: PublicKey
    note: str = ""
    tags: tuple[str, ...] = ()  # in their order, each once
    added: int = 0  # seconds since 1970

    def __post_init__(self) -> None:
        try:
            peer_name(self.name)
        except ValueError as error:
            raise ContactError(f"{error}.") from None
        if len(self.note) > MOST_NOTE:
            raise ContactError(f"A note has at most {MOST_NOTE} characters, and this one {len(self.note)}.")
        if not all(letter.isprintable() or letter == "\n" for letter in self.note):
            raise ContactError("There are characters in the note that can't be printed.")
        tags = tuple(sorted({tag(text) for text in self.tags}))
        if len(tags) > MOST_TAGS:
            raise ContactError(
                f"A contact has at most {MOST_TAGS} tags, and this one would have {len(tags)}."
            )
        object.__setattr__(self, "tags", tags)

    def to_json(self) -> dict[str, Any]:
        """For programs, and for `exchange`."""
        return {"name": self.name, "key": self.key.name, "note": self.note, "tags": list(self.tags)}


def tag(text: str) -> str:
    """A tag as it is kept. Raises `ContactError`."""
    folded = text.strip().lower()
    if _TAG.fullmatch(folded) is None:
        raise ContactError(f'"{text}" is not a tag: 1 to 32 letters, digits, "-" and "_".')
    return folded
