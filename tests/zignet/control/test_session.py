"""The node's side of a control connection: bounded, lazy, and never raising."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from zignet.control.session import INPUT_LIMIT, LINE_LIMIT, ControlSession


def echo(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for number in range(int(request.get("lines", 1))):
        yield {"number": number, "do": request.get("do")}


def drain(session: ControlSession, at_once: int = 1 << 20) -> list[dict[str, Any]]:
    sent = bytearray()
    while session.wants_write:
        chunk = bytes(session.pending()[:at_once])
        sent += chunk
        session.sent(len(chunk))
    return [json.loads(line) for line in sent.splitlines()]


def test_one_request() -> None:
    session = ControlSession(echo)
    assert not session.wants_write
    session.receive(b'{"do":"x"}\n')
    assert session.wants_write
    assert drain(session) == [{"number": 0, "do": "x"}, {"end": True}]
    assert session.wants_read
    assert not session.closing


def test_byte_by_byte_both_ways() -> None:
    session = ControlSession(echo)
    for byte in b'{"do":"x","lines":2}\n':
        session.receive(bytes((byte,)))
    assert drain(session, at_once=1) == [{"number": 0, "do": "x"}, {"number": 1, "do": "x"}, {"end": True}]


def test_requests_are_answered_in_order() -> None:
    session = ControlSession(echo)
    session.receive(b'{"do":1}\n{"do":2}\n{"do":')
    assert not session.wants_read  # the second waits
    assert [answer.get("do") for answer in drain(session)] == [1, None, 2, None]
    session.receive(b"3}\n")
    assert drain(session)[0]["do"] == 3


def test_an_answer_is_pulled_only_as_it_is_sent() -> None:
    pulled = 0

    def endless(_: dict[str, Any]) -> Iterator[dict[str, Any]]:
        nonlocal pulled
        while True:
            pulled += 1
            yield {"filler": "x" * 1000}

    session = ControlSession(endless)
    session.receive(b"{}\n")
    for _ in range(10):
        session.pending()  # nothing was sent: nothing more is made
    assert pulled == 1
    session.sent(500)
    session.pending()
    assert pulled == 1
    session.sent(len(session.pending()))
    session.pending()
    assert pulled == 2


def test_garbage_is_answered() -> None:
    session = ControlSession(echo)
    for line in (b"", b"GET / HTTP/1.1", b"[1]", b"null", b"\xff\xfe", b"[" * 60_000, b"9" * 10_000):
        session.receive(line + b"\n")
        (answer,) = drain(session)
        assert "error" in answer
    session.receive(b"{}\n")
    assert drain(session)[-1] == {"end": True}


def test_a_line_without_end_closes() -> None:
    session = ControlSession(echo)
    session.receive(b"x" * INPUT_LIMIT)
    assert not session.closing
    session.receive(b"x")
    assert session.closing
    assert not session.wants_read
    assert "error" in drain(session)[0]
    session.receive(b"{}\n")
    assert not session.wants_write


def test_a_fault_in_the_handler_is_an_answer() -> None:
    def faulty(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {"first": True}
        raise KeyError("no such exit")

    def faulty_at_once(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        raise KeyError("no such exit")

    for handler in (faulty, faulty_at_once):
        session = ControlSession(handler)
        session.receive(b"{}\n")
        assert "no such exit" in drain(session)[-1]["error"]
        assert not session.closing


def test_a_line_too_long_is_an_error() -> None:
    session = ControlSession(lambda _: iter([{"x": "y" * LINE_LIMIT}]))
    session.receive(b"{}\n")
    (answer,) = drain(session)
    assert "too long" in answer["error"]


# Invariant: whatever comes in, cut however, the session answers in whole lines of JSON and raises nothing.
@given(st.lists(st.one_of(st.binary(max_size=50), st.sampled_from([b"\n", b"{}\n", b'{"lines":3}\n']))))
def test_fuzz(pieces: list[bytes]) -> None:
    session = ControlSession(echo)
    for piece in pieces:
        session.receive(piece)
        drain(session)
    session.receive(b"\n{}\n")
    assert drain(session)[-1] == {"end": True}


def test_an_answer_that_is_not_there_yet_is_asked_for_again() -> None:
    parts = iter([{}, {}, {"done": True}])
    session = ControlSession(lambda request: parts)
    session.receive(b'{"do":"slow"}\n')
    for _ in range(2):
        assert session.wants_write
        assert bytes(session.pending()) == b""
        assert session.waiting
        assert not session.wants_write  # or the loop would spin
        session.resume()
    line = bytes(session.pending())
    assert line == b'{"done":true}\n'
    session.sent(len(line))
    assert bytes(session.pending()) == b'{"end":true}\n'
