"""A long cable: holds every frame between two interfaces for so many seconds, each way.

Run as `python -m zignet.lab.delay INTERFACE INTERFACE SECONDS`; prints `ready`. Packet sockets on both sides take
frames as they come, with their virtio_net_hdr (packet(7), PACKET_VNET_HDR): a super-packet stays one, and a checksum
that is not filled in stays so.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time
from collections import deque

__all__ = ["Direction", "main"]

ETH_P_ALL = 3  # linux/if_ether.h
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23  # linux/if_packet.h
SO_RCVBUFFORCE = 33
FRAME = 10 + 14 + 65_536  # bytes: virtio_net_hdr, Ethernet, the largest packet
BATCH = 64  # frames read in a turn
BUFFER = 32 << 20  # bytes on their way: 10 ms at 20 Gbit/s


class Direction:
    """From one interface to another. Times are of one clock, in seconds."""

    def __init__(self, source: socket.socket, sink: socket.socket, seconds: float) -> None:
        self.source = source
        self.sink = sink
        self.seconds = seconds
        self.held: deque[tuple[float, bytes]] = deque()
        self.bytes = 0

    def read(self, now: float) -> None:
        """Take what has come; what does not fit any more is lost, as on a real cable."""
        with contextlib.suppress(OSError):  # no more, or the interface is down
            for _ in range(BATCH):
                frame = self.source.recv(FRAME)
                if self.bytes + len(frame) <= BUFFER:
                    self.held.append((now + self.seconds, frame))
                    self.bytes += len(frame)

    def send(self, now: float) -> None:
        """Let go what is due."""
        while self.held and self.held[0][0] <= now:
            _, frame = self.held.popleft()
            self.bytes -= len(frame)
            with contextlib.suppress(OSError):  # a full queue, an interface that is down: lost
                self.sink.send(frame)


def packet_socket(interface: str) -> socket.socket:
    """All frames that arrive at an interface. Raises OSError."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    made.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    made.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    made.setblocking(False)
    made.bind((interface, ETH_P_ALL))
    return made


def run(left: socket.socket, right: socket.socket, seconds: float) -> None:
    """Carry frames until the process is ended."""
    ways = {
        left.fileno(): Direction(left, right, seconds),
        right.fileno(): Direction(right, left, seconds),
    }
    while True:
        due = min((way.held[0][0] for way in ways.values() if way.held), default=None)
        patience = None if due is None else max(0.0, due - time.monotonic())
        ready, _, _ = select.select(list(ways), [], [], patience)
        now = time.monotonic()
        for descriptor in ready:
            ways[descriptor].read(now)
        for way in ways.values():
            way.send(now)


def main(arguments: list[str]) -> None:
    """Between the interfaces named."""
    left, right, seconds = arguments
    ends = packet_socket(left), packet_socket(right)
    print("ready", flush=True)
    run(*ends, float(seconds))


if __name__ == "__main__":
    main(sys.argv[1:])
