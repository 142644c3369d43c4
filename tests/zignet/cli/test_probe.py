"""The probe against real servers on loopback: well-behaved ones, and those that are not."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from zignet.cli.probe import Probe, Stage, try_out
from zignet.lab.certificates import Authority

PATIENCE_S = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

Serve = Callable[[socket.socket], None]


class Server:
    """One answer for every connection. `heard` is what came first on each."""

    def __init__(self, serve: Serve, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.create_server((host, 0), family=family)
        self.port: int = self.listener.getsockname()[1]
        self.heard: list[bytes] = []
        self.peers: list[Any] = []
        self._serve, self._context = serve, context
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                end, peer = self.listener.accept()
                self.peers.append(peer[:2])
                threading.Thread(target=self._one, args=(end,), daemon=True).start()

    def _one(self, end: socket.socket) -> None:
        end.settimeout(PATIENCE_S)
        with contextlib.suppress(OSError, EOFError), end:
            if self._context is not None:
                end = self._context.wrap_socket(end, server_side=True)
            self._serve(end)


@pytest.fixture
def serve() -> Iterator[Any]:
    made: list[Server] = []

    def make(answer: bytes | Serve = OK, **more: Any) -> Server:
        def say(end: socket.socket) -> None:
            made[0].heard.append(end.recv(65536))
            assert isinstance(answer, bytes)
            end.sendall(answer)

        made.append(Server(answer if callable(answer) else say, **more))
        return made[-1]

    yield make
    for server in made:
        server.listener.close()


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder: Path = tmp_path_factory.mktemp("certificates")
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(*Authority(folder).issue("www.video.example"))
    made.set_alpn_protocols(["h2", "http/1.1"])
    return made


def probe(port: int, speaks: Any = "http", **more: Any) -> Probe:
    settings: dict[str, Any] = {"name": "www.video.example", "patience_s": PATIENCE_S} | more
    addresses = settings.pop("addresses", ["127.0.0.1"])
    return try_out(addresses, port, speaks=speaks, **settings)


def names(found: Probe) -> list[str]:
    return [stage.step for stage in found.stages]


def kind(found: Probe) -> str | None:
    return found.failed.trouble.kind if found.failed is not None and found.failed.trouble else None


def test_http(serve: Any) -> None:
    server = serve()
    found = probe(server.port, path="/page?x=1&y=ä b")
    assert (names(found), found.failed, found.status) == (["connect", "first_byte"], None, "HTTP/1.1 200 OK")
    assert all(stage.took_s > 0 for stage in found.stages)
    lines = server.heard[0].split(b"\r\n")
    assert lines[:2] == [
        b"HEAD /page?x=1&y=%C3%A4%20b HTTP/1.1",
        f"Host: www.video.example:{server.port}".encode(),
    ]
    assert found.source == server.peers[0]


def test_only_a_connection_where_nothing_is_spoken(serve: Any) -> None:
    server = serve(lambda end: end.recv(1) and None)
    found = probe(server.port, speaks="")
    assert (names(found), found.failed) == (["connect"], None)


def test_https(serve: Any, context: ssl.SSLContext) -> None:
    found = probe(serve(context=context).port, "https")
    assert (names(found), found.failed) == (["connect", "tls", "first_byte"], None)
    assert (found.tls, found.alpn) == ("TLSv1.3", "http/1.1")
    certificate = found.certificate
    assert certificate is not None
    assert (certificate.subject, certificate.issuer) == ("www.video.example", "ZigNet lab CA")
    assert certificate.names == ("www.video.example", "*.www.video.example")
    assert certificate.matches
    assert "not checked" in found.stages[1].text


@pytest.mark.parametrize(
    ("name", "matches"),
    [("a.www.video.example", True), ("a.b.www.video.example", False), ("bank.example", False), (None, False)],
)
def test_a_certificate_for_somebody_else(
    serve: Any, context: ssl.SSLContext, name: str | None, matches: bool
) -> None:
    """It is shown as such, and no reason to stop: nothing is trusted anyway."""
    found = probe(serve(context=context).port, "https", name=name)
    assert found.failed is None
    assert found.certificate is not None
    assert found.certificate.matches is matches
    assert ("ANOTHER name" in found.stages[1].text) is not matches


def test_a_redirect_is_not_followed(serve: Any) -> None:
    server = serve(
        b"HTTP/1.1 302 Found\r\nLOCATION: http://127.0.0.1:1/\x1b[2Jx\r\nContent-Length: 0\r\n\r\n"
    )
    found = probe(server.port)
    assert found.failed is None
    assert found.location.startswith("http://127.0.0.1:1/")
    assert "\x1b" not in found.location + found.stages[-1].text
    assert len(server.heard) == 1


def test_a_request_has_only_its_own_lines(serve: Any) -> None:
    server = serve()
    probe(server.port, path="/x\r\nEvil: 1\r\n\r\nGET / HTTP/1.1\x00")
    head = server.heard[0].decode("ascii")
    assert [line.partition(":")[0] for line in head.split("\r\n")[1:-2]] == [
        *("Host", "User-Agent"),
        *("Accept", "Connection"),
    ]


def test_the_second_family(serve: Any) -> None:
    server = serve(host="::1")
    found = probe(server.port, addresses=["127.0.0.1", "127.0.0.2", "::1"])
    assert (names(found), found.failed) == (["connect", "connect", "first_byte"], None)
    assert (found.address, kind(found)) == ("::1", None)
    assert found.stages[0].trouble is not None
    assert found.stages[0].trouble.kind == "refused"


def test_steps_before(serve: Any) -> None:
    found = probe(serve().port, before=(Stage("dns", 0.1, "192.0.2.1"),))
    assert names(found) == ["dns", "connect", "first_byte"]


def test_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    found = probe(port)
    assert (names(found), kind(found)) == (["connect"], "refused")


def reset(end: socket.socket) -> None:
    end.recv(1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("speaks", ["http", "https"])
@pytest.mark.parametrize(
    ("answer", "expected"), [(reset, ("reset", "closed")), (lambda end: end.recv(65536), ("closed", "reset"))]
)
def test_a_server_that_hangs_up(serve: Any, speaks: str, answer: Serve, expected: tuple[str, ...]) -> None:
    found = probe(serve(lambda end: answer(end) and None).port, speaks)
    assert names(found)[-1] == ("tls" if speaks == "https" else "first_byte")
    assert kind(found) in expected


@pytest.mark.parametrize("speaks", ["http", "https"])
def test_a_silent_server(serve: Any, speaks: str) -> None:
    stop = threading.Event()
    found = probe(serve(lambda end: stop.wait(PATIENCE_S) and None).port, speaks, patience_s=0.3)
    stop.set()
    assert (names(found)[0], kind(found)) == ("connect", "timeout")
    assert found.stages[-1].took_s < PATIENCE_S / 2


@pytest.mark.parametrize("speaks", ["http", "https"])
def test_a_server_that_drips(serve: Any, speaks: str) -> None:
    """A byte now and then does not hold it longer than its patience, for the head or the handshake."""

    def drip(end: socket.socket) -> None:
        head = b"HTTP/1.1 200 OK\r\nX: " if speaks == "http" else b"\x16\x03\x03\x40\x00\x02"
        for byte in head + b"a" * 100_000:
            end.sendall(bytes((byte,)))
            time.sleep(0.01)

    begun = time.monotonic()
    found = probe(serve(drip).port, speaks, patience_s=0.5)
    assert time.monotonic() - begun < PATIENCE_S / 2
    assert (found.status, kind(found)) == (("HTTP/1.1 200 OK", None) if speaks == "http" else ("", "timeout"))


def test_no_http(serve: Any) -> None:
    found = probe(serve(b"220 mail.example \x1b]0;says hello first\r\n\r\n").port)
    assert kind(found) == "nonsense"
    assert "\x1b" not in found.stages[-1].text


def test_no_tls(serve: Any) -> None:
    assert kind(probe(serve(b"HTTP/1.1 400 Bad Request\r\n\r\n").port, "https")) == "tls"


def test_a_head_without_end(serve: Any) -> None:
    found = probe(serve(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500_000).port)
    assert (found.status, found.failed) == ("HTTP/1.1 200 OK", None)


def test_a_name_that_tls_cannot_send(serve: Any, context: ssl.SSLContext) -> None:
    found = probe(serve(context=context).port, "https", name=f"{'a' * 70}.example")
    assert names(found)[-1] in ("tls", "first_byte")
    assert len(found.stages) >= 2
