"""From packet to frame and back, against scapy: every header that is made here was made there, too."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.packet import Raw

from nat.checksum import partial_checksum
from tests.zignet.wire.packets import Case, addresses, cases, ip_with_options, text
from zignet.wire import BadFrame, Flag, rebuild, strip

A4, B4, C4, D4 = (bytes((10, 0, 0, n)) for n in (1, 2, 3, 4))
A6, B6, C6, D6 = (bytes.fromhex("fd00") + bytes(13) + bytes((n,)) for n in (1, 2, 3, 4))
CHECKSUM = {"tcp": 16, "udp": 6}


@given(cases(), st.data(), st.integers(0, 0xFFFF), st.binary(max_size=20))
def test_out_and_in_are_scapys(case, data, number, trailing):
    pair = addresses(case.v6)
    here, there = data.draw(pair), data.draw(pair)
    packet = case.sent(*here, id=number)
    frame = strip(packet + trailing)
    assert frame == case.frame()
    assert rebuild(frame, *there) == case.received(*there)


@given(cases(), st.data())
def test_partial(case, data):
    """The checksum field holds the pseudo-header's sum; what is written there crosses as zero, and is computed."""
    assume(case.kind != "icmp")
    pair = addresses(case.v6)
    here, there = data.draw(pair), data.draw(pair)
    packet = bytearray(case.sent(*here))
    at = case.head + CHECKSUM[case.kind]
    length = len(packet) - case.head
    packet[at : at + 2] = partial_checksum(*here, {"tcp": 6, "udp": 17}[case.kind], length).to_bytes(2, "big")
    frame = strip(packet, partial=True)
    wanted = bytearray(case.frame())
    wanted[1] |= Flag.PARTIAL
    wanted[4 + CHECKSUM[case.kind] : 6 + CHECKSUM[case.kind]] = bytes(2)
    assert frame == wanted
    assert rebuild(frame, *there) == case.received(*there)


@given(cases(), st.data())
def test_a_wrong_checksum_stays_wrong(case, data):
    """Nothing is laundered: what was damaged before it came to us is found by its receiver."""
    here, there = data.draw(addresses(case.v6)), data.draw(addresses(case.v6))
    packet = bytearray(case.sent(*here))
    at = case.head + {**CHECKSUM, "icmp": 2}[case.kind]
    wrong = int.from_bytes(packet[at : at + 2], "big") ^ data.draw(st.integers(1, 0xFFFE))
    assume(wrong not in (0, 0xFFFF))
    assume(int.from_bytes(packet[at : at + 2], "big") not in (0, 0xFFFF))
    packet[at : at + 2] = wrong.to_bytes(2, "big")
    got = rebuild(strip(packet), *there)
    assert got[at : at + 2] != case.received(*there)[at : at + 2]


@given(cases(), st.data(), st.integers(0, 255))
def test_the_traffic_class_can_be_replaced(case, data, traffic):
    there = data.draw(addresses(case.v6))
    other = Case(case.v6, case.kind, case.upper, traffic, case.hops)
    assert rebuild(case.frame(), *there, traffic=traffic) == other.received(*there)


def test_udp_without_a_checksum():
    packet = bytes(IP(src=text(A4), dst=text(B4)) / UDP(sport=1, dport=2, chksum=0) / b"x")
    frame = strip(packet)
    assert frame[10:12] == bytes(2)
    assert rebuild(frame, C4, D4)[26:28] == bytes(2)
    with pytest.raises(BadFrame, match="without a checksum"):
        strip(bytes(IPv6(src=text(A6), dst=text(B6)) / UDP(sport=1, dport=2, chksum=0) / b"x"))
    with pytest.raises(BadFrame, match="without a checksum"):
        rebuild(bytes((17, Flag.V6, 0, 64)) + frame[4:], C6, D6)


@pytest.mark.parametrize("where", ["sent", "wire", "received"])
def test_udp_whose_checksum_computes_to_zero(where):
    """Such a one is 0xffff, never 0, which would say that there is none (RFC 768)."""
    pairs = {"sent": (A4, B4), "wire": (bytes(4), bytes(4)), "received": (C4, D4)}
    source, target = pairs[where]
    blank = bytes(IP(src=text(source), dst=text(target)) / UDP(sport=0, dport=7, chksum=None) / b"ab")
    port = int.from_bytes(blank[26:28], "big")  # what is missing to 0xffff goes into a port
    upper = UDP(sport=port, dport=7) / Raw(b"ab")
    case = Case(False, "udp", upper, 0, 64)
    assert case.sent(source, target)[26:28] == b"\xff\xff"
    assert strip(case.sent(A4, B4)) == case.frame()
    assert rebuild(case.frame(), C4, D4) == case.received(C4, D4)


def test_partial_udp_whose_checksum_computes_to_zero():
    frame = bytearray(Case(False, "udp", UDP(sport=0, dport=7) / Raw(b"ab"), 0, 64).frame())
    frame[1], frame[10:12] = Flag.PARTIAL, bytes(2)
    frame[4:6] = rebuild(bytes(frame), C4, D4)[26:28]
    assert rebuild(bytes(frame), C4, D4)[26:28] == b"\xff\xff"


def test_an_urgent_pointer_is_no_checksum():
    packet = bytearray(bytes(IP(src=text(A4), dst=text(B4)) / TCP(flags="U", urgptr=0xFFFF)))
    packet[36:38] = partial_checksum(A4, B4, 6, 20).to_bytes(2, "big")
    got = rebuild(strip(packet, partial=True), C4, D4)
    assert got == bytes(IP(src=text(C4), dst=text(D4), id=0, flags="DF") / TCP(flags="U", urgptr=0xFFFF))


def test_surplus_behind_a_datagram_stays():
    """RFC 9868: bytes of the IP packet behind the UDP length are options."""
    packet = bytes(IP(src=text(A4), dst=text(B4)) / UDP(sport=1, dport=2, len=10) / b"abSURPLUS")
    frame = strip(packet)
    assert frame.endswith(b"abSURPLUS")
    assert rebuild(frame, A4, B4)[20:] == packet[20:]
    with pytest.raises(BadFrame, match="UDP length"):
        strip(packet, partial=True)


def test_ip_options_do_not_cross():
    packet = bytes(ip_with_options(A4, B4) / TCP(sport=1, dport=2) / b"x")
    assert strip(packet) == Case(False, "tcp", TCP(sport=1, dport=2) / b"x", 0, 64).frame()


V4 = IP(src=text(A4), dst=text(B4))
V6 = IPv6(src=text(A6), dst=text(B6))


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45",
        bytes(20),
        bytes(V4 / TCP())[:-1],
        bytes(V4 / TCP(dataofs=4)),
        bytes(V4 / TCP(dataofs=15)),
        bytes(V4 / UDP(len=7)),
        bytes(V4 / UDP(len=9)),
        bytes(V4 / Raw(b"1234")),
        bytes(IP(src=text(A4), dst=text(B4), proto=132) / Raw(bytes(40))),  # SCTP
        bytes(IP(src=text(A4), dst=text(B4), proto=58) / Raw(bytes(40))),  # ICMPv6 over IPv4
        bytes(IPv6(src=text(A6), dst=text(B6), nh=1) / Raw(bytes(40))),  # ICMP over IPv6
        bytes(IPv6(src=text(A6), dst=text(B6), nh=59)),
        bytes(V6 / IPv6ExtHdrHopByHop() / TCP()),
        bytes(V6 / IPv6ExtHdrDestOpt() / UDP()),
        bytes(V6 / IPv6ExtHdrFragment(id=1) / UDP()),
        bytes(IP(src=text(A4), dst=text(B4), chksum=1) / TCP()),
        bytes(V4 / ICMP(type=5, gw="10.0.0.9") / bytes(V4 / UDP())),
        bytes(V4 / ICMP(type=9) / bytes(8)),
        bytes(V4 / ICMP(type=10)),
        bytes(V6 / ICMPv6ND_NS()),
        bytes(V6 / ICMPv6ND_RA()),
        *[bytes(piece) for piece in fragment(V4 / UDP() / bytes(100), 40)],
    ],
    ids=lambda packet: packet[:9].hex(),
)
def test_what_is_not_carried(packet):
    with pytest.raises(BadFrame):
        strip(packet)


def test_partial_is_for_tcp_and_udp():
    with pytest.raises(BadFrame, match="partial"):
        strip(bytes(V4 / ICMP()), partial=True)


GOOD = [
    Case(v6, kind, upper, 0xB9, 63)
    for v6 in (False, True)
    for kind, upper in (
        ("tcp", TCP(sport=40001, dport=443, options=[("MSS", 1460), ("SAckOK", b"")]) / b"hello"),
        ("udp", UDP(sport=40001, dport=53) / b"hello"),
    )
]


@pytest.mark.parametrize("case", GOOD, ids=lambda case: f"{case.kind}{'64'[not case.v6]}")
def test_cut_at_each_byte(case):
    """A packet is whole or is none. A frame may end anywhere behind its transport header, but for UDP's length."""
    there = (C6, D6) if case.v6 else (C4, D4)
    packet, frame = case.sent(*((A6, B6) if case.v6 else (A4, B4))), case.frame()
    for end in range(len(packet)):
        with pytest.raises(BadFrame):
            strip(packet[:end])
    least = 4 + (28 if case.kind == "tcp" else 8 + 5)
    for end in range(len(frame) + 1):
        if end < least:
            with pytest.raises(BadFrame):
                rebuild(frame[:end], *there)
        else:
            assert len(rebuild(frame[:end], *there)) == case.head + end - 4


@pytest.mark.parametrize(
    "frame",
    [
        bytes((0, 0, 0, 0)),
        bytes((4, 0, 0, 0)) + bytes(40),
        bytes((44, 0, 0, 0)) + bytes(40),
        bytes((58, 1, 0, 64)) + bytes(40),
        bytes((6, 4, 0, 64)) + GOOD[0].frame()[4:],  # EXIT
        bytes((6, 8, 0, 64)) + GOOD[0].frame()[4:],
        bytes((6, Flag.PARTIAL, 0, 64)) + GOOD[0].frame()[4:],  # with a checksum
        bytes((17, Flag.PARTIAL, 0, 64)) + GOOD[1].frame()[4:],
        bytes((1, Flag.PARTIAL, 0, 64)) + bytes(8),
        bytes((1, 0, 0, 64)) + bytes(7),
        bytes((1, 0, 0, 64, 5)) + bytes(27),
        bytes((1, Flag.V6, 0, 64, 134)) + bytes(27),
    ],
    ids=lambda frame: frame[:5].hex(),
)
def test_what_is_no_frame(frame):
    with pytest.raises(BadFrame):
        rebuild(frame, *((C6, D6) if frame[1] & Flag.V6 else (C4, D4)))


def test_addresses_of_the_other_version_are_the_callers_fault():
    with pytest.raises(ValueError, match="version") as caught:
        rebuild(GOOD[0].frame(), C6, D6)
    assert not isinstance(caught.value, BadFrame)


def test_too_long_for_a_header():
    frame = GOOD[0].frame()
    longest = frame + bytes(0xFFFF - 20 - len(frame) + 4)
    assert len(rebuild(longest, C4, D4)) == 0xFFFF
    with pytest.raises(BadFrame, match="too long"):
        rebuild(longest + b"x", C4, D4)
    assert len(rebuild(bytes((6, 1)) + longest[2:] + bytes(20), C6, D6)) == 40 + 0xFFFF
    with pytest.raises(BadFrame, match="too long"):
        rebuild(bytes((6, 1)) + longest[2:] + bytes(21), C6, D6)


@pytest.mark.parametrize("made", [bytes, bytearray, memoryview])
def test_any_bytes_will_do(made):
    case = GOOD[0]
    assert strip(made(case.sent(A4, B4))) == case.frame()
    assert rebuild(made(case.frame()), C4, D4) == case.received(C4, D4)
