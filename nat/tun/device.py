"""The one interface of all TUN devices, and the function that opens one."""

from __future__ import annotations

from enum import IntFlag
from typing import Protocol

from nat.tun.errors import TunError

__all__ = ["Offload", "Tun", "open_tun", "wanted_offload"]


class Offload(IntFlag):
    """What the kernel may leave undone in a packet (TUN_F_* of linux/if_tun.h)."""

    NONE = 0
    CSUM = 0x01  # the checksum covers the pseudo-header only
    TSO4 = 0x02  # TCP over IPv4, many segments in one packet
    TSO6 = 0x04
    TSO_ECN = 0x08  # ... whose first segment carries CWR
    USO4 = 0x20  # UDP over IPv4, many datagrams of one size in one packet (Linux 6.2)
    USO6 = 0x40  # the kernel takes USO4 and USO6 together or not at all
    TCP = CSUM | TSO4 | TSO6 | TSO_ECN
    ALL = CSUM | TSO4 | TSO6 | TSO_ECN | USO4 | USO6


class Tun(Protocol):
    """A device that gives and takes IP packets: one `os.read` or `os.write` of `fileno()` is one packet.

    The descriptor does not block and does not survive into child processes. Reads of a device that was
    deleted raise OSError EBADFD; writes while it is down raise EIO.
    """

    @property
    def name(self) -> str:
        """The interface's name; "" where it is no interface of this system."""
        ...

    @property
    def mtu(self) -> int:
        """The interface's MTU now, in bytes."""
        ...

    @property
    def header(self) -> int:
        """Length of the virtio_net_hdr (virtio 1.2 §5.1.6.1) before each packet, in bytes: 10 or 0."""
        ...

    @property
    def offload(self) -> Offload:
        """What is in force now."""
        ...

    def fileno(self) -> int:
        """The descriptor."""
        ...

    def set_offload(self, offload: Offload) -> Offload:
        """Ask for exactly these; returns what is in force after it (nothing, if the kernel refuses)."""
        ...

    def disable_offload(self) -> None:
        """From the next read on every packet is whole and summed; the header stays. For when writes fail."""
        ...

    def close(self) -> None:
        """Close the descriptor; unless it is persistent, the interface and its routes vanish. Idempotent."""
        ...


def wanted_offload(offload: str) -> Offload:
    """The most that the setting `tun.offload` allows: `auto` all, `tcp` no UDP, `off` nothing."""
    if offload == "auto":
        return Offload.ALL
    if offload == "tcp":
        return Offload.TCP
    if offload == "off":
        return Offload.NONE
    raise TunError("tun.offload", f"{offload!r} is unknown", "use auto, tcp or off")


def open_tun(device: str, name: str, offload: str) -> Tun:
    """Open the device that the configuration names.

    `device`: `auto` opens the system's own (Linux: /dev/net/tun), `fd:N` takes over an open descriptor
    (Android VpnService, a parent process); `name` is then ignored. `offload`: see `wanted_offload`; what the
    kernel lacks is left out. The device is down, without addresses and routes (`nat.tun.configure`).

    Raises `TunError`.
    """
    wanted = wanted_offload(offload)
    if device.startswith("fd:"):
        from nat.tun.given import open_given

        return open_given(device, wanted)
    if device in ("", "auto", "linux"):
        from nat.tun.linux import open_linux

        return open_linux(name, wanted)
    raise TunError("tun.device", f"{device!r} is unknown", "use auto, or fd:N for an open descriptor")
