"""The way of a flow, told from real rules and exits."""

from __future__ import annotations

from typing import Any

import pytest

from zignet.control import Question
from zignet.control.explain import explain, explain_again, explain_stale
from zignet.exits import Direct, Http, PeerExit, Socks5
from zignet.identity import SecretKey
from zignet.routing import Line, Rules

TOKYO = Socks5("tokyo", bytes((192, 0, 2, 10)), 1080)
OFFICE = Http("office", bytes((192, 0, 2, 11)), 3128)
EXITS = {"tokyo": TOKYO, "office": OFFICE, "wan2": Direct("wan2", "eth1")}
LINES = [
    "IP-CIDR,198.51.100.0/24,wan2",
    "*.video.example -> tokyo",
    "news.example -> office by-name",
    "ads.example -> block",
    "DST-PORT,25,block",
]
RULES = Rules.parse([Line(text, f"zignet.yaml:{number}") for number, text in enumerate(LINES, 10)], EXITS)


def ask(name: str | None, address: str | None = "203.0.113.5", port: int = 443, **more: Any) -> Any:
    return explain(RULES, Question(name=name, address=address, port=port, **{"protocol": "tcp", **more}))


def text(explanation: Any) -> str:
    return "\n".join(f"{step['stage']}: {step['text']}" for step in explanation["steps"])


def test_decided_at_the_syn() -> None:
    found = ask("www.video.example", "198.51.100.7")
    assert (found["exit"], found["decided"], found["where"]) == ("wan2", "syn", "zignet.yaml:10")
    assert [step["stage"] for step in found["steps"]] == ["syn", "rule", "exit"]
    assert "from this host through eth1" in text(found)


def test_decided_after_the_sniff() -> None:
    found = ask("www.video.example")
    assert (found["exit"], found["decided"], found["rule"]) == ("tokyo", "sniff", LINES[1])
    assert (found["exit_type"], found["exit_address"]) == ("socks5", "192.0.2.10:1080")
    assert [step["stage"] for step in found["steps"]] == ["syn", "sniff", "rule", "exit"]
    assert "zignet.yaml:11: *.video.example -> tokyo and 2 more" in text(found)
    assert "SOCKS5 proxy 192.0.2.10:1080 for 203.0.113.5:443 (CONNECT)" in text(found)


def test_by_name() -> None:
    assert "for news.example:443, a name that it resolves itself" in text(ask("news.example"))


def test_names_are_compared_as_on_the_wire() -> None:
    assert ask("WWW.Video.Example.")["exit"] == "tokyo"


def test_the_default() -> None:
    found = ask("other.example")
    assert (found["exit"], found["where"]) == ("direct", "")
    assert "no rule matches" in text(found)


def test_refusals() -> None:
    blocked = ask("ads.example")
    assert blocked["refused"]
    assert "the application sees a reset" in text(blocked)
    no_udp = ask("news.example", protocol="udp")
    assert no_udp["refused"]
    assert "HTTP proxies carry no UDP" in text(no_udp)
    assert not ask("www.video.example", protocol="udp")["refused"]


def test_where_the_server_speaks_first_there_is_no_name() -> None:
    found = ask("www.video.example", port=22)
    assert found["exit"] == "direct"
    assert "the server speaks first" in text(found)
    question = Question(name="www.video.example", address="203.0.113.5", port=2200, protocol="tcp")
    assert explain(RULES, question)["exit"] == "tokyo"
    assert explain(RULES, question, server_first=(2200,))["exit"] == "direct"


def test_an_address_alone() -> None:
    found = ask(None)
    assert found["exit"] == "direct"
    assert "taken to be absent" in text(found)


@pytest.mark.parametrize("address", ["2001:db8::5", None])
def test_other_addresses(address: str | None) -> None:
    found = ask("www.video.example", address)
    assert found["exit"] == "tokyo"
    assert ("[2001:db8::5]:443" if address else "the address that the application chooses") in text(found)


def test_a_source() -> None:
    rules = Rules.parse([Line("SRC-IP-CIDR,10.0.0.0/8,tokyo", "a:1")], EXITS)
    question = Question(name=None, address="203.0.113.5", port=443, protocol="tcp")
    assert explain(rules, question)["exit"] == "direct"
    question["source"] = "10.1.2.3"
    assert explain(rules, question)["exit"] == "tokyo"


def test_the_answer_agrees_with_the_router() -> None:
    """What is told is what happens: the same exit that `choose` gives, at the same moment."""
    for name in ("www.video.example", "news.example", "ads.example", "other.example"):
        for address in ("203.0.113.5", "198.51.100.7"):
            found = ask(name, address)
            packed = bytes(int(part) for part in address.split("."))
            at_syn = RULES.choose(6, bytes((100, 64, 0, 1)), 40000, packed, 443, None)
            chosen = at_syn or RULES.choose(6, bytes((100, 64, 0, 1)), 40000, packed, 443, name)
            assert chosen is not None
            assert (found["exit"], found["decided"]) == (chosen.exit.name, "syn" if at_syn else "sniff")


def test_by_a_peer() -> None:
    """Nothing is done for it: an explanation makes no fake address."""
    key = SecretKey(bytes((5,)) * 32).public

    def stand(meaning: str, exit_name: str, size: int) -> bytes:
        raise AssertionError

    exits = {"peer_us": PeerExit("peer_us", key, stand)}
    lines = ["*.video.example -> peer_us", "IP-CIDR,203.0.113.0/24,peer_us"]
    rules = Rules.parse([Line(text, f"zignet.yaml:{number}") for number, text in enumerate(lines, 10)], exits)
    question = {"address": "203.0.113.5", "port": 443}
    for protocol in ("tcp", "udp"):
        found = explain(rules, Question(name="www.video.example", protocol=protocol, **question))  # type: ignore[typeddict-item]
        assert (found["exit"], found["exit_type"], found["refused"]) == ("peer_us", "peer", False)
        assert f"peer_us is a peer, {key.name[:8]}…: it dials www.video.example:443, a name" in text(found)
    found = explain(rules, Question(name="other.example", protocol="tcp", **question))  # type: ignore[typeddict-item]
    assert "it dials 203.0.113.5:443" in text(found)


def test_to_a_fake_address() -> None:
    """The name is known at the SYN, and rules about addresses can't match, as `FakeChooser` has it."""
    lines = ["IP-CIDR,198.19.0.0/16,block", "IP-CIDR,0.0.0.0/32,wan2", "*.video.example -> tokyo"]
    rules = Rules.parse([Line(text, f"zignet.yaml:{number}") for number, text in enumerate(lines, 10)], EXITS)
    question = Question(name="www.video.example", address="198.19.0.2", port=22, protocol="tcp")
    assert explain(rules, question)["exit"] == "block"
    lines = [lines[0], lines[2]]
    rules = Rules.parse([Line(text, f"zignet.yaml:{number}") for number, text in enumerate(lines, 10)], EXITS)
    for address in ("198.19.0.2", "2001:2::2", None):
        found = explain(rules, Question(**{**question, "address": address}), fake=True)  # type: ignore[typeddict-item]
        assert (found["exit"], found["decided"], found["where"]) == ("tokyo", "syn", "zignet.yaml:11")
        assert [step["stage"] for step in found["steps"]] == ["syn", "rule", "exit"]
        assert "a fake address tells the name with the SYN" in text(found)
        assert "for www.video.example:22, a name that it resolves itself" in text(found)


def test_to_a_fake_address_of_a_flow_that_goes_on() -> None:
    question = Question(name=None, address="198.19.0.9", port=443, protocol="tcp")
    found = explain_again(TOKYO, "www.video.example", question)
    assert (found["exit"], found["exit_type"], found["where"]) == ("tokyo", "socks5", "")
    assert "for www.video.example:443" in text(found)


def test_to_a_fake_address_that_means_nothing() -> None:
    found = explain_stale(Question(name=None, address="198.19.0.9", port=443, protocol="tcp"))
    assert found["refused"]
    assert "no name has this address" in text(found)


def test_whole_packets() -> None:
    us = PeerExit("us", SecretKey(bytes((5,)) * 32).public)
    lines = ["*.video.example -> us", "IP-CIDR,198.51.100.0/24,us,packet", "IP-CIDR,198.51.0.0/16,block"]
    rules = Rules.parse([Line(line, f"z:{number}") for number, line in enumerate(lines, 1)], {"us": us})

    def asked(name: str | None, address: str | None) -> Any:
        return explain(rules, Question(name=name, address=address, port=443, protocol="udp"))

    found = asked(None, "198.51.100.7")
    assert (found["exit"], found["decided"], found["where"]) == ("us", "packet", "z:2")
    assert [step["stage"] for step in found["steps"]] == ["packet", "rule", "exit"]
    assert "gets the packets as they are" in text(found)
    assert asked("other.example", "198.51.100.7")["decided"] == "packet"
    assert asked("www.video.example", "198.51.100.7")["where"] == "z:1"  # it has a fake address
    assert asked("other.example", None)["decided"] != "packet"
