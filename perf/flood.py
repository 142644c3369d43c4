"""Datagrams that are no good, as many as are wanted, for little of the machine's time.

Run in a namespace as `python -m perf.flood JSON`; says `ready`, and for each line of input, `RATE SECONDS`, sends that
many a second and answers with a line of JSON: how many left, and the share of a core that it took.

Kinds: `random` bytes; `forged` initiations for the node's key, everything in its place, but with a mac1 that is not
one; `stranger`, the same for another key; `sealed`, with the right mac1 and nothing behind it; `data` messages of
sessions that do not exist. The kernel takes the whole of
`NETWORK` as local, and each train of 64 comes from another address. Where the interface does not take trains
(`Hosts.one_by_one`), the kernel cuts them up before the cable, so that each datagram arrives by itself.
"""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import sys
import time

from zignet.noise import MacMaker

NETWORK = "198.18.0.0/15"  # RFC 2544: for benchmarks
FIRST = int.from_bytes(socket.inet_aton("198.19.0.1"))
ADDRESSES = 4_000
TRAIN = 64  # datagrams of one call
TRAINS = 500  # made once, sent over and over
SIZES = {
    "random": (20, 300),
    "forged": (220, 220),
    "stranger": (220, 220),
    "sealed": (220, 220),
    "data": (36, 300),
}
UDP_SEGMENT = 103  # linux/udp.h
IP_PKTINFO = 8  # linux/in.h
SO_SNDBUFFORCE = 32  # asm-generic/socket.h


def datagram(kind: str, x: bytes, size: int) -> bytes:
    """One."""
    if kind == "random":
        return os.urandom(size)
    if kind == "data":
        return b"\x04\x00\x00\x00" + os.urandom(4) + bytes(8) + os.urandom(size - 16)
    dst = os.urandom(32) if kind == "stranger" else x
    message = b"\x01\x01\x00\x00" + os.urandom(4) + dst + os.urandom(148)
    return MacMaker(x).add(message, 0.0) if kind == "sealed" else message + os.urandom(16) + bytes(16)


class Flood:
    """Trains that are made once."""

    def __init__(self, node: str, port: int, kind: str, x: str) -> None:
        self.node = (node, port)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)
        self.trains = [self.train(kind, bytes.fromhex(x)) for _ in range(TRAINS)]

    def train(self, kind: str, x: bytes) -> tuple[list[bytes], list[tuple[int, int, bytes]]]:
        """What sendmsg takes."""
        size = random.randint(*SIZES[kind])
        source = (FIRST + random.randrange(ADDRESSES)).to_bytes(4)
        way = [
            (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4s", 0, source, source)),
            (socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", size)),
        ]
        return [b"".join(datagram(kind, x, size) for _ in range(TRAIN))], way

    def run(self, rate: float, seconds: float) -> dict[str, float]:
        """Send; what is late is made up for, so that the rate is right on the average."""
        begin = now = time.monotonic()
        used = time.process_time()
        sent = 0
        while now - begin < seconds:
            while sent < (now - begin) * rate:
                data, way = self.trains[sent // TRAIN % TRAINS]
                self.socket.sendmsg(data, way, 0, self.node)
                sent += TRAIN
            time.sleep(0.001)
            now = time.monotonic()
        return {"per_second": sent / (now - begin), "share": (time.process_time() - used) / (now - begin)}


def main(arguments: str) -> None:
    flood = Flood(**json.loads(arguments))
    print("ready", flush=True)
    for line in sys.stdin:
        rate, seconds = line.split()
        print(json.dumps(flood.run(float(rate), float(seconds))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
