"""The guard: what passes, what does not, and that nothing makes it fail otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from zignet.admin.guard import Arrival, Guard
from zignet.admin.refused import Refused

KEY = "rkeohxlubhyzl7ks3mwtzos5olfgocn7dwkbeg7toseadnapn5ogtfib.zignet"
TOKEN = "t" * 43
UNIX, V4, V6, ODD = (
    Arrival(),
    Arrival("100.64.0.1", 80),
    Arrival("fd5a:6967:6e65::1", 80),
    Arrival("127.0.0.1", 8080),
)


@pytest.fixture
def guard() -> Guard:
    guard = Guard(TOKEN)
    guard.also_called(KEY)
    return guard


def check(
    guard: Guard, arrival: Arrival, *lines: str, method: str = "GET", target: str = "/api/whoami"
) -> None:
    head = "\r\n".join([f"{method} {target} HTTP/1.1", *lines]).encode("utf-8", "surrogateescape")
    headers = CIMultiDict(
        [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    )
    headers_: Any = headers
    guard.check(method, head, headers_, arrival)


@pytest.mark.parametrize(
    ("arrival", "host"),
    [
        (V4, "admin.zignet"),
        (V4, "ADMIN.ZigNet"),
        (V4, "admin.zignet:80"),
        (V4, KEY),
        (V4, "100.64.0.1"),
        (V4, "100.64.0.1:80"),
        (V6, "admin.zignet"),
        (V6, "[fd5a:6967:6e65::1]"),
        (V6, "[fd5a:6967:6e65::1]:80"),
        (ODD, "127.0.0.1:8080"),
        (ODD, "admin.zignet:8080"),
        (UNIX, "localhost"),
        (UNIX, "admin.zignet"),
        (UNIX, KEY),
    ],
)
def test_our_own_names(guard: Guard, arrival: Arrival, host: str) -> None:
    check(guard, arrival, f"Host: {host}")


@pytest.mark.parametrize(
    ("arrival", "host"),
    [
        (V4, "evil.example"),
        (V4, "admin.zignet.evil.example"),
        (V4, "evil.example:80"),
        (V4, "admin.zignet:8080"),
        (V4, "admin.zignet@evil.example"),
        (V4, "localhost"),
        (V4, "127.0.0.1"),
        (V4, "100.64.0.2"),
        (V4, "[fd5a:6967:6e65::1]"),
        (V6, "fd5a:6967:6e65::1"),
        (V4, ""),
        (ODD, "127.0.0.1"),
        (ODD, "admin.zignet"),
        (UNIX, "evil.example"),
        (UNIX, "100.64.0.1"),
    ],
)
def test_names_of_others(guard: Guard, arrival: Arrival, host: str) -> None:
    with pytest.raises(Refused) as refused:
        check(guard, arrival, f"Host: {host}")
    assert refused.value.status == 421
    assert "admin.zignet" in refused.value.sentence


def test_no_host(guard: Guard) -> None:
    with pytest.raises(Refused) as refused:
        check(guard, V4, "Accept: */*")
    assert refused.value.status == 421


@pytest.mark.parametrize("name", ["Host", "Origin", "Authorization", "Content-Type"])
def test_a_header_that_is_there_twice(guard: Guard, name: str) -> None:
    value = "admin.zignet" if name == "Host" else "http://admin.zignet"
    more = [] if name == "Host" else ["Host: admin.zignet"]
    with pytest.raises(Refused) as refused:
        check(guard, V4, *more, f"{name}: {value}", f"{name}: {value}")
    assert refused.value.status == 400


def test_our_own_origin(guard: Guard) -> None:
    check(guard, V4, "Host: admin.zignet", "Origin: http://admin.zignet")
    check(guard, V4, "Host: 100.64.0.1", "Origin: http://100.64.0.1")
    check(guard, ODD, "Host: 127.0.0.1:8080", "Origin: http://127.0.0.1:8080")


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://admin.zignet",
        "http://evil.example",
        "http://admin.zignet:81",
        "http://admin.zignet.evil.example",
        f"http://{KEY}",  # ours, but not the one that was asked
    ],
)
@pytest.mark.parametrize("arrival", [V4, UNIX])
def test_other_origins(guard: Guard, arrival: Arrival, origin: str) -> None:
    with pytest.raises(Refused) as refused:
        check(guard, arrival, "Host: admin.zignet", f"Origin: {origin}")
    assert refused.value.status == 403


def test_changes_need_the_token(guard: Guard) -> None:
    change: dict[str, Any] = {"method": "POST", "target": "/api/reload"}
    check(guard, V4, "Host: admin.zignet", f"Authorization: Bearer {TOKEN}", **change)
    check(guard, V4, "Host: admin.zignet", f"Authorization: bearer  {TOKEN}", **change)
    check(guard, UNIX, "Host: localhost", **change)
    for wrong in (
        [],
        ["Authorization: Bearer"],
        ["Authorization: Bearer "],
        [f"Authorization: Basic {TOKEN}"],
        [f"Authorization: {TOKEN}"],
        [f"Authorization: Bearer {TOKEN}x"],
        [f"Authorization: Bearer {TOKEN[:-1]}"],
        ["Authorization: Bearer tökén"],
    ):
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get"):
            with pytest.raises(Refused) as refused:
                check(guard, V4, "Host: admin.zignet", *wrong, method=method, target="/api/reload")
            assert refused.value.status == 401
            assert TOKEN not in refused.value.sentence


def test_without_a_token_nothing_can_be_changed_by_tcp() -> None:
    for given_ in ("Bearer ", "Bearer", "Bearer x"):
        with pytest.raises(Refused) as refused:
            check(Guard(""), V4, "Host: admin.zignet", f"Authorization: {given_}", method="POST")
        assert refused.value.status == 401


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://admin.zignet/ HTTP/1.1\r\nHost: admin.zignet",
        b"GET //evil.example HTTP/1.1\r\nHost : admin.zignet",
        b"GET / HTTP/1.1\r\nHost: admin.zignet\r\n folded: yes",
        b"GET / HTTP/1.1\r\nHost: admin.zignet\nX: y",
        b"GET / HTTP/1.1\r\nHost: admin.zignet\r\nX: \x00",
        b"GET / HTTP/1.1\r\nHost: admin.zignet\r\nX\xc3\xa9: y",
        b"GET / HTTP/1.1\r\nHost: admin.zignet\r\nnocolon",
        b"GET / HTTP/2.0\r\nHost: admin.zignet",
        b"GET * HTTP/1.1\r\nHost: admin.zignet",
        b"GET /a b HTTP/1.1\r\nHost: admin.zignet",
        b"GET /\xff HTTP/1.1\r\nHost: admin.zignet",
        b"\r\nGET / HTTP/1.1\r\nHost: admin.zignet",
        b"",
    ],
)
def test_what_is_no_http(guard: Guard, head: bytes) -> None:
    headers: Any = CIMultiDict(host="admin.zignet")
    with pytest.raises(Refused) as refused:
        guard.check("GET", head, headers, V4)
    assert refused.value.status == 400


# Whatever comes, it passes or is refused, and it passes only with a name of ours.
@given(
    head=st.binary(max_size=300),
    headers=st.lists(
        st.tuples(
            st.sampled_from(["host", "origin", "authorization", "x"]),
            st.one_of(st.text(max_size=20), st.sampled_from(["admin.zignet", "http://admin.zignet"])),
        ),
        max_size=5,
    ),
    method=st.sampled_from(["GET", "POST", "x"]),
    arrival=st.sampled_from([UNIX, V4, V6]),
)
@example(head=b"GET / HTTP/1.1", headers=[("host", "admin.zignet")], method="GET", arrival=V4)
@example(head=b"GET / HTTP/1.1", headers=[("host", "\udcff")], method="GET", arrival=V4)
@example(head=b"GET /" + b"a" * 8000 + b" HTTP/1.1" + b"\r\na:" * 20, headers=[], method="GET", arrival=V4)
def test_anything(head: bytes, headers: list[tuple[str, str]], method: str, arrival: Arrival) -> None:
    guard = Guard(TOKEN)
    given_: Any = CIMultiDict(headers)
    refused: Refused | None = None
    try:
        guard.check(method, head, given_, arrival)
    except Refused as error:
        refused = error
    if refused is None:
        assert [value for name, value in headers if name == "host"] == ["admin.zignet"]
    else:
        assert 400 <= refused.status < 500
        assert refused.sentence.isprintable()
