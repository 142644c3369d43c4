"""Keys as values. What makes one good is in the protocol's §1."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha512

from zignet.identity import names
from zignet.identity.field import is_canonical, matches, other_form

__all__ = ["BadKey", "PublicKey", "SecretKey", "decode_key", "matches"]

_SIZE = 32  # bytes of a seed and of either form of a public key
_SHOWN = 60  # characters of a text that is no key, in messages


class BadKey(ValueError):
    """These bytes, or this text, are not the key of anybody. The text says why, in one sentence."""


def decode_key(text: str) -> bytes:
    """The 32 bytes that a name, a base58 or a hexadecimal text means, not looked at any further. Raises `BadKey`."""
    try:
        return names.decode(text)
    except ValueError as error:
        raise BadKey(f'"{_short(text)}" {error}') from None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PublicKey:
    """A good public key. It is compared by its X25519 form, which it shares with its negation.

    The Ed25519 form is computed when it is asked for (20 µs): a table of 100,000 keys holds half as much.
    """

    x: bytes  # the X25519 form, 32 bytes
    odd: bool  # the sign of the Ed25519 form

    @classmethod
    def from_bytes(cls, ed: bytes) -> PublicKey:
        """From the Ed25519 form. Raises `BadKey`."""
        (key,) = cls.from_many([bytes(ed)])
        if isinstance(key, BadKey):
            raise key
        return key

    @classmethod
    def from_many(cls, eds: Sequence[bytes]) -> list[PublicKey | BadKey]:
        """As `from_bytes`, for many at once, which takes two thirds of the time."""
        from zignet.identity import curve

        fit = [len(ed) == _SIZE and is_canonical(ed) for ed in eds]
        forms = iter(curve.x25519_of([ed for ed, fits in zip(eds, fit, strict=True) if fits]))
        found: list[PublicKey | BadKey] = []
        for ed, fits in zip(eds, fit, strict=True):
            x = next(forms) if fits else None
            found.append(BadKey(_why_bad(ed)) if x is None else cls(x, ed[31] >= 0x80))
        return found

    @classmethod
    def from_forms(cls, ed: bytes, x: bytes) -> PublicKey:
        """From both forms, which must be those of one key. Raises `BadKey`. It saves an inversion, half of the time."""
        from zignet.identity import curve

        if not matches(ed, x) or not is_canonical(ed):
            raise BadKey("these are not the two forms of one key")
        if not curve.is_good(x):
            raise BadKey(_why_bad(ed))
        return cls(x, ed[31] >= 0x80)

    @classmethod
    def from_text(cls, text: str) -> PublicKey:
        """From a name, base58 or hexadecimal. Raises `BadKey`."""
        return cls.from_bytes(decode_key(text))

    @property
    def ed(self) -> bytes:
        """The Ed25519 form, 32 bytes."""
        return (other_form(self.x) | self.odd << 255).to_bytes(_SIZE, "little")

    @property
    def name(self) -> str:
        """One DNS label of 56 characters."""
        return names.encode_name(self.ed)

    @property
    def base58(self) -> str:
        """As Solana writes an address."""
        import base58

        return base58.b58encode(self.ed).decode("ascii")

    @property
    def hex(self) -> str:
        """64 digits."""
        return self.ed.hex()

    def __eq__(self, other: object) -> bool:
        return self.x == other.x if isinstance(other, PublicKey) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.x)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<PublicKey {self.name}>"


@dataclass(frozen=True, slots=True, repr=False)
class SecretKey:
    """A key pair. Nothing that is printed of it tells the secret."""

    seed: bytes  # 32 bytes (RFC 8032 §5.1.5)
    public: PublicKey = field(init=False, compare=False)

    def __post_init__(self) -> None:
        from zignet.identity import curve

        if len(self.seed) != _SIZE:
            raise BadKey(f"a seed has {_SIZE} bytes, and these are {len(self.seed)}")
        object.__setattr__(self, "public", PublicKey.from_bytes(curve.public_of(self.seed)))

    @classmethod
    def generate(cls, random: Callable[[int], bytes] = os.urandom) -> SecretKey:
        """A new one."""
        return cls(random(_SIZE))

    @property
    def x(self) -> bytes:
        """The X25519 secret (32 bytes, clamped): the static key of the handshake."""
        scalar = bytearray(sha512(self.seed).digest()[:_SIZE])
        scalar[0] &= 0xF8
        scalar[31] = scalar[31] & 0x7F | 0x40
        return bytes(scalar)

    def __repr__(self) -> str:
        return f"<SecretKey of {self.public.name}>"


def _why_bad(ed: bytes) -> str:
    from zignet.identity import curve

    if len(ed) != _SIZE:
        return f"a key has {_SIZE} bytes, and these are {len(ed)}"
    return (
        f"not a key: {curve.why_bad(ed) if is_canonical(ed) else 'it is not written in the canonical form'}"
    )


def _short(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:_SHOWN])
    return shown if len(text) <= _SHOWN else f"{shown}…"
