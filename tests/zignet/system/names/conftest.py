"""A host of its own: a network namespace whose /etc and /run are private copies, so that the real code runs there."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from zignet.lab.namespace import Namespace
from zignet.system.names import Applied, Mode, Restored, Server, Wanted, integrate, restore

ROOT = Path(__file__).parents[4]
PLAIN = (
    b"# by the installer\nsearch corp.example\nnameserver 192.0.2.53\n"
    b"nameserver 192.0.2.54\noptions ndots:2 edns0\n"
)

MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096  # linux/mount.h
_libc = ctypes.CDLL(None, use_errno=True)

# Integrates or restores, and is killed before the file or program operation whose number is given: an audit hook sees
# them all, so nothing in the code under test helps with it.
CHILD = """
import json, os, signal, sys
from ipaddress import ip_address
from pathlib import Path
from zignet.system.names import integrate, restore, Mode, Server, Wanted
import subprocess
what, state_dir, mode, last, index = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chown", "os.chmod", "os.truncate", "os.symlink")
seen = []
def hook(event, values):
    if event == "open":
        if not isinstance(values[2], int) or not values[2] & (os.O_WRONLY | os.O_RDWR) or values[2] & os.O_TMPFILE:
            return
        if isinstance(values[0], int) or not str(values[0]).startswith(("/etc/", str(state_dir))):
            return
    elif event not in CHANGES and event != "subprocess.Popen":
        return
    seen.append(f"{event} {values[0]}")
    if len(seen) == last:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
if what == "restore":
    restore(state_dir)
else:
    servers = (Server(ip_address("127.0.0.1"), 53530), Server(ip_address("100.64.0.1")))
    integrate(Wanted("zig0", index, servers, ("video.example", "zignet"), Mode(mode)), state_dir)
print(json.dumps(seen))
"""


def mount(source: object, target: object, flags: int = MS_BIND, kind: bytes | None = None) -> None:
    result = _libc.mount(os.fsencode(str(source)), os.fsencode(str(target)), kind, flags, None)
    if result:
        raise OSError(ctypes.get_errno(), f"mount {target}")


@dataclass
class Host:
    """The private host. `etc` and `run` are its directories as seen from outside."""

    namespace: Namespace
    etc: Path
    run: Path
    state_dir: Path
    link: int = 0  # number of zig0

    @property
    def resolv_conf(self) -> Path:
        return self.etc / "resolv.conf"

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self.namespace.call(function, *args)

    def wanted(self, mode: Mode = Mode.AUTO, **more: Any) -> Wanted:
        values: dict[str, Any] = {
            "link": "zig0",
            "index": self.link,
            "servers": (Server(ip_address("127.0.0.1"), 53530), Server(ip_address("100.64.0.1"))),
            "domains": ("video.example", "zignet"),
            "mode": mode,
        }
        return Wanted(**{**values, **more})

    def integrate(self, mode: Mode = Mode.AUTO, **more: Any) -> Applied:
        return self.call(integrate, self.wanted(mode, **more), self.state_dir)

    def restore(self) -> Restored:
        return self.call(restore, self.state_dir)

    def killed(self, what: str, mode: Mode, at: int) -> list[str] | None:
        """Run in a process that is killed before its n-th operation; None if it was, else what it did."""
        command = [sys.executable, "-c", CHILD, what, str(self.state_dir), mode, str(at), str(self.link)]
        done = self.namespace.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        if done.returncode == -signal.SIGKILL:
            return None
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def operations(self, what: str, mode: Mode = Mode.AUTO, every: int = 1) -> Iterator[int]:
        """Run again and again, killed before the first operation, the second, …; yields each time it was killed."""
        at = 1
        while self.killed(what, mode, at) is None:
            yield at
            at += every

    def snapshot(self) -> dict[str, tuple[object, ...]]:
        """Everything below /etc: kinds, modes, owners, content. Mounts on files are seen as inside."""
        return self.call(_snapshot)

    def program(self, name: str, text: str) -> Path:
        """Put a stand-in program into the host's PATH."""
        path = self.run / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path


def _snapshot() -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for directory, names, files in os.walk("/etc"):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = Path(path).read_bytes()
            found[path] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    etc, run = tmp_path / "etc", tmp_path / "run"
    shutil.copytree("/etc", etc, symlinks=True, ignore_dangling_symlinks=True)
    run.mkdir()
    (etc / "resolv.conf").unlink(missing_ok=True)
    (etc / "resolv.conf").write_bytes(PLAIN)
    (etc / "resolv.conf").chmod(0o640)
    os.chown(etc / "resolv.conf", 4, 7)
    (run / "bin").mkdir()
    monkeypatch.setenv("PATH", f"/run/bin:{os.environ['PATH']}")
    with Namespace("names") as namespace:
        namespace.call(mount, etc, "/etc")
        namespace.call(mount, run, "/run")
        yield Host(namespace, etc, run, tmp_path / "state")


@pytest.fixture
def tun(host: Host) -> Iterator[Host]:
    """The host with a TUN called zig0, up, with the node's address."""
    from nat.tun import open_tun

    device = host.call(open_tun, "auto", "zig0", "off")
    host.namespace.address("zig0", "100.64.0.1/10")
    host.link = host.namespace.netlink(lambda ip: ip.link_lookup(ifname="zig0")[0])
    yield host
    device.close()
