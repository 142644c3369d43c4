"""Look-ups for `route explain`: every answer of a name server, and a resolver that takes its time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dnslib import QTYPE, RCODE, RR, DNSRecord

from zignet.cli import dns_query
from zignet.cli.lookup import SYSTEM, SystemLookup, by_node

Answer = Callable[[str], tuple[str, list[str]]]


@pytest.fixture
def server() -> Iterator[Any]:
    """A name server that answers as the test says: `server(lambda kind: (rcode, records))` is its address."""
    made: list[socket.socket] = []

    def make(answer: Answer) -> str:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        made.append(sock)

        def run() -> None:
            while True:
                try:
                    data, sender = sock.recvfrom(4096)
                except OSError:
                    return
                if not data:
                    return
                reply = DNSRecord.parse(data).reply()
                rcode, records = answer(QTYPE.get(reply.q.qtype))
                reply.header.rcode = RCODE.reverse[rcode]
                reply.add_answer(*(rr for one in records for rr in RR.fromZone(one)))
                sock.sendto(reply.pack(), sender)

        threading.Thread(target=run, daemon=True).start()
        return f"127.0.0.1:{sock.getsockname()[1]}"

    yield make
    for sock in made:
        sock.sendto(b"", sock.getsockname())


def test_both_families(server: Any) -> None:
    records = {"A": ["a.example 1 A 198.19.0.2"], "AAAA": ["a.example 1 AAAA 2001:2::2"]}
    listen = server(lambda kind: ("NOERROR", records[kind]))
    found = by_node("a.example", listen)
    assert (found.addresses, found.by, found.trouble) == (("198.19.0.2", "2001:2::2"), listen, "")
    assert found.took_s > 0


def test_an_alias(server: Any) -> None:
    records = {"A": ["a.example 1 CNAME b.example", "b.example 1 A 192.0.2.1"], "AAAA": []}
    assert by_node("a.example", server(lambda kind: ("NOERROR", records[kind]))).addresses == ("192.0.2.1",)


def test_many(server: Any) -> None:
    many = {"A": [f"a.example 1 A 192.0.2.{number}" for number in range(1, 30)], "AAAA": []}
    assert len(by_node("a.example", server(lambda kind: ("NOERROR", many[kind]))).addresses) == 8


@pytest.mark.parametrize(
    ("rcode", "part"),
    [
        ("NXDOMAIN", "There is no name a.example"),
        ("SERVFAIL", "gave no answer"),
        ("REFUSED", "`dns.others` is refuse"),
        ("NOERROR", "exists and has no address"),
    ],
)
def test_no_address(server: Any, rcode: str, part: str) -> None:
    found = by_node("a.example", server(lambda kind: (rcode, [])))
    assert found.addresses == ()
    assert part in found.trouble


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_query, "_PATIENCE_S", 0.2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        found = by_node("a.example", f"127.0.0.1:{silent.getsockname()[1]}")
    assert "`zignet dns status`" in found.trouble


def test_the_system() -> None:
    found = SystemLookup("localhost", 80).wait(20.0)
    assert {"127.0.0.1", "::1"} & set(found.addresses)
    assert (found.by, found.trouble) == (SYSTEM, "")
    assert list(found.addresses) == sorted(found.addresses, key=lambda one: ":" in one)


def test_the_system_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """getaddrinfo can't be told how long it may take."""
    stop = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: stop.wait(20.0) and [])
    begun = time.monotonic()
    found = SystemLookup("slow.example", 80).wait(0.1)
    stop.set()
    assert time.monotonic() - begun < 10
    assert "has not answered for slow.example within 0.1 s" in found.trouble


def test_the_system_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **more: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    found = SystemLookup("nowhere.example", 80).wait(20.0)
    assert "nowhere.example does not resolve here" in found.trouble
