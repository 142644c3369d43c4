"""`zignet dns query`: ask the node's server itself, over the wire, and say where the answer comes from."""

from __future__ import annotations

import re
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from dnslib import QTYPE, RCODE, DNSError, DNSHeader, DNSQuestion, DNSRecord

from zignet.cli.errors import ExitCode, Fault
from zignet.cli.text import printable
from zignet.control import Client, Declined
from zignet.control.messages import DnsWhy

__all__ = ["Answer", "Query", "Record", "as_json", "ask", "ask_node", "lines", "parse", "server_at"]

_PATIENCE_S = 5.0
_TRIES = 2  # over UDP
_MOST = 65_535  # bytes
_NUMBERED = re.compile(r"TYPE(\d{1,5})")  # RFC 3597 §5


@dataclass(frozen=True, slots=True)
class Query:
    """One question."""

    name: str  # without a dot at the end
    kind: str  # A, AAAA, …, TYPE65280
    code: int


@dataclass(frozen=True, slots=True)
class Record:
    """One record of an answer, as text."""

    name: str
    ttl: int  # s
    kind: str
    data: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What came."""

    query: Query
    server: str
    rcode: str  # NOERROR, NXDOMAIN, …
    records: tuple[Record, ...]
    took_s: float
    tcp: bool
    source: str = ""  # fake | zone | forwarded | …; "" where no node could be asked
    why: str = ""


def parse(name: str, kind: str | None) -> tuple[Query, ...]:
    """A name and a type; A and AAAA without one, PTR for an address. Raises `Fault` (usage)."""
    kinds = (kind.upper(),) if kind else ("A", "AAAA")
    try:
        address = ip_address(name.strip("[]"))
        name, kinds = address.reverse_pointer, kinds if kind else ("PTR",)
    except ValueError:
        pass
    if not name.isascii():
        try:
            name = name.encode("idna").decode()
        except UnicodeError as error:
            raise Fault(f"{name!r} is no name: {error}", ExitCode.USAGE) from error
    name = name.removesuffix(".")
    if len(name) > 253 or not all(0 < len(label) <= 63 for label in name.split(".")):
        raise Fault(
            f"{name[:80]!r} is no name: its parts have 1 to 63 characters, 253 in all", ExitCode.USAGE
        )
    return tuple(Query(name, each, _code(each)) for each in kinds)


def ask_node(state_dir: Path, queries: tuple[Query, ...], server: str | None, tcp: bool) -> list[Answer]:
    """Ask the running node's server, or the one given; without a node only that. Raises `Fault`, `ControlError`."""
    answers = []
    if server is not None:
        where = server_at(server)
        return [ask(query, where, tcp) for query in queries]
    with Client(state_dir) as client:
        listen = client.dns()["listen"]
        if not listen:
            raise Fault("the node's name server listens nowhere: see `zignet dns status`")
        for query in queries:
            answer = ask(query, server_at(listen[0]), tcp)
            with suppress(Declined):  # an answer without a reason is an answer
                why: DnsWhy = client.dns_why(query.name, query.kind)
                answer = replace(answer, source=why["source"], why=why["text"])
            answers.append(answer)
    return answers


def ask(query: Query, server: tuple[str, int], tcp: bool) -> Answer:
    """Over UDP, and over TCP where the answer is truncated or `tcp` says so (RFC 7766). Raises `Fault`."""
    number = secrets.randbelow(1 << 16)
    packet = DNSRecord(DNSHeader(id=number, rd=1), q=DNSQuestion(query.name, query.code)).pack()
    begun = time.monotonic()
    try:
        answer = None if tcp else _over_udp(packet, server)
        if answer is None or answer[2] & 0x02:  # TC, RFC 1035 §4.1.1
            tcp, answer = True, _over_tcp(packet, server)
    except TimeoutError as error:
        raise Fault(f"{_shown(server)} did not answer within {_PATIENCE_S:g} s") from error
    except OSError as error:
        raise Fault(f"{_shown(server)} can't be asked: {error.strerror or error}") from error
    took_s = time.monotonic() - begun
    rcode, records = _read(answer, number, query)
    return Answer(query, _shown(server), rcode, records, took_s, tcp)


def lines(answers: list[Answer]) -> list[str]:
    """As a short dig."""
    shown = []
    for answer in answers:
        shown += [
            f"{printable(record.name)}  {record.ttl}  {record.kind}  {printable(record.data)}"
            for record in answer.records
        ]
        found = (
            ""
            if answer.records
            else "no such name"
            if answer.rcode == "NXDOMAIN"
            else "no record of this type"
        )
        if answer.rcode not in ("NOERROR", "NXDOMAIN"):
            found = "failed"
        where = f"{answer.query.kind}: {answer.rcode}{f' ({found})' if found else ''}, {answer.took_s * 1e3:.1f} ms"
        where += f" from {answer.server}{' over TCP' if answer.tcp else ''}"
        why = ": ".join(filter(None, (answer.source, answer.why)))
        shown.append(f"; {where}{f'; {printable(why)}' if why else ''}")
    return shown


def as_json(answers: list[Answer]) -> dict[str, Any]:
    """For scripts."""
    return {
        "answers": [
            {
                "name": answer.query.name,
                "type": answer.query.kind,
                "rcode": answer.rcode,
                "records": [asdict(record) for record in answer.records],
                "server": answer.server,
                "tcp": answer.tcp,
                "took_s": answer.took_s,
                "source": answer.source,
                "why": answer.why,
            }
            for answer in answers
        ]
    }


def _code(kind: str) -> int:
    if found := _NUMBERED.fullmatch(kind):
        if int(found[1]) < 1 << 16:
            return int(found[1])
    elif kind in QTYPE.reverse:
        return int(QTYPE.reverse[kind])
    raise Fault(f"{kind[:20]!r} is no record type: A, AAAA, PTR, HTTPS, TXT, … or TYPE65", ExitCode.USAGE)


def server_at(text: str) -> tuple[str, int]:
    """127.0.0.1:53530, 192.0.2.1, [2001:db8::1]:53, 2001:db8::1. Raises `Fault` (usage)."""
    host, colon, port = text.rpartition(":")
    try:
        return str(ip_address(text)), 53
    except ValueError:
        pass
    try:
        if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(port)
        return str(ip_address(host.removeprefix("[").removesuffix("]"))), int(port)
    except ValueError:
        raise Fault(f"{text[:60]!r} is no server: it is written 127.0.0.1:53530", ExitCode.USAGE) from None


def _family(server: tuple[str, int]) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in server[0] else socket.AF_INET


def _over_udp(packet: bytes, server: tuple[str, int]) -> bytes:
    """Connected, so that only the server's datagrams come. Raises OSError."""
    with socket.socket(_family(server), socket.SOCK_DGRAM) as sock:
        sock.connect(server)
        for _ in range(_TRIES):
            end = time.monotonic() + _PATIENCE_S / _TRIES
            sock.send(packet)
            with suppress(TimeoutError):
                while True:
                    answer = _receive(sock, _MOST, end)
                    if len(answer) >= 12 and answer[:2] == packet[:2]:  # else one to something else
                        return answer
    raise TimeoutError


def _over_tcp(packet: bytes, server: tuple[str, int]) -> bytes:
    """Raises OSError."""
    end = time.monotonic() + _PATIENCE_S
    with socket.create_connection(server, _PATIENCE_S) as sock:
        sock.sendall(len(packet).to_bytes(2) + packet)
        length = int.from_bytes(_exactly(sock, 2, end))
        if length < 12:
            raise ConnectionError("the answer is shorter than a header")
        return _exactly(sock, length, end)


def _exactly(sock: socket.socket, size: int, end: float) -> bytes:
    data = b""
    while len(data) < size:
        if not (more := _receive(sock, size - len(data), end)):
            raise ConnectionError("the connection ended before the answer was whole")
        data += more
    return data


def _receive(sock: socket.socket, most: int, end: float) -> bytes:
    """What comes before `end` (monotonic seconds), however slowly. Raises TimeoutError."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)
    return sock.recv(most)


def _read(answer: bytes, number: int, query: Query) -> tuple[str, tuple[Record, ...]]:
    """Raises `Fault` for what is no answer to this question."""
    try:
        found = DNSRecord.parse(answer)
        asked = [(str(each.qname).removesuffix(".").lower(), int(each.qtype)) for each in found.questions]
        right = (found.header.id, found.header.qr) == (number, 1)
        # Only an error may come without the question.
        right = right and (
            asked == [(query.name.lower(), query.code)] or (not asked and found.header.rcode != 0)
        )
        records = tuple(
            Record(str(record.rname), int(record.ttl), str(QTYPE.get(record.rtype)), str(record.rdata))
            for record in found.rr
        )
    except (DNSError, ValueError, IndexError, KeyError, TypeError) as error:
        raise Fault(f"the server sent something that is no DNS answer: {error}") from error
    if not right:
        raise Fault("the server answered another question")
    return str(RCODE.get(found.header.rcode)), records


def _shown(server: tuple[str, int]) -> str:
    host, port = server
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
