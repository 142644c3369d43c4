"""This host's TCP connections to fake addresses, as its kernel knows them (sock_diag(7)).

The packet path keeps nothing of the flows that a peer's exit carries. When the exit has gone, those that only wait for
data would never hear of it; here is who they are.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

__all__ = ["Stream", "streams"]

NETLINK_SOCK_DIAG = 4  # linux/netlink.h
SOCK_DIAG_BY_FAMILY = 20  # linux/sock_diag.h
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
INET_DIAG_REQ_BYTECODE, INET_DIAG_INFO = 1, 2  # linux/inet_diag.h
INET_DIAG_BC_D_COND = 8
BOTH_STAND = (
    1 << 1 | 1 << 4 | 1 << 5 | 1 << 8
)  # ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT (net/tcp_states.h)
LAST_DATA_RECV = 52  # tcpi_last_data_recv in struct tcp_info, linux/tcp.h; milliseconds

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2: family, protocol, extensions, states
ATTRIBUTE = struct.Struct("=HH")
CONDITION = struct.Struct("=BBHBBxxi")  # inet_diag_bc_op, inet_diag_hostcond
MESSAGE = 72  # bytes of struct inet_diag_msg
PORTS = struct.Struct("!HH")
BUFFER = 1 << 16  # bytes

MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 §2.5.5.2


class Stream(NamedTuple):
    """One connection; the addresses have 4 bytes, or 16."""

    source: bytes
    source_port: int
    target: bytes
    target_port: int
    idle_s: float  # since it last received data


def streams(*pools: IPv4Network | IPv6Network) -> list[Stream]:
    """The connections that stand to any address of these pools. None of them where the kernel does not tell."""
    found: list[Stream] = []
    with (
        suppress(OSError),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as sock,
    ):
        for pool in pools:
            found += _dumped(sock, socket.AF_INET6, pool)
            if pool.version == 4:  # and above, sockets of IPv6 that speak IPv4
                found += _dumped(sock, socket.AF_INET, pool)
    return found


def _dumped(sock: socket.socket, family: int, pool: IPv4Network | IPv6Network) -> Iterator[Stream]:
    address = pool.network_address.packed
    size = CONDITION.size + len(address)
    kind = int(socket.AF_INET if len(address) == 4 else socket.AF_INET6)
    # One condition: if it holds, on to the end; if not, beyond it, which is no.
    condition = CONDITION.pack(INET_DIAG_BC_D_COND, size, size + 4, kind, pool.prefixlen, -1) + address
    body = REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), BOTH_STAND)
    body += ATTRIBUTE.pack(ATTRIBUTE.size + size, INET_DIAG_REQ_BYTECODE) + condition
    flags = NLM_F_REQUEST | NLM_F_DUMP
    sock.send(HEADER.pack(HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, flags, 1, 0) + body)
    while True:
        data, at = sock.recv(BUFFER), 0
        while at + HEADER.size <= len(data):
            length, what, _, _, _ = HEADER.unpack_from(data, at)
            if what in (NLMSG_ERROR, NLMSG_DONE) or length < HEADER.size:
                return
            if length >= HEADER.size + MESSAGE:
                yield _stream(data[at + HEADER.size : at + length])
            at += (length + 3) & ~3


def _stream(message: bytes) -> Stream:
    source_port, target_port = PORTS.unpack_from(message, 4)
    source, target = message[8:24], message[24:40]
    if message[0] == socket.AF_INET:
        source, target = source[:4], target[:4]
    elif target.startswith(MAPPED):
        source, target = source[12:], target[12:]
    return Stream(source, source_port, target, target_port, _idle_s(message))


def _idle_s(message: bytes) -> float:
    at = MESSAGE
    while at + ATTRIBUTE.size <= len(message):
        length, kind = ATTRIBUTE.unpack_from(message, at)
        value = at + ATTRIBUTE.size + LAST_DATA_RECV
        if kind == INET_DIAG_INFO and value + 4 <= at + length:
            (milliseconds,) = struct.unpack_from("=I", message, value)
            return float(milliseconds) / 1000
        if length < ATTRIBUTE.size:
            break
        at += (length + 3) & ~3
    return 0.0
