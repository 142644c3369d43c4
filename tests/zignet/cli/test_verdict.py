"""Where a probe failed and what to do: a sentence for each; the node's word goes before the socket's."""

from __future__ import annotations

from typing import Any

import pytest

from zignet.cli.probe import Stage, Trouble
from zignet.cli.verdict import Case, verdict

WAY: dict[str, Any] = {
    "rule": "*.video.example -> us",
    "where": "zignet.yaml:9",
    "exit": "us",
    "exit_type": "peer",
    "exit_address": "abcdefgh",
    "decided": "syn",
    "refused": False,
    "steps": [],
}


def told(make_peer: Any, step: Any, kind: Any, **more: Any) -> str:
    settings: dict[str, Any] = {
        "far": "www.video.example",
        "port": 443,
        "live": True,
        "enters": True,
        "error": "",
        "silent": "",
    }
    state = more.pop("state", "connected")
    way = {**WAY, "peer": make_peer(1, name="us", state=state), **more.pop("way", {})}
    case = Case(explanation=way, **{**settings, **more})  # type: ignore[arg-type]
    return verdict(Stage(step, 0.1, "", Trouble(kind, more.get("text", "no answer within 10 s"))), case)


@pytest.mark.parametrize(
    ("step", "kind", "more", "part"),
    [
        ("connect", "refused", {}, "the server there refused the connection"),
        ("connect", "refused", {"error": "the exit does not allow it"}, "its `exit` section leaves out"),
        ("connect", "refused", {"state": "connecting"}, "The peer us is not connected at 203.0.113.9:51830"),
        ("connect", "unreachable", {}, "us finds no address for www.video.example"),
        ("connect", "unreachable", {"state": "idle"}, "`zignet ping us` says why"),
        (
            "connect",
            "unreachable",
            {"error": "us is not reachable"},
            "The peer us does not answer (it is silent)",
        ),
        ("connect", "no route", {}, "us has no route to"),
        ("connect", "timeout", {}, "us is connected, and has not answered"),
        ("connect", "timeout", {"silent": "timed out"}, "The peer us does not answer (timed out)"),
        ("tls", "reset", {"error": "reset by the far end"}, "says of this flow: reset by the far end"),
        ("tls", "closed", {}, "It may speak no TLS, or not serve www.video.example"),
        ("tls", "timeout", {}, "stands, but there was no answer within 10 s to the TLS handshake"),
        ("tls", "tls", {}, "Something else than TLS"),
        ("first_byte", "timeout", {}, "to the request"),
        ("first_byte", "nonsense", {}, "the request failed"),
    ],
)
def test_through_a_peer(make_peer: Any, step: str, kind: str, more: dict[str, Any], part: str) -> None:
    assert part in told(make_peer, step, kind, **more)


@pytest.mark.parametrize(
    ("step", "kind", "more", "part"),
    [
        ("connect", "refused", {}, "nothing listens there"),
        ("connect", "unreachable", {}, "no way to it"),
        ("connect", "forbidden", {}, "forbids it"),
        ("connect", "timeout", {}, "the server is silent"),
        ("connect", "other", {}, "port 443: "),
        ("tls", "reset", {"error": "SOCKS5 proxy: host unreachable"}, "tokyo has failed: SOCKS5 proxy: host"),
        ("connect", "refused", {"live": False}, "did not go through ZigNet"),
        ("connect", "refused", {"enters": False}, "did not go through ZigNet"),
    ],
)
def test_other_ways(make_peer: Any, step: str, kind: str, more: dict[str, Any], part: str) -> None:
    way = {"exit": "tokyo", "exit_type": "socks5", "exit_address": "192.0.2.10:1080", "peer": None}
    text = told(make_peer, step, kind, way=way, **more)
    assert part in text
    if more.get("error"):
        assert "The proxy is 192.0.2.10:1080" in text


def test_a_rule_that_refuses(make_peer: Any) -> None:
    way = {"exit": "block", "exit_type": "block", "refused": True, "peer": None}
    text = told(make_peer, "connect", "refused", way=way)
    assert "*.video.example -> us (zignet.yaml:9) leads it to block" in text


def test_a_peers_own_address(make_peer: Any) -> None:
    way = {"exit": "direct", "exit_type": "direct"}
    assert "us refused the connection" in told(make_peer, "connect", "refused", way=way, enters=False)
    text = told(make_peer, "connect", "unreachable", way=way, enters=False, state="idle")
    assert "The peer us is not connected" in text


def test_what_strangers_say_is_printable(make_peer: Any) -> None:
    way = {"exit": "tokyo", "exit_type": "http", "peer": None}
    assert "\x1b" not in told(make_peer, "tls", "reset", way=way, error="\x1b[2J")
