"""A QR code in a terminal: two modules a character, by half blocks."""

from __future__ import annotations

__all__ = ["draw"]

_QUIET = 2  # modules of margin; the standard asks for 4, cameras do with less
_BLACK_ON_WHITE = "\x1b[38;5;16;48;5;231m"
_RESET = "\x1b[0m"
_HALVES = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}  # (upper, lower), 1 is dark


def draw(text: str, colours: bool = True) -> str:
    """The code of a text, as lines. Upper-case letters and digits make a smaller code than others.

    With `colours` it is black on white whatever the terminal's own are; else dark is where the blocks are not,
    as it must be on a dark background.
    """
    import segno

    rows = [list(row) for row in segno.make_qr(text, error="m").matrix_iter(border=_QUIET)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        if colours:
            line = "".join(_HALVES[pair] for pair in zip(upper, lower, strict=True))
            lines.append(f"{_BLACK_ON_WHITE}{line}{_RESET}")
        else:
            lines.append(
                "".join(_HALVES[1 - above, 1 - below] for above, below in zip(upper, lower, strict=True))
            )
    return "\n".join(lines)
