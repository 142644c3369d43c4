"""Rights, limits and the kernel itself: what can be read without touching anything."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import resource
from pathlib import Path

from nat.tun.sysctl import ipv6_enabled, ipv6_exists
from zignet.config import Config
from zignet.control.place import LOCK_NAME
from zignet.system.check import Check, fail, ok, skip, warn

__all__ = [
    "backlog",
    "capability",
    "descriptors",
    "driver",
    "instance",
    "ipv6",
    "kernel",
    "may_configure",
    "settings",
]

CAP_NET_ADMIN, CAP_SYS_RESOURCE = 12, 24  # linux/capability.h
DRIVER = "/dev/net/tun"
OLDEST = (4, 17)  # rules carry the mark of who made them (FRA_PROTOCOL)
USO_SINCE = (6, 2)
MANY_CONNECTIONS = 1024  # half-open ones that a listener should be able to hold
PER_FLOW = 2  # descriptors
SPARE = 64  # descriptors

NEED_RIGHTS = "run as root, or give CAP_NET_ADMIN (systemd: AmbientCapabilities=CAP_NET_ADMIN)"


def may_configure() -> bool:
    """This process has CAP_NET_ADMIN."""
    return _has(CAP_NET_ADMIN)


def capability() -> Check:
    """The right to make interfaces, addresses, routes and rules."""
    if may_configure():
        return ok("permission", "CAP_NET_ADMIN" + (", as root" if os.geteuid() == 0 else ""))
    return fail("permission", "CAP_NET_ADMIN is missing", NEED_RIGHTS)


def driver() -> Check:
    """The TUN driver is there and opens."""
    try:
        os.close(os.open(DRIVER, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return fail("TUN driver", f"{DRIVER} may not be opened", NEED_RIGHTS)
        advice = "run `modprobe tun`; a container needs `--device /dev/net/tun` and CAP_NET_ADMIN"
        return fail("TUN driver", f"{DRIVER}: {os.strerror(error.errno or 0)}", advice)
    return ok("TUN driver", f"{DRIVER} opens")


def kernel() -> Check:
    """Old kernels lack features."""
    release = platform.release()
    numbers = release.split("-")[0].split(".")[:2]
    version = tuple(int(part) for part in numbers if part.isdigit())
    if version < OLDEST:
        return fail("kernel", f"Linux {release}", "4.17 is the oldest that keeps our policy rules apart")
    if version < USO_SINCE:
        return warn("kernel", f"Linux {release} has no UDP super-packets", "6.2 has; UDP is slower without")
    return ok("kernel", f"Linux {release}")


def settings(config: Config) -> Check:
    """Whether route_localnet can be set for a new interface."""
    name, path = "route_localnet", Path("/proc/sys/net/ipv4/conf/default/route_localnet")
    if config.tun.listener != "loopback":
        return ok(name, "not needed with `tun.listener: tun`")
    try:
        inherited = path.read_text().strip() == "1"
    except OSError as error:
        return fail(name, f"{path}: {os.strerror(error.errno or 0)}", "set `tun.listener: tun`")
    if inherited:
        return ok(name, "new interfaces have it")
    if os.access(path, os.W_OK):
        return ok(name, "can be set")
    if not may_configure():
        return skip(name, "cannot be seen without root", NEED_RIGHTS)
    advice = "start the container with `--sysctl net.ipv4.conf.default.route_localnet=1`, or set `tun.listener: tun`"
    return fail(name, "/proc/sys is read-only", advice)


def ipv6() -> Check:
    """IPv6 can be carried."""
    if ipv6_enabled():
        return ok("IPv6", "is carried too")
    how = "switched off (net.ipv6.conf.*.disable_ipv6)" if ipv6_exists() else "not in this kernel"
    return ok("IPv6", f"{how}: IPv4 only")


def descriptors(config: Config) -> Check:
    """Enough file descriptors for the flows of `limits`."""
    flows = config.limits.flows + config.limits.udp
    wanted = PER_FLOW * flows + SPARE
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    ceiling = int(Path("/proc/sys/fs/nr_open").read_text())
    most = ceiling if hard == resource.RLIM_INFINITY or _has(CAP_SYS_RESOURCE) else hard
    if most >= wanted:
        return ok("file descriptors", f"{most:,} for {flows:,} flows")
    detail = f"{most:,} allow {(most - SPARE) // PER_FLOW:,} flows at once, the limits say {flows:,}"
    return warn("file descriptors", detail, f"raise it: `ulimit -Hn {wanted}`, systemd: LimitNOFILE={wanted}")


def backlog() -> Check:
    """How many connections may wait for the listener."""
    most = int(Path("/proc/sys/net/core/somaxconn").read_text())
    if most >= MANY_CONNECTIONS:
        return ok("listen backlog", f"net.core.somaxconn = {most}")
    detail = f"net.core.somaxconn = {most}: connections that start together may wait a second"
    return warn("listen backlog", detail, "sysctl -w net.core.somaxconn=4096")


def instance(config: Config) -> Check:
    """Whether a node holds the state directory."""
    name, path = "other instance", config.state_dir / LOCK_NAME
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ok(name, "none")
    except OSError as error:
        return skip(name, f"{path}: {os.strerror(error.errno or 0)}", NEED_RIGHTS)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        who = os.pread(lock, 16, 0).decode("ascii", "replace").strip()
        detail = f"process {who or '?'} runs with the state directory {config.state_dir}"
        return warn(name, detail, "stop it before starting another, or give that one a state_dir of its own")
    finally:
        os.close(lock)
    return ok(name, "none")


def _has(capability: int) -> bool:
    """Whether a capability is in force, by its number (capabilities(7))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> capability & 1)
    return False
