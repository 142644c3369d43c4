"""Fuzz target of the packet parser and all that reads its result.

Invariant: for any bytes, `Packet.parse` returns a `Problem` and raises nothing, looks at no byte outside its
range, and leaves no trace in the next result. When it returns OK, every field lies inside the packet; what
`craft` makes of it is b"" or a packet that parses, with right checksums; and `Reassembler` takes it within
its limits.

    python -m tests.nat.fuzz_packet [SECONDS [SEED]]
"""

import random
import sys
import time

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR, IPOption_SSRR, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    fragment6,
)

from nat.craft import Unreachable, echo_reply, tcp_reset, unreachable
from nat.fragments import Reassembler
from nat.packet import Packet, Problem

FIELDS = [
    "start",
    "length",
    "version",
    "protocol",
    "hop_limit",
    "src_at",
    "dst_at",
    "address_length",
    "l4",
    "l4_length",
    "fragment",
    "fragment_offset",
    "more_fragments",
    "dont_fragment",
    "identification",
    "fragment_at",
    "next_header_at",
    "has_transport",
    "source_port",
    "target_port",
    "tcp_flags",
    "tcp_seq",
    "tcp_ack",
    "icmp_type",
    "icmp_code",
    "payload_at",
    "payload_length",
]

_4 = {"src": "10.1.2.3", "dst": "192.0.2.77"}
_6 = {"src": "fd00::3", "dst": "2001:db8::77"}
SEEDS = [
    bytes(packet)
    for packet in (
        IP(**_4) / TCP(flags="S", seq=5, options=[("MSS", 1460), ("SAckOK", b""), ("WScale", 7)]),
        IP(**_4) / TCP(flags="PA", seq=2**32 - 1, ack=9) / b"hello",
        IP(**_4, options=[IPOption_RR(length=11, pointer=4, routers=["0.0.0.0", "0.0.0.0"])])
        / UDP()
        / b"some",
        IP(**_4, options=[IPOption_SSRR(routers=["1.2.3.4"])]) / UDP() / b"some",
        IP(**_4) / ICMP(id=7, seq=8) / b"ping",
        IP(**_4) / ICMP(type=3, code=3) / IP(src=_4["dst"], dst=_4["src"]) / UDP() / b"quoted",
        *fragment(IP(**_4, id=9) / UDP() / bytes(100), 40),
        IPv6(**_6) / TCP(flags="S", seq=5),
        IPv6(**_6) / UDP() / b"datagram",
        IPv6(**_6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP() / b"datagram",
        IPv6(**_6) / IPv6ExtHdrRouting(type=2, segleft=0, addresses=["::1"]) / TCP(flags="R"),
        IPv6(**_6) / ICMPv6EchoRequest(id=3, seq=4, data=b"ping"),
        IPv6(**_6) / ICMPv6DestUnreach() / IPv6(**_6) / UDP(),
        IPv6(**_6) / IPv6ExtHdrFragment(id=3) / UDP() / b"atomic",
        IPv6(**_6, nh=60) / (bytes((60, 0, 1, 4, 0, 0, 0, 0)) * 7 + bytes((17, 0, 1, 4, 0, 0, 0, 0))) / UDP(),
        *fragment6(IPv6(**_6) / IPv6ExtHdrFragment(id=4) / UDP() / bytes(3000), 1280),
    )
]
INTERESTING = (0, 1, 5, 6, 17, 43, 44, 51, 58, 60, 0x45, 0x4F, 0x60, 0x7F, 0x80, 0xC2, 0xFF)
reassembler = Reassembler(limit_bytes=1 << 16, limit_datagrams=8, timeout_s=5.0)


def fields(packet: Packet) -> list[object]:
    return [getattr(packet, name) for name in FIELDS]


def mutated(source: random.Random) -> bytes:
    """A seed with a few bytes changed, bits flipped, parts cut, doubled or put together; sometimes noise."""
    if source.random() < 0.05:
        return source.randbytes(source.randrange(200))
    data = bytearray(source.choice(SEEDS))
    for _ in range(source.choice((0, 1, 1, 2, 3, 8))):
        at = source.randrange(len(data) + 1)
        head = at if source.random() < 0.3 else min(at, source.randrange(64))
        kind = source.randrange(6)
        if kind == 0 and head < len(data):
            data[head] ^= 1 << source.randrange(8)
        elif kind == 1 and head < len(data):
            data[head] = source.choice(INTERESTING)
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            data[at:at] = source.randbytes(source.randrange(1, 16))
        elif kind == 4:
            data[at:at] = source.choice(SEEDS)[source.randrange(40) :]
        elif kind == 5:
            del data[at : at + source.randrange(1, 16)]
    return bytes(data[:4000])


def check(data: bytes, options: dict[str, bool], now: float, reused: list[Packet]) -> int:
    """The invariant, for one input. `reused` holds one Packet, to find what stays behind in it."""
    results = []
    for filler in (b"\x00", b"\xff"):
        packet = Packet(bytearray(filler * 13 + data + filler * 80))
        problem = packet.parse(13, len(data), **options)
        results.append((problem, fields(packet) if problem == 0 else None))
    assert results[0] == results[1], "read outside its range"

    again = reused[0]
    assert len(data) + 93 <= len(again.buffer)
    again.buffer[13 : 13 + len(data)] = data
    assert again.parse(13, len(data), **options) == problem
    if Problem(problem) is not Problem.OK:
        return problem
    assert fields(again) == results[0][1], "something stayed behind"

    end = 13 + len(data)
    assert packet.start == 13
    assert 20 <= packet.length <= len(data)
    assert packet.version in (4, 6)
    assert packet.src_at + packet.address_length == packet.dst_at
    assert packet.dst_at + packet.address_length <= packet.l4
    assert packet.l4 + packet.l4_length == packet.start + packet.length <= end
    assert packet.l4_length >= 0
    assert packet.payload_length >= 0 or options.get("quoted")
    if packet.has_transport and not options.get("quoted"):
        assert packet.l4 + 8 <= packet.payload_at
        assert packet.payload_at + packet.payload_length <= packet.start + packet.length
    packet.payload(), packet.key(), packet.transport_sum_ok()

    made = [unreachable(packet, code, mtu=1400) for code in Unreachable] + [tcp_reset(packet)]
    if not options:
        made.append(echo_reply(packet))
    for raw in made:
        if raw:
            ours = Packet(bytearray(raw))
            assert ours.parse(0, len(raw)) == 0
            assert ours.length == len(raw)
            assert ours.target() == packet.source()
            assert ours.transport_sum_ok()
    if not options:
        whole = reassembler.add(packet, now)
        assert reassembler.held_bytes <= 1 << 16
        assert len(reassembler) <= 8
        if whole is not None and packet.fragment:
            ours = Packet(bytearray(whole))
            if ours.parse(0, len(whole)) == 0:
                assert not ours.fragment
    return problem


def run(count: int, seed: int, seconds: float = float("inf")) -> list[int]:
    """Check `count` inputs, or as many as go into `seconds`. Returns how often each Problem was seen."""
    source = random.Random(seed)
    seen = [0] * len(Problem)
    reused = [Packet(bytearray(8192))]
    modes = ({}, {}, {"verify": False}, {"verify": False}, {"quoted": True}, {"gso": True, "verify": False})
    until = time.monotonic() + seconds
    for number in range(count):
        data = mutated(source)
        options = source.choice(modes)
        try:
            seen[check(data, options, number / 100, reused)] += 1
        except BaseException:
            print(f"input {number} of seed {seed}: {options} {data.hex()}", file=sys.stderr)
            raise
        if not number % 64 and time.monotonic() > until:
            break
    return seen


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    print(f"seed {seed}, {seconds:.0f} s")
    counts = run(1 << 62, seed, seconds)
    print(sum(counts), "inputs:", ", ".join(f"{p.name} {n}" for p, n in zip(Problem, counts, strict=True)))
