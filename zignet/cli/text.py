"""Sizes, times and names as people read them."""

from __future__ import annotations

__all__ = ["duration", "printable", "size"]

_UNITS = ("", "K", "M", "G", "T", "P")


def size(count: float) -> str:
    """Bytes in at most five characters: 0, 999, 1.2K, 56.8M, 123G. Powers of 1,000."""
    scale = 0
    while count >= 999.5 and scale < len(_UNITS) - 1:
        count /= 1000
        scale += 1
    if scale == 0:
        return f"{count:.0f}"
    return f"{count:.1f}{_UNITS[scale]}" if count < 99.95 else f"{count:.0f}{_UNITS[scale]}"


def duration(seconds: float) -> str:
    """Seconds in at most six characters: 0.3s, 12s, 4m05s, 2h03m, 5d04h."""
    seconds = max(seconds, 0)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def printable(text: str) -> str:
    """Without anything that could steer a terminal: sniffed names and proxies' errors come from strangers."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
