"""Captures, written by scapy or byte by byte, read whole, cut and damaged."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter, PcapWriter

from zignet.wire.capture import MOST_BYTES, BadCapture, Capture, Record

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
PACKETS = [bytes(ETHER / IP(src="10.0.0.2", dst="10.0.0.1") / UDP() / bytes(n + 1)) for n in range(5)]


def read(data):
    capture = Capture(io.BytesIO(data))
    records = list(capture)
    assert capture.bytes_read <= len(data)
    return records, capture


def pcap(tmp_path, **options):
    path = tmp_path / "seen.pcap"
    with PcapWriter(str(path), **options) as writer:
        writer.write_header(None)
        for n, packet in enumerate(PACKETS):
            writer.write_packet(packet, sec=1_700_000_000 + n, usec=123_456)
    return path.read_bytes()


@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
@pytest.mark.parametrize("link", [1, 101, 113, 276])
def test_scapys_pcap(tmp_path, endianness, nano, link):
    data = pcap(tmp_path, endianness=endianness, nano=nano, linktype=link)
    fraction = 123_456 if nano else 123_456_000
    wanted = [
        Record((1_700_000_000 + n) * 10**9 + fraction, link, packet, len(packet))
        for n, packet in enumerate(PACKETS)
    ]
    records, capture = read(data)
    assert records == wanted
    assert capture.problem is None
    assert capture.bytes_read == len(data)


def test_scapys_pcapng(tmp_path):
    path = tmp_path / "seen.pcapng"
    with PcapNgWriter(str(path)) as writer:
        for packet in PACKETS:
            writer.write(Ether(packet))
    records, capture = read(path.read_bytes())
    assert [(record.link, record.data, record.length) for record in records] == [
        (1, p, len(p)) for p in PACKETS
    ]
    assert capture.problem is None
    assert all(record.time > 10**18 for record in records)


# --- pcapng by hand


def block(kind, body, order="<"):
    body += bytes(-len(body) % 4)
    size = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + size + body + size


def section(order="<"):
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(link=1, snap=0, options=b"", order="<"):
    return block(1, struct.pack(order + "HxxI", link, snap) + options, order)


def option(code, value, order="<"):
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def enhanced(number, time, data, order="<"):
    head = struct.pack(order + "IIIII", number, time >> 32, time & 0xFFFFFFFF, len(data), len(data) + 5)
    return block(6, head + data, order)


@pytest.mark.parametrize("order", ["<", ">"])
def test_every_interface_has_a_link_type_and_a_clock_of_its_own(order):
    data = section(order) + interface(1, order=order)
    data += interface(
        101, options=option(2, b"eth12", order) + option(9, b"\x09", order) + option(0, b""), order=order
    )
    data += interface(113, options=option(9, b"\x8a", order), order=order)  # 1/1024 s
    data += interface(276, options=option(14, struct.pack(order + "q", -5), order), order=order)
    data += block(4, b"names", order) + block(0xBAD, bytes(100_000), order)
    times = [1_500_000, 1_500_000_000, 1536, 1_500_000]
    data += b"".join(enhanced(n, times[n], b"abc", order) for n in range(4))
    records, capture = read(data)
    assert records == [
        Record(1_500_000_000, 1, b"abc", 8),
        Record(1_500_000_000, 101, b"abc", 8),
        Record(1_500_000_000, 113, b"abc", 8),
        Record(-3_500_000_000, 276, b"abc", 8),
    ]
    assert capture.problem is None


def test_simple_and_obsolete_packets_and_a_second_section():
    data = section() + interface(101, snap=4)
    data += block(3, struct.pack("<I", 6) + b"abcd")
    data += block(2, struct.pack("<HHIIII", 0, 0, 0, 7, 3, 9) + b"xyz")
    data += section(">") + interface(1, order=">") + enhanced(0, 8, b"q", ">")
    records, capture = read(data)
    assert records == [Record(None, 101, b"abcd", 6), Record(7000, 101, b"xyz", 9), Record(8000, 1, b"q", 6)]
    assert capture.problem is None


CAPTURES = {
    "pcap": struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    + b"".join(struct.pack("<IIII", n, 5, 3, 60) + b"abc" for n in range(2)),
    "pcapng": section()
    + interface(101)
    + enhanced(0, 5, b"abc")
    + block(5, bytes(16))
    + enhanced(0, 5, b"abc"),
}


@pytest.mark.parametrize("name", CAPTURES)
def test_cut_at_each_byte(name):
    whole = CAPTURES[name]
    assert len(read(whole)[0]) == 2
    for end in range(len(whole)):
        if end < 4:
            with pytest.raises(BadCapture):
                read(whole[:end])
            continue
        records, capture = read(whole[:end])
        assert records == read(whole)[0][: len(records)]
        assert not capture.damaged
        if capture.problem is None:
            assert end in {40 - 16, 43, 28, 48, 84, 112}, end  # between two records
        else:
            assert "cut off" in capture.problem


@pytest.mark.parametrize(
    "data",
    [
        CAPTURES["pcap"] + struct.pack("<IIII", 1, 2, MOST_BYTES + 1, 60),
        CAPTURES["pcap"] + struct.pack("<IIII", 1, 2, 0xFFFFFFFF, 60),
        CAPTURES["pcapng"] + struct.pack("<II", 6, 0xFFFFFFFC),
        CAPTURES["pcapng"] + struct.pack("<II", 6, 0),
        CAPTURES["pcapng"] + struct.pack("<II", 6, 33) + bytes(60),
        CAPTURES["pcapng"] + block(6, b"short"),
        CAPTURES["pcapng"] + enhanced(1, 0, b"of no interface"),
        CAPTURES["pcapng"] + block(6, struct.pack("<IIIII", 0, 0, 0, 100, 100) + b"fewer"),
        CAPTURES["pcapng"] + block(3, struct.pack("<I", 100) + b"fewer"),
        CAPTURES["pcapng"] + enhanced(0, 0, b"abc")[:-1] + b"\x77",
        CAPTURES["pcapng"] + struct.pack("<II", 0x0A0D0D0A, 28) + bytes(20),
        CAPTURES["pcapng"] + section()[:12] + b"\x02" + section()[13:],
        CAPTURES["pcapng"] + interface() * 5000,
    ],
    ids=range(13),
)
def test_damage_ends_the_reading_and_is_told(data):
    records, capture = read(data)
    assert records == read(CAPTURES["pcap" if data[0] == 0xD4 else "pcapng"])[0]
    assert capture.damaged
    assert "damaged" in capture.problem


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"\x1f\x8b\x08\x00" + bytes(50), "gunzip"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"hello", "neither"),
    ],
)
def test_what_is_no_capture(data, says):
    with pytest.raises(BadCapture, match=says):
        Capture(io.BytesIO(data))


@given(st.sampled_from(sorted(CAPTURES)), st.integers(4, 200), st.binary(max_size=120))
def test_garbage_behind(name, at, garbage):
    records, _ = read(CAPTURES[name][:at] + garbage)
    assert all(len(record.data) <= MOST_BYTES for record in records)


def test_a_long_block_is_skipped_in_small_steps():
    class Stream(io.BytesIO):
        largest = 0

        def read(self, size):
            Stream.largest = max(self.largest, size)
            return super().read(size)

    list(Capture(Stream(section() + block(0xBAD, bytes(10_000_000)))))
    assert Stream.largest <= 1 << 16
