"""The HTTP CONNECT client: answers cut anywhere, statuses as reasons, bounds."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat.exit import Dial, ExitFailure, Reason, Refusal, Target
from zignet.exits.http import HEAD_LIMIT, Http, HttpConnect

PROXY = bytes((192, 0, 2, 11))
V4 = Target(bytes((203, 0, 113, 5)), 443)
V6 = Target(ip_address("2001:db8::5").packed, 443)
NAMED = Target(V4.address, 8443, "www.video.example")
OPEN = Http("office", PROXY, 3128)
LOCKED = Http("office", PROXY, 3128, "Aladdin", "open sesame")

ANSWERS = {
    "plain": b"HTTP/1.1 200 Connection established\r\n\r\n",
    "headers": b"HTTP/1.0 200 OK\r\nVia: 1.1 proxy\r\nX-A: b\r\n\r\n",
    "length to be ignored": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "no phrase": b"HTTP/1.1 204 \r\n\r\n",
    "nothing after the status": b"HTTP/1.1 299\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\nVia: x\n\n",
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nA: b\r\n\r\nHTTP/1.1 200 OK\n\n",
}


def connect(exit_: Http = OPEN, target: Target = V4) -> HttpConnect:
    dial = exit_.tcp(target)
    assert isinstance(dial, Dial)
    assert isinstance(dial.handshake, HttpConnect)
    return dial.handshake


def run(pieces: list[bytes], handshake: HttpConnect | None = None) -> tuple[bytes, bool]:
    handshake = handshake or connect()
    rest, done = b"", False
    for piece in pieces:
        step = handshake.feed(piece)
        assert step.send == b""
        rest, done = rest + step.rest, step.done
    return rest, done


@pytest.mark.parametrize(
    ("target", "far_end"),
    [(V4, "203.0.113.5:443"), (V6, "[2001:db8::5]:443"), (NAMED, "www.video.example:8443")],
)
def test_request(target: Target, far_end: str) -> None:
    expected = f"CONNECT {far_end} HTTP/1.1\r\nHost: {far_end}\r\n\r\n"
    assert connect(OPEN, target).start() == expected.encode()


def test_credentials() -> None:
    """The example of RFC 7617 §2."""
    assert b"\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n" in connect(LOCKED).start()


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("after", [b"", b"hello", b"\r\n\r\nHTTP/1.1 500 not for us\r\n\r\n", b"x" * 20_000])
def test_three_ways(answer: bytes, after: bytes) -> None:
    assert run([answer, after]) == (after, True)
    assert run([bytes((byte,)) for byte in answer + after]) == (after, True)
    assert run([answer + after]) == (after, True)


# Invariant: where the bytes are cut changes nothing.
@given(st.sampled_from(sorted(ANSWERS)), st.binary(max_size=40), st.lists(st.integers(0, 150), max_size=12))
def test_cuts_change_nothing(answer: str, after: bytes, cuts: list[int]) -> None:
    script = ANSWERS[answer] + after
    edges = [0, *sorted(min(cut, len(script)) for cut in cuts), len(script)]
    assert run([script[start:end] for start, end in pairwise(edges)]) == (after, True)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (101, Reason.FAILED),
        (302, Reason.FAILED),
        (400, Reason.FAILED),
        (403, Reason.PROHIBITED),
        (404, Reason.HOST_UNREACHABLE),
        (405, Reason.PROHIBITED),
        (407, Reason.FAILED),
        (500, Reason.FAILED),
        (502, Reason.HOST_UNREACHABLE),
        (503, Reason.REFUSED),
        (504, Reason.TIMED_OUT),
    ],
)
def test_statuses(status: int, reason: Reason) -> None:
    with pytest.raises(ExitFailure) as caught:
        run([b"HTTP/1.1 %d Some phrase\r\nContent-Length: 0\r\n\r\n" % status])
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("Proxy-Status: edge.example; error=connection_refused", Reason.REFUSED),
        ('proxy-status: edge;error=destination_ip_unroutable; details="x"', Reason.NET_UNREACHABLE),
        ("Proxy-Status: edge; error=dns_error", Reason.HOST_UNREACHABLE),
        ("Proxy-Status: edge; error=http_request_denied", Reason.PROHIBITED),
        ("X-Squid-Error: ERR_CONNECT_FAIL 111", Reason.REFUSED),
        ("X-Squid-Error: ERR_CONNECT_FAIL 113", Reason.HOST_UNREACHABLE),
        ("X-Squid-Error: ERR_DNS_FAIL 0", Reason.HOST_UNREACHABLE),
        ("Proxy-Status: edge; error=something_new", Reason.FAILED),
    ],
)
def test_the_proxy_gives_the_cause(header: str, reason: Reason) -> None:
    with pytest.raises(ExitFailure) as caught:
        run([f"HTTP/1.1 500 Oops\r\nVia: x\r\n{header}\r\n\r\n".encode()])
    assert caught.value.reason == reason


def test_407_names_what_is_missing() -> None:
    answer = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    with pytest.raises(ExitFailure, match="wants a user and a password"):
        run([answer])
    with pytest.raises(ExitFailure, match="wrong user or password"):
        run([answer], connect(LOCKED))


@pytest.mark.parametrize(
    "script",
    [
        b"\x05\x00",
        b"SSH-2.0",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTX",
    ],
)
def test_nonsense(script: bytes) -> None:
    for pieces in ([script], [bytes((byte,)) for byte in script]):
        with pytest.raises(ExitFailure) as caught:
            run(pieces)
        assert caught.value.reason == Reason.FAILED


def test_the_head_is_bounded() -> None:
    def head(size: int) -> bytes:
        start, end = b"HTTP/1.1 200 OK\r\nX: ", b"\r\n\r\n"
        return start + b"x" * (size - len(start) - len(end)) + end

    assert run([head(HEAD_LIMIT) + b"rest"]) == (b"rest", True)
    assert run([head(HEAD_LIMIT)[:-1], b"\n"]) == (b"", True)
    for pieces in ([head(HEAD_LIMIT + 1)], [b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 2000]):
        with pytest.raises(ExitFailure, match="longer than"):
            run(pieces)


def test_a_phrase_cannot_reach_the_terminal_raw() -> None:
    with pytest.raises(ExitFailure) as caught:
        run([b"HTTP/1.1 500 \x1b[2J\xff evil" + b"x" * 1000 + b"\r\n\r\n"])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 150


# Invariant: whatever a proxy sends, cut however, a handshake ends, waits, or raises ExitFailure; what it
# keeps is bounded.
@given(
    st.sampled_from(
        [b"", b"HTTP/1.1 ", b"HTTP/1.1 200 ", b"HTTP/1.1 100 \r\n", b"HTTP/1.1 500 X\r\nProxy-Status: "]
    ),
    st.lists(st.one_of(st.binary(max_size=3000), st.sampled_from([b"\r\n", b"\n", b"HTTP/1.1 200 \r\n"]))),
)
def test_garbage(beginning: bytes, pieces: list[bytes]) -> None:
    handshake = connect()
    try:
        for piece in [beginning, *pieces]:
            handshake.feed(piece)
            assert len(handshake._held) <= HEAD_LIMIT
    except ExitFailure:
        pass


class TestExit:
    def test_a_value(self) -> None:
        assert Http("office", PROXY, 3128) == OPEN
        assert OPEN != LOCKED
        assert (OPEN.kind, OPEN.where) == ("http", "192.0.2.11:3128")
        assert "sesame" not in repr(LOCKED)

    def test_no_udp(self) -> None:
        plan = OPEN.udp()
        assert isinstance(plan, Refusal)
        assert (plan.reason, plan.message) == (Reason.PROHIBITED, "HTTP proxies carry no UDP")

    @pytest.mark.parametrize("name", ["", "a" * 256, "a b", "a\r\nX-Evil: 1", "é"])
    def test_unsendable_names(self, name: str) -> None:
        assert isinstance(OPEN.tcp(Target(V4.address, 443, name)), Refusal)

    @pytest.mark.parametrize(("user", "password"), [("a:b", "x"), ("a", "x\r\ny"), ("a\0", "x")])
    def test_credentials_that_do_not_fit(self, user: str, password: str) -> None:
        with pytest.raises(ValueError, match="no colon"):
            Http("office", PROXY, 3128, user, password)
