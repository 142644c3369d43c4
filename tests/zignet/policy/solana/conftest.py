"""A chain, its server, and wallets: shared by the tests, since making one costs half a second."""

import asyncio

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from tests.zignet.policy.solana.ledger import Ledger
from tests.zignet.policy.solana.server import Server
from zignet.identity import SecretKey
from zignet.policy.sources.solana import Chain, Rpc, SolanaSource


@pytest.fixture(scope="session")
def ledger():
    return Ledger()


@pytest.fixture
def server(ledger):
    with Server(ledger) as running:
        yield running


@pytest.fixture
def authority():
    return Keypair()


@pytest.fixture
def member():
    """A key of ours that no test has used before."""
    return SecretKey.generate()


@pytest.fixture
def wallet(member):
    return Pubkey(member.public.ed)


@pytest.fixture
def keypair(member):
    """The same key, as Solana's own programs use it."""
    return Keypair.from_seed(member.seed)


@pytest.fixture
def look(server, member):
    """Ask a check about the member, or about another key."""

    def ask(check, key=None, urls=None, now=None):
        async def run():
            clock = {} if now is None else {"now": now}
            source = SolanaSource(check, Chain(Rpc(urls or [server.url], timeout_s=2.0, **clock)))
            try:
                return await source.look(key or member.public)
            finally:
                await source.close()

        return asyncio.run(run())

    return ask
