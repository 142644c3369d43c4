"""Identities on their way: OpenSSH with and without passphrase, Solana wallets."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.zignet.identity.vectors import KEYS
from zignet.identity import BadKey, PassphraseNeeded, SecretKey, export_openssh, import_key
from zignet.identity.files import format_key

KEY = SecretKey(bytes.fromhex(KEYS[0]["seed"]))
PASSPHRASE = "correct horse, Batterie"
WALLET = [*KEY.seed, *KEY.public.ed]


@pytest.fixture(scope="module")
def exported() -> str:
    return export_openssh(KEY, PASSPHRASE)


def plain(key: object = None) -> str:
    private = key or Ed25519PrivateKey.from_private_bytes(KEY.seed)
    return private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


def test_there_and_back(exported: str):
    assert import_key(exported, PASSPHRASE) == KEY
    assert KEY.seed.hex() not in exported
    with pytest.raises(PassphraseNeeded):
        import_key(exported)
    with pytest.raises(BadKey, match="passphrase is wrong"):
        import_key(exported, "wrong")
    with pytest.raises(BadKey, match="passphrase is wrong"):
        import_key(exported, "")


def test_no_export_without_a_passphrase():
    with pytest.raises(ValueError, match="passphrase"):
        export_openssh(KEY, "")


def ssh_keygen(*args: str | Path) -> str:
    program = shutil.which("ssh-keygen")
    if program is None:
        pytest.skip("ssh-keygen is not installed")
    return subprocess.run([program, *args], capture_output=True, text=True, check=True).stdout


def test_ssh_keygen_reads_it(tmp_path: Path, exported: str):
    file = tmp_path / "key"
    file.write_text(exported)
    file.chmod(0o600)
    public = ssh_keygen("-y", "-P", PASSPHRASE, "-f", file)
    line = Ed25519PrivateKey.from_private_bytes(KEY.seed).public_key()
    assert public.split()[0] == "ssh-ed25519"
    assert line.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode().split()[1] == public.split()[1]


@pytest.mark.parametrize("passphrase", ["", "pass"])
def test_we_read_what_ssh_keygen_writes(tmp_path: Path, passphrase: str):
    file = tmp_path / "key"
    ssh_keygen("-q", "-t", "ed25519", "-N", passphrase, "-f", file)
    key = import_key(file.read_text(), passphrase or None)
    public = Ed25519PrivateKey.from_private_bytes(key.seed).public_key()
    expected = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert (tmp_path / "key.pub").read_text().split()[1] == expected.split()[1]


def test_an_openssh_key_without_a_passphrase():
    assert import_key(plain()) == KEY
    assert import_key(f"\ufeff\r\n{plain()}") == KEY


def test_openssh_keys_of_other_kinds_and_damaged_ones():
    with pytest.raises(BadKey, match="only Ed25519"):
        import_key(plain(ec.generate_private_key(ec.SECP256R1())))
    lines = plain().splitlines()
    with pytest.raises(BadKey, match="damaged"):
        import_key("\n".join([lines[0], lines[1][::-1], *lines[2:]]))
    with pytest.raises(BadKey, match="damaged"):
        import_key(lines[0])


def test_a_solana_wallet():
    key = import_key(json.dumps(WALLET))
    assert key == KEY
    assert key.public.base58 == KEYS[0]["base58"]
    assert import_key(f"\n{json.dumps(WALLET, indent=1)}\n") == KEY


@pytest.mark.parametrize(
    ("wallet", "message"),
    [
        ([*KEY.seed, *SecretKey(bytes(32)).public.ed], "public half"),
        ([*KEY.seed], "this has 32"),
        ([*WALLET, 0], "this has 65"),
        ([], "this has 0"),
        ([*WALLET[:-1], 256], "list of bytes"),
        ([*WALLET[:-1], -1], "list of bytes"),
        ([*WALLET[:-1], 1.0], "list of bytes"),
        ([*WALLET[:-1], True], "list of bytes"),
        ([*WALLET[:-1], "1"], "list of bytes"),
        ([WALLET], "list of bytes"),
    ],
)
def test_what_is_no_wallet(wallet: list[object], message: str):
    with pytest.raises(BadKey, match=message):
        import_key(json.dumps(wallet))


@pytest.mark.parametrize("text", ["[1, 2", "[" * 100_000, "[NaN]", "[1] x"])
def test_what_is_no_json(text: str):
    with pytest.raises(BadKey, match="list of bytes"):
        import_key(text)


def test_our_own_key_file():
    assert import_key(format_key(KEY)) == KEY


@pytest.mark.parametrize("text", ["", "hello", KEY.seed.hex(), "-----BEGIN PRIVATE KEY-----\nx\n", "{}"])
def test_what_is_nothing_known(text: str):
    with pytest.raises(BadKey, match="none of an OpenSSH private key") as caught:
        import_key(text)
    assert KEY.seed.hex() not in str(caught.value)
