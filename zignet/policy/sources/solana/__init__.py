"""Whether a key, as a Solana wallet, has something: SOL, tokens, an NFT, an account of a program.

accounts   what the bytes of accounts mean: pure
rpc        the servers that are asked: several, each given a rest when it fails
chain      questions to them: accounts in batches, tokens of an owner; answers are held against the question
checks     what a policy may ask for
source     a check and a chain behind `zignet.policy.Source`
policy     from the configuration to a source

A server is believed about the chain's state, and nothing else is: an answer about another mint or owner is a failure.
"""

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

__all__ = [
    "AllowList",
    "Chain",
    "Check",
    "Collection",
    "Nft",
    "Rpc",
    "Seed",
    "SolBalance",
    "SolanaSource",
    "TokenBalance",
]
