"""Two other implementations of Noise behind one face."""

from __future__ import annotations

import warnings

from dissononce.dh.private import PrivateKey
from dissononce.extras.meta.protocol.factory import NoiseProtocolFactory
from noise.connection import Keypair, NoiseConnection

from zignet.noise import Suite
from zignet.noise.suite import protocol_name


class Noiseprotocol:
    def __init__(self, suite: Suite, secret: bytes, remote: bytes | None, psk: bytes, prologue: bytes):
        self.noise = NoiseConnection.from_name(protocol_name(suite))
        self.noise.set_psks(psk)
        self.noise.set_prologue(prologue)
        self.noise.set_keypair_from_private_bytes(Keypair.STATIC, secret)
        if remote is None:
            self.noise.set_as_responder()
        else:
            self.noise.set_as_initiator()
            self.noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, remote)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.noise.start_handshake()

    def write(self, payload: bytes) -> bytes:
        return bytes(self.noise.write_message(payload))

    def read(self, message: bytes) -> bytes:
        return bytes(self.noise.read_message(message))

    def encrypt(self, plain: bytes) -> bytes:
        return bytes(self.noise.encrypt(plain))

    def decrypt(self, sealed: bytes) -> bytes:
        return bytes(self.noise.decrypt(sealed))


class Dissononce:
    def __init__(self, suite: Suite, secret: bytes, remote: bytes | None, psk: bytes, prologue: bytes):
        protocol = NoiseProtocolFactory().get_noise_protocol(protocol_name(suite).decode())
        self.noise = protocol.create_handshakestate()
        self.initiator = remote is not None
        self.noise.initialize(
            protocol.pattern,
            self.initiator,
            prologue,
            s=protocol.dh.generate_keypair(PrivateKey(secret)),
            rs=None if remote is None else protocol.dh.create_public(remote),
            psks=(psk,),
        )
        self.ciphers = None

    def write(self, payload: bytes) -> bytes:
        buffer = bytearray()
        self.ciphers = self.noise.write_message(payload, buffer)
        return bytes(buffer)

    def read(self, message: bytes) -> bytes:
        buffer = bytearray()
        self.ciphers = self.noise.read_message(message, buffer)
        return bytes(buffer)

    def encrypt(self, plain: bytes) -> bytes:
        return bytes(self.ciphers[0 if self.initiator else 1].encrypt_with_ad(b"", plain))

    def decrypt(self, sealed: bytes) -> bytes:
        return bytes(self.ciphers[1 if self.initiator else 0].decrypt_with_ad(b"", sealed))


ORACLES = [Noiseprotocol, Dissononce]
