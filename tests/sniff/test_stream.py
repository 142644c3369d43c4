import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sniff import Found, Outcome, StreamSniffer
from tests.sniff.hellos import SERVER_NAME, hello, record, server_name
from tests.sniff.vectors import byte_by_byte, feed_all, load, sniff

VECTORS = load("clienthello") + load("http1") + load("http2")
HELLO = record(hello([(SERVER_NAME, server_name(b"www.video.example"))]))


@pytest.mark.parametrize("vector", VECTORS, ids=str)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_all_kinds_of_buffers(vector, kind):
    data = vector.data
    sniffer = StreamSniffer()
    assert sniffer.feed(kind(data[:3])) is Outcome.NEED_MORE
    assert sniffer.feed(kind(data[3:])) == vector.found
    assert sniffer.data == data
    assert StreamSniffer().feed(kind(data)) == vector.found


def test_a_buffer_may_be_used_again():
    buffer = bytearray(HELLO)
    sniffer = StreamSniffer()
    sniffer.feed(memoryview(buffer)[:20])
    buffer[:] = bytes(len(buffer))
    assert sniffer.data == HELLO[:20]
    assert sniffer.feed(HELLO[20:]) == Found("tls", "www.video.example")


def test_a_single_segment_is_kept_without_a_copy():
    sniffer = StreamSniffer()
    sniffer.feed(HELLO)
    assert sniffer.data is HELLO


def test_nothing_yet():
    sniffer = StreamSniffer()
    assert sniffer.data == b""
    assert sniffer.feed(b"") is Outcome.NEED_MORE
    assert sniffer.feed(b"") is Outcome.NEED_MORE
    assert sniffer.feed(HELLO) == Found("tls", "www.video.example")


def test_final_answers_stay_and_bytes_are_still_kept():
    sniffer = StreamSniffer()
    assert sniffer.feed(b"SSH-2.0-x\r\n") is Outcome.NOT_THIS
    assert sniffer.feed(HELLO) is Outcome.NOT_THIS
    assert sniffer.data == b"SSH-2.0-x\r\n" + HELLO
    sniffer = StreamSniffer()
    found = sniffer.feed(HELLO)
    assert sniffer.feed(b"GET / HTTP/1.1\r\n\r\n") is found


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"\x13BitTorrent protocol" + bytes(48),
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",  # PostgreSQL's SSLRequest
        b"\x03\x00\x00\x13\x0e\xe0\0\0\0\0\0\1\0\x08\0\3\0\0\0",  # RDP
        b"*1\r\n$4\r\nPING\r\n",  # Redis
        b"\x10\x0e\x00\x04MQTT\x04\x02\0\x3c\0\0",
        b"\x05\x01\x00",  # SOCKS5
        b"\x04\x01\0\x50\xc0\0\2\1\0",  # SOCKS4
        b"\x15\x03\x01\x00\x02\x02\x28",  # a TLS alert
        b"\x80\x2e\x01\x03\x01",  # SSLv2
        b"@RSYNCD: 31.0\n",
        b"<stream:stream to='x'>",
        b"\0",
        b"\xff" * 16,
        b"EHLO x\r\n",
        b"USER x\r\n",
    ],
)
def test_other_protocols_are_let_go_at_once(data):
    """By the third byte at the latest."""
    assert feed_all([data[:3]]) is Outcome.NOT_THIS
    assert sniff(data) is Outcome.NOT_THIS


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_every_prefix_needs_more(vector):
    """No prefix of a real first flight is refused or misread."""
    for piece in range(len(vector.data)):
        answer = feed_all([vector.data[:piece]])
        assert answer is Outcome.NEED_MORE or answer == vector.found


@pytest.mark.parametrize("limit", [1, 2, 5, 9, 40, len(HELLO) - 1])
def test_limits(limit):
    assert sniff(HELLO, limit) is Outcome.NOT_THIS
    assert feed_all(byte_by_byte(HELLO), limit) is Outcome.NOT_THIS


def test_a_hello_as_long_as_the_limit():
    assert sniff(HELLO, len(HELLO)) == Found("tls", "www.video.example")


starts = st.sampled_from(
    [
        b"",
        b"\x16\x03\x01",
        b"GET / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
        b"\r\n",
        b"P",
    ]
)
pieces = st.lists(
    st.binary(max_size=30)
    | st.sampled_from(
        [b"\r\n", b"\n", b"\r\n\r\n", b"Host:", b" www.video.example", b" HTTP/1.1", b"\x16\3\1\0\1\1"]
    ),
    max_size=20,
)


@given(starts, pieces, st.integers(1, 200) | st.just(16384))
def test_anything_however_cut(start, pieces, limit):
    """Never raises; whole, in these pieces and byte by byte the answer is the same."""
    data = start + b"".join(pieces)
    whole = feed_all([data], limit)
    assert feed_all([start, *pieces], limit) == whole
    assert feed_all(byte_by_byte(data), limit) == whole


@given(st.sampled_from(VECTORS), st.data())
def test_truncation_and_bit_flips(vector, data):
    damaged = bytearray(vector.data[: data.draw(st.integers(1, len(vector.data)))])
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    whole = feed_all([bytes(damaged)])
    assert feed_all(byte_by_byte(bytes(damaged))) == whole


def test_small():
    """One exists for every undecided flow."""
    sniffer = StreamSniffer()
    assert not hasattr(sniffer, "__dict__")
    assert sys.getsizeof(sniffer) <= 128
