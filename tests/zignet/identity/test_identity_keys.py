"""Keys: what is good, what is refused, both forms, addresses."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from hashlib import blake2s
from ipaddress import IPv6Address, IPv6Network
from math import gcd

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zignet.identity import edwards
from tests.zignet.identity.vectors import BAD_KEYS, KEYS
from zignet.identity import BadKey, PublicKey, SecretKey, address6, curve, field, matches

SEEDS = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize("vector", KEYS, ids=lambda vector: vector["origin"])
def test_vectors(vector):
    secret = SecretKey(bytes.fromhex(vector["seed"]))
    key = secret.public
    assert secret.x.hex() == vector["x25519_secret"]
    assert (key.ed.hex(), key.x.hex()) == (vector["public"], vector["x25519"])
    assert (key.name, key.base58, key.hex) == (vector["name"], vector["base58"], vector["public"])
    assert str(address6(IPv6Network("fd5a:6967:6e65::/48"), key.x)) == vector["address6"]
    assert str(address6(IPv6Network("fd00:1:2:3::/64"), key.x)) == vector["address6_in_64"]
    for text in (key.name, key.base58, key.hex, key.name.upper(), key.hex.upper(), f" {key.name}\n"):
        assert PublicKey.from_text(text).ed == key.ed


@pytest.mark.parametrize("vector", KEYS, ids=lambda vector: vector["origin"])
def test_a_negation_is_the_same_peer_with_another_face(vector):
    key = PublicKey.from_text(vector["name"])
    negation = PublicKey.from_bytes(bytes.fromhex(vector["negation"]))
    assert negation.ed.hex() == vector["negation"]
    assert negation.name == vector["negation_name"] != key.name
    assert (negation, hash(negation), negation.x) == (key, hash(key), key.x)
    assert matches(negation.ed, key.x)


@pytest.mark.parametrize("vector", BAD_KEYS, ids=lambda vector: f"{vector['why']} {vector['hex'][:8]}")
def test_bad_keys(vector):
    raw = bytes.fromhex(vector["hex"])
    with pytest.raises(BadKey) as caught:
        PublicKey.from_bytes(raw)
    reason = {
        "small order": "small order",
        "not of prime order": "not of prime order",
        "not on the curve": "not a point of the curve",
        "not canonical": "not written in the canonical form",
    }[vector["reason"]]
    assert reason in str(caught.value)
    with pytest.raises(BadKey, match=reason):
        PublicKey.from_text(raw.hex())


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_wrong_sizes(size: int):
    with pytest.raises(BadKey, match=f"these are {size}"):
        PublicKey.from_bytes(bytes(size))
    with pytest.raises(BadKey, match=f"these are {size}"):
        SecretKey(bytes(size))


def test_the_points_of_small_order_are_all_known():
    assert {point[1] for point in edwards.torsion()} == curve._SMALL_ORDER


def test_the_scalar_that_tells_the_order():
    """What the comment above it claims; a curve and its twist have 2p + 2 points together."""
    scalar = int.from_bytes(curve._SCALAR, "little")
    assert (scalar % 8, scalar >> 254) == (0, 1)  # X25519 leaves it as it is
    assert scalar == 5 * edwards.ORDER - 1
    on_curve = 8 * edwards.ORDER
    on_twist = 2 * edwards.P + 2 - on_curve
    for divisible in (scalar + 1, scalar - 1):
        assert gcd(divisible, on_twist) == 1
    assert gcd(scalar - 1, on_curve) == 1
    assert gcd(scalar + 1, on_curve) == edwards.ORDER


@given(
    st.lists(st.sampled_from([vector["public"] for vector in KEYS] + [vector["hex"] for vector in BAD_KEYS]))
)
def test_many_at_once_are_as_one_by_one(texts: list[str]):
    good = {vector["public"] for vector in KEYS}
    found = PublicKey.from_many([bytes.fromhex(text) for text in texts])
    assert [isinstance(key, PublicKey) for key in found] == [text in good for text in texts]
    for key, text in zip(found, texts, strict=True):
        if isinstance(key, PublicKey):
            assert key.hex == text
        else:
            with pytest.raises(BadKey, match=str(key)):
                PublicKey.from_bytes(bytes.fromhex(text))


# Invariant: 32 bytes are a key exactly if the oracle says so.
@given(SEEDS, st.integers(0, 7))
@settings(max_examples=50)
def test_any_bytes_against_the_oracle(raw: bytes, twist: int):
    point = edwards.with_y(field.y_of(raw) % edwards.P, raw[31] >> 7)
    if point is not None and twist:
        point = edwards.times(8, point)  # of prime order
        raw = edwards.encode(edwards.add(point, edwards.torsion()[twist - 1]))
        good = twist == 1
    else:
        good = (
            point is not None
            and edwards.encode(point) == raw
            and edwards.times(edwards.ORDER, point) == edwards.NEUTRAL
        )
    try:
        key = PublicKey.from_bytes(raw)
    except BadKey:
        assert not good
    else:
        assert good
        assert key.ed == raw
        assert matches(raw, key.x)


@given(SEEDS)
@settings(max_examples=50)
def test_a_secret_key_and_its_public_one(seed: bytes):
    secret = SecretKey(seed)
    scalar = int.from_bytes(secret.x, "little")
    assert edwards.encode(edwards.times(scalar, edwards.BASE)) == secret.public.ed
    assert PublicKey.from_bytes(secret.public.ed) == secret.public
    assert secret == SecretKey(seed)


@given(SEEDS, SEEDS)
def test_matches_is_the_birational_map(seed: bytes, other: bytes):
    key, stranger = SecretKey(seed).public, SecretKey(other).public
    assert matches(key.ed, key.x)
    assert matches(stranger.ed, key.x) == (seed == other)


def test_matches_takes_anything():
    key = SecretKey(bytes(32)).public
    above = (int.from_bytes(key.x, "little") + edwards.P).to_bytes(33, "little")
    for ed, x in (
        (b"", b""),
        (key.ed[:31], key.x),
        (key.ed, key.x[:31]),
        (key.ed, above),
        (b"\xff" * 32, key.x),
        (key.ed, b"\xff" * 32),
        (b"\1" + bytes(31), bytes(32)),
    ):
        assert not matches(ed, x)
    small = b"\x03" + bytes(31)  # y = 3, and the same written as y + p
    u = (4 * pow(-2, -1, edwards.P) % edwards.P).to_bytes(32, "little")
    assert matches(small, u)
    assert not matches((3 + edwards.P).to_bytes(32, "little"), u)


def test_new_keys_differ():
    assert SecretKey.generate() != SecretKey.generate()
    assert SecretKey.generate(lambda size: bytes(size)) == SecretKey(bytes(32))


def test_a_secret_is_not_shown():
    secret = SecretKey(bytes(range(32)))
    for shown in (repr(secret), str(secret), f"{secret}", repr([secret]), f"{secret!r:>5}"):
        assert secret.public.name in shown
        assert secret.seed.hex() not in shown
        assert repr(secret.seed) not in shown
        assert secret.x.hex() not in shown


def test_keys_do_not_change_and_are_small():
    key = SecretKey(bytes(32)).public
    with pytest.raises(dataclasses.FrozenInstanceError):
        key.x = b""  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        key.more = 1  # type: ignore[attr-defined]
    assert sys.getsizeof(key) + sys.getsizeof(key.x) <= 136
    assert key != key.x
    assert str(key) == key.name
    assert key.name in repr(key)
    assert pickle.loads(pickle.dumps(key)).ed == key.ed


# Invariant: the address lies in the network's lower half; all else of it is hash.
@given(st.integers(16, 64), SEEDS)
def test_addresses(length: int, x: bytes):
    network = IPv6Network((0xFD5A_6967_6E65_7A69 << 64, length), strict=False)
    address = address6(network, x)
    assert address in next(iter(network.subnets(1)))
    hashed = int.from_bytes(blake2s(b"ZigNet IPv6" + x).digest(), "big")
    assert int(address) & (1 << 127 - length) - 1 == hashed >> 256 - (127 - length)
    assert isinstance(address, IPv6Address)


def test_nothing_heavy_is_loaded_before_there_is_a_key():
    program = (
        "import sys, zignet.identity, zignet.config\n"
        "heavy = {'nacl', 'cryptography', 'base58', 'segno'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "zignet.identity.PublicKey.from_text('{name}')\n"
        "assert 'cryptography' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program.replace("{name}", KEYS[0]["name"])], check=True)
