"""Time-outs of many things with one delay, O(1) each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

__all__ = ["Expiry"]


class Expiry:
    """Things that end `delay_s` after they were last touched.

    An item carries `touched: float` (monotonic seconds) and sets it freely: the queue looks at it only when the
    item comes to the head, so that a busy item costs one move per delay and not one per packet.
    """

    __slots__ = ("_expired", "_items", "delay_s")

    def __init__(self, delay_s: float, expired: Callable[[Any], None]) -> None:
        self.delay_s = delay_s
        self._expired = expired
        self._items: OrderedDict[Any, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Any) -> None:
        """Watch an item, from its own `touched` on."""
        self._items[item] = item.touched + self.delay_s

    def discard(self, item: Any) -> None:
        """Forget an item, if it is there."""
        self._items.pop(item, None)

    def oldest(self) -> Any | None:
        """The item that is next to be looked at: least recently used, to within one delay."""
        return next(iter(self._items), None)

    def sweep(self, now: float) -> None:
        """End what is due."""
        items = self._items
        while items:
            item, due = next(iter(items.items()))
            if due > now:
                return
            due = item.touched + self.delay_s
            if due > now:
                items[item] = due
                items.move_to_end(item)
            else:
                del items[item]
                self._expired(item)
