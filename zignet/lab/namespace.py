"""A network namespace with a thread of its own.

A thread, not a process, enters the namespace, once, and stays there: whatever it opens or forks belongs to
the namespace, and the rest of the program never leaves its own. So sockets can be made inside and used
outside, and a child needs no launcher. The thread also has a private mount table, with the lab's own
/etc/hosts and a /sys that shows the namespace.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import os
import re
import resource
import signal
import socket as sockets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from pyroute2 import IPRoute, netns

__all__ = ["Namespace", "join", "more_descriptors", "start_module", "sweep"]

P = ParamSpec("P")
T = TypeVar("T")

PREFIX = "zn"
RUN_DIR = Path("/run/netns")

CLONE_NEWNS = 0x00020000  # linux/sched.h
CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_SLAVE = 4096, 16384, 1 << 19  # linux/mount.h
MNT_DETACH = 2

NAME = re.compile(rf"{PREFIX}-(\d+)-\d+-.+")
DESCRIPTORS = 200_000
STOP_S = 3.0  # what a child gets between SIGTERM and SIGKILL

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()
_alive: list[Namespace] = []


class Namespace:
    """A named network namespace, its loopback up, that vanishes with everything in it on `close`.

    `role` is for people: it ends the name, `zn-<pid>-<n>-<role>`. Raises PermissionError without privileges.
    """

    def __init__(self, role: str, hosts: Path | None = None) -> None:
        self.name = f"{PREFIX}-{os.getpid()}-{next(_numbers)}-{role}"
        self.role = role
        self.owner = os.getpid()
        self.children: list[subprocess.Popen[Any]] = []
        self._thread: threading.Thread | None = None
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self.name)
        _alive.append(self)
        try:
            self._executor.submit(self._enter, hosts).result()
        except BaseException:
            self.close()
            raise
        self.inode = os.stat(RUN_DIR / self.name).st_ino

    def _enter(self, hosts: Path | None) -> None:
        """Make the namespace and enter it. In the namespace's thread."""
        _check("unshare", _libc.unshare(CLONE_NEWNET))
        netns.attach(self.name, "thread-self")
        _check("unshare", _libc.unshare(CLONE_NEWNS))
        _check("mount /", _libc.mount(b"none", b"/", None, MS_REC | MS_SLAVE, None))
        if hosts is not None:
            _check("mount hosts", _libc.mount(os.fsencode(hosts), b"/etc/hosts", None, MS_BIND, None))
        _libc.umount2(b"/sys", MNT_DETACH)
        _libc.mount(
            self.name.encode(), b"/sys", b"sysfs", 0, None
        )  # without it /sys shows the outer interfaces
        self._thread = threading.current_thread()
        self.sysctl("net.ipv6.conf.default.accept_dad", 0)
        self.sysctl("net.ipv6.conf.all.accept_dad", 0)
        with IPRoute() as ip:
            ip.link("set", index=1, state="up")

    # --- work inside

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's result, computed inside the namespace. One call at a time."""
        if threading.current_thread() is self._thread:
            return function(*args, **kwargs)
        return self._executor.submit(function, *args, **kwargs).result()

    def popen(self, argv: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """A child inside; stopped on `close` at the latest."""
        command = [str(part) for part in argv]
        child: subprocess.Popen[Any] = self.call(lambda: subprocess.Popen(command, **options))
        self.children.append(child)
        return child

    def run(
        self,
        argv: Sequence[str | Path],
        timeout_s: float = 30.0,
        input: str | None = None,  # noqa: A002
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """A program inside, to its end; its output is captured. Raises subprocess.TimeoutExpired."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        options.setdefault("stdin", subprocess.DEVNULL if input is None else subprocess.PIPE)
        child = self.popen(argv, **options)
        try:
            out, err = child.communicate(input, timeout=timeout_s)
        except BaseException:
            child.kill()
            child.wait()
            raise
        finally:
            self.children.remove(child)
        return subprocess.CompletedProcess([str(part) for part in argv], child.returncode, out, err)

    def socket(
        self, family: int = sockets.AF_INET, kind: int = sockets.SOCK_STREAM, protocol: int = 0
    ) -> sockets.socket:
        """A socket of the namespace, for use anywhere."""
        return self.call(sockets.socket, family, kind, protocol)

    def connect(self, host: str, port: int, timeout_s: float = 5.0) -> sockets.socket:
        """A TCP connection from inside to a numeric address. Raises OSError as `connect` does."""
        made = self.socket(sockets.AF_INET6 if ":" in host else sockets.AF_INET)
        made.settimeout(timeout_s)
        try:
            made.connect((host, port))
        except BaseException:
            made.close()
            raise
        return made

    # --- setting up

    def netlink(self, work: Callable[[IPRoute], T]) -> T:
        """Work with a netlink socket of the namespace."""

        def inside() -> T:
            with IPRoute() as ip:
                return work(ip)

        return self.call(inside)

    def address(self, interface: str, *prefixes: str) -> None:
        """Give an interface addresses, written 192.0.2.1/24, and bring it up."""

        def work(ip: IPRoute) -> None:
            index = ip.link_lookup(ifname=interface)[0]
            for prefix in prefixes:
                address, _, length = prefix.partition("/")
                ip.addr("add", index=index, address=address, prefixlen=int(length))
            ip.link("set", index=index, state="up")

        self.netlink(work)

    def link(self, interface: str, **what: Any) -> None:
        """Change an interface: `mtu`, `state`, `master` (an index)."""
        self.netlink(lambda ip: ip.link("set", index=ip.link_lookup(ifname=interface)[0], **what))

    def route(self, destination: str, gateway: str | None = None, interface: str | None = None) -> None:
        """Add a route: `default6` is IPv6's default."""

        def work(ip: IPRoute) -> None:
            options: dict[str, Any] = {"dst": "::/0" if destination == "default6" else destination}
            if gateway is not None:
                options["gateway"] = gateway
            if interface is not None:
                options["oif"] = ip.link_lookup(ifname=interface)[0]
            ip.route("add", **options)

        self.netlink(work)

    def sysctl(self, key: str, value: int | str) -> None:
        """Set a kernel variable of this namespace, `net.…` only."""
        if not key.startswith("net."):
            raise ValueError(f"{key} is not a namespace's own")
        path = Path("/proc/sys", *key.split("."))
        self.call(path.write_text, f"{value}\n")

    def snapshot(self) -> dict[str, list[str]]:
        """What an engine might change, as sorted text: links, addresses, routes, rules."""

        def work(ip: IPRoute) -> dict[str, list[str]]:
            names = {link["index"]: link.get("ifname") for link in ip.get_links()}
            return {
                "links": sorted(str(name) for name in names.values()),
                "addresses": sorted(f"{a.get('address')}@{names.get(a['index'])}" for a in ip.get_addr()),
                "routes": sorted(
                    f"{r['family']} {r.get('dst')}/{r['dst_len']} via {r.get('gateway')} "
                    f"dev {names.get(r.get('oif'))} table {r.get('table')}"
                    for r in ip.get_routes()
                ),
                "rules": sorted(
                    f"{family} {rule.get('priority')} table {rule.get('table')}"
                    for family in (sockets.AF_INET, sockets.AF_INET6)
                    for rule in ip.get_rules(family=family)
                ),
            }

        return self.netlink(work)

    # --- the end

    def close(self) -> None:
        """Stop what runs inside and remove the namespace. Harmless when repeated."""
        if self.owner != os.getpid() or self not in _alive:  # a fork of the owner must not clean up after it
            return
        _alive.remove(self)
        for child in self.children:
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + STOP_S
        for child in self.children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        _remove(self.name)
        self._executor.shutdown()

    def __enter__(self) -> Namespace:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def join(left: Namespace, left_name: str, right: Namespace, right_name: str) -> None:
    """Lay a cable: a veth pair with one end in each namespace."""
    peer = {"ifname": right_name, "net_ns_fd": right.name}
    left.netlink(lambda ip: ip.link("add", ifname=left_name, kind="veth", peer=peer))


def start_module(namespace: Namespace, module: str, *arguments: str) -> subprocess.Popen[Any]:
    """Run a module that prints `ready`. Raises RuntimeError when it does not."""
    child = namespace.popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True)
    if child.stdout is None or child.stdout.readline() != "ready\n":
        raise RuntimeError(f"{module} did not start")
    return child


def more_descriptors() -> int:
    """Allow many open files in one process, as far as we may; children inherit it. Gives the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(most, DESCRIPTORS)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    except (ValueError, PermissionError):  # no CAP_SYS_RESOURCE
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        return most
    return wanted


def sweep() -> list[str]:
    """Remove what runs that died have left, and tell its names. Living runs' namespaces are not touched."""
    swept = []
    for name in netns.listnetns():
        match = NAME.fullmatch(name)
        if match and not Path("/proc", match[1]).exists():
            _remove(name)
            swept.append(name)
    return swept


def _remove(name: str) -> None:
    """End the processes of a namespace (they can only be the lab's) and take away its name."""
    try:
        inode = os.stat(RUN_DIR / name).st_ino
    except FileNotFoundError:
        return
    for pid in _processes(inode):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    netns.remove(name)


def _processes(inode: int) -> list[int]:
    """The processes whose network namespace has this inode; never our own."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if os.stat(entry / "ns/net").st_ino == inode:
                    found.append(int(entry.name))
            except OSError:
                continue  # it has just ended
    return found


def _check(what: str, result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


@atexit.register
def _close_all() -> None:
    for namespace in list(_alive):
        namespace.close()
