"""The exit that is a peer: fake addresses for names and addresses, each by this exit."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

import pytest

from nat.exit import Dial, Refusal, Target, UdpDirect
from zignet.config import Config, ConfigError, parse_config
from zignet.config.members import members_of
from zignet.config.offer import ALL
from zignet.dns.fakes import Fakes
from zignet.exits import Direct, build_exits
from zignet.exits.peer import PeerExit, lead, standing
from zignet.identity import SecretKey
from zignet.routing import build_rules

KEY, OTHER = (SecretKey(bytes((seed,)) * 32).public for seed in (5, 6))


class Journal:
    def reserve(self, ceiling: int) -> None: ...

    def release(self, numbers: object) -> None: ...

    def assigned(self, number: int, key: str, wall: int) -> None: ...


@pytest.fixture
def fakes() -> Fakes:
    return Fakes(IPv4Network("198.19.0.0/28"), IPv6Network("2001:2::/64"), Journal(), lambda: 1000.0)


def test_the_same_name_by_two_exits_has_two_addresses(fakes: Fakes) -> None:
    us, jp = (PeerExit(name, KEY) for name in ("us", "jp"))
    lead([us, Direct(), jp], fakes)
    plans = [exit_.tcp(Target(bytes(4), 443, "www.example")) for exit_ in (us, jp, us)]
    assert plans[0] == plans[2] != plans[1]
    assert isinstance(plans[0], Dial)
    assert (plans[0].port, fakes.lookup(plans[0].address)) == (443, ("www.example", "us"))


def test_an_address_stays_of_its_family(fakes: Fakes) -> None:
    exit_ = PeerExit("us", KEY, standing(fakes))
    plan = exit_.tcp(Target(bytes((203, 0, 113, 5)), 80))
    assert isinstance(plan, Dial)
    assert fakes.lookup(plan.address) == ("203.0.113.5", "us")
    plan = exit_.tcp(Target(bytes.fromhex("20010db8") + bytes(11) + b"\5", 80))
    assert isinstance(plan, Dial)
    assert (len(plan.address), fakes.lookup(plan.address)) == (16, ("2001:db8::5", "us"))
    udp = exit_.udp()
    assert isinstance(udp, UdpDirect)
    assert udp.stand_in is not None
    assert udp.stand_in(Target(bytes((203, 0, 113, 5)), 80)) == fakes.address4(2)


def test_names_that_are_none(fakes: Fakes) -> None:
    """Off the wire, from anybody: with a space in it, it would be a name and an exit."""
    exit_ = PeerExit("us", KEY, standing(fakes))
    for name in ("a b", "x jp", "", "a" * 256, "\0"):
        plan = exit_.tcp(Target(bytes((203, 0, 113, 5)), 80, name))
        assert isinstance(plan, Dial)
        assert fakes.lookup(plan.address) == ("203.0.113.5", "us")
        assert isinstance(exit_.tcp(Target(bytes(4), 80, name, only_name=True)), Refusal)
    plan = exit_.tcp(Target(bytes(4), 80, "WWW.Example"))
    assert isinstance(plan, Dial)
    assert fakes.lookup(plan.address) == ("www.example", "us")


def test_without_addresses_it_is_refused(fakes: Fakes) -> None:
    assert isinstance(PeerExit("us", KEY).tcp(Target(bytes(4), 443, "a")), Refusal)
    exit_ = PeerExit("us", KEY, standing(fakes))
    plans = [exit_.tcp(Target(bytes(4), 443, f"name{number}")) for number in range(20)]
    assert isinstance(plans[-1], Refusal)  # the pool is full


# the configuration

PEERS = f"peers: [{{name: peer_us, key: {KEY}}}, {{name: peer_jp, key: {OTHER}}}]\n"


def config(text: str) -> Config:
    return parse_config(PEERS + text)


def test_each_peer_is_an_exit_by_its_name() -> None:
    made = config("routes: ['*.video.example -> peer_us', 'IP-CIDR,198.51.100.0/24,peer_jp,no-resolve']\n")
    exits = build_exits(made)
    assert exits["peer_us"] == PeerExit("peer_us", KEY)
    assert {exits["peer_us"]: 1}[PeerExit("peer_us", KEY)] == 1  # mappings are found by their exit
    assert exits["peer_jp"].kind == "peer"
    route = build_rules(made, exits).choose(6, bytes(4), 1, bytes(4), 443, "www.video.example")
    assert route is not None
    assert route.exit is exits["peer_us"]
    assert (
        route.target(bytes(4), 443, "www.video.example").name == "www.video.example"
    )  # the peer resolves it
    far = bytes((198, 51, 100, 9))
    route = build_rules(made, exits).choose(6, bytes(4), 1, far, 443, "other.example")
    assert route is not None
    assert route.target(far, 443, "other.example").name is None  # the rule is about the address
    assert list(build_exits(config("routes: ['MATCH,peer_jp']\n"))) == ["direct", "block", "peer_jp"]
    with pytest.raises(ConfigError, match=r'unknown exit "peer_uk"; did you mean "peer_us"'):
        config("routes: ['*.x -> peer_uk']\n")


def test_who_may_exit_here() -> None:
    made = config(f"exit: {{allow: [Peer_US, {OTHER.hex}], ports: [443], private: true, udp: false}}\n")
    assert (made.exit.ports, made.exit.private, made.exit.tcp, made.exit.udp) == ((443,), True, True, False)
    members = members_of(made.exit.allow, made.peers, {})
    assert members is not None
    assert members.keys == {KEY, OTHER}
    assert made.to_json()["exit"]["allow"] == ["Peer_US", OTHER.hex]
    assert config("").exit.allow == config("exit: {allow: none}\n").exit.allow == ()
    assert config("exit: {allow: all}\n").exit.allow == ALL


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exit: {allow: [peer_uk]}", 'exit.allow: "peer_uk" is neither the name of a peer, nor a key'),
        ("exit: {allow: some}", "exit.allow: expected a list"),
        ("exit: {ports: [0]}", "exit.ports"),
        ("exit: {alow: all}", 'did you mean "allow"'),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        config(text + "\n")
    assert message in str(error.value)
