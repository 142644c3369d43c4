"""Both processes of a real node at their start, and admission through the second: `python -m perf.control`, as root.

memory     resident, with the Admin API and all kinds of policies configured
admission  from a stranger's initiation to the response, when the policies have to be asked, and when they were
restart    from kill -9 of the control process until it is ready again
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from typing import Any

from tests.lab.stranger import Stranger
from zignet.lab.hosts import PORT, Host, Hosts

CALLS = 200
KILLS = 5
PATIENCE_S = 60.0


def ready(host: Host, but: int = 0) -> dict[str, Any]:
    """The status, once a control process runs whose pid is another than `but`."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        status: dict[str, Any] = dict(host.status())
        control = status["control"]
        if control["state"] == "running" and control["pid"] != but:
            return status
        time.sleep(0.005)
    raise TimeoutError(f"the control process does not run: {control['last_error']}")


def answered_s(host: Host, target: Host, again: Stranger | None = None) -> tuple[float, Stranger]:
    """How long a stranger waits for a response; who it is."""
    stranger = again or Stranger(host, target)
    message = stranger.initiation()
    began = time.perf_counter()
    stranger.end.send(message)
    assert stranger.datagram(2, 10.0) is not None
    return time.perf_counter() - began, stranger


def main() -> None:
    """Print a table."""
    with Hosts("a", "b") as net:
        a, b = net
        for directory in (net.directory, a.directory):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o755)
        members, script = a.directory / "members.txt", a.directory / "verify.sh"
        members.write_text("")
        script.write_text("#!/bin/sh\nexit 1\n")
        script.chmod(0o755)
        of_file = {"type": "file", "path": str(members)}
        everything = [
            of_file,
            {"type": "script", "command": [str(script)]},
            {
                "type": "database",
                "url": f"sqlite:///{a.directory}/members.db",
                "query": "select 1 from members where key = :key",
            },
            {
                "type": "solana",
                "rpc_url": "http://127.0.0.1:8899",
                "check": "sol_balance",
                "min_balance": "0.5",
            },
        ]
        usual = {"peers": [], "listen": [f"udp://[::]:{PORT}"], "proxy": {"mode": "off"}, "admin": {}}
        kinds = {
            "no policy": [],
            "a file": [of_file],
            "file, script, database": everything[:3],
            "and Solana": everything,
        }
        for name, policies in kinds.items():
            net.start("a", {**usual, "inbound": {"policies": policies}})
            try:
                ready(a)
                time.sleep(3.0)
                status = ready(a)
            except TimeoutError as error:
                print(f"resident, {name}: {error}")
            else:
                packet, control = status["memory"] / (1 << 20), status["control"]["memory"] / (1 << 20)
                print(f"resident, {name}: packet process {packet:.1f} MiB, control process {control:.1f} MiB")
            assert a.node is not None
            a.node.stop()

        net.start("a", {**usual, "inbound": {"policies": [of_file], "default_action": "allow"}})
        ready(a)
        first, again = [], []
        for _ in range(CALLS):
            seconds, stranger = answered_s(b, a)
            first.append(seconds)
            time.sleep(0.03)
            again.append(answered_s(b, a, stranger)[0])
            stranger.close()
        for what, times in (("asked", first), ("known", again)):
            print(f"initiation to response, {what}: median {statistics.median(times) * 1e3:.2f} ms")
        restarts = []
        for _ in range(KILLS):
            pid = ready(a)["control"]["pid"]
            began = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            ready(a, but=pid)
            restarts.append(time.perf_counter() - began)
        print(f"killed to ready: {min(restarts):.1f} to {max(restarts):.1f} s")
        assert a.node is not None
        a.node.stop()


if __name__ == "__main__":
    main()
