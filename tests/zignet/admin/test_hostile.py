"""What a hostile program of this host sends: raw bytes at real sockets. The API answers, or hangs up, and goes on."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.zignet.admin import conftest
from tests.zignet.admin.conftest import Answer, Served, to_the_end
from zignet.admin import app, protocol

HOST = b"Host: admin.zignet\r\n"


@pytest.fixture(autouse=True)
def _goes_on(served: Served) -> Any:
    yield
    assert served.ask("/api/whoami").status == 200


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"GET /api/whoami HTTP/1.1\r\n\r\n", 421),
        (b"GET /api/whoami HTTP/1.0\r\n\r\n", 421),
        (b"GET /api/whoami HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET /api/whoami HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
        (b"GET /api/whoami HTTP/1.1\r\n" + HOST + b"Origin: http://evil.example\r\n\r\n", 403),
        (b"GET http://admin.zignet/api/whoami HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET http://evil.example/api/whoami HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"CONNECT admin.zignet:80 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /api/whoami HTTP/2.0\r\n" + HOST + b"\r\n", 400),
        (b"GET /api/whoami\r\n" + HOST + b"\r\n", 400),
        (b"GET  /api/whoami HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /api/whoami HTTP/1.1\r\n" + HOST + b"X: a\x00b\r\n\r\n", 400),
        (b"GET /api/whoami HTTP/1.1\r\n" + HOST + b"X: a\nY: b\r\n\r\n", 400),
        (b"GET /api/whoami HTTP/1.1\r\n" + HOST + b" folded\r\n\r\n", 400),
        (b"GET /api/whoami HTTP/1.1\r\n" + HOST + b"nocolon\r\n\r\n", 400),
        (b"GET /api/whoami HTTP/1.1\r\n" + HOST + b"X : y\r\n\r\n", 400),
        (b"NONE /api/whoami HTTP/1.1\r\n\r\n", 421),
        (b"FOO /api/whoami HTTP/1.1\r\n" + HOST + b"\r\n", 405),
        (b"TRACE /api/whoami HTTP/1.1\r\n" + HOST + b"\r\n", 405),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 413),
        (b"GET /api/whoami HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 3000 + b"\r\n", 413),
        (b"POST /api/reload HTTP/1.1\r\n" + HOST + b"Content-Length: 65537\r\n\r\n", 413),
        (b"POST /api/reload HTTP/1.1\r\n" + HOST + b"Content-Length: " + b"9" * 60 + b"\r\n\r\n", 413),
        (b"POST /api/reload HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400),
        (b"POST /api/reload HTTP/1.1\r\n" + HOST + b"Content-Length: +1\r\n\r\nx", 400),
        (b"POST /api/reload HTTP/1.1\r\n" + HOST + b"Content-Length: 1_0\r\n\r\n" + b"x" * 10, 400),
        (b"POST /api/reload HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy", 400),
        (
            b"POST /api/reload HTTP/1.1\r\n"
            + HOST
            + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST /api/reload HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /api/reload HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /api/reload HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", 400),
        (b"POST /api/reload HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nx\r\n\r\n", 400),
        (b"POST /api/reload HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n", 413),
        (b"POST /api/reload HTTP/1.1\r\n" + HOST + b"Expect: a miracle\r\nContent-Length: 1\r\n\r\nx", 417),
    ],
)
def test_what_is_refused(served: Served, text: bytes, status: int) -> None:
    with served.connect() as end:
        end.sendall(text)
        end.shutdown(socket.SHUT_WR)
        answer = Answer(to_the_end(end))
    assert answer.status == status, answer.body
    assert answer.error
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "text",
    [
        # each is one request, and what follows in its body must not become a second
        b"GET /nowhere HTTP/1.1\r\nHost: admin.zignet\r\nContent-Length: 56\r\n\r\n"
        b"POST /api/dns/flush HTTP/1.1\r\nHost: admin.zignet\r\n\r\n...",
        b"POST /nowhere HTTP/1.1\r\nHost: admin.zignet\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\nX: POST /api/dns/flush HTTP/1.1\r\n\r\nPOST /api/dns/flush HTTP/1.1\r\nHost: admin.zignet\r\n\r\n",
        b"POST /nowhere HTTP/1.1\r\nHost: admin.zignet\r\nTransfer-Encoding : chunked\r\nContent-Length: 3\r\n\r\n"
        b"0\r\n\r\nPOST /api/dns/flush HTTP/1.1\r\nHost: admin.zignet\r\n\r\n",
        b"POST /nowhere HTTP/1.1\r\nHost: admin.zignet\r\nContent-Length: 0\r\nContent-Length: 54\r\n\r\n"
        b"POST /api/dns/flush HTTP/1.1\r\nHost: admin.zignet\r\n\r\n",
    ],
)
def test_nothing_is_smuggled(served: Served, node: Any, text: bytes) -> None:
    with served.connect() as end:
        end.sendall(text)
        end.shutdown(socket.SHUT_WR)
        heard = to_the_end(end)
    assert heard.count(b"HTTP/1.1 ") <= 2
    assert b" 200 " not in heard
    assert node.dns.flushed == 0


def test_a_request_to_become_a_websocket(served: Served) -> None:
    text = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    with served.connect() as end:
        end.sendall(b"GET /api/whoami HTTP/1.1\r\n" + HOST + text + b"\r\n")
        heard = end.recv(65536)
    assert heard.startswith(b"HTTP/1.1 200")


def test_byte_by_byte(served: Served) -> None:
    with served.connect() as end:
        for byte in b"GET /api/whoami HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n":
            end.sendall(bytes([byte]))
        assert Answer(to_the_end(end)).status == 200


def test_many_connections_are_too_many(served: Served) -> None:
    """The unix socket and TCP have connections of their own, and those that are closed count no more."""
    for tcp in (False, True):
        held = [served.connect(tcp) for _ in range(protocol.MOST)]
        host = served.host if tcp else "localhost"
        for end in held:  # so that all of them have been accepted
            end.sendall(f"GET /api/whoami HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert b" 200 " in end.recv(65536)
        with served.connect(tcp) as one_more:
            answer = Answer(to_the_end(one_more))
        assert (answer.status, answer.error) == (503, "too many connections at once")
        assert served.ask("/api/whoami", tcp=not tcp).status == 200
        for end in held:
            end.close()
        deadline = time.monotonic() + 20
        while served.ask("/api/whoami", tcp=tcp).status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)


# What comes in any order and cut anywhere is answered or hung up on; never an answer with 200 to what is no request.
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [
                    b"GET /api/whoami HTTP/1.1\r\n",
                    b"POST /api/dns/flush HTTP/1.1\r\n",
                    HOST,
                    b"Host: evil.example\r\n",
                    b"Content-Length: 10\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    b"\r\n",
                    b"\r\n\r\n",
                    b"0\r\n\r\n",
                    b"a\r\n",
                ]
            ),
        ),
        max_size=12,
    )
)
def test_anything(served: Served, parts: list[bytes]) -> None:
    with served.connect() as end:
        for part in parts:
            try:
                end.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                break
        try:
            end.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        heard = to_the_end(end)
    assert heard == b"" or heard.startswith((b"HTTP/1.1 ", b"HTTP/1.0 "))
    assert b" 500 " not in heard.partition(b"\r\n")[0]


class TestDeadlines:
    """Slow clients, with the limits shortened."""

    @pytest.fixture
    def served(self, tmp_path: Any, node: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        short = {"REQUEST_TIMEOUT": 1, "RESPONSE_TIMEOUT": 2, "KEEP_ALIVE_TIMEOUT": 1}
        monkeypatch.setattr(app, "LIMITS", app.LIMITS | short)
        with conftest.api(tmp_path, node) as running:
            yield running

    def test_nothing_is_said(self, served: Served) -> None:
        with served.connect() as end:
            assert to_the_end(end) == b""

    def test_a_head_that_trickles(self, served: Served) -> None:
        with served.connect() as end:
            end.sendall(b"GET /api/whoami HTTP/1.1\r\n")
            begun = time.monotonic()
            heard = b""
            end.settimeout(0.1)
            while not heard and time.monotonic() < begun + 20:
                try:
                    end.sendall(b"X: y\r\n")
                    heard = end.recv(65536)
                except TimeoutError:
                    continue
        assert b" 408 " in heard

    def test_a_body_that_trickles(self, served: Served) -> None:
        with served.connect() as end:
            end.sendall(b"POST /api/reload HTTP/1.1\r\n" + HOST + b"Content-Length: 60000\r\n\r\n")
            begun = time.monotonic()
            heard = b""
            end.settimeout(0.1)
            while not heard and time.monotonic() < begun + 20:
                try:
                    end.sendall(b"x")
                    heard = end.recv(65536)
                except TimeoutError:
                    continue
        assert b" 503 " in heard

    def test_answers_that_nobody_reads(self, served: Served, node: Any, make_flow: Any) -> None:
        """They wait in the kernel and in a small buffer here, and then the connection ends."""
        node.open_flows = [make_flow(number) for number in range(1000, 0, -1)]
        with served.connect() as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            end.settimeout(20)
            try:
                for _ in range(2000):
                    end.sendall(b"GET /api/flows HTTP/1.1\r\n" + HOST + b"\r\n")
            except (TimeoutError, ConnectionError):
                pass
            deadline = time.monotonic() + 30
            while True:  # hung up on
                try:
                    end.sendall(b"x")
                except TimeoutError:
                    pass
                except OSError:
                    break
                assert time.monotonic() < deadline
                time.sleep(0.1)
