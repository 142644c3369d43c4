import pytest
from aioquic.quic.packet import decode_packet_number
from hypothesis import given
from hypothesis import strategies as st

from sniff.quic import CryptoStream, Malformed, crypto_frames, packet_number, packets
from tests.sniff.initials import V1, V2, VERSIONS, ack, crypto, initial, other_long, varint


def test_packet_number_examples():
    assert packet_number(0x9B32, 2, 0xA82F30EA) == 0xA82F9B32  # RFC 9000 A.3
    assert packet_number(0, 1, -1) == 0
    assert packet_number(0x80, 1, 0x9FF) == 0xA80  # exactly half a window ahead
    assert packet_number(0x81, 1, 0x9FF) == 0x981
    assert packet_number(0, 1, 0xA7F) == 0xB00  # exactly half a window behind
    assert packet_number(0xFFFFFFFE, 4, -1) == 0xFFFFFFFE


@given(st.integers(1, 4), st.integers(-1, (1 << 62) - 2), st.data())
def test_packet_number_against_the_oracle(size, largest, data):
    truncated = data.draw(st.integers(0, (1 << 8 * size) - 1))
    assert packet_number(truncated, size, largest) == decode_packet_number(truncated, 8 * size, largest + 1)


@given(st.integers(1, 4), st.integers(-1, 1 << 61), st.data())
def test_packet_numbers_near_the_expected_one_survive(size, largest, data):
    window = 1 << 8 * size
    number = data.draw(st.integers(max(0, largest + 1 - window // 2 + 1), largest + 1 + window // 2 - 1))
    assert packet_number(number % window, size, largest) == number


@pytest.mark.parametrize("version", VERSIONS)
def test_packets_of_a_datagram(version):
    parts = [
        initial(crypto(0, b"abc"), version, b"", number_size=2, token=b"t" * 70, source=b"s" * 20),
        other_long(version.zero_rtt, version),
        initial(b"\1", version, b"c" * 20),
        other_long(version.handshake, version),
    ]
    found = list(packets(b"".join(parts)))
    assert [packet.stop - packet.start for packet in found] == [len(part) for part in parts]
    assert [packet.initial for packet in found] == [True, False, True, False]
    assert [packet.destination_cid for packet in found] == [b"", b"\1\2\3\4", b"c" * 20, b"\1\2\3\4"]


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"\0",
        b"\0" * 900,
        b"\x40short header packet",
        b"\xc0",
        b"\xc0\0\0\0\1",
        other_long(0)[:-1],
        b"\xff" * 50,
    ],
)
def test_what_may_follow_a_packet(rest):
    assert len(list(packets(initial(b"\1") + rest))) == 1


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\x41\0\0\0\1" + bytes(60),  # a short header
        b"\xc0\0\0\0\0" + bytes(60),  # version negotiation
        b"\xc0\x1a\x2a\x3a\x4a" + bytes(60),  # a version that is GREASE
        b"\xf0\0\0\0\1\x04abcd\0" + bytes(40),  # Retry
        b"\xc0\x6b\x33\x43\xcf\x04abcd\0" + bytes(40),  # Retry of version 2
        b"\xc0\0\0\0\1\x15" + bytes(60),  # connection ID of 21 bytes
        b"\xc0\0\0\0\1\0\x15" + bytes(60),
        b"\xc0\0\0\0\1\0\0\xff" + bytes(5),  # a token's length cut off
        b"\xc0\0\0\0\1\0\0\x40\xff" + bytes(60),  # a token beyond the end
        b"\xc0\0\0\0\1\0\0\0\x44\0" + bytes(60),  # a length beyond the end
    ],
)
def test_no_packets(datagram):
    assert list(packets(datagram)) == []


def test_every_truncation_of_a_packet():
    whole = initial(crypto(0, b"abc"), token=b"tok", source=b"src")
    assert len(list(packets(whole))) == 1
    for cut in range(len(whole)):
        assert list(packets(whole[:cut])) == []


def test_frames():
    payload = (
        bytes(10)
        + crypto(0, b"abc")
        + b"\1\1"
        + ack(5)
        + ack(300, [(1, 2), (70000, 0)])
        + ack(1, [(0, 0)], ecn=True)
        + crypto(3, b"")
        + b"\0"
        + b"\x06\xc0\0\0\0\0\0\0\7\x80\0\0\2de"  # longer integers than needed
    )
    assert list(crypto_frames(payload)) == [(0, b"abc"), (3, b""), (7, b"de")]
    closing = crypto(0, b"a") + b"\x1c" + varint(0x128) + b"\0\0" + crypto(1, b"b")
    assert list(crypto_frames(closing)) == [(0, b"a"), None]


@pytest.mark.parametrize(
    "payload",
    [
        b"\x06",
        b"\x06\0",
        b"\x06\0\x04abc",
        b"\x06\0\xff",
        b"\x02\5",
        ack(5, [(1, 1)])[:-1],
        ack(5, ecn=True)[:-1],
        b"\x02\5\0\xff\xff\xff\xff\xff\xff\xff\xff\0",  # 2^62 ranges
        b"\x08abc",  # STREAM
        b"\x1d\0\0",  # an application's close
        b"\x40\x06\0\0",  # a frame type in two bytes
        b"\x1e",
    ],
)
def test_broken_frames(payload):
    with pytest.raises(Malformed):
        list(crypto_frames(payload))


@given(st.binary(max_size=100))
def test_frames_of_anything(payload):
    try:
        for frame in crypto_frames(payload):
            assert frame is None or payload.find(frame[1]) >= 0
    except Malformed:
        pass


@given(st.binary(min_size=1, max_size=300), st.data())
def test_crypto_stream_against_a_naive_model(text, data):
    """Any pieces, in any order, with overlaps and repeats: what is there up to the first gap, no more."""
    span = st.tuples(st.integers(0, len(text)), st.integers(0, 80))
    pieces = data.draw(st.lists(span, max_size=25))
    stream = CryptoStream(16384)
    have = [False] * (len(text) + 1)
    for offset, length in pieces:
        piece = text[offset : offset + length]
        stream.add(offset, piece)
        stream.settle()
        have[offset : offset + len(piece)] = [True] * len(piece)
        assert stream.received == text[: have.index(False)]


def test_crypto_stream_is_bounded():
    stream = CryptoStream(1000)
    stream.add(990, bytes(10))
    with pytest.raises(Malformed):
        stream.add(990, bytes(11))
    with pytest.raises(Malformed):
        stream.add(1 << 61, b"")
    stream.add(100, bytes(900))
    stream.add(101, bytes(899))
    with pytest.raises(Malformed):  # more waits than two streams' worth
        stream.add(102, bytes(898))


def test_versions_differ():
    first, second = packets(initial(b"\1", V1) + initial(b"\1", V2))
    assert first.version != second.version
