from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sniff import Found, Outcome
from tests.sniff.hellos import names
from tests.sniff.vectors import feed_all, load, sniff

VECTORS = load("http1")
FOUND = Found("http", "www.video.example")
NO_NAME = Found("http", "")


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_real_clients(vector):
    assert sniff(vector.data) == vector.found


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_cut_at_every_byte_into_two_segments(vector):
    for cut in range(1, len(vector.data)):
        assert feed_all([vector.data[:cut], vector.data[cut:]]) == vector.found


def request(fields, line="GET /a?b=http://c HTTP/1.1"):
    return (line + "\r\n" + "".join(field + "\r\n" for field in fields) + "\r\n").encode("latin-1")


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        (["Host: www.video.example"], FOUND),
        (["host:www.video.example"], FOUND),
        (["HOST: \t WWW.Video.Example \t"], FOUND),
        (["Accept: */*", "hOsT: www.video.example:8080", "X: y"], FOUND),
        (["Host: www.video.example."], FOUND),
        (["Host: www.video.example:"], FOUND),
        ([], NO_NAME),
        (["Accept: */*"], NO_NAME),
        (["Host:"], NO_NAME),
        (["Host: "], NO_NAME),
        (["Host: 192.0.2.1"], NO_NAME),
        (["Host: 192.0.2.1:8080"], NO_NAME),
        (["Host: [2001:db8::1]:8080"], NO_NAME),
        (["Host: 2001:db8::1"], NO_NAME),
        (["Host: me@www.video.example"], NO_NAME),
        (["Host: www.video.example/"], NO_NAME),
        (["Host: www.video.example, b.example"], NO_NAME),
        (["Host: www.video\0.example"], NO_NAME),
        (["Host: b\xfccher.example"], NO_NAME),
        (["Hostname: www.video.example", "X-Host: www.video.example"], NO_NAME),
        (["Referer: http://x/\nHost: www.video.example"], FOUND),  # a bare LF ends a line too
        (["Host: www.video.example", "Host: www.video.example"], FOUND),
        (["Host: www.video.example", "HOST:  WWW.video.example"], FOUND),
        (["Host: www.video.example", "Host: b.example"], NO_NAME),
        (["Host: www.video.example", "Host:"], NO_NAME),
        (["Host: a.example", "X: y", "host: a.example", "hOST: b.example"], NO_NAME),
        (["Host : www.video.example"], NO_NAME),
        (["Host: www.video.example", "Host\t: b.example"], NO_NAME),
        ([" Host: www.video.example"], NO_NAME),
        (["X: y", " Host: www.video.example"], NO_NAME),  # folded: part of X
        (["Host:", " www.video.example"], FOUND),
        (["Host:", "\twww.video.example", " ", "X: y"], FOUND),
        (["Host: www.video", " .example"], NO_NAME),
    ],
)
def test_fields(fields, found):
    assert sniff(request(fields)) == found
    if not any("\n" in field for field in fields):
        assert sniff(request(fields).replace(b"\r\n", b"\n")) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("GET http://www.video.example/ HTTP/1.1", FOUND),
        ("GET http://www.video.example HTTP/1.0", FOUND),
        ("GET HTTP://WWW.VIDEO.EXAMPLE:8080/x HTTP/1.1", FOUND),
        ("POST http://me:secret@www.video.example:80/x@y HTTP/1.1", FOUND),
        ("GET http://www.video.example?q=http://b.example/ HTTP/1.1", FOUND),
        ("GET http://www.video.example#x HTTP/1.1", FOUND),
        ("GET ws://www.video.example/chat HTTP/1.1", FOUND),
        ("GET http://192.0.2.1/ HTTP/1.1", NO_NAME),
        ("GET http://[2001:db8::1]:80/ HTTP/1.1", NO_NAME),
        ("GET http:/// HTTP/1.1", NO_NAME),
        ("CONNECT www.video.example:443 HTTP/1.1", FOUND),
        ("CONNECT WWW.video.example.:443 HTTP/1.0", FOUND),
        ("CONNECT [2001:db8::1]:443 HTTP/1.1", NO_NAME),
        ("CONNECT 192.0.2.1:443 HTTP/1.1", NO_NAME),
    ],
)
def test_an_authority_in_the_request_line_wins(line, found):
    """And nothing behind the request line is waited for."""
    assert sniff(request(["Host: other.example"], line)) == found
    assert sniff(line.encode() + b"\r\n") == found
    assert sniff(line.encode() + b"\n") == found


@pytest.mark.parametrize(
    "line",
    [
        "OPTIONS * HTTP/1.1",
        "GET / HTTP/1.0",
        "PROPFIND /dav HTTP/1.1",
        "M-SEARCH * HTTP/1.1",
        "VERSION-CONTROL /x HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET odd HTTP/1.1",
        "PROPPATCH / HTTP/1.1",
        "GET / HTTP/1.9",
    ],
)
def test_request_lines_with_the_name_in_host(line):
    assert sniff(request(["Host: www.video.example"], line)) == FOUND


@pytest.mark.parametrize(
    "line",
    [
        "GET /",
        "GET / HTTP/2.0",
        "GET / HTTP/1.x",
        "GET / HTTP/1.",
        "GET / http/1.1",
        "GET / HTTP/1.1 ",
        "GET HTTP/1.1",
        "GET  HTTP/1.1",
        "OPTIONS rtsp://www.video.example/ RTSP/1.0",
        "get / HTTP/1.1",
        "NICK somebody",
        "EHLO mail.example",
        "HTTP/1.1 200 OK",
    ],
)
def test_what_only_looks_like_a_request(line):
    assert sniff(request(["Host: www.video.example"], line)) is Outcome.NOT_THIS


@pytest.mark.parametrize(
    ("data", "at"),
    [
        (b"SSH-2.0-OpenSSH", 3),
        (b"QUIT\r\n", 3),
        (b"GETX", 4),
        (b"get /", 1),
        (b"PROXY TCP4", 4),
        (b"\r\n\r\n\0\r\nQUIT\n", 5),
    ],
)
def test_let_go_early(data, at):
    assert feed_all([data[: at - 1]]) is Outcome.NEED_MORE
    assert feed_all([data[:at]]) is Outcome.NOT_THIS
    assert sniff(data) is Outcome.NOT_THIS


def test_empty_lines_before_the_request():
    assert sniff(b"\r\n\n\r\n" + request(["Host: www.video.example"])) == FOUND


def test_the_body_is_not_read():
    assert sniff(request(["A: b"]) + b"\nHost: www.video.example\r\n\r\n") == NO_NAME
    assert sniff(b"POST / HTTP/1.1\nA: b\n\nHost: www.video.example\r\n\r\n") == NO_NAME
    assert sniff(b"POST / HTTP/1.1\r\n\r\nHost: www.video.example\r\n\r\n") == NO_NAME


def test_the_end_of_the_header_section_is_awaited():
    data = request(["Host: www.video.example"])
    for cut in range(1, 3):
        assert sniff(data[:-cut]) is Outcome.NEED_MORE


def test_a_header_section_beyond_the_limit_is_judged_by_what_was_seen():
    cookie = "Cookie: " + "x" * 20000
    assert sniff(request(["Host: www.video.example", cookie])) == FOUND
    assert sniff(request([cookie, "Host: www.video.example"])) == NO_NAME
    # a Host line that the limit cuts in two says nothing
    data = request(["A: " + "a" * 40, "Host: www.video.example"])
    cut = data.index(b"example")
    assert sniff(data, limit=cut) == NO_NAME
    assert sniff(request([], "GET /" + "x" * 20000 + " HTTP/1.1")) is Outcome.NOT_THIS


token = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,15}", fullmatch=True).filter(lambda t: t.lower() != "host")
value = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=40)


@given(names, st.integers(0, 65535), st.lists(st.tuples(token, value), max_size=10), st.data())
def test_host_among_any_fields(name, port, others, data):
    fields = [f"{key}: {text}" for key, text in others]
    fields.insert(data.draw(st.integers(0, len(fields))), f"Host: {name.title()}:{port}")
    message = request(fields, "POST /x HTTP/1.1")
    edges = sorted({0, len(message), *data.draw(st.lists(st.integers(0, len(message)), max_size=6))})
    pieces = [message[a:b] for a, b in pairwise(edges)]
    assert feed_all(pieces) == Found("http", name)
