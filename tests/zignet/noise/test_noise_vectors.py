"""The vectors of other people's Noise, from cacophony, in both roles."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from zignet.noise import Static, Suite, aead, nonce
from zignet.noise.handshake import NoiseInitiator, NoiseResponder
from zignet.noise.suite import protocol_name

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "noise" / "cacophony.json").read_text(encoding="utf-8")
)["vectors"]
SUITES = {protocol_name(suite).decode(): suite for suite in Suite}


def test_both_suites_have_a_vector():
    assert {vector["protocol_name"] for vector in VECTORS} == set(SUITES)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["protocol_name"])
def test_cacophony(vector: dict):
    def raw(name: str) -> bytes:
        return bytes.fromhex(vector[name])

    suite = SUITES[vector["protocol_name"]]
    initiator = NoiseInitiator(
        Static(raw("init_static")),
        raw("init_remote_static"),
        bytes.fromhex(vector["init_psks"][0]),
        suite,
        raw("init_prologue"),
        lambda size: raw("init_ephemeral"),
    )
    responder = NoiseResponder(Static(raw("resp_static")), suite, raw("resp_prologue"))
    payloads = [bytes.fromhex(message["payload"]) for message in vector["messages"]]
    sealed = [bytes.fromhex(message["ciphertext"]) for message in vector["messages"]]

    assert initiator.write(payloads[0]) == sealed[0]
    assert responder.read(sealed[0]) == payloads[0]
    assert responder.remote == Static(raw("init_static")).public
    psk = bytes.fromhex(vector["resp_psks"][0])
    assert responder.write(psk, payloads[1], lambda size: raw("resp_ephemeral")) == sealed[1]
    assert initiator.read(sealed[1]) == payloads[1]
    assert initiator.transcript == responder.transcript == raw("handshake_hash")

    send, receive = initiator.split()
    assert responder.split() == (receive, send)
    for at, (payload, expected) in enumerate(zip(payloads[2:], sealed[2:], strict=True)):
        cipher = aead(suite, (send, receive)[at % 2])
        assert cipher.encrypt(nonce(suite, at // 2), payload, b"") == expected
        assert cipher.decrypt(nonce(suite, at // 2), expected, b"") == payload
