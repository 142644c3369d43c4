"""Questions about the chain's state. Accounts that are asked for at the same time share a request."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Sequence
from typing import Any

from solders.account_decoder import UiAccountEncoding
from solders.commitment_config import CommitmentLevel
from solders.pubkey import Pubkey
from solders.rpc.config import (
    RpcAccountInfoConfig,
    RpcTokenAccountsFilterMint,
    RpcTokenAccountsFilterProgramId,
)
from solders.rpc.requests import GetMultipleAccounts, GetTokenAccountsByOwner

from zignet.policy.source import SourceError
from zignet.policy.sources.solana.accounts import Account, BadAccount, TokenAccount, token_account
from zignet.policy.sources.solana.rpc import Rpc

__all__ = ["TOKEN", "TOKEN_2022", "Chain"]

TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
MOST_ACCOUNTS = 100  # of one getMultipleAccounts
GATHER_S = 0.005  # how long the first of a batch waits for others

_CONFIG = RpcAccountInfoConfig(encoding=UiAccountEncoding.Base64, commitment=CommitmentLevel.Confirmed)


class Chain:
    """The state as the servers tell it, at commitment "confirmed"."""

    def __init__(self, rpc: Rpc) -> None:
        self.rpc = rpc
        self._asked: dict[Pubkey, asyncio.Future[Account | None]] = {}  # of the batch that gathers
        self._batches: set[asyncio.Task[None]] = set()

    async def account(self, address: Pubkey) -> Account | None:
        """An account, or None where there is none. Raises `SourceError`."""
        future = self._asked.get(address)
        if future is None:
            future = self._asked[address] = asyncio.get_running_loop().create_future()
            if len(self._asked) == 1:
                batch = asyncio.create_task(self._gather())
                self._batches.add(batch)
                batch.add_done_callback(self._batches.discard)
        return await asyncio.shield(future)

    async def accounts(self, addresses: Sequence[Pubkey]) -> list[Account | None]:
        """Many of them. Raises `SourceError`."""
        return list(await asyncio.gather(*(self.account(address) for address in addresses)))

    async def _gather(self) -> None:
        asked = self._asked
        try:
            await asyncio.sleep(GATHER_S)
            self._asked = {}
            some = list(asked.items())
            await asyncio.gather(
                *(self._fetch(some[at : at + MOST_ACCOUNTS]) for at in range(0, len(some), MOST_ACCOUNTS))
            )
        finally:
            _fail(asked.values(), SourceError("it was given up"))

    async def _fetch(self, asked: list[tuple[Pubkey, asyncio.Future[Account | None]]]) -> None:
        addresses = [address for address, _ in asked]

        def read(result: Any) -> list[Account | None]:
            found = _list(result)
            if len(found) != len(addresses):
                raise ValueError(f"{len(found)} accounts where {len(addresses)} were asked for")
            return [None if one is None else _account(one) for one in found]

        try:
            found = await self.rpc.call(GetMultipleAccounts(addresses, _CONFIG), read)
        except SourceError as error:
            _fail((future for _, future in asked), error)
            return
        for (_, future), account in zip(asked, found, strict=True):
            if not future.done():
                future.set_result(account)

    async def tokens(self, owner: Pubkey, of: Pubkey, program: bool = False) -> list[TokenAccount]:
        """The owner's token accounts, of a mint; or all of a token program. Raises `SourceError`."""
        only = RpcTokenAccountsFilterProgramId(of) if program else RpcTokenAccountsFilterMint(of)

        def read(result: Any) -> list[TokenAccount]:
            found = {}
            for one in _list(result):
                if not isinstance(one, dict) or not isinstance(address := one.get("pubkey"), str):
                    raise ValueError("a token account without an address")
                found[address] = _token(_account(one.get("account")), owner, of, program)
            return list(found.values())

        return await self.rpc.call(GetTokenAccountsByOwner(owner, only, _CONFIG), read)

    async def close(self) -> None:
        """Hang up; whoever waits is told."""
        for batch in list(self._batches):
            batch.cancel()
        await asyncio.gather(*self._batches, return_exceptions=True)
        await self.rpc.close()


def _fail(futures: Iterable[asyncio.Future[Account | None]], error: SourceError) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
            future.exception()  # whoever asked may have gone


def _list(result: Any) -> list[Any]:
    """What a result with its context holds. Raises ValueError."""
    found = result.get("value") if isinstance(result, dict) else None
    if not isinstance(found, list):
        raise ValueError("an answer to another question")
    return found


def _account(found: Any) -> Account:
    """An account as base64. Raises ValueError."""
    try:
        data, encoding = found["data"]
        lamports = found["lamports"]
        if encoding != "base64" or type(lamports) is not int or not 0 <= lamports < 1 << 64:
            raise ValueError
        owner = Pubkey.from_string(found["owner"])
        return Account(lamports, owner, base64.b64decode(data, validate=True))
    except (KeyError, TypeError, ValueError):
        raise ValueError("something that is no account") from None


def _token(account: Account, owner: Pubkey, of: Pubkey, program: bool) -> TokenAccount:
    """A token account as it was told, if it is what was asked for. Raises ValueError."""
    if account.owner not in (TOKEN, TOKEN_2022) or (program and account.owner != of):
        raise ValueError("an account of another program, where a token account was asked for")
    try:
        found = token_account(account.data, account.owner == TOKEN_2022)
    except BadAccount as error:
        raise ValueError(str(error)) from None
    if found.owner != bytes(owner):
        raise ValueError("a token account of another owner")
    if not program and found.mint != bytes(of):
        raise ValueError("a token account of another mint")
    return found
