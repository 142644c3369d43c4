"""Each check against a real virtual machine with the real token programs."""

from decimal import Decimal

import pytest
from solders.address_lookup_table_account import ID as LOOKUP_TABLES
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM

from tests.zignet.policy.solana.ledger import SOL, Refused
from zignet.identity import SecretKey
from zignet.policy import SourceError
from zignet.policy.sources.solana import AllowList, Collection, Nft, Seed, SolBalance, TokenBalance
from zignet.policy.sources.solana.chain import TOKEN, TOKEN_2022

PROGRAMS = pytest.mark.parametrize("program", [TOKEN, TOKEN_2022], ids=["spl", "token-2022"])


def test_the_ed25519_form_of_the_key_is_the_wallet(member, keypair):
    assert bytes(keypair.pubkey()) == member.public.ed
    assert str(keypair.pubkey()) == member.public.base58


@pytest.mark.parametrize(("lamports", "matches"), [(SOL // 2 - 1, False), (SOL // 2, True), (SOL, True)])
def test_sol_balance(ledger, look, wallet, lamports, matches):
    ledger.give(wallet, lamports)
    assert look(SolBalance(Decimal("0.5"))).matches is matches


def test_a_wallet_that_nobody_has_used_has_nothing(look):
    found = look(SolBalance(Decimal("0.5")))
    assert not found.matches
    assert found.reason == "has 0 SOL, 0.5 are asked for"


@PROGRAMS
def test_token_balance(ledger, look, wallet, authority, program):
    mint = ledger.mint(authority, 6, program)
    check = TokenBalance(mint, Decimal(100))
    assert not look(check).matches
    ledger.issue(mint, authority, wallet, 99_999_999, program)
    assert not look(check).matches
    ledger.issue(mint, authority, wallet, 1, program)
    found = look(check)
    assert found.matches
    assert found.reason.startswith("has 100 of token ")


@PROGRAMS
def test_tokens_that_were_sent_away_count_for_the_other(ledger, look, wallet, keypair, authority, program):
    mint, friend = ledger.mint(authority, 0, program), SecretKey.generate()
    ledger.issue(mint, authority, wallet, 100, program)
    check = TokenBalance(mint, Decimal(100))
    assert look(check).matches
    ledger.send(mint, keypair, Pubkey(friend.public.ed), 100, program)
    assert not look(check).matches
    assert look(check, friend.public).matches


def test_a_thief_can_neither_mint_nor_take(ledger, look, wallet, authority, member):
    mint, thief, victim = ledger.mint(authority, 0), Keypair.from_seed(member.seed), Keypair()
    ledger.issue(mint, authority, victim.pubkey(), 100)
    with pytest.raises(Refused):
        ledger.issue(mint, thief, wallet, 100)
    with pytest.raises(Refused):
        ledger.run(
            [
                Instruction(
                    TOKEN,
                    b"\x03" + (100).to_bytes(8, "little"),  # transfer, from the victim's account
                    [
                        AccountMeta(ledger.tokens(victim.pubkey(), mint, None)[0][0], False, True),
                        AccountMeta(victim.pubkey(), False, True),
                        AccountMeta(thief.pubkey(), True, False),
                    ],
                )
            ],
            thief,
        )
    assert not look(TokenBalance(mint, Decimal(1))).matches


def test_another_token_of_the_same_kind_does_not_count(ledger, look, wallet, authority):
    asked, other = ledger.mint(authority, 0), ledger.mint(authority, 0)
    ledger.issue(other, authority, wallet, 1_000)
    assert not look(TokenBalance(asked, Decimal(1))).matches


def test_a_mint_that_is_none_is_a_failure_not_a_no(look, wallet, ledger):
    ledger.give(wallet, SOL)
    with pytest.raises(SourceError, match="is no token's mint"):
        look(TokenBalance(wallet, Decimal(1)))


@PROGRAMS
def test_nft(ledger, look, wallet, authority, program):
    mint = ledger.mint(authority, 0, program)
    assert not look(Nft(mint)).matches
    ledger.issue(mint, authority, wallet, 1, program)
    assert look(Nft(mint)).matches


def test_a_token_with_parts_is_no_nft(ledger, look, authority):
    with pytest.raises(SourceError, match="is no NFT"):
        look(Nft(ledger.mint(authority, 6)))


class TestCollection:
    def test_a_member_of_a_group(self, ledger, look, wallet, authority):
        issuer = Keypair()
        group, mint = ledger.group(authority), ledger.member(issuer)
        ledger.issue(mint, issuer, wallet, 1, TOKEN_2022)
        assert not look(Collection(group)).matches
        with pytest.raises(Refused):  # the group's owner has not signed
            ledger.join(mint, group, issuer, issuer)
        assert not look(Collection(group)).matches
        ledger.join(mint, group, issuer, authority)
        assert look(Collection(group)).matches
        assert not look(Collection(ledger.group(authority))).matches

    @pytest.mark.parametrize(("verified", "matches"), [(True, True), (False, False)])
    def test_by_metaplex_metadata(self, ledger, look, wallet, authority, verified, matches):
        mint, collection = ledger.mint(authority, 0), Keypair().pubkey()
        ledger.issue(mint, authority, wallet, 1)
        assert not look(Collection(collection)).matches
        ledger.metadata(mint, collection, verified)
        assert look(Collection(collection)).matches is matches

    def test_metadata_by_another_program_proves_nothing(self, ledger, look, wallet, authority):
        mint, collection = ledger.mint(authority, 0), Keypair().pubkey()
        ledger.issue(mint, authority, wallet, 1)
        ledger.metadata(mint, collection, True, program=SYSTEM)
        assert not look(Collection(collection)).matches

    def test_an_nft_that_was_sold_counts_for_the_buyer(self, ledger, look, wallet, keypair, authority):
        mint, collection, buyer = ledger.mint(authority, 0), Keypair().pubkey(), SecretKey.generate()
        ledger.issue(mint, authority, wallet, 1)
        ledger.metadata(mint, collection, True)
        ledger.send(mint, keypair, Pubkey(buyer.public.ed), 1)
        assert not look(Collection(collection)).matches
        assert look(Collection(collection), buyer.public).matches

    def test_more_nfts_than_one_question_holds(self, ledger, look, wallet, authority):
        collection = Keypair().pubkey()
        mints = [ledger.mint(authority, 0) for _ in range(60)]
        for mint in mints:
            ledger.issue(mint, authority, wallet, 1)
        for mint in mints:
            ledger.metadata(mint, Keypair().pubkey(), True)
        assert not look(Collection(collection)).matches
        ledger.metadata(mints[-1], collection, True)
        assert look(Collection(collection)).matches


class TestAllowList:
    """The accounts of Solana's own lookup tables: derived of a key and a slot."""

    def table(self, ledger, keypair):
        ledger.vm.warp_to_slot(ledger.vm.get_clock().slot + 2)
        slot = ledger.vm.get_clock().slot - 1
        hashes = ledger.vm.get_slot_hashes()
        ledger.vm.set_slot_hashes([(slot, ledger.vm.latest_blockhash()), *hashes][:1])
        address, bump = Pubkey.find_program_address(
            [bytes(keypair.pubkey()), slot.to_bytes(8, "little")], LOOKUP_TABLES
        )
        data = bytes(4) + slot.to_bytes(8, "little") + bytes((bump,))
        metas = [
            AccountMeta(address, False, True),
            AccountMeta(keypair.pubkey(), False, False),
            AccountMeta(ledger.payer.pubkey(), True, True),
            AccountMeta(SYSTEM, False, False),
        ]
        ledger.run([Instruction(LOOKUP_TABLES, data, metas)])
        return slot

    def test_whoever_has_the_account_is_on_the_list(self, ledger, look, keypair):
        slot = self.table(ledger, keypair)
        check = AllowList(LOOKUP_TABLES, (Seed(None), Seed.parse(f"u64:{slot}")))
        assert look(check).matches
        assert not look(check, SecretKey.generate().public).matches
        assert not look(AllowList(LOOKUP_TABLES, (Seed(None), Seed.parse(f"u64:{slot + 1}")))).matches

    def test_an_account_of_another_program_at_that_address_does_not_count(self, ledger, look, wallet):
        program = Keypair().pubkey()
        address, _ = Pubkey.find_program_address([b"member", bytes(wallet)], program)
        ledger.give(address, SOL)  # anyone can send something there: it is the system's account then
        assert not look(AllowList(program, (Seed.parse("member"), Seed(None)))).matches


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{key}", None),
        ("member", b"member"),
        ("hex:00ff", b"\0\xff"),
        ("u64:258", b"\2\1\0\0\0\0\0\0"),
        (f"pubkey:{TOKEN}", bytes(TOKEN)),
    ],
)
def test_seeds(text, value):
    assert Seed.parse(text) == Seed(value)


@pytest.mark.parametrize("text", ["", "x" * 33, "hex:0", "u64:-1", "u64:18446744073709551616", "pubkey:abc"])
def test_bad_seeds(text):
    with pytest.raises(ValueError, match=r".+"):
        Seed.parse(text)
