"""The Noise pattern itself: with ourselves, with two other implementations in either role, and what it refuses."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zignet.noise.oracles import ORACLES
from zignet.noise import NO_PSK, HandshakeError, Static, Suite, aead, nonce
from zignet.noise.handshake import NoiseInitiator, NoiseResponder

KEYS = st.binary(min_size=32, max_size=32)
PAYLOADS = st.binary(max_size=100)
SUITES = list(Suite)
A, B = bytes(range(32)), bytes(range(32, 64))

# RFC 7748 §6.1: u of the points of low order, and the same values not reduced
LOW_ORDER = [
    (0).to_bytes(32, "little"),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]


def sides(suite: Suite = Suite.CHACHA, psk: bytes = NO_PSK) -> tuple[NoiseInitiator, NoiseResponder]:
    responder = Static(B)
    return (
        NoiseInitiator(Static(A), responder.public, psk, suite, b"prologue"),
        NoiseResponder(responder, suite, b"prologue"),
    )


@given(
    suite=st.sampled_from(SUITES),
    secrets=st.tuples(KEYS, KEYS),
    psk=KEYS,
    prologue=PAYLOADS,
    payloads=st.tuples(PAYLOADS, PAYLOADS),
)
@settings(max_examples=30)
def test_both_ends_agree(suite, secrets, psk, prologue, payloads):
    ours, theirs = map(Static, secrets)
    initiator = NoiseInitiator(ours, theirs.public, psk, suite, prologue)
    responder = NoiseResponder(theirs, suite, prologue)
    assert responder.read(initiator.write(payloads[0])) == payloads[0]
    assert responder.remote == ours.public
    assert initiator.read(responder.write(psk, payloads[1])) == payloads[1]
    assert initiator.transcript == responder.transcript
    send, receive = initiator.split()
    assert responder.split() == (receive, send)
    assert send != receive


@pytest.mark.parametrize("oracle", ORACLES)
@given(suite=st.sampled_from(SUITES), secrets=st.tuples(KEYS, KEYS), psk=KEYS, payload=PAYLOADS)
@settings(max_examples=15, deadline=None)
def test_we_initiate_to(oracle, suite, secrets, psk, payload):
    static, remote = Static(secrets[0]), Static(secrets[1]).public
    other = oracle(suite, secrets[1], None, psk, b"prologue")
    initiator = NoiseInitiator(static, remote, psk, suite, b"prologue")
    assert other.read(initiator.write(payload)) == payload
    assert initiator.read(other.write(payload[::-1])) == payload[::-1]
    speak(other, suite, *initiator.split())


@pytest.mark.parametrize("oracle", ORACLES)
@given(suite=st.sampled_from(SUITES), secrets=st.tuples(KEYS, KEYS), psk=KEYS, payload=PAYLOADS)
@settings(max_examples=15, deadline=None)
def test_we_respond_to(oracle, suite, secrets, psk, payload):
    static = Static(secrets[1])
    other = oracle(suite, secrets[0], static.public, psk, b"prologue")
    responder = NoiseResponder(static, suite, b"prologue")
    assert responder.read(other.write(payload)) == payload
    assert responder.remote == Static(secrets[0]).public
    assert other.read(responder.write(psk, payload[::-1])) == payload[::-1]
    speak(other, suite, *responder.split())


def speak(other, suite: Suite, send: bytes, receive: bytes) -> None:
    """Three messages each way with the transport keys."""
    sending, receiving = aead(suite, send), aead(suite, receive)
    for counter in range(3):
        text = os.urandom(50 * counter)
        assert other.decrypt(sending.encrypt(nonce(suite, counter), text, b"")) == text
        assert receiving.decrypt(nonce(suite, counter), other.encrypt(text), b"") == text


@pytest.mark.parametrize("suite", SUITES)
def test_every_bit_and_every_byte_counts(suite: Suite):
    initiator, responder = sides(suite)
    first = initiator.write(b"first")
    for damaged in damages(first):
        with pytest.raises(HandshakeError):
            sides(suite)[1].read(damaged)
    responder.read(first)
    second = responder.write(NO_PSK, b"second")
    for damaged in damages(second):
        with pytest.raises(HandshakeError):
            initiator.read(damaged)
    assert initiator.read(second) == b"second"  # none of them spoiled what waits


def damages(message: bytes):
    """One bit changed in each byte, every truncation, a byte more. Bit 255 of a curve point is not part of it,
    but of the transcript."""
    for at in range(len(message)):
        yield message[:at] + bytes((message[at] ^ (1 << at % 8),)) + message[at + 1 :]
        yield message[:at]
    yield message[:31] + bytes((message[31] ^ 0x80,)) + message[32:]
    yield message + b"\0"


@pytest.mark.parametrize("suite", SUITES)
def test_another_psk_is_found_out_by_the_initiator(suite: Suite):
    initiator, responder = sides(suite, b"1" * 32)
    responder.read(initiator.write(b""))
    with pytest.raises(HandshakeError):
        initiator.read(responder.write(b"2" * 32, b""))


def test_another_prologue_or_suite_or_receiver():
    first = sides()[0].write(b"")
    for other in (
        NoiseResponder(Static(B), Suite.CHACHA, b"another"),
        NoiseResponder(Static(B), Suite.AES, b"prologue"),
        NoiseResponder(Static(A), Suite.CHACHA, b"prologue"),
    ):
        with pytest.raises(HandshakeError):
            other.read(first)


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_a_low_order_ephemeral_is_refused(point: bytes):
    initiator, responder = sides()
    first = initiator.write(b"")
    with pytest.raises(HandshakeError, match="low order"):
        responder.read(point + first[32:])
    with pytest.raises(HandshakeError, match="low order"):
        initiator.read(point + bytes(16))


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_a_low_order_static_is_refused(point: bytes):
    with pytest.raises(HandshakeError, match="low order"):
        NoiseInitiator(Static(A), point, NO_PSK, Suite.CHACHA, b"").write(b"")

    class Pretender(Static):
        """Sends a point of low order as its own key, and seals what follows as if it had it."""

    pretender = Pretender(A)
    pretender.public = point
    responder = Static(B)
    initiator = NoiseInitiator(pretender, responder.public, NO_PSK, Suite.CHACHA, b"")
    with pytest.raises(HandshakeError, match="low order"):
        NoiseResponder(responder, Suite.CHACHA, b"").read(initiator.write(b""))


def test_a_handshake_ends_once():
    initiator, responder = sides()
    responder.read(initiator.write(b""))
    second = responder.write(NO_PSK, b"")
    with pytest.raises(HandshakeError):
        responder.write(NO_PSK, b"")
    initiator.read(second)
    with pytest.raises(HandshakeError):
        initiator.read(second)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_sizes_of_secrets(size: int):
    with pytest.raises(ValueError, match="32"):
        Static(bytes(size))
    with pytest.raises(ValueError, match="32"):
        sides(psk=bytes(size))
    initiator, responder = sides()
    responder.read(initiator.write(b""))
    with pytest.raises(ValueError, match="32"):
        responder.write(bytes(size), b"")
    assert initiator.read(responder.write(NO_PSK, b"x")) == b"x"  # nothing was spoiled


def test_each_handshake_has_an_ephemeral_of_its_own():
    assert len({sides()[0].write(b"")[:32] for _ in range(20)}) == 20


def test_no_secret_is_shown():
    assert repr(Static(A)) == f"Static(public={Static(A).public.hex()})"
