"""Servers that fail, lie, or are gone; and how few questions many keys cost."""

import asyncio
import json
import logging
from decimal import Decimal

import pytest
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from tests.zignet.policy.solana.ledger import SOL
from tests.zignet.policy.solana.server import Server
from zignet.identity import SecretKey
from zignet.policy import SourceError
from zignet.policy.sources.solana import Chain, Rpc, SolanaSource, SolBalance, TokenBalance

ONE = SolBalance(Decimal(1))
JSON = {"Content-Type": "application/json"}


def plain(text, status=200, **headers):
    return lambda request, true: (status, text, headers)


FAULTS = {
    "429": (plain(b"slow down", 429), "429"),
    "500": (plain(b"oops", 500), "HTTP status 500"),
    "a redirect": (plain(b"", 302, Location="http://127.0.0.1:1/"), "HTTP status 302"),
    "not JSON": (plain(b"<html>"), "not JSON-RPC"),
    "nothing": (plain(b""), "not JSON-RPC"),
    "not text": (plain(b"\xff\xfe"), "not text"),
    "null": (plain(b"null"), "not JSON-RPC"),
    "deep": (plain(b"[" * 100_000), "not JSON-RPC"),
    "an error": (
        plain(b'{"jsonrpc":"2.0","id":0,"error":{"code":-32005,"message":"Node is \\u001b[31mbehind"}}'),
        r"it answers with an error, Node is \[31mbehind",
    ),
    "too few accounts": (
        plain(b'{"jsonrpc":"2.0","id":0,"result":{"context":{"slot":1},"value":[]}}'),
        "0 accounts where 1 were asked for",
    ),
    "huge": (plain(b" " * (5 << 20)), "more than 4 MiB"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_server_that_fails_is_neither_yes_nor_no(server, look, name):
    server.fault, told = FAULTS[name]
    with pytest.raises(SourceError, match=told) as error:
        look(ONE)
    assert "SECRET" not in str(error.value)


def test_the_log_holds_no_url(ledger, look, wallet, caplog):
    """It may hold an API key."""
    ledger.give(wallet, SOL)
    with caplog.at_level(logging.DEBUG):
        assert look(ONE).matches
    assert "SECRET" not in caplog.text


def test_silence_ends(server, look):
    server.fault = lambda request, true: None
    with pytest.raises(SourceError, match="no answer in time"):
        look(ONE)


def test_nobody_there(look):
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:1: no connection"):
        look(ONE, urls=["http://user:SECRET@127.0.0.1:1/"])


@pytest.mark.parametrize("name", FAULTS)
def test_the_next_server_is_asked(ledger, server, look, wallet, name):
    ledger.give(wallet, SOL)
    server.fault, _ = FAULTS[name]
    with Server(ledger) as second:
        assert look(ONE, urls=[server.url, second.url]).matches


@pytest.mark.parametrize("what", ["mint", "owner"])
def test_an_account_of_another_mint_or_owner_is_a_lie(ledger, server, look, wallet, authority, what):
    asked, other = ledger.mint(authority, 0), ledger.mint(authority, 0)
    rich = Keypair().pubkey()
    ledger.issue(other if what == "mint" else asked, authority, wallet if what == "mint" else rich, 100)
    lie = ledger.tokens(rich if what == "owner" else wallet, other if what == "mint" else asked, None)

    def fault(request, true):
        if request["method"] == "getTokenAccountsByOwner":
            answer = json.loads(true)
            from tests.zignet.policy.solana.server import shown

            answer["result"]["value"] = [
                {"pubkey": str(one), "account": shown(account)} for one, account in lie
            ]
            true = json.dumps(answer).encode()
        return 200, true, JSON

    server.fault = fault
    with pytest.raises(SourceError, match=f"another {what}"):
        look(TokenBalance(asked, Decimal(1)))


def test_one_account_twice_does_not_count_twice(ledger, server, look, wallet, authority):
    mint = ledger.mint(authority, 0)
    ledger.issue(mint, authority, wallet, 60)

    def fault(request, true):
        answer = json.loads(true)
        if request["method"] == "getTokenAccountsByOwner":
            answer["result"]["value"] *= 2
        return 200, json.dumps(answer).encode(), JSON

    server.fault = fault
    assert look(TokenBalance(mint, Decimal(60))).matches
    assert not look(TokenBalance(mint, Decimal(61))).matches


def test_a_server_that_asks_for_a_rest_gets_it(ledger, server, member, wallet):
    ledger.give(wallet, SOL)
    clock = [100.0]

    async def run():
        source = SolanaSource(ONE, Chain(Rpc([server.url], 2.0, now=lambda: clock[0])))

        async def asked():
            before = server.asked["getMultipleAccounts"]
            try:
                await source.look(member.public)
            except SourceError:
                pass
            return server.asked["getMultipleAccounts"] - before

        server.fault = plain(b"", 429, **{"Retry-After": "20"})
        assert await asked() == 1
        assert await asked() == 0
        clock[0] += 19
        assert await asked() == 0
        clock[0] += 2
        server.fault = None
        assert await asked() == 1
        assert (await source.look(member.public)).matches
        # without a word about how long: twice as long each time, and never more than a minute
        server.fault = plain(b"", 429)
        rests = []
        for _ in range(8):
            assert await asked() == 1
            rests.append(source._chain.rpc._servers[0].until - clock[0])
            clock[0] += rests[-1]
        assert rests == [1, 2, 4, 8, 16, 32, 60, 60]
        await source.close()

    asyncio.run(run())


def test_keys_that_are_asked_about_together_share_a_question(ledger, server):
    members = [SecretKey.generate().public for _ in range(150)]
    for key in members[::2]:
        ledger.give(Pubkey(key.ed), SOL)

    async def run():
        source = SolanaSource(ONE, Chain(Rpc([server.url], 10.0)))
        found = await asyncio.gather(*(source.look(key) for key in members))
        await source.close()
        return found

    assert [found.matches for found in asyncio.run(run())] == [True, False] * 75
    assert server.asked["getMultipleAccounts"] == 2


def test_closing_ends_what_waits(server, member):
    server.fault = lambda request, true: None

    async def run():
        source = SolanaSource(ONE, Chain(Rpc([server.url], 60.0)))
        look = asyncio.create_task(source.look(member.public))
        while not server.asked:
            await asyncio.sleep(0.01)
        await source.close()
        with pytest.raises(SourceError):
            await look

    asyncio.run(run())
