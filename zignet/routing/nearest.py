"""The nearest known word, for messages about unknown ones."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean"]

_CLOSE = 0.6  # of difflib's ratio: one or two typing errors in a short word
_LONGEST = 64  # characters; nobody mistypes a longer one, and the comparison is quadratic


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean "address"?`, or `; known: a, b, c` where nothing is near, or "" if nothing is known."""
    from difflib import get_close_matches  # only when there is an error to report

    words = sorted(set(known))
    if not words:
        return ""
    folded = {candidate.lower(): candidate for candidate in words}
    near = get_close_matches(word.lower(), folded, n=1, cutoff=_CLOSE) if len(word) <= _LONGEST else []
    if near:
        return f'; did you mean "{folded[near[0]]}"?'
    shown = words[:12]
    return f"; known: {', '.join(shown)}{', …' if len(words) > len(shown) else ''}"
