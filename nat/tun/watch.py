"""Tells the packet loop that the rules need a `sync`: the host's addresses changed, or a rule is gone."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterator
from ipaddress import ip_network
from typing import NamedTuple

from nat.tun.rules import ALL, OWNER, needs_rule

__all__ = ["AddressWatch"]

# linux/rtnetlink.h. Links are not watched: a radio reports on itself many times a minute, and an interface
# that loses its addresses says so here.
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV4_RULE = 0x80
RTMGRP_IPV6_IFADDR = 0x100
RTMGRP_IPV6_RULE = 0x40000
GROUPS = RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_RULE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_RULE
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR, RTM_DELRULE = 20, 21, 22, 33
NLMSG_ERROR, NLMSG_DONE = 2, 3  # linux/netlink.h
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
IFA_ADDRESS, IFA_LOCAL = 1, 2  # linux/if_addr.h
FRA_PRIORITY, FRA_PROTOCOL = 6, 21  # linux/fib_rules.h

HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
IFADDR = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
RULE_SIZE = 12  # bytes: struct fib_rule_hdr
ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
BUFFER = 32768  # bytes


class Message(NamedTuple):
    """One netlink message, without its header."""

    kind: int
    body: bytes


class AddressWatch:
    """A netlink socket that hears every address come and go, and every rule go. It never blocks."""

    def __init__(self, ignore: str = "") -> None:
        """Addresses on the interface `ignore`, our own, do not count. Raises OSError."""
        self._ignore = ignore
        self._known: set[tuple[int, bytes]] = set()  # a router's advertisement repeats addresses: no news
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, GROUPS))
        self._learn_present()
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Readable when something happened."""
        return self._socket.fileno()

    def drain(self) -> bool:
        """Read all there is; whether an address of another interface came or went, or a rule of ours went.

        Rules that a `sync` itself removed count too: the next `sync` finds nothing to do.
        """
        changed = False
        while True:
            try:
                data = self._socket.recv(BUFFER)
            except BlockingIOError:
                return changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._known.clear()  # some messages were lost, so anything may have happened
                changed = True
                continue
            for message in _messages(data):
                changed = self._learn(message) or changed

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()

    def _learn_present(self) -> None:
        """Ask for all addresses, so that a later message about one of them is no news."""
        body = IFADDR.pack(0, 0, 0, 0, 0)
        flags = NLM_F_REQUEST | NLM_F_DUMP
        self._socket.send(HEADER.pack(HEADER.size + len(body), RTM_GETADDR, flags, 1, 0) + body)
        while True:
            for message in _messages(self._socket.recv(BUFFER)):
                if message.kind in (NLMSG_ERROR, NLMSG_DONE):
                    return
                self._learn(message)

    def _learn(self, message: Message) -> bool:
        if message.kind == RTM_DELRULE:
            return _is_ours(message.body)
        if message.kind not in (RTM_NEWADDR, RTM_DELADDR) or len(message.body) < IFADDR.size:
            return False
        index = IFADDR.unpack_from(message.body)[4]
        if index == _index(self._ignore):
            return False
        attributes = dict(_attributes(message.body[IFADDR.size :]))
        value = attributes.get(IFA_LOCAL) or attributes.get(IFA_ADDRESS, b"")
        if len(value) not in (4, 16) or not needs_rule(ip_network(value)):
            return False
        address = (index, value)
        if message.kind == RTM_DELADDR:
            self._known.discard(address)
            return True
        if address in self._known:
            return False
        self._known.add(address)
        return True


def _is_ours(rule: bytes) -> bool:
    attributes = dict(_attributes(rule[RULE_SIZE:]))
    priority = int.from_bytes(attributes.get(FRA_PRIORITY, b""), sys.byteorder)
    return priority in ALL and attributes.get(FRA_PROTOCOL) == bytes([OWNER])


def _messages(data: bytes) -> Iterator[Message]:
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, _, _, _ = HEADER.unpack_from(data, at)
        if length < HEADER.size or at + length > len(data):
            return
        yield Message(kind, data[at + HEADER.size : at + length])
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
