"""mac1, mac2 and cookies, as WireGuard (protocol.md §3; the WireGuard paper §5.3, §5.4.4, §5.4.7).

mac1 proves that the sender knows whom it talks to. Under load a responder answers with a cookie instead of
curve arithmetic; mac2 then proves that the sender gets what is sent to its address.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import blake2s
from hmac import compare_digest

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)
from nacl.exceptions import CryptoError

from zignet.noise.message import COOKIE_SIZE, INITIATION_SIZE, RESPONSE_SIZE, MessageType
from zignet.noise.suite import KEY_SIZE, digest

__all__ = ["COOKIE_LIFE_S", "MacChecker", "MacMaker"]

COOKIE_LIFE_S = (
    120.0  # of a cookie at its owner; also how long a secret makes cookies, and is good after that
)

_MAC_SIZE = 16
_NO_MAC2 = bytes(_MAC_SIZE)
_SIZES: dict[int, int] = {MessageType.INITIATION: INITIATION_SIZE, MessageType.RESPONSE: RESPONSE_SIZE}

# Both messages: offsets from the end, and the sender's index
_MAC1_AT, _MAC2_AT = -32, -16
_INDEX_AT, _INDEX_END = 4, 8

# The cookie message, protocol.md §3
_COOKIE_HEADER = bytes((MessageType.COOKIE, 0, 0, 0))
_NONCE_AT, _SEALED_AT = 8, 32
_NONCE_SIZE = _SEALED_AT - _NONCE_AT
_ADDRESS_SIZE = 18


def _mac(key: bytes, data: bytes) -> bytes:
    return blake2s(data, digest_size=_MAC_SIZE, key=key).digest()


def _mac1_key(public: bytes) -> bytes:
    return digest(b"ZigNet mac1" + public)


def _cookie_key(public: bytes) -> bytes:
    return digest(b"ZigNet cookie" + public)


class MacMaker:
    """Puts both macs on what goes to one peer, and keeps the cookie that it gave us.

    Small, and of no use before the first handshake: make it then. The keys are one hash each, and not kept.
    """

    __slots__ = ("_cookie", "_expires", "_mac1", "_remote")

    def __init__(self, remote_x: bytes) -> None:
        self._remote = remote_x
        self._mac1: bytes | None = None  # of the last message, as long as no cookie answered it
        self._cookie: bytes | None = None
        self._expires = 0.0

    def add(self, message: bytes, now: float) -> bytes:
        """The message with its macs: 32 bytes longer."""
        mac1 = self._mac1 = _mac(_mac1_key(self._remote), message)
        message += mac1
        if self._cookie is not None and now >= self._expires:
            self._cookie = None
        return message + (_NO_MAC2 if self._cookie is None else _mac(self._cookie, message))

    def cookie_received(self, message: bytes, now: float) -> bool:
        """Take a cookie message. False, and nothing happens, if it does not answer the last message of ours."""
        if len(message) != COOKIE_SIZE or message[:_INDEX_AT] != _COOKIE_HEADER or self._mac1 is None:
            return False
        try:
            self._cookie = crypto_aead_xchacha20poly1305_ietf_decrypt(
                message[_SEALED_AT:], self._mac1, message[_NONCE_AT:_SEALED_AT], _cookie_key(self._remote)
            )
        except CryptoError:
            return False
        self._expires = now + COOKIE_LIFE_S
        self._mac1 = None
        return True


class MacChecker:
    """Looks at the macs of what comes to us, and gives cookies. An `address` is 16 bytes of IP and 2 of port."""

    __slots__ = ("_born", "_cookie_key", "_mac1_key", "_previous", "_previous_ends", "_random", "_secret")

    def __init__(self, local_x: bytes, random: Callable[[int], bytes] = os.urandom) -> None:
        self._mac1_key = _mac1_key(local_x)
        self._cookie_key = _cookie_key(local_x)
        self._random = random
        self._secret: bytes | None = None
        self._born = 0.0
        self._previous: bytes | None = None
        self._previous_ends = 0.0

    def mac1_ok(self, message: bytes) -> bool:
        """Whether this is an initiation or a response by its length, made by somebody who knows our key."""
        if len(message) < RESPONSE_SIZE or len(message) != _SIZES.get(message[0]):
            return False
        return compare_digest(_mac(self._mac1_key, message[:_MAC1_AT]), message[_MAC1_AT:_MAC2_AT])

    def mac2_ok(self, message: bytes, address: bytes, now: float) -> bool:
        """Whether a message whose mac1 is right comes from an address that we gave a cookie to."""
        mac2 = message[_MAC2_AT:]
        if mac2 == _NO_MAC2:
            return False
        covered = message[:_MAC2_AT]
        if compare_digest(_mac(_mac(self._rotate(now), address), covered), mac2):
            return True
        previous = self._previous
        return previous is not None and compare_digest(_mac(_mac(previous, address), covered), mac2)

    def cookie_for(self, message: bytes, address: bytes, now: float) -> bytes:
        """The cookie message that answers one whose mac1 is right: 64 bytes, for this address."""
        if len(address) != _ADDRESS_SIZE:
            raise ValueError("an address is 16 bytes of IP and 2 of port")
        secret = self._rotate(now)
        nonce = self._random(_NONCE_SIZE)
        sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(
            _mac(secret, address), message[_MAC1_AT:_MAC2_AT], nonce, self._cookie_key
        )
        return _COOKIE_HEADER + message[_INDEX_AT:_INDEX_END] + nonce + sealed

    def _rotate(self, now: float) -> bytes:
        """The secret of the moment. The one before is kept for as long as its cookies are good."""
        if self._secret is None or now >= self._born + COOKIE_LIFE_S:
            self._previous, self._previous_ends = self._secret, self._born + 2 * COOKIE_LIFE_S
            self._secret, self._born = self._random(KEY_SIZE), now
        if self._previous is not None and now >= self._previous_ends:
            self._previous = None
        return self._secret
