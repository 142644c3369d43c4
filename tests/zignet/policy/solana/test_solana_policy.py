"""From a line of the configuration to a decision about a wallet on a real virtual machine."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal

import pytest
from solders.pubkey import Pubkey

from tests.zignet.policy.solana.ledger import SOL
from zignet.config import parse_config
from zignet.identity import SecretKey
from zignet.policy.build import make_judge
from zignet.policy.sources.solana import AllowList, Collection, Nft, Seed, SolBalance, TokenBalance
from zignet.policy.sources.solana.policy import check_of, solana_source

MINT = "So11111111111111111111111111111111111111112"


def policies(url: str, *lines: str):
    text = "".join(f'    - {{type: solana, rpc_url: "{url}", {line}}}\n' for line in lines)
    return parse_config(f"inbound:\n  policies:\n{text}").inbound


def test_every_check_is_made():
    inbound = policies(
        "http://127.0.0.1:1",
        "check: sol_balance, min_balance: 0.5",
        f"check: token_balance, token_mint: {MINT}, min_balance: 100",
        f"check: nft, mint: {MINT}",
        f"check: nft, collection: {MINT}",
        f"check: allow_list, program_id: {MINT}, seed: member",
        f"check: allow_list, program_id: {MINT}, seed: ['{{key}}', 'u64:7']",
    )
    mint = Pubkey.from_string(MINT)
    assert [check_of(policy) for policy in inbound.policies] == [
        SolBalance(Decimal("0.5")),
        TokenBalance(mint, Decimal(100)),
        Nft(mint),
        Collection(mint),
        AllowList(mint, [Seed(b"member"), Seed(None)]),
        AllowList(mint, [Seed(None), Seed((7).to_bytes(8, "little"))]),
    ]


@pytest.mark.parametrize(("lamports", "allowed"), [(SOL // 2 - 1, False), (SOL // 2, True)])
def test_a_decision(server, ledger, member, wallet, lamports: int, allowed: bool):
    ledger.give(wallet, lamports)
    inbound = policies(server.url, "check: sol_balance, min_balance: 0.5, cache: 40s, timeout: 30s")

    async def scene():
        judge = make_judge(inbound, time.monotonic)
        try:
            return await judge.decide(member.public), await judge.decide(member.public), judge.status()
        finally:
            await judge.close()

    verdict, again, (status,) = asyncio.run(scene())
    assert verdict.allowed is again.allowed is allowed
    assert 0 < verdict.valid_s <= 40
    assert status.asked == 1


def test_an_answer_is_asked_for_again_at_the_interval(server):
    """The chain tells of no changes: what holds for ever would never be looked at again."""
    inbound = policies(server.url, "check: sol_balance, min_balance: 0.5, timeout: 30s")

    async def scene():
        source = solana_source(inbound.policies[0], inbound.recheck_s)
        try:
            return await source.look(SecretKey.generate().public)
        finally:
            await source.close()

    assert asyncio.run(scene()).valid_s == 300.0
