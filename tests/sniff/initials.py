"""Writes QUIC client Initial packets: by the RFCs and `cryptography`'s own HKDF, not by our code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand


@dataclass(frozen=True)
class Version:
    number: int
    salt: bytes
    label: str
    initial: int
    zero_rtt: int
    handshake: int


V1 = Version(1, bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), "quic", 0, 1, 2)
V2 = Version(0x6B3343CF, bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), "quicv2", 1, 2, 3)
DRAFT29 = Version(0xFF00001D, bytes.fromhex("afbfec289993d24c9e9786f19c6111e04390a899"), "quic", 0, 1, 2)
VERSIONS = [V1, V2, DRAFT29]


def varint(value: int, size: int | None = None) -> bytes:
    for width, prefix in ((1, 0), (2, 1), (4, 2), (8, 3)):
        if value < 1 << 8 * width - 2 and size in (None, width):
            return (value | prefix << 8 * width - 2).to_bytes(width, "big")
    raise ValueError(value)


def crypto(offset: int, data: bytes) -> bytes:
    return b"\x06" + varint(offset) + varint(len(data)) + data


def ack(largest: int, ranges: Sequence[tuple[int, int]] = (), ecn: bool = False) -> bytes:
    pairs = b"".join(varint(gap) + varint(length) for gap, length in ranges)
    counts = varint(1) + varint(70000) + varint(3) if ecn else b""
    kind = b"\x03" if ecn else b"\x02"
    return kind + varint(largest) + varint(25) + varint(len(ranges)) + varint(0) + pairs + counts


def _expand(secret: bytes, label: str, length: int) -> bytes:
    name = b"tls13 " + label.encode()
    info = length.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
    return HKDFExpand(hashes.SHA256(), length, info).derive(secret)


def initial(
    frames: bytes,
    version: Version = V1,
    cid: bytes = b"\x83\x94\xc8\xf0\x3e\x51\x57\x08",
    number: int = 0,
    number_size: int = 1,
    source: bytes = b"",
    token: bytes = b"",
    keys_of: bytes | None = None,
    fixed_bit: int = 1,
) -> bytes:
    """One packet. `keys_of` is the connection ID that the keys are of, when it is not `cid`."""
    extract = hmac.HMAC(version.salt, hashes.SHA256())
    extract.update(cid if keys_of is None else keys_of)
    secret = _expand(extract.finalize(), "client in", 32)
    key, iv, hp = (
        _expand(secret, f"{version.label} {what}", n) for what, n in (("key", 16), ("iv", 12), ("hp", 16))
    )
    frames = frames.ljust(4 - number_size, b"\0")  # as many bytes as the sample needs
    first = 0x80 | fixed_bit << 6 | version.initial << 4 | number_size - 1
    header = (
        bytes([first])
        + version.number.to_bytes(4, "big")
        + bytes([len(cid)])
        + cid
        + bytes([len(source)])
        + source
        + varint(len(token))
        + token
        + varint(number_size + len(frames) + 16, 2)
    )
    at = len(header)
    header += (number & (1 << 8 * number_size) - 1).to_bytes(number_size, "big")
    nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(12, "big")
    packet = bytearray(header + AESGCM(key).encrypt(nonce, frames, header))
    mask = Cipher(algorithms.AES(hp), modes.ECB()).encryptor().update(bytes(packet[at + 4 : at + 20]))
    packet[0] ^= mask[0] & 0x0F
    for i in range(number_size):
        packet[at + i] ^= mask[1 + i]
    return bytes(packet)


def other_long(kind: int, version: Version = V1, cid: bytes = b"\x01\x02\x03\x04", size: int = 60) -> bytes:
    """A 0-RTT or Handshake packet, sealed with keys that nobody has."""
    head = bytes([0xC0 | kind << 4]) + version.number.to_bytes(4, "big") + bytes([len(cid)]) + cid + b"\0"
    return head + varint(size) + bytes(range(size))
