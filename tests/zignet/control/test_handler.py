"""Questions reach the node's methods, and nothing malformed does."""

from __future__ import annotations

from typing import Any

import pytest

from zignet.control.handler import FLOWS_PER_LINE, RequestError, handler_for


def ask(node: Any, request: dict[str, Any]) -> list[Any]:
    return list(handler_for(node)(request))


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


def test_explain(node: Any) -> None:
    request = {"do": "explain", "name": "a.example", "address": "2001:DB8::1", "port": 443, "protocol": "udp"}
    (answer,) = ask(node, request)
    assert answer["explanation"]["exit"] == "tokyo"
    assert node.questions == [{"name": "a.example", "address": "2001:db8::1", "port": 443, "protocol": "udp"}]


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
        {"do": "explain", "port": 443, "name": "x" * 256},
    ],
)
def test_malformed(node: Any, request_: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        ask(node, request_)
    assert node.questions == []
