"""The rewrite of TCP packets, byte for byte what scapy makes of the same packet with the other addresses."""

import os
import select
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop

from nat.flow import State
from nat.gateway import Gateway
from tests.nat.world import (
    APP4,
    APP6,
    FAR4,
    FAR6,
    NO_VIRTIO,
    VIRTIO,
    Device,
    Rules,
    Way,
    World,
    completed,
    packed,
    partial,
    sums_right,
    text,
    transport_at,
    world,
)

pytestmark = pytest.mark.packet_path

UNDECIDED = Rules(Way(), {"never": Way()})  # every SYN passes at once: the name is needed
FAMILIES = {
    "v4": (lambda **fields: IP(src=APP4, dst=FAR4, **fields)),
    "v6": (lambda **fields: IPv6(src=APP6, dst=FAR6, **fields)),
}
families = pytest.mark.parametrize("family", FAMILIES)
headers = pytest.mark.parametrize("header", [0, 10], ids=["bare", "virtio"])


def like(raw, **changes):
    """The same packet with other addresses or ports, every checksum computed anew by scapy."""
    packet = IP(raw) if raw[0] >> 4 == 4 else IPv6(raw)
    for name in ("src", "dst"):
        if name in changes:
            setattr(packet, name, changes[name])
    tcp = packet[TCP]
    for name in ("sport", "dport"):
        if name in changes:
            setattr(tcp, name, changes[name])
    if packet.version == 4:
        del packet.chksum
    del tcp.chksum
    return bytes(packet)


def opened(lab: World, family="v4", sport=40_000):
    """A flow whose SYN went through; the flow, and the SYN as the listener would get it."""
    syn = FAMILIES[family]() / TCP(sport=sport, dport=443, seq=1000, flags="S", options=[("MSS", 1460)])
    (out,) = lab.give(syn)
    return lab.table.get(key_of(syn)), out.packet


def key_of(packet):
    raw = bytes(packet)
    at = transport_at(packet.__class__(raw))
    addresses = raw[12:20] if raw[0] >> 4 == 4 else raw[8:40]
    return addresses + raw[at : at + 4]


def listener_of(lab, family):
    return ("127.0.0.1", lab.listener4.port) if family == "v4" else ("::1", lab.listener6.port)


@families
@headers
def test_a_syn_reaches_the_listener_from_an_alias_with_its_port(family, header):
    with world(UNDECIDED, header=header) as lab:
        syn = FAMILIES[family]() / TCP(sport=40_000, dport=443, seq=7, flags="S", options=[("MSS", 1400)])
        (out,) = lab.give(syn)
        flow = lab.flow()
        host, port = listener_of(lab, family)
        size = len(flow.source_address)
        alias = text(flow.reverse[size : 2 * size])
        assert out.raw == like(bytes(syn), src=alias, dst=host, dport=port)
        assert out.packet[TCP].sport == 40_000
        assert out.header == NO_VIRTIO[:header]
        assert sums_right(out.raw)


@families
@headers
def test_the_listener_s_answer_comes_from_the_target(family, header):
    with world(UNDECIDED, header=header) as lab:
        flow, syn = opened(lab, family)
        answer = syn.__class__(src=syn.dst, dst=syn.src) / TCP(
            sport=syn.dport, dport=syn.sport, seq=9, ack=1001, flags="SA"
        )
        (out,) = lab.give(answer)
        app, far = text(flow.source_address), text(flow.target)
        assert out.raw == like(bytes(answer), src=far, dst=app, sport=443, dport=40_000)


fields = st.fixed_dictionaries(
    {
        "seq": st.integers(0, 2**32 - 1),
        "ack": st.integers(0, 2**32 - 1),
        "window": st.integers(0, 65535),
        "flags": st.sampled_from(["A", "PA", "FA", "R", "RA", "A", "PA", "UAP", "SA"]),
    }
)


@families
@headers
@pytest.mark.parametrize("outward", [True, False], ids=["outward", "inward"])
def test_any_segment_both_ways(family, header, outward):
    lab = World(UNDECIDED, header=header)
    flow, syn = opened(lab, family)
    lab.table.establish(flow)
    app, far = text(flow.source_address), text(flow.target)

    @given(fields, st.binary(max_size=64), st.integers(1, 255), st.booleans())
    def check(fields, payload, hops, unfinished):
        limit = {"ttl": hops} if family == "v4" else {"hlim": hops}
        if outward:
            ip = FAMILIES[family](**limit)
            packet = ip / TCP(sport=40_000, dport=443, **fields) / payload
            changes = {"src": syn.src, "dst": syn.dst, "dport": syn.dport}
        else:
            packet = syn.__class__(src=syn.dst, dst=syn.src, **limit)
            packet = packet / TCP(sport=syn.dport, dport=syn.sport, **fields) / payload
            changes = {"src": far, "dst": app, "sport": 443, "dport": 40_000}
        expected = like(bytes(packet), **changes)
        if header and unfinished:
            virtio, raw = partial(packet)
            (out,) = lab.give(raw, virtio)
            assert out.header == virtio
            assert completed(out.raw, *struct.unpack("=HH", virtio[6:10])) == expected
            assert out.raw != expected  # the checksum is still to be finished
        else:
            (out,) = lab.give(packet)
            assert out.raw == expected

    try:
        check()
    finally:
        lab.close()


@families
@pytest.mark.parametrize("outward", [True, False], ids=["outward", "inward"])
def test_a_super_packet_passes_with_its_header_untouched(family, outward):
    with world(UNDECIDED, header=10) as lab:
        flow, syn = opened(lab, family)
        lab.table.establish(flow)
        payload = os.urandom(64_000)
        if outward:
            packet = FAMILIES[family]() / TCP(sport=40_000, dport=443, flags="PA") / payload
        else:
            packet = syn.__class__(src=syn.dst, dst=syn.src)
            packet = packet / TCP(sport=syn.dport, dport=syn.sport, flags="PA") / payload
        virtio, raw = partial(packet)
        start = transport_at(packet.__class__(raw))
        virtio = VIRTIO.pack(1, 1 if family == "v4" else 4, start + 20, 1448, start, 16)
        (out,) = lab.give(raw, virtio)
        assert out.header == virtio
        assert out.raw[start + 20 :] == payload
        assert sums_right(completed(out.raw, start, 16))
        assert lab.device.disabled == 0


def test_options_and_extension_headers_take_the_slow_path_to_the_same_end():
    with world(UNDECIDED) as lab:
        flow4, syn4 = opened(lab, "v4")
        flow6, syn6 = opened(lab, "v6", sport=40_001)
        for flow in (flow4, flow6):
            lab.table.establish(flow)
        recorded = [IPOption_NOP(), IPOption_RR(routers=["0.0.0.0"] * 3)]
        packets = [
            (FAMILIES["v4"](options=recorded) / TCP(sport=40_000, dport=443, flags="A") / b"x", syn4),
            (FAMILIES["v6"]() / IPv6ExtHdrHopByHop() / TCP(sport=40_001, dport=443, flags="PA") / b"y", syn6),
            (
                FAMILIES["v6"]()
                / IPv6ExtHdrDestOpt()
                / IPv6ExtHdrDestOpt()
                / TCP(sport=40_001, dport=443, flags="FA"),
                syn6,
            ),
        ]
        for packet, syn in packets:
            (out,) = lab.give(packet)
            assert out.raw == like(bytes(packet), src=syn.src, dst=syn.dst, dport=syn.dport)
            assert sums_right(out.raw)
        back = IP(src=syn4.dst, dst=syn4.src, options=recorded)
        back = back / TCP(sport=syn4.dport, dport=syn4.sport, flags="A") / b"z"
        (out,) = lab.give(back)
        assert out.raw == like(bytes(back), src=FAR4, dst=APP4, sport=443, dport=40_000)


def test_a_syn_with_options_opens_a_flow_too():
    with world(UNDECIDED) as lab:
        syn = FAMILIES["v6"]() / IPv6ExtHdrHopByHop() / TCP(sport=5, dport=443, flags="S")
        (out,) = lab.give(syn)
        assert out.packet.dst == "::1"
        assert sums_right(out.raw)
        syn = FAMILIES["v4"](options=[IPOption_NOP()] * 4) / TCP(sport=5, dport=443, flags="S")
        (out,) = lab.give(syn)
        assert out.packet.dst == "127.0.0.1"
        assert sums_right(out.raw)


def test_only_silence_that_counts_is_counted():
    """A busy flow costs the table nothing: its packets are noted only before its accept and after its end."""
    with world(UNDECIDED) as lab:
        flow, _ = opened(lab)
        segment = FAMILIES["v4"]() / TCP(sport=40_000, dport=443, flags="A")

        def noted():
            flow.touched = 0.0
            lab.give(segment)
            return flow.touched != 0.0

        assert noted()
        lab.table.establish(flow)
        assert not noted()
        lab.table.close(flow, lab.loop.now)
        assert noted()


def test_flags_of_both_sides_reach_the_table():
    with world(UNDECIDED) as lab:
        flow, syn = opened(lab)
        lab.table.establish(flow)
        lab.table.close(flow, lab.loop.now)
        lab.give(FAMILIES["v4"]() / TCP(sport=40_000, dport=443, flags="FA"))
        assert flow.state == State.CLOSING
        lab.give(IP(src=syn.dst, dst=syn.src) / TCP(sport=syn.dport, dport=syn.sport, flags="FA"))
        assert flow.state == State.CLOSED
        (out,) = lab.give(FAMILIES["v4"]() / TCP(sport=40_000, dport=443, flags="A"))
        assert out.packet.dst == "127.0.0.1"  # the last acknowledgement still arrives
        lab.loop.pass_time(5.0)
        lab.loop.pass_time(100.0)
        (out,) = lab.give(FAMILIES["v4"]() / TCP(sport=40_000, dport=443, flags="A"))
        assert out.packet[TCP].flags == "R"


def test_more_packets_than_one_event_may_read():
    with world(UNDECIDED) as lab:
        flow, _ = opened(lab)
        lab.table.establish(flow)
        segment = bytes(FAMILIES["v4"]() / TCP(sport=40_000, dport=443, flags="A"))
        for _ in range(100):
            lab.device.put(segment)
        lab.loop.turn()
        assert len(lab.written()) == 64
        lab.loop.turn()
        assert len(lab.written()) == 36
        gateway = lab.engine.gateway
        assert (gateway.packets_in, gateway.packets_out) == (101, 101)
        assert gateway.bytes_in == 100 * len(segment) + len(segment) + 4


def test_one_packet_that_comes_alone_does_not_wait_for_others():
    """After a pause one is read; if the loop says at once that there are more, all are."""
    with world() as lab:
        seen = []
        lab.engine.gateway.slow = lambda at, length: seen.append(length)
        lab.loop.turn()
        for _ in range(5):
            lab.device.put(bytes(40))
        lab.loop.turn()
        assert len(seen) == 1
        lab.loop.turn()
        assert len(seen) == 5
        lab.loop.turn()
        for _ in range(3):
            lab.device.put(bytes(40))
        lab.loop.turn()
        assert len(seen) == 8  # the event before had brought several


def test_an_empty_read_and_a_bare_header_are_nothing():
    with world(UNDECIDED, header=10) as lab:
        lab.device.put(b"")
        lab.device.put(b"", b"short")
        assert lab.give(b"") == []
        assert opened(lab)


def test_the_interface_goes():
    with world(UNDECIDED) as lab:
        lab.device.vanish()
        lab.loop.settle()
        assert lab.gone == ["end of file"]


def test_a_fault_of_ours_costs_one_packet():
    with world(UNDECIDED) as lab:
        flow, _ = opened(lab)
        slow = lab.engine.gateway.slow
        lab.engine.gateway.slow = lambda at, length: 1 // 0
        lab.give(b"\x45 garbage of some length, not a packet")
        assert lab.engine.dropped["internal error"] == 1
        lab.engine.gateway.slow = slow
        (out,) = lab.give(FAMILIES["v4"]() / TCP(sport=40_000, dport=443, flags="A"))
        assert out.packet.dst == "127.0.0.1"
        assert flow.state == State.HALF_OPEN


class Peer:
    """Another source of flows."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.delivered = []
        self.strange = []

    def deliver(self, start, length):
        self.delivered.append(bytes(self.gateway.raw[start : start + length]))

    def send(self, packet):
        raise AssertionError

    write = send

    def first(self, at, length):
        self.strange.append(bytes(self.gateway.raw[at : at + length]))


@families
def test_answers_go_where_the_flow_came_from(family):
    with world(UNDECIDED) as lab:
        peer = Peer(lab.engine.gateway)
        packet = FAMILIES[family]() / TCP(sport=40_000, dport=443, flags="S")
        app, far = packed(packet.src), packed(packet.dst)
        flow = lab.table.open(peer, key_of(packet), app, 40_000, far, 443, 0, 0.0)
        size = len(app)
        alias, (host, port) = text(flow.reverse[size : 2 * size]), listener_of(lab, family)
        answer = packet.__class__(src=host, dst=alias) / TCP(sport=port, dport=40_000, flags="SA")
        assert lab.give(answer) == []
        assert peer.delivered == [
            like(bytes(answer), src=packet.dst, dst=packet.src, sport=443, dport=40_000)
        ]
        # What this host sends with the same addresses is not of this flow; nor is another source's.
        ack = bytes(FAMILIES[family]() / TCP(sport=40_000, dport=443, flags="A"))
        assert lab.give(ack) == []
        other = Peer(lab.engine.gateway)
        for source in (other, peer):
            lab.engine.gateway.guest(bytearray(b"before" + ack), 6, len(ack), source)
        assert (other.strange, peer.strange) == ([ack], [])
        (out,) = lab.written()
        assert out.packet.dst == host
        # A SYN is looked at, and so is what the packet path does not read.
        for strange in (bytes(packet), ack[:30] if family == "v4" else ack[:50]):
            lab.engine.gateway.guest(bytearray(strange), 0, len(strange), peer)
        assert peer.strange[0] == bytes(packet)
        with pytest.raises(ValueError, match="buffer"):
            lab.engine.gateway.guest(bytearray(ack), 1, len(ack), peer)
        # A reset ends the half-open flow; it is passed on first.
        lab.give(packet.__class__(src=host, dst=alias) / TCP(sport=port, dport=40_000, flags="R"))
        assert len(peer.delivered) == 2
        assert len(lab.table) == 0


class Unwritable(Device):
    """A descriptor whose every write the real kernel answers with EINVAL: an epoll."""

    def __init__(self, header):
        super().__init__(header)
        self.epoll = select.epoll()

    def fileno(self):
        return self.epoll.fileno()

    def close(self):
        self.epoll.close()
        super().close()


def refusing(header):
    device = Unwritable(header)
    return device, Gateway(None, device)


@pytest.mark.parametrize(("header", "gso_type", "disabled"), [(10, 1, 1), (10, 4, 1), (10, 0, 0), (0, 0, 0)])
def test_a_refused_super_packet_switches_offload_off(header, gso_type, disabled):
    device, gateway = refusing(header)
    packet = bytes(FAMILIES["v4"]() / TCP(sport=1, dport=2) / bytes(3000))
    gateway.raw[: header + len(packet)] = VIRTIO.pack(1, gso_type, 40, 1448, 20, 16)[:header] + packet
    gateway.deliver(header, len(packet))
    assert device.disabled == disabled
    assert gateway.dropped == {"tun write: Invalid argument": 1}
    assert gateway.packets_out == 0
    device.close()


def test_a_refused_super_datagram_does_too():
    device, gateway = refusing(10)
    gateway.write([NO_VIRTIO + bytes(100)], False)
    assert device.disabled == 0
    gateway.write([NO_VIRTIO + bytes(100)], True)
    assert device.disabled == 1
    assert gateway.dropped["tun write: Invalid argument"] == 2
    device.close()


def test_what_is_made_here_has_an_empty_header():
    device = Device(10)
    gateway = Gateway(None, device)
    gateway.send(b"a packet")
    gateway.send(b"")
    assert device.take() == (NO_VIRTIO, b"a packet")
    assert device.take() is None
    device.close()


def test_a_full_device_drops_and_counts():
    with world(UNDECIDED) as lab:
        flow, _ = opened(lab)
        lab.table.establish(flow)
        packet = bytes(FAMILIES["v4"]() / TCP(sport=40_000, dport=443, flags="A") / bytes(60_000))
        gateway = lab.engine.gateway
        for _ in range(60):
            lab.device.put(packet)
            lab.loop.turn()
        assert gateway.dropped["tun write: Resource temporarily unavailable"] > 0
        assert lab.gone == []
        assert lab.device.disabled == 0
