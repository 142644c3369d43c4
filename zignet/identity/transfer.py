"""An identity on its way to another device, or out of a wallet.

Out: OpenSSH's private key format, encrypted with a passphrase (bcrypt KDF), which ssh-keygen reads too.
In: that, with a passphrase or without; a Solana keypair (JSON, 64 numbers: seed and public key); our key file.
"""

from __future__ import annotations

import json
import warnings

from zignet.identity.files import parse_key
from zignet.identity.keys import BadKey, SecretKey

__all__ = ["KDF_ROUNDS", "PassphraseNeeded", "export_openssh", "import_key"]

KDF_ROUNDS = 100  # of bcrypt: three quarters of a second here; ssh-keygen's own default is 16 or 24
_SEED = 32  # bytes
_PEM = "-----BEGIN OPENSSH PRIVATE KEY-----"


class PassphraseNeeded(Exception):
    """The key is encrypted, and no passphrase was given."""


def export_openssh(key: SecretKey, passphrase: str) -> str:
    """The key as OpenSSH's private key file, encrypted; takes most of a second.

    Raises `ValueError` for an empty passphrase.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat

    if not passphrase:
        raise ValueError("a key leaves this machine with a passphrase only")
    how = (
        PrivateFormat.OpenSSH.encryption_builder()
        .kdf_rounds(KDF_ROUNDS)
        .build(passphrase.encode("utf-8", "surrogateescape"))
    )
    private = Ed25519PrivateKey.from_private_bytes(key.seed)
    return private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, how).decode("ascii")


def import_key(text: str, passphrase: str | None = None) -> SecretKey:
    """The key in a text of one of the kinds above. Raises `BadKey`, `PassphraseNeeded`.

    No message shows a piece of the text.
    """
    text = text.removeprefix("\ufeff").strip()
    if text.startswith("["):
        return _solana(text)
    if text.startswith(_PEM):
        return _openssh(text, passphrase)
    try:
        return parse_key(text)
    except ValueError:
        raise BadKey(
            "it is none of an OpenSSH private key, a Solana keypair (JSON, 64 numbers), or a ZigNet key file"
        ) from None


def _solana(text: str) -> SecretKey:
    try:
        numbers = json.loads(text)
        if not all(type(number) is int for number in numbers):
            raise ValueError
        raw = bytes(numbers)
    except (ValueError, RecursionError):
        raise BadKey("it begins like a Solana keypair, and is not a JSON list of bytes") from None
    if len(raw) != 2 * _SEED:
        raise BadKey(f"a Solana keypair has {2 * _SEED} numbers, and this has {len(raw)}")
    key = SecretKey(raw[:_SEED])
    if key.public.ed != raw[_SEED:]:
        raise BadKey("its public half is not that of its secret half: the file is damaged")
    return key


def _openssh(text: str, passphrase: str | None) -> SecretKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    password = passphrase.encode("utf-8", "surrogateescape") if passphrase is not None else None
    try:
        with warnings.catch_warnings(action="ignore"):  # about kinds of keys that we refuse anyway
            private = load_ssh_private_key(text.encode("utf-8", "replace"), password)
    except TypeError:
        if passphrase is not None:  # an empty one
            raise BadKey("the passphrase is wrong") from None
        raise PassphraseNeeded("the key is encrypted with a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        if passphrase is not None:
            raise BadKey("the passphrase is wrong, or the file is damaged") from None
        raise BadKey(
            "it begins like an OpenSSH private key, and is damaged or of a kind unknown here"
        ) from None
    if not isinstance(private, Ed25519PrivateKey):
        raise BadKey("it is an OpenSSH key of another kind: only Ed25519 keys can be an identity")
    return SecretKey(private.private_bytes_raw())
