"""Queries in, answers out: what dnslib and scapy read in them, the rules of the zone, hostile messages."""

import ipaddress
import struct

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS

from zignet.dns.answers import FORWARD, SERVICE, Answers, failure
from zignet.dns.fakes import Fakes
from zignet.dns.zone import Zone, reverse_name, reverse_prefix
from zignet.exits.names import is_sendable

POOL4, POOL6 = ipaddress.ip_network("198.19.0.0/16"), ipaddress.ip_network("2001:2::/64")
RANGE4, RANGE6 = ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd5a:6967:6e65::/48")
OWN = [ipaddress.ip_address("100.64.0.1").packed, ipaddress.ip_address("fd5a:6967:6e65::1").packed]
PEER = [ipaddress.ip_address("100.64.0.2").packed, ipaddress.ip_address("fd5a:6967:6e65::2").packed]
SIX = [ipaddress.ip_address("fd5a:6967:6e65::3").packed]


class Nobody:
    def reserve(self, ceiling): ...
    def release(self, numbers): ...
    def assigned(self, number, key, wall): ...


class Three:
    """A directory."""

    def __init__(self):
        self.names = {"admin": OWN, "peer_us": PEER, "six": SIX}

    def addresses(self, label):
        return self.names.get(label)

    def name_at(self, address):
        return next((f"{name}.zignet" for name, all_ in self.names.items() if address in all_), None)


def made(pool4=POOL4, forwards=True):
    fakes = Fakes(pool4, POOL6, Nobody(), lambda: 1_800_000_000.0)
    zone = Zone(
        Three(), [RANGE4, RANGE6, pool4, POOL6], lambda address: (fakes.lookup(address) or (None,))[0]
    )
    return Answers(zone, fakes, is_fake, forwards=forwards)


def is_fake(name):
    return is_sendable(name) and name.endswith("video.example")  # as `Which` does


@pytest.fixture
def answers():
    return made()


def query(name, kind="A", *, edns=False, rd=1, **header):
    record = dnslib.DNSRecord(
        dnslib.DNSHeader(id=header.pop("id", 0x1234), rd=rd, **header),
        q=dnslib.DNSQuestion(name, getattr(dnslib.QTYPE, kind) if isinstance(kind, str) else kind),
    )
    if edns:
        record.add_ar(dnslib.EDNS0(udp_len=4096))
    return bytes(record.pack())


def ask(answers, name, kind="A", tcp=False, **more):
    """The answer as dnslib reads it, which scapy can read as well."""
    made_ = answers.answer(query(name, kind, **more), 0.0, tcp)
    assert isinstance(made_, bytes)
    seen = dnslib.DNSRecord.parse(made_)
    other = DNS(made_)
    assert (other.qr, other.id, other.ancount, other.nscount) == (
        1,
        seen.header.id,
        len(seen.rr),
        len(seen.auth),
    )
    assert bytes(other)[:12] == made_[:12]
    return seen


def code(seen):
    return dnslib.RCODE[seen.header.rcode]


# --- fake addresses


@pytest.mark.parametrize("edns", [False, True])
def test_fake_addresses(answers, edns):
    four, six = (ask(answers, "www.video.example", kind, edns=edns) for kind in ("A", "AAAA"))
    assert str(four.rr[0].rdata) == "198.19.0.2"
    assert ipaddress.ip_address(str(six.rr[0].rdata)) == ipaddress.ip_address("2001:2::2")
    for seen in (four, six):
        assert [record.ttl for record in seen.rr] == [1]
        assert (seen.header.aa, seen.header.ra, seen.header.rd, seen.header.tc) == (1, 1, 1, 0)
        assert len(seen.ar) == edns
        if edns:
            assert seen.ar[0].edns_len == 1232


def test_a_ready_answer_is_the_same_but_for_its_id(answers):
    first = answers.answer(query("www.video.example", id=1), 0.0)
    ready = answers.answer(query("www.video.example", id=0xFFFE), 1.0)
    assert answers._ready
    assert ready == b"\xff\xfe" + first[2:]
    assert answers.counts["fake"] == 2
    later = answers.answer(query("www.video.example", id=7), 100.0)  # made anew: the map must hear of the use
    assert later[2:] == first[2:]


def test_the_case_of_a_question_is_kept(answers):
    seen = [answers.answer(query(name), 0.0) for name in ("www.video.example", "wWw.vIdEo.ExAmPlE")]
    assert b"\x03wWw\x05vIdEo\x07ExAmPlE" in seen[1]
    assert seen[0][-4:] == seen[1][-4:]
    assert len(answers._fakes) == 1


@pytest.mark.parametrize("kind", ["HTTPS", 64])
def test_what_would_lead_past_us_is_not_said(answers, kind):
    assert answers.answer(query("www.video.example", kind), 0.0) is SERVICE  # see test_service
    assert answers.counts["forwarded"] == 1
    seen = ask(made(forwards=False), "www.video.example", kind)
    assert (code(seen), seen.rr) == ("NOERROR", [])
    assert dnslib.QTYPE[seen.auth[0].rtype] == "SOA"


@pytest.mark.parametrize("kind", ["TXT", "MX", "CAA", "NS"])
def test_other_types_are_forwarded(answers, kind):
    assert answers.answer(query("www.video.example", kind), 0.0) is FORWARD


def test_without_ipv6_there_is_no_fake_ipv6_address():
    fakes = Fakes(POOL4, POOL6, Nobody(), lambda: 1_800_000_000.0)
    answers = Answers(Zone(Three(), []), fakes, lambda name: True, ipv6=False)
    assert str(ask(answers, "www.video.example").rr[0].rdata) == "198.19.0.2"
    assert (code(seen := ask(answers, "www.video.example", "AAAA")), seen.rr) == ("NOERROR", [])


def test_any_gets_an_address(answers):
    assert len(ask(answers, "www.video.example", "ANY").rr) == 1


def test_other_names_are_forwarded_or_refused(answers):
    assert answers.answer(query("www.other.example"), 0.0) is FORWARD
    assert code(ask(made(forwards=False), "www.other.example")) == "REFUSED"


def test_a_full_pool_is_said(answers):
    small = made(ipaddress.ip_network("198.19.0.0/28"))
    for number in range(13):
        assert code(ask(small, f"{number}.video.example")) == "NOERROR"
    assert code(ask(small, "more.video.example")) == "SERVFAIL"
    assert small.counts["pool full"] == 1
    assert code(ask(small, "0.video.example")) == "NOERROR"


def test_other_rules_hold_at_once(answers):
    ask(answers, "www.video.example")
    ask(answers, "www.video.example")
    answers.rules_changed(lambda name: False)
    assert answers.answer(query("www.video.example"), 0.0) is FORWARD
    assert answers.flush() == 0


def test_what_is_ready_is_bounded(answers, monkeypatch):
    from zignet.dns import answers as module

    monkeypatch.setattr(module, "MOST_READY", 4)
    for number in range(10):
        ask(answers, f"{number}.video.example")
    assert len(answers._ready) <= 4
    answers.answer(query("x.video.example") + bytes(4000), 0.0)
    assert max(map(len, answers._ready)) < 300


# --- the zone


@pytest.mark.parametrize(
    ("name", "kind", "result", "data"),
    [
        ("admin.zignet", "A", "NOERROR", ["100.64.0.1"]),
        ("admin.zignet", "AAAA", "NOERROR", ["fd5a:6967:6e65::1"]),
        ("peer_us.zignet", "A", "NOERROR", ["100.64.0.2"]),
        ("PEER_US.ZIGNET", "A", "NOERROR", ["100.64.0.2"]),
        ("six.zignet", "AAAA", "NOERROR", ["fd5a:6967:6e65::3"]),
        ("six.zignet", "A", "NOERROR", []),
        ("admin.zignet", "TXT", "NOERROR", []),
        ("admin.zignet", "HTTPS", "NOERROR", []),
        ("zignet", "A", "NOERROR", []),
        ("zignet", "NS", "NOERROR", ["admin.zignet."]),
        ("nobody.zignet", "A", "NXDOMAIN", []),
        ("x.admin.zignet", "A", "NXDOMAIN", []),
        ("1.0.64.100.in-addr.arpa", "PTR", "NOERROR", ["admin.zignet."]),
        ("2.0.64.100.in-addr.arpa", "PTR", "NOERROR", ["peer_us.zignet."]),
        ("2.0.64.100.in-addr.arpa", "TXT", "NOERROR", []),
        ("9.0.64.100.in-addr.arpa", "PTR", "NXDOMAIN", []),
        ("64.100.in-addr.arpa", "PTR", "NOERROR", []),
        ("0.127.100.in-addr.arpa", "PTR", "NOERROR", []),
        ("9.9.19.198.in-addr.arpa", "PTR", "NXDOMAIN", []),
        (ipaddress.ip_address("fd5a:6967:6e65::2").reverse_pointer, "PTR", "NOERROR", ["peer_us.zignet."]),
        (ipaddress.ip_address("2001:2::99").reverse_pointer, "PTR", "NXDOMAIN", []),
    ],
)
@pytest.mark.parametrize("tcp", [False, True])
def test_the_zone(answers, name, kind, result, data, tcp):
    seen = ask(answers, name, kind, tcp)
    assert code(seen) == result
    assert [str(record.rdata) for record in seen.rr] == data
    if not data:  # RFC 2308 §2: the SOA says how long that holds
        assert [dnslib.QTYPE[record.rtype] for record in seen.auth] == ["SOA"]
        owner = str(seen.auth[0].rname).rstrip(".")
        assert name.lower() == owner or name.lower().endswith("." + owner)


def test_soa_of_the_apex(answers):
    seen = ask(answers, "zignet", "SOA")
    assert dnslib.QTYPE[seen.rr[0].rtype] == "SOA"
    assert str(seen.rr[0].rdata).startswith("admin.zignet. nobody.zignet.")


@pytest.mark.parametrize(
    "name",
    [
        "1.0.0.127.in-addr.arpa",
        "100.in-addr.arpa",  # only a part of it is ours
        "1.0.128.100.in-addr.arpa",
        "in-addr.arpa",
        "x.64.100.in-addr.arpa",
        "1.2.3.4.5.in-addr.arpa",
        "01.0.64.100.in-addr.arpa",
        "d.f.ip6.arpa",
        "zignet.example",
        "notzignet",
    ],
)
def test_what_is_not_ours(answers, name):
    assert answers.answer(query(name, "PTR"), 0.0) is FORWARD


def test_a_fake_address_has_a_name(answers):
    ask(answers, "www.video.example")
    for address in ("198.19.0.2", "2001:2::2"):
        seen = ask(answers, ipaddress.ip_address(address).reverse_pointer, "PTR")
        assert str(seen.rr[0].rdata) == "www.video.example."


@given(st.ip_addresses(), st.integers(1, 32))
def test_reverse_names(address, labels):
    whole = address.reverse_pointer
    width = address.max_prefixlen
    assert reverse_prefix(whole) == (int(address), width, width)
    assert reverse_name(int(address), width, width) == whole
    labels = min(labels, 4 if width == 32 else 32)
    step = 8 if width == 32 else 4
    part = reverse_name(int(address), labels * step, width)
    assert whole.endswith(part)
    start, bits, _ = reverse_prefix(part)
    assert bits == labels * step
    assert start >> (width - bits) == int(address) >> (width - bits)


# --- bad and odd messages


@pytest.mark.parametrize("message", [b"", b"x", b"\0" * 11, query("a.example", qr=1)])
def test_no_answer(answers, message):
    assert answers.answer(message, 0.0) is None


def header(id_=1, flags=0x0100, counts=(1, 0, 0, 0)):
    return struct.pack(">HHHHHH", id_, flags, *counts)


@pytest.mark.parametrize(
    ("message", "result"),
    [
        (query("a.example", opcode=4), "NOTIMP"),
        (query("a.example", opcode=5), "NOTIMP"),
        (header(counts=(0, 0, 0, 0)), "FORMERR"),
        (header(counts=(2, 0, 0, 0)) + b"\1a\0\0\1\0\1" * 2, "FORMERR"),
        (header(counts=(65535, 0, 0, 0)) + b"\0\0\1\0\1" * 800, "FORMERR"),
        (header(counts=(1, 1, 0, 0)) + b"\1a\0\0\1\0\1" + b"\0\0\1\0\1" + bytes(6), "FORMERR"),
        (header() + b"\xc0\x0c\0\1\0\1", "FORMERR"),  # a pointer to itself
        (header() + b"\1a\xc0\x0c\0\1\0\1", "FORMERR"),  # and to the name that it ends
        (header() + b"\xc0\x20\0\1\0\1", "FORMERR"),
        (header() + b"\x40\0\1\0\1", "FORMERR"),
        (header() + b"\1a", "FORMERR"),
        (header() + b"\1a\0\0", "FORMERR"),
        (header() + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1", "FORMERR"),
        (header(counts=(1, 0, 0, 1)) + b"\1a\0\0\1\0\1", "FORMERR"),
        (header(counts=(1, 0, 0, 2)) + b"\1a\0\0\1\0\1" + b"\0\0\x29\x10\0\0\0\0\0\0\0" * 2, "FORMERR"),
        (header(counts=(1, 0, 0, 65535)) + b"\1a\0\0\1\0\1", "FORMERR"),
        (query("a.example", "AXFR"), "REFUSED"),
        (header() + b"\7version\4bind\0\0\x10\0\3", "REFUSED"),  # class CHAOS
        (header() + b"\1a\0\0\1\0\xff", "REFUSED"),
    ],
)
def test_refused(answers, message, result):
    made_ = answers.answer(message, 0.0)
    assert made_[:2] == message[:2]
    assert made_[2] & 0x80
    assert dnslib.RCODE[made_[3] & 0x0F] == result
    dnslib.DNSRecord.parse(made_)


def test_badvers(answers):
    message = header(counts=(1, 0, 0, 1)) + b"\1a\0\0\1\0\1" + b"\0\0\x29\x10\0\0\7\0\0\0\0"
    made_ = answers.answer(message, 0.0)
    seen = dnslib.DNSRecord.parse(made_)
    assert seen.header.rcode == 0
    assert (seen.ar[0].edns_rcode, seen.ar[0].edns_ver) == (1, 0)  # 16 in all
    assert seen.rr == []


def test_options_are_not_kept_ready(answers):
    cookie = b"\0\x0a\0\x08" + b"12345678"
    message = header(counts=(1, 0, 0, 1)) + b"\5video\7example\0\0\1\0\1" + b"\0\0\x29\x10\0\0\0\0\0"
    answers.answer(message + struct.pack(">H", len(cookie)) + cookie, 0.0)
    assert not answers._ready
    answers.answer(message + b"\0\0", 0.0)
    assert answers._ready


def test_truncated_where_it_does_not_fit(answers, monkeypatch):
    from zignet.dns import answers as module

    monkeypatch.setattr(module, "SMALLEST", 60)
    seen = ask(answers, "nobody.zignet")
    assert (seen.header.tc, seen.rr, seen.auth) == (1, [], [])
    assert len(ask(answers, "nobody.zignet", tcp=True).auth) == 1


def test_the_longest_name(answers):
    label = "a" * 63
    name = f"{label}.{label}.{label}.{'b' * 45}.video.example"
    assert len(name) == 251
    seen = ask(answers, name)
    assert str(seen.rr[0].rdata) == "198.19.0.2"
    assert code(ask(answers, "x" * 60 + ".zignet", "HTTPS")) == "NXDOMAIN"


@pytest.mark.parametrize("message", [header(), header() + b"\xc0\x0c", query("a.example")])
def test_failures(message):
    made_ = failure(message)
    assert made_[:2] == message[:2]
    assert made_[3] & 0x0F == 2


@given(st.binary(max_size=600))
def test_any_bytes(data):
    made_ = made().answer(data, 0.0)
    assert made_ is None or made_ is FORWARD or DNS(made_).qr == 1


@given(st.data())
def test_any_damage(data):
    whole = bytearray(
        query("www.video.example", data.draw(st.sampled_from(["A", "HTTPS", "PTR", "SOA"])), edns=True)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    made_ = made().answer(bytes(whole[: data.draw(st.integers(0, len(whole)))]), 0.0)
    assert made_ is None or made_ is FORWARD or DNS(made_).qr == 1
