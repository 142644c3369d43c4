"""What a policy may ask of a wallet. Amounts are decimal numbers of whole SOL or tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from solders.pubkey import Pubkey

from zignet.policy.source import Finding, SourceError
from zignet.policy.sources.solana.accounts import Account, BadAccount, Mint, collection_of, mint
from zignet.policy.sources.solana.chain import MOST_ACCOUNTS, TOKEN, TOKEN_2022, Chain

__all__ = ["AllowList", "Check", "Collection", "Nft", "Seed", "SolBalance", "TokenBalance"]

METADATA = Pubkey.from_string("metaqbxxUerdq28cj1RbAWkYQm3ybzjb6a8bt518x1s")  # Metaplex Token Metadata
LAMPORTS = 9  # decimals of SOL
MOST_NFTS = 1_000  # of one wallet that are looked at


class Check(Protocol):
    """One condition."""

    @property
    def label(self) -> str:
        """For people."""
        ...

    async def find(self, chain: Chain, wallet: Pubkey) -> Finding:
        """Whether the wallet meets it. Raises `SourceError`."""
        ...


@dataclass(frozen=True, slots=True)
class SolBalance:
    """At least so much SOL."""

    least: Decimal

    @property
    def label(self) -> str:
        """For people."""
        return f"{_number(self.least)} SOL"

    async def find(self, chain: Chain, wallet: Pubkey) -> Finding:
        """See `Check`."""
        account = await chain.account(wallet)
        has = 0 if account is None else account.lamports
        return _enough(has, LAMPORTS, self.least, "SOL")


@dataclass(frozen=True, slots=True)
class TokenBalance:
    """At least so much of a token, of SPL Token or Token-2022, over all accounts of the wallet."""

    mint: Pubkey
    least: Decimal

    @property
    def label(self) -> str:
        """For people."""
        return f"{_number(self.least)} of token {_short(self.mint)}"

    async def find(self, chain: Chain, wallet: Pubkey) -> Finding:
        """See `Check`."""
        kind = await _mint(chain, self.mint)
        has = sum(token.amount for token in await chain.tokens(wallet, self.mint))
        return _enough(has, kind.decimals, self.least, f"of token {_short(self.mint)}")


@dataclass(frozen=True, slots=True)
class Nft:
    """The token of this mint, of which there are no parts."""

    mint: Pubkey

    @property
    def label(self) -> str:
        """For people."""
        return f"NFT {_short(self.mint)}"

    async def find(self, chain: Chain, wallet: Pubkey) -> Finding:
        """See `Check`."""
        if (await _mint(chain, self.mint)).decimals:
            raise SourceError(f"{self.mint} is no NFT: it has parts; use token_balance")
        has = any(token.amount for token in await chain.tokens(wallet, self.mint))
        return Finding(has, f"{'holds' if has else 'does not hold'} the NFT {_short(self.mint)}")


@dataclass(frozen=True, slots=True)
class Collection:
    """Any NFT of a collection: verified by Metaplex metadata, or a member of a Token-2022 group."""

    collection: Pubkey

    @property
    def label(self) -> str:
        """For people."""
        return f"NFT of the collection {_short(self.collection)}"

    async def find(self, chain: Chain, wallet: Pubkey) -> Finding:
        """See `Check`."""
        mints = [
            Pubkey(token.mint)
            for program in (TOKEN, TOKEN_2022)
            for token in await chain.tokens(wallet, program, program=True)
            if token.amount == 1
        ]
        if len(mints) > MOST_NFTS:
            raise SourceError(f"the wallet holds more than {MOST_NFTS} NFTs")
        for at in range(0, len(mints), MOST_ACCOUNTS // 2):
            some = mints[at : at + MOST_ACCOUNTS // 2]
            proofs = [_metadata_address(one) for one in some]
            accounts = await chain.accounts([*some, *proofs])
            for one, account, proof in zip(some, accounts, accounts[len(some) :], strict=False):
                if self._has(one, account, proof):
                    return Finding(True, f"holds {_short(one)}, of the collection {_short(self.collection)}")
        return Finding(False, f"holds no NFT of the collection {_short(self.collection)}")

    def _has(self, one: Pubkey, account: Account | None, proof: Account | None) -> bool:
        try:
            kind = _parsed(one, account)
            if kind.decimals:
                return False
            if kind.group == bytes(self.collection):
                return True
            if proof is None or proof.owner != METADATA:
                return False
            return collection_of(proof.data, bytes(one)) == bytes(self.collection)
        except (BadAccount, SourceError):  # anyone may send such a thing to a wallet: it proves nothing
            return False


@dataclass(frozen=True, slots=True)
class Seed:
    """A part of what a program derives an address of: bytes, or the member's key."""

    value: bytes | None  # None: the key

    @classmethod
    def parse(cls, text: str) -> Seed:
        """From `{key}`, `hex:…`, `pubkey:…`, `u64:…`, or any other text for itself. Raises ValueError."""
        if text == "{key}":
            return cls(None)
        kind, colon, rest = text.partition(":")
        if colon and kind == "hex":
            value = bytes.fromhex(rest)
        elif colon and kind == "pubkey":
            value = bytes(Pubkey.from_string(rest))
        elif colon and kind == "u64":
            if not (rest.isascii() and rest.isdigit() and int(rest) < 1 << 64):
                raise ValueError(f'"{text}": expected a number of 64 bits')
            value = int(rest).to_bytes(8, "little")
        else:
            value = text.encode()
        if not 0 < len(value) <= 32:
            raise ValueError(f'"{text}": a seed has 1 to 32 bytes')
        return cls(value)


@dataclass(frozen=True, slots=True)
class AllowList:
    """The account of a program at the address that it derives of the seeds, the member's key among them."""

    program: Pubkey
    seeds: Sequence[Seed] = (Seed(None),)

    @property
    def label(self) -> str:
        """For people."""
        return f"list of the program {_short(self.program)}"

    async def find(self, chain: Chain, wallet: Pubkey) -> Finding:
        """See `Check`."""
        seeds = [bytes(wallet) if seed.value is None else seed.value for seed in self.seeds]
        address, _ = Pubkey.find_program_address(seeds, self.program)
        account = await chain.account(address)
        listed = account is not None and account.owner == self.program and account.lamports > 0
        word = "is" if listed else "is not"
        return Finding(listed, f"{word} on the list of the program {_short(self.program)}")


def _enough(has: int, decimals: int, least: Decimal, what: str) -> Finding:
    amount = Decimal(has).scaleb(-decimals)
    return Finding(amount >= least, f"has {_number(amount)} {what}, {_number(least)} are asked for")


async def _mint(chain: Chain, address: Pubkey) -> Mint:
    try:
        return _parsed(address, await chain.account(address))
    except BadAccount as error:
        raise SourceError(f"{address}: {error}") from None


def _parsed(address: Pubkey, account: Account | None) -> Mint:
    if account is None or account.owner not in (TOKEN, TOKEN_2022):
        raise SourceError(f"{address} is no token's mint")
    return mint(account.data, account.owner == TOKEN_2022)


def _metadata_address(of: Pubkey) -> Pubkey:
    return Pubkey.find_program_address([b"metadata", bytes(METADATA), bytes(of)], METADATA)[0]


def _number(amount: Decimal) -> str:
    """Without zeros at the end, and without an exponent."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _short(address: Pubkey) -> str:
    text = str(address)
    return f"{text[:8]}…"
