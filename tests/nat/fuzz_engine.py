"""Any bytes as packets, into a whole engine. By hand: python -m tests.nat.fuzz_engine [SECONDS [SEED]]

The invariant: whatever the bytes, and whatever stands in the virtio_net_hdr before them,

* nothing raises, inside a handler or out of it;
* all that grows has a bound: flows, rewrites, mappings, held datagrams, fragments, pings, descriptors;
* what the engine writes begins like an IP packet, and a packet that it made itself is right to the last bit;
* afterwards, a good SYN is answered as if nothing had happened, and when all time has passed nothing is left.

Exits lead to loopback only, whatever address a packet names.
"""

from __future__ import annotations

import logging
import random
import sys
import time

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.utils import checksum

from nat.exit import Reason, Refusal, Route
from nat.icmp import ECHOES
from nat.packet import Packet
from nat.settings import Settings
from tests.nat.fuzz_packet import SEEDS, mutated
from tests.nat.world import (
    APP4,
    APP6,
    FAR4,
    FAR6,
    VIRTIO,
    Origin,
    Way,
    World,
    closed_port,
    descriptors,
    packed,
    text,
    udp_server,
)
from zignet.exits.socks5 import Socks5

LIMITS = Settings(flows=60, half_open=30, udp_flows=40)
MOST_DESCRIPTORS = 400


class Log(logging.Handler):
    """Keeps what handlers raised."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.raised: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.raised.append(self.format(record))


class Ways:
    """Rules by the target's last byte, so that every outcome is met; only loopback is ever reached."""

    def __init__(self, open_: tuple[str, int], silent: tuple[str, int]) -> None:
        proxy = Socks5("proxy", packed(silent[0]), silent[1])
        self.ways = [Way("block", refusal=Refusal(reason)) for reason in Reason]
        self.ways += [
            Way("open", to=open_, datagrams=proxy.udp),
            Way("closed", to=closed_port(), datagrams=proxy.udp),
        ]
        self.direct = Way("direct", to=open_)

    def choose(
        self, protocol: int, source: bytes, source_port: int, target: bytes, port: int, name: str | None
    ) -> Route | None:
        if name is None and port % 3 == 0:
            return None
        if text(target).startswith("127.") or text(target) == "::1":
            return Route(self.direct, "direct")
        way = self.ways[(target[-1] + port) % len(self.ways)]
        return Route(way, way.name, by_name=bool(name))


class Fuzz:
    """One engine under fire."""

    def __init__(self, seed: int, header: int) -> None:
        self.source = random.Random(seed)
        self.header = header
        self.log = Log()
        logging.getLogger("zignet").addHandler(self.log)
        self.origin, self.silent, self.server = Origin(), Origin(), udp_server()
        self.lab = World(
            Ways(self.origin.address, self.silent.address), LIMITS, header, super_datagrams=header != 0
        )
        port = self.server.getsockname()[1]
        hello = bytes(IP(src=APP4, dst=FAR4) / TCP(sport=9, dport=8, flags="S"))
        self.seeds = [
            bytes(packet)
            for packet in (
                *(IP(src=APP4, dst=FAR4) / TCP(sport=9, dport=p, flags=f) for p in (6, 7, 8) for f in "SAFR"),
                *(
                    IPv6(src=APP6, dst=FAR6) / TCP(sport=9, dport=p, flags=f)
                    for p in (6, 7, 8)
                    for f in "SAFR"
                ),
                IPv6(src=APP6, dst=FAR6) / IPv6ExtHdrHopByHop() / TCP(sport=9, dport=8, flags="PA") / b"data",
                IP(src=APP4, dst="127.0.0.1") / UDP(sport=9, dport=port) / b"to a server",
                IPv6(src=APP6, dst="::1") / UDP(sport=9, dport=port) / b"to nobody",
                IP(src=APP4, dst=FAR4) / UDP(sport=9, dport=443) / bytes(200),
                IPv6(src=APP6, dst=FAR6) / UDP(sport=9, dport=442) / bytes(1200),
                IPv6(src=APP6, dst=FAR6) / IPv6ExtHdrFragment(id=1, m=1) / UDP(sport=9, dport=1) / bytes(64),
                IP(src=APP4, dst="127.0.0.1") / ICMP(id=1) / b"ping",
                IP(src=APP4, dst=FAR4) / ICMP(id=1) / b"ping",
                IPv6(src=APP6, dst=FAR6) / ICMPv6EchoRequest(id=1),
                IP(src=APP4, dst=FAR4) / ICMP(type=3, code=1) / hello,
                IP(src=FAR4, dst=APP4, flags="MF", id=7) / UDP(sport=1, dport=2) / bytes(64),
            )
        ]

    def packet(self) -> bytes:
        """Mostly near-misses: a good packet with a little harm done, its outer checksum right again."""
        source = self.source
        pick = source.random()
        if pick < 0.1:
            return source.randbytes(source.randrange(120))
        if pick < 0.4:
            return mutated(source)
        data = bytearray(source.choice(self.seeds if source.random() < 0.8 else SEEDS))
        for _ in range(source.choice((0, 0, 1, 1, 2, 4))):
            at = source.randrange(len(data))
            data[at] = source.choice((0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)))
        if source.random() < 0.2:
            del data[source.randrange(len(data)) :]
        return repaired(data) if source.random() < 0.8 else bytes(data)

    def virtio(self) -> bytes:
        """Sensible, or anything."""
        source = self.source
        if source.random() < 0.5:
            return bytes(10)
        if source.random() < 0.3:
            return source.randbytes(10)
        kind = source.choice((0, 1, 3, 4, 5, 0x81, 0xFF))
        return VIRTIO.pack(source.randrange(3), kind, 40, source.choice((0, 1, 50, 1448)), 20, 16)

    def step(self) -> None:
        """A few packets, a turn, sometimes an accept or the passing of time; then the invariant."""
        lab, source = self.lab, self.source
        for _ in range(source.randrange(1, 6)):
            data = self.packet()
            if data or self.header:  # an empty read is the end of the device
                lab.device.put(data, self.virtio())
        lab.loop.turn()
        if source.random() < 0.3:
            for origin in (self.origin, self.silent):
                while accepted := origin.accept():
                    accepted.close()
        if source.random() < 0.02:
            lab.loop.pass_time(source.choice((0.5, 20.0, 40.0, 200.0)))
        for out in lab.written():
            assert out.raw[0] >> 4 in (4, 6)
            if out.raw[0] == 0x45 and out.raw[9] == 1 and out.raw[20] in (3, 0):
                ours = Packet(bytearray(out.raw))  # an ICMP error or an echo reply of our own making
                assert ours.parse(0, len(out.raw)) == 0, out.raw.hex()
                assert ours.transport_sum_ok(), out.raw.hex()
        self.check()

    def check(self) -> None:
        engine = self.lab.engine
        assert not self.log.raised, self.log.raised[0]
        assert not engine.dropped["internal error"]
        table = engine.table
        assert len(table) <= 2 * LIMITS.flows
        assert len(table.half_open) <= LIMITS.half_open
        assert len(engine.gateway.rewrites) <= 2 * len(table)
        assert len(engine.udp.flows) <= LIMITS.udp_flows
        assert len(engine.mappings) <= len(engine.udp.flows)
        assert len(engine.icmp.flows) <= ECHOES
        assert engine.fragments.held_bytes <= 1 << 20
        assert len(engine.dropped) < 300  # one for each protocol number, and a few
        assert self.lab.gone == []

    def finish(self) -> None:
        """It still works; and when everything has timed out, everything is forgotten."""
        lab = self.lab
        lab.written()
        good = IP(src="100.64.0.9", dst="203.0.113.77") / TCP(sport=5, dport=9, flags="S")
        (out,) = lab.give(good)  # undecided: port 9 needs a name
        assert out.packet.dst == "127.0.0.1"
        for _ in range(4):
            lab.loop.pass_time(1000.0)
            lab.loop.settle(2)
        assert len(lab.table) == 0
        assert lab.engine.gateway.rewrites == {}
        assert list(lab.engine.flows()) == []
        assert len(lab.engine.mappings) == 0
        lab.engine.fragments.expire(lab.loop.now + 1000)
        assert len(lab.engine.fragments) == 0
        self.check()

    def close(self) -> None:
        self.lab.close()
        for one in (self.origin, self.silent, self.server):
            one.close()
        logging.getLogger("zignet").removeHandler(self.log)


def repaired(data: bytearray) -> bytes:
    """With the right length and header checksum, so that the harm lies deeper."""
    if len(data) >= 20 and data[0] >> 4 == 4:
        head = (data[0] & 15) * 4
        data[2:4] = len(data).to_bytes(2, "big")
        if 20 <= head <= len(data):
            data[10:12] = bytes(2)
            data[10:12] = checksum(bytes(data[:head])).to_bytes(2, "big")
    elif len(data) >= 40 and data[0] >> 4 == 6:
        data[4:6] = (len(data) - 40).to_bytes(2, "big")
    return bytes(data)


def run(steps: int, seed: int, seconds: float = float("inf")) -> dict[str, int]:
    """So many steps, or as many as go into `seconds`, with and without a virtio_net_hdr. Returns the drops."""
    dropped: dict[str, int] = {}
    until = time.monotonic() + seconds
    for header in (0, 10):
        fuzz = Fuzz(seed, header)
        try:
            for number in range(steps // 2):
                fuzz.step()
                if not number % 64:
                    assert descriptors() < MOST_DESCRIPTORS
                    if time.monotonic() > until - (seconds / 2 if header == 0 else 0):
                        break
            fuzz.finish()
        except BaseException:
            print(f"step {number} of seed {seed}, header {header}", file=sys.stderr)
            raise
        finally:
            fuzz.close()
        for what, count in fuzz.lab.engine.dropped.items():
            dropped[what] = dropped.get(what, 0) + count
    return dropped


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    print(f"seed {seed}, {seconds:.0f} s")
    for what, count in sorted(run(1 << 62, seed, seconds).items()):
        print(f"{count:9} {what}")
