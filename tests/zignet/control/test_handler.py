"""Questions reach the node's methods, and nothing malformed does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from zignet.control.handler import FLOWS_PER_LINE, PEERS_PER_LINE, RequestError, handler_for


def ask(node: Any, request: dict[str, Any]) -> list[Any]:
    return list(handler_for(node, lambda: node.dns)(request))


def test_status(node: Any) -> None:
    (answer,) = ask(node, {"do": "status"})
    assert answer["status"]["pid"] == 4321


def test_flows(node: Any) -> None:
    (answer,) = ask(node, {"do": "flows"})
    assert [flow["id"] for flow in answer["flows"]] == [2, 1]
    (answer,) = ask(node, {"do": "flows", "ended": True})
    assert [flow["id"] for flow in answer["flows"]] == [2, 1, 0]


def test_many_flows_come_in_many_lines(node: Any, make_flow: Any) -> None:
    node.open_flows = [make_flow(number) for number in range(FLOWS_PER_LINE * 2 + 1)]
    parts = [part["flows"] for part in ask(node, {"do": "flows"})]
    assert [len(part) for part in parts] == [FLOWS_PER_LINE, FLOWS_PER_LINE, 1]
    assert [flow["id"] for part in parts for flow in part] == list(range(FLOWS_PER_LINE * 2 + 1))


def test_a_page_of_flows(node: Any, make_flow: Any) -> None:
    node.open_flows = [make_flow(number) for number in range(9, 0, -1)]
    (answer,) = ask(node, {"do": "flows", "limit": 3})
    assert [flow["id"] for flow in answer["flows"]] == [9, 8, 7]
    (answer,) = ask(node, {"do": "flows", "limit": 3, "before": 3, "ended": True})
    assert [flow["id"] for flow in answer["flows"]] == [2, 1, 0]


def test_pulse(node: Any) -> None:
    (answer,) = ask(node, {"do": "pulse"})
    assert answer["pulse"]["flows"]["tcp"] == 2


def test_rules(node: Any) -> None:
    (answer,) = ask(node, {"do": "rules"})
    assert [rule["exit"] for rule in answer["rules"]] == ["tokyo", "direct"]
    (answer,) = ask(node, {"do": "rules", "offset": 1, "limit": 1})
    assert [rule["number"] for rule in answer["rules"]] == [1]


def test_identity(node: Any, make_peer: Any) -> None:
    (answer,) = ask(node, {"do": "identity", "of": make_peer(2)["address"]})
    assert answer["identity"]["key"] == make_peer(2)["key"]
    with pytest.raises(RequestError, match="nobody here"):
        ask(node, {"do": "identity", "of": "100.64.9.9"})


def test_identities(node: Any, make_peer: Any) -> None:
    keys = [make_peer(2)["key"], make_peer(1)["key"]] * 20
    parts = [part["identities"] for part in ask(node, {"do": "identities", "of": keys})]
    assert [len(part) for part in parts] == [25, 15]
    assert [each["key"] for part in parts for each in part] == keys


def test_admission(node: Any, make_peer: Any) -> None:
    (answer,) = ask(node, {"do": "admission", "key": make_peer(2)["key"]})
    assert answer["admission"]["allowed"] is True
    (answer,) = ask(node, {"do": "admission", "key": make_peer(7)["key"]})
    assert answer["admission"]["allowed"] is None


def test_explain(node: Any) -> None:
    request = {"do": "explain", "name": "a.example", "address": "2001:DB8::1", "port": 443, "protocol": "udp"}
    (answer,) = ask(node, request)
    assert answer["explanation"]["exit"] == "tokyo"
    assert node.questions == [{"name": "a.example", "address": "2001:db8::1", "port": 443, "protocol": "udp"}]


def test_explain_a_flow_that_there_was(node: Any) -> None:
    ask(node, {"do": "explain", "name": "a.example", "port": 443, "source_port": 40_000})
    assert node.questions[-1]["source_port"] == 40_000


def test_peers(node: Any) -> None:
    (answer,) = ask(node, {"do": "peers"})
    assert answer["peers"] == node.open_peers
    (answer,) = ask(node, {"do": "peers", "all": True})
    assert answer["peers"] == [*node.open_peers, *node.earlier_peers]
    (answer,) = ask(node, {"do": "peers", "all": "yes"})  # only what is true is true
    assert answer["peers"] == node.open_peers


def test_some_of_the_peers(node: Any) -> None:
    (answer,) = ask(node, {"do": "peers", "connected": True})
    assert answer["peers"] == node.open_peers[:1]
    (answer,) = ask(node, {"do": "peers", "all": True, "offset": 1, "limit": 5})
    assert answer["peers"] == [node.open_peers[1], *node.earlier_peers]


def test_many_peers_come_in_many_lines(node: Any, make_peer: Any) -> None:
    assert PEERS_PER_LINE == 25
    node.open_peers = [make_peer(number) for number in range(PEERS_PER_LINE * 2 + 1)]
    parts = [part["peers"] for part in ask(node, {"do": "peers"})]
    assert [len(part) for part in parts] == [25, 25, 1]
    assert [peer for part in parts for peer in part] == node.open_peers


def test_peers_are_made_as_they_are_sent(node: Any, make_peer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of 100,000 costs the loop no more at once than one line of it."""
    made = 0

    def peers(every: bool, *chosen: Any) -> Iterator[Any]:
        nonlocal made
        while True:
            made += 1
            yield make_peer(made)

    monkeypatch.setattr(node, "peers", peers)
    next(handler_for(node)({"do": "peers"}))
    assert made == PEERS_PER_LINE


def test_ping(node: Any, make_ping: Any) -> None:
    assert ask(node, {"do": "ping", "peer": "peer2"}) == [{"ping": make_ping()}]
    assert node.pinged == ["peer2"]


def test_a_ping_that_is_not_answered_yet(node: Any, make_ping: Any) -> None:
    node.pings = [None, None, make_ping(rtt_s=None)]
    assert ask(node, {"do": "ping", "peer": "peer2"}) == [{}, {}, {"ping": make_ping(rtt_s=None)}]


def test_ping_of_nobody(node: Any) -> None:
    with pytest.raises(RequestError, match="nobody here"):
        ask(node, {"do": "ping", "peer": "nobody"})


def test_dns(node: Any) -> None:
    assert ask(node, {"do": "dns"}) == [{"dns": node.dns.shown}]
    (answer,) = ask(node, {"do": "dns-why", "name": "WWW.Video.example.", "type": "aaaa"})
    assert answer["why"]["source"] == "fake"
    assert node.dns.asked == [("www.video.example", "AAAA")]
    assert ask(node, {"do": "dns-flush"}) == [{"flushed": 12}]
    assert node.dns.flushed == 1


@pytest.mark.parametrize("do", ["dns", "dns-why", "dns-flush"])
def test_no_dns(node: Any, do: str) -> None:
    node.dns = None
    with pytest.raises(RequestError, match="answers no names"):
        ask(node, {"do": do, "name": "a.example", "type": "A"})
    with pytest.raises(RequestError, match="answers no names"):
        list(handler_for(node)({"do": do}))


def test_reload(node: Any) -> None:
    assert ask(node, {"do": "reload"}) == [{"reloaded": True}]
    node.reload_error = "line 3: no"
    with pytest.raises(RequestError, match="line 3: no"):
        ask(node, {"do": "reload"})


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"do": None},
        {"do": ["status"]},
        {"do": "shutdown"},
        {"do": "explain"},
        {"do": "explain", "port": 0},
        {"do": "explain", "port": "443"},
        {"do": "explain", "port": 443, "protocol": "icmp"},
        {"do": "explain", "port": 443, "protocol": ["tcp"]},
        {"do": "explain", "port": 443, "address": "nowhere"},
        {"do": "explain", "port": 443, "address": {}},
        {"do": "explain", "port": 443, "name": 7},
        {"do": "explain", "port": 443, "source_port": 0},
        {"do": "explain", "port": 443, "source_port": "40000"},
        {"do": "explain", "port": 443, "name": "x" * 256},
        {"do": "flows", "limit": "3"},
        {"do": "flows", "before": -1},
        {"do": "peers", "offset": 1.5},
        {"do": "rules", "limit": 1 << 60},
        {"do": "identity"},
        {"do": "identity", "of": ""},
        {"do": "identities"},
        {"do": "identities", "of": "x"},
        {"do": "identities", "of": [7]},
        {"do": "identities", "of": ["x"] * 1001},
        {"do": "admission"},
        {"do": "admission", "key": "x", "proto": "sctp"},
        {"do": "admission", "key": "x", "port": 22},
        {"do": "admission", "key": "x", "proto": "icmp", "port": 22},
        {"do": "admission", "key": "x", "proto": "tcp", "port": "22"},
        {"do": "ping"},
        {"do": "ping", "peer": None},
        {"do": "ping", "peer": 7},
        {"do": "ping", "peer": ["peer2"]},
        {"do": "ping", "peer": ""},
        {"do": "ping", "peer": "x" * 256},
        {"do": "dns-why"},
        {"do": "dns-why", "name": 7, "type": "A"},
        {"do": "dns-why", "name": "x" * 256, "type": "A"},
        {"do": "dns-why", "name": "a.example"},
        {"do": "dns-why", "name": "a.example", "type": ""},
        {"do": "dns-why", "name": "a.example", "type": "x" * 17},
    ],
)
def test_malformed(node: Any, request_: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        ask(node, request_)
    assert node.questions == []
    assert node.pinged == []
    assert node.dns.asked == []


def test_the_unknown_is_told_what_there_is(node: Any) -> None:
    with pytest.raises(
        RequestError,
        match="one of status, pulse, flows, explain, peers, identity, identities, admission, policy-check, rules",
    ):
        ask(node, {"do": "peer"})


def test_a_policy_check_waits_for_its_answer(node: Any) -> None:
    lines = list(handler_for(node)({"do": "policy-check", "key": "x"}))
    assert lines[0] == {}
    assert lines[1]["decided"]["allowed"] is True
