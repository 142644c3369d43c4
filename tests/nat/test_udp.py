"""UDP flows: datagrams and super-datagrams out of the TUN, answers into it, caps and time-outs."""

import gc
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop

from nat.settings import Settings
from tests.nat.test_gateway import families, headers
from tests.nat.world import (
    APP4,
    APP6,
    BLOCK,
    NO_VIRTIO,
    VIRTIO,
    Rules,
    completed,
    partial,
    received,
    sums_right,
    udp_server,
    world,
)

pytestmark = pytest.mark.packet_path

HOSTS = {"v4": "127.0.0.1", "v6": "::1"}


@pytest.fixture
def servers(request):
    made = [udp_server(HOSTS[request.getfixturevalue("family")]) for _ in range(3)]
    yield made
    for one in made:
        one.close()


def datagram(to, payload=b"hello", sport=5000, **ip):
    """What an application of the TUN's host sends to a real server on loopback."""
    host, port = to.getsockname()[:2] if hasattr(to, "getsockname") else to
    if ":" in host:
        return IPv6(src=APP6, dst=host, **ip) / UDP(sport=sport, dport=port) / payload
    return IP(src=APP4, dst=host, **ip) / UDP(sport=sport, dport=port) / payload


def train(to, payload, size, sport=5000):
    """(virtio_net_hdr, packet): a super-datagram of pieces of `size` bytes, as the kernel gives it (USO)."""
    virtio, raw = partial(datagram(to, payload, sport))
    _, _, _, _, start, offset = VIRTIO.unpack(virtio)
    return VIRTIO.pack(1, 5, start + 8, size, start, offset), raw


def all_of(lab, server, count):
    got = []
    lab.loop.until(lambda: got.append(received(server)) or len([g for g in got if g]) == count)
    return [one for one in got if one]


@families
@headers
def test_a_datagram_and_its_answer(family, header, servers, no_leak):
    with world(header=header) as lab:
        server = servers[0]
        lab.device.put(datagram(server, b"question"))
        data, sender = lab.loop.until(lambda: received(server))
        assert data == b"question"
        server.sendto(b"the answer", sender)
        out = lab.answer()
        packet = out.packet
        host, port = server.getsockname()[:2]
        assert (packet.src, packet.dst) == (host, APP4 if family == "v4" else APP6)
        assert (packet[UDP].sport, packet[UDP].dport) == (port, 5000)
        assert bytes(packet[UDP].payload) == b"the answer"
        if header:
            flags, gso, _, size, start, offset = VIRTIO.unpack(out.header)
            assert (flags, gso, size) == (1, 0, 0)
            assert sums_right(completed(out.raw, start, offset))
        else:
            assert sums_right(out.raw)
        flow = lab.flow()
        assert (flow.up, flow.down) == (8, 10)


@families
def test_the_quick_path_and_the_slow_one_send_the_same(family, servers):
    with world() as lab:
        server = servers[0]
        for payload in (b"first", b"second", b"", b"\0" * 1472, b"third"):
            lab.device.put(datagram(server, payload))
            assert lab.loop.until(lambda: received(server))[0] == payload
        strange = (
            IP(src=APP4, dst="127.0.0.1", options=[IPOption_NOP()] * 4)
            if family == "v4"
            else IPv6(src=APP6, dst="::1") / IPv6ExtHdrHopByHop()
        )
        lab.device.put(strange / UDP(sport=5000, dport=server.getsockname()[1]) / b"with options")
        assert lab.loop.until(lambda: received(server))[0] == b"with options"
        assert len(lab.engine.udp.flows) == 1
        assert lab.flow().up == 5 + 6 + 1472 + 5 + 12


@families
@pytest.mark.parametrize("slow", [True, False], ids=["first", "known"])
def test_what_lies_behind_the_datagram_is_not_sent(family, slow, servers):
    """UDP's own length says where it ends (RFC 9868 puts options there)."""
    with world() as lab:
        server = servers[0]
        if not slow:
            lab.device.put(datagram(server, b"opens"))
            assert lab.loop.until(lambda: received(server))
        packet = datagram(server, b"payloadOPTIONS")
        packet[UDP].len = 8 + 7
        lab.device.put(packet)
        assert lab.loop.until(lambda: received(server))[0] == b"payload"


@families
def test_a_length_that_cannot_be_true_is_dropped(family, servers):
    with world() as lab:
        lab.device.put(datagram(servers[0], b"opens"))
        lab.loop.until(lambda: received(servers[0]))
        for size in (0, 7, 500, 65535):
            packet = datagram(servers[0], b"x")
            packet[UDP].len = size
            assert lab.give(packet) == []
        assert received(servers[0]) is None
        assert sum(n for what, n in lab.engine.dropped.items() if what.startswith("malformed")) == 4


@families
@pytest.mark.parametrize("known", [False, True], ids=["first", "known"])
@pytest.mark.parametrize(("size", "count", "last"), [(1200, 10, 1200), (1000, 3, 1), (1472, 40, 7)])
def test_a_super_datagram_arrives_as_its_datagrams(family, known, size, count, last, servers):
    with world(header=10) as lab:
        server = servers[0]
        if known:
            lab.device.put(datagram(server, b"opens"))
            lab.loop.until(lambda: received(server))
        payload = os.urandom(size * (count - 1) + last)
        virtio, raw = train(server, payload, size)
        lab.device.put(raw, virtio)
        got = all_of(lab, server, count)
        assert [len(data) for data, _ in got] == [size] * (count - 1) + [last]
        assert b"".join(data for data, _ in got) == payload
        assert len({sender for _, sender in got}) == 1


@families
@pytest.mark.parametrize("into", ["virtio", "virtio without USO", "bare"])
def test_merged_answers(family, into, servers):
    """A server's UDP_SEGMENT train is received in one piece; the TUN gets it so, or cut."""
    header = 0 if into == "bare" else 10
    with world(header=header, super_datagrams=into == "virtio") as lab:
        server = servers[0]
        lab.device.put(datagram(server))
        _, sender = lab.loop.until(lambda: received(server))
        payload = os.urandom(900 * 7 + 100)
        server.sendmsg([payload], [(17, 103, (900).to_bytes(2, "little"))], 0, sender)
        outs = [lab.answer()]
        lab.loop.settle()
        outs += lab.written()
        bodies = []
        for out in outs:
            raw = out.raw
            if header:
                _, gso, length, size, start, offset = VIRTIO.unpack(out.header)
                body = raw[length:] if gso else raw[start + 8 :]
                raw = completed(raw, start, offset)
                assert (gso, size) == ((5, 900) if into == "virtio" else (0, 0))
                assert length == start + 8
            else:
                body = raw[(28 if family == "v4" else 48) :]
            assert sums_right(raw)
            bodies.append(body)
        assert b"".join(bodies) == payload
        assert len(outs) == (1 if into == "virtio" else 8)
        assert lab.flow().down == len(payload)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=12))
def test_every_datagram_comes_whole_and_in_order(payloads):
    server = udp_server()
    with world() as lab:
        for payload in payloads:
            lab.device.put(datagram(server, payload))
        got = all_of(lab, server, len(payloads))
        assert [data for data, _ in got] == payloads
        for data, sender in got:
            server.sendto(data[::-1], sender)
        back = [lab.answer() for _ in payloads]
        assert [out.raw[28:] for out in back] == [payload[::-1] for payload in payloads]
    server.close()


@pytest.mark.parametrize("family", ["v4"])
def test_flows_end_after_their_silence(family, servers, no_leak):
    with world(settings=Settings(udp_idle_s=60.0)) as lab:
        lab.device.put(datagram(servers[0]))
        lab.loop.until(lambda: received(servers[0]))
        flow = lab.flow()
        lab.loop.pass_time(59.0)
        assert not flow.ended
        lab.loop.pass_time(61.0)
        assert flow.ended
        assert list(lab.engine.flows()) == []
        assert len(lab.engine.mappings) == 0
        assert lab.engine.tally.of("way").flows == 1


@pytest.mark.parametrize("family", ["v4"])
def test_an_answered_dns_flow_ends_earlier(family, servers):
    with world(settings=Settings(udp_idle_s=60.0, dns_idle_s=30.0)) as lab:
        for server in servers[:2]:
            lab.device.put(datagram(server))
            _, sender = lab.loop.until(lambda server=server: received(server))
        dns, other = lab.engine.udp.flows.values()
        dns.target_port = 53  # nobody may bind the real one here
        for server in servers[:2]:
            server.sendto(b"answer", sender)
            lab.answer()
        lab.loop.pass_time(31.0)
        assert dns.ended
        assert not other.ended
        lab.loop.pass_time(62.0)
        assert other.ended


@pytest.mark.parametrize("family", ["v4"])
def test_an_unanswered_dns_flow_has_the_long_time(family, servers):
    """A slow resolver's late answer still finds its way."""
    with world(settings=Settings(udp_idle_s=60.0, dns_idle_s=30.0)) as lab:
        lab.device.put(datagram(servers[0]))
        lab.loop.until(lambda: received(servers[0]))
        lab.flow().target_port = 53
        lab.loop.pass_time(31.0)
        assert len(lab.engine.udp.flows) == 1


@pytest.mark.parametrize("family", ["v4"])
def test_one_way_flows_are_the_first_to_go(family, servers):
    with world(settings=Settings(udp_flows=5)) as lab:
        server = servers[0]
        lab.device.put(datagram(server, sport=1))
        _, sender = lab.loop.until(lambda: received(server))
        server.sendto(b"answer", sender)
        lab.answer()
        answered = lab.flow()
        for port in range(2, 50):
            lab.device.put(datagram(server, sport=port))
            lab.loop.until(lambda: received(server))
            assert len(lab.engine.udp.flows) <= 5
        assert not answered.ended
        assert {flow.source_port for flow in lab.engine.udp.flows.values()} == {1, 46, 47, 48, 49}
        assert lab.engine.tally.recent[-1].error == "too many flows"
        assert len(lab.engine.mappings) == 5


@pytest.mark.parametrize("family", ["v4"])
def test_when_all_flows_are_conversations_the_quietest_makes_room(family, servers):
    with world(settings=Settings(udp_flows=3)) as lab:
        server = servers[0]
        for port in (1, 2, 3, 4):
            lab.device.put(datagram(server, sport=port))
            _, sender = lab.loop.until(lambda: received(server))
            server.sendto(b"answer", sender)
            assert lab.answer().packet[UDP].dport == port
        assert len(lab.engine.udp.flows) == 3
        assert {flow.source_port for flow in lab.engine.udp.flows.values()} == {2, 3, 4}


@families
def test_block_is_icmp_about_this_very_datagram(family, servers):
    with world(Rules(BLOCK)) as lab:
        packet = datagram(servers[0])
        (out,) = lab.give(packet)
        assert bytes(packet) in out.raw
        assert sums_right(out.raw)
        if family == "v4":
            assert (out.packet[ICMP].type, out.packet[ICMP].code) == (3, 13)
        assert list(lab.engine.flows()) == []
        assert lab.engine.tally.recent[-1].error == "a rule"
        assert received(servers[0]) is None


@families
def test_hop_limits_are_kept(family, servers):
    with world() as lab:
        server = servers[0]
        if family == "v4":
            server.setsockopt(0, 12, 1)  # IP_RECVTTL
        else:
            server.setsockopt(41, 51, 1)  # IPV6_RECVHOPLIMIT
        for hops in (64, 7, 7, 200):
            lab.device.put(datagram(server, **{"ttl" if family == "v4" else "hlim": hops}))
            _, control, _, _ = lab.loop.until(lambda: received_with_control(server))
            assert int.from_bytes(control[0][2], "little") == hops


def received_with_control(sock):
    try:
        return sock.recvmsg(2048, 64)
    except BlockingIOError:
        return None


def test_a_super_datagram_that_the_exit_does_not_take_goes_piece_by_piece():
    """More pieces than UDP_SEGMENT takes in one call: the real kernel says EINVAL."""
    server = udp_server()
    with world(header=10) as lab:
        payload = os.urandom(200)
        virtio, raw = train(server, payload, 1)
        lab.device.put(raw, virtio)
        got = all_of(lab, server, 200)
        assert b"".join(data for data, _ in got) == payload
        assert {len(data) for data, _ in got} == {1}
    server.close()


def test_no_garbage_collector_is_needed():
    server = udp_server()
    with world(settings=Settings(udp_flows=4)) as lab:
        gc.collect()
        gc.disable()
        try:
            for port in range(1, 60):
                lab.device.put(datagram(server, sport=port), NO_VIRTIO)
                lab.loop.turn()
                lab.engine.tally.recent.clear()
            lab.loop.turn()
            names = [type(thing).__name__ for thing in gc.get_objects()]
            assert names.count("UdpFlow") == 4
            assert names.count("Mapping") == 4
        finally:
            gc.enable()
    server.close()
