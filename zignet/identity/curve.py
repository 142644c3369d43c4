"""What libsodium does for us. The only module that loads it, and not before there is a key to look at."""

from __future__ import annotations

from collections.abc import Sequence

from nacl.bindings import crypto_scalarmult, crypto_sign_seed_keypair
from nacl.exceptions import CryptoError

from zignet.identity.field import D, P, y_of

__all__ = ["is_good", "public_of", "why_bad", "x25519_of"]

ORDER = 2**252 + 27742317777372353535851937790883648493  # of the base point, a prime (RFC 8032 §5.1)
# The y of the points of order 8 is one of these or its negative
_ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER = frozenset((0, 1, P - 1, _ORDER_8, P - _ORDER_8))

# X25519 clears the low three bits of a scalar and sets bit 254. This one has them so, and is −1 modulo ORDER, so a
# point of prime order keeps its u. No other point does: its order would divide 5·ORDER or 5·ORDER − 2, and neither
# has a divisor in common with what else there is, 8 on the curve and 4·prime on its twist.
_MINUS_ONE = 5 * ORDER - 1
_SCALAR = _MINUS_ONE.to_bytes(32, "little")


def public_of(seed: bytes) -> bytes:
    """The Ed25519 public key (32 bytes) of a seed (32 bytes)."""
    public: bytes = crypto_sign_seed_keypair(seed)[0]
    return public


def x25519_of(eds: Sequence[bytes]) -> list[bytes | None]:
    """The X25519 forms of canonical encodings; None for one that is no point of prime order.

    One multiplication by libsodium each, 30 µs without the interpreter's lock, and one inversion for all.
    """
    found: list[bytes | None] = [None] * len(eds)
    for at, u in _us([y_of(ed) for ed in eds]):
        x = u.to_bytes(32, "little")
        if is_good(x):
            found[at] = x
    return found


def is_good(x: bytes) -> bool:
    """Whether the X25519 form of a point of the curve is that of one of prime order."""
    try:
        product: bytes = crypto_scalarmult(_SCALAR, x)
    except (CryptoError, RuntimeError):  # it is of small order
        return False
    return product == x


def _us(ys: list[int]) -> list[tuple[int, int]]:
    """(index, u) for each y that is not of small order: u = (1 + y) / (1 − y).

    Montgomery's trick: the inverse of a product gives the inverse of each factor.
    """
    indices = [at for at, y in enumerate(ys) if y not in _SMALL_ORDER]
    before = []  # product of the denominators ahead of each
    product = 1
    for at in indices:
        before.append(product)
        product = product * (1 - ys[at]) % P
    inverse = pow(product, -1, P)
    found = []
    for at, ahead in zip(reversed(indices), reversed(before), strict=True):
        y = ys[at]
        found.append((at, (1 + y) * inverse * ahead % P))
        inverse = inverse * (1 - y) % P
    return found


def why_bad(ed: bytes) -> str:
    """What is wrong with a canonical encoding that `x25519_of` has no form for. For messages; slow."""
    y = y_of(ed)
    if y in _SMALL_ORDER:
        return "it is a point of small order, which is nobody's key"
    x2 = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    if pow(x2, (P - 1) // 2, P) != 1:  # Euler: not a square, so there is no x for this y
        return "it is not a point of the curve"
    return "it is not of prime order, so it is nobody's key"
