"""A check on the chain, as a policy's source. The key's Ed25519 form is the wallet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from solders.pubkey import Pubkey

from zignet.identity import PublicKey
from zignet.policy.source import Finding, SourceError
from zignet.policy.sources.solana.chain import Chain
from zignet.policy.sources.solana.checks import Check

__all__ = ["SolanaSource"]

TIMEOUT_S = 15.0  # of a check, which may be several questions, each to several servers


class SolanaSource:
    """See `zignet.policy.Source`."""

    def __init__(self, check: Check, chain: Chain, valid_s: float | None = None) -> None:
        """`valid_s`: for how long an answer stands."""
        self._valid_s = valid_s
        self._check = check
        self._chain = chain
        self.label = f"solana {check.label}"

    async def look(self, key: PublicKey) -> Finding:
        """Whether the wallet meets the check now."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found = await self._check.find(self._chain, Pubkey(key.ed))
        except TimeoutError:
            raise SourceError(f"no answer within {TIMEOUT_S:g} s") from None
        return replace(found, valid_s=self._valid_s)

    def watch(self, changed: Callable[[], None]) -> None:
        """The chain tells nobody; whoever asks looks again after a while."""

    async def close(self) -> None:
        """Hang up."""
        await self._chain.close()
