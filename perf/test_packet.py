"""What the pure packet modules cost: parse, checksum updates, headers of UDP replies.

python -m pytest perf/test_packet.py --benchmark-enable
"""

import pytest

from nat.checksum import adjust, delta, sum16
from nat.craft import UdpTemplate, ip_packet, tcp_reset, udp_packet, unreachable
from nat.fragments import Reassembler
from nat.packet import Packet

A4, B4 = bytes((10, 1, 2, 3)), bytes((192, 0, 2, 77))
A6, B6 = bytes(15) + b"\3", bytes(15) + b"\x77"
SYN4 = ip_packet(
    A4,
    B4,
    6,
    bytes.fromhex("9c4101bb0000000100000000a002ffff00000000020405b40402080a000000010000000001030307"),
)


def parsed(raw: bytes) -> Packet:
    packet = Packet(bytearray(raw))
    assert packet.parse(0, len(raw)) == 0
    return packet


PACKETS = {
    "v4 SYN": SYN4,
    "v4 UDP 1200": udp_packet(A4, 40_000, B4, 443, bytes(1200)),
    "v6 UDP 1200": udp_packet(A6, 40_000, B6, 443, bytes(1200)),
    "v6 UDP behind 3 headers": (
        udp_packet(A6, 1, B6, 2, b"")[:4]
        + bytes((0, 32, 60, 64))
        + A6
        + B6
        + bytes((60, 0, 1, 4, 0, 0, 0, 0)) * 2
        + bytes((17, 0, 1, 4, 0, 0, 0, 0))
        + udp_packet(A6, 1, B6, 2, b"")[40:]
    ),
}


@pytest.mark.parametrize("name", PACKETS)
@pytest.mark.benchmark(group="parse")
def test_parse(benchmark, name):
    raw = PACKETS[name]
    packet = Packet(bytearray(raw))
    assert benchmark(packet.parse, 0, len(raw)) == 0


@pytest.mark.benchmark(group="checksum")
def test_adjust(benchmark):
    memory = bytearray(SYN4)
    benchmark(adjust, memory, 10, delta(A4 + B4, B4 + A4))


@pytest.mark.benchmark(group="checksum")
def test_delta(benchmark):
    benchmark(delta, A6 + B6, B6 + A4 * 4)


@pytest.mark.parametrize("size", [20, 1200, 65_000])
@pytest.mark.benchmark(group="checksum")
def test_sum(benchmark, size):
    benchmark(sum16, bytearray(b"\xa5" * size), 0, size, 0)


@pytest.mark.parametrize("partial", [True, False], ids=["partial", "whole checksum"])
@pytest.mark.parametrize("ends", [(A4, 443, B4, 5), (A6, 443, B6, 5)], ids=["v4", "v6"])
@pytest.mark.benchmark(group="UDP headers of a 1,200-byte reply")
def test_template(benchmark, ends, partial):
    template = UdpTemplate(*ends)
    benchmark(template.write, bytearray(b"\xa5" * 1300), 10, 1200, partial)


@pytest.mark.benchmark(group="craft")
def test_make_template(benchmark):
    benchmark(UdpTemplate, A4, 443, B4, 5)


@pytest.mark.benchmark(group="craft")
def test_reset(benchmark):
    assert benchmark(tcp_reset, parsed(SYN4))


@pytest.mark.benchmark(group="craft")
def test_unreachable(benchmark):
    assert benchmark(unreachable, parsed(PACKETS["v4 UDP 1200"]), 2)


@pytest.mark.benchmark(group="reassembly")
def test_fragment(benchmark):
    """One datagram in two fragments."""
    first = parsed(ip4_fragment(0x2000, udp_packet(A4, 1, B4, 2, bytes(2792))[20:1420]))
    last = parsed(ip4_fragment(175, bytes(1400)))
    reassembler = Reassembler()

    def both() -> bytes | None:
        reassembler.add(first, 0.0)
        return reassembler.add(last, 0.0)

    assert len(benchmark(both) or b"") == 2820


def ip4_fragment(place: int, body: bytes) -> bytes:
    head = bytearray(ip_packet(A4, B4, 17, body)[:20])
    head[6:8] = place.to_bytes(2, "big")
    head[10:12] = bytes(2)
    head[10:12] = (0xFFFF - sum16(head, 0, 20, 0) % 0xFFFF).to_bytes(2, "big")
    return bytes(head) + body
