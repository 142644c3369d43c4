"""Makes tests/vectors/protocol/handshake.json without any code of ours: Noise from noiseprotocol, X25519 from
`cryptography`, XChaCha20-Poly1305 from libsodium, the layouts from protocol.md §3.

python -m tests.zignet.noise.make_vectors
"""

from __future__ import annotations

import json
import struct
import warnings
from hashlib import blake2s, sha512
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt
from noise.connection import Keypair, NoiseConnection

PATH = Path(__file__).parents[2] / "vectors" / "protocol" / "handshake.json"
NAMES = {1: b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s", 2: b"Noise_IKpsk2_25519_AESGCM_BLAKE2s"}
ADDRESSES = {1: ("203.0.113.9", 51830), 2: ("2001:db8:5::9", 40001)}


def stream(label: str) -> bytes:
    """32 bytes that anybody can make again."""
    return blake2s(label.encode()).digest()


def secret_of(seed: bytes) -> bytes:
    """The X25519 secret of an Ed25519 seed, clamped (RFC 8032 §5.1.5)."""
    first = bytearray(sha512(seed).digest()[:32])
    first[0] &= 248
    first[31] = first[31] & 127 | 64
    return bytes(first)


def public_of(secret: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()


def mac(key: bytes, data: bytes) -> bytes:
    return blake2s(data, key=key, digest_size=16).digest()


def connection(suite: int, own: bytes, ephemeral: bytes, psk: bytes, remote: bytes | None) -> NoiseConnection:
    noise = NoiseConnection.from_name(NAMES[suite])
    noise.set_psks(psk)
    noise.set_prologue(b"ZigNet 1" + bytes((1, suite, 0, 0)))
    noise.set_keypair_from_private_bytes(Keypair.STATIC, own)
    noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
    if remote is None:
        noise.set_as_responder()
    else:
        noise.set_as_initiator()
        noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, remote)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fixed ephemeral key is what a vector is about
        noise.start_handshake()
    return noise


def side(name: str, suite: int) -> dict[str, Any]:
    seed = stream(f"{name} seed {suite}")
    return {
        "seed": seed,
        "ed25519": Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw(),
        "x25519_secret": secret_of(seed),
        "x25519": public_of(secret_of(seed)),
        "ephemeral": stream(f"{name} ephemeral {suite}"),
        "index": int.from_bytes(stream(f"{name} index {suite}")[:4], "little"),
        "device": stream(f"{name} device {suite}")[:8],
        "features": suite - 1,
    }


def vector(suite: int) -> dict[str, Any]:
    initiator, responder = side("initiator", suite), side("responder", suite)
    psk = bytes(32) if suite == 1 else stream("psk")
    timestamp = 1_763_000_000_000_000 + suite

    def begin(ephemeral: bytes, stamp: int) -> tuple[NoiseConnection, bytes]:
        noise = connection(suite, initiator["x25519_secret"], ephemeral, psk, responder["x25519"])
        payload = struct.pack(
            "<32sQ8sI", initiator["ed25519"], stamp, initiator["device"], initiator["features"]
        )
        head = struct.pack("<BBHI", 1, suite, 0, initiator["index"]) + responder["x25519"]
        return noise, head + bytes(noise.write_message(payload))

    initiating, message = begin(initiator["ephemeral"], timestamp)
    mac1 = mac(blake2s(b"ZigNet mac1" + responder["x25519"]).digest(), message)
    initiation = message + mac1 + bytes(16)

    responding = connection(suite, responder["x25519_secret"], responder["ephemeral"], psk, None)
    responding.read_message(message[40:188])
    head = struct.pack("<BBHII", 2, suite, 0, responder["index"], initiator["index"])
    payload = struct.pack("<8sI", responder["device"], responder["features"])
    response = head + bytes(responding.write_message(payload))
    response += mac(blake2s(b"ZigNet mac1" + initiator["x25519"]).digest(), response) + bytes(16)
    initiating.read_message(response[12:72])

    ip, port = ADDRESSES[suite]
    packed = ip_address(ip).packed
    address = (bytes(10) + b"\xff\xff" + packed if len(packed) == 4 else packed) + port.to_bytes(2, "big")
    cookie_secret, nonce = stream(f"cookie secret {suite}"), stream(f"cookie nonce {suite}")[:24]
    cookie = mac(cookie_secret, address)
    sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(
        cookie, mac1, nonce, blake2s(b"ZigNet cookie" + responder["x25519"]).digest()
    )
    second_ephemeral = stream(f"second ephemeral {suite}")
    _, second = begin(second_ephemeral, timestamp + 1)
    second += mac(blake2s(b"ZigNet mac1" + responder["x25519"]).digest(), second)
    return {
        "suite": suite,
        "initiator": initiator,
        "responder": responder,
        "psk": psk,
        "timestamp": timestamp,
        "initiation": initiation,
        "response": response,
        "handshake_hash": bytes(initiating.get_handshake_hash()),
        "initiator_sends_with": initiating.noise_protocol.cipher_state_encrypt.k,
        "responder_sends_with": initiating.noise_protocol.cipher_state_decrypt.k,
        "cookie": {
            "initiator_ip": ip,
            "initiator_port": port,
            "secret": cookie_secret,
            "nonce": nonce,
            "value": cookie,
            "message": struct.pack("<BBHI", 3, 0, 0, initiator["index"]) + nonce + sealed,
            "next_ephemeral": second_ephemeral,
            "next_timestamp": timestamp + 1,
            "next_initiation": second + mac(cookie, second),
        },
    }


def text() -> str:
    about = (
        "Handshakes of protocol.md §3, in hexadecimal; whole messages, with their macs. `initiation` is answered "
        "by `response`, or under load by `cookie.message`, after which the initiator sends "
        "`cookie.next_initiation`. Made by tests/zignet/noise/make_vectors.py, without code of ZigNet's."
    )
    return (
        json.dumps(
            {"about": about, "vectors": [vector(1), vector(2)]}, indent=2, default=lambda raw: raw.hex()
        )
        + "\n"
    )


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
