"""Exit flows from TUN to TUN, without the NAT: what an application sends is what the exit's engine gets, and back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat.packet import Packet
from tests.nat.world import NO_VIRTIO
from tests.zignet.peers.pair import (
    ALL,
    CSUM,
    HERE4,
    HERE6,
    ONE4,
    ONE6,
    OTHER4,
    OTHER6,
    PEER,
    Came,
    Host,
    as_kernel,
    cut,
    join,
    kernel,
    tcp,
    trains,
    udp,
    unfinished,
    whole,
)
from tests.zignet.peers.test_both_ways import ACK, CWR, FIN, PSH, content, lengths, patient
from zignet.noise import Suite
from zignet.peers.destinations import Destination
from zignet.peers.guest import Guest
from zignet.wire import Flag, parse_control, rebuild

pytestmark = pytest.mark.packet_path

ROOM = 1200
NUMBER = 0x00A0B0C0
FAKE4, FAKE6 = bytes((198, 19, 7, 9)), bytes.fromhex("20010002") + bytes(10) + b"\x07\x09"
GUEST4 = (OTHER4, NUMBER.to_bytes(4, "big"))
GUEST6 = (OTHER6, b"\x01" + bytes(11) + NUMBER.to_bytes(4, "big"))
SYN = 0x02


class Noted(Guest):
    """A guest that only writes down what the engine would get."""

    __slots__ = ("got", "slow")

    def frame(self, flow, frame):
        self.slow.append(flow)
        self.got.append(rebuild(flow.frame, *(GUEST6 if frame[1] & Flag.V6 else GUEST4)))

    def first(self, at, length):
        gateway = self._guests.gateway
        self.got += kernel(bytes(gateway.raw[: gateway.header]), bytes(gateway.raw[at : at + length]))


class Lab:
    """An application's host and an exit, and a destination that both know."""

    def __init__(self, header=10, offload=ALL, suite=Suite.AES):
        self.app = Host(plain=False, header=header, offload=offload)
        self.exit = Host(plain=False, own4=HERE4, own6=HERE6, header=header, offload=offload)
        self.links = join(self.app, self.exit, suite, ROOM)
        self.destination = Destination(
            self.links[0].peer, NUMBER, "www.example", (FAKE4, FAKE6), (ONE4, ONE6)
        )
        self.destination.answered(self.app.loop.now)
        self.destination.ports.update((2, 4, 53, 443))
        self.app.sender.exits[FAKE4] = self.app.sender.exits[FAKE6] = self.destination
        self.app.receiver.exits[NUMBER] = self.destination
        self.app.rare.destinations = {NUMBER: self.destination}
        self.guest = Noted(SimpleNamespace(gateway=self.exit.gateway), self.links[1])
        self.guest.got, self.guest.slow = [], []
        self.links[1].guest = self.guest
        self.exit.receiver.gateway = self.exit.gateway

    def out(self, *read):
        """The application sends; what the exit's engine gets."""
        self.carry(self.app.give_all(*read), self.exit)
        got, self.guest.got = self.guest.got, []
        return got

    def back(self, *read):
        """The exit's engine answers; what the application gets."""
        for virtio, packet in read:
            raw = (virtio if self.exit.device.header else b"") + packet
            self.exit.gateway.raw[: len(raw)] = raw
            at = self.exit.device.header
            self.exit.sender.exit(at, len(packet), self.links[1], NUMBER, int(Flag.EXIT | Flag.BACK))
        self.exit.sender.settle()
        return self.carry(self.exit.sent(), self.app)

    def carry(self, calls, host):
        for call in calls:
            for batch in trains(call.datagrams):
                host.wire.coming.append(Came(b"".join(batch), len(batch[0]), PEER, call.ecn))
        got = []
        while host.wire.coming:
            host.receiver.on_event(1)
            got += as_kernel(host.written())
        return got

    def clean(self):
        for host in (self.app, self.exit):
            assert not host.dropped
            assert not host.sender.dropped
            assert not host.receiver.dropped

    def close(self):
        self.app.close()
        self.exit.close()


@pytest.fixture
def lab():
    made = Lab()
    yield made
    made.close()


def moved(packet, to4, to6):
    """A packet under other addresses; all else the same, but for what §6 sets."""
    v6 = packet[0] >> 4 == 6
    changed = bytearray(packet)
    changed[8 if v6 else 12 : 40 if v6 else 20] = b"".join(to6 if v6 else to4)
    if not v6:
        changed[4:8] = b"\0\0\x40\0"
    return whole(changed)


def pieces(packet, virtio):
    """What crosses: the segments that fit the path, else the packet as it is."""
    at = 40 if packet[0] >> 4 == 6 else 20
    size = int.from_bytes(virtio[4:6], "little")
    if packet[6 if at == 40 else 9] == 6:
        head = at + (packet[at + 12] >> 4) * 4
        fits = min(size or len(packet), ROOM - 8 - (head - at))
        return cut(packet, head, fits) if len(packet) - head > fits else [packet]
    return cut(packet, at + 8, size) if size else [packet]


@st.composite
def packets(draw, way4, way6):
    """(virtio_net_hdr, packet as it is read, the same with its checksums)."""
    there = draw(st.sampled_from([way4, way6]))
    payload = content(draw(lengths), draw(st.integers(0, 255)))
    traffic = draw(st.integers(0, 255))
    ports = draw(st.sampled_from([(1, 2), (3, 4)]))
    if draw(st.booleans()):
        size = draw(st.sampled_from([536, 1000, 1172, 1448]))
        fields = {
            "flags": draw(st.sampled_from([ACK, ACK, PSH | ACK, FIN | PSH | ACK, CWR | ACK])),
            "options": draw(st.sampled_from([b"", bytes.fromhex("0101080a0000000100000002")])),
            "seq": draw(st.sampled_from([1000, 2**32 - 2000])),
        }
        packet = tcp(there, payload, traffic=traffic, ports=ports, **fields)
    else:
        size = draw(st.sampled_from([100, 1184, 1400]))
        packet = udp(there, payload, traffic=traffic, ports=ports)
    if len(payload) > size and not (
        packet[9 if len(there[0]) == 4 else 6] == 17 and len(payload) > 64 * size
    ):
        return *unfinished(packet, size), packet
    return (*unfinished(packet), packet) if draw(st.booleans()) else (NO_VIRTIO, packet, packet)


@pytest.mark.parametrize("suite", list(Suite), ids=["chacha", "aes"])
@pytest.mark.parametrize(("header", "offload"), [(10, CSUM), (10, ALL)], ids=["sums", "all"])
def test_whatever_is_sent_arrives(suite, header, offload):
    """Both ways, in their order, under the addresses of the other side."""
    lab = Lab(header, offload, suite)
    outs = packets((ONE4, FAKE4), (ONE6, FAKE6))
    backs = packets(GUEST4[::-1], GUEST6[::-1])

    @patient
    @given(st.lists(outs, max_size=5), st.lists(backs, max_size=5))
    def check(out, back):
        got = lab.out(*((virtio, packet) for virtio, packet, _ in out))
        assert got == [moved(one, GUEST4, GUEST6) for virtio, _, each in out for one in pieces(each, virtio)]
        got = lab.back(*((virtio, packet) for virtio, packet, _ in back))
        to4, to6 = (FAKE4, ONE4), (FAKE6, ONE6)
        assert got == [moved(one, to4, to6) for virtio, _, each in back for one in pieces(each, virtio)]
        assert lab.exit.written() == []  # a guest's packet never leaves as it is
        lab.clean()

    try:
        check()
    finally:
        lab.close()


class Once(list):
    """Counts what the engine gets, and not what a kernel makes of it."""

    def __iadd__(self, more):
        self.append(more)
        return self


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_a_stream_is_joined(lab, v6):
    payload = content(50_000, 3)
    there = (ONE6, FAKE6) if v6 else (ONE4, FAKE4)
    lab.guest.got = once = Once()
    lab.out(unfinished(tcp(there, payload), 1148))
    ((segments),) = once
    assert b"".join(segment[60 if v6 else 40 :] for segment in segments) == payload


def test_pieces_of_two_numbers_are_not_joined(lab):
    """The same ports, and sequence numbers that go on: only the number differs."""
    other = Destination(lab.links[0].peer, 7, "other.example", (FAKE4[:3] + b"\1", FAKE6), (ONE4, ONE6))
    lab.app.sender.exits[other.address4] = other
    one = unfinished(tcp((ONE4, FAKE4), bytes(1000), seq=1000))
    two = unfinished(tcp((ONE4, other.address4), bytes(1000), seq=2000))
    got = lab.out(one, two)
    assert [packet[16:20] for packet in got] == [NUMBER.to_bytes(4, "big"), bytes((0, 0, 0, 7))]


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_what_the_exit_may_not_understand_goes_the_slow_way(lab, v6):
    there = (ONE6, FAKE6) if v6 else (ONE4, FAKE4)
    syns = [tcp(there, flags=flags) for flags in (SYN, SYN | ACK)]
    strange = udp(there, b"x", ports=(1, 99))  # no rule was asked about this port
    for packet in (*syns, strange):
        assert lab.out((NO_VIRTIO, packet)) == []
    lab.destination.forgotten()
    packet = udp(there, b"x", ports=(1, 2))
    assert lab.out((NO_VIRTIO, packet)) == []
    assert [note[0] for note in lab.app.hub.of("first_packet")] == [*syns, strange, packet]
    # An answer, and all is well again.
    back = GUEST6[::-1] if v6 else GUEST4[::-1]
    assert len(lab.back((NO_VIRTIO, udp(back, b"y")))) == 1
    assert len(lab.out((NO_VIRTIO, packet))) == 1


def test_only_this_host_s_packets_are_sent(lab):
    packet = tcp((bytes((10, 0, 0, 1)), FAKE4), b"x")
    assert lab.out((NO_VIRTIO, packet)) == []
    assert lab.app.hub.of("foreign") == [(packet,)]


def test_answers_with_a_strange_number_are_dropped(lab):
    stranger = Host()
    lab.destination.peer = stranger.knows(OTHER4, OTHER6, PEER, ROOM).peer  # by another peer
    assert lab.back((NO_VIRTIO, udp(GUEST4[::-1], b"y"))) == []
    lab.app.receiver.exits.clear()
    assert lab.back((NO_VIRTIO, tcp(GUEST6[::-1], b"y"))) == []
    assert lab.app.receiver.dropped == {"exit flows: an answer for nobody": 2}
    stranger.close()


def test_no_connection_begins_at_the_exit(lab):
    assert lab.back((NO_VIRTIO, tcp(GUEST4[::-1], flags=SYN))) == []
    assert lab.app.receiver.dropped == {"exit flows: a connection the wrong way round": 1}
    assert len(lab.back((NO_VIRTIO, tcp(GUEST4[::-1], flags=SYN | ACK)))) == 1


def test_who_is_no_guest_is_refused(lab):
    lab.links[1].guest = None
    assert lab.out((NO_VIRTIO, udp((ONE4, FAKE4), b"x"))) == []
    assert lab.exit.dropped == {"from peers: refused, forbidden": 1}
    assert lab.exit.written() == []
    lab.carry(lab.exit.sent(), lab.app)
    (note,) = lab.app.hub.of("control")
    refused = parse_control(note[2])
    assert (refused.reason, refused.number, refused.flags) == (1, NUMBER, Flag.EXIT)
    lab.app.rare.refused(lab.links[0], refused)
    (told,) = as_kernel(lab.app.written())
    assert (told[9], told[20], told[21]) == (1, 3, 13)
    assert (told[12:16], told[16:20]) == (FAKE4, ONE4)
    # A segment of a connection is reset, in the words of that connection.
    assert lab.out((NO_VIRTIO, tcp((ONE4, FAKE4), b"x", ack=77))) == []
    (reset,) = lab.carry(lab.exit.sent(), lab.app)
    assert (reset[33], reset[24:28]) == (0x04, (77).to_bytes(4, "big"))
    assert whole(reset) == reset


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_a_syn_is_lowered_to_what_the_path_carries(lab, v6):
    """MSS 1460 on a path of frames of 1,200 bytes: 8 of header and number, 20 of TCP; no IP header, of any version."""
    options = bytes((2, 4)) + (1460).to_bytes(2, "big")
    packet = tcp((ONE6, FAKE6) if v6 else (ONE4, FAKE4), flags=SYN, options=options)
    view = Packet(lab.app.gateway.raw)
    lab.app.gateway.raw[: 10 + len(packet)] = bytes(10) + packet
    assert view.parse(10, len(packet)) == 0
    lab.app.rare.named(lab.links[0], view, NUMBER, "www.example")
    lab.carry(lab.app.sent(), lab.exit)
    (flow,) = lab.guest.slow
    assert (flow.number, flow.meaning) == (NUMBER, "www.example")
    arrived = rebuild(flow.frame, *(GUEST6 if v6 else GUEST4))
    mss = 62 if v6 else 42
    assert int.from_bytes(arrived[mss : mss + 2], "big") == 1172
    assert whole(arrived) == arrived
    # And the answer of the exit's listener.
    answer = tcp((GUEST6 if v6 else GUEST4)[::-1], flags=SYN | ACK, options=options)
    (came,) = lab.back((NO_VIRTIO, answer))
    assert int.from_bytes(came[mss : mss + 2], "big") == 1172
    assert whole(came) == came
