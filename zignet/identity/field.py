"""Arithmetic modulo 2^255 − 19 on public values: the map between the two forms of a key (RFC 7748 §4.1)."""

from __future__ import annotations

__all__ = ["SIGN", "D", "P", "is_canonical", "matches", "other_form", "y_of"]

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P  # of the curve −x² + y² = 1 + d·x²·y² (RFC 8032 §5.1)
SIGN = 1 << 255  # bit of an Ed25519 encoding: x is odd


def y_of(ed: bytes) -> int:
    """The y coordinate of an Ed25519 encoding, as it is written there."""
    return int.from_bytes(ed, "little") & (SIGN - 1)


def is_canonical(ed: bytes) -> bool:
    """Whether 32 bytes are the one encoding of their point: y below p, and no sign where x is zero."""
    y = y_of(ed)
    return y < P and not (y in (1, P - 1) and ed[31] & 0x80)


def other_form(x: bytes) -> int:
    """The Edwards y of an X25519 form: (u − 1) / (u + 1)."""
    u = int.from_bytes(x, "little")
    return (u - 1) * pow(u + 1, -1, P) % P


def matches(ed: bytes, x: bytes) -> bool:
    """Whether an Ed25519 encoding and an X25519 form are of one key, without an inversion.

    If `x` is that of a good key, then `ed` is that key or its negation, and as good. Takes any bytes.
    """
    if len(ed) != 32 or len(x) != 32:
        return False
    y, u = y_of(ed), int.from_bytes(x, "little")
    return y < P and u < P and (y * (u + 1) - u + 1) % P == 0
