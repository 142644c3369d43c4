"""Hash, HMAC, HKDF and nonces, against the standard library; and what the package must not import."""

from __future__ import annotations

import ast
import hmac as standard
from hashlib import blake2s
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import zignet.noise
from zignet.noise import Suite, nonce
from zignet.noise.suite import ZERO_NONCE, digest, hkdf1, hkdf2, hkdf3, hmac, protocol_name

KEYS = st.binary(min_size=32, max_size=32)


def test_blake2s():
    """RFC 7693 appendix B."""
    assert digest(b"abc").hex() == "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"


@given(KEYS, st.binary(max_size=200))
def test_hmac(key: bytes, message: bytes):
    assert hmac(key, message) == standard.new(key, message, blake2s).digest()


@given(KEYS, st.binary(max_size=100))
def test_hkdf(chain: bytes, material: bytes):
    """Noise §4.3, as it is written there."""

    def step(*parts: bytes) -> bytes:
        return standard.new(key, b"".join(parts), blake2s).digest()

    key = standard.new(chain, material, blake2s).digest()
    first = step(b"\1")
    second = step(first, b"\2")
    third = step(second, b"\3")
    assert hkdf1(chain, material) == first
    assert hkdf2(chain, material) == (first, second)
    assert hkdf3(chain, material) == (first, second, third)


def test_nonces():
    assert nonce(Suite.CHACHA, 0x0102).hex() == "000000000201000000000000"
    assert nonce(Suite.AES, 0x0102).hex() == "000000000000000000000102"
    assert nonce(Suite.CHACHA, 0) == nonce(Suite.AES, 0) == ZERO_NONCE


def test_names_are_longer_than_a_hash():
    """Shorter ones would be padded instead of hashed (Noise §5.2)."""
    assert all(len(protocol_name(suite)) > 32 for suite in Suite)


def test_the_package_is_pure():
    """No socket, no clock, no event loop, nothing else of ZigNet's."""
    allowed = {"__future__", "collections", "cryptography", "dataclasses", "enum", "hashlib", "hmac", "nacl"}
    allowed |= {"os", "struct", "zignet.noise"}  # os: urandom, as a default
    for path in Path(zignet.noise.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
            for name in names:
                assert any(name == one or name.startswith(one + ".") for one in allowed), f"{path}: {name}"
