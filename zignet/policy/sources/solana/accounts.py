"""What the bytes of an account mean. Layouts: SPL Token `state.rs`, Token-2022 `extension/mod.rs`, Metaplex Token
Metadata `state/metadata.rs` (Borsh). All integers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from solders.pubkey import Pubkey

__all__ = ["Account", "BadAccount", "Mint", "TokenAccount", "collection_of", "mint", "token_account"]

MINT_SIZE = 82
ACCOUNT_SIZE = 165
MULTISIG_SIZE = 355  # Token-2022 tells the three apart by their size or the byte behind ACCOUNT_SIZE
KIND_MINT, KIND_ACCOUNT = 1, 2  # that byte
TOKEN_GROUP_MEMBER = 23  # an extension of a mint: mint, group, number
MEMBER_SIZE = 72
FROZEN = 2  # the state of a token account; 1 is an ordinary one
METADATA_V1 = 4  # the first byte of a Metaplex metadata account
MOST_CREATORS = 5
LONGEST = 512  # bytes of a text in metadata; name, symbol and uri have at most 32, 10 and 200
CREATOR_SIZE = 34

_AMOUNT = struct.Struct("<Q")
_EXTENSION = struct.Struct("<HH")  # type, length
_LENGTH = struct.Struct("<I")


class BadAccount(ValueError):
    """These bytes are not such an account."""


@dataclass(frozen=True, slots=True)
class Account:
    """What a server says of an address."""

    lamports: int
    owner: Pubkey  # the program
    data: bytes


@dataclass(frozen=True, slots=True)
class TokenAccount:
    """Whose, of which mint, and how much of it, in the mint's smallest unit."""

    mint: bytes
    owner: bytes
    amount: int


@dataclass(frozen=True, slots=True)
class Mint:
    """A kind of token."""

    decimals: int
    group: bytes | None  # Token-2022: of which group it is a member, as it says itself


def token_account(data: bytes, extended: bool) -> TokenAccount:
    """`extended`: of Token-2022. Raises `BadAccount`."""
    size = len(data)
    if size != ACCOUNT_SIZE and not (extended and _kind(data) == KIND_ACCOUNT):
        raise BadAccount(f"{size} bytes are no token account")
    if data[108] not in (1, FROZEN):
        raise BadAccount("a token account that was not initialised")
    return TokenAccount(data[:32], data[32:64], _AMOUNT.unpack_from(data, 64)[0])


def mint(data: bytes, extended: bool) -> Mint:
    """`extended`: of Token-2022. Raises `BadAccount`."""
    size = len(data)
    if size != MINT_SIZE and not (extended and _kind(data) == KIND_MINT):
        raise BadAccount(f"{size} bytes are no mint")
    if data[45] != 1:
        raise BadAccount("a mint that was not initialised")
    group = None
    for kind, body in _extensions(data):
        if kind == TOKEN_GROUP_MEMBER and len(body) == MEMBER_SIZE:
            group = body[32:64]
    return Mint(data[44], group)


def _kind(data: bytes) -> int:
    """What a Token-2022 account with extensions is; 0 if it has none."""
    return data[ACCOUNT_SIZE] if len(data) > ACCOUNT_SIZE and len(data) != MULTISIG_SIZE else 0


def _extensions(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = ACCOUNT_SIZE + 1
    while at + _EXTENSION.size <= len(data):
        kind, size = _EXTENSION.unpack_from(data, at)
        at += _EXTENSION.size
        if kind == 0 or at + size > len(data):
            return
        yield kind, data[at : at + size]
        at += size


def collection_of(data: bytes, of: bytes) -> bytes | None:
    """The collection that verified the token of mint `of`, by its Metaplex metadata. Raises `BadAccount`."""
    fields = _Borsh(data)
    if fields.byte() != METADATA_V1:
        raise BadAccount("not Metaplex metadata")
    fields.take(32)  # update authority
    if fields.take(32) != of:
        raise BadAccount("metadata of another mint")
    for _ in ("name", "symbol", "uri"):
        fields.text()
    fields.take(2)  # seller fee
    if fields.option():
        count = fields.length()
        if count > MOST_CREATORS:
            raise BadAccount("too many creators")
        fields.take(count * CREATOR_SIZE)
    fields.take(2)  # sold once, may be changed
    for _ in ("edition nonce", "token standard"):
        if fields.option():
            fields.byte()
    if not fields.option():
        return None
    verified = fields.flag()
    key = fields.take(32)
    return key if verified else None


class _Borsh:
    """Reads one value after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise BadAccount("metadata that ends early")
        found = self._data[self._at : end]
        self._at = end
        return found

    def byte(self) -> int:
        return self.take(1)[0]

    def flag(self) -> bool:
        value = self.byte()
        if value > 1:
            raise BadAccount(f"{value} is neither true nor false")
        return value == 1

    option = flag

    def length(self) -> int:
        size: int = _LENGTH.unpack(self.take(_LENGTH.size))[0]
        return size

    def text(self) -> None:
        size = self.length()
        if size > LONGEST:
            raise BadAccount("a text that is too long")
        self.take(size)
