"""The checksum module against scapy, and updates in place against computing anew."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.utils import checksum as scapy_checksum

from nat.checksum import (
    CHECKSUM_AT_TCP,
    CHECKSUM_AT_UDP,
    adjust,
    adjust_partial,
    adjust_udp,
    delta,
    finish,
    fold,
    partial_checksum,
    pseudo_sum,
    sum16,
    transport_checksum,
)

pytestmark = pytest.mark.packet_path

address4 = st.binary(min_size=4, max_size=4)
address6 = st.binary(min_size=16, max_size=16)
pairs = st.one_of(st.tuples(address4, address4), st.tuples(address6, address6))
ports = st.integers(0, 0xFFFF)


def naive_sum(data: bytes) -> int:
    """RFC 1071, word by word."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_rfc1071_example():
    data = bytes.fromhex("0001f203f4f5f6f7")
    assert fold(sum16(data, 0, 8, 0)) == 0xDDF2
    assert finish(sum16(data, 0, 8, 0)) == 0x220D


def test_rfc1624_example():
    """RFC 1624 §4: HC 0xDD2F, a word 0x5555 becomes 0x3285; the right answer is 0, not 0xFFFF."""
    field = bytearray.fromhex("dd2f")
    adjust(field, 0, delta(b"\x55\x55", b"\x32\x85"))
    assert field == b"\0\0"


@given(st.binary(max_size=200), st.binary(max_size=9), st.binary(max_size=9))
def test_sum_is_the_naive_sum_wherever_it_lies(data, before, after):
    assert fold(sum16(before + data + after, len(before), len(data), 0)) == naive_sum(data)
    assert fold(sum16(bytearray(before + data + after), len(before), len(data), 0)) == naive_sum(data)


@given(st.binary(max_size=100))
def test_finish_is_scapys_checksum(data):
    assert finish(sum16(data, 0, len(data), 0)) == scapy_checksum(data)


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 9, 1500, 65535, 65536, 1 << 20])
def test_all_ones_do_not_overflow(size):
    data = b"\xff" * size
    assert fold(sum16(data, 0, size, 0)) == naive_sum(data)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_sums_chain(first, second):
    assume(len(first) % 2 == 0)
    chained = sum16(second, 0, len(second), sum16(first, 0, len(first), 0))
    assert fold(chained) == naive_sum(first + second)


@given(st.integers(0, (1 << 48) - 1))
def test_fold_keeps_the_value_modulo_0xffff(total):
    folded = fold(total)
    assert 0 <= folded <= 0xFFFF
    assert folded % 0xFFFF == total % 0xFFFF
    assert (folded == 0) == (total == 0)
    assert finish(total) == 0xFFFF - folded


@pytest.mark.parametrize(("start", "length"), [(-1, 1), (0, -1), (0, 5), (4, 1), (5, 0), (2, 1 << 62)])
def test_sum_outside_the_buffer_is_an_error(start, length):
    with pytest.raises(IndexError):
        sum16(b"1234", start, length, 0)


@given(pairs, ports, ports, st.binary(max_size=60))
def test_transport_checksum_is_scapys(addresses, source_port, target_port, payload):
    source, target = addresses
    ip = IP if len(source) == 4 else IPv6
    for layer, at in ((TCP, CHECKSUM_AT_TCP), (UDP, CHECKSUM_AT_UDP)):
        packet = (
            ip(src=_text(source), dst=_text(target)) / layer(sport=source_port, dport=target_port) / payload
        )
        raw = bytes(packet)
        head = 20 if ip is IP else 40
        segment = bytearray(raw[head:])
        arguments = {"source": source, "target": target, "protocol": 6 if layer is TCP else 17}
        assert transport_checksum(segment, 0, len(segment), **arguments) == 0
        wanted = int.from_bytes(segment[at : at + 2], "big")
        segment[at : at + 2] = bytes(2)
        assert (transport_checksum(bytes(segment), 0, len(segment), **arguments) or 0xFFFF) == (
            wanted or 0xFFFF
        )


def _text(address: bytes) -> str:
    import ipaddress

    return str(ipaddress.ip_address(address))


even = st.integers(0, 30).flatmap(lambda n: st.binary(min_size=2 * n, max_size=2 * n))


@given(even, st.data())
def test_adjust_is_computing_anew(rest, data):
    """Over a header with a checksum field: change any words, adjust, and find what a new sum finds."""
    old = data.draw(even)
    new = data.draw(st.binary(min_size=len(old), max_size=len(old)))
    assume(any(rest) or (any(old) and any(new)))  # an all-zero header has two checksums
    field = bytearray(finish(naive_sum(rest + old)).to_bytes(2, "big"))
    adjust(field, 0, delta(old, new))
    assert int.from_bytes(field, "big") == finish(naive_sum(rest + new))


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), ports, ports, ports)
def test_every_word_and_every_field(field, change, a, b, c):
    """Any 16-bit state and delta: the result is congruent, and stays in 16 bits."""
    memory = bytearray(b"\xaa" + field.to_bytes(2, "big") + b"\xbb")
    adjust(memory, 1, change)
    got = 0xFFFF - int.from_bytes(memory[1:3], "big")
    assert got % 0xFFFF == ((0xFFFF - field) + change) % 0xFFFF
    assert (memory[0], memory[3]) == (0xAA, 0xBB)
    old, new = a.to_bytes(2, "big") + b.to_bytes(2, "big"), c.to_bytes(2, "big")
    assert delta(old, new) % 0xFFFF == (c - a - b) % 0xFFFF


@given(pairs, pairs, st.binary(min_size=8, max_size=40))
def test_adjust_udp_keeps_zero_and_never_makes_it(old, new, datagram):
    assume(len(old[0]) == len(new[0]))
    segment = bytearray(datagram)
    segment[6:8] = bytes(2)
    change = delta(old[0] + old[1], new[0] + new[1])
    adjust_udp(segment, 6, change)
    assert segment[6:8] == bytes(2)

    def right(pair):
        return finish(pseudo_sum(*pair, 17, len(datagram)) + naive_sum(segment[:6] + segment[8:])) or 0xFFFF

    segment[6:8] = right(old).to_bytes(2, "big")
    before = right(new)
    adjust_udp(segment, 6, change)
    assert int.from_bytes(segment[6:8], "big") == before


def test_adjust_udp_writes_ffff_for_zero():
    memory = bytearray.fromhex("dd2f")
    adjust_udp(memory, 0, delta(b"\x55\x55", b"\x32\x85"))  # RFC 1624's example gives 0
    assert memory == b"\xff\xff"


@given(pairs, pairs, st.integers(0, 0xFFFF))
def test_adjust_partial_is_computing_anew(old, new, length):
    assume(len(old[0]) == len(new[0]))
    memory = bytearray(partial_checksum(*old, 6, length).to_bytes(2, "big"))
    adjust_partial(memory, 0, delta(old[0] + old[1], new[0] + new[1]))
    assert int.from_bytes(memory, "big") == partial_checksum(*new, 6, length)


@given(pairs, st.binary(min_size=20, max_size=80), st.integers(0, 255))
def test_a_partial_checksum_completed_is_the_whole_one(addresses, segment, protocol):
    """What the kernel does with NEEDS_CSUM: sum from csum_start on, the field included, and complement."""
    source, target = addresses
    segment = bytearray(segment)
    segment[16:18] = bytes(2)
    wanted = transport_checksum(segment, 0, len(segment), source=source, target=target, protocol=protocol)
    segment[16:18] = partial_checksum(source, target, protocol, len(segment)).to_bytes(2, "big")
    assert finish(sum16(segment, 0, len(segment), 0)) == wanted


def test_adjust_outside_the_buffer_is_an_error():
    for update in (adjust, adjust_udp, adjust_partial):
        with pytest.raises(IndexError):
            update(bytearray(b"\1\1\1"), 2, 1)


def test_enum_and_memoryview_arguments():
    from nat.header import Protocol

    data = memoryview(bytearray(range(40)))
    a, b = bytes(range(4)), bytes(range(4, 8))
    assert transport_checksum(data, 1, 39, source=a, target=b, protocol=Protocol.UDP) == transport_checksum(
        bytes(data), 1, 39, source=a, target=b, protocol=17
    )
