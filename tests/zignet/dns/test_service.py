"""HTTPS and SVCB records without what leads past a fake address, against the words of RFC 9460."""

import struct

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.zignet.dns.test_answers import code, is_fake, made, query
from zignet.dns.answers import SERVICE
from zignet.dns.service import services_in
from zignet.dns.wire import encode_name, make_query

NAME = "www.video.example"
KIND = {"HTTPS": 65, "SVCB": 64}
RICH = (
    "1 . alpn=h2,h3 port=8443 ipv4hint=192.0.2.1,192.0.2.2 echconfig=AAAA ipv6hint=2001:db8::1 key65400=xyz"
)


def answer(*lines, kind="HTTPS", name=NAME, rcode=0, **flags):
    """As a name server gives it, from the lines of a zone file; `@` is the name."""
    reply = dnslib.DNSRecord.parse(make_query(name, KIND[kind])).reply()
    for line in lines:
        reply.add_answer(*dnslib.RR.fromZone(line.replace("@", f"{name}.", 1)))
    reply.header.rcode = rcode
    for flag, value in flags.items():
        setattr(reply.header, flag, value)
    return bytes(reply.pack())


def raw(*datas, kind="HTTPS", name=NAME):
    """With these RDATA."""
    reply = dnslib.DNSRecord.parse(make_query(name, KIND[kind])).reply()
    for data in datas:
        reply.add_answer(dnslib.RR(name, KIND[kind], ttl=60, rdata=dnslib.RD(data)))
    return bytes(reply.pack())


def data(priority, target, params):
    """RDATA (§2.2)."""
    pairs = b"".join(struct.pack(">HH", key, len(value)) + value for key, value in params)
    return struct.pack(">H", priority) + encode_name(target) + pairs


def shown(found):
    """As dnslib writes records."""
    return [str(dnslib.HTTPS.parse(dnslib.DNSBuffer(each.data), len(each.data))) for each in found]


def test_hints_and_ech_go_and_all_else_stays():
    (found,) = services_in(answer(f"@ 60 HTTPS {RICH}"), is_fake)
    assert found.ttl == 60
    assert shown([found]) == ["1 . alpn=h2,h3 port=8443 key65400=xyz"]


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (["@ 60 HTTPS 1 . alpn=h2", "@ 60 HTTPS 2 . alpn=h3 ipv4hint=192.0.2.1"], ["1 . alpn=h2", "2 . alpn=h3"]),
        (["@ 60 HTTPS 0 cdn.video.example."], ["0 cdn.video.example."]),  # it has fake addresses, too
        (["@ 60 HTTPS 0 cdn.other.example."], []),
        (["@ 60 HTTPS 1 cdn.other.example. alpn=h2", "@ 60 HTTPS 2 . alpn=h2"], ["2 . alpn=h2"]),
        (["@ 60 HTTPS 0 ."], ["0 ."]),  # there is no such service (§2.5.1)
        (["@ 60 HTTPS 1 . mandatory=alpn alpn=h2"], ["1 . mandatory=alpn alpn=h2"]),
        (["@ 60 HTTPS 1 . mandatory=echconfig echconfig=AAAA"], []),
        (["@ 60 HTTPS 1 . mandatory=alpn,ipv4hint alpn=h2 ipv4hint=192.0.2.1"], []),
        (["x.example 60 HTTPS 1 . alpn=h2"], []),  # of somebody else
        (["@ 60 A 192.0.2.1"], []),
        ([], []),
    ],
)  # fmt: skip
def test_what_is_left(lines, left):
    assert shown(services_in(answer(*lines), is_fake)) == left


def test_an_alias_is_followed_and_its_service_is_the_name_s():
    lines = (
        "@ 40 CNAME a.cdn.example.",
        "a.cdn.example 90 CNAME b.cdn.example.",
        f"b.cdn.example 70 HTTPS {RICH}",
    )
    (found,) = services_in(answer(*lines), is_fake)
    assert (found.ttl, found.data[:3]) == (40, b"\0\1\0")


def test_aliases_in_a_circle():
    assert services_in(answer("@ 40 CNAME a.example.", "a.example 40 CNAME @"), is_fake) == []


@pytest.mark.parametrize("flags", [{"rcode": 3}, {"rcode": 2}, {"tc": 1}])
def test_answers_that_say_nothing(flags):
    assert services_in(answer(f"@ 60 HTTPS {RICH}", **flags), is_fake) == []


def test_it_lasts_no_longer_than_rules_may():
    (found,) = services_in(answer("@ 86400 HTTPS 1 . alpn=h2"), is_fake)
    assert found.ttl == 300


GOOD = data(1, "", [(1, b"\x02h2")])


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\0\1",
        b"\0\1\xc0\x0c",  # a compressed target
        b"\0\1\xc0\x0e",
        b"\0\1\3abc",
        GOOD + b"\0",
        GOOD + b"\0\3\0\2\1",
        data(1, "", [(3, b"\0\1"), (1, b"\x02h2")]),  # not in order
        data(1, "", [(1, b"\x02h2"), (1, b"\x02h2")]),
        data(1, "", [(0, b"")]),
        data(1, "", [(0, b"\0\4\0")]),
        data(1, "www.other.example", [(3, b"\0\1"), (1, b"")]),
        data(0, "", [(3, b"\0\1"), (1, b"")]),
    ],
)
def test_a_malformed_record_spoils_the_set(bad):
    assert services_in(raw(GOOD), is_fake)
    assert services_in(raw(GOOD, bad), is_fake) == []


PARAMS = st.dictionaries(st.integers(1, 65_535) | st.integers(1, 9), st.binary(max_size=40), max_size=8)
TARGETS = st.sampled_from(["", "cdn.video.example", "cdn.other.example"])


@given(st.lists(st.tuples(st.integers(0, 3), TARGETS, PARAMS), max_size=6), st.sampled_from(sorted(KIND)))
def test_against_the_words(records, kind):
    expected = [
        data(
            priority,
            target,
            sorted((key, value) for key, value in params.items() if priority and key not in (4, 5, 6)),
        )
        for priority, target, params in records
        if target != "cdn.other.example"
    ]
    given_ = raw(
        *(data(priority, target, sorted(params.items())) for priority, target, params in records), kind=kind
    )
    assert [each.data for each in services_in(given_, is_fake)] == expected


# --- as an answer


@pytest.mark.parametrize("kind", sorted(KIND))
@pytest.mark.parametrize("edns", [False, True])
def test_an_answer(kind, edns):
    answers = made()
    asked = query("wWw.Video.example", KIND[kind], edns=edns, id=0xBEEF)
    assert answers.answer(asked, 0.0) is SERVICE
    message = answers.service_query(asked)
    assert message == b"\0\0\1\0\0\1" + bytes(6) + asked[12 : len(message)]
    upstream = raw(data(1, "", [(1, b"\x02h3"), (4, bytes(4))]), kind=kind)
    upstream = upstream[:3] + bytes((upstream[3] | 0x20,)) + upstream[4:]  # AD: it was signed
    seen = dnslib.DNSRecord.parse(answers.service(asked, upstream))
    assert (seen.header.id, code(seen), seen.header.aa, seen.header.ad) == (0xBEEF, "NOERROR", 0, 0)
    assert str(seen.q.qname) == "wWw.Video.example."
    (record,) = seen.rr
    assert (str(record.rname), record.rtype, record.ttl) == ("wWw.Video.example.", KIND[kind], 60)
    assert len(seen.ar) == edns
    assert b"\x02h3" in answers.service(asked, upstream)


@pytest.mark.parametrize("upstream", [None, b"", b"\0" * 12, answer(), answer(rcode=2), raw(b"\0")])
def test_without_an_answer_there_is_no_data(upstream):
    seen = dnslib.DNSRecord.parse(made().service(query(NAME, "HTTPS"), upstream))
    assert (code(seen), seen.rr, dnslib.QTYPE[seen.auth[0].rtype]) == ("NOERROR", [], "SOA")


def test_what_does_not_fit_comes_by_tcp():
    answers = made()
    large = raw(*(data(number, "", [(65_400, bytes(200))]) for number in range(1, 9)))
    for edns in (False, True):
        asked = query(NAME, "HTTPS", edns=edns)
        short = answers.service(asked, large)
        seen = dnslib.DNSRecord.parse(short)
        assert (seen.header.tc, seen.rr, seen.auth, len(seen.ar)) == (1, [], [], edns)
        assert len(dnslib.DNSRecord.parse(answers.service(asked, large, tcp=True)).rr) == 8


def test_so_many_and_no_more():
    many = raw(*(data(number, "", []) for number in range(1, 200)))
    assert len(services_in(many, is_fake)) == 64
