"""Classic BPF, the language of tcpdump's filters: programs that the kernel runs on what comes for a socket."""

from __future__ import annotations

import array
import socket
import struct

__all__ = [
    "ALL",
    "AND",
    "IF_AT_LEAST",
    "IF_EQUAL",
    "LOAD_BYTE",
    "LOAD_LENGTH",
    "LOAD_WORD",
    "MULTIPLY",
    "RETURN",
    "SHIFT_RIGHT",
    "TO_X",
    "XOR_X",
    "Step",
    "attach_filter",
    "attach_selector",
    "by_interface",
    "by_source",
    "only_from",
]

SO_ATTACH_FILTER, SO_ATTACH_REUSEPORT_CBPF = 26, 51  # asm-generic/socket.h

# linux/bpf_common.h, linux/filter.h
# A load is big-endian; one from beyond the end drops the packet.
LOAD_WORD, LOAD_BYTE, LOAD_LENGTH, TO_X = 0x20, 0x30, 0x80, 0x07
AND, SHIFT_RIGHT, MULTIPLY, XOR_X = 0x54, 0x74, 0x24, 0xAC
IF_EQUAL, IF_AT_LEAST = 0x15, 0x35
RETURN = 0x06
ALL = 0xFFFFFFFF
IP_HEADER = 2**32 - 0x100000  # SKF_NET_OFF: loads from here on count from the IP header
INTERFACE = 2**32 - 0x1000 + 8  # SKF_AD_OFF + SKF_AD_IFINDEX: the index of the interface that it comes by
SOURCE = {4: 12, 16: 8}  # where a source of so many bytes is in it (RFC 791 §3.1, RFC 8200 §3)
_STEP = struct.Struct("=HBBI")  # struct sock_filter
_PROGRAM = struct.Struct("@HP")  # struct sock_fprog

Step = tuple[int, int, int, int]  # operation, steps to leap if true, if false, operand


def only_from(address: bytes) -> list[Step]:
    """Passes packets with this source, of 4 or 16 bytes."""
    return _source(address, ALL, 0)


def by_source(address: bytes) -> list[Step]:
    """For `attach_selector`: 0 for packets with this source, 1 for all others."""
    return _source(address, 0, 1)


def _source(address: bytes, same: int, other: int) -> list[Step]:
    steps: list[Step] = []
    for at in range(0, len(address), 4):
        steps += [
            (LOAD_WORD, 0, 0, IP_HEADER + SOURCE[len(address)] + at),
            (IF_EQUAL, 1, 0, int.from_bytes(address[at : at + 4], "big")),
            (RETURN, 0, 0, other),
        ]
    return [*steps, (RETURN, 0, 0, same)]


def by_interface(index: int) -> list[Step]:
    """Passes what comes by this interface; what a host sends to itself comes by `lo`."""
    return [(LOAD_WORD, 0, 0, INTERFACE), (IF_EQUAL, 0, 1, index), (RETURN, 0, 0, ALL), (RETURN, 0, 0, 0)]


def attach_filter(sock: socket.socket, program: list[Step]) -> bool:
    """Have the kernel run it on what comes for this socket. False: it does not."""
    return _attach(sock, SO_ATTACH_FILTER, program)


def attach_selector(sock: socket.socket, program: list[Step]) -> bool:
    """Have it choose, for each datagram, the socket of this one's port: 0 is the first that was bound."""
    return _attach(sock, SO_ATTACH_REUSEPORT_CBPF, program)


def _attach(sock: socket.socket, option: int, program: list[Step]) -> bool:
    steps = array.array("B", b"".join(_STEP.pack(*step) for step in program))
    address, _ = steps.buffer_info()
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, _PROGRAM.pack(len(program), address))
    except OSError:  # a kernel, or a sandbox, without it
        return False
    return True
