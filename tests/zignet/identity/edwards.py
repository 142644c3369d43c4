"""The curve in twenty lines of school arithmetic: an oracle, independent of libsodium and of our own code."""

from __future__ import annotations

from functools import cache

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493  # RFC 8032 §5.1
D = -121665 * pow(121666, P - 2, P) % P
BASE_Y = 4 * pow(5, P - 2, P) % P

Point = tuple[int, int]
NEUTRAL: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    product = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + product, -1, P)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P)
    return x % P, y % P


def times(scalar: int, point: Point) -> Point:
    total = NEUTRAL
    for bit in bin(scalar)[2:]:
        total = add(total, total)
        if bit == "1":
            total = add(total, point)
    return total


def encode(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def with_y(y: int, odd: int = 0) -> Point | None:
    """The point of this y, if the curve has one."""
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square:
        return None
    return (x if x & 1 == odd else (P - x) % P), y


BASE = with_y(BASE_Y)
assert BASE is not None


@cache
def torsion() -> list[Point]:
    """The eight points whose order divides 8."""
    y = 2
    while True:
        point = with_y(y)
        if point is not None and times(4, small := times(ORDER, point)) != NEUTRAL:
            return [times(n, small) for n in range(8)]
        y += 1
