"""New UDP flows whose exit depends on a name: datagrams are held, sniffed, and let go in their order."""

import os

import pytest
from scapy.layers.inet import ICMP, UDP

from nat.datagrams import HELD_BYTES, HELD_DATAGRAMS
from nat.settings import Settings
from tests.nat.test_gateway import families
from tests.nat.test_udp import HOSTS, all_of, datagram, train
from tests.nat.world import BLOCK, Rules, Way, received, sums_right, udp_server, world
from tests.sniff.vectors import load

pytestmark = pytest.mark.packet_path

QUIC = {str(vector): vector for vector in load("quic")}
TWO = next(v for v in QUIC.values() if len(v.blobs) > 1 and v.found.name)
ONE = QUIC["rfc9001-a2"]


@pytest.fixture
def server():
    made = udp_server()
    yield made
    made.close()


def undecided(name, way=None, **more):
    return Rules(Way("default"), {name: way or Way("named")}, **more)


@pytest.mark.parametrize("vector", QUIC)
def test_quic_is_held_until_its_name_is_known_and_then_sent_as_it_was(vector, server, no_leak):
    quic = QUIC[vector]
    with world(undecided(quic.found.name)) as lab:
        for blob in quic.blobs:
            lab.device.put(datagram(server, blob))
        got = all_of(lab, server, len(quic.blobs))
        assert [data for data, _ in got] == list(quic.blobs)
        flow = lab.flow()
        assert (flow.name, flow.known_by, flow.ech) == (quic.found.name, "quic", quic.found.ech)
        assert flow.route.exit.name == "named"
        assert flow.up == sum(len(blob) for blob in quic.blobs)
        server.sendto(b"answer", got[0][1])
        assert bytes(lab.answer().packet[UDP].payload) == b"answer"


def test_nothing_leaves_before_the_name_is_known(server):
    with world(undecided(TWO.found.name)) as lab:
        lab.device.put(datagram(server, TWO.blobs[0]))
        lab.loop.settle()
        assert received(server) is None
        assert len(lab.engine.mappings) == 0
        lab.device.put(datagram(server, TWO.blobs[1]))
        assert [data for data, _ in all_of(lab, server, 2)] == list(TWO.blobs[:2])


def test_what_is_no_quic_goes_by_its_address_at_once(server):
    with world(undecided("never")) as lab:
        lab.device.put(datagram(server, b"\0\1 a question of some other kind"))
        assert lab.loop.until(lambda: received(server))
        flow = lab.flow()
        assert (flow.name, flow.known_by, flow.route.exit.name) == ("", "address", "default")
        assert [asked[-1] for asked in lab.rules.asked] == [None, ""]


def test_half_a_hello_is_not_waited_for_long(server):
    with world(undecided(TWO.found.name), Settings(sniff_s=0.3)) as lab:
        lab.device.put(datagram(server, TWO.blobs[0]))
        lab.loop.settle()
        lab.loop.pass_time(0.29)
        assert received(server) is None
        lab.loop.pass_time(0.31)
        assert received(server)[0] == TWO.blobs[0]
        assert lab.flow().route.exit.name == "default"
        lab.device.put(datagram(server, TWO.blobs[1]))  # and from now on, on the quick path
        assert lab.loop.until(lambda: received(server))[0] == TWO.blobs[1]


def test_what_is_held_is_bounded(server):
    with world(undecided("never")) as lab:
        hello = TWO.blobs[0]
        for number in range(1, 20):
            lab.device.put(datagram(server, hello))
            lab.loop.turn()
            assert len(lab.engine.datagrams._held) == (number < HELD_DATAGRAMS)
        assert len(all_of(lab, server, 19)) == 19  # then it goes by its address; nothing is lost


@pytest.mark.parametrize("size", [HELD_BYTES, HELD_BYTES + 1, 60_000])
def test_more_than_is_ever_held_goes_by_its_address_at_once(size, server):
    data = TWO.blobs[0].ljust(size, b"x")
    with world(undecided(TWO.found.name)) as lab:
        lab.device.put(datagram(server, TWO.blobs[0]))
        lab.loop.turn()
        assert received(server) is None
        lab.device.put(datagram(server, data))
        assert [got for got, _ in all_of(lab, server, 2)] == [TWO.blobs[0], data]
        assert lab.flow().route.exit.name == "default"


def test_too_many_flows_at_once_are_held_in_bounds(server):
    with world(undecided("never"), Settings(udp_flows=10)) as lab:
        for port in range(1, 60):
            lab.device.put(datagram(server, TWO.blobs[0], sport=port))
            lab.loop.turn()
        assert len(lab.engine.udp.flows) == 10
        assert len(lab.engine.datagrams._held) == 10
        lab.loop.pass_time(1.0)
        assert len(lab.engine.datagrams._held) == 0
        assert len(all_of(lab, server, 10)) == 10


@pytest.mark.parametrize("size", [1200, 1400, 9000])
@pytest.mark.parametrize("family", HOSTS)
def test_a_late_block_is_icmp_about_the_first_datagram(family, size):
    server = udp_server(HOSTS[family])
    with world(undecided(ONE.found.name, BLOCK)) as lab:
        packet = datagram(server, ONE.blobs[0] + bytes(size - len(ONE.blobs[0])))
        (out,) = lab.give(packet)
        assert sums_right(out.raw)
        assert (out.packet.src, out.packet.dst) == (packet.dst, packet.src)
        if family == "v4":
            assert (out.packet[ICMP].type, out.packet[ICMP].code) == (3, 13)
        assert bytes(packet)[:500] in out.raw
        assert lab.engine.tally.recent[-1].error == "a rule"
        assert list(lab.engine.flows()) == []
        assert received(server) is None
    server.close()


def test_a_super_datagram_is_looked_into_piece_by_piece(server):
    """The name is in the second of three; each arrives as a datagram of its own."""
    first, second = TWO.blobs[:2]
    assert len(first) == len(second)
    third = os.urandom(200)
    with world(undecided(TWO.found.name), header=10) as lab:
        virtio, raw = train(server, first + second + third, len(first))
        lab.device.put(raw, virtio)
        assert [data for data, _ in all_of(lab, server, 3)] == [first, second, third]
        assert lab.flow().route.exit.name == "named"


def test_a_flow_that_ends_while_it_is_held(server):
    with world(undecided("never")) as lab:
        lab.device.put(datagram(server, TWO.blobs[0]))
        lab.loop.turn()
        lab.engine.udp.remove(lab.flow())
        assert lab.engine.datagrams._held == {}
        lab.loop.pass_time(1.0)
        assert received(server) is None


@families
def test_an_empty_datagram_opens_a_flow(family):
    server = udp_server(HOSTS[family])
    with world(undecided("never")) as lab:
        lab.device.put(datagram(server, b""))
        assert lab.loop.until(lambda: received(server))[0] == b""
    server.close()


def test_a_full_table_says_so(server):
    with world(settings=Settings(udp_flows=0)) as lab:
        assert lab.give(datagram(server)) == []
        assert lab.engine.dropped["udp: no room for a new flow"] == 1


def test_the_name_is_for_the_exit_only_if_the_rule_says_so(server):
    for by_name in (False, True):
        with world(undecided(ONE.found.name, by_name=by_name)) as lab:
            lab.device.put(datagram(server, ONE.blobs[0]))
            lab.loop.until(lambda: received(server))
            assert lab.flow().by_name is by_name
