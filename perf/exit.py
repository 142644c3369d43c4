"""TCP through a peer's exit against the tunnel itself, between the same two nodes: `python -m perf.exit`, as root.

    near ── sealed ── far ── web      tunnel: near to far's address; exit: near to a name, which far resolves and dials;
                                      packets: near to an address, whole, which far's kernel forwards

One stream at a time, the ways in turns: iperf3, and an HTTPS download, nginx to curl (Debian: iperf3, nginx-light). The
download "bare" does without ZigNet: what TLS itself costs on this machine, at both ends. The CPU time is that of all
processes, clients and servers too: on a machine with few cores it is what bounds the rate.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from zignet.lab.certificates import Authority
from zignet.lab.hosts import Host, Hosts
from zignet.lab.namespace import start_module

NAME = "www.video.example"
FAR = "203.0.113.5"  # of web, by whole packets
SIZE = 1 << 30  # bytes of the file
PATIENCE_S = 20.0
NGINX = """\
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr;
events {{}}
http {{
  access_log off; sendfile on; tcp_nopush on;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;
  server {{ listen 443 ssl; listen [::]:443 ssl; root {root}; }}
}}
"""


class Lab(Hosts):
    """Three machines, servers, two nodes; `fake` is the address of the name."""

    def __init__(self) -> None:
        super().__init__("near", "far", "web")

    def build(self) -> None:
        super().build()
        near, far, web = self
        plan = self.directory / "names.json"
        plan.write_text(json.dumps({"records": {NAME: {"A": [web.address]}}, "addresses": [web.address]}))
        start_module(web.namespace, "zignet.lab.nameserver", str(plan))
        dns: dict[str, Any] = {"upstreams": [web.address]}
        routes = [f"{NAME} -> far", f"IP-CIDR,{FAR}/32,far,packet", "MATCH,direct"]
        self.start("near", self.config("near", dns=dns, routes=routes))
        self.start("far", self.config("far", dns=dns, exit={"allow": ["near"], "packets": True}))
        web.namespace.address("eth0", f"{FAR}/32")
        for host, device in ((near, "zig0"), (far, "eth0")):
            host.namespace.run(["ip", "route", "add", FAR, "dev", device])
        asked = near.namespace.run(["dig", "@127.0.0.1", "-p", "53530", "+short", NAME, "A"])
        self.fake = asked.stdout.strip()
        assert near.reaches(near.inner(far))

    def serve(self) -> Path:
        """An iperf3 and an nginx on far and web. The file of the authority."""
        authority = Authority(self.directory)
        certificate, key = authority.issue(NAME)
        root = self.directory / "root"
        root.mkdir()
        with (root / "file").open("wb") as file:
            while file.tell() < SIZE:
                file.write(os.urandom(1 << 20) * 64)
        for parent in (self.directory, root):
            parent.chmod(0o755)  # nginx's worker is not root
        for host in (self["far"], self["web"]):
            host.namespace.popen(["iperf3", "-s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            folder = host.directory / "nginx"
            folder.mkdir(parents=True)
            config = folder / "nginx.conf"
            config.write_text(NGINX.format(folder=folder, certificate=certificate, key=key, root=root))
            host.namespace.popen(["nginx", "-c", config], stderr=subprocess.DEVNULL)
        return authority.file


def cpu_s() -> float:
    """CPU time of all that this process has started, so far."""
    gone = resource.getrusage(resource.RUSAGE_CHILDREN)
    alive = (process.cpu_times() for process in psutil.Process().children(recursive=True))
    return sum(times.user + times.system for times in alive) + gone.ru_utime + gone.ru_stime


def iperf(host: Host, address: str, seconds: int, *options: str) -> tuple[float, float]:
    """Gbit/s, GB."""
    command = ["iperf3", "-c", address, "-t", str(seconds), "-J", *options]
    deadline = time.monotonic() + PATIENCE_S
    while "error" in (said := json.loads(host.namespace.run(command, timeout_s=seconds + 30.0).stdout)):
        if time.monotonic() > deadline:
            raise RuntimeError(said["error"])
        time.sleep(0.2)  # the server has not seen yet that the last test is over
    received = said["end"]["sum_received"]
    return float(received["bits_per_second"]) / 1e9, float(received["bytes"]) / 1e9


def download(host: Host, address: str, authority: Path) -> tuple[float, float]:
    """Gbit/s of the file, handshake included, and GB."""
    command = ["curl", "-sS", "--fail", "-o", "/dev/null", "-w", "%{speed_download}", "--cacert", authority]
    where = ["--retry", "5", "--retry-connrefused", "--resolve", f"{NAME}:443:{address}"]
    done = host.namespace.run([*command, *where, f"https://{NAME}/file"], timeout_s=120.0)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return float(done.stdout) * 8 / 1e9, SIZE / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    given = parser.parse_args()
    if missing := [name for name in ("iperf3", "nginx", "curl") if shutil.which(name) is None]:
        parser.error(f"not installed: {', '.join(missing)} (Debian: iperf3, nginx-light, curl)")
    with Lab() as net:
        authority = net.serve()
        near, far, web = net
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}

        def measure(load: str, way: str, run: Callable[[], tuple[float, float]]) -> None:
            before = cpu_s()
            rate, size = run()
            found.setdefault((load, way), []).append((rate, (cpu_s() - before) / size))

        ways = {"tunnel": near.inner(far), "exit": net.fake, "packets": FAR}
        for _ in range(given.rounds):
            for way, address in (ways | {"bare": web.address}).items():
                measure("HTTPS", way, partial(download, near, address, authority))
            for way, address in ways.items():
                measure("down", way, partial(iperf, near, address, given.seconds, "-R"))
                measure("up", way, partial(iperf, near, address, given.seconds))
    medians = {what: statistics.median(rate for rate, _ in figures) for what, figures in found.items()}
    costs = {what: statistics.median(cost for _, cost in figures) for what, figures in found.items()}
    for load in ("down", "up", "HTTPS"):
        tunnel, by_exit, whole = (medians[load, way] for way in ways)
        print(f"{load}: tunnel {tunnel:.2f}, exit {by_exit:.2f} Gbit/s: {by_exit / tunnel:.2f} x", end="")
        print(f", packets {whole:.2f}: {whole / tunnel:.2f} x", end="")
        print(f"; CPU s/GB {', '.join(f'{costs[load, way]:.2f}' for way in ways)}")
    ratio = medians["HTTPS", "exit"] / medians["down", "tunnel"]
    print(f"HTTPS by the exit against iperf3 in the tunnel: {ratio:.2f} x")
    print(f"HTTPS without ZigNet: {medians['HTTPS', 'bare']:.2f} Gbit/s, {costs['HTTPS', 'bare']:.2f} s/GB")


if __name__ == "__main__":
    main()
