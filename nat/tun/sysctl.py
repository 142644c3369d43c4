"""The kernel's settings of one interface, under /proc/sys/net. Ours is the only one ever written."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from nat.tun.errors import SettingRefused

__all__ = ["ipv6_enabled", "ipv6_exists", "restore", "settle"]

ROOT = Path("/proc/sys/net")

# Only we write to the device, so a source address says nothing there: no reverse-path check of its own. (The
# kernel takes the greater of this and conf/all, and the rules satisfy a strict one.)
IPV4 = {"rp_filter": "0"}

# Nobody on the device answers neighbour discovery: no link-local address, no router solicitation. (Duplicate
# address detection is off on a TUN anyway.)
IPV6 = {
    "disable_ipv6": "0",  # restored last
    "addr_gen_mode": "1",  # IN6_ADDR_GEN_MODE_NONE
    "accept_ra": "0",
    "autoconf": "0",
    "router_solicitations": "0",
}


def ipv6_exists() -> bool:
    """IPv6 is in the kernel."""
    return Path("/proc/net/if_inet6").exists()


def ipv6_enabled() -> bool:
    """IPv6 is in the kernel, and not switched off for this namespace or for new interfaces."""
    return ipv6_exists() and all(
        _read(ROOT / "ipv6/conf" / which / "disable_ipv6") == "0" for which in ("all", "default")
    )


def settle(name: str, *, route_localnet: bool, ipv6: bool) -> list[str]:
    """Write the settings of the interface `name` that differ; returns sentences on those that could not be.

    Raises `SettingRefused` where the engine cannot work without one.
    """
    lost = [each for setting, value in IPV4.items() if (each := _try(_path(4, name, setting), value))]
    if route_localnet:
        _need(_path(4, name, "route_localnet"))
    for setting, value in (IPV6 if ipv6 else {"disable_ipv6": "1"}).items():
        path = _path(6, name, setting)
        if path.exists() and (refused := _try(path, value)):
            lost.append(refused)
    return lost


def restore(name: str) -> None:
    """Give the interface the values that a new one gets; for a device that outlives us. Never raises."""
    if _path(6, name, "disable_ipv6").exists():
        _try(_path(6, name, "disable_ipv6"), "1")  # or a new `addr_gen_mode` makes an address at once
    for version, settings in ((4, (*IPV4, "route_localnet")), (6, tuple(reversed(IPV6)))):
        for setting in settings:
            value = _read(_path(version, "default", setting))
            if value and _path(version, name, setting).exists():
                _try(_path(version, name, setting), value)


def _path(version: int, name: str, setting: str) -> Path:
    return ROOT / f"ipv{version}" / "conf" / name / setting


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _try(path: Path, value: str) -> str:
    """ "" when the setting has the value now, else a sentence."""
    if _read(path) == value:
        return ""
    try:
        path.write_text(value)
    except OSError as error:
        return f"{path} stays as it is: {os.strerror(error.errno or 0)}"
    return ""


def _need(path: Path) -> None:
    if _read(path) == "1":
        return
    try:
        path.write_text("1")
    except OSError as error:
        raise SettingRefused(f"cannot write 1 to {path}", *_explain(error)) from error


def _explain(error: OSError) -> tuple[str, str]:
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        why = "/proc/sys is read-only here" if error.errno == errno.EROFS else "not permitted"
        advice = (
            "run as root; start a container with `--sysctl net.ipv4.conf.default.route_localnet=1`, "
            "or set `tun.listener: tun`"
        )
        return why, advice
    return os.strerror(error.errno or 0), ""
