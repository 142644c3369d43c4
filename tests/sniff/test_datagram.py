import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sniff import DatagramSniffer, Found, Outcome
from sniff.quic import packets
from tests.sniff.hellos import ECH, SERVER_NAME, hello, hellos, server_name
from tests.sniff.initials import V1, V2, VERSIONS, ack, crypto, initial, other_long
from tests.sniff.vectors import load

VECTORS = load("quic")
HELLO = hello([(SERVER_NAME, server_name(b"www.video.example")), (57, bytes(300))])
FOUND = Found("quic", "www.video.example")


def feed(*datagrams):
    """The last answer, after checking that a final one never changes."""
    sniffer = DatagramSniffer()
    final = None
    answer = Outcome.NEED_MORE
    for datagram in datagrams:
        answer = sniffer.feed(datagram)
        assert answer in (Outcome.NEED_MORE, Outcome.NOT_THIS) or isinstance(answer, Found)
        assert final is None or answer == final
        if answer is not Outcome.NEED_MORE:
            final = answer
    return answer


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_real_clients(vector):
    assert feed(*vector.blobs) == vector.found
    assert feed(*map(bytearray, vector.blobs), b"more") == vector.found
    assert feed(*map(memoryview, vector.blobs)) == vector.found


@pytest.mark.parametrize("vector", [v for v in VECTORS if len(v.blobs) > 1], ids=str)
def test_datagrams_reordered_repeated_and_lost(vector):
    first, second = vector.blobs
    assert feed(first) is Outcome.NEED_MORE
    assert feed(second) is Outcome.NEED_MORE
    assert feed(second, first) == vector.found
    assert feed(first, first, first, second) == vector.found


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_no_damaged_datagram_is_believed(vector):
    """Every byte of an Initial packet is authenticated, its header included; the first holds the type."""
    data = vector.blobs[0]
    stop = next(packets(data)).stop  # some clients pad behind the packet
    for at in range(1, stop, 7):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        assert feed(damaged) is Outcome.NOT_THIS


@given(
    hellos(),
    st.sampled_from(VERSIONS),
    st.binary(max_size=20),
    st.integers(0, (1 << 31) - 1),
    st.lists(st.integers(1, 400), max_size=6),
    st.binary(max_size=80),
    st.data(),
)
def test_whatever_is_written_is_read(written, version, cid, number, cuts, token, data):
    """Any version, ID, token and first packet number; CRYPTO in pieces, shuffled, between other frames."""
    message, name, ech = written
    edges = [0, *sorted({cut for cut in cuts if cut < len(message)}), len(message)]
    pieces = [crypto(a, message[a:b]) for a, b in pairwise(edges)]
    others = data.draw(
        st.lists(st.sampled_from([b"\1", bytes(20), ack(3), ack(9, [(1, 1)], ecn=True)]), max_size=4)
    )
    frames = data.draw(st.permutations(pieces + others))
    per_datagram = data.draw(st.integers(2, 12))
    groups = [frames[i : i + per_datagram] for i in range(0, len(frames), per_datagram)]
    datagrams = [
        initial(b"".join(group), version, cid, number + i, number_size=4, token=token)
        for i, group in enumerate(groups)
    ]
    assert feed(*datagrams) == Found("quic", name, ech)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("number", "size"), [(0, 1), (255, 1), (256, 2), (65535, 2), (1 << 20, 3), (0xFFFFFFFF, 4)]
)
def test_packet_numbers_that_do_not_start_at_0(version, number, size):
    assert feed(initial(crypto(0, HELLO), version, number=number, number_size=size)) == FOUND


def test_packet_numbers_go_on_from_the_largest():
    first = initial(crypto(0, HELLO[:100]), number=0x12345, number_size=4)
    second = initial(crypto(100, HELLO[100:]), number=0x12399, number_size=1)
    assert feed(first, second) == FOUND


def test_overlapping_frames():
    frames = (
        crypto(200, HELLO[200:])
        + crypto(50, HELLO[50:260])
        + crypto(0, HELLO[:120])
        + crypto(10, HELLO[10:20])
    )
    assert feed(initial(frames)) == FOUND


def test_coalesced_packets():
    first = initial(crypto(0, HELLO[:100]), number=0)
    second = initial(crypto(100, HELLO[100:]), number=1)
    zero_rtt = other_long(V1.zero_rtt)
    assert feed(first + second) == FOUND
    assert feed(first + zero_rtt + second) == FOUND
    assert feed(zero_rtt + first + second) == FOUND
    assert feed(first + second + b"\x40 short header packet") == FOUND
    assert feed(first + second + bytes(500)) == FOUND


def test_a_packet_that_does_not_open_beside_one_that_does():
    stray = initial(crypto(0, b"\2" * 50), cid=b"other id", keys_of=b"nobody's")
    assert feed(stray + initial(crypto(0, HELLO))) == FOUND
    assert feed(initial(crypto(0, HELLO[:50])), stray, initial(crypto(50, HELLO[50:]), number=1)) == FOUND


def test_zero_rtt_before_the_initial():
    assert feed(other_long(V1.zero_rtt)) is Outcome.NEED_MORE
    assert feed(other_long(V1.zero_rtt), initial(crypto(0, HELLO))) == FOUND


def test_the_server_names_another_connection_id():
    """The keys stay those of the client's first choice."""
    first = initial(crypto(0, HELLO[:100]), cid=b"chosen by client")
    second = initial(crypto(100, HELLO[100:]), cid=b"server", number=1, keys_of=b"chosen by client")
    assert feed(first, second) == FOUND


def test_after_a_retry_the_keys_are_new_and_the_hello_begins_anew():
    first = initial(crypto(0, HELLO[:100]), cid=b"chosen by client")
    second = initial(crypto(0, HELLO[:90]), cid=b"of retry", number=1, token=b"retry token")
    third = initial(crypto(90, HELLO[90:]), cid=b"of retry", number=2, token=b"retry token")
    assert feed(first, second) is Outcome.NEED_MORE
    assert feed(first, second, third) == FOUND


def test_the_client_turns_to_version_2():
    first = initial(crypto(0, HELLO[:100]), V1)
    second = initial(crypto(100, HELLO[100:]), V2, number=1)
    assert feed(first, second) == FOUND


def test_the_quic_bit_may_be_greased():
    """RFC 9287: a client that knows the server may clear the fixed bit."""
    assert feed(initial(crypto(0, HELLO), fixed_bit=0)) == FOUND


def test_without_a_name_and_with_ech():
    assert feed(initial(crypto(0, hello([(57, b"x")])))) == Found("quic", "")
    ech = hello([(SERVER_NAME, server_name(b"outer.example")), (ECH, bytes(50))])
    assert feed(initial(crypto(0, ech))) == Found("quic", "outer.example", ech=True)


def test_a_client_that_closes_has_no_name():
    assert feed(initial(crypto(0, HELLO[:50]) + b"\x1c\0\0\0")) == Found("quic", "")
    assert feed(initial(crypto(0, HELLO) + b"\x1c\0\0\0")) == FOUND


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\3www\5video\7example\0\0\1\0\1",  # DNS
        b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12),  # STUN
        b"\x16\xfe\xfd" + bytes(80),  # DTLS
        b"\x01\0\0\0" + bytes(144),  # WireGuard
        b"\xc3Q046" + bytes(80),  # gQUIC
        b"\xc0\x1a\x2a\x3a\x4a\x08" + bytes(1200),  # a version that is GREASE
        b"\x40" + bytes(1200),  # QUIC, but after the handshake
        initial(crypto(0, b"\2" + HELLO[1:])),  # a ServerHello
        initial(crypto(0, b"\1\xff\xff\xff")),  # too long
        initial(crypto(0, b"\1\1" + HELLO[2:])),
        initial(crypto(0, hello([(0, b"\0\1\0")]))),  # malformed
        initial(b"\x08stream"),
        initial(crypto(1 << 40, b"x")),
        initial(crypto(0, HELLO))[:-1],
    ],
)
def test_not_this(datagram):
    assert feed(datagram) is Outcome.NOT_THIS


def test_a_packet_just_long_enough_for_a_sample():
    assert feed(initial(b"\1"), initial(crypto(0, HELLO), number=1)) == FOUND
    assert feed(initial(b"\1")) is Outcome.NEED_MORE


def test_a_packet_too_short_for_a_sample():
    assert feed(b"\xc0\0\0\0\1\x04abcd\0\0\x13" + bytes(19)) is Outcome.NOT_THIS


def test_bounded_in_datagrams():
    ping = [initial(b"\1", number=i) for i in range(9)]
    assert feed(*ping[:7]) is Outcome.NEED_MORE
    assert feed(*ping[:8]) is Outcome.NOT_THIS
    assert feed(*ping[:8], initial(crypto(0, HELLO), number=9)) is Outcome.NOT_THIS


def test_bounded_in_packets_of_a_datagram():
    stray = initial(b"\1", cid=b"other id", keys_of=b"nobody's")
    assert feed(stray * 7 + initial(crypto(0, HELLO))) == FOUND
    assert feed(stray * 8 + initial(crypto(0, HELLO))) is Outcome.NOT_THIS


def test_one_sniffer_knows_nothing_of_another():
    first = initial(crypto(0, HELLO[:100]))
    assert feed(first) is Outcome.NEED_MORE
    assert feed(initial(crypto(100, HELLO[100:]))) is Outcome.NEED_MORE


@settings(max_examples=50)
@given(st.sampled_from(VECTORS), st.data())
def test_truncation_and_bit_flips(vector, data):
    damaged = bytearray(vector.blobs[0][: data.draw(st.integers(0, 1500))])
    for _ in range(data.draw(st.integers(0, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, min(60, len(damaged) - 1)))] ^= 1 << data.draw(st.integers(0, 7))
    feed(bytes(damaged), *vector.blobs[1:])


def test_cryptography_is_loaded_with_the_first_initial_only():
    program = """
import sys
from sniff import DatagramSniffer, StreamSniffer
StreamSniffer().feed(b"\\x16\\x03\\x01")
DatagramSniffer().feed(b"\\0\\1\\0\\0")
loaded = [name for name in ("cryptography", "socket", "asyncio", "sniff.http2") if name in sys.modules]
assert not loaded, loaded
DatagramSniffer().feed(bytes.fromhex(sys.argv[1]))
assert "cryptography" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program, VECTORS[0].blobs[0].hex()], check=True)
