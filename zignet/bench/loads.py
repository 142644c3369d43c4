"""The near end of the bench: what an application does, measured. Each load is a process of its own.

Run as `python -m zignet.bench.loads LOAD JSON-OF-ARGUMENTS`; prints one line of JSON. Everything is one
thread and one epoll, with as few system calls as the thing measured allows.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from zignet.bench.origin import PORTS, REQUEST, RESPONSE
from zignet.lab.associate import UDP_SEGMENT

__all__ = ["LOADS", "main"]

IN, OUT, EDGE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLET
HUNG = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
STALL_S = 0.9  # a SYN's first retransmission comes after one second
GIVE_UP_S = 10.0
BLOCK = 1 << 20  # bytes of one sendfile or recv
DATAGRAM = 1200  # bytes
TRAIN = 50  # datagrams of one UDP_SEGMENT call
WINDOW = 40  # trains on their way


def quantile(sorted_values: Sequence[float], q: float) -> float:
    """The value below which the share `q` lies."""
    return sorted_values[min(len(sorted_values) - 1, int(q * len(sorted_values)))] if sorted_values else 0.0


def requests(hosts: list[str], count: int, at_once: int = 16, port: int = PORTS.request) -> dict[str, Any]:
    """Connect, ask once, read the answer to the end, close; `at_once` at a time, addresses in turn."""
    epoll = select.epoll()
    live: dict[int, tuple[socket.socket, float]] = {}
    started = ended = failed = stalled = 0
    times: list[float] = []
    begin = now = time.monotonic()

    def start() -> None:
        nonlocal started
        made = socket.socket(socket.AF_INET, STREAM)
        made.connect_ex((hosts[started % len(hosts)], port))
        started += 1
        fd = made.fileno()
        live[fd] = (made, time.monotonic())
        epoll.register(fd, IN | OUT | EDGE | select.EPOLLRDHUP)

    for _ in range(min(at_once, count)):
        start()
    sent: set[int] = set()
    got: dict[int, int] = {}
    while ended < count:
        events = epoll.poll(1.0, 64)
        now = time.monotonic()
        done: list[int] = []
        for fd, mask in events:
            made, _ = live[fd]
            try:
                if mask & OUT and fd not in sent:
                    made.send(REQUEST)
                    sent.add(fd)
                if mask & (IN | HUNG):
                    got[fd] = got.get(fd, 0) + len(made.recv(4096))
                    if mask & HUNG:
                        while data := made.recv(4096):
                            got[fd] += len(data)
                        done.append(fd)
            except BlockingIOError:
                continue
            except OSError:
                done.append(fd)
        if not events:
            done = [fd for fd, (_, since) in live.items() if now - since > GIVE_UP_S]
        for fd in done:
            made, since = live.pop(fd)
            made.close()
            sent.discard(fd)
            failed += got.pop(fd, 0) != len(RESPONSE)
            stalled += now - since > STALL_S
            times.append(now - since)
            ended += 1
            if started < count:
                start()
    times.sort()
    return {
        "per_second": count / (now - begin),
        "failed": failed,
        "stalled": stalled,
        "p50_ms": quantile(times, 0.5) * 1e3,
        "p99_ms": quantile(times, 0.99) * 1e3,
        "longest_ms": times[-1] * 1e3,
    }


def opened(host: str, port: int, count: int) -> list[socket.socket]:
    """Connections that stand."""
    return [socket.create_connection((host, port), timeout=GIVE_UP_S) for _ in range(count)]


def upload(host: str, streams: int, seconds: float) -> dict[str, Any]:
    """Send zeros as fast as they go; the far end tells what came, and when."""
    memory = os.memfd_create("zeros")
    os.ftruncate(memory, BLOCK)
    epoll = select.epoll()
    ends = {end.fileno(): end for end in opened(host, PORTS.sink, streams)}
    for fd, end in ends.items():
        end.setblocking(False)
        epoll.register(fd, OUT)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for fd, _ in epoll.poll(0.1):
            try:
                os.sendfile(fd, memory, 0, BLOCK)
            except BlockingIOError:
                continue
    reports = []
    for end in ends.values():
        end.settimeout(GIVE_UP_S)
        end.shutdown(socket.SHUT_WR)
    for end in ends.values():
        reports.append(struct.unpack("<Qdd", end.recv(24, socket.MSG_WAITALL)))
        end.close()
    total = sum(report[0] for report in reports)
    span = max(report[2] for report in reports) - min(report[1] for report in reports)
    return {"gbit_s": total * 8 / span / 1e9}


def download(host: str, streams: int, seconds: float) -> dict[str, Any]:
    """Read what the far end sends, as fast as it comes."""
    epoll = select.epoll()
    ends = {end.fileno(): end for end in opened(host, PORTS.source, streams)}
    buffer = bytearray(BLOCK)
    for fd, end in ends.items():
        end.setblocking(False)
        epoll.register(fd, IN)
    total = 0
    begin = now = time.monotonic()
    while now - begin < seconds:
        for fd, _ in epoll.poll(0.1):
            try:
                total += ends[fd].recv_into(buffer)
            except BlockingIOError:
                continue
        now = time.monotonic()
    for end in ends.values():
        end.close()
    return {"gbit_s": total * 8 / (now - begin) / 1e9}


def pingpong(host: str, rounds: int) -> dict[str, Any]:
    """64 bytes there and back over one connection."""
    (end,) = opened(host, PORTS.echo, 1)
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    payload = bytes(64)
    times = []
    for _ in range(rounds):
        before = time.perf_counter()
        end.sendall(payload)
        end.recv(64, socket.MSG_WAITALL)
        times.append(time.perf_counter() - before)
    times.sort()
    return {"p50_us": quantile(times, 0.5) * 1e6, "p99_us": quantile(times, 0.99) * 1e6}


def ping(host: str, rounds: int) -> dict[str, Any]:
    """ICMP echo (RFC 792), one at a time."""
    end = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    end.settimeout(0.5)
    identity = os.getpid() & 0xFFFF
    times = []
    lost = 0
    for sequence in range(rounds):
        body = struct.pack(">BBHHH", 8, 0, 0, identity, sequence) + bytes(56)
        total = sum(struct.unpack(">32H", body))
        total = (total & 0xFFFF) + (total >> 16)
        packet = body[:2] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + body[4:]
        before = time.perf_counter()
        end.sendto(packet, (host, 0))
        try:
            while True:
                answer = end.recv(2048)
                if answer[20] == 0 and struct.unpack_from(">HH", answer, 24) == (identity, sequence):
                    break
            times.append(time.perf_counter() - before)
        except TimeoutError:
            lost += 1
            if lost > 2 and not times:
                break
    times.sort()
    return {"p50_us": quantile(times, 0.5) * 1e6, "p99_us": quantile(times, 0.99) * 1e6, "lost": lost}


def datagrams(host: str, seconds: float) -> dict[str, Any]:
    """Trains of datagrams by UDP_SEGMENT, `WINDOW` of them on their way; lost ones are given up after 50 ms.

    A flood without a window would measure who gets the cores, not what goes through. Before Linux 6.11 a
    device without checksum offload takes no trains (EIO); there each datagram is a call.
    """
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.setsockopt(socket.SOL_SOCKET, 32, 4 << 20)  # SO_SNDBUFFORCE
    end.connect((host, PORTS.datagrams))
    end.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, DATAGRAM)
    run = os.urandom(8)
    train = (run + bytes(DATAGRAM - 8)) * TRAIN
    pieces = [train]
    window = WINDOW * len(train)
    sent = known = lost = 0
    begin = now = time.monotonic()

    def send() -> None:
        nonlocal pieces
        try:
            for piece in pieces:
                end.send(piece)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            end.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)
            pieces = [train[:DATAGRAM]] * TRAIN

    def heard(timeout_s: float) -> bool:
        nonlocal known
        if not select.select([end], [], [], timeout_s)[0]:
            return False
        try:
            known = max(known, *struct.unpack("<Q", end.recv(8)))
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise
        return True

    while now - begin < seconds:
        while heard(0.0 if sent - lost - known < window else 0.05):
            pass
        if sent - lost - known >= window:
            lost = sent - known
        send()
        sent += len(train)
        now = time.monotonic()
    end.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 0)
    time.sleep(0.1)
    for _ in range(10):  # how much came in all: ask, for the last acknowledgement may be old
        end.send(run)
        if heard(0.1):
            while heard(0.02):
                pass
            break
    return {"pps": known / DATAGRAM / (now - begin), "lost_share": max(0.0, 1 - known / max(sent, 1))}


def idle(hosts: list[str], flows: int) -> dict[str, Any]:
    """Hold flows, each with a token of its own; on a line of input, send and check tokens again."""
    held = []
    crossed = failed = 0
    for number in range(flows):
        try:
            end = socket.create_connection((hosts[number % len(hosts)], PORTS.echo), timeout=GIVE_UP_S)
            held.append((number, end))
            end.sendall(struct.pack("<QQ", number, ~number & 0xFFFFFFFF))
            answer = end.recv(16, socket.MSG_WAITALL)
            failed += len(answer) != 16
            crossed += len(answer) == 16 and answer[:8] != struct.pack("<Q", number)
        except OSError:
            failed += 1
    print(json.dumps({"held": len(held)}), flush=True)
    sys.stdin.readline()
    for number, end in held:
        token = struct.pack("<QQ", number, number * 7)
        try:
            end.sendall(token)
        except OSError:
            failed += 1
    for number, end in held:
        try:
            answer = end.recv(16, socket.MSG_WAITALL)
        except OSError:
            answer = b""
        failed += len(answer) != 16
        crossed += len(answer) == 16 and answer != struct.pack("<QQ", number, number * 7)
        end.close()
    return {"flows": flows, "crossed": crossed, "failed": failed}


def address(host: str) -> dict[str, Any]:
    """The address that the far end sees."""
    with socket.create_connection((host, PORTS.address), timeout=2.0) as end:
        end.settimeout(2.0)
        return {"address": json.loads(end.recv(256))}


LOADS: dict[str, Callable[..., dict[str, Any]]] = {
    load.__name__: load for load in (requests, upload, download, pingpong, ping, datagrams, idle, address)
}


def main(arguments: list[str]) -> None:
    """Run one load."""
    name, text = arguments
    print(json.dumps(LOADS[name](**json.loads(text))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
