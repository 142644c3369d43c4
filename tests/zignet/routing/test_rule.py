"""One line to one rule."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.routing import RuleError, parse_rule
from zignet.routing.rule import (
    Always,
    Domain,
    Keyword,
    Network,
    Pattern,
    Ports,
    Prefix,
    Rule,
    Suffix,
    exit_name,
)


def v4(a: int, b: int, c: int, d: int, length: int, of_source: bool = False) -> Prefix:
    return Prefix(bytes((a, b, c, d)), length, of_source)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("DOMAIN,www.example.com,e", Rule(Domain("www.example.com"), "e", False)),
        (" domain , WWW.Example.com. , e ", Rule(Domain("www.example.com"), "e", False)),
        ("DOMAIN-SUFFIX,example.com,e", Rule(Suffix("example.com"), "e", False)),
        ("DOMAIN-SUFFIX,.example.com,e", Rule(Suffix("example.com"), "e", False)),
        ("DOMAIN-SUFFIX,+.example.com,e", Rule(Suffix("example.com"), "e", False)),
        ("DOMAIN-KEYWORD,Ads-,e", Rule(Keyword("ads-"), "e", False)),
        ("IP-CIDR,203.0.113.0/24,e", Rule(v4(203, 0, 113, 0, 24), "e", False)),
        ("IP-CIDR,203.0.113.0/24,e,no-resolve", Rule(v4(203, 0, 113, 0, 24), "e", False)),
        ("IP-CIDR,203.0.113.7,e", Rule(v4(203, 0, 113, 7, 32), "e", False)),
        ("IP-CIDR6,2001:db8::/32,e", Rule(Prefix(b"\x20\x01\x0d\xb8" + bytes(12), 32, False), "e", False)),
        ("SRC-IP-CIDR,10.0.0.0/8,e", Rule(v4(10, 0, 0, 0, 8, True), "e", False)),
        ("IP-CIDR,203.0.113.0/24,e,packet", Rule(v4(203, 0, 113, 0, 24), "e", False, True)),
        ("IP-CIDR,203.0.113.0/24,e,Packet,no-resolve", Rule(v4(203, 0, 113, 0, 24), "e", False, True)),
        ("203.0.113.0/24 -> e packet", Rule(v4(203, 0, 113, 0, 24), "e", False, True)),
        ("IP-CIDR,203.0.113.0/24,packet", Rule(v4(203, 0, 113, 0, 24), "packet", False)),
        ("DST-PORT,443,e", Rule(Ports(((443, 443),)), "e", False)),
        ("DST-PORT,80/443/8000-9000,e", Rule(Ports(((80, 80), (443, 443), (8000, 9000))), "e", False)),
        ("NETWORK,UDP,e", Rule(Network((17,)), "e", False)),
        ("NETWORK,icmp,e", Rule(Network((1, 58)), "e", False)),
        ("MATCH,e", Rule(Always(), "e", False)),
        ("DOMAIN-SUFFIX,news.example,office,by-name", Rule(Suffix("news.example"), "office", True)),
        ("*.news.example -> office by-name", Rule(Suffix("news.example"), "office", True)),
        ("*.example.com -> e", Rule(Suffix("example.com"), "e", False)),
        ("+.example.com->e", Rule(Suffix("example.com"), "e", False)),
        ("*.example.com → e", Rule(Suffix("example.com"), "e", False)),
        ("example.com -> e", Rule(Domain("example.com"), "e", False)),
        ("*.com -> e", Rule(Suffix("com"), "e", False)),
        ("142.250.0.0/16 -> e", Rule(v4(142, 250, 0, 0, 16), "e", False)),
        ("142.250.1.1 -> e", Rule(v4(142, 250, 1, 1, 32), "e", False)),
        ("2001:db8::/32 -> e", Rule(Prefix(b"\x20\x01\x0d\xb8" + bytes(12), 32, False), "e", False)),
        ("::1 -> e", Rule(Prefix(bytes(15) + b"\1", 128, False), "e", False)),
        ("* -> e", Rule(Always(), "e", False)),
        ("MATCH,🇯🇵 Tokyo 01", Rule(Always(), "🇯🇵 Tokyo 01", False)),
        ("* -> Tokyo #1", Rule(Always(), "Tokyo #1", False)),
        ("DOMAIN,bücher.example,e", Rule(Domain("xn--bcher-kva.example"), "e", False)),
        ("*.例え.テスト -> e", Rule(Suffix("xn--r8jz45g.xn--zckzah"), "e", False)),
    ],
)
def test_what_lines_mean(text: str, rule: Rule):
    assert parse_rule(text) == rule


def test_an_expression_may_hold_commas():
    rule = parse_rule(r"DOMAIN-REGEX,^a{1,3}\.example$,office,by-name")
    assert isinstance(rule.condition, Pattern)
    assert rule.condition.regex.pattern == r"^a{1,3}\.example$"
    assert (rule.exit, rule.by_name) == ("office", True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an empty rule"),
        ("nonsense", "is not a rule"),
        ("DOMAIN-SUFIX,a.b,e", 'unknown rule type "DOMAIN-SUFIX"; did you mean "DOMAIN-SUFFIX"?'),
        ("GEOIP,CN,direct", "GEOIP is not supported: there is no database"),
        ("PROCESS-NAME,curl,direct", "which process sent it"),
        ("RULE-SET,ads,block", "file: ./rules.txt"),
        ("AND,((NETWORK,udp),(DST-PORT,443)),block", "one condition"),
        ("FINAL,direct", "MATCH"),
        ("DOMAIN,a.b", "expected DOMAIN,value,exit"),
        ("MATCH,", "expected MATCH,exit"),
        ("DOMAIN,a.b,", "expected DOMAIN,value,exit"),
        ("a.b -> ", "no exit after the arrow"),
        ("DOMAIN,a.b,e,noresolve", 'unknown option "noresolve"; did you mean "no-resolve"?'),
        ("DOMAIN,a.b,e,no-resolve", "no-resolve belongs to IP-CIDR"),
        ("DOMAIN,1.2.3.4,e", "is an address; use IP-CIDR"),
        ("DOMAIN,a..b,e", "is not a domain name"),
        ("DOMAIN,,e", "is not a domain name"),
        ("DOMAIN," + "a" * 64 + ",e", "is not a domain name"),
        ("a.*.b -> e", "stands only at the very front"),
        ("straße.example -> e", "write the name as xn--"),
        ("DOMAIN-KEYWORD,,e", "match every name"),
        ("DOMAIN-KEYWORD,bücher,e", "compared in ASCII"),
        ("DOMAIN-REGEX,(,e", "not closed"),
        ("IP-CIDR,300.0.0.0/8,e", "is not an address or a network"),
        ("IP-CIDR,10.0.0.0/33,e", "0 to 32"),
        ("IP-CIDR,10.0.0.0/,e", "0 to 32"),
        ("IP-CIDR,10.0.0.0/²,e", "0 to 32"),
        ("IP-CIDR,fe80::1%eth0/64,e", "zone"),
        ("IP-CIDR,010.0.0.0/8,e", "is not an address or a network"),
        ("DST-PORT,0,e", "is not a port"),
        ("DST-PORT,65536,e", "is not a port"),
        ("DST-PORT,9-8,e", "backwards"),
        ("DST-PORT,http,e", "is not a port"),
        ("NETWORK,sctp,e", 'unknown network "sctp"'),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str):
    with pytest.raises(RuleError) as caught:
        parse_rule(text, "rules.txt:7")
    assert str(caught.value).startswith("rules.txt:7: ")
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("tokyo", "tokyo"),
        ("DIRECT", "direct"),
        ("REJECT", "block"),
        ("REJECT-DROP", "block"),
        ("block", "block"),
    ],
)
def test_exits_by_their_names_and_by_clashs(written: str, meant: str):
    assert exit_name(written, {"tokyo", "direct", "block"}) == meant


# Invariant: any text is a rule or a RuleError, nothing else.
@given(st.text() | st.text(alphabet="DOMAINCR-,*.>/:0a1 \n(", max_size=30))
def test_garbage_parses_or_is_refused(text: str):
    with suppress(RuleError):
        parse_rule(text)


@given(
    st.sampled_from(
        ["DOMAIN", "DOMAIN-SUFFIX", "DOMAIN-KEYWORD", "DOMAIN-REGEX", "IP-CIDR", "DST-PORT", "NETWORK"]
    ),
    st.text(max_size=40),
)
def test_garbage_values_parse_or_are_refused(kind: str, value: str):
    with suppress(RuleError):
        parse_rule(f"{kind},{value},direct")


@pytest.mark.parametrize(
    "line",
    [
        *("DOMAIN,www.example,e,packet", "*.example -> e packet", "* -> e packet", "MATCH,e,packet"),
        *("SRC-IP-CIDR,10.0.0.0/8,e,packet", "NETWORK,udp,e,packet", "DST-PORT,53,e,packet"),
    ],
)
def test_packet_belongs_to_addresses(line):
    with pytest.raises(RuleError, match=r"^f:1: packet belongs to IP-CIDR"):
        parse_rule(line, "f:1")


def test_a_packet_tells_no_name():
    with pytest.raises(RuleError, match="a packet tells no name"):
        parse_rule("IP-CIDR,10.0.0.0/8,e,packet,by-name")
