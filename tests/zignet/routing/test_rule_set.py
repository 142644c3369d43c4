"""`Rules`: against the naive evaluator, and what people are told."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat.exit import Chooser
from tests.zignet.routing.naive_rules import (
    EXITS,
    ICMP,
    NAMES,
    RULE_SETS,
    TCP,
    UDP,
    FlowKey,
    Spec,
    choose,
    flows,
    lines,
)
from zignet.exits import BUILT_IN, Block, Direct, PeerExit
from zignet.identity import SecretKey
from zignet.routing import Line, RuleError, Rules, check_lines
from zignet.routing import rules as rules_module

HOST = bytes((100, 64, 0, 1))
FAR = bytes((203, 0, 113, 9))


def make(*texts: str) -> Rules:
    return Rules.parse([Line(text, f"f:{number}") for number, text in enumerate(texts, 1)], EXITS)


def ask(rules: Rules, flow: FlowKey):
    return rules.choose(flow.protocol, flow.source, 40000, flow.target, flow.port, flow.name)


def of(protocol: int = TCP, target: bytes = FAR, port: int = 443, name: str | None = None) -> FlowKey:
    return FlowKey(protocol, HOST, target, port, name)


@given(RULE_SETS, st.lists(flows(), min_size=1, max_size=8))
def test_the_same_as_one_rule_after_the_other(specs: list[Spec], keys: list[FlowKey]):
    rules = Rules.parse(lines(specs), EXITS)
    for key in keys:
        expected = choose(specs, key)
        route = ask(rules, key)
        if expected is None:
            assert route is None
        else:
            index, way_out, by_name = expected
            assert route is not None
            assert route.rule == (specs[index].text if index < len(specs) else "default")
            assert (route.exit.name, route.by_name) == (way_out, by_name)


@given(RULE_SETS, flows(), NAMES | st.just(""))
def test_what_is_decided_without_the_name_holds_with_every_name(specs: list[Spec], key: FlowKey, name: str):
    if key.protocol == ICMP or key.protocol == 58:
        name = ""  # an echo tells none
    rules = Rules.parse(lines(specs), EXITS)
    early = ask(rules, dataclasses.replace(key, name=None))
    late = ask(rules, dataclasses.replace(key, name=name))
    assert late is not None
    assert early is None or early == late


@given(RULE_SETS, flows())
def test_an_explanation_agrees_with_the_choice(specs: list[Spec], key: FlowKey):
    rules = Rules.parse(lines(specs), EXITS)
    route = ask(rules, key)
    found = rules.explain(key.protocol, key.source, 40000, key.target, key.port, key.name)
    assert found.route == route
    assert [each.index for each in found.matches] == sorted({each.index for each in found.matches})
    for each in found.matches:
        if each.index < len(specs):
            assert specs[each.index].matches(key)
    if route is None:
        assert found.winner is None
        assert not found.at_syn
    else:
        assert found.winner is not None
        assert (found.winner.rule, found.winner.exit) == (route.rule, route.exit.name)
    if found.at_syn:
        assert found.undecided_count == 0


def test_it_is_a_chooser():
    chooser: Chooser = make("MATCH,direct")
    assert chooser.choose(TCP, HOST, 1, FAR, 2, None) is not None


@pytest.mark.parametrize("name", ["youtube.com", "www.youtube.com", "a.b.c.d.e.f.youtube.com"])
def test_a_star_is_the_name_itself_and_all_below_it(name: str):
    assert ask(make("*.youtube.com -> tokyo"), of(name=name)).exit.name == "tokyo"


@pytest.mark.parametrize("name", ["notyoutube.com", "youtube.com.evil.example", "com", "tube.com", ""])
def test_a_star_is_nothing_else(name: str):
    assert ask(make("*.youtube.com -> tokyo"), of(name=name)).rule == "default"


def test_a_name_rule_behind_a_certain_match_does_not_hold_the_flow_up():
    rules = make("IP-CIDR,203.0.113.0/24,office", "*.video.example -> tokyo", "MATCH,direct")
    assert ask(rules, of()).exit.name == "office"
    assert ask(rules, of(target=bytes(4))) is None


def test_an_echo_is_decided_at_once():
    rules = make("*.video.example -> tokyo", "MATCH,office")
    assert ask(rules, of(protocol=ICMP, port=0)).exit.name == "office"


def test_ports_are_those_of_tcp_and_udp_only():
    rules = make("DST-PORT,1-65535,block")
    assert ask(rules, of(protocol=UDP, port=53)).exit.name == "block"
    assert ask(rules, of(protocol=ICMP, port=53)).rule == "default"


def test_by_name_needs_the_name_even_where_the_rule_is_certain():
    rules = make("MATCH,office,by-name")
    assert ask(rules, of()) is None
    route = ask(rules, of(name="a.example"))
    assert (route.exit.name, route.by_name) == ("office", True)


def test_built_in_exits_need_no_configuration():
    rules = Rules.parse([Line("DOMAIN,a,REJECT", "f:1"), Line("DOMAIN,b,REJECT-DROP", "f:2")], {})
    assert isinstance(ask(rules, of(name="a")).exit, Block)
    assert isinstance(ask(rules, of(name="b")).exit, Block)
    default = ask(rules, of(name="c"))
    assert default.exit is BUILT_IN["direct"]
    assert default.rule == "default"


def test_the_exits_given_stand_before_the_built_in_ones():
    own = Direct("direct", "eth7")
    assert ask(Rules.parse([Line("MATCH,DIRECT", "f:1")], {"direct": own}), of()).exit is own


def test_names_that_are_no_domain_name_match_no_name_rule():
    rules = make("DOMAIN-KEYWORD,a,tokyo", "DOMAIN-REGEX,a,tokyo", "*.a -> tokyo")
    assert ask(rules, of(name="a." * 126 + "a")).exit.name == "tokyo"  # 253 characters
    assert ask(rules, of(name="a." * 127 + "a")).rule == "default"


def test_the_error_is_of_the_first_bad_line():
    with pytest.raises(RuleError, match=r'^f:2: unknown exit "tokio"; did you mean "tokyo"\?$') as caught:
        make("MATCH,direct", "DOMAIN,a,tokio", "nonsense")
    assert caught.value.where == "f:2"


def test_every_bad_line_is_found():
    wrong = [Line("MATCH,x", "f:1"), Line("MATCH,tokyo", "f:2"), Line("", "f:3"), Line("MATCH,REJECT", "f:4")]
    assert [error.where for error in check_lines(wrong, EXITS)] == ["f:1", "f:3"]


def test_length_counts_lines():
    assert len(make()) == 0
    assert len(make("MATCH,direct", "DOMAIN,never.reached,block")) == 2


def test_routes_kept_ready_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rules_module, "_KEPT", 3)
    rules = make(*(f"DOMAIN,n{number},tokyo" for number in range(10)))
    for number in [*range(10), *range(10)]:
        assert ask(rules, of(name=f"n{number}")).rule == f"DOMAIN,n{number},tokyo"
        assert len(rules._routes) <= 3


def test_an_explanation_for_people():
    rules = make("*.video.example -> tokyo", "DOMAIN-KEYWORD,ads,block", "IP-CIDR,203.0.113.0/24,office")
    found = rules.explain(TCP, HOST, 40000, FAR, 443, "www.video.example")
    assert found.stage == "decided after the sniff"
    assert [each.rule for each in found.matches] == [
        "*.video.example -> tokyo",
        "IP-CIDR,203.0.113.0/24,office",
        "default",
    ]
    assert [each.where for each in found.matches] == ["f:1", "f:3", ""]
    assert [each.index for each in found.undecided_by] == [0, 1]
    assert found.undecided_count == 2


def test_an_explanation_shows_a_few_of_many():
    rules = make(*(f"DOMAIN,n{number},tokyo" for number in range(500)))
    found = rules.explain(TCP, HOST, 40000, FAR, 443, None)
    assert found.undecided_count == 500
    assert len(found.undecided_by) < 20


def test_the_list_of_all_rules():
    rules = make("DOMAIN-SUFFIX,a.example,tokyo", " 10.0.0.0/8 -> direct", "MATCH,block", "DST-PORT,1,direct")
    every = list(rules.listed(0))
    assert [each.index for each in every] == [0, 1, 2, 3, 4]
    assert [each.exit for each in every] == ["tokyo", "direct", "block", "direct", "direct"]
    assert (every[1].rule, every[1].where) == ("10.0.0.0/8 -> direct", "f:2")
    assert every[-1].where == ""
    for offset in range(6):
        assert list(rules.listed(offset, 2)) == every[offset : offset + 2]


def test_whole_packets_are_for_peers():
    wrong = "IP-CIDR,203.0.113.0/24,tokyo,packet"
    message = 'packet sends whole packets, which only a peer takes, and "tokyo" is none'
    with pytest.raises(RuleError, match=message):
        make(wrong)
    lines = [
        Line(wrong, "f:1"),
        Line("203.0.113.0/24 -> us packet", "f:2"),
        Line("1.2.3.4 -> DIRECT packet", "f:3"),
    ]
    found = list(check_lines(lines, EXITS, {"us"}))
    assert [(error.where, error.message) for error in found] == [
        ("f:1", message),
        ("f:3", message.replace("tokyo", "direct")),
    ]


def test_the_route_of_a_packet():
    """Rules about names are not asked; the first of the others wins."""
    us = PeerExit("us", SecretKey(bytes(32)).public)
    lines = ["*.video.example -> tokyo", "DST-PORT,25,block", "203.0.113.0/24 -> us packet", "MATCH,office"]
    rules = Rules.parse([Line(line, "f:1") for line in lines], EXITS | {"us": us})
    far = bytes((203, 0, 113, 7))
    assert rules.whole(TCP, bytes(4), 0, far, 443).exit is us
    assert rules.whole(ICMP, bytes(4), 0, far, 0).exit is us
    assert rules.whole(TCP, bytes(4), 0, far, 25) is None
    assert rules.whole(TCP, bytes(4), 0, bytes(4), 443) is None
    assert [(prefix.length, name) for prefix, name in rules.networks] == [(24, "us")]
    assert make("203.0.113.0/24 -> tokyo").whole(TCP, bytes(4), 0, far, 443) is None
