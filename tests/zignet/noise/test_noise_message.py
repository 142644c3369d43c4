"""Initiation and response: two nodes in memory, and everything that must not get through."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.zignet.noise.ends import ALICE, BOB, SUITES, flips, with_mac1
from zignet.noise import (
    INITIATION_SIZE,
    NO_PSK,
    RESPONSE_SIZE,
    HandshakeError,
    InitiationPayload,
    Initiator,
    Keys,
    Responder,
    ResponsePayload,
    Suite,
    aead,
)

INDEXES = st.integers(1, 2**32 - 1)
U32 = st.integers(0, 2**32 - 1)
KEYS = st.binary(min_size=32, max_size=32)
DEVICES = st.binary(min_size=8, max_size=8)
INITIATIONS = st.builds(InitiationPayload, KEYS, st.integers(0, 2**64 - 1), DEVICES, U32)


@given(st.sampled_from(SUITES), INITIATIONS, st.builds(ResponsePayload, DEVICES, U32), INDEXES, INDEXES, KEYS)
@settings(max_examples=30, deadline=None)
def test_a_handshake(suite, first, second, ours, theirs, psk):
    initiator = Initiator.begin(ALICE.static, BOB.static.public, psk, suite, ours, first)
    assert len(initiator.message) + 32 == INITIATION_SIZE
    responder = Responder.open(BOB.static, initiator.message + bytes(32))
    assert (responder.remote, responder.payload) == (ALICE.static.public, first)
    assert (responder.suite, responder.sender_index) == (suite, ours)
    message = responder.answer(psk, theirs, second)
    assert len(message) + 32 == RESPONSE_SIZE
    assert initiator.finish(message + bytes(32)) == second
    assert initiator.remote_index == theirs
    assert initiator.keys.send == responder.keys.receive
    assert initiator.keys.receive == responder.keys.send
    assert initiator.keys.send != initiator.keys.receive
    sealed = aead(suite, initiator.keys.send).encrypt(bytes(12), b"frame", b"")
    assert aead(suite, responder.keys.receive).decrypt(bytes(12), sealed, b"") == b"frame"


def test_two_handshakes_at_once_share_nothing():
    ours, message = ALICE.begin(BOB)
    theirs, other = BOB.begin(ALICE)
    at_bob, at_alice = BOB.opens(message), ALICE.opens(other)
    to_alice, to_bob = BOB.answer(at_bob), ALICE.answer(at_alice)
    ALICE.finishes(ours, to_alice)
    BOB.finishes(theirs, to_bob)
    assert ours.keys.send == at_bob.keys.receive
    assert theirs.keys.send == at_alice.keys.receive
    assert len({bytes(key) for one in (ours, theirs) for key in (one.keys.send, one.keys.receive)}) == 4


@pytest.mark.parametrize("suite", SUITES)
def test_each_bit_of_an_initiation_counts(suite: Suite):
    _, message = ALICE.begin(BOB, suite)
    for damaged in flips(message, INITIATION_SIZE - 16):  # mac2 counts under load only
        with pytest.raises(HandshakeError):
            BOB.opens(damaged)


@pytest.mark.parametrize("suite", SUITES)
def test_each_bit_counts_even_where_mac1_is_made_anew(suite: Suite):
    """All but the sender's index, which only says where to answer."""
    initiator, message = ALICE.begin(BOB, suite)
    for damaged in flips(message, INITIATION_SIZE - 32):
        if damaged[4:8] == message[4:8]:
            with pytest.raises(HandshakeError):
                BOB.opens(with_mac1(damaged, BOB.static))
    answer = BOB.answer(BOB.opens(message))
    for damaged in flips(answer, RESPONSE_SIZE - 32):
        if damaged[4:8] == answer[4:8]:
            with pytest.raises(HandshakeError):
                ALICE.finishes(initiator, with_mac1(damaged, ALICE.static))
    ALICE.finishes(initiator, answer)  # what was forged did not disturb it


@pytest.mark.parametrize("suite", SUITES)
def test_each_bit_of_a_response_counts(suite: Suite):
    initiator, message = ALICE.begin(BOB, suite)
    answer = BOB.answer(BOB.opens(message))
    for damaged in flips(answer, RESPONSE_SIZE - 16):
        with pytest.raises(HandshakeError):
            ALICE.finishes(initiator, damaged)
    assert ALICE.finishes(initiator, answer).device == b"device B"


def test_every_length_but_the_right_one():
    initiator, message = ALICE.begin(BOB)
    answer = BOB.answer(BOB.opens(message))
    for size in range(INITIATION_SIZE + 40):
        if size != INITIATION_SIZE:
            with pytest.raises(HandshakeError):
                Responder.open(BOB.static, (message + bytes(40))[:size])
        if size != RESPONSE_SIZE:
            with pytest.raises(HandshakeError):
                initiator.finish((answer + bytes(160))[:size])
    initiator.finish(answer)


def changed(message: bytes, at: int, value: bytes) -> bytes:
    return message[:at] + value + message[at + len(value) :]


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (0, b"\2", "type"),
        (0, b"\0", "type"),
        (1, b"\0", "suite"),
        (1, b"\3", "suite"),
        (1, b"\2", "open"),  # known, and not what was sealed
        (2, b"\1", "later version"),
        (3, b"\x80", "later version"),
        (4, bytes(4), "index"),
        (8, bytes(32), "somebody else"),
        (8, ALICE.static.public, "somebody else"),
        (40, bytes(32), "low order"),
        (40, BOB.static.public, "open"),
    ],
)
def test_what_an_initiation_is_refused_for(at: int, value: bytes, says: str):
    with pytest.raises(HandshakeError, match=says):
        Responder.open(BOB.static, changed(ALICE.begin(BOB)[1], at, value))


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (0, b"\1", "type"),
        (1, b"\2", "another suite"),
        (1, b"\7", "suite"),
        (3, b"\1", "later version"),
        (4, bytes(4), "index"),
        (8, b"\xff\xff\xff\xff", "another initiation"),
        (8, bytes(4), "another initiation"),
        (12, bytes(32), "low order"),
        (12, BOB.static.public, "open"),
    ],
)
def test_what_a_response_is_refused_for(at: int, value: bytes, says: str):
    initiator, message = ALICE.begin(BOB)
    answer = BOB.answer(BOB.opens(message))
    with pytest.raises(HandshakeError, match=says):
        initiator.finish(changed(answer, at, value))
    initiator.finish(answer)


@pytest.mark.parametrize("suite", SUITES)
def test_another_psk(suite: Suite):
    initiator, message = ALICE.begin(BOB, suite, psk=b"1" * 32)
    with pytest.raises(HandshakeError, match="open"):
        initiator.finish(BOB.answer(BOB.opens(message), psk=NO_PSK))
    initiator.finish(BOB.answer(BOB.opens(message), psk=b"1" * 32, index=9))
    assert initiator.remote_index == 9


def test_the_response_to_another_initiation():
    first, message = ALICE.begin(BOB)
    second, _ = ALICE.begin(BOB)  # the same index
    with pytest.raises(HandshakeError):
        second.finish(BOB.answer(BOB.opens(message)))
    del first


def test_what_comes_twice():
    initiator, message = ALICE.begin(BOB)
    responder = BOB.opens(message)
    answer = BOB.answer(responder)
    with pytest.raises(HandshakeError, match="over"):
        BOB.answer(responder)
    initiator.finish(answer)
    keys = bytes(initiator.keys.send)
    with pytest.raises(HandshakeError, match="over"):
        initiator.finish(answer)
    assert initiator.keys.send == keys


def test_an_initiation_for_a_key_of_low_order():
    with pytest.raises(HandshakeError, match="low order"):
        Initiator.begin(
            ALICE.static, bytes(32), NO_PSK, Suite.AES, 1, InitiationPayload(bytes(32), 0, bytes(8), 0)
        )


GOOD = InitiationPayload(bytes(32), 0, bytes(8), 0)


@pytest.mark.parametrize(
    "payload",
    [
        InitiationPayload(bytes(31), 0, bytes(8), 0),
        InitiationPayload(bytes(32), -1, bytes(8), 0),
        InitiationPayload(bytes(32), 2**64, bytes(8), 0),
        InitiationPayload(bytes(32), 0, bytes(9), 0),
        InitiationPayload(bytes(32), 0, bytes(8), 2**32),
        ResponsePayload(bytes(7), 0),
        ResponsePayload(bytes(8), -1),
    ],
)
def test_what_a_payload_cannot_hold(payload: InitiationPayload | ResponsePayload):
    with pytest.raises(ValueError, match="bits"):
        payload.encode()


@pytest.mark.parametrize("index", [0, -1, 2**32])
def test_indexes(index: int):
    with pytest.raises(ValueError, match="index"):
        Initiator.begin(ALICE.static, BOB.static.public, NO_PSK, Suite.AES, index, GOOD)
    responder = BOB.opens(ALICE.begin(BOB)[1])
    with pytest.raises(ValueError, match="index"):
        responder.answer(NO_PSK, index, ResponsePayload(bytes(8), 0))


def test_keys_are_erased_and_never_shown():
    keys = Keys(b"s" * 32, b"r" * 32)
    held = keys.send, keys.receive
    assert "s" * 32 not in repr(keys)
    keys.erase()
    assert held == (bytes(32), bytes(32))


def test_a_handshake_in_flight_is_small():
    initiator, _ = ALICE.begin(BOB)
    noise = initiator._noise
    parts = [initiator, initiator.message, noise, noise._symmetric]
    parts += [noise._symmetric.chain, noise._symmetric.transcript]
    assert sum(map(sys.getsizeof, parts)) < 700
    for part in (initiator, noise, noise._symmetric):
        assert not hasattr(part, "__dict__")
