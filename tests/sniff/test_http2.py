from itertools import pairwise

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniff import Found, Outcome
from sniff.http2 import PREFACE
from tests.sniff.hellos import names
from tests.sniff.vectors import feed_all, load, sniff

VECTORS = load("http2")
FOUND = Found("h2", "www.video.example")
NO_NAME = Found("h2", "")
END_HEADERS, PADDED, PRIORITY = 4, 8, 32


def frame(kind, payload=b"", flags=0, stream=0):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


SETTINGS = frame(4, b"\0\3\0\0\0\x64")
START = PREFACE + SETTINGS
PSEUDO = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")]


def block(authority=b"www.video.example:8080", *more):
    named = [(b":authority", authority)] if authority is not None else []
    return hpack.Encoder().encode([*PSEUDO, *named, *more])


HEADERS = frame(1, block(), END_HEADERS, 1)


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_real_clients(vector):
    assert sniff(vector.data) == vector.found


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_cut_at_every_byte_into_two_segments(vector):
    for cut in range(1, len(vector.data)):
        assert feed_all([vector.data[:cut], vector.data[cut:]]) == vector.found


GREEN = {
    "plain": START + HEADERS,
    "no settings": PREFACE + frame(4) + HEADERS,
    "other frames first": START
    + frame(8, b"\0\x0f\0\1")
    + frame(2, b"\0\0\0\0\x10", stream=3)
    + frame(6, bytes(8))
    + frame(4, flags=1)
    + frame(0x10, b"\0\0\0\1u=1")
    + frame(0xEE, b"grease")
    + HEADERS,
    "padding": START + frame(1, b"\x05" + block() + bytes(5), END_HEADERS | PADDED, 1),
    "no padding, but the flag": START + frame(1, b"\x00" + block(), END_HEADERS | PADDED, 1),
    "priority": START + frame(1, b"\x80\0\0\0\x10" + block(), END_HEADERS | PRIORITY, 1),
    "both": START + frame(1, b"\x02\0\0\0\0\x10" + block() + b"\0\0", END_HEADERS | PADDED | PRIORITY | 1, 1),
    "a later stream": START + frame(1, block(), END_HEADERS, 15),
    "the reserved bit": START + frame(1, block(), END_HEADERS, 1 | 1 << 31),
    "continuation": START
    + frame(1, block()[:3], 0, 1)
    + frame(9, block()[3:7], 0, 1)
    + frame(9, block()[7:], 4, 1),
    "empty fragments": START + frame(1, b"", 0, 1) + frame(9, b"", 0, 1) + frame(9, block(), 4, 1),
    "padding and continuation": START
    + frame(1, b"\1" + block()[:3] + b"\0", PADDED, 1)
    + frame(9, block()[3:], 4, 1),
    "host only": START + frame(1, block(None, (b"host", b"WWW.video.example.")), END_HEADERS, 1),
    "authority wins": START + frame(1, block(b"www.video.example", (b"host", b"b.example")), END_HEADERS, 1),
    "never indexed": START + frame(1, b"\x11\x11www.video.example", END_HEADERS, 1),
    "a name in full": START + frame(1, b"\0\x0a:authority\x11www.video.example", END_HEADERS, 1),
}


@pytest.mark.parametrize("data", GREEN.values(), ids=GREEN)
def test_found(data):
    assert sniff(data) == FOUND


@pytest.mark.parametrize(
    "authority", [None, b"", b"192.0.2.1:80", b"[2001:db8::1]:80", b"a b", b"me@b.example"]
)
def test_no_name(authority):
    assert sniff(START + frame(1, block(authority, (b"x", b"y")), END_HEADERS, 1)) == NO_NAME


def test_the_dynamic_table_is_followed():
    key = b"\x40\x01k\x01v"  # becomes entry 62
    host = b"\x00\x04host\x11www.video.example"
    assert sniff(START + frame(1, key + b"\xbe" + b"\x7e\x01w" + host, END_HEADERS, 1)) == FOUND
    assert sniff(START + frame(1, key + b"\xbf" + host, END_HEADERS, 1)) is Outcome.NOT_THIS  # no entry 63


RED = {
    "no preface": b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + SETTINGS + HEADERS,
    "PRI with HTTP/1.1": b"PRI / HTTP/1.1\r\nHost: www.video.example\r\n\r\n",
    "no settings frame": PREFACE + HEADERS,
    "settings of a wrong size": PREFACE + frame(4, b"12345") + HEADERS,
    "settings of a stream": PREFACE + frame(4, stream=1) + HEADERS,
    "settings as an acknowledgement": PREFACE + frame(4, flags=1) + HEADERS,
    "frame too long": START + b"\0\x40\1\x01\4\0\0\0\1" + block(),
    "stream 0": START + frame(1, block(), END_HEADERS, 0),
    "a server's stream": START + frame(1, block(), END_HEADERS, 2),
    "data before headers": START + frame(0, b"x", stream=1),
    "push promise": START + frame(5, b"x", stream=1),
    "continuation first": START + frame(9, block(), END_HEADERS, 1),
    "headers twice": START + frame(1, block()[:3], 0, 1) + HEADERS,
    "another frame between": START
    + frame(1, block()[:3], 0, 1)
    + frame(6, bytes(8))
    + frame(9, block()[3:], 4, 1),
    "continuation of another stream": START + frame(1, block()[:3], 0, 1) + frame(9, block()[3:], 4, 3),
    "continuation of a far stream": START
    + frame(1, block()[:3], 0, 1)
    + frame(9, block()[3:], 4, 1 | 1 << 24),
    "padding longer than the frame": START + frame(1, b"\xff" + block(), END_HEADERS | PADDED, 1),
    "padding without its length": START + frame(1, b"", END_HEADERS | PADDED, 1),
    "priority cut off": START + frame(1, b"\0\0", END_HEADERS | PRIORITY, 1),
    "broken HPACK": START + frame(1, b"\xff\xff\xff\xff\xff\xff", END_HEADERS, 1),
}


@pytest.mark.parametrize("data", RED.values(), ids=RED)
def test_not_this(data):
    assert sniff(data) is Outcome.NOT_THIS


def test_bounded():
    assert sniff(START + frame(1, bytes(60), 0, 1) + frame(9, bytes(100), 0, 1) * 200) is Outcome.NOT_THIS
    assert sniff(START + frame(6, bytes(8)) * 2000 + HEADERS) is Outcome.NOT_THIS


def test_other_words_with_pr():
    assert sniff(b"PR") is Outcome.NEED_MORE
    assert sniff(b"PRX") is Outcome.NOT_THIS
    assert sniff(b"PROPFIND / HTTP/1.1\r\nHost: www.video.example\r\n\r\n") == Found(
        "http", "www.video.example"
    )


@settings(max_examples=60)
@given(
    names, st.booleans(), st.lists(st.tuples(st.just(b"x"), st.binary(max_size=30)), max_size=5), st.data()
)
def test_whatever_is_written_is_read(name, huffman, others, data):
    fields = data.draw(st.permutations([*PSEUDO, (b":authority", name.title().encode() + b":443")])) + others
    coded = hpack.Encoder().encode(fields, huffman=huffman)
    edges = sorted({0, len(coded), *data.draw(st.lists(st.integers(0, len(coded)), max_size=4))})
    parts = [coded[a:b] for a, b in pairwise(edges)]
    frames = [
        frame(9 if i else 1, part, END_HEADERS * (i == len(parts) - 1), 1) for i, part in enumerate(parts)
    ]
    assert feed_all([START, *frames]) == Found("h2", name)
