"""Whole packets, there and back, against scapy; and all that is none."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.packet import Raw

from nat.checksum import partial_checksum
from tests.zignet.wire.packets import addresses, cases, error, ip, ip_with_options, quoted_under, text
from zignet.wire import BadFrame, Flag, unwrap, wrap

CHECKSUM = {"tcp": 16, "udp": 6}
A4, B4, C4, P4 = (bytes((10, 0, 0, n)) for n in (1, 2, 3, 4))
A6, B6, C6, P6 = (bytes.fromhex("fd00") + bytes(13) + bytes((n,)) for n in (1, 2, 3, 4))
families = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
ways = pytest.mark.parametrize("back", [False, True], ids=["out", "back"])


def named(v6):
    """The application's host, the far end, the host as the exit knows it, the exit."""
    return (A6, B6, C6, P6) if v6 else (A4, B4, C4, P4)


def between(near, far, back):
    return (far, near) if back else (near, far)


def blanked(packet, traffic, hops, flags, near_at):
    """What protocol §6 says of a packet whose checksum has no near address any more."""
    frame = bytearray(bytes((4, flags, traffic, hops)) + packet)
    size = 16 if packet[0] >> 4 == 6 else 4
    zero = [4 + near_at + k for k in range(size)]
    if size == 4:
        zero += [4 + at for at in (1, 2, 3, 8, 10, 11)]
    else:
        frame[4], frame[5] = 0x60, frame[5] & 0x0F
        zero += [4 + at for at in (4, 5, 7)]
    for at in zero:
        frame[at] = 0
    return bytes(frame)


@given(cases(), st.data(), st.booleans(), st.integers(0, 0xFFFF), st.binary(max_size=20))
def test_out_and_in_are_scapys(case, data, back, number, trailing):
    (here, far), (there, _) = data.draw(addresses(case.v6)), data.draw(addresses(case.v6))
    assume(any(far) and any(there))
    zero = bytes(len(here))
    packet = case.sent(*between(here, far, back), id=number)
    frame = wrap(packet + trailing, back=back)
    near_at = (24 if back else 8) if case.v6 else (16 if back else 12)
    without = case.sent(*between(zero, far, back), id=number)
    assert frame == blanked(without, case.traffic, case.hops, 8 if back else 0, near_at)
    assert unwrap(frame, there) == case.sent(*between(there, far, back), id=number)


@given(cases(), st.data(), st.booleans())
def test_partial(case, data, back):
    assume(case.kind != "icmp")
    (here, far), (there, _) = data.draw(addresses(case.v6)), data.draw(addresses(case.v6))
    assume(any(far) and any(there))
    ends = between(here, far, back)
    packet = bytearray(case.sent(*ends))
    at = case.head + CHECKSUM[case.kind]
    length = len(packet) - case.head
    packet[at : at + 2] = partial_checksum(*ends, {"tcp": 6, "udp": 17}[case.kind], length).to_bytes(2, "big")
    frame = wrap(packet, back=back, partial=True)
    assert frame[1] == Flag.PARTIAL | (Flag.BACK if back else 0)
    assert frame[4 + at : 6 + at] == bytes(2)
    assert unwrap(frame, there) == case.sent(*between(there, far, back))


@ways
def test_other_protocols_are_not_looked_into(back):
    """GRE, and whatever else stands behind the IP header."""
    near, far, there, _ = named(False)
    for upper in (GRE() / Raw(b"inside"), Raw(b"")):
        packet = ip(*between(near, far, back), 0, 64, proto=47) / upper
        wanted = ip(*between(there, far, back), 0, 64, proto=47) / upper
        assert unwrap(wrap(bytes(packet), back=back), there) == bytes(wanted)


def test_udp_without_a_checksum():
    packet = bytes(IP(src=text(A4), dst=text(B4)) / UDP(sport=1, dport=2, chksum=0) / b"x")
    assert unwrap(wrap(packet), C4) == bytes(
        IP(src=text(C4), dst=text(B4)) / UDP(sport=1, dport=2, chksum=0) / b"x"
    )
    with pytest.raises(BadFrame, match="without a checksum"):
        wrap(bytes(IPv6(src=text(A6), dst=text(B6)) / UDP(sport=1, dport=2, chksum=0) / b"x"))


@families
@ways
def test_errors_carry_the_address_inside(v6, back):
    """Of the quoted packet the near address changes, and so do all checksums; the rest is as it was."""
    near, far, there, _ = named(v6)
    router = far if not back else (bytes.fromhex("20010db8") + bytes(12) if v6 else bytes((192, 0, 2, 77)))
    flow = UDP(sport=1000, dport=2000) / Raw(b"something")
    quote = bytes(ip(*between(near, far, not back), 0, 7) / flow)
    kind, code = (1, 4) if v6 else (3, 3)
    packet = error(*between(near, router, back), quote, kind, code)
    frame = wrap(packet, back=back)
    assert near not in frame
    changed = quoted_under(quote, *between(there, far, not back))
    assert unwrap(frame, there) == error(*between(there, router, back), changed, kind, code)


@families
def test_the_exit_itself_is_a_hop(v6):
    """Its own address means nothing to the application's host, which knows it by another."""
    near, far, there, peer = named(v6)
    own = P6[::-1] if v6 else P4[::-1]
    quote = bytes(ip(near, far, 0, 1) / UDP(sport=1, dport=33434))
    kind = 3 if v6 else 11
    frame = wrap(error(own, near, quote, kind, 0), back=True, own=own)
    assert own not in frame
    assert unwrap(frame, there, peer) == error(peer, there, quoted_under(quote, there, far), kind, 0)
    with pytest.raises(BadFrame, match="nowhere"):
        unwrap(frame, there)
    with pytest.raises(BadFrame, match="own packet"):
        wrap(bytes(ip(own, near, 0, 1) / UDP(sport=1, dport=2)), back=True, own=own)


@families
def test_errors_about_others(v6):
    near, far, other, _ = named(v6)
    quote = bytes(ip(far, other, 0, 7) / UDP(sport=1, dport=2))
    packet = error(near, far, quote, *((1, 4) if v6 else (3, 3)))
    with pytest.raises(BadFrame, match="not its receiver's"):
        wrap(packet)
    wrong = bytearray(error(near, far, bytes(ip(far, near, 0, 7) / UDP()), *((1, 4) if v6 else (3, 3))))
    wrong[-1] ^= 1
    with pytest.raises(BadFrame, match="checksum is wrong"):
        wrap(bytes(wrong))


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45" + bytes(19),
        bytes(ip_with_options(A4, B4) / UDP()),
        bytes(IP(src=text(A4), dst=text(B4), flags="MF") / UDP()),
        bytes(IP(src=text(A4), dst=text(B4), frag=8) / UDP()),
        bytes(IP(src=text(A4), dst=text(B4)) / ICMP(type=5) / bytes(28)),
        bytes(IPv6(src=text(A6), dst=text(B6)) / IPv6ExtHdrHopByHop() / UDP()),
        bytes(IPv6(src=text(A6), dst=text(B6)) / IPv6ExtHdrFragment() / UDP()),
        bytes(IPv6(src=text(A6), dst=text(B6)) / ICMPv6ND_NS(tgt=text(B6))),
    ],
    ids=lambda packet: packet[:10].hex(),
)
def test_what_is_not_carried(packet):
    with pytest.raises(BadFrame):
        wrap(packet)


@families
@ways
def test_whatever_must_be_zero_is_zero(v6, back):
    """Each byte of the IP header that the receiver writes, set: none is believed."""
    near, far, there, _ = named(v6)
    frame = wrap(bytes(ip(*between(near, far, back), 0x12, 64) / TCP(sport=1, dport=2)), back=back)
    near_at = (24 if back else 8) if v6 else (16 if back else 12)
    written = [4, 5, 7, 1] if v6 else [1, 2, 3, 8, 10, 11]
    for at in (*written, *range(near_at, near_at + len(near))):
        bent = bytearray(frame)
        bent[4 + at] |= 0x80
        with pytest.raises(BadFrame):
            unwrap(bytes(bent), there)


@families
def test_cut_at_each_byte(v6):
    near, far, there, _ = named(v6)
    upper = ICMPv6EchoRequest() if v6 else ICMP()
    frame = wrap(bytes(ip(near, far, 0, 64) / upper))
    for end in range(len(frame)):
        with pytest.raises(BadFrame):
            unwrap(frame[:end], there)
    with pytest.raises(BadFrame, match="version"):
        unwrap(frame, A4 if v6 else A6)
