"""Data messages and the shapes of the others."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from zignet.noise import MessageType, Suite
from zignet.wire import COUNTER_END, BadDatagram, kind_of, parse_data, seal, unseal

KEY = bytes(range(32))
suites = st.sampled_from(list(Suite))
indices = st.integers(1, 0xFFFFFFFF)
counters = st.integers(0, COUNTER_END - 1)
frames = st.binary(min_size=4, max_size=200)


@given(suites, indices, counters, frames)
def test_by_the_offsets_of_the_protocol(suite, index, counter, frame):
    datagram = seal(suite, KEY, index, counter, frame)
    assert datagram[:4] == b"\4\0\0\0"
    assert int.from_bytes(datagram[4:8], "little") == index
    assert int.from_bytes(datagram[8:16], "little") == counter
    if suite == Suite.CHACHA:
        opened = ChaCha20Poly1305(KEY).decrypt(bytes(4) + counter.to_bytes(8, "little"), datagram[16:], b"")
    else:
        opened = AESGCM(KEY).decrypt(bytes(4) + counter.to_bytes(8, "big"), datagram[16:], b"")
    assert opened == frame
    assert len(datagram) == 32 + len(frame)
    assert parse_data(datagram) == (index, counter)
    assert unseal(suite, KEY, memoryview(datagram)) == frame


@pytest.mark.parametrize("suite", Suite)
def test_every_damage_is_found(suite):
    datagram = seal(suite, KEY, 7, 1 << 33, b"\6\0\0\x40" + bytes(20))
    for bit in range(len(datagram) * 8):
        damaged = bytearray(datagram)
        damaged[bit // 8] ^= 1 << bit % 8
        if 32 <= bit < 64:
            assert parse_data(damaged)[0] != 7  # the index finds another session, or none
            continue
        with pytest.raises(BadDatagram):
            unseal(suite, KEY, damaged)
    for end in range(len(datagram)):
        with pytest.raises(BadDatagram):
            unseal(suite, KEY, datagram[:end])
    with pytest.raises(BadDatagram):
        unseal(suite, KEY, datagram + b"\0")
    with pytest.raises(BadDatagram):
        unseal(suite, bytes(32), datagram)
    with pytest.raises(BadDatagram):
        unseal(Suite(3 - suite), KEY, datagram)


def test_limits():
    for index, counter in ((0, 0), (1 << 32, 0), (1, -1), (1, COUNTER_END)):
        with pytest.raises(ValueError, match="range"):
            seal(Suite.AES, KEY, index, counter, bytes(4))
    beyond = bytearray(seal(Suite.AES, KEY, 1, COUNTER_END - 1, bytes(4)))
    parse_data(beyond)
    beyond[8:16] = COUNTER_END.to_bytes(8, "little")
    with pytest.raises(BadDatagram, match="beyond"):
        parse_data(beyond)


SHAPES = {
    MessageType.INITIATION: b"\1\1\0\0\1\0\0\0".ljust(220, b"x"),
    MessageType.RESPONSE: b"\2\2\0\0\1\0\0\0".ljust(104, b"x"),
    MessageType.COOKIE: b"\3\0\0\0\1\0\0\0".ljust(64, b"x"),
    MessageType.DATA: b"\4\0\0\0\1\0\0\0".ljust(36, b"x"),
}


@pytest.mark.parametrize("kind", SHAPES, ids=lambda kind: kind.name)
def test_shapes(kind):
    message = SHAPES[kind]
    assert kind_of(message) is kind
    assert kind_of(bytearray(message)) is kind
    for end in range(len(message)):
        assert kind_of(message[:end]) is None
    assert kind_of(message + b"x") is (kind if kind is MessageType.DATA else None)
    for at, value in ((0, 0), (0, 5), (0, 255), (1, 3), (1, 255), (2, 1), (3, 1), (4, 0)):
        damaged = bytearray(message)
        damaged[at] = value
        assert kind_of(damaged) is None, (at, value)
    suited = bytearray(message)
    suited[1] = 0 if message[1] else 1
    assert kind_of(suited) is None
