"""ICMP errors through the tunnel, against scapy."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from tests.zignet.wire.packets import addresses, error, ip_with_options, quoted_under, tcp, text, udp
from zignet.wire import BadFrame, rebuild, strip
from zignet.wire.icmp import inward, is_error, outward, stays_here

KINDS4, KINDS6 = (3, 4, 11, 12), (1, 2, 3, 4, 100, 127)
A4, B4, C4, D4 = (bytes((10, 0, 0, n)) for n in (1, 2, 3, 4))
A6, B6, C6, D6 = (bytes.fromhex("fd00") + bytes(13) + bytes((n,)) for n in (1, 2, 3, 4))


def quote(source: bytes, target: bytes, upper: object = None, options: int = 0) -> bytes:
    upper = TCP(sport=1, dport=2) / b"payload" if upper is None else upper
    if len(source) == 16:
        return bytes(IPv6(src=text(source), dst=text(target)) / upper)
    if options:
        return bytes(ip_with_options(source, target, options) / upper)
    return bytes(IP(src=text(source), dst=text(target)) / upper)


@given(st.booleans(), st.data())
def test_an_error_crosses(v6, data):
    """The quoted packet was A -> B where the error was made (by B), and is C -> D where it arrives (from D)."""
    a, b = data.draw(addresses(v6))
    c, d = data.draw(addresses(v6))
    kind, code = data.draw(st.sampled_from(KINDS6 if v6 else KINDS4)), data.draw(st.integers(0, 255))
    rest = data.draw(st.sampled_from((0, 1280, 1500)))
    options = data.draw(st.sampled_from((0, 4, 8)))
    whole = quote(a, b, data.draw(st.one_of(tcp(), udp())), options)
    head = 40 if v6 else 20 + options
    cut = whole[: data.draw(st.integers(head, len(whole)))]
    frame = strip(error(b, a, cut, kind, code, rest))
    wire = quoted_under(cut, *([bytes(16 if v6 else 4)] * 2))
    if not v6:
        wire = wire[:10] + bytes(2) + wire[12:]
    assert frame[4:] == bytes((kind, code, 0, 0)) + frame[8:12] + wire
    assert rebuild(frame, d, c) == error(d, c, quoted_under(cut, c, d), kind, code, rest)


@pytest.mark.parametrize("v6", [False, True])
def test_cut_at_each_byte(v6):
    a, b, c, d = (A6, B6, C6, D6) if v6 else (A4, B4, C4, D4)
    whole, head = quote(a, b), 40 if v6 else 20
    frame = strip(error(b, a, whole, 1 if v6 else 3, 3))
    for end in range(len(whole)):
        if end < head:
            with pytest.raises(BadFrame):
                strip(error(b, a, whole[:end], 1 if v6 else 3, 3))
            with pytest.raises(BadFrame):
                rebuild(frame[: 12 + end], d, c)
        else:
            strip(error(b, a, whole[:end], 1 if v6 else 3, 3))
            rebuild(frame[: 12 + end], d, c)


def test_a_quote_of_another_packet_is_dropped():
    for source, target in ((B4, A4), (C4, B4), (A4, C4)):
        with pytest.raises(BadFrame, match="did not send"):
            strip(error(B4, A4, quote(source, target), 3, 3))


@pytest.mark.parametrize("at", [2, 8 + 10, 8 + 12, 8 + 19])
def test_what_must_be_zero_on_the_wire(at):
    frame = bytearray(strip(error(B4, A4, quote(A4, B4), 3, 3)))
    rebuild(frame, D4, C4)
    frame[4 + at] = 1
    with pytest.raises(BadFrame, match="tells"):
        rebuild(frame, D4, C4)


def test_a_wrong_checksum_is_not_made_right():
    packet = bytearray(error(B4, A4, quote(A4, B4), 3, 3))
    packet[-1] ^= 1
    with pytest.raises(BadFrame, match="checksum"):
        strip(packet)


def test_a_header_whose_length_is_a_lie():
    whole = bytearray(quote(A4, B4))
    for first in (0x44, 0x4F, 0x65, 0x05):
        whole[0] = first
        with pytest.raises(BadFrame):
            strip(error(B4, A4, bytes(whole[:30]), 3, 3))
    with pytest.raises(BadFrame):
        strip(error(B6, A6, b"\x45" + quote(A6, B6)[1:], 1, 0))


def test_nested_errors_are_only_bytes():
    inner = error(B4, A4, quote(A4, B4), 3, 3)
    for _ in range(20):
        inner = bytes(IP(src=text(A4), dst=text(B4)) / Raw(inner[20:]))
    frame = strip(error(B4, A4, inner, 11, 0))
    assert rebuild(frame, D4, C4) == error(D4, C4, quoted_under(inner, C4, D4), 11, 0)


@given(st.booleans(), st.binary(max_size=120), st.data())
def test_garbage(v6, message, data):
    """Any bytes are turned, or raise BadFrame; and what was turned inward comes out again as it was."""
    source, target = data.draw(addresses(v6))
    for way in (outward, inward):
        try:
            made = way(message, source, target)
        except BadFrame:
            continue
        assert len(made) == len(message)
        if way is inward:
            assert outward(made, source, target) == message


def test_which_are_errors():
    assert [kind for kind in range(256) if is_error(False, kind)] == [3, 4, 5, 11, 12]
    assert [kind for kind in range(256) if is_error(True, kind)] == list(range(128))


def test_what_stays_on_its_link():
    assert [kind for kind in range(256) if stays_here(False, kind)] == [5, 9, 10]
    beyond = [kind for kind in range(128, 256) if not stays_here(True, kind)]
    assert 128 in beyond
    assert 129 in beyond
    link = {130, 131, 132, 133, 134, 135, 136, 137, 141, 142, 143, 148, 149, 151, 152, 153}  # protocol §6
    assert set(beyond) == set(range(128, 256)) - link


@given(udp())
def test_the_quotes_transport_checksum_is_left_alone(upper):
    whole = quote(A4, B4, upper)
    assume(len(whole) >= 28)
    got = rebuild(strip(error(B4, A4, whole, 3, 3)), D4, C4)
    assert got[28 + 26 : 28 + 28] == whole[26:28]
    assert UDP(whole[20:28]).sport == UDP(got[48:56]).sport
