"""The contacts of the API: the file of `zignet contacts`, and what the packet process knows of its keys.

SQLite may wait for another process, so a thread does the work, with the file opened for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from zignet.admin.documents import Contact, ContactChange, NewContact
from zignet.admin.refused import Refused
from zignet.contacts import NAME, ContactError, Store, parse_link
from zignet.contacts import Contact as Kept
from zignet.control import Declined
from zignet.control.messages import Identity
from zignet.identity import BadKey, PublicKey

__all__ = ["Book"]

LINK = "zignet:"
T = TypeVar("T")


class Lines(Protocol):
    """The packet process."""

    async def ask(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """See `zignet.admin.fresh.Fresh`."""
        ...


class Book:
    """All contacts. Raises `Refused`, `ControlError`."""

    def __init__(self, directory: Path, node: Lines) -> None:
        self._directory = directory
        self._node = node
        self._read: tuple[int, list[Kept]] = (-1, [])  # when the file was changed, and what was in it

    async def page(self, offset: int, limit: int) -> list[Contact]:
        """Some of them, by name."""
        kept = await asyncio.to_thread(self._all)
        return await self._shown(kept[offset : offset + limit])

    async def add(self, new: NewContact) -> Contact:
        """One more."""
        contact = _made(new)
        return await self._changed(lambda store: store.add(contact))

    async def change(self, who: str, change: ContactChange) -> Contact:
        """Another name, note or tags for the contact of this name or key."""
        tags = tuple(change["tags"]) if "tags" in change else None
        return await self._changed(
            lambda store: store.change(
                _there(store, who), to=change.get("name"), note=change.get("note"), tags=tags
            )
        )

    async def remove(self, who: str) -> Contact:
        """Forget the contact of this name or key; what it was."""
        return await self._changed(lambda store: store.remove(_there(store, who)))

    async def _changed(self, work: Callable[[Store], Kept]) -> Contact:
        def done() -> Kept:
            store = Store(self._directory)
            try:
                return work(store)
            except ContactError as error:
                raise Refused(409, str(error)) from error
            finally:
                store.close()

        (shown,) = await self._shown([await asyncio.to_thread(done)])
        return shown

    def _all(self) -> list[Kept]:
        """In a thread."""
        try:
            changed = (self._directory / NAME).stat().st_mtime_ns
        except OSError:
            return []
        if changed != self._read[0]:
            try:
                store = Store(self._directory)
                try:
                    self._read = changed, list(store)
                finally:
                    store.close()
            except ContactError as error:
                raise Refused(503, str(error)) from error
        return self._read[1]

    async def _shown(self, kept: Sequence[Kept]) -> list[Contact]:
        if not kept:
            return []
        request = {"do": "identities", "of": [each.key.name for each in kept]}
        try:
            lines = await self._node.ask(request)
        except Declined:  # it has no peers
            return [_document(each, None) for each in kept]
        found: dict[str, Identity] = {each["key"]: each for line in lines for each in line["identities"]}
        return [_document(each, found.get(each.key.name)) for each in kept]


def _made(new: NewContact) -> Kept:
    try:
        name = ""
        if new["key"].lower().startswith(LINK):
            key, name = parse_link(new["key"])
        else:
            key = PublicKey.from_text(new["key"])
        return Kept(new.get("name", name), key, new.get("note", ""), tuple(new.get("tags", ())))
    except (ContactError, BadKey) as error:
        raise Refused(400, str(error)) from error


def _there(store: Store, who: str) -> str:
    if store.find(who) is None:
        raise Refused(404, f"there is no contact {who}")
    return who


def _document(kept: Kept, identity: Identity | None) -> Contact:
    return Contact(
        name=kept.name,
        key=kept.key.name,
        note=kept.note,
        tags=list(kept.tags),
        address=None if identity is None else identity["address"],
        address6=None if identity is None else identity["address6"],
        online=identity is not None and identity["online"],
        last_seen=None if identity is None else identity["last_seen"],
    )
