"""Keys as text: every notation there and back, and what a slip of the hand does."""

from __future__ import annotations

import base64
import random
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.zignet.identity.vectors import BAD_TEXTS, KEYS
from zignet.identity import BadKey, PublicKey
from zignet.identity.names import decode, encode_name

RAW = st.binary(min_size=32, max_size=32)
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
NAMES = [vector["name"] for vector in KEYS]


@given(RAW)
def test_names_there_and_back(raw: bytes):
    name = encode_name(raw)
    assert len(name) == 56
    assert set(name) <= set(ALPHABET)
    assert decode(name) == decode(name.upper()) == decode(f"\t{name} ") == raw
    assert base64.b32decode(name.upper())[:32] == raw  # it is RFC 4648's base32


@given(RAW)
def test_other_notations_there_and_back(raw: bytes):
    base58 = pytest.importorskip("base58")
    assert decode(raw.hex()) == decode(raw.hex().upper()) == raw
    assert decode(base58.b58encode(raw).decode()) == raw


@pytest.mark.parametrize("name", NAMES)
def test_every_changed_character_is_noticed(name: str):
    """One of these passes the checksum, in the first name, and is no point of prime order."""
    for at in range(56):
        for other in ALPHABET.replace(name[at], ""):
            with pytest.raises(BadKey):
                PublicKey.from_text(name[:at] + other + name[at + 1 :])


@pytest.mark.parametrize("name", NAMES)
def test_every_transposition_is_noticed(name: str):
    for at in range(56):
        for other in range(at + 1, 56):
            letters = list(name)
            letters[at], letters[other] = letters[other], letters[at]
            if letters != list(name):
                with pytest.raises(BadKey):
                    PublicKey.from_text("".join(letters))


def test_slips_in_many_names():
    """Two bytes of checksum let one slip in 65,536 pass, of which one in sixteen is a key at all."""
    rng = random.Random(1)
    passed = 0
    for _ in range(20_000):
        letters = list(encode_name(rng.randbytes(32)))
        at = rng.randrange(56)
        if rng.random() < 0.3:
            letters[at : at + 2] = reversed(letters[at : at + 2])
        else:
            letters[at] = rng.choice(ALPHABET.replace(letters[at], ""))
        if rng.random() < 0.2:
            letters[rng.randrange(56)] = rng.choice(ALPHABET)
        slipped = "".join(letters)
        try:
            passed += encode_name(decode(slipped)) != slipped
        except ValueError:
            continue
    assert passed <= 3


@given(RAW, st.integers(0, 55), st.integers(0, 31))
def test_a_name_that_passes_is_the_one_name_of_its_key(raw: bytes, at: int, letter: int):
    name = encode_name(raw)
    changed = name[:at] + ALPHABET[letter] + name[at + 1 :]
    try:
        found = decode(changed)
    except ValueError:
        assert changed != name
    else:
        assert encode_name(found) == changed


@pytest.mark.parametrize("vector", BAD_TEXTS, ids=lambda vector: vector["why"])
def test_bad_texts(vector):
    with pytest.raises(BadKey) as caught:
        PublicKey.from_text(vector["text"])
    assert vector["says"] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("letter", ["0", "1", "8", "9", "-", "ı", "é", "\u212a"])
def test_foreign_characters_are_named(letter: str):
    name = NAMES[0]
    with pytest.raises(BadKey, match="mistyped") as caught:
        PublicKey.from_text(name[:20] + letter + name[21:])
    assert repr(letter) in str(caught.value)


def test_a_long_text_is_not_repeated_whole():
    with pytest.raises(BadKey) as caught:
        PublicKey.from_text("x" * 10_000 + "\x1b")
    assert len(str(caught.value)) < 300
    with pytest.raises(BadKey) as caught:
        PublicKey.from_text("\x1b[31m")
    assert "\x1b" not in str(caught.value)


# Invariant: any text is a key or raises BadKey, nothing else.
@given(
    st.text(max_size=70)
    | st.text(alphabet=ALPHABET + "018A", min_size=56, max_size=56)
    | st.text(alphabet=string.hexdigits, min_size=64, max_size=64)
    | st.text(alphabet=string.ascii_letters + string.digits, min_size=30, max_size=46)
)
def test_garbage_is_a_key_or_refused(text: str):
    try:
        key = PublicKey.from_text(text)
    except BadKey:
        return
    assert PublicKey.from_text(key.name).ed == key.ed
