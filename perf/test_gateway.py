"""What the rewrite of one packet costs, beside one read and one write of a real TUN in the same run.

pytest perf/test_gateway.py --benchmark-enable        the table of pytest-benchmark
pytest perf/test_gateway.py -s -k ratio               the ratio, in one line for each kind of packet (root)

"Rewrite" is all that the engine does with a packet of a known flow between the read and the write: classify,
look up, replace addresses and ports, mend the checksums. It is measured through `Gateway.feed`, which first
copies the packet into the buffer; the packet is an answer of a flow whose source is not this TUN, so that
nothing is written but one call is made. `harness` is what the same copy and call cost for bytes that are no
packet; the ratio is without it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from statistics import median
from types import SimpleNamespace
from typing import Any

import pytest

from nat.checksum import transport_checksum
from nat.craft import ip_packet
from nat.expiry import Expiry
from nat.gateway import Gateway
from nat.table import AliasPool, Table
from nat.tun import open_tun
from zignet.lab.namespace import Namespace

APP = {4: bytes((100, 64, 0, 1)), 6: socket.inet_pton(socket.AF_INET6, "fd00::1")}
FAR = {4: bytes((203, 0, 113, 5)), 6: socket.inet_pton(socket.AF_INET6, "2001:db8::5")}
LISTENER = {4: bytes((127, 0, 0, 1)), 6: socket.inet_pton(socket.AF_INET6, "::1")}
POOLS = {4: bytes((100, 127, 0, 0)), 6: socket.inet_pton(socket.AF_INET6, "fd00:0:0:ffff::")}
PORT = 5000
SIZE = 1400  # bytes of payload, through the real TUN
ROUNDS, TIMES = 9, 20_000


class Nowhere:
    """A source of flows that takes every answer, and does nothing with it."""

    deliver: Any = staticmethod(max)  # of two integers: about the cheapest call there is
    send: Any = None
    write: Any = None


def segment(source: bytes, target: bytes, source_port: int, target_port: int) -> bytes:
    """A TCP segment with its checksum."""
    head = source_port.to_bytes(2, "big") + target_port.to_bytes(2, "big") + bytes(8) + b"\x50\x10\xff\xff"
    tcp = head + bytes(4)
    value = transport_checksum(tcp, 0, len(tcp), source=source, target=target, protocol=6)
    return ip_packet(source, target, 6, tcp[:16] + value.to_bytes(2, "big") + tcp[18:])


def prepared(version: int, header: int) -> tuple[Gateway, bytes]:
    """A gateway with one established flow, and a packet of the listener's for it."""
    nowhere = os.open("/dev/null", os.O_RDWR)
    gateway = Gateway(
        SimpleNamespace(now=0.0, turns=0), SimpleNamespace(fileno=lambda: nowhere, header=header)
    )
    size = len(APP[version])
    pools = {size: AliasPool(POOLS[version], 16 if version == 4 else 64)}
    table = Table(gateway, Expiry, pools)
    table.listen(LISTENER[version], PORT)
    key = APP[version] + FAR[version] + (40_000).to_bytes(2, "big") + (443).to_bytes(2, "big")
    flow = table.open(Nowhere(), key, APP[version], 40_000, FAR[version], 443, 0, 0.0)
    assert flow is not None
    table.establish(flow)
    packet = segment(LISTENER[version], flow.reverse[size : 2 * size], PORT, 40_000)
    gateway.slow = max
    gateway.feed(packet)
    start, end = header + (12 if version == 4 else 8), header + (24 if version == 4 else 44)
    answer = FAR[version] + APP[version] + (443).to_bytes(2, "big") + (40_000).to_bytes(2, "big")
    assert gateway.raw[start:end] == answer, "it was not rewritten"
    return gateway, packet


@pytest.mark.benchmark(group="rewrite")
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("header", [0, 10])
def test_rewrite(benchmark: Any, version: int, header: int) -> None:
    gateway, packet = prepared(version, header)
    benchmark(gateway.feed, packet)


class RealTun:
    """A TUN in a namespace of its own, and a socket whose datagrams enter it and come back."""

    def __init__(self, namespace: Namespace) -> None:
        self.tun = namespace.call(open_tun, "auto", "zig0", "auto")
        done = namespace.run(["sh", "-c", "ip address add 198.51.100.1/24 dev zig0; ip link set zig0 up"])
        assert done.returncode == 0, done
        self.socket = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("198.51.100.1", 9))
        self.socket.connect(("198.51.100.2", 9))
        self.socket.setblocking(False)
        self.fd = self.tun.fileno()
        self.buffer = bytearray(65_600)
        self.views = [memoryview(self.buffer)]
        self.settle()
        self.prepare()
        self.length = os.readv(self.fd, self.views)
        at = self.tun.header + 12
        # Addresses change places; so checksums stay, and the ports are the same.
        self.back = bytearray(self.buffer[: self.length])
        self.back[at : at + 8] = self.back[at + 4 : at + 8] + self.back[at : at + 4]
        os.write(self.fd, self.back)
        assert self.socket.recv(2000) == bytes(SIZE)

    def settle(self) -> None:
        """Read away what the new interface says of itself."""
        time.sleep(0.2)
        try:
            while os.readv(self.fd, self.views):
                pass
        except BlockingIOError:
            pass

    def prepare(self) -> None:
        """Let one packet wait in the TUN, and none in the socket."""
        try:
            while True:
                self.socket.recv(2000)
        except BlockingIOError:
            pass
        self.socket.send(bytes(SIZE))

    def read_and_write(self) -> None:
        """What every engine on a TUN has to do."""
        os.readv(self.fd, self.views)
        os.write(self.fd, self.back)

    def cost(self, times: int) -> float:
        """Seconds of one read and one write, the median of many."""
        taken = []
        clock = time.perf_counter
        for _ in range(times):
            self.prepare()
            start = clock()
            self.read_and_write()
            taken.append(clock() - start)
        return median(taken)


@pytest.fixture(scope="module")
def real_tun() -> Iterator[RealTun]:
    namespace = Namespace("perf")
    try:
        made = RealTun(namespace)
        yield made
        made.socket.close()
        made.tun.close()
    finally:
        namespace.close()


@pytest.mark.root
@pytest.mark.benchmark(group="rewrite")
def test_read_and_write_of_a_real_tun(benchmark: Any, real_tun: RealTun) -> None:
    benchmark.pedantic(real_tun.read_and_write, setup=real_tun.prepare, rounds=2000)


def cost(function: Callable[[bytes], object], argument: bytes, times: int) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    for _ in range(times):
        function(argument)
    return (time.perf_counter() - start) / times


@pytest.mark.root
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("header", [0, 10])
def test_ratio(real_tun: RealTun, version: int, header: int) -> None:
    gateway, packet = prepared(version, header)
    rounds = [
        (
            cost(gateway.feed, packet, TIMES // ROUNDS),
            cost(gateway.feed, bytes(len(packet)), TIMES // ROUNDS),
            real_tun.cost(1000 // ROUNDS),
        )
        for _ in range(ROUNDS)
    ]
    whole, harness, syscalls = (median(one[i] for one in rounds) for i in range(3))
    print(
        f"\nIPv{version}, header of {header} bytes: rewrite {(whole - harness) * 1e6:.2f} µs (harness "
        f"{harness * 1e6:.2f} µs), read + write {syscalls * 1e6:.2f} µs, ratio {(whole - harness) / syscalls:.2f}"
    )
    assert whole > harness
