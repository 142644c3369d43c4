"""Fuzz targets of what Solana's servers send. `python -m tests.zignet.policy.solana.fuzz --seconds 600` runs them long.

Inputs are good accounts and answers, damaged. A failure prints the seed and the input's number.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random

from solders.pubkey import Pubkey

from tests.fuzzing import main
from tests.zignet.policy.solana.ledger import metadata_of
from zignet.policy import SourceError
from zignet.policy.sources.solana import Chain, SolBalance
from zignet.policy.sources.solana.accounts import BadAccount, collection_of, mint, token_account
from zignet.policy.sources.solana.chain import TOKEN

MINT = bytes(range(32))
OWNER = bytes(range(32, 64))
ACCOUNT = MINT + OWNER + (7).to_bytes(8, "little") + bytes(36) + b"\1" + bytes(56)
PLAIN_MINT = bytes(36) + (1).to_bytes(8, "little") + b"\0\1" + bytes(36)
MEMBER = PLAIN_MINT + bytes(83) + b"\1" + b"\x17\0\x48\0" + MINT + OWNER + bytes(8)
SAMPLES = [ACCOUNT, ACCOUNT + b"\2", PLAIN_MINT, MEMBER, metadata_of(MINT, OWNER, True)]


def damaged(rng: random.Random, data: bytes) -> bytes:
    """With up to four small damages."""
    held = bytearray(data)
    for _ in range(rng.randint(0, 4)):
        at = rng.randrange(len(held) + 1)
        match rng.randrange(3):
            case 0 if at < len(held):
                held[at] = rng.choice((0, 1, 4, 0x7F, 0xFF, rng.randrange(256)))
            case 1:
                del held[at:]
            case _:
                held[at:at] = rng.randbytes(rng.randint(1, 8))
    return bytes(held)


def accounts(rng: random.Random) -> None:
    """Any bytes are an account of their kind, or `BadAccount`."""
    data = damaged(rng, rng.choice(SAMPLES))
    for extended in (False, True):
        try:
            assert len(token_account(data, extended).owner) == 32
        except BadAccount:
            pass
        try:
            assert mint(data, extended).decimals < 256
        except BadAccount:
            pass
    try:
        assert len(collection_of(data, MINT) or OWNER) == 32
    except BadAccount:
        pass


def _answers(rng: random.Random) -> object:
    odd = [None, True, -1, 1 << 70, 0.5, "", "x", [], {}, [[]], {"value": 1}]
    account = {
        "lamports": 5,
        "owner": str(TOKEN),
        "data": [base64.b64encode(damaged(rng, rng.choice(SAMPLES))).decode(), "base64"],
    }
    keyed = {"pubkey": str(Pubkey(MINT)), "account": account}
    answer: dict[str, object] = {
        "context": {"slot": 1},
        "value": rng.choice([[account], [keyed], [None], [], account]),
    }
    for table in (account, keyed, answer):
        if rng.random() < 0.3:
            table[rng.choice(list(table))] = rng.choice(odd)  # type: ignore[index]
    return rng.choice(odd) if rng.random() < 0.1 else answer


class _Told:
    """An `Rpc` that has been told something."""

    def __init__(self, result: object) -> None:
        self.result = json.loads(json.dumps(result))

    async def call(self, body, read):
        try:
            return read(self.result)
        except ValueError as error:
            raise SourceError(str(error)) from None

    async def close(self) -> None:
        pass


def answers(rng: random.Random) -> None:
    """Any result is an answer to the question, or `SourceError`."""

    async def run() -> None:
        chain = Chain(_Told(_answers(rng)))
        for question in (
            chain.account(Pubkey(MINT)),
            chain.tokens(Pubkey(OWNER), Pubkey(MINT)),
            chain.tokens(Pubkey(OWNER), TOKEN, program=True),
            SolBalance(1).find(chain, Pubkey(OWNER)),
        ):
            try:
                await question
            except SourceError:
                pass
        await chain.close()

    asyncio.run(run())


TARGETS = (accounts, answers)

if __name__ == "__main__":
    main(__doc__, TARGETS)
