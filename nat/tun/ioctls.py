"""The requests of linux/if_tun.h that a TUN descriptor understands, whoever opened it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import NamedTuple

from nat.tun.device import Offload

__all__ = [
    "HEADER",
    "IFF_VNET_HDR",
    "Identity",
    "identify",
    "interface_mtu",
    "offload_at_most",
    "prepare",
    "set_header",
]

# linux/if_tun.h, in the encoding of asm-generic/ioctl.h (x86, ARM, RISC-V, s390)
TUNSETOFFLOAD = 0x400454D0
TUNGETIFF = 0x800454D2
TUNGETVNETHDRSZ = 0x800454D7
TUNSETVNETHDRSZ = 0x400454D8
SIOCGIFMTU = 0x8921  # linux/sockios.h

IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000

HEADER = 10  # bytes: struct virtio_net_hdr of linux/virtio_net.h
IFREQ = struct.Struct("16sH22x")  # struct ifreq: name, flags
UNKNOWN_MTU = 1500  # bytes: of a descriptor that is no interface of this namespace

# From most to least; the kernel knows a request as a whole or refuses it (USO needs Linux 6.2).
STEPS = (Offload.ALL, Offload.TCP, Offload.CSUM | Offload.TSO4 | Offload.TSO6, Offload.CSUM)


class Identity(NamedTuple):
    """What the kernel says of a descriptor."""

    name: str
    flags: int  # IFF_*, with IFF_NO_PI where that is not known


def identify(descriptor: int) -> Identity | None:
    """Which interface the descriptor is, or None where it is not a TUN device's."""
    request = bytearray(IFREQ.size)
    try:
        fcntl.ioctl(descriptor, TUNGETIFF, request)
    except OSError:
        return None
    padded, flags = IFREQ.unpack(request)
    name = padded.rstrip(b"\0").decode(errors="replace")
    # In that answer the bit of IFF_NO_PI means IFF_NOFILTER; sysfs has the device's own flags.
    with contextlib.suppress(OSError, ValueError):
        opened = int(Path("/sys/class/net", name, "tun_flags").read_text(), 16)
        return Identity(name, flags & ~IFF_NO_PI | opened & IFF_NO_PI)
    return Identity(name, flags | IFF_NO_PI)


def set_header(descriptor: int) -> None:
    """Make the header before each packet the short one, whatever it was. Raises OSError."""
    fcntl.ioctl(descriptor, TUNSETVNETHDRSZ, struct.pack("i", HEADER))


def offload_at_most(descriptor: int, wanted: Offload) -> Offload:
    """Turn on as much of `wanted` as the kernel takes; what it took."""
    tried = Offload.NONE
    for step in STEPS:
        tried = step & wanted
        if not tried & Offload.CSUM:
            break  # nothing works without it
        with contextlib.suppress(OSError):
            fcntl.ioctl(descriptor, TUNSETOFFLOAD, int(tried))
            return tried
    with contextlib.suppress(OSError):  # a kernel that knows no offload has none on
        fcntl.ioctl(descriptor, TUNSETOFFLOAD, 0)
    return Offload.NONE


def interface_mtu(name: str) -> int:
    """The MTU of an interface in bytes; 1500 where there is none of that name here."""
    request = bytearray(IFREQ.pack(name.encode(), 0))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
            fcntl.ioctl(any_socket, SIOCGIFMTU, request)
    except OSError:
        return UNKNOWN_MTU
    return int(struct.unpack_from("i", request, 16)[0])


def prepare(descriptor: int) -> None:
    """Neither block nor survive into child processes."""
    os.set_blocking(descriptor, False)
    os.set_inheritable(descriptor, False)
