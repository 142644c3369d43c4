"""What peers may reach on this host: whole hubs, packets made by scapy as applications would send them."""

from __future__ import annotations

import itertools
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.packet import Raw

from tests.zignet.peers.hubs import PROHIBITED, PROHIBITED6, Node, World, icmp_error, met, protocol
from zignet.identity import SecretKey
from zignet.peers.services import ANSWERED_S, MOST_ASKED, Rule, ServiceRules

TCP_, UDP_, ICMP_ = 6, 17, 1
FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["4", "6"])


@pytest.fixture
def pair(world: World) -> tuple[Node, Node]:
    """A client and a host that have met."""
    client, host = world.node("client"), world.node("host")
    met(world, client, host)
    return client, host


def serve(host: Node, *rules: Rule) -> None:
    host.hub.serve(ServiceRules(rules))


def sent(world: World, one: Node, other: Node, layer, v6: bool = False) -> list[bytes]:
    """A packet of `one` for `other`; what the other's kernel gets."""
    source, target = one.way(other, v6)
    one.give(bytes(_ip(source, target, v6) / layer))
    world.run(0.2)
    return other.take()


def _ip(source: bytes, target: bytes, v6: bool = False):
    made = {"src": str(ip_address(source)), "dst": str(ip_address(target))}
    return IPv6(**made) if v6 else IP(**made, flags="DF")


def syn(port: int, source: int = 40_000) -> TCP:
    return TCP(sport=source, dport=port, flags="S", seq=7)


@FAMILIES
def test_what_is_named_is_open_and_the_rest_is_closed_and_says_so(world, pair, v6):
    client, host = pair
    serve(host, Rule(TCP_, ((22, 22), (8000, 8100))), Rule(UDP_, ((53, 53),)))
    for port in (22, 8000, 8100):
        assert len(sent(world, client, host, syn(port), v6)) == 1
    assert len(sent(world, client, host, UDP(sport=40_000, dport=53) / b"?", v6)) == 1
    assert client.take() == []
    echo = ICMPv6EchoRequest(id=1) if v6 else ICMP(type=8, id=1)
    for layer in (syn(23), syn(7999), syn(0), syn(65_535), UDP(sport=40_000, dport=54) / b"?", echo):
        assert sent(world, client, host, layer, v6) == []
        (told,) = client.take()
        error = icmp_error(told)
        assert (error.kind, error.code) == (PROHIBITED6 if v6 else PROHIBITED)
        assert error.source == client.way(host, v6)[1]
    assert host.hub.rare._dropped["from peers: refused, forbidden"] == 6


def test_without_rules_all_is_open_and_an_empty_list_closes_all(world, pair):
    client, host = pair
    assert len(sent(world, client, host, syn(22))) == 1
    serve(host)
    assert sent(world, client, host, syn(22)) == []
    host.hub.serve(None)
    assert len(sent(world, client, host, syn(22))) == 1


def test_rules_are_about_keys(world):
    host, friend, other = world.node("host"), world.node("friend"), world.node("other")
    met(world, friend, host)
    met(world, other, host)
    serve(host, Rule(TCP_, ((22, 22),), frozenset((friend.key,))), Rule(TCP_, ((80, 80),)))
    for port, who, count in ((22, friend, 1), (22, other, 0), (80, friend, 1), (80, other, 1)):
        assert len(sent(world, who, host, syn(port))) == count


def test_whoever_comes_later_meets_the_rules_too(world):
    client, host = world.node("client"), world.node("host")
    serve(host, Rule(TCP_, ((80, 80),)))
    client.knows(host)
    host.knows(client)
    assert sent(world, client, host, syn(22)) == []
    assert len(sent(world, client, host, syn(80))) == 1


@FAMILIES
def test_answers_to_what_this_host_has_asked_come_in(world, pair, v6):
    client, host = pair
    serve(host)
    answer = UDP(sport=53, dport=50_000) / b"!"
    assert sent(world, client, host, answer, v6) == []
    client.take()
    assert len(sent(world, host, client, UDP(sport=50_000, dport=53) / b"?", v6)) == 1
    client.take()
    assert len(sent(world, client, host, answer, v6)) == 1
    assert sent(world, client, host, UDP(sport=54, dport=50_000) / b"!", v6) == []
    assert sent(world, client, host, UDP(sport=53, dport=50_001) / b"!", v6) == []
    world.run(ANSWERED_S)
    assert sent(world, client, host, answer, v6) == []
    reply = ICMPv6EchoReply(id=1) if v6 else ICMP(type=0, id=1)
    assert len(sent(world, client, host, reply, v6)) == 1


def test_connections_of_this_host_are_not_touched(world, pair):
    client, host = pair
    serve(host)
    assert len(sent(world, host, client, TCP(sport=50_000, dport=80, flags="S"))) == 1
    for flags in ("SA", "A", "PA", "FA", "R"):
        assert len(sent(world, client, host, TCP(sport=80, dport=50_000, flags=flags))) == 1


def test_icmp_errors_about_our_own_packets_come_in(world, pair):
    client, host = pair
    serve(host)
    source, target = host.way(client)
    mine = bytes(_ip(source, target) / UDP(sport=50_000, dport=9) / b"x")
    host.give(mine)
    world.run(0.2)
    (came,) = client.take()
    assert len(sent(world, client, host, ICMP(type=3, code=3) / Raw(came[:28]))) == 1


@FAMILIES
def test_a_service_that_is_taken_away_ends_its_connections(world, pair, v6):
    client, host = pair
    serve(host, Rule(TCP_, ((22, 22), (80, 80))))
    sent(world, client, host, syn(22), v6)
    segment = TCP(sport=40_000, dport=22, flags="PA", seq=100, ack=500) / b"data"
    assert len(sent(world, client, host, segment, v6)) == 1
    serve(host, Rule(TCP_, ((80, 80),)))
    assert sent(world, client, host, segment, v6) == []
    (reset,) = client.take()
    assert protocol(reset) == TCP_
    made = (IPv6 if v6 else IP)(reset)[TCP]
    assert (made.sport, made.dport, str(made.flags), made.seq) == (22, 40_000, "R", 500)
    assert len(sent(world, client, host, TCP(sport=40_000, dport=22, flags="R", seq=104), v6)) == 1
    assert len(sent(world, client, host, TCP(sport=40_000, dport=80, flags="A"), v6)) == 1


def test_what_this_host_has_begun_outlives_a_service_that_is_taken_away(world, pair):
    client, host = pair
    serve(host, Rule(TCP_, ((22, 22),)))
    sent(world, host, client, TCP(sport=50_000, dport=80, flags="S"))
    sent(world, client, host, syn(22))
    serve(host)
    ours = TCP(sport=80, dport=50_000, flags="PA") / b"data"
    theirs = TCP(sport=40_000, dport=22, flags="PA") / b"data"
    assert len(sent(world, client, host, ours)) == 1
    assert sent(world, client, host, theirs) == []
    world.run(10 * ANSWERED_S)
    assert host.link(client) is None
    assert len(sent(world, client, host, ours)) == 1
    assert sent(world, client, host, theirs) == []


def test_a_service_that_is_taken_away_while_nobody_talks(world, pair):
    client, host = pair
    serve(host, Rule(TCP_, ((22, 22),)))
    sent(world, client, host, syn(22))
    world.run(10 * ANSWERED_S)
    assert host.link(client) is None
    serve(host)
    assert sent(world, client, host, TCP(sport=40_000, dport=22, flags="PA") / b"data") == []


@FAMILIES
def test_pieces_do_not_get_around_it(world, pair, v6):
    client, host = pair
    serve(host, Rule(UDP_, ((53, 53),)))
    big = b"x" * 4_000
    for port, count in ((54, 0), (53, 1)):
        layer = UDP(sport=40_000, dport=port) / big
        source, target = client.way(host, v6)
        client.give(bytes(_ip(source, target, v6) / layer))
        world.run(0.2)
        assert len(host.take()) == count


def test_what_was_asked_is_bounded():
    services = ServiceRules(()).of(SecretKey(bytes(32)).public)
    for port in range(2 * MOST_ASKED):
        services.asks(UDP_, port, 53, 0.0)
    assert len(services._asked[1]) == MOST_ASKED
    assert not services.expects(UDP_, 0, 53, 1.0)
    assert services.expects(UDP_, 2 * MOST_ASKED - 1, 53, 1.0)


def test_a_flow_that_goes_on_is_expected_to():
    services = ServiceRules(()).of(SecretKey(bytes(32)).public)
    for now in range(0, 1_000, 100):
        services.asks(UDP_, 5, 53, now)
    assert services.expects(UDP_, 5, 53, 900 + ANSWERED_S - 1)
    assert not services.expects(UDP_, 5, 53, 900 + ANSWERED_S)
    assert not services.expects(TCP_, 5, 53, 900)


KEYS = [SecretKey(bytes((seed,)) * 32).public for seed in range(3)]
PORT = st.integers(0, 65_535)
RULES = st.lists(
    st.builds(
        Rule,
        st.sampled_from((TCP_, UDP_, ICMP_)),
        st.lists(st.tuples(PORT, PORT).map(lambda pair: tuple(sorted(pair))), max_size=3).map(tuple),
        st.none() | st.frozensets(st.sampled_from(KEYS)),
    ),
    max_size=5,
)


@given(RULES, st.sampled_from(KEYS), PORT)
def test_the_bitmaps_say_what_the_rules_say(rules, key, port):
    made = ServiceRules(rules)
    services = made.of(key)
    ports = {port, 0, 65_535, *itertools.chain(*(pair for rule in rules for pair in rule.ports))}
    for one in ports:
        for number, bits in ((TCP_, services.tcp), (UDP_, services.udp)):
            open_ = any(
                rule.protocol == number
                and (not rule.ports or any(low <= one <= high for low, high in rule.ports))
                and (rule.members is None or key in rule.members)
                for rule in rules
            )
            assert bool(bits[one >> 3] >> (one & 7) & 1) == open_
            assert (made.first(key, number, one) is not None) == open_
    assert services.icmp == (made.first(key, ICMP_, 0) is not None) or any(
        rule.protocol == ICMP_ and rule.ports for rule in rules
    )


@given(RULES, RULES)
def test_narrowed_says_whether_something_was_taken_away(before, after):
    key = KEYS[0]
    one, other = ServiceRules(before).of(key), ServiceRules(after).of(key)
    taken = other.icmp < one.icmp or any(
        was & ~now for was, now in zip(one.tcp + one.udp, other.tcp + other.udp, strict=True)
    )
    assert other.follow(one).narrowed == taken
