"""Fuzz targets of names. `python -m tests.zignet.dns.fuzz --seconds 600` runs them long, the suite briefly.

Inputs are good messages, damaged. A run is repeatable by its seed; a failure prints the seed and the input's number.
"""

from __future__ import annotations

import random

import dnslib
from scapy.layers.dns import DNS

from tests.fuzzing import main
from tests.zignet.dns.test_answers import made, query
from zignet.dns.answers import FORWARD, SERVICE, failure
from zignet.dns.found import Found, found_in
from zignet.dns.hosts import parse_hosts
from zignet.dns.service import services_in
from zignet.dns.upstreams import parse_resolv_conf
from zignet.dns.wire import (
    BadMessage,
    encode_name,
    is_answer_to,
    make_query,
    question_of,
    read_name,
    records_of,
)

QUERIES = [
    query("www.video.example", "A"),
    query("www.video.example", "AAAA", edns=True),
    query("admin.zignet", "A"),
    query("2.0.64.100.in-addr.arpa", "PTR", edns=True),
    query("www.other.example", "HTTPS"),
    query("www.video.example", "HTTPS", edns=True),
    make_query("a.b.c.d.e.example", 28),
]


def _answer(*zone: str, kind: int = 1) -> bytes:
    reply = dnslib.DNSRecord.parse(make_query("www.example", kind)).reply()
    for line in zone:
        reply.add_answer(*dnslib.RR.fromZone(line))
    return bytes(reply.pack())


ANSWERS = [
    _answer("www.example 60 A 192.0.2.1", "www.example 30 A 192.0.2.2"),
    _answer("www.example 60 CNAME x.example", "x.example 60 CNAME y.example", "y.example 9 A 192.0.2.1"),
    _answer("www.example 60 MX 10 mail.example", "example 60 SOA a.example b.example 1 2 3 4 5"),
    _answer(),
]
SERVICES = [
    _answer(
        "www.example 60 HTTPS 1 . alpn=h2,h3 port=8443 ipv4hint=192.0.2.1 echconfig=AAAA ipv6hint=2001:db8::1",
        "www.example 60 HTTPS 2 www.video.example. mandatory=port port=443 key65400=x",
        kind=65,
    ),
    _answer("www.example 60 CNAME x.example.", "x.example 60 HTTPS 0 www.video.example.", kind=65),
]


def mutate(rng: random.Random, data: bytes) -> bytes:
    """The data with up to six small damages; pointers among them."""
    damaged = bytearray(data)
    for _ in range(rng.randint(0, 6)):
        at = rng.randrange(len(damaged) + 1)
        match rng.randrange(5):
            case 0 if damaged:
                damaged[at - 1] = rng.randrange(256)
            case 1:
                del damaged[at : at + rng.randint(1, 8)]
            case 2:
                damaged[at:at] = rng.randbytes(rng.randint(1, 8))
            case 3:
                damaged[at : at + 2] = bytes((0xC0 | rng.randrange(2), rng.randrange(256)))
            case 4:
                damaged[at:at] = rng.choice(QUERIES + ANSWERS)[12:]
    return bytes(damaged)


# Invariant: any bytes are answered with a message that scapy reads, under their own id; or are forwarded, and then
# they have one question; or get nothing.
def fuzz_answers(rng: random.Random) -> None:
    answers = made(forwards=rng.random() < 0.8)
    for _ in range(4):
        message = mutate(rng, rng.choice(QUERIES))
        made_ = answers.answer(message, rng.random() * 40, rng.random() < 0.5)
        if made_ is SERVICE:
            assert question_of(answers.service_query(message)).kind in (64, 65)
            made_ = answers.service(message, mutate(rng, rng.choice(SERVICES)), rng.random() < 0.5)
        if made_ is FORWARD:
            assert question_of(message).end <= len(message)
            made_ = failure(message)
        if made_ is not None:
            assert made_[:2] == message[:2]
            assert DNS(made_).qr == 1


# Invariant: any bytes give what they say of addresses; none is of the wrong size, and nothing is raised.
def fuzz_found(rng: random.Random) -> None:
    message = mutate(rng, rng.choice(ANSWERS))
    found = found_in(message) if len(message) >= 12 else found_in(None)
    assert isinstance(found, Found)
    assert {len(address) for address in found.addresses} <= {4, 16}
    assert found.ttl >= 0


# Invariant: what is left of any bytes are records in their order that no hint, no ECH and no strange target is in.
def fuzz_services(rng: random.Random) -> None:
    message = mutate(rng, rng.choice(SERVICES))
    for service in services_in(message, lambda name: name.endswith("video.example")):
        target, at = read_name(bytes(12) + service.data, 14)
        assert target in ("", "www.video.example") or target.endswith("video.example")
        keys = []
        at -= 12
        while at < len(service.data):
            keys.append(int.from_bytes(service.data[at : at + 2], "big"))
            at += 4 + int.from_bytes(service.data[at + 2 : at + 4], "big")
        assert at == len(service.data)
        assert keys == sorted(set(keys) - {4, 5, 6})
        assert 0 <= service.ttl <= 300


# Invariant: what is read of a name is written again, unless it has odd bytes; reading ends, or raises BadMessage.
def fuzz_names(rng: random.Random) -> None:
    message = mutate(rng, rng.choice(QUERIES + ANSWERS + SERVICES))
    try:
        name, _ = read_name(message, rng.randrange(len(message) + 1))
    except BadMessage:
        return
    if "\\" not in name and name:
        assert read_name(encode_name(name), 0)[0] == name


# Invariant: records are walked through to the end, or raise BadMessage; an answer is to its query only.
def fuzz_records(rng: random.Random) -> None:
    message = mutate(rng, rng.choice(QUERIES + ANSWERS))
    try:
        end = question_of(message).end
        records = list(records_of(message, end))
    except BadMessage:
        return
    assert all(record.at + record.length <= len(message) for record in records)
    other = mutate(rng, message)
    if is_answer_to(message, end, other):
        assert other[:2] == message[:2]


# Invariant: any text of these files gives addresses.
def fuzz_files(rng: random.Random) -> None:
    words = [
        "nameserver",
        "127.0.0.1",
        "::1",
        "fe80::1%eth0",
        "#",
        "\n",
        "a.example",
        "\0",
        "é",
        "999.1.1.1",
        "search",
    ]
    text = " ".join(rng.choice(words) for _ in range(40))
    assert isinstance(parse_resolv_conf(text), list)
    assert all(len(address) in (4, 16) for each in parse_hosts(text).values() for address in each)


TARGETS = (fuzz_answers, fuzz_found, fuzz_services, fuzz_names, fuzz_records, fuzz_files)

if __name__ == "__main__":
    main(__doc__, TARGETS)
