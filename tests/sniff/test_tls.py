import ssl
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniff import Found, Outcome
from tests.sniff.hellos import (
    ECH,
    GREASE,
    SERVER_NAME,
    hello,
    hellos,
    names,
    record,
    records,
    server_name,
    vector,
)
from tests.sniff.vectors import feed_all, load, sniff

VECTORS = load("clienthello")
NAME = (SERVER_NAME, server_name(b"www.video.example"))
FOUND = Found("tls", "www.video.example")
NO_NAME = Found("tls", "")


def test_there_are_vectors():
    assert len(VECTORS) >= 9
    assert any(vector.found.ech for vector in VECTORS)
    assert any(not vector.found.name for vector in VECTORS)


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_real_clients(vector):
    assert sniff(vector.data) == vector.found


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_cut_at_every_byte_into_two_segments(vector):
    data = vector.data
    for cut in range(1, len(data)):
        head, tail = data[:cut], data[cut:]
        assert feed_all([head]) is Outcome.NEED_MORE
        assert feed_all([head, tail]) == vector.found


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_cut_at_every_byte_into_two_records(vector):
    message = vector.data[5:]
    for cut in range(1, len(message)):
        assert feed_all([records(message, [cut])]) == vector.found


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_a_record_for_every_byte(vector):
    assert sniff(records(vector.data[5:], range(len(vector.data)))) == vector.found


@given(hellos(), st.lists(st.integers(1, 700), max_size=8), st.lists(st.integers(1, 900), max_size=8))
def test_whatever_is_written_is_read(written, record_cuts, segment_cuts):
    message, name, ech = written
    data = records(message, record_cuts)
    edges = [0, *sorted({cut for cut in segment_cuts if cut < len(data)}), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    assert feed_all(pieces) == Found("tls", name, ech)


@settings(max_examples=40)
@given(names.filter(lambda name: len(name) < 200), st.booleans(), st.booleans())
def test_what_openssl_writes_is_read(name, old, alpn):
    context = ssl.create_default_context()
    if old:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if alpn:
        context.set_alpn_protocols(["h2", "http/1.1"])
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    assert feed_all([out.read()]) == Found("tls", name)


@pytest.mark.parametrize(
    ("extensions", "found"),
    [
        (None, NO_NAME),
        ([], NO_NAME),
        ([(GREASE[3], b""), NAME, (GREASE[5], b"\0")], FOUND),
        ([(ECH, b"\0" * 40), NAME], Found("tls", "www.video.example", ech=True)),
        ([(ECH, b"")], Found("tls", "", ech=True)),
        ([(SERVER_NAME, server_name(b"WWW.Video.Example."))], FOUND),
        ([(SERVER_NAME, server_name(b"192.0.2.1"))], NO_NAME),
        ([(SERVER_NAME, server_name(b"2001:db8::1"))], NO_NAME),
        ([(SERVER_NAME, server_name(b"www.video.example\0.evil.example"))], NO_NAME),
        ([(SERVER_NAME, server_name("bücher.example".encode()))], NO_NAME),
        ([(SERVER_NAME, server_name(b"a" * 300))], NO_NAME),
        ([(SERVER_NAME, server_name(b"other", kind=7))], NO_NAME),
        # an unknown kind of name before ours, and a second host name behind it
        ([(SERVER_NAME, vector(b"\x07\0\1x" + b"\0\0\x01a" + b"\0\0\x01b", 2))], Found("tls", "a")),
    ],
)
def test_extensions(extensions, found):
    assert sniff(record(hello(extensions))) == found


@pytest.mark.parametrize("version", [b"\x03\x00", b"\x03\x01", b"\x03\x02", b"\x03\x03", b"\x03\x04"])
def test_record_versions(version):
    assert sniff(record(hello([NAME]), version)) == FOUND


@pytest.mark.parametrize("cuts", [[], [1], [2, 7], [41]])
def test_the_shortest_hello(cuts):
    assert sniff(records(hello(None), cuts)) == NO_NAME
    assert sniff(records(b"\x01\0\0\x28" + hello(None)[4:-1], cuts)) is Outcome.NOT_THIS


def test_more_in_the_record_and_behind_it():
    assert sniff(record(hello([NAME]) + b"\x02\0\0\0")) == FOUND
    assert sniff(record(hello([NAME])) + record(b"\x01", kind=20) + b"\x17\x03\x03\0\x10") == FOUND


MALFORMED = {
    "record of length 0": b"\x16\x03\x01\0\0" + record(hello([NAME])),
    "record too long": b"\x16\x03\x01\x40\x01" + hello([NAME]),
    "record version 2": record(hello([NAME]), b"\x02\x00"),
    "record version 3.5": record(hello([NAME]), b"\x03\x05"),
    "a ServerHello": record(b"\x02" + hello([NAME])[1:]),
    "a HelloRequest": record(b"\0\0\0\0"),
    "hello version 2": record(hello([NAME], version=b"\x02\x00")),
    "hello too short": record(b"\x01\0\0\x25" + bytes(37)),
    "session ID too long": record(hello([NAME], session=bytes(33))),
    "odd cipher suites": record(hello([NAME], suites=b"\x13\x01\x13")),
    "no cipher suites": record(hello([NAME], suites=b"") + b"\0" * 8),
    "no compression": record(hello([NAME], compression=b"")),
    "extension beyond the end": record(b"\x01" + vector(hello([])[4:-2] + vector(b"\0\0\0\x30abc", 2), 3)),
    "name twice": record(hello([NAME, NAME])),
    "empty name extension": record(hello([(SERVER_NAME, b"")])),
    "empty list of names": record(hello([(SERVER_NAME, b"\0\0")])),
    "empty name": record(hello([(SERVER_NAME, server_name(b""))])),
    "list longer than the extension": record(hello([(SERVER_NAME, b"\0\x09\0\0\x03abc")])),
    "list shorter than the extension": record(hello([(SERVER_NAME, b"\0\x05\0\0\x03abc")])),
    "name longer than the list": record(hello([(SERVER_NAME, b"\0\x06\0\0\x04abc")])),
    "name header cut off": record(hello([(SERVER_NAME, b"\0\x02\0\0")])),
    "alert between fragments": record(hello([NAME])[:50])
    + record(b"\x01\0", kind=21)
    + record(hello([NAME])[50:]),
    "half a header of an extension": record(b"\x01" + vector(hello([])[4:-2] + b"\0\x03\0\x0a\0", 3)),
    "extensions shorter than the hello": record(b"\x01" + vector(hello([NAME])[4:] + b"\0", 3)),
    "one byte of extensions' length": record(b"\x01" + vector(hello(None)[4:] + b"\0", 3)),
    "SSLv2 hello": bytes.fromhex("802e0103010015000000100100800700c003008006004002008000000401") + bytes(20),
    "hello of 16 MiB": record(b"\x01\xff\xff\xff" + bytes(200)),
    "hello larger than the limit": record(b"\x01\0\x40\0" + bytes(200)),
    "the same over records": record(b"\x01\0") + record(b"\x40\0" + bytes(200)),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_malformed(data):
    assert sniff(data) is Outcome.NOT_THIS


@pytest.mark.parametrize("size", range(64))
def test_a_hello_that_claims_less_than_it_has(size):
    """Cut inside its fixed part, a message with a consistent length is refused, never read beyond its end."""
    message = hello([NAME])
    cut = b"\x01" + vector(message[4 : 4 + size], 3)
    answer = feed_all([record(cut + message[4 + size :])])
    assert answer in (Outcome.NOT_THIS, NO_NAME)
    assert answer is Outcome.NOT_THIS or size == len(hello(None)) - 4


@pytest.mark.parametrize(
    ("data", "at"),
    [(b"\x16\x02", 2), (b"\x16\xfe\xff", 2), (b"\x16\x03\x09", 5), (b"\x16\x03\x01\0\x20\x02", 6)],
)
def test_let_go_early(data, at):
    """DTLS, a ServerHello and other near misses are known within a few bytes."""
    data = data.ljust(at, b"\0")
    assert feed_all([data[: at - 1]]) is Outcome.NEED_MORE
    assert feed_all([data[:at]]) is Outcome.NOT_THIS


def test_the_largest_hello_that_fits():
    padding = 16384 - 5 - len(hello([NAME, (21, b"")]))
    assert sniff(record(hello([NAME, (21, bytes(padding))]))) == FOUND
    assert sniff(record(hello([NAME, (21, bytes(padding + 1))]))) is Outcome.NOT_THIS


@given(st.sampled_from(VECTORS), st.data())
def test_bit_flips_and_truncation(vector, data):
    """A damaged hello gives an answer of the allowed kinds, and the same one however it is cut."""
    damaged = bytearray(vector.data[: data.draw(st.integers(1, len(vector.data)))])
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    whole = feed_all([bytes(damaged)])
    cut = data.draw(st.integers(0, len(damaged)))
    assert feed_all([bytes(damaged[:cut]), bytes(damaged[cut:])]) == whole
