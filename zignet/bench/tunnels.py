"""The tunnels that `zignet bench --tunnel` compares. Each has one program at each of the two ends.

All get the shortest configuration that joins two machines which know each other's keys.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from zignet.bench.engine import Engine, EngineFailure, zignet_version
from zignet.bench.world import TunnelWorld
from zignet.control import ControlError
from zignet.lab.hosts import Host

__all__ = ["TUNNELS", "Tunnel"]

MTU = 1420  # WireGuard's, and so that of the others that have none of their own


class Tunnel(Engine[TunnelWorld]):
    """Two ends."""

    inner = ("", "")  # the near end as the far one sees it, the far one as the near one sees it

    @property
    def targets(self) -> Sequence[str]:
        """The far end."""
        return [self.inner[1]]

    @property
    def seen_as(self) -> str:
        """The near end."""
        return self.inner[0]

    def ends(self) -> Sequence[tuple[Host, Host, str, str]]:
        """Of each end: its machine, the other machine, its inner address, the other inner address."""
        near, far = self.world.near, self.world.far
        return [(near, far, *self.inner), (far, near, *self.inner[::-1])]


class Bare(Tunnel):
    """The link itself."""

    name = "bare"

    def launch(self) -> None:
        """Nothing runs."""
        self.inner = (self.world.near.address, self.world.far.address)


class ZigNet(Tunnel):
    """`zignet up` at both ends."""

    name = "zignet"
    cipher: ClassVar[str] = "aes"

    @classmethod
    def version(cls) -> str:
        """Of the package, and whether it is compiled."""
        return zignet_version()

    def launch(self) -> None:
        """Both ends, and the addresses that they have given each other."""
        changes: dict[str, Any] = {"cipher": self.cipher}
        if self.mtu:
            changes["tun"] = {"mtu": self.mtu, "peer_mtu": self.mtu}
        near, far = self.world.near, self.world.far
        for host in (near, far):
            node = host.prepare(self.world.config(host.name, **changes))
            self.run(host.namespace, node.command("up"))
        self.inner = (
            self.wait_for(partial(known, far, near), "peer"),
            self.wait_for(partial(known, near, far), "peer"),
        )


def known(host: Host, other: Host) -> str:
    """The address that a host has for another one; empty as long as it has none."""
    try:
        return host.inner(other)
    except (ControlError, LookupError):
        return ""


class ZigNetChaCha(ZigNet):
    """The same with the other cipher, that of machines without AES instructions."""

    name = "zignet-chacha"
    cipher = "chacha20"


class WireGuardGo(Tunnel):
    """wireguard-go, as Debian packages it."""

    name = "wireguard-go"
    programs = {"wireguard-go": "wireguard-go", "wg": "wireguard-tools"}  # noqa: RUF012
    inner = ("198.51.100.1", "198.51.100.2")

    PORT = 51820
    SOCKETS = Path("/var/run/wireguard")  # of all namespaces, so the interfaces have names of their own
    made_directory = False

    @classmethod
    def version(cls) -> str:
        """As the program says it."""
        return said(["wireguard-go", "--version"], r"v([\w.]+)")

    def launch(self) -> None:
        """Keys, both programs, `wg setconf`, addresses."""
        self.made_directory = not self.SOCKETS.exists()
        keys = {host.name: checked(["wg", "genkey"]) for host in (self.world.near, self.world.far)}
        for host, other, inner, other_inner in self.ends():
            interface = self.interface(host)
            self.run(
                host.namespace,
                ["wireguard-go", "-f", interface],
                env=os.environ | {"LOG_LEVEL": "error"},
            )
            self.wait_for((self.SOCKETS / f"{interface}.sock").exists, "control socket")
            config = self.directory / f"{interface}.conf"
            config.touch(mode=0o600)
            config.write_text(
                f"[Interface]\nPrivateKey = {keys[host.name]}\nListenPort = {self.PORT}\n"
                f"[Peer]\nPublicKey = {checked(['wg', 'pubkey'], keys[other.name])}\n"
                f"Endpoint = {other.address}:{self.PORT}\nAllowedIPs = {other_inner}/32\n"
            )
            done = host.namespace.run(["wg", "setconf", interface, config])
            if done.returncode != 0:
                raise EngineFailure(f"wg setconf: {done.stderr.strip()}")
            host.namespace.address(interface, f"{inner}/24")
            host.namespace.link(interface, mtu=self.mtu or MTU)

    @staticmethod
    def interface(host: Host) -> str:
        """The name of an end's interface: nobody else's."""
        return f"zn{os.getpid()}{host.name}"

    def stop(self) -> None:
        """And remove the control sockets, if a program had no time to."""
        super().stop()
        for host in (self.world.near, self.world.far):
            (self.SOCKETS / f"{self.interface(host)}.sock").unlink(missing_ok=True)
        if self.made_directory and self.SOCKETS.exists() and not any(self.SOCKETS.iterdir()):
            self.SOCKETS.rmdir()


class Nebula(Tunnel):
    """Nebula, with a certificate authority made on the spot."""

    name = "nebula"
    programs = {"nebula": "nebula", "nebula-cert": "nebula"}  # noqa: RUF012
    inner = ("203.0.113.1", "203.0.113.2")

    PORT = 4242

    @classmethod
    def version(cls) -> str:
        """As the program says it."""
        return said(["nebula", "-version"], r"([\d.]+)")

    def launch(self) -> None:
        """Certificates, both programs."""
        authority = self.pair("ca")
        checked(["nebula-cert", "ca", "-name", "lab", "-out-crt", authority[0], "-out-key", authority[1]])
        for host, other, inner, other_inner in self.ends():
            certificate, key = self.pair(host.name)
            signed_by = ["-ca-crt", authority[0], "-ca-key", authority[1]]
            named = ["-name", host.name, "-ip", f"{inner}/24"]
            checked(["nebula-cert", "sign", *signed_by, *named, "-out-crt", certificate, "-out-key", key])
            config = {
                "pki": {"ca": authority[0], "cert": certificate, "key": key},
                "static_host_map": {other_inner: [f"{other.address}:{self.PORT}"]},
                "lighthouse": {"am_lighthouse": False, "hosts": []},
                "listen": {"host": "0.0.0.0", "port": self.PORT},  # noqa: S104
                "cipher": "aes",
                "tun": {"dev": "nebula0", "mtu": self.mtu or MTU},
                "logging": {"level": "warning"},
                "firewall": {
                    way: [{"port": "any", "proto": "any", "host": "any"}] for way in ("outbound", "inbound")
                },
            }
            path = self.directory / f"{host.name}.yaml"
            path.write_text(json.dumps(config))  # JSON is YAML
            self.run(host.namespace, ["nebula", "-config", path])

    def pair(self, name: str) -> tuple[str, str]:
        """The files of a certificate and its key."""
        return str(self.directory / f"{name}.crt"), str(self.directory / f"{name}.key")


def checked(command: Sequence[str], text: str = "") -> str:
    """What a tool prints. Raises EngineFailure with what it said instead."""
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise EngineFailure(f"{command[0]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def said(command: Sequence[str], pattern: str) -> str:
    """What a pattern finds in what a program says of its version."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout)
    return found[1] if found else ""


TUNNELS: dict[str, type[Tunnel]] = {
    tunnel.name: tunnel for tunnel in (Bare, ZigNet, ZigNetChaCha, WireGuardGo, Nebula)
}
