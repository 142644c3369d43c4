"""What a sniffer costs for one flow, from its making to the answer.

`python -m pytest perf/test_sniff.py --benchmark-enable`. `test_floor_…` is what no parser can
go below, measured in the same run: for streams one search for the name in the bytes and its `Found`, for QUIC
the opening of one packet with keys that are ready.
"""

import pytest

from sniff import DatagramSniffer, Found, Outcome, StreamSniffer
from sniff.quic import packets
from sniff.quic_keys import header_mask, initial_keys, open_payload
from tests.sniff.vectors import byte_by_byte, load

TLS = {vector.label: vector for vector in load("clienthello")}
HTTP1 = {vector.label: vector for vector in load("http1")}
HTTP2 = {vector.label: vector for vector in load("http2")}
QUIC = {vector.label: vector for vector in load("quic")}

BROWSER_GET = b"".join(
    [
        b"GET /watch?v=1 HTTP/1.1\r\nHost: www.video.example\r\n",
        *(b"X-Field-%d: %s\r\n" % (i, b"v" * 40) for i in range(14)),
        b"\r\n",
    ]
)
NAME = b"www.video.example"
WORST = {  # 16 KiB that stay undecided to the end
    "tls-tiny-records": b"".join(b"\x16\x03\x01\0\1" + bytes([byte]) for byte in b"\1\0\x3f\0" + bytes(2727))[
        :16384
    ],
    "http-many-fields": (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 4000)[:16384],
    "empty-lines": b"\r\n" * 8192,
    "h2-many-frames": (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\0\x08\0\0\0\0\0" * 2000
    )[:16384],
}


def find_name(data):
    at = data.find(NAME)
    return Found("floor", data[at : at + len(NAME)].decode())


def sniff_stream(data):
    return StreamSniffer().feed(data)


def sniff_datagrams(datagrams):
    sniffer = DatagramSniffer()
    for datagram in datagrams:
        answer = sniffer.feed(datagram)
    return answer


@pytest.mark.benchmark(group="stream")
def test_floor_bytes_find(benchmark):
    assert benchmark(find_name, TLS["curl-openssl3"].data).name == NAME.decode()


@pytest.mark.benchmark(group="stream")
@pytest.mark.parametrize("label", ["curl-openssl3", "go126", "chromium156"])
def test_tls_one_segment(benchmark, label):
    assert benchmark(sniff_stream, TLS[label].data) == TLS[label].found


@pytest.mark.benchmark(group="stream")
def test_tls_two_segments(benchmark):
    data = TLS["chromium156"].data
    head, tail = data[:1400], data[1400:]

    def two_segments():
        sniffer = StreamSniffer()
        sniffer.feed(head)
        return sniffer.feed(tail)

    assert benchmark(two_segments) == TLS["chromium156"].found


@pytest.mark.benchmark(group="stream")
def test_http1_curl(benchmark):
    assert benchmark(sniff_stream, HTTP1["curl-get"].data) == HTTP1["curl-get"].found


@pytest.mark.benchmark(group="stream")
def test_http1_browser(benchmark):
    assert benchmark(sniff_stream, BROWSER_GET) == Found("http", NAME.decode())


@pytest.mark.benchmark(group="stream")
def test_http2(benchmark):
    vector = HTTP2["curl-prior-knowledge"]
    assert benchmark(sniff_stream, vector.data) == vector.found


@pytest.mark.benchmark(group="stream")
@pytest.mark.parametrize(
    "data", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x13BitTorrent protocol"], ids=["ssh", "bittorrent"]
)
def test_another_protocol(benchmark, data):
    assert benchmark(sniff_stream, data) is Outcome.NOT_THIS


@pytest.mark.benchmark(group="16 KiB byte by byte")
@pytest.mark.parametrize("label", WORST)
def test_worst_case(benchmark, label):
    pieces = byte_by_byte(WORST[label])

    def drip():
        sniffer = StreamSniffer()
        for piece in pieces:
            answer = sniffer.feed(piece)
        return answer

    assert benchmark(drip) is not Outcome.NEED_MORE


@pytest.mark.benchmark(group="datagram")
def test_floor_aead(benchmark):
    datagram = QUIC["rfc9001-a2"].data
    packet = next(packets(datagram))
    keys = initial_keys(packet.destination_cid, packet.version.salt, packet.version.label)
    header = bytes.fromhex("c300000001088394c8f03e5157080000449e00000002")

    def open_one():
        header_mask(keys, datagram[22:38])
        return open_payload(keys, 2, header, datagram[22:])

    assert benchmark(open_one)


@pytest.mark.benchmark(group="datagram")
@pytest.mark.parametrize("label", ["rfc9001-a2", "chromium156"])
def test_quic_initial(benchmark, label):
    assert benchmark(sniff_datagrams, QUIC[label].blobs) == QUIC[label].found


@pytest.mark.benchmark(group="datagram")
def test_another_datagram(benchmark):
    assert benchmark(sniff_datagrams, [b"\x12\x34\x01\0\0\1\0\0\0\0\0\0"]) is Outcome.NOT_THIS
