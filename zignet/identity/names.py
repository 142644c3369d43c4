"""A key as text: the name, base58, hexadecimal (protocol §1). Nothing here knows the curve.

Name: lower-case base32 (RFC 4648 §6, no padding) of key(32) ‖ checksum(2) ‖ version(1), 56 characters.
"""

from __future__ import annotations

import re
from hashlib import blake2s

__all__ = ["NAME_LENGTH", "decode", "encode_name"]

NAME_LENGTH = 56  # characters: 35 bytes are 280 bits, without a rest
VERSION = b"\x01"
_CONTEXT = b"ZigNet name"
_KEY = 32  # bytes

_NAME = re.compile("[a-zA-Z2-7]{56}", re.ASCII)
_HEX = re.compile("[0-9a-fA-F]{64}", re.ASCII)
_BASE58 = re.compile("[1-9A-HJ-NP-Za-km-z]{32,44}", re.ASCII)
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
# The same 32 values in the digits of int(…, 32), which is ten times as fast as base64.b32decode
_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_TO_DIGITS = str.maketrans(_LETTERS + _LETTERS.upper()[:26], _DIGITS + _DIGITS[:26])
_LOOKALIKES = {"0": "o", "1": "l or i", "8": "b", "9": "g"}


def checksum(key: bytes) -> bytes:
    """Two bytes that a mistyped name does not have."""
    return blake2s(_CONTEXT + key + VERSION).digest()[:2]


def encode_name(key: bytes) -> str:
    """The name of 32 bytes."""
    value = int.from_bytes(key + checksum(key) + VERSION, "big")
    return "".join([_LETTERS[value >> shift & 31] for shift in range(275, -1, -5)])


def decode(text: str) -> bytes:
    """The 32 bytes that a name (in any case), a base58 or a hexadecimal text means.

    Raises `ValueError`, whose text says what is wrong and continues a sentence about the text.
    """
    text = text.strip()
    if len(text) == NAME_LENGTH:
        return _decode_name(text)
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    if _BASE58.fullmatch(text):
        key = _decode_base58(text)
        if len(key) == _KEY:
            return key
        raise ValueError(
            f"is base58 for {len(key)} bytes, and a key has {_KEY}: a part of it is missing or wrong"
        )
    raise ValueError(
        f"has {len(text)} characters: a key is a name of {NAME_LENGTH}, 64 hexadecimal digits, "
        "or base58 as wallets show it"
    )


def _decode_name(text: str) -> bytes:
    if _NAME.fullmatch(text) is None:
        raise ValueError(_foreign(text))
    raw = int(text.translate(_TO_DIGITS), 32).to_bytes(35, "big")
    key = raw[:_KEY]
    if raw[34:] != VERSION:
        if raw[32:34] == blake2s(_CONTEXT + key + raw[34:]).digest()[:2]:
            raise ValueError(f"is a name of version {raw[34]}, which this ZigNet does not know")
        raise ValueError("is mistyped: its end is not that of a name")
    if raw[32:34] != checksum(key):
        raise ValueError("is mistyped: its checksum does not fit. Copy it again, whole")
    return key


def _foreign(text: str) -> str:
    """About the first character that no name has."""
    wrong = next(letter for letter in text if letter.lower() not in _LETTERS or not letter.isascii())
    hint = f"; did you mean {_LOOKALIKES[wrong]}?" if wrong in _LOOKALIKES else ""
    return f"is mistyped: a name has only the letters a to z and the digits 2 to 7, not {wrong!r}{hint}"


def _decode_base58(text: str) -> bytes:
    import base58

    key: bytes = base58.b58decode(text)
    return key
