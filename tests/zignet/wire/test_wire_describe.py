"""What a datagram says."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6PacketTooBig, IPv6

from zignet.cli.wire_dump import line
from zignet.noise import Suite
from zignet.wire import (
    Answer,
    Challenge,
    Farewell,
    Keepalive,
    Offer,
    Offers,
    Ping,
    Pong,
    Refusal,
    Refused,
    bundle,
    offers_frame,
    seal,
    split,
    strip,
)
from zignet.wire.describe import Describer
from zignet.wire.keylog import KeyLog, format_line

SEND, RECEIVE = bytes(range(32)), bytes(range(32, 64))
LOCAL, REMOTE = 0x0A, 0xDEADBEEF
PEER = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrstuvwx"
V4 = IP(src="10.0.0.1", dst="10.0.0.2", ttl=63, tos=0xB8)
V6 = IPv6(src="fd00::1", dst="fd00::2", hlim=62)
UNDERLAY = {"time": None, "from": "192.0.2.1:51830", "to": "[2001:db8::1]:51830", "ecn": 0}


def describer(suite=1):
    return Describer(KeyLog.read(io.StringIO(format_line(suite, LOCAL, REMOTE, SEND, RECEIVE, PEER))))


def sent(frame, suite=1, counter=5):
    return seal(Suite(suite), SEND, REMOTE, counter, frame)


def frame_of(frame, suite=1):
    facts = describer(suite).message(memoryview(sent(frame, suite)), 0.0)
    json.dumps(facts)
    return facts["frame"], line(UNDERLAY | facts).partition("…: ")[2]


def test_tcp():
    packet = bytes(V4 / TCP(sport=40001, dport=443, flags="PA", seq=7, ack=9, window=512) / b"hello")
    facts, text = frame_of(strip(packet))
    assert facts == {
        "protocol": "tcp",
        "version": 4,
        "partial": False,
        "traffic_class": 0xB8,
        "hop_limit": 63,
        "source_port": 40001,
        "target_port": 443,
        "tcp_flags": "P.",
        "seq": 7,
        "ack": 9,
        "window": 512,
        "payload": 5,
    }
    assert text == "tcp 40001 > 443 [P.], seq 7:12, ack 9, win 512, length 5 (v4, hops 63, class 0xb8)"


def test_tcp_flags_in_tcpdumps_letters():
    for flags, letters in (
        ("S", "S"),
        ("SA", "S."),
        ("FA", "F."),
        ("RA", "R."),
        ("SEC", "SEW"),
        ("U", "U"),
        ("", "none"),
    ):
        assert frame_of(strip(bytes(V4 / TCP(flags=flags))))[0]["tcp_flags"] == letters


PACKETS = [
    (bytes(V6 / UDP(sport=5, dport=53) / b"abc"), "udp 5 > 53, length 3 (v6, hops 62)"),
    (
        bytes(V4 / ICMP(type=8, id=3, seq=4) / b"ab"),
        "icmp echo request, id 3, seq 4, length 2 (v4, hops 63, class 0xb8)",
    ),
    (bytes(V6 / ICMPv6EchoRequest(id=3, seq=4)), "icmp echo request, id 3, seq 4, length 0 (v6, hops 62)"),
    (
        bytes(V4 / ICMP(type=3, code=3) / IP(src="10.0.0.2", dst="10.0.0.1") / UDP(sport=1, dport=2)),
        "icmp unreachable, code 3, about udp 1 > 2 (v4, hops 63, class 0xb8)",
    ),
    (
        bytes(V6 / ICMPv6PacketTooBig() / IPv6(src="fd00::2", dst="fd00::1", nh=132) / b"12345678"),
        "icmp packet too big, code 0, about protocol 132 (v6, hops 62)",
    ),
    (bytes(V4 / ICMP(type=13) / bytes(12)), "icmp type 13, length 24 (v4, hops 63, class 0xb8)"),
]


@pytest.mark.parametrize(("packet", "text"), PACKETS, ids=range(len(PACKETS)))
def test_other_packets(packet, text):
    assert frame_of(strip(packet))[1] == text


def test_partial():
    udp = bytes(V6 / UDP(sport=5, dport=53) / b"abc")
    assert frame_of(strip(udp, partial=True))[1] == "udp 5 > 53, length 3 (v6, partial, hops 62)"


T8, T16 = bytes(range(8)), bytes(range(16))


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (Keepalive().encode(), "keepalive"),
        (Ping(T8).encode(), "ping, token 0001020304050607"),
        (Pong(T8).encode(), "pong, token 0001020304050607"),
        (Challenge(T16, 7, 1168).encode(), "challenge, path 7, datagram of 1224"),
        (
            Answer(T16, 7, 1232, 51830, bytes(10) + b"\xff\xff\xc0\x00\x02\x01").encode(),
            "answer, path 7, datagram of 1232 seen from 192.0.2.1:51830",
        ),
        (Answer(T16, 7, 1, 2, bytes(15) + b"\1").encode(), "answer, path 7, datagram of 1 seen from [::1]:2"),
        (
            Refused(Refusal.FORBIDDEN, 0, 6, T8).encode(),
            "refused, forbidden, protocol 6, packet 0001020304050607",
        ),
        (Farewell(2).encode(), "farewell, other device"),
        (Farewell(77).encode(), "farewell, 77"),
        (offers_frame([Offer(6, 80, "web"), Offer(17, 53, "dns")]), "offers, web tcp/80, dns udp/53"),
        (offers_frame([]), "offers, nothing"),
        (Offers(b"\1").encode(), "offers, malformed: an offer is cut off"),
        (b"\0\x09\0\0", "control, malformed: a control frame of an unknown type"),
        (b"\x63\0\0\0", "99, malformed: unknown protocol or flags"),
        (b"\6\0\0\x40short", "tcp, malformed: no TCP header"),
        (b"\x11\0\0\x40short", "udp, malformed: no UDP header"),
        (b"\1\0\0\x40short", "icmp, malformed: shorter than its transport header"),
        (b"\4\0\0\0" + bytes(V4 / UDP(sport=1, dport=2)), "whole packet, udp 1 > 2, length 28"),
        (b"\4\0\0\0junk", "whole packet, no IP packet, length 4"),
        (b"\x2c\0\0\0junk", "fragment, malformed: shorter than a fragment header"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_control_and_malformed_frames(frame, text):
    assert frame_of(frame)[1] == text


def test_bundles():
    frames = [strip(bytes(V4 / UDP(sport=5, dport=53) / b"x")), strip(bytes(V6 / TCP(sport=1, dport=2)))]
    facts, text = frame_of(bundle(frames))
    assert facts == {"protocol": "bundle", "frames": [frame_of(one)[0] for one in frames]}
    assert text == " | ".join(frame_of(one)[1] for one in frames)
    cut = frame_of(bundle(frames)[:-1])
    assert cut[0]["frames"] == facts["frames"][:1]
    assert cut[1] == frame_of(frames[0])[1] + " | malformed: a frame that reaches over the end of its bundle"


def test_fragments_are_joined():
    describing = describer()
    frame = strip(bytes(V4 / UDP(sport=5, dport=53) / bytes(3000)))
    lines = [
        line(UNDERLAY | describing.message(memoryview(sent(piece)), 0.0)).partition("…: ")[2]
        for piece in split(frame, 9, 1200)
    ]
    assert lines[0] == "fragment 9, 0-1188 of 3012"
    assert (
        lines[2] == "fragment 9, 2376-3012 of 3012; whole: udp 5 > 53, length 3000 (v4, hops 63, class 0xb8)"
    )


@pytest.mark.parametrize("suite", [1, 2])
def test_who_sent_it(suite):
    describing = describer(suite)
    ours = describing.message(memoryview(seal(Suite(suite), SEND, REMOTE, 5, bytes(4))), 0.0)
    assert (ours["peer"], ours["sent"], ours["counter"], ours["index"]) == (PEER, True, 5, "deadbeef")
    theirs = describing.message(memoryview(seal(Suite(suite), RECEIVE, LOCAL, 6, bytes(4))), 0.0)
    assert (theirs["sent"], theirs["frame"]["control"]) == (False, "keepalive")
    assert line(UNDERLAY | ours).endswith("data deadbeef #5, 36 bytes, to abcdefgh…: keepalive")
    assert line(UNDERLAY | theirs).endswith("data 0000000a #6, 36 bytes, from abcdefgh…: keepalive")


def test_what_stays_sealed():
    for describing, datagram, why in (
        (Describer(), sent(bytes(4)), "no key"),
        (describer(), seal(Suite.CHACHA, SEND, 99, 0, bytes(4)), "no key"),
        (describer(), sent(bytes(4))[:-1] + b"x", "the seal is not good"),
        (describer(), seal(Suite.CHACHA, RECEIVE, REMOTE, 0, bytes(4)), "the seal is not good"),
    ):
        facts = describing.message(memoryview(datagram), 0.0)
        assert facts["sealed"] == why
        assert line(UNDERLAY | facts).endswith(f"sealed ({why})")
        assert describing.unopened == (why == "no key")


def test_two_sessions_of_one_index():
    log = format_line(1, LOCAL, REMOTE, bytes(32), bytes(32), "b" * 56) + format_line(
        1, LOCAL, REMOTE, SEND, RECEIVE, PEER
    )
    facts = Describer(KeyLog.read(io.StringIO(log))).message(memoryview(sent(bytes(4))), 0.0)
    assert facts["peer"] == PEER


def test_handshakes():
    describing = describer()
    initiation = (b"\1\2\0\0" + LOCAL.to_bytes(4, "little") + bytes(range(32))).ljust(220, b"\0")
    facts = describing.message(memoryview(initiation), 0.0)
    assert (facts["peer"], facts["sent"], facts["dst"]) == (PEER, True, bytes(range(32)).hex())
    text = line(UNDERLAY | facts)
    assert text.endswith("initiation 0000000a for 0001020304050607…, aes, 220 bytes, to abcdefgh…")
    response = (b"\2\1\0\0" + REMOTE.to_bytes(4, "little") + LOCAL.to_bytes(4, "little")).ljust(104, b"\0")
    facts = describing.message(memoryview(response), 0.0)
    assert line(UNDERLAY | facts).endswith("response deadbeef > 0000000a, chacha, 104 bytes, from abcdefgh…")
    cookie = (b"\3\0\0\0" + LOCAL.to_bytes(4, "little")).ljust(64, b"\0")
    assert line(UNDERLAY | describing.message(memoryview(cookie), 0.0)).endswith(
        "cookie > 0000000a, 64 bytes"
    )


def test_cut_by_the_capture():
    whole = sent(strip(bytes(V4 / TCP() / bytes(100))))
    for kept in range(len(whole)):
        facts = describer().message(memoryview(whole[:kept]), 0.0, len(whole) - kept)
        if facts is None:
            assert kept < 8  # not even the index
        else:
            assert facts["length"] == len(whole)
            assert facts["missing"] == len(whole) - kept
            assert "all of it" in facts["sealed"]
            line(UNDERLAY | facts)


def test_the_underlays_part_of_a_line():
    facts = describer().message(memoryview(sent(bytes(4))), 0.0)
    text = line(UNDERLAY | {"time": 1_700_000_000.25, "ecn": 3} | facts)
    assert text[8:15] == ".250000"
    assert (
        text[15:]
        == " 192.0.2.1:51830 > [2001:db8::1]:51830 data deadbeef #5, 36 bytes, CE, to abcdefgh…: keepalive"
    )
    assert line(UNDERLAY | {"time": 1e30} | facts).startswith("--:--:--")
    assert line(UNDERLAY | {"message": None, "length": 7}).endswith("not ZigNet, 7 bytes")


def test_never_a_key():
    facts = describer().message(memoryview(sent(bytes(4))), 0.0)
    for key in (SEND, RECEIVE):
        assert key.hex() not in json.dumps(facts)


@given(st.binary(min_size=0, max_size=90), st.integers(1, 2))
def test_any_frame_and_any_datagram(data, suite):
    """Garbage well sealed, and garbage as it is, is described and printed on one line."""
    frame_of(data.ljust(4, b"\0"), suite)
    facts = describer().message(memoryview(data), 0.0)
    if facts is not None:
        assert line(UNDERLAY | facts).isprintable()


@given(st.sampled_from((0, 1, 4, 6, 17, 44)), st.integers(0, 3), st.binary(max_size=90))
def test_any_body(protocol, flags, body):
    _, text = frame_of(bytes((protocol, flags, 0, 0)) + body)
    assert text.isprintable()
