"""From TUN to TUN: what one host's programs send is what the other's get, under the addresses that it knows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.nat.world import NO_VIRTIO
from tests.zignet.peers.pair import (
    ALL,
    CSUM,
    HERE4,
    HERE6,
    OTHER4,
    OTHER6,
    PEER,
    Came,
    Host,
    as_kernel,
    cut,
    echo,
    join,
    tcp,
    trains,
    udp,
    unfinished,
    way,
    whole,
)
from zignet.noise import Suite
from zignet.wire import rebuild, strip

pytestmark = pytest.mark.packet_path

ARRIVES = {False: (OTHER4, HERE4), True: (OTHER6, HERE6)}
ROOM = 1200
ACK, PSH, FIN, CWR = 0x10, 0x08, 0x01, 0x80
patient = settings(deadline=None, max_examples=80)


def moved(packet):
    """A packet under the addresses by which the other host knows both; all else the same, but for what §6 sets."""
    v6 = packet[0] >> 4 == 6
    changed = bytearray(packet)
    changed[8 if v6 else 12 : 40 if v6 else 20] = b"".join(ARRIVES[v6])
    if not v6:
        changed[4:8] = b"\0\0\x40\0"
    return whole(changed)


def pieces(packet, virtio):
    """What crosses: the segments that fit the path, else the packet as it is."""
    at = 40 if packet[0] >> 4 == 6 else 20
    protocol = packet[6 if at == 40 else 9]
    size = int.from_bytes(virtio[4:6], "little")
    if protocol == 6:
        head = at + (packet[at + 12] >> 4) * 4
        fits = min(size or len(packet), ROOM - 4 - (head - at))
        return cut(packet, head, fits) if len(packet) - head > fits else [packet]
    return cut(packet, at + 8, size) if size else [packet]


def content(size, fill):
    return (bytes((fill + at) & 0xFF for at in range(256)) * (size // 256 + 1))[:size]


lengths = st.one_of(st.integers(0, 100), st.integers(1100, 1300), st.integers(0, 30_000))


@st.composite
def packets(draw, host):
    """(virtio_net_hdr, packet as it is read, the same with its checksums)."""
    there = way(host, draw(st.booleans()))
    payload = content(draw(lengths), draw(st.integers(0, 255)))
    traffic, kind = draw(st.integers(0, 255)), draw(st.sampled_from(["tcp", "udp", "echo"]))
    if kind == "echo":
        packet = echo(there, payload, traffic=traffic, reply=draw(st.booleans()))
        return NO_VIRTIO, packet, packet
    ports = draw(st.sampled_from([(1, 2), (3, 4)]))
    if kind == "tcp":
        size = draw(st.sampled_from([536, 1000, 1176, 1448]))
        fields = {
            "flags": draw(st.sampled_from([ACK, ACK, PSH | ACK, FIN | PSH | ACK, CWR | ACK])),
            "options": draw(st.sampled_from([b"", bytes.fromhex("0101080a0000000100000002")])),
            "seq": draw(st.sampled_from([1000, 2**32 - 2000])),
        }
        packet = tcp(there, payload, traffic=traffic, ports=ports, **fields)
    else:
        size = draw(st.sampled_from([100, 1188, 1400]))
        packet = udp(there, payload, traffic=traffic, ports=ports)
    if len(payload) > size and not (kind == "udp" and len(payload) > 64 * size):
        return *unfinished(packet, size), packet
    return (*unfinished(packet), packet) if draw(st.booleans()) else (NO_VIRTIO, packet, packet)


@pytest.mark.parametrize("suite", list(Suite), ids=["chacha", "aes"])
@pytest.mark.parametrize(("header", "offload"), [(0, 0), (10, CSUM), (10, ALL)], ids=["bare", "sums", "all"])
def test_whatever_is_sent_arrives(suite, header, offload):
    """Packets of all kinds and sizes in one order; on a path that loses nothing all of them arrive, in that order."""
    one, other = Host(plain=False), Host(plain=False, own4=HERE4, own6=HERE6, header=header, offload=offload)
    join(one, other, suite, ROOM)

    @patient
    @given(st.lists(packets(one), max_size=6), st.booleans())
    def check(chosen, at_once):
        expected = [moved(piece) for virtio, _, packet in chosen for piece in pieces(packet, virtio)]
        read = [(virtio, packet) for virtio, packet, _ in chosen]
        for some in [read] if at_once else [[single] for single in read]:
            for call in one.give_all(*some):
                for batch in trains(call.datagrams):
                    other.wire.coming.append(came(batch, call.ecn))
        got = []
        while other.wire.coming:
            other.receiver.on_event(1)
            got += as_kernel(other.written())
        assert got == expected
        assert not one.dropped
        assert not other.dropped
        assert not other.receiver.dropped

    try:
        check()
    finally:
        one.close()
        other.close()


def came(batch, ecn=0):
    return Came(b"".join(batch), len(batch[0]), PEER, ecn)


@pytest.mark.parametrize("offload", [0, ALL], ids=["plain", "offload"])
def test_on_a_bad_path_nothing_arrives_twice_or_changed(offload):
    """Lost, repeated, shuffled: what arrives was sent, each once, and in the order of its datagrams."""
    one, other = Host(plain=True), Host(plain=True, own4=HERE4, own6=HERE6, offload=offload)
    join(one, other, Suite.CHACHA, ROOM)

    @patient
    @given(st.lists(packets(one), max_size=4), st.randoms(use_true_random=False))
    def check(chosen, chance):
        other.wire.coming.clear()  # Hypothesis gives some examples up halfway
        other.written()
        way_of = {}
        line = []
        for virtio, read, packet in chosen:
            sent = [datagram for call in one.give(read, virtio) for datagram in call.datagrams]
            if not sent:
                continue  # for the slow path
            partial = len(sent) > 1 or virtio[0] & 1 == 1
            for datagram, piece in zip(sent, pieces(packet, virtio), strict=True):
                frame = strip(piece, partial=partial)
                way_of[datagram] = rebuild(frame, *ARRIVES[piece[0] >> 4 == 6])
                if chance.random() < 0.9:
                    line.append(datagram)
                if chance.random() < 0.1:
                    line.append(datagram)
        for _ in range(len(line) // 8):
            at = chance.randrange(len(line))
            line.insert(chance.randrange(len(line)), line.pop(at))
        got = []
        for batch in trains(line):
            other.wire.coming.append(came(batch))
            if chance.random() < 0.3:
                other.receiver.on_event(1)
                got += as_kernel(other.written())
        while other.wire.coming:
            other.receiver.on_event(1)
            got += as_kernel(other.written())
        assert got == [way_of[datagram] for datagram in dict.fromkeys(line)]

    try:
        check()
    finally:
        one.close()
        other.close()
