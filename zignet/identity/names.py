"""A key as text: the name, base58, hexadecimal (protocol §1). Nothing here knows the curve.

Name: lower-case base32 (RFC 4648 §6, no padding) of key(32) ‖ checksum(2) ‖ version(1), 56 characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2s
from struct import unpack

__all__ = ["NAME_LENGTH", "decode", "decode_many", "encode_name"]

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
_RAW = 35  # bytes of a name
_BYTES_TO_DIGITS = bytes(_TO_DIGITS.get(code, ord("!")) for code in range(256))
_LETTERS_58 = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUES_58 = bytes(_LETTERS_58.find(code) if code in _LETTERS_58 else 0xFF for code in range(256))
_HEX_LENGTH, _MOST_58, _LEAST_58 = 64, 44, 32  # characters
_GROUP = 9  # digits of base 58 that fit into 64 bits, with room for the next one
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


# very many


def decode_many(texts: Sequence[bytes]) -> list[bytes | str]:
    """As `decode`, for texts without blanks: the 32 bytes of each, or what is wrong with it.

    Texts of one notation, which a long file has, are decoded together, in a fifth of the time.
    """
    lengths = set(map(len, texts))
    if lengths == {NAME_LENGTH}:
        found = _names(texts)
    elif lengths == {_HEX_LENGTH}:
        found = _hexes(texts)
    elif lengths and min(lengths) >= _LEAST_58 and max(lengths) <= _MOST_58:
        found = _base58s(texts)
    else:
        found = None
    if found is not None:
        return list(found)
    if len(texts) > 1:  # the bad one is in one half, or the notations are mixed
        middle = len(texts) // 2
        return decode_many(texts[:middle]) + decode_many(texts[middle:])
    return [_decode_one(text) for text in texts]


def _decode_one(text: bytes) -> bytes | str:
    try:
        return decode(text.decode("ascii", "replace"))
    except ValueError as error:
        return str(error)


def _names(texts: Sequence[bytes]) -> list[bytes] | None:
    """None where any is no name."""
    try:
        digits = b"".join(texts).translate(_BYTES_TO_DIGITS)
        raw = int(digits, 32).to_bytes(_RAW * len(texts), "big")
    except ValueError:
        return None
    keys = [raw[at : at + _KEY] for at in range(0, len(raw), _RAW)]
    sums = b"".join([blake2s(_CONTEXT + key + VERSION).digest()[:2] for key in keys])
    fits = raw[34::_RAW] == VERSION * len(texts)
    return keys if fits and raw[32::_RAW] == sums[::2] and raw[33::_RAW] == sums[1::2] else None


def _hexes(texts: Sequence[bytes]) -> list[bytes] | None:
    try:
        raw = bytes.fromhex(b"".join(texts).decode("ascii"))
    except ValueError:
        return None
    whole = len(raw) == _KEY * len(texts)  # blanks are passed over
    return [raw[at : at + _KEY] for at in range(0, len(raw), _KEY)] if whole else None


def _base58s(texts: Sequence[bytes]) -> list[bytes] | None:
    """Columns of digits are added up for all texts at once, each text in its own 64 bits of one long number."""
    count, width = len(texts), 5 * _GROUP
    values = b"".join([text.rjust(width, b"1") for text in texts]).translate(_VALUES_58)
    if 0xFF in values:
        return None
    groups = []
    for group in range(0, width, _GROUP):
        total = 0
        for column in range(group, group + _GROUP):
            lanes = bytearray(8 * count)
            lanes[::8] = values[column::width]
            total = total * 58 + int.from_bytes(lanes, "little")
        groups.append(unpack(f"<{count}Q", total.to_bytes(8 * count, "little")))
    base = 58**_GROUP
    try:
        keys = [
            ((((a * base + b) * base + c) * base + d) * base + e).to_bytes(_KEY, "big")
            for a, b, c, d, e in zip(*groups, strict=True)
        ]
    except OverflowError:
        return None
    for text, key in zip(texts, keys, strict=True):  # a leading 1 is a leading zero byte, each and only that
        if (text[0] == 0x31 or not key[0]) and _leading(text, b"1") != _leading(key, b"\0"):
            return None
    return keys


def _leading(text: bytes, what: bytes) -> int:
    return len(text) - len(text.lstrip(what))
