"""A dictionary that forgets what was not asked for in a long time.

Two dictionaries, a young and an old one: what is asked for is put into the young one; when that is half of all, it
becomes the old one, and what the old one still has is forgotten. A look-up touches nothing but its own entry, where a
linked list of all would be three cache misses more.
"""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Recent"]

V = TypeVar("V")


class Recent(Generic[V]):
    """At most `most` values by bytes, and at least the half of them that was asked for last."""

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, most: int) -> None:
        self._young: dict[bytes, V] = {}
        self._old: dict[bytes, V] = {}
        self._half = most // 2

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: bytes) -> V | None:
        """The value, which counts as asked for."""
        value = self._young.get(key)
        if value is None and (value := self._old.get(key)) is not None:
            self.put(key, value)
        return value

    def put(self, key: bytes, value: V) -> None:
        """Keep a value, and forget others if need be."""
        self._old.pop(key, None)
        self._young[key] = value
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}

    def clear(self) -> None:
        """Forget all."""
        self._young, self._old = {}, {}
