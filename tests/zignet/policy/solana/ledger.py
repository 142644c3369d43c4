"""A real Solana virtual machine with real token programs, and wallets that use it."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from solders.account import Account
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, create_account
from solders.transaction import Transaction
from spl.token import instructions as spl
from spl.token import models

from zignet.policy.sources.solana.chain import TOKEN, TOKEN_2022
from zignet.policy.sources.solana.checks import METADATA

__all__ = ["SOL", "Ledger", "Refused", "metadata_of"]

SOL = 10**9  # lamports
MINT_SPACE = 82
POINTER_SPACE = 166 + 4 + 64  # a Token-2022 mint with one pointer extension
GROUP_POINTER, MEMBER_POINTER = 40, 41  # instructions of Token-2022


class Refused(Exception):
    """The virtual machine did not carry out a transaction."""


class Ledger:
    """One chain, and someone who pays for everything."""

    def __init__(self) -> None:
        self.vm = LiteSVM()
        self.payer = Keypair()
        self.vm.airdrop(self.payer.pubkey(), 1_000 * SOL)

    def give(self, wallet: Pubkey, lamports: int) -> None:
        self.vm.airdrop(wallet, lamports)

    def run(self, instructions: Sequence[Instruction], *signers: Keypair) -> None:
        """One transaction. Raises `Refused`."""
        everyone = [self.payer, *(signer for signer in signers if signer != self.payer)]
        made = Transaction.new_signed_with_payer(
            list(instructions), self.payer.pubkey(), everyone, self.vm.latest_blockhash()
        )
        result = self.vm.send_transaction(made)
        self.vm.expire_blockhash()
        if type(result).__name__ == "FailedTransactionMetadata":
            raise Refused(str(result.err()))

    def _account(self, new: Keypair, space: int, program: Pubkey, spare: int = 0) -> Instruction:
        rent = self.vm.minimum_balance_for_rent_exemption(space + spare)
        return create_account(
            CreateAccountParams(
                from_pubkey=self.payer.pubkey(),
                to_pubkey=new.pubkey(),
                lamports=rent,
                space=space,
                owner=program,
            )
        )

    def mint(self, authority: Keypair, decimals: int = 6, program: Pubkey = TOKEN) -> Pubkey:
        """A new token."""
        new = Keypair()
        self.run(
            [
                self._account(new, MINT_SPACE, program),
                spl.initialize_mint2(
                    models.InitializeMint2Params(
                        decimals=decimals,
                        program_id=program,
                        mint=new.pubkey(),
                        mint_authority=authority.pubkey(),
                        freeze_authority=None,
                    )
                ),
            ],
            new,
        )
        return new.pubkey()

    def issue(
        self, mint: Pubkey, authority: Keypair, to: Pubkey, amount: int, program: Pubkey = TOKEN
    ) -> None:
        """New tokens for a wallet."""
        self.run(
            [
                spl.create_idempotent_associated_token_account(self.payer.pubkey(), to, mint, program),
                spl.mint_to(
                    models.MintToParams(
                        program_id=program,
                        mint=mint,
                        dest=spl.get_associated_token_address(to, mint, program),
                        mint_authority=authority.pubkey(),
                        amount=amount,
                        signers=[],
                    )
                ),
            ],
            authority,
        )

    def send(self, mint: Pubkey, owner: Keypair, to: Pubkey, amount: int, program: Pubkey = TOKEN) -> None:
        """Tokens from one wallet to another."""
        self.run(
            [
                spl.create_idempotent_associated_token_account(self.payer.pubkey(), to, mint, program),
                spl.transfer(
                    models.TransferParams(
                        program_id=program,
                        source=spl.get_associated_token_address(owner.pubkey(), mint, program),
                        dest=spl.get_associated_token_address(to, mint, program),
                        owner=owner.pubkey(),
                        amount=amount,
                        signers=[],
                    )
                ),
            ],
            owner,
        )

    # --- groups (Token-2022, spl_token_group_interface)

    def group(self, authority: Keypair) -> Pubkey:
        """A mint that is a group."""
        mint = self._with_pointer(authority, GROUP_POINTER, 4 + 80)
        self.run(
            [
                Instruction(
                    TOKEN_2022,
                    _told("initialize_token_group") + bytes(authority.pubkey()) + struct.pack("<Q", 100),
                    [_account(mint, True), _account(mint), _account(authority.pubkey(), signs=True)],
                )
            ],
            authority,
        )
        return mint

    def member(self, authority: Keypair) -> Pubkey:
        """A mint without parts that may become a member."""
        return self._with_pointer(authority, MEMBER_POINTER, 4 + 72)

    def join(self, member: Pubkey, group: Pubkey, authority: Keypair, group_authority: Keypair) -> None:
        """Make it a member."""
        metas = [
            _account(member, True),
            _account(member),
            _account(authority.pubkey(), signs=True),
            _account(group, True),
            _account(group_authority.pubkey(), signs=True),
        ]
        self.run([Instruction(TOKEN_2022, _told("initialize_member"), metas)], authority, group_authority)

    def _with_pointer(self, authority: Keypair, pointer: int, spare: int) -> Pubkey:
        new = Keypair()
        data = bytes((pointer, 0)) + bytes(authority.pubkey()) + bytes(new.pubkey())
        self.run(
            [
                self._account(new, POINTER_SPACE, TOKEN_2022, spare),
                Instruction(TOKEN_2022, data, [_account(new.pubkey(), True)]),
                spl.initialize_mint2(
                    models.InitializeMint2Params(
                        decimals=0,
                        program_id=TOKEN_2022,
                        mint=new.pubkey(),
                        mint_authority=authority.pubkey(),
                        freeze_authority=None,
                    )
                ),
            ],
            new,
        )
        return new.pubkey()

    # --- Metaplex: its program is not in this machine, so its accounts are put there as it would write them

    def metadata(
        self, mint: Pubkey, collection: Pubkey | None, verified: bool, program: Pubkey = METADATA
    ) -> None:
        """The metadata account of a token."""
        address, _ = Pubkey.find_program_address([b"metadata", bytes(METADATA), bytes(mint)], METADATA)
        data = metadata_of(bytes(mint), None if collection is None else bytes(collection), verified)
        self.vm.set_account(address, Account(SOL, data, program, False, 0))

    # --- what a server tells of it

    def tokens(
        self, owner: Pubkey, mint: Pubkey | None, program: Pubkey | None
    ) -> list[tuple[Pubkey, Account]]:
        """As getTokenAccountsByOwner finds them."""
        found = []
        for one in (TOKEN, TOKEN_2022):
            if program in (None, one):
                for address, account in self.vm.get_program_accounts(one):
                    data = bytes(account.data)
                    is_account = len(data) == 165 or (len(data) > 165 and data[165] == 2)
                    if is_account and data[32:64] == bytes(owner) and mint in (None, Pubkey(data[:32])):
                        found.append((address, account))
        return found


def metadata_of(mint: bytes, collection: bytes | None, verified: bool) -> bytes:
    """What such an account holds."""
    data = bytes((4,)) + bytes(32) + mint
    for text, size in ((b"Member", 32), (b"ZIG", 10), (b"https://nft.example/1", 200)):
        data += struct.pack("<I", size) + text.ljust(size, b"\0")
    data += struct.pack("<H", 500)
    data += b"\1" + struct.pack("<I", 1) + bytes(32) + b"\1" + bytes((100,))  # one creator
    data += b"\0\1"  # not sold, may be changed
    data += b"\1\xff"  # edition nonce
    data += b"\1\0"  # token standard
    data += b"\0" if collection is None else b"\1" + bytes((verified,)) + collection
    return data.ljust(679, b"\0")


def _told(name: str) -> bytes:
    """The discriminator of an instruction of an SPL interface."""
    return hashlib.sha256(f"spl_token_group_interface:{name}".encode()).digest()[:8]


def _account(address: Pubkey, writable: bool = False, signs: bool = False) -> AccountMeta:
    return AccountMeta(address, signs, writable)
