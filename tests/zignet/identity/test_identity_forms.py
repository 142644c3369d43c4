"""A key from both of its forms: the same as from one, and nothing that is not a key."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.zignet.identity.vectors import BAD_KEYS, KEYS
from zignet.identity import BadKey, PublicKey
from zignet.identity.field import P, y_of


def u_of(ed: bytes) -> bytes:
    """The X25519 form that an encoding would have: (1 + y) / (1 − y), RFC 7748 §4.1."""
    y = y_of(ed)
    return ((1 + y) * pow(1 - y, P - 2, P) % P).to_bytes(32, "little")


@pytest.mark.parametrize("vector", KEYS, ids=lambda vector: vector["origin"])
def test_vectors(vector):
    for ed in (bytes.fromhex(vector["public"]), bytes.fromhex(vector["negation"])):
        key = PublicKey.from_forms(ed, bytes.fromhex(vector["x25519"]))
        assert (key.ed, key.x) == (ed, PublicKey.from_bytes(ed).x)


@pytest.mark.parametrize("vector", BAD_KEYS, ids=lambda vector: f"{vector['why']} {vector['hex'][:8]}")
def test_bad_keys(vector):
    ed = bytes.fromhex(vector["hex"])
    with pytest.raises(BadKey):
        PublicKey.from_forms(ed, u_of(ed))


@pytest.mark.parametrize("first", KEYS, ids=lambda vector: vector["origin"])
@pytest.mark.parametrize("second", KEYS, ids=lambda vector: vector["origin"])
def test_the_forms_of_two_keys(first, second):
    if first is not second:
        with pytest.raises(BadKey, match="not the two forms of one key"):
            PublicKey.from_forms(bytes.fromhex(first["public"]), bytes.fromhex(second["x25519"]))


@example(b"\1", b"")
@given(st.binary(max_size=40), st.binary(max_size=40))
def test_any_bytes(ed, x):
    with pytest.raises(BadKey):
        PublicKey.from_forms(ed, x)


@given(st.sampled_from(KEYS), st.integers(0, 511))
def test_one_bit_is_another(vector, bit):
    both = bytearray(bytes.fromhex(vector["public"] + vector["x25519"]))
    both[bit // 8] ^= 1 << bit % 8
    ed, x = bytes(both[:32]), bytes(both[32:])
    if bit == 255:  # the sign: that is its negation
        assert PublicKey.from_forms(ed, x).ed.hex() == vector["negation"]
    else:
        with pytest.raises(BadKey):
            PublicKey.from_forms(ed, x)
