"""Tells the packet loop that the host's own addresses changed, so that the rules need a `sync`."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

__all__ = ["AddressWatch"]

# linux/rtnetlink.h, linux/if_addr.h. Links are not watched: a radio reports on itself many times a minute,
# and an interface that loses its addresses says so here.
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV6_IFADDR = 0x100
RTM_NEWADDR, RTM_DELADDR = 20, 21
IFA_ADDRESS, IFA_LOCAL = 1, 2

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
IFADDR = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
BUFFER = 32768  # bytes


class AddressWatch:
    """A netlink socket that hears every address come and go. It never blocks."""

    def __init__(self, ignore: str = "") -> None:
        """Changes on the interface `ignore`, our own, do not count. Raises OSError."""
        self._ignore = ignore
        self._known: set[tuple[int, bytes]] = set()  # a router's advertisement repeats addresses: no news
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.setblocking(False)
        self._socket.bind((0, RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))

    def fileno(self) -> int:
        """Readable when something happened."""
        return self._socket.fileno()

    def drain(self) -> bool:
        """Read all there is; whether an address of another interface came or went."""
        changed = False
        while True:
            try:
                messages = self._socket.recv(BUFFER)
            except BlockingIOError:
                return changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._known.clear()  # some were lost, so anything may have happened
                changed = True
                continue
            changed = self._learn(messages) or changed

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def _learn(self, messages: bytes) -> bool:
        ignore = _index(self._ignore)
        changed = False
        for kind, index, address in _addresses(messages):
            if index == ignore:
                continue
            if kind == RTM_DELADDR:
                self._known.discard((index, address))
                changed = True
            elif (index, address) not in self._known:
                self._known.add((index, address))
                changed = True
        return changed


def _addresses(messages: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(RTM_NEWADDR or RTM_DELADDR, index, address) of each whole message."""
    at = 0
    while at + HEADER.size + IFADDR.size <= len(messages):
        length, kind, _, _, _ = HEADER.unpack_from(messages, at)
        if length < HEADER.size or at + length > len(messages):
            return
        if kind in (RTM_NEWADDR, RTM_DELADDR) and length >= HEADER.size + IFADDR.size:
            index = IFADDR.unpack_from(messages, at + HEADER.size)[4]
            attributes = dict(_attributes(messages[at + HEADER.size + IFADDR.size : at + length]))
            yield kind, index, attributes.get(IFA_LOCAL) or attributes.get(IFA_ADDRESS, b"")
        at += _aligned(length)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if length < ATTRIBUTE.size:
            return
        yield kind, data[at + ATTRIBUTE.size : at + length]
        at += _aligned(length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3  # NLMSG_ALIGN, RTA_ALIGN


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name) if name else 0
    except OSError:
        return 0
