"""A device that somebody else opened: Android's VpnService, a parent process, a test's socket pair."""

from __future__ import annotations

import os
import socket
import stat

from nat.tun import ioctls
from nat.tun.device import Offload
from nat.tun.errors import BadDescriptor

__all__ = ["GivenTun", "open_given"]

ADVICE = "the program that starts ZigNet must open it with IFF_TUN | IFF_NO_PI and leave it open"
MISC_MAJOR = 10  # /dev/net/tun is 10:200 (Linux devices.txt)


class GivenTun:
    """A `Tun` on a descriptor that is ours from now on."""

    def __init__(self, descriptor: int, name: str, header: int) -> None:
        self._descriptor = descriptor
        self._closed = False
        self.name = name
        self.header = header
        self.offload = Offload.NONE

    @property
    def mtu(self) -> int:
        """The interface's MTU now, in bytes; 1500 where it is no interface of ours."""
        return ioctls.interface_mtu(self.name) if self.name else ioctls.UNKNOWN_MTU

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def set_offload(self, offload: Offload) -> Offload:
        """Ask for exactly these; nothing is possible without a header."""
        if self.header:
            self.offload = ioctls.offload_at_most(self._descriptor, offload)
        return self.offload

    def disable_offload(self) -> None:
        """From the next read on every packet is whole and summed."""
        self.set_offload(Offload.NONE)

    def close(self) -> None:
        """Close the descriptor; the interface lives on if another process holds it."""
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)


def open_given(device: str, wanted: Offload) -> GivenTun:
    """Take over the descriptor of `fd:N`.

    A Linux TUN keeps the header that its opener chose; anything else that carries packets whole (a datagram
    or sequenced-packet socket, another system's TUN) has none. Raises `BadDescriptor`.
    """
    what = f"tun.device {device}"
    number = device.removeprefix("fd:")
    if not (number.isascii() and number.isdigit()):
        raise BadDescriptor(what, "this is no number", "write fd:3, for example")
    descriptor = int(number)
    try:
        os.fstat(descriptor)
    except (OSError, OverflowError) as error:
        raise BadDescriptor(what, "this descriptor is not open", ADVICE) from error
    identity = ioctls.identify(descriptor)
    if identity is None:
        if not _carries_packets(descriptor):
            raise BadDescriptor(
                what, "this is neither a TUN device nor a socket that keeps packets apart", ADVICE
            )
        ioctls.prepare(descriptor)
        return GivenTun(descriptor, "", 0)
    if not identity.flags & ioctls.IFF_TUN:
        raise BadDescriptor(
            what, f"{identity.name} is a TAP device; packets have Ethernet headers there", ADVICE
        )
    if not identity.flags & ioctls.IFF_NO_PI:
        raise BadDescriptor(what, f"{identity.name} was opened without IFF_NO_PI", ADVICE)
    ioctls.prepare(descriptor)
    if not identity.flags & ioctls.IFF_VNET_HDR:
        return GivenTun(descriptor, identity.name, 0)
    try:
        ioctls.set_header(descriptor)
    except OSError as error:
        raise BadDescriptor(what, f"{identity.name}: {os.strerror(error.errno or 0)}", ADVICE) from error
    tun = GivenTun(descriptor, identity.name, ioctls.HEADER)
    tun.set_offload(wanted)
    return tun


def _carries_packets(descriptor: int) -> bool:
    status = os.fstat(descriptor)
    if stat.S_ISCHR(status.st_mode):  # a TUN that a security policy lets nobody ask about (Android)
        return os.major(status.st_rdev) == MISC_MAJOR
    if not stat.S_ISSOCK(status.st_mode):
        return False
    with socket.socket(fileno=os.dup(descriptor)) as twin:
        return twin.type in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)
