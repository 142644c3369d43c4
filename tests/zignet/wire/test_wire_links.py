"""From captured packets to datagrams."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether, Loopback
from scapy.packet import Raw

from zignet.noise import Suite
from zignet.wire import seal
from zignet.wire.links import LINKS, Finder, apart

V4 = IP(src="192.0.2.1", dst="198.51.100.2", tos=2) / UDP(sport=51830, dport=40000) / Raw(b"payload")
V6 = IPv6(src="2001:db8::1", dst="2001:db8::2", tc=3) / UDP(sport=51830, dport=40000) / Raw(b"payload")


def check(found, v6):
    assert str(found.source) == ("2001:db8::1" if v6 else "192.0.2.1")
    assert str(found.target) == ("2001:db8::2" if v6 else "198.51.100.2")
    assert (found.source_port, found.target_port) == (51830, 40000)
    assert bytes(found.payload) == b"payload"
    assert found.ecn == (3 if v6 else 2)
    assert found.missing == 0


LAYERS = {
    0: lambda v6: Loopback(type=30 if v6 else 2),
    1: lambda v6: Ether(),
    12: None,
    14: None,
    101: None,
    108: lambda v6: Loopback(type=24 if v6 else 2),
    113: lambda v6: CookedLinux(proto=0x86DD if v6 else 0x0800),
    228: None,
    229: None,
    276: lambda v6: CookedLinuxV2(proto=0x86DD if v6 else 0x0800),
}


@pytest.mark.parametrize("link", LAYERS)
@pytest.mark.parametrize("v6", [False, True])
def test_every_link_type(link, v6):
    made = LAYERS[link]
    packet = bytes(V6 if v6 else V4)
    if made is not None:
        packet = bytes(made(v6) / Raw(packet)) if link != 1 else bytes(Ether() / (V6 if v6 else V4))
    check(Finder().find(link, packet), v6)
    check(Finder().find(link, packet + bytes(18)), v6)  # an Ethernet trailer


def test_no_other():
    assert set(LINKS) == set(LAYERS)


@pytest.mark.parametrize("tags", [Dot1Q(vlan=5), Dot1AD(vlan=1) / Dot1Q(vlan=5)])
def test_vlans(tags):
    check(Finder().find(1, bytes(Ether() / tags / V4)), False)


def test_what_holds_no_datagram():
    finder = Finder()
    assert finder.find(1, bytes(Ether() / ARP())) is None
    assert finder.find(1, bytes(Ether() / IP() / TCP())) is None
    assert finder.find(101, bytes(V6.copy() / b"x")[:45]) is None
    assert finder.find(147, bytes(V4)) is None
    assert finder.find(105, bytes(V4)) is None
    assert finder.unknown_links == {105, 147}
    assert finder.fragments == 0


def test_extension_headers_and_ip_options():
    finder = Finder()
    found = finder.find(101, bytes(IPv6() / IPv6ExtHdrHopByHop() / UDP(sport=1, dport=2) / b"x"))
    assert bytes(found.payload) == b"x"


def test_fragments_are_counted():
    finder = Finder()
    pieces = fragment(IP() / UDP() / bytes(100), 40)
    for piece in pieces:
        assert finder.find(101, bytes(piece)) is None
    assert finder.find(101, bytes(IPv6() / IPv6ExtHdrFragment(id=1, m=1) / UDP() / bytes(20))) is None
    assert finder.fragments == len(pieces) + 1


@pytest.mark.parametrize("v6", [False, True])
def test_what_the_capture_did_not_keep(v6):
    packet = bytes(V6 if v6 else V4)
    head = len(packet) - len(b"payload")
    for end in range(len(packet)):
        found = Finder().find(101, packet[:end])
        if end < head:
            assert found is None
        else:
            assert bytes(found.payload) + b"payload"[end - head :] == b"payload"
            assert found.missing == len(packet) - end


@given(st.sampled_from([*LINKS, 7]), st.binary(max_size=120))
def test_garbage(link, data):
    Finder().find(link, data)


@given(st.sampled_from(sorted(LINKS)), st.binary(max_size=8), st.integers(0, 60), st.binary(max_size=8))
def test_damage(link, before, at, damage):
    packet = bytearray(bytes(LINKS[link]) + bytes(V4))
    packet[at : at + len(damage)] = damage
    Finder().find(link, before + bytes(packet))


# --- what offload put together


def messages(sizes, index=7, counters=None):
    return [
        seal(Suite.AES, bytes(32), index, counters[n] if counters else n, b"\6\0\0\x40" + bytes(size))
        for n, size in enumerate(sizes)
    ]


def taken_apart(data, missing=0):
    return [bytes(piece) for piece in apart(memoryview(data), missing)]


@pytest.mark.parametrize("sizes", [[0], [1200], [40, 40], [1200] * 20 + [7], [1200] * 3 + [1200], [4] * 64])
def test_apart(sizes):
    parts = messages(sizes)
    assert taken_apart(b"".join(parts)) == parts


def test_apart_with_counters_lost_between():
    parts = messages([100] * 4, counters=[5, 6, 9, 10])
    assert taken_apart(b"".join(parts)) == parts


def test_apart_where_the_capture_kept_less():
    parts = messages([100] * 3)
    whole = b"".join(parts)
    for kept in range(2 * 136 + 9, len(whole)):
        assert taken_apart(whole[:kept], len(whole) - kept) == [*parts[:2], parts[2][: kept - 272]]


def test_not_apart():
    for data in (
        b"",
        b"\4\0\0\0",
        bytes(100),
        messages([100])[0] + bytes(50),
        b"\1" + messages([100])[0] * 2,
    ):
        assert taken_apart(data) == [data]
    uneven = messages([100, 90, 100])
    assert taken_apart(b"".join(uneven)) == [b"".join(uneven)]
