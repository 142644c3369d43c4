"""Domains as they may stand in a resolver's configuration."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as some

from zignet.system.names import Server, routing_domains


def test_domains() -> None:
    patterns = ["ZigNet", "*.video.example", "+.a.video.example", "x.example.", "*.x.example"]
    assert routing_domains(patterns) == ("video.example", "x.example", "zignet")
    assert routing_domains(["a.example", "."]) == (".",)
    assert routing_domains(["*"]) == (".",)
    assert routing_domains([]) == ()
    assert routing_domains(["bücher.example"]) == ("xn--bcher-kva.example",)
    assert routing_domains(["64.100.in-addr.arpa", "_dns.example"]) == ("64.100.in-addr.arpa", "_dns.example")


def test_only_whole_labels_count() -> None:
    assert routing_domains(["video.example", "myvideo.example"]) == ("myvideo.example", "video.example")


def test_too_many() -> None:
    assert routing_domains(f"d{number}.example" for number in range(201)) == (".",)
    assert len(routing_domains(f"d{number}.example" for number in range(200))) == 200


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "a..b",
        "a b",
        "a/b",
        "x\nserver=1.2.3.4",
        "a#b",
        "-a.example",
        "*.*.example",
        "a" * 64,
        "..",
        "~zignet",
    ],
)
def test_no_domain(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"not a domain|label"):
        routing_domains([wrong])


@given(some.text(max_size=80))
def test_nothing_that_could_end_a_line_gets_through(text: str) -> None:
    try:
        domains = routing_domains([text])
    except ValueError:
        return
    for domain in domains:
        assert not set(domain) - set("abcdefghijklmnopqrstuvwxyz0123456789_-.")


def test_server_text() -> None:
    assert str(Server(ip_address("100.64.0.1"))) == "100.64.0.1"
    assert str(Server(ip_address("127.0.0.1"), 53530)) == "127.0.0.1:53530"
    assert str(Server(ip_address("fd00::1"), 53530)) == "[fd00::1]:53530"
