"""Fuzz targets of what reads keys. `python -m tests.zignet.identity.fuzz --seconds 600` runs them long.

A run is repeatable by its seed; a failure prints the seed of the input.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.fuzzing import main
from tests.zignet.identity.vectors import BAD_KEYS, BAD_TEXTS, KEYS
from zignet.config.peers import read_line
from zignet.identity import BadKey, PassphraseNeeded, PublicKey, SecretKey, import_key, matches
from zignet.identity.files import decode_psk, format_key, parse_key

KEY = SecretKey(bytes.fromhex(KEYS[0]["seed"]))
ENCODINGS = [bytes.fromhex(vector["public"]) for vector in KEYS]
ENCODINGS += [bytes.fromhex(vector["hex"]) for vector in BAD_KEYS]
TEXTS = [vector[form] for vector in KEYS for form in ("name", "base58", "public")]
TEXTS += [vector["text"] for vector in BAD_TEXTS]
OPENSSH = (
    Ed25519PrivateKey.from_private_bytes(KEY.seed)
    .private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    .decode()
)
FILES = [OPENSSH, json.dumps([*KEY.seed, *KEY.public.ed]), format_key(KEY)]
LINES = [
    f"{name} {TEXTS[at]} {end}" for at, name in enumerate("abc") for end in ("", "[::1]:9", "h.example:1 # x")
]
CHARACTERS = "\0\n\r\t #-:,[]{}.0189azAZ\u212aé\ud800\U0001f600"


def mutate(rng: random.Random, text: str, others: list[str]) -> str:
    """The text with up to four small damages."""
    for _ in range(rng.randint(0, 4)):
        at, end = sorted(rng.randint(0, len(text)) for _ in range(2))
        what = rng.randrange(5)
        if what == 0:
            text = text[:at] + rng.choice(CHARACTERS) + text[at + 1 :]
        elif what == 1:
            text = text[:at] + text[min(end, at + 9) :]
        elif what == 2:
            text = text[:at] + text[at : at + 20] * rng.randint(1, 9) + text[at:]
        elif what == 3:
            other = rng.choice(others)
            text = text[:at] + other[rng.randint(0, len(other)) :]
        else:
            text = text[:at] + text[at:end].swapcase() + text[end:]
    return text


def says(read: Callable[..., object], *args: object) -> str:
    """What a reader complains of, or nothing."""
    try:
        read(*args)
    except (PassphraseNeeded, ValueError) as error:  # BadKey is one
        return str(error)
    return ""


# Invariant: any 32 bytes are a good key that reads back the same in every notation, or raise BadKey.
def fuzz_bytes(rng: random.Random) -> None:
    raw = bytearray(rng.choice(ENCODINGS)) if rng.random() < 0.7 else bytearray(rng.randbytes(32))
    for _ in range(rng.randint(0, 2)):
        raw[rng.randrange(32)] ^= 1 << rng.randrange(8)
    try:
        key = PublicKey.from_bytes(bytes(raw))
    except BadKey:
        return
    assert key.ed == raw
    assert matches(raw, key.x)
    assert all(PublicKey.from_text(text).ed == raw for text in (key.name, key.base58, key.hex))


# Invariant: any text is a key or raises BadKey with a message that prints.
def fuzz_texts(rng: random.Random) -> None:
    text = mutate(rng, rng.choice(TEXTS), TEXTS)
    try:
        key = PublicKey.from_text(text)
    except BadKey:
        assert says(PublicKey.from_text, text).isprintable()
    else:
        assert PublicKey.from_text(key.name).ed == key.ed


# Invariant: any text imports, or raises BadKey or PassphraseNeeded, and no message has a piece of the secret.
def fuzz_imports(rng: random.Random) -> None:
    text = mutate(rng, rng.choice(FILES), FILES)
    try:
        assert isinstance(import_key(text), SecretKey)
    except (BadKey, PassphraseNeeded):
        assert KEY.seed.hex()[:8] not in says(import_key, text)


# Invariant: any text is a key file's, or raises ValueError without a piece of the secret.
def fuzz_key_files(rng: random.Random) -> None:
    text = mutate(rng, FILES[2], FILES)
    for read in (parse_key, decode_psk):
        assert KEY.seed.hex()[:8] not in says(read, text)


# Invariant: any line of a peers file has a name and 32 bytes, is empty, or raises ValueError.
def fuzz_peer_lines(rng: random.Random) -> None:
    try:
        found = read_line(mutate(rng, rng.choice(LINES), LINES))
    except ValueError:
        return
    assert found is None or (found[0], len(found[1])) == (found[0].strip(), 32)


TARGETS: list[Callable[[random.Random], None]] = [
    fuzz_bytes,
    fuzz_texts,
    fuzz_imports,
    fuzz_key_files,
    fuzz_peer_lines,
]


if __name__ == "__main__":
    main(__doc__, TARGETS)
