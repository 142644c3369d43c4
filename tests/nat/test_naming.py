"""Flows whose target's address only stands for a name: TCP, UDP and echo through the engine, by a real direct exit."""

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, IPv6

from nat.exit import Reason, Refusal, Route, UdpDirect
from tests.nat.test_race import Names
from tests.nat.world import APP4, APP6, closed_port, packed, received, sums_right, udp_server, world
from zignet.exits import BUILT_IN, Direct

pytestmark = pytest.mark.packet_path

FAKE4, FAKE6 = "198.19.0.7", "2001:2::7"
FAKES = {"v4": FAKE4, "v6": FAKE6}
V4, V6 = packed("127.0.0.1"), packed("::1")
NOWHERE = Refusal(Reason.HOST_UNREACHABLE, "it does not exist")


class ByName:
    """A chooser that knows what fake addresses stand for."""

    def __init__(self, exit_=BUILT_IN["direct"], names=None):
        self.exit = exit_
        self.names = names or {packed(FAKE4): "www.example", packed(FAKE6): "www.example"}

    def choose(self, protocol, source, source_port, target, port, name):
        fake = self.names.get(target, "")
        return Route(self.exit, "a rule", bool(fake), fake)


class Strict:
    """A direct exit that sends to some addresses only."""

    name = "strict"
    device = ""

    def __init__(self, *allowed):
        self.allowed = allowed

    def udp(self):
        return UdpDirect(may_dial=lambda address: address in self.allowed)


def lab(answer, exit_=BUILT_IN["direct"], names=None):
    made = world(ByName(exit_, names))
    names = Names({"www.example": answer} if answer is not None else {})
    return made, names


def syn(family, port, sport=40001):
    ip = IP(src=APP4, dst=FAKE4) if family == "v4" else IPv6(src=APP6, dst=FAKE6)
    return ip / TCP(sport=sport, dport=port, flags="S", seq=1000)


def hello(family, port, payload=b"hello", sport=5000, dst=None):
    ip = IP(src=APP4, dst=dst or FAKE4) if family == "v4" else IPv6(src=APP6, dst=dst or FAKE6)
    return ip / UDP(sport=sport, dport=port) / payload


both = pytest.mark.parametrize("family", ["v4", "v6"])


@both
def test_tcp_is_dialled_by_name_at_the_syn(family, server, no_leak):
    made, names = lab([V6, V4])
    with made as w:
        w.engine.resolve_with(names)
        w.device.put(syn(family, server.address[1]))
        accepted = w.loop.until(server.accept)
        out = w.answer().packet  # the held SYN goes on once the exit stands
        assert out[TCP].flags == "S"
        flow = w.flow()
        assert (flow.name, flow.known_by) == ("www.example", "dns")
        accepted.close()


@both
def test_tcp_to_a_name_that_does_not_exist(family, no_leak):
    made, names = lab(NOWHERE)
    with made as w:
        w.engine.resolve_with(names)
        (out,) = w.give(syn(family, 80))
        if family == "v4":
            assert (out.packet[ICMP].type, out.packet[ICMP].code) == (3, 1)
        else:
            assert out.packet[ICMPv6DestUnreach].code == 3
        assert list(w.engine.flows()) == []
        assert w.engine.tally.recent[-1].error == "it does not exist"


def test_tcp_refused(no_leak):
    made, names = lab([V4])
    with made as w:
        w.engine.resolve_with(names)
        w.device.put(syn("v4", closed_port()[1]))
        assert "R" in w.answer().packet[TCP].flags


def test_an_evicted_flow_asks_no_longer(no_leak):
    made, names = lab(None)
    with made as w:
        w.engine.resolve_with(names)
        w.give(syn("v4", 80))
        w.give(IP(src=APP4, dst=FAKE4) / TCP(sport=40001, dport=80, flags="S", seq=77))  # began again
        assert names.cancelled == 1
        assert len(names.waiting) == 2


@pytest.mark.parametrize("later", [False, True], ids=["known", "looked up"])
@both
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_udp(family, host, later, no_leak):
    """Whatever family the name leads to, the application is answered by the address that it asked."""
    server = udp_server(host)
    made, names = lab(None if later else [packed(host)])
    with made as w:
        w.engine.resolve_with(names)
        port = server.getsockname()[1]
        w.device.put(hello(family, port, b"one"))
        if later:
            w.device.put(hello(family, port, b"two"))
            w.loop.settle()
            assert received(server) is None
            names.waiting[0]([packed(host)])
        data, sender = w.loop.until(lambda: received(server))
        assert data == b"one"
        if later:
            assert received(server)[0] == b"two"
        server.sendto(b"answer", sender)
        out = w.answer().packet
        assert sums_right(bytes(out))
        assert (out.src, out[UDP].sport, bytes(out[UDP].payload)) == (FAKES[family], port, b"answer")
        w.device.put(hello(family, port, b"more"))
        assert w.loop.until(lambda: received(server)) == (b"more", sender)
        assert len(names.waiting) == later  # once for each flow
        assert w.flow().answered
    server.close()


def test_two_names_at_one_address_are_told_apart(no_leak):
    server = udp_server()
    port = server.getsockname()[1]
    names = {packed("198.19.0.7"): "a.example", packed("198.19.0.8"): "b.example"}
    with world(ByName(names=names)) as w:
        w.engine.resolve_with(Names({"a.example": [V4], "b.example": [V4]}))
        for fake in ("198.19.0.7", "198.19.0.8"):
            w.device.put(hello("v4", port, fake.encode(), dst=fake))
        for fake in ("198.19.0.7", "198.19.0.8"):
            data, sender = w.loop.until(lambda: received(server))
            assert data == fake.encode()
            server.sendto(b"to you", sender)
            assert w.answer().packet.src == fake
        assert len(w.engine.mappings) == 2
    server.close()


@both
def test_udp_to_a_name_that_does_not_exist(family, no_leak):
    made, names = lab(None)
    with made as w:
        w.engine.resolve_with(names)
        w.give(hello(family, 443))
        names.waiting[0](NOWHERE)
        out = w.answer().packet
        if family == "v4":
            assert (out[ICMP].type, out[ICMP].code) == (3, 1)
        else:
            assert (out[ICMPv6DestUnreach].type, out[ICMPv6DestUnreach].code) == (1, 3)
        assert list(w.engine.flows()) == []
        names.answers["www.example"] = NOWHERE  # and where that is known at once
        (out,) = w.give(hello(family, 443))
        assert out.packet.dst in (APP4, APP6)
        assert list(w.engine.flows()) == []


def test_udp_port_unreachable_of_the_other_family(no_leak):
    made, names = lab([V6])
    with made as w:
        w.engine.resolve_with(names)
        w.device.put(hello("v4", closed_port("::1")[1]))
        out = w.answer().packet
        assert (out[ICMP].type, out[ICMP].code) == (3, 3)


def test_udp_sends_only_where_it_may(no_leak):
    server = udp_server()
    port = server.getsockname()[1]
    made, names = lab([V6, V4], Strict(V4))
    with made as w:
        w.engine.resolve_with(names)
        w.device.put(hello("v4", port))
        assert w.loop.until(lambda: received(server))
        (out,) = w.give(hello("v4", port, dst="127.0.0.5"))  # an address, not a name
        assert (out.packet[ICMP].type, out.packet[ICMP].code) == (3, 13)
        (out,) = w.give(hello("v4", port, dst="127.0.0.5", sport=6000))
        assert out.packet[ICMP].code == 13
    made, names = lab([V6], Strict(V4))
    with made as w:
        w.engine.resolve_with(names)
        (out,) = w.give(hello("v4", port))
        assert (out.packet[ICMP].type, out.packet[ICMP].code) == (3, 13)
    server.close()


def test_what_waits_is_bounded(no_leak):
    made, names = lab(None)
    with made as w:
        w.engine.resolve_with(names)
        for _ in range(40):
            w.give(hello("v4", 443, bytes(1000)))
        assert w.engine.dropped["udp: the name is not resolved yet"] == 8


def test_an_idle_flow_asks_no_longer(no_leak):
    made, names = lab(None)
    with made as w:
        w.engine.resolve_with(names)
        w.give(hello("v4", 443))
        w.loop.pass_time(100)
        assert names.cancelled == 1


def test_nobody_resolves(no_leak):
    with world(ByName()) as w:
        (out,) = w.give(hello("v4", 443))
        assert out.packet[ICMP].type == 3


def test_an_echo_to_a_fake_address_is_answered_here(no_leak):
    with world(ByName()) as w:
        (out,) = w.give(IP(src=APP4, dst=FAKE4) / ICMP(type=8, id=3, seq=1) / b"ping")
        assert (out.packet.src, out.packet[ICMP].type) == (FAKE4, 0)
        (out,) = w.give(IPv6(src=APP6, dst=FAKE6) / ICMPv6EchoRequest(id=3, seq=1, data=b"ping"))
        assert out.packet.src == FAKE6


def test_a_direct_exit_resolves_only_what_has_no_address():
    direct = Direct()
    named = Route(direct, "", True, "www.example").target(packed(FAKE4), 443, "")
    assert direct.tcp(named).name == "www.example"
    sniffed = Route(direct, "", True).target(V4, 443, "www.example")
    assert direct.tcp(sniffed).address == V4


class StandIn:
    """An exit whose datagrams go to another address of its choice."""

    name = "stand-in"

    def __init__(self, answer, ports=()):
        self.answer = answer
        self.ports = frozenset(ports)
        self.asked = []

    def tcp(self, target):
        raise AssertionError

    def udp(self):
        return UdpDirect(ports=self.ports, stand_in=self.stand_in)

    def stand_in(self, target):
        self.asked.append(target)
        return self.answer


@both
def test_datagrams_by_way_of_another_address(family, no_leak):
    host = "127.0.0.1" if family == "v4" else "::1"
    server = udp_server(host)
    port = server.getsockname()[1]
    exit_ = StandIn(packed(host))
    with world(ByName(exit_, {})) as w:
        w.device.put(hello(family, port, b"one"))
        data, sender = w.loop.until(lambda: received(server))
        server.sendto(b"answer", sender)
        out = w.answer().packet
        assert sums_right(bytes(out))
        assert (data, out.src, out[UDP].sport) == (b"one", FAKES[family], port)
        assert [(target.address, target.name) for target in exit_.asked] == [
            (packed(FAKES[family]), "www.example")
        ]
    server.close()


def test_every_target_of_one_source_has_the_stand_in(no_leak):
    """A resolver asks all of its servers from one socket; each answer comes from the server that was asked."""
    server = udp_server()
    port = server.getsockname()[1]
    exit_ = StandIn(V4)
    targets = ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.2"]
    with world(ByName(exit_)) as w:
        for target in targets:
            w.device.put(IP(src=APP4, dst=target) / UDP(sport=40001, dport=port) / target.encode())
            data, sender = w.loop.until(lambda: received(server))
            server.sendto(b"answer to " + data, sender)
            out = w.answer().packet
            assert (data.decode(), out.src, out[UDP].load) == (target, target, b"answer to " + data)
        assert len(w.engine.udp.flows) == len(w.engine.mappings) == 3
    assert [target.address for target in exit_.asked] == [packed(target) for target in targets[:3]]
    server.close()


def test_a_stand_in_may_refuse(no_leak):
    with world(ByName(StandIn(Refusal(Reason.HOST_UNREACHABLE, "none is left")), {})) as w:
        w.device.put(hello("v4", 53))
        assert w.answer().packet[ICMP].code == 1


def test_ports_that_are_not_offered(no_leak):
    with world(ByName(StandIn(V4, ports=(53,)), {})) as w:
        w.device.put(hello("v4", 54))
        assert w.answer().packet[ICMP].code == 13
        assert w.rules.exit.asked == []


def test_an_address_as_a_name(no_leak):
    """It is not resolved, but the exit is asked whether it may."""
    server = udp_server()
    port = server.getsockname()[1]
    with world(ByName(Strict(V4), {packed(FAKE4): "127.0.0.1"})) as w:
        w.device.put(hello("v4", port, b"one"))
        assert w.loop.until(lambda: received(server))[0] == b"one"
    with world(ByName(Strict(), {packed(FAKE4): "127.0.0.1"})) as w:
        w.device.put(hello("v4", port, b"two"))
        assert w.answer().packet[ICMP].code == 13
        assert received(server) is None
    server.close()
