"""Ciphers that are ready for use. One takes 2.5 KiB of OpenSSL's memory, a session has two, and its keys take 0.2 KiB.

So a half of a session makes its cipher when it needs it (2 µs), and the ones that were made longest ago are let go of.
A node with up to MOST // 2 peers never sees that.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

__all__ = ["MOST", "gone", "made"]

MOST = 512

_ready: OrderedDict[Any, None] = OrderedDict()  # halves of sessions, the oldest first


def made(half: Any) -> None:
    """It has made its cipher; another one's turn may have come to `rest`."""
    _ready[half] = None
    if len(_ready) > MOST:
        _ready.popitem(last=False)[0].rest()


def gone(half: Any) -> None:
    """It needs no cipher any more."""
    _ready.pop(half, None)
