"""A TUN device of our own: /dev/net/tun, opened by python-pytun."""

from __future__ import annotations

import errno
import os

from pytun import IFF_NO_PI, IFF_TUN, IFF_VNET_HDR, TunTapDevice

from nat.tun import ioctls
from nat.tun.device import Offload
from nat.tun.errors import NameTaken, NotPermitted, NoTunDriver, TunError

__all__ = ["LinuxTun", "open_linux"]

DRIVER = "/dev/net/tun"
NAME_MAX = 15  # bytes: IFNAMSIZ less its NUL
NEED_RIGHTS = "run it with sudo, or with CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN)"


class LinuxTun:
    """A `Tun` that this process opened."""

    def __init__(self, opened: TunTapDevice, offload: Offload) -> None:
        self._opened = opened  # closes its descriptor when it is collected
        self._descriptor: int = opened.fileno()
        self._closed = False
        self.name: str = opened.name
        self.header = ioctls.HEADER
        self.offload = offload

    @property
    def mtu(self) -> int:
        """The interface's MTU now, in bytes."""
        return ioctls.interface_mtu(self.name)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def set_offload(self, offload: Offload) -> Offload:
        """Ask for exactly these; what is in force after it."""
        self.offload = ioctls.offload_at_most(self._descriptor, offload)
        return self.offload

    def disable_offload(self) -> None:
        """From the next read on every packet is whole and summed."""
        self.set_offload(Offload.NONE)

    def close(self) -> None:
        """Close the descriptor; the interface and its routes vanish."""
        if not self._closed:
            self._closed = True
            self._opened.close()


def open_linux(name: str, wanted: Offload) -> LinuxTun:
    """Make the interface `name` (or take over a persistent one that nobody holds), still down.

    Raises `NoTunDriver`, `NotPermitted`, `NameTaken`, or plain `TunError`.
    """
    if (
        not 0 < len(name.encode()) <= NAME_MAX
        or set(name) & set("/:")
        or name.split() != [name]
        or name in (".", "..")
    ):
        raise TunError(
            f"interface name {name!r}",
            f"Linux takes 1 to {NAME_MAX} bytes, no blanks, no / and no :",
            "set tun.name",
        )
    try:
        opened = TunTapDevice(name=name, flags=IFF_TUN | IFF_NO_PI | IFF_VNET_HDR)
    except OSError as error:
        raise _explain(name, error) from error
    try:
        ioctls.prepare(opened.fileno())
        ioctls.set_header(opened.fileno())
    except OSError as error:
        opened.close()
        raise TunError(f"TUN device {name}", os.strerror(error.errno or 0)) from error
    return LinuxTun(opened, ioctls.offload_at_most(opened.fileno(), wanted))


def _explain(name: str, error: OSError) -> TunError:
    what = f"cannot open the TUN device {name}"
    code = error.errno
    if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        advice = "run `modprobe tun`; a container needs `--device /dev/net/tun` and CAP_NET_ADMIN"
        return NoTunDriver(what, f"the kernel offers no {DRIVER}", advice)
    if code in (errno.EPERM, errno.EACCES):
        why = "not permitted" if os.access(DRIVER, os.R_OK | os.W_OK) else f"no access to {DRIVER}"
        return NotPermitted(what, why, NEED_RIGHTS)
    if code == errno.EBUSY:
        advice = "stop it (`zignet status`, `ip link`), or set another tun.name"
        return NameTaken(what, "another program or another ZigNet holds it", advice)
    if code == errno.EINVAL:
        return NameTaken(
            what, f"there is an interface {name} that is no such TUN device", "set another tun.name"
        )
    return TunError(what, os.strerror(code) if code else str(error))
