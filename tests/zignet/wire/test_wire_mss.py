"""The MSS of a SYN, against scapy."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.packet import Raw

from zignet.wire import clamp_mss

NOP, MSS = ("NOP", None), "MSS"
others = st.lists(
    st.sampled_from([NOP, ("WScale", 7), ("SAckOK", b""), ("Timestamp", (9, 0)), (MSS, 9000)]), max_size=4
)


def syn(options, payload=b"", flags="S"):
    return bytes(IP(src="10.0.0.1", dst="10.0.0.2") / TCP(flags=flags, seq=7, options=options) / Raw(payload))


@given(
    others,
    st.integers(0, 0xFFFF),
    others,
    st.integers(1, 0xFFFF),
    st.binary(max_size=9),
    st.sampled_from(["S", "SA"]),
)
def test_lowered_as_scapy_would_have_written_it(before, value, behind, most, payload, flags):
    options = [*before, (MSS, value), *behind]
    try:
        packet, wanted = (
            syn([(name, min(it, top) if name == MSS else it) for name, it in options], payload, flags)
            for top in (0xFFFF, most)
        )
    except Exception:
        assume(False)  # more options than a header holds
    assume((packet[32] >> 4) * 4 == 20 + (len(packet) - len(payload) - 40))
    buffer = bytearray(b"junk" + packet + b"behind")
    changed = clamp_mss(buffer, 24, 4 + len(packet), most)
    assert buffer == b"junk" + wanted + b"behind"
    assert changed == (packet != wanted)


@pytest.mark.parametrize("nops", range(4))
def test_partial_leaves_the_checksum(nops):
    packet = bytearray(syn([NOP] * nops + [(MSS, 1460)]))
    packet[36:38] = b"\xab\xcd"
    assert clamp_mss(packet, 20, len(packet), 1000, partial=True)
    assert packet[36:38] == b"\xab\xcd"
    assert packet[42 + nops : 44 + nops] == (1000).to_bytes(2, "big")


@pytest.mark.parametrize(
    "options",
    [
        b"\2\4\5\xb4\x03",  # an option without its length
        b"\2\4\5\xb4\x08\x00",  # a length of 0
        b"\2\4\5\xb4\x08\x01",
        b"\2\4\5\xb4\x08\x0a\0\0",  # reaches over the header
        b"\2\3\5\1\2\4\5\xb4",  # an MSS of 3 bytes
        b"\2\6\5\xb4\0\0\2\4",
        b"\2\4\5",  # cut
    ],
    ids=bytes.hex,
)
def test_malformed_options_leave_the_segment_alone(options):
    head = 20 + len(options) + -len(options) % 4
    options = options.rjust(head - 20, b"\1")
    packet = bytearray(bytes(TCP(flags="S", dataofs=head // 4, chksum=1)) + options)
    before = bytes(packet)
    assert not clamp_mss(packet, 0, len(packet), 500)
    assert packet == before


def test_behind_the_end_of_options_nothing_counts():
    packet = bytearray(bytes(TCP(flags="S", dataofs=7)) + b"\0\2\4\5\xb4\0\0\0")
    before = bytes(packet)
    assert not clamp_mss(packet, 0, len(packet), 500)
    assert packet == before


def test_a_segment_at_the_beginning_of_its_buffer():
    segment = bytearray(syn([(MSS, 1460)])[20:])
    assert clamp_mss(segment, 0, len(segment), 500)
    assert segment[22:24] == (500).to_bytes(2, "big")


@pytest.mark.parametrize("flags", ["A", "PA", "R", "FA", ""])
def test_only_syns(flags):
    packet = bytearray(syn([(MSS, 1460)], flags=flags))
    before = bytes(packet)
    assert not clamp_mss(packet, 20, len(packet), 500)
    assert packet == before


def test_no_option_none_made():
    packet = bytearray(syn([NOP]))
    before = bytes(packet)
    assert not clamp_mss(packet, 20, len(packet), 500)
    assert packet == before


def test_cut_at_each_byte():
    whole = syn([(MSS, 1460), ("SAckOK", b"")])
    for end in range(20, len(whole)):
        packet = bytearray(whole)
        assert not clamp_mss(packet, 20, end, 500)
        assert packet == whole
        assert not clamp_mss(bytearray(whole[:end]), 20, len(whole), 500)
    assert clamp_mss(bytearray(whole), 20, len(whole), 500)


@given(
    st.binary(max_size=80), st.integers(-5, 90), st.integers(-5, 90), st.integers(0, 0xFFFF), st.booleans()
)
def test_garbage(data, at, end, most, partial):
    buffer = bytearray(data)
    clamp_mss(buffer, at, end, most, partial=partial)
    assert len(buffer) == len(data)
