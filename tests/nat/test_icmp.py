"""Pings through the engine, and errors that find the flow that they belong to."""

import os

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, TCPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPerror6,
    IPv6,
)
from scapy.utils import checksum

from nat.exit import Reason, Refusal
from nat.icmp import ECHOES
from tests.nat.test_gateway import families, opened
from tests.nat.test_udp import HOSTS, datagram
from tests.nat.world import (
    APP4,
    APP6,
    BLOCK,
    FAR4,
    FAR6,
    Rules,
    Way,
    packed,
    received,
    sums_right,
    udp_server,
    world,
)

pytestmark = pytest.mark.packet_path

NO_ICMP = Way("proxy", to=("127.0.0.1", 1), datagrams=Refusal(Reason.PROHIBITED))  # carries TCP only
UNDECIDED = Rules(Way(), {"never": Way()})


def ping(family, far=None, identifier=77, sequence=3, data=b"are you there?", **ip):
    if family == "v4":
        return IP(src=APP4, dst=far or FAR4, **ip) / ICMP(id=identifier, seq=sequence) / data
    return IPv6(src=APP6, dst=far or FAR6, **ip) / ICMPv6EchoRequest(id=identifier, seq=sequence, data=data)


def reply_of(out):
    """(source, target, identifier, sequence, data) of an echo reply."""
    packet = out.packet
    assert sums_right(out.raw)
    if packet.version == 4:
        assert packet[ICMP].type == 0
        return packet.src, packet.dst, packet[ICMP].id, packet[ICMP].seq, bytes(packet[ICMP].payload)
    reply = packet[ICMPv6EchoReply]
    return packet.src, packet.dst, reply.id, reply.seq, reply.data


@families
def test_an_exit_without_icmp_is_answered_for_here(family):
    with world(Rules(NO_ICMP), header=10) as lab:
        for sequence in range(3):
            (out,) = lab.give(ping(family, sequence=sequence))
            app, far = (APP4, FAR4) if family == "v4" else (APP6, FAR6)
            assert reply_of(out) == (far, app, 77, sequence, b"are you there?")
            assert out.header == bytes(10)
        flow = lab.flow()
        assert (flow.up, flow.down) == (42, 42)
        assert flow.route.rule == "to proxy"
        lab.loop.pass_time(31.0)
        assert list(lab.engine.flows()) == []
        assert lab.engine.tally.of("proxy").flows == 1


@families
def test_block_prohibits(family):
    with world(Rules(BLOCK)) as lab:
        packet = ping(family)
        (out,) = lab.give(packet)
        assert sums_right(out.raw)
        assert bytes(packet) in out.raw
        if family == "v4":
            assert (out.packet[ICMP].type, out.packet[ICMP].code) == (3, 13)
        else:
            assert out.packet[ICMPv6DestUnreach].code == 1
        assert list(lab.engine.flows()) == []
        assert lab.rules.asked == [
            (1 if family == "v4" else 58, packet.src, 0, packet.dst, 0, ""),
        ]


def test_pings_at_once_are_bounded():
    raw = bytearray(bytes(ping("v4"))[:28])
    with world(Rules(NO_ICMP)) as lab:
        for identifier in range(ECHOES + 20):
            raw[2:4], raw[10:12], raw[24:26] = b"\0\x1c", b"\0\0", identifier.to_bytes(2, "big")
            raw[10:12] = checksum(bytes(raw[:20])).to_bytes(2, "big")
            lab.device.put(bytes(raw))
            lab.loop.turn()
            lab.device.take()
        assert len(lab.engine.icmp.flows) == ECHOES
        assert lab.engine.tally.flows == 20


@pytest.mark.root
@families
def test_a_real_ping_through_a_raw_socket(family, no_leak):
    with world() as lab:
        for sequence in (1, 2):
            lab.device.put(ping(family, HOSTS[family], sequence=sequence, data=b"x" * 56))
            app = APP4 if family == "v4" else APP6
            assert reply_of(lab.answer()) == (HOSTS[family], app, 77, sequence, b"x" * 56)
        flow = lab.flow()
        assert (flow.up, flow.down) == (112, 112)
        assert lab.written() == []  # neither our own request nor anybody else's reply


@pytest.mark.root
@families
def test_two_applications_with_one_identifier_get_their_own_replies(family):
    with world() as lab:
        one, other = ping(family, HOSTS[family], data=b"one"), ping(family, HOSTS[family], data=b"other")
        other.src = "100.64.0.2" if family == "v4" else "fd00::2"
        for packet in (one, other):
            lab.device.put(packet)
        replies = {lab.answer()[1] for _ in range(2)}
        assert {(reply.dst, bytes(reply)[-3:]) for reply in map(one.__class__, replies)} == {
            (one.src, b"one"),
            (other.src, b"her"),
        }


@pytest.mark.root
def test_the_errors_that_a_ping_causes_come_back():
    """Loopback has no router, so the error is written by scapy and given to the engine as its socket would."""
    with world() as lab:
        lab.device.put(ping("v4", "127.0.0.1"))
        lab.answer()
        flow = lab.flow()
        sent = IP(src="192.0.2.1", dst="127.0.0.1") / ICMP(id=flow.identifier, seq=3) / b"are you there?"
        error = IP(src="198.51.100.1", dst="192.0.2.1") / ICMP(type=11, code=0) / sent
        lab.engine.icmp.received4(bytes(error))
        out = lab.answer()
        assert sums_right(out.raw)
        assert (out.packet.src, out.packet.dst) == ("198.51.100.1", APP4)
        assert (out.packet[ICMP].type, out.packet[ICMP].code) == (11, 0)
        quote = out.packet[IPerror]
        assert (quote.src, quote.dst) == (APP4, "127.0.0.1")
        assert quote.payload.id == 77
        # One about somebody else's ping is nobody's business here.
        other = IP(src="192.0.2.1", dst="127.0.0.2") / ICMP(id=flow.identifier, seq=3)
        error = IP(src="198.51.100.1", dst="192.0.2.1") / ICMP(type=11, code=0) / other
        lab.engine.icmp.received4(bytes(error))
        for junk in (b"", b"\x45" * 9, os.urandom(60), bytes(error)[:30]):
            lab.engine.icmp.received4(junk)
            lab.engine.icmp.received6(junk, packed("::1"))
        assert lab.written() == []


@pytest.mark.root
def test_the_errors_that_an_ipv6_ping_causes_come_back():
    with world() as lab:
        lab.device.put(ping("v6", "::1"))
        lab.answer()
        flow = lab.flow()
        sent = IPv6(src="2001:db8::1", dst="::1") / ICMPv6EchoRequest(id=flow.identifier, seq=3, data=b"big")
        error = ICMPv6PacketTooBig(mtu=1280) / sent
        lab.engine.icmp.received6(bytes(error), packed("2001:db8::ff"))
        out = lab.answer()
        assert sums_right(out.raw)
        assert (out.packet.src, out.packet.dst) == ("2001:db8::ff", APP6)
        assert out.packet[ICMPv6PacketTooBig].mtu == 1280
        quote = out.packet[IPerror6]
        assert (quote.src, quote.dst) == (APP6, "::1")
        assert quote.payload.id == 77


# --- errors from the application's side


@families
def test_an_error_about_a_delivered_segment_goes_to_the_listener(family):
    with world(UNDECIDED) as lab:
        flow, syn = opened(lab, family)
        lab.table.establish(flow)
        if family == "v4":
            delivered = IP(src=FAR4, dst=APP4) / TCP(sport=443, dport=40_000, seq=5, flags="A") / b"data"
            (out,) = lab.give(IP(src=APP4, dst=FAR4) / ICMP(type=3, code=4, nexthopmtu=1300) / delivered)
            quote = out.packet[IPerror]
            assert (out.packet[ICMP].type, out.packet[ICMP].code, out.packet[ICMP].nexthopmtu) == (3, 4, 1300)
        else:
            delivered = IPv6(src=FAR6, dst=APP6) / TCP(sport=443, dport=40_000, seq=5, flags="A") / b"data"
            (out,) = lab.give(IPv6(src=APP6, dst=FAR6) / ICMPv6PacketTooBig(mtu=1300) / delivered)
            quote = out.packet[IPerror6]
            assert out.packet[ICMPv6PacketTooBig].mtu == 1300
        assert sums_right(out.raw)
        assert (out.packet.src, out.packet.dst) == (syn.src, syn.dst)
        assert (quote.src, quote.dst) == (syn.dst, syn.src)
        assert (quote[TCPerror].sport, quote[TCPerror].dport) == (syn.dport, 40_000)
        assert quote[TCPerror].seq == 5


def test_an_error_about_an_unknown_segment_is_dropped():
    with world(UNDECIDED) as lab:
        opened(lab)
        stranger = IP(src=FAR4, dst=APP4) / TCP(sport=443, dport=40_001)
        assert lab.give(IP(src=APP4, dst=FAR4) / ICMP(type=3, code=1) / stranger) == []
        assert lab.give(IP(src=APP4, dst=FAR4) / ICMP(type=3, code=1) / b"nothing") == []
        assert lab.engine.dropped["icmp: error that quotes nothing known"] == 1


@pytest.mark.parametrize("v6_in_v4", [True, False])
def test_an_error_of_the_other_family_does_no_harm(v6_in_v4):
    with world(UNDECIDED) as lab:
        opened(lab, "v4")
        opened(lab, "v6")
        inner6 = IPv6(src=FAR6, dst=APP6) / TCP(sport=443, dport=40_000)
        inner4 = IP(src=FAR4, dst=APP4) / TCP(sport=443, dport=40_000)
        if v6_in_v4:
            lab.give(IP(src=APP4, dst=FAR4) / ICMP(type=3, code=1) / bytes(inner6))
        else:
            lab.give(IPv6(src=APP6, dst=FAR6) / ICMPv6DestUnreach(code=3) / bytes(inner4))
        assert len(lab.table) == 2
        assert "internal error" not in lab.engine.dropped


@families
def test_an_application_s_closed_port_ends_its_flow(family):
    server = udp_server(HOSTS[family])
    with world() as lab:
        lab.device.put(datagram(server))
        lab.loop.until(lambda: received(server))
        flow = lab.flow()
        ip = IP if family == "v4" else IPv6
        host, port = server.getsockname()[:2]
        delivered = ip(src=host, dst=text_of(flow)) / UDP(sport=port, dport=5000) / b"late"
        error = ICMP(type=3, code=3) if family == "v4" else ICMPv6DestUnreach(code=4)
        lab.give(ip(src=text_of(flow), dst=host) / error / delivered)
        assert flow.error == "the application has closed its port"
        assert flow.ended
    server.close()


def text_of(flow):
    return APP4 if len(flow.source_address) == 4 else APP6


@pytest.mark.parametrize("kind", [5, 9, 10, 13, 17])
def test_other_kinds_are_not_for_us(kind):
    with world() as lab:
        assert lab.give(IP(src=APP4, dst=FAR4) / ICMP(type=kind)) == []
        assert lab.engine.dropped["icmp: not for us"] == 1
