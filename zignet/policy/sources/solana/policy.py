"""From a policy of the configuration to a check on the chain."""

from __future__ import annotations

from solders.pubkey import Pubkey

from zignet.config import SolanaPolicy
from zignet.policy.sources.solana.chain import Chain
from zignet.policy.sources.solana.checks import (
    AllowList,
    Check,
    Collection,
    Nft,
    Seed,
    SolBalance,
    TokenBalance,
)
from zignet.policy.sources.solana.rpc import Rpc
from zignet.policy.sources.solana.source import SolanaSource

__all__ = ["check_of", "solana_source"]


def solana_source(policy: SolanaPolicy, recheck_s: float) -> SolanaSource:
    """The source of a policy; its servers are not asked yet."""
    chain = Chain(Rpc([url.text for url in policy.rpc_url], policy.timeout_s))
    return SolanaSource(check_of(policy), chain, recheck_s if policy.cache_s is None else policy.cache_s)


def check_of(policy: SolanaPolicy) -> Check:
    """The configuration has seen to it that what the check needs is there."""
    match policy:
        case SolanaPolicy(check="sol_balance", min_balance=least) if least is not None:
            return SolBalance(least)
        case SolanaPolicy(check="token_balance", token_mint=mint, min_balance=least) if (
            mint and least is not None
        ):
            return TokenBalance(Pubkey.from_string(mint), least)
        case SolanaPolicy(check="nft", mint=str(mint)):
            return Nft(Pubkey.from_string(mint))
        case SolanaPolicy(check="nft", collection=str(collection)):
            return Collection(Pubkey.from_string(collection))
        case SolanaPolicy(check="allow_list", program_id=str(program)):
            seeds = [Seed.parse(text) for text in policy.seed]
            return AllowList(Pubkey.from_string(program), seeds)
        case _:
            raise ValueError(f"no check: {policy}")
