"""The parts together: fragments, what is refused, rules that change, and an end that leaves nothing."""

import os
import socket

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6, IPv6ExtHdrFragment, fragment6

from nat import compiled_modules
from nat.flow import State
from nat.settings import Settings
from tests.nat import fuzz_engine
from tests.nat.test_gateway import FAMILIES, families, headers, like, opened
from tests.nat.test_icmp import NO_ICMP, ping
from tests.nat.test_tcp import syn_of
from tests.nat.test_udp import HOSTS, datagram
from tests.nat.world import (
    APP4,
    APP6,
    BLOCK,
    FAR4,
    Device,
    Rules,
    Way,
    read_some,
    received,
    sums_right,
    udp_server,
    world,
)

pytestmark = pytest.mark.packet_path

UNDECIDED = Rules(Way(), {"never": Way()})


def pieces_of(packet, size=600):
    """The fragments of a packet, in an order of no good."""
    if isinstance(packet, IP):
        packet.flags = 0
        cut = [bytes(piece) for piece in fragment(packet, size)]
    else:
        ip, rest = packet.copy(), packet.payload
        ip.remove_payload()
        cut = [bytes(piece) for piece in fragment6(ip / IPv6ExtHdrFragment(id=9) / rest, size)]
    assert len(cut) > 2
    return [*cut[1:], cut[0]]


@families
@headers
def test_a_fragmented_datagram_arrives_whole(family, header):
    server = udp_server(HOSTS[family])
    with world(header=header) as lab:
        payload = os.urandom(5000)
        for number in range(2):  # of a flow that is new, and of one that is known
            for piece in pieces_of(datagram(server, payload + b"%d" % number)):
                lab.device.put(piece)
            assert lab.loop.until(lambda: received(server))[0] == payload + b"%d" % number
        assert len(lab.engine.fragments) == 0
    server.close()


@families
@headers
def test_a_fragmented_segment_is_rewritten_whole(family, header):
    with world(UNDECIDED, header=header) as lab:
        flow, syn = opened(lab, family)
        lab.table.establish(flow)
        segment = FAMILIES[family]() / TCP(sport=40_000, dport=443, flags="PA") / os.urandom(2000)
        outs = []
        for piece in pieces_of(segment):
            outs += lab.give(piece)
        (out,) = outs
        assert sums_right(out.raw)
        assert out.raw == like(bytes(segment), src=syn.src, dst=syn.dst, dport=syn.dport)


def test_fragments_that_never_meet_are_forgotten():
    with world() as lab:
        lab.give(IP(src=APP4, dst=FAR4, flags="MF", id=4) / UDP() / bytes(64))
        assert len(lab.engine.fragments) == 1
        lab.engine.fragments.expire(lab.loop.now + 31.0)
        assert len(lab.engine.fragments) == 0


@pytest.mark.parametrize(
    "target", ["224.0.0.251", "239.1.2.3", "255.255.255.255", "0.0.0.0", "ff02::2", "::"]
)
def test_only_unicast_is_carried(target):
    with world() as lab:
        ip = IPv6(src=APP6, dst=target) if ":" in target else IP(src=APP4, dst=target)
        for packet in (ip / UDP(dport=5353), ip / TCP(flags="S")):
            assert lab.give(packet) == []
        assert lab.engine.dropped["multicast or broadcast"] == 2
        assert lab.rules.asked == []


@families
@pytest.mark.parametrize("protocol", [41, 47, 50, 89, 132, 253])
def test_other_protocols_are_prohibited(family, protocol):
    with world() as lab:
        packet = FAMILIES[family](**{"proto" if family == "v4" else "nh": protocol}) / bytes(32)
        (out,) = lab.give(packet)
        assert sums_right(out.raw)
        assert bytes(packet) in out.raw
        if family == "v4":
            assert (out.packet[ICMP].type, out.packet[ICMP].code) == (3, 13)
        else:
            assert out.packet[ICMPv6DestUnreach].code == 1
        assert lab.engine.dropped[f"protocol {protocol}"] == 1


@pytest.mark.parametrize(
    ("raw", "what"),
    [
        (b"\x45", "truncated"),
        (b"\x45" + bytes(27), "bad length"),
        (b"\x60" + bytes(20), "truncated"),
        (b"\x00" * 40, "bad version"),
        (b"\x41" + bytes(40), "bad header"),
        (bytes(IP(src=APP4, dst=FAR4, chksum=1) / UDP()), "bad checksum"),
    ],
)
def test_what_is_malformed_is_counted_and_dropped(raw, what):
    with world() as lab:
        assert lab.give(raw) == []
        assert lab.engine.dropped == {f"malformed: {what}": 1}


def test_flows_of_every_kind_are_listed():
    server = udp_server()
    with world(Rules(NO_ICMP, {"never": Way()})) as lab:
        lab.give(syn_of())
        lab.give(ping("v4"))
        lab.rules.default = Way("direct")
        lab.device.put(datagram(server, b"\0\0 no handshake"))
        lab.loop.until(lambda: received(server))
        flows = list(lab.engine.flows())
        assert [flow.protocol for flow in flows] == [6, 17, 1]
        assert len({flow.number for flow in flows}) == 3
    server.close()


def test_new_rules_are_for_new_flows(server):
    with world(Rules(Way("old", to=server.address))) as lab:
        lab.device.put(syn_of())
        client = lab.connect(lab.answer().packet)
        old = lab.flow()
        peer = lab.loop.until(server.accept)
        lab.loop.until(lambda: old.state == State.ESTABLISHED)
        lab.engine.choose_with(Rules(BLOCK))
        (out,) = lab.give(syn_of(sport=41_000))
        assert out.packet[TCP].flags == "RA"
        (out,) = lab.give(datagram(("203.0.113.9", 9)))
        assert out.packet[ICMP].code == 13
        (out,) = lab.give(ping("v4"))
        assert out.packet[ICMP].code == 13
        client.send(b"still here")
        assert lab.loop.until(lambda: read_some(peer)) == b"still here"
        assert old.route.exit.name == "old"
        client.close()
        peer.close()


def test_the_end_leaves_no_descriptor(server, no_leak):
    """Whatever the flows are doing: dialled, held, sniffed, relayed, pinging."""
    silent = Way("silent", to=server.address)
    target = udp_server()
    with world(Rules(silent), header=10) as lab:
        lab.device.put(syn_of(sport=1))
        client = lab.connect(lab.answer().packet)
        lab.loop.until(lambda: lab.flow().state == State.ESTABLISHED)
        for sport in (2, 3):
            lab.device.put(syn_of(sport=sport))  # dialled, or waiting for the accept
        lab.loop.turn()
        lab.rules.names = {"x": silent}
        (out,) = [out for out in lab.give(syn_of(sport=4)) if out.packet[TCP].sport == 4]
        sniffed = lab.connect(out.packet)
        lab.rules.names = {}
        lab.rules.default = Way("direct")
        lab.device.put(datagram(target))
        lab.device.put(ping("v4", "127.0.0.1"))
        lab.loop.settle()
        lab.engine.close()
        for sock in (client, sniffed, target):
            sock.close()
    while accepted := server.accept():
        accepted.close()


def test_a_packet_after_the_end_opens_nothing(no_leak):
    with world(UNDECIDED) as lab:
        lab.engine.close()
        assert lab.give(syn_of()) == []
        assert len(lab.table) == 0


def test_a_listener_that_cannot_be(no_leak):
    with world() as lab, pytest.raises(OSError, match="assign"):
        lab.engine.listen(socket.inet_aton("192.0.2.1"))


def test_limits_come_from_the_settings():
    with world(settings=Settings(flows=7, half_open=3)) as lab:
        assert (lab.table.limit, lab.table.half_open_limit) == (7, 3)


@pytest.mark.parametrize("header", [0, 10])
def test_a_device_may_have_a_header_or_not(header):
    device = Device(header)
    device.put(b"packet")
    assert os.read(device.fileno(), 100) == bytes(header) + b"packet"
    os.write(device.fileno(), bytes(header) + b"back")
    assert device.take() == (bytes(header), b"back")
    device.close()


def test_all_of_the_packet_path_is_compiled_or_none_of_it():
    """So that no run of these tests is half one and half the other."""
    assert len(set(compiled_modules().values())) == 1


@pytest.mark.parametrize("seed", [1, 2])
def test_fuzz_briefly(seed):
    dropped = fuzz_engine.run(2400, seed)
    assert len(dropped) > 20
