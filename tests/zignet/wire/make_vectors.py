"""Makes tests/vectors/protocol/frames.json and data.json, without code of ZigNet's: packets are scapy's, control
frames and pieces are packed field by field from docs/protocol.md §6 and §7, seals are `cryptography`'s.

`python -m tests.zignet.wire.make_vectors` writes them.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest
from scapy.packet import Packet, Raw

from tests.zignet.wire.packets import Case, error, quoted_under

FOLDER = Path(__file__).parents[2] / "vectors" / "protocol"

# here: the sender's addresses for itself and its peer; there: the receiver's, for the sender and for itself
HERE4, THERE4 = ("100.64.0.1", "100.64.0.2"), ("100.64.0.9", "100.64.0.1")
HERE6, THERE6 = ("fd5a:6967:6e65::a", "fd5a:6967:6e65::b"), ("fd00::a", "fd00::b")


def packed(text: str) -> bytes:
    import ipaddress

    return ipaddress.ip_address(text).packed


def entry(
    name: str, v6: bool, packet: bytes, frame: bytes, rebuilt: bytes, partial: bool = False
) -> dict[str, Any]:
    there = THERE6 if v6 else THERE4
    return {
        "name": name,
        "packet": packet,
        "partial": partial,
        "frame": frame,
        "source": there[0],
        "target": there[1],
        "rebuilt": rebuilt,
    }


def plain(name: str, v6: bool, kind: str, upper: Packet, traffic: int = 0, hops: int = 64) -> dict[str, Any]:
    case = Case(v6, kind, upper, traffic, hops)
    here, there = (HERE6, THERE6) if v6 else (HERE4, THERE4)
    sent, received = case.sent(*map(packed, here)), case.received(*map(packed, there))
    return entry(name, v6, sent, case.frame(), received)


def partial(whole: dict[str, Any], at: int) -> dict[str, Any]:
    """The same packet before its checksum: the field holds the sum of the pseudo-header, and crosses as zero."""
    packet, frame = bytearray(whole["packet"]), bytearray(whole["frame"])
    head = 40 if packet[0] >> 4 == 6 else 20
    addresses = packet[8:40] if head == 40 else packet[12:20]
    words = struct.unpack(f"!{len(addresses) // 2}H", addresses)
    total = sum(words) + packet[6 if head == 40 else 9] + len(packet) - head
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    packet[head + at : head + at + 2] = total.to_bytes(2, "big")
    frame[4 + at : 6 + at] = bytes(2)
    frame[1] |= 2
    changed = {
        "name": whole["name"] + ", partial",
        "packet": bytes(packet),
        "frame": bytes(frame),
        "partial": True,
    }
    return {**whole, **changed}


def icmp_error(name: str, v6: bool, quote: bytes, kind: int, code: int, rest: int = 0) -> dict[str, Any]:
    """`quote`: a packet from the peer to this host, as this host saw it."""
    here, there = (HERE6, THERE6) if v6 else (HERE4, THERE4)
    me, peer = map(packed, here)
    sender, receiver = map(packed, there)
    zero = bytes(len(me))
    blank = quoted_under(quote, zero, zero)
    if not v6:
        blank = blank[:10] + bytes(2) + blank[12:]
    frame = bytes((1, int(v6), 0, 64, kind, code, 0, 0)) + rest.to_bytes(4, "big") + blank
    received = error(sender, receiver, quoted_under(quote, receiver, sender), kind, code, rest)
    return entry(name, v6, error(me, peer, quote, kind, code, rest), frame, received)


def packets() -> list[dict[str, Any]]:
    options = [("MSS", 1380), ("SAckOK", b""), ("Timestamp", (1000, 0)), ("NOP", None), ("WScale", 7)]
    syn = TCP(sport=40001, dport=443, seq=0x01020304, flags="S", window=64240, options=options)
    data = TCP(sport=443, dport=40001, seq=7, ack=9, flags="PA", window=501) / Raw(b"hello, world!")
    query = UDP(sport=40001, dport=53) / Raw(b"odd")
    quoted4 = bytes(
        Case(False, "udp", UDP(sport=1000, dport=2000) / Raw(b"unwanted"), 0, 63).sent(
            *map(packed, HERE4[::-1])
        )
    )
    quoted6 = bytes(Case(True, "tcp", TCP(sport=1000, dport=2000), 0, 63).sent(*map(packed, HERE6[::-1])))
    tcp4 = plain("TCP over IPv4, a SYN with options, ECT(0)", False, "tcp", syn, 0x02)
    tcp6 = plain("TCP over IPv6, data, DSCP 46 and CE", True, "tcp", data, 0xBB, 255)
    udp4, udp6 = plain("UDP over IPv4", False, "udp", query, 0, 1), plain("UDP over IPv6", True, "udp", query)
    return [
        tcp4,
        tcp6,
        udp4,
        udp6,
        partial(tcp4, 16),
        partial(tcp6, 16),
        partial(udp4, 6),
        partial(udp6, 6),
        plain("UDP over IPv4 without a checksum", False, "udp", UDP(sport=1, dport=2, chksum=0) / Raw(b"x")),
        plain("ICMP echo request", False, "icmp", ICMP(type=8, id=3, seq=4) / Raw(b"ping")),
        plain("ICMPv6 echo request", True, "icmp", ICMPv6EchoRequest(id=3, seq=4, data=b"ping")),
        icmp_error("ICMP port unreachable", False, quoted4, 3, 3),
        icmp_error(
            "ICMP fragmentation needed, the quote cut behind 8 bytes", False, quoted4[:28], 3, 4, 1280
        ),
        icmp_error("ICMPv6 port unreachable", True, quoted6, 1, 4),
        icmp_error(
            "ICMPv6 packet too big, the quote cut behind its IP header", True, quoted6[:40], 2, 0, 1280
        ),
    ]


def control() -> list[dict[str, Any]]:
    t8, t16 = bytes(range(1, 9)), bytes(range(1, 17))
    mapped = bytes(10) + b"\xff\xff\xc0\x00\x02\x01"
    return [
        {"type": "Keepalive", "fields": {}, "frame": b"\0\0\0\0"},
        {"type": "Ping", "fields": {"token": t8}, "frame": b"\0\1\0\0" + t8},
        {"type": "Pong", "fields": {"token": t8}, "frame": b"\0\2\0\0" + t8},
        {
            "type": "Challenge",
            "fields": {"token": t16, "path": 0x01020304, "padding": 0},
            "frame": b"\0\3\0\0" + t16 + b"\1\2\3\4",
        },
        {
            "type": "Challenge",
            "fields": {"token": t16, "path": 5, "padding": 8},
            "frame": b"\0\3\0\0" + t16 + b"\0\0\0\5" + bytes(8),
        },
        {
            "type": "Answer",
            "fields": {"token": t16, "path": 5, "size": 1232, "port": 51830, "address": mapped},
            "frame": b"\0\4\0\0" + t16 + struct.pack("!IHH", 5, 1232, 51830) + mapped,
        },
        {
            "type": "Refused",
            "fields": {"reason": 1, "flags": 2, "protocol": 6, "quote": t8},
            "frame": b"\0\5\0\0" + bytes((1, 2, 6, 0)) + t8,
        },
        {
            "type": "Refused",
            "fields": {"reason": 3, "flags": 0, "protocol": 4, "quote": t8 * 6},
            "frame": b"\0\5\0\0" + bytes((3, 0, 4, 0)) + t8 * 6,
        },
        {
            "type": "Refused",
            "fields": {"reason": 4, "flags": 5, "protocol": 17, "quote": t8, "number": 0x010203},
            "frame": b"\0\5\0\0" + bytes((4, 5, 17, 0)) + t8 + b"\0\1\2\3" + bytes(2),
        },
        {
            "type": "Refused",
            "fields": {"reason": 8, "flags": 4, "protocol": 17, "quote": t8, "number": 7, "mtu": 1400},
            "frame": b"\0\5\0\0" + bytes((8, 4, 17, 0)) + t8 + b"\0\0\0\7" + struct.pack("!H", 1400),
        },
        {"type": "Farewell", "fields": {"reason": 2}, "frame": b"\0\6\0\0\2"},
        {
            "type": "Offers",
            "fields": {"body": b"\6\0\x50\3web\x11\0\x35\3dns"},
            "frame": b"\0\7\0\0" + b"\6\0\x50\3web\x11\0\x35\3dns",
        },
    ]


NOT_CONTROL = {
    "an unknown type": "00080000",
    "a reserved byte": "00010001 0102030405060708",
    "cut": "00010000 01020304050607",
    "padding that is not zero": "00010000 0102030405060708 01",
    "the reserved byte of a refusal": "00050000 01020601 0102030405060708",
    "a refusal of an exit flow without its number": "00050000 01040600 0102030405060708",
    "a refusal of an exit flow without its MTU": "00050000 01040600 0102030405060708 00000007",
    "a refusal of a whole packet with 8 bytes of it": "00050000 03000400 0102030405060708",
}


def fragments() -> list[dict[str, Any]]:
    frame = plain("", False, "udp", UDP(sport=1, dport=2) / Raw(bytes(range(100))))["frame"]
    result = []
    for number, room in ((0xFFFFFFFF, 52), (7, 124)):
        step = room - 12
        pieces = [
            struct.pack("!BBBBIHH", 44, 0, 0, 0, number, at, len(frame)) + frame[at : at + step]
            for at in range(0, len(frame), step)
        ]
        result.append({"frame": frame, "number": number, "room": room, "pieces": pieces})
    return result


def exits() -> list[dict[str, Any]]:
    """`inside` is the frame without EXIT; flags: EXIT 4, BACK 8, NAMED 16."""
    syn, query, syn6 = (packets()[number]["frame"] for number in (0, 2, 5))

    def entry(name: str, inside: bytes, flags: int, meaning: str, named: bytes) -> dict[str, Any]:
        head = bytes((inside[0], inside[1] | flags)) + inside[2:4]
        one = {"name": name, "number": 0x00A0B0C0, "back": bool(flags & 8), "meaning": meaning}
        return {**one, "inside": inside, "frame": head + b"\0\xa0\xb0\xc0" + named + inside[4:]}

    name = "www.video_1.example"
    return [
        entry("a SYN to a name", syn, 20, name, b"\1\x13" + name.encode()),
        entry("a datagram to an IPv4 address", query, 20, "203.0.113.5", b"\4\4" + packed("203.0.113.5")),
        entry("a SYN to an IPv6 address", syn6, 20, "2001:db8::5", b"\6\x10" + packed("2001:db8::5")),
        entry("a datagram", query, 4, "", b""),
        entry("a datagram that comes back", query, 12, "", b""),
    ]


NO_EXIT = {
    "BACK without EXIT": "11080000 0001000200080000",
    "NAMED without EXIT": "11100000 01016100 01000200080000",
    "BACK and NAMED": "111c0000 00000001 010161 0001000200080000",
    "EXIT of ICMP": "01040000 00000001 0800f7ff00000000",
    "the number 0": "11040000 00000000 0001000200080000",
    "the number 2^24": "11040000 01000000 0001000200080000",
    "a number that is cut": "11040000 000000",
    "a name that is cut": "11140000 00000001 010861626364",
    "an empty name": "11140000 00000001 0100 0001000200080000",
    "an upper-case name": "11140000 00000001 010141 0001000200080000",
    "two dots": "11140000 00000001 0104612e2e62 0001000200080000",
    "an address as a name": "11140000 00000001 0107312e322e332e34 0001000200080000",
    "a hexadecimal address as a name": "11140000 00000001 010430783766 0001000200080000",
    "an IPv4 address of 3 bytes": "11140000 00000001 0403010203 0001000200080000",
    "an unknown kind": "11140000 00000001 020161 0001000200080000",
}


def whole(name: str, v6: bool, back: bool, upper: Packet, kind: str, hops: int = 64) -> dict[str, Any]:
    """`near` is the application's host: the first as the sender of the frame knows it, `known_as` as the receiver."""
    far = packed("2001:db8::5" if v6 else "203.0.113.5")
    near, known_as = packed(HERE6[0] if v6 else HERE4[0]), packed(THERE6[0] if v6 else THERE4[0])
    case = Case(v6, kind, upper, 0x0A, hops)

    def under(address: bytes) -> bytes:
        return case.sent(*((far, address) if back else (address, far)), id=0x1234)

    frame = bytearray(bytes((4, 8 if back else 0, case.traffic, hops)) + under(bytes(len(near))))
    if v6:
        frame[4:6] = bytes((0x60, frame[5] & 0x0F))
    else:
        frame[5] = 0
    for at in (4, 5, 7) if v6 else (2, 3, 8, 10, 11):
        frame[4 + at] = 0
    one = {"name": name, "back": back, "packet": under(near), "frame": bytes(frame)}
    return {**one, "known_as": known_as, "rebuilt": under(known_as)}


def wholes() -> list[dict[str, Any]]:
    syn = TCP(sport=40001, dport=443, seq=0x01020304, flags="S", window=64240, options=[("MSS", 1380)])
    answer = UDP(sport=53, dport=40001) / Raw(b"odd")
    return [
        whole("a SYN", False, False, syn, "tcp"),
        whole("a SYN over IPv6", True, False, syn, "tcp"),
        whole("a ping, hop limit 1", False, False, ICMP(type=8, id=3, seq=4) / Raw(b"ping"), "icmp", 1),
        whole("a datagram that comes back", False, True, answer, "udp"),
        whole("a datagram that comes back over IPv6", True, True, answer, "udp"),
        whole(
            "an answer to a ping over IPv6", True, True, ICMPv6EchoReply(id=3, seq=4, data=b"ping"), "icmp"
        ),
    ]


NO_WHOLE = {
    "V6": "04010040 450000000000400000110000 00000000 cb007105 0001000200080000",
    "EXIT": "04040040 450000000000400000110000 00000000 cb007105 0001000200080000",
    "no IP header": "04000040 45000000000040",
    "an address of the sender's own choosing": "04000040 450000000000400000110000 64400007 cb007105 0001000200080000",
    "a length": "04000040 4500001c0000400000110000 00000000 cb007105 0001000200080000",
    "a hop limit": "04000040 450000000000400040110000 00000000 cb007105 0001000200080000",
    "options": "04000040 460000000000400000110000 00000000 cb007105 01010100 0001000200080000",
    "a fragment": "04000040 450000000000200000110000 00000000 cb007105 0001000200080000",
    "a datagram that is longer": "04000040 450000000000400000110000 00000000 cb007105 0001000200090000",
    "from nowhere": "04080040 450000000000400000110000 00000000 00000000 0001000200080000",
    "a redirect": "04000040 450000000000400000010000 00000000 cb007105 05000000 00000000",
}


def bundles() -> list[dict[str, Any]]:
    syn, udp, ping = (packets()[number]["frame"] for number in (0, 3, 9))
    sized = [struct.pack("!H", len(frame)) + frame for frame in (syn, udp, ping)]
    head = b"\xff\0\0\0"
    control, short = b"\0\4" + bytes(4), b"\0\3" + syn[:3]
    return [
        {"name": "three frames", "frame": head + b"".join(sized), "inside": [syn, udp, ping]},
        {"name": "one frame", "frame": head + sized[1], "inside": [udp]},
        {"name": "none", "frame": head, "inside": []},
        {"name": "a control frame in it", "frame": head + sized[0] + control + sized[1], "inside": [syn]},
        {"name": "a bundle in it", "frame": head + b"\0\4" + head + sized[1], "inside": []},
        {"name": "shorter than a frame header", "frame": head + sized[2] + short, "inside": [ping]},
        {"name": "over the end", "frame": head + sized[2] + sized[0][:-1], "inside": [ping]},
        {"name": "half a length", "frame": head + sized[2] + b"\0", "inside": [ping]},
    ]


def data() -> list[dict[str, Any]]:
    result = []
    for suite, aead in ((1, ChaCha20Poly1305), (2, AESGCM)):
        key = hashlib.sha256(b"key %d" % suite).digest()
        for index, counter, frame in (
            (1, 0, bytes(4)),
            (0xDEADBEEF, 1, packets()[0]["frame"]),
            (0x01020304, 0x0102030405060708, packets()[3]["frame"]),
            (0xFFFFFFFF, (1 << 60) - 1, bytes(4)),
        ):
            nonce = bytes(4) + counter.to_bytes(8, "little" if suite == 1 else "big")
            datagram = struct.pack("<BBHIQ", 4, 0, 0, index, counter) + aead(key).encrypt(nonce, frame, None)
            one = {"suite": suite, "key": key, "index": index, "counter": counter, "nonce": nonce}
            result.append({**one, "frame": frame, "datagram": datagram})
    return result


def texts() -> dict[str, str]:
    made = "Made by tests/zignet/wire/make_vectors.py, without code of ZigNet's. Bytes are in hexadecimal."
    files = {
        "frames.json": {
            "about": "Frames of protocol.md §6 and §7. A `packet` is what the sender's host gives (`partial`: its "
            "checksum is not there yet), `rebuilt` what the receiver writes for the addresses beside it; `inside` what "
            "is taken of a bundle, or of a frame of an exit flow. A whole packet is rebuilt for the address that it is "
            "`known_as`. " + made,
            "packets": packets(),
            "control": control(),
            "not_control": NOT_CONTROL,
            "fragments": fragments(),
            "bundles": bundles(),
            "exits": exits(),
            "not_exits": NO_EXIT,
            "wholes": wholes(),
            "not_wholes": NO_WHOLE,
        },
        "data.json": {"about": "Data messages of protocol.md §4. " + made, "data": data()},
    }
    return {
        name: json.dumps(value, indent=2, ensure_ascii=False, default=lambda raw: raw.hex()) + "\n"
        for name, value in files.items()
    }


if __name__ == "__main__":
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
