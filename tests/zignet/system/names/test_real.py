"""Real resolvers: dnsmasq with our file, systemd-resolved on a bus of its own, and programs that ask them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from zignet.system.names import Mode

from .conftest import Host

pytestmark = pytest.mark.root

PATIENCE_S = 60.0
UNPACKED = Path(sys.prefix) / "debian"  # see scripts/test
BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/><allow receive_type="method_call"/>
    <allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/>
  </policy>
</busconfig>
"""


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def dig(host: Host, name: str, *options: str) -> str:
    return host.namespace.run(["dig", "+short", "+time=5", "+tries=2", *options, name]).stdout.strip()


def name_server(host: Host, address: str, port: int, *lines: str) -> None:
    """One that knows only this."""
    command = ["dnsmasq", "-C", "/dev/null", "-k", "-h", "--no-resolv", "--bind-interfaces", f"--port={port}"]
    host.namespace.popen([*command, f"--listen-address={address}", "--pid-file=", *lines])
    eventually(
        lambda: "status:" in host.namespace.run(["dig", f"@{address}", "-p", str(port), "x.test"]).stdout
    )


@pytest.fixture
def servers(tun: Host) -> Host:
    """The node's server at both its places, and the one that this host has had."""
    for address, port in (("127.0.0.1", 53530), ("100.64.0.1", 53)):
        name_server(tun, address, port, "--address=/zignet/100.64.0.9", "--address=/video.example/198.19.0.7")
    name_server(tun, "127.0.0.9", 53, "--address=/example/198.18.0.80")
    return tun


def test_resolv_conf(servers: Host) -> None:
    servers.resolv_conf.write_text("nameserver 127.0.0.9\n")
    servers.resolv_conf.chmod(0o644)
    getent = ["getent", "ahostsv4", "friend.zignet"]
    assert servers.namespace.run(getent).returncode == 2
    assert servers.integrate().mechanism == Mode.RESOLVCONF
    assert servers.namespace.run(getent).stdout.startswith("100.64.0.9")
    assert dig(servers, "www.video.example") == "198.19.0.7"
    servers.restore()
    assert dig(servers, "www.video.example") == "198.18.0.80"
    assert servers.namespace.run(getent).returncode == 2


class TestDnsmasq:
    @pytest.fixture
    def dnsmasq(self, servers: Host) -> Host:
        """A dnsmasq as distributions run it; `service` starts it again."""
        (servers.etc / "dnsmasq.d").mkdir(exist_ok=True)
        text = "conf-dir=/etc/dnsmasq.d/,*.conf\nno-resolv\nserver=127.0.0.9\nlisten-address=127.0.0.1\n"
        text += "bind-interfaces\nstop-dns-rebind\nrebind-localhost-ok\nuser=root\n"
        (servers.etc / "dnsmasq.conf").write_text(text)
        servers.resolv_conf.write_text("nameserver 127.0.0.1\n")
        start = "dnsmasq -x /run/dnsmasq.pid && echo started >>/run/starts"
        stop = "p=$(cat /run/dnsmasq.pid); kill $p; while kill -0 $p 2>/dev/null; do sleep 0.05; done"
        servers.program("service", f'[ "$*" = "dnsmasq restart" ] || exit 9; {stop}; {start}')
        servers.namespace.run(["sh", "-c", start])
        eventually(lambda: dig(servers, "www.video.example", "@127.0.0.1") == "198.18.0.80")
        return servers

    def test_only_our_domains_come_here(self, dnsmasq: Host) -> None:
        before = dnsmasq.snapshot()
        applied = dnsmasq.integrate()
        assert applied.notes == ()
        assert applied.mechanism == Mode.DNSMASQ
        assert applied.changes == ("/etc/dnsmasq.d/zignet.conf: video.example zignet to 127.0.0.1:53530",)
        eventually(lambda: dig(dnsmasq, "friend.zignet") == "100.64.0.9")
        assert dig(dnsmasq, "www.video.example") == "198.19.0.7"
        assert dig(dnsmasq, "www.myvideo.example") == "198.18.0.80"
        assert dnsmasq.restore().left == ()
        assert dnsmasq.snapshot() == before
        eventually(lambda: dig(dnsmasq, "www.video.example") == "198.18.0.80")
        assert dig(dnsmasq, "friend.zignet") == ""
        assert (dnsmasq.run / "starts").read_text().count("started") == 3

    def test_killed_between_any_two_steps(self, dnsmasq: Host) -> None:
        before = dnsmasq.snapshot()
        for at in (1, 2, 3):
            assert dnsmasq.killed("integrate", Mode.AUTO, at) is None
            assert dnsmasq.restore().left == ()
            assert dnsmasq.snapshot() == before
        eventually(lambda: dig(dnsmasq, "www.video.example") == "198.18.0.80")

    def test_one_that_does_not_start_again(self, dnsmasq: Host) -> None:
        """The file is taken away, and resolv.conf leads to us instead."""
        dnsmasq.program("service", "echo no; exit 1")
        applied = dnsmasq.integrate()
        assert applied.mechanism == Mode.RESOLVCONF
        assert applied.upstreams == ("127.0.0.1",)
        assert "dnsmasq was tried first: `service dnsmasq restart` failed with 1: no" in applied.notes[0]
        assert not (dnsmasq.etc / "dnsmasq.d/zignet.conf").exists()
        assert dig(dnsmasq, "friend.zignet") == "100.64.0.9"


class TestResolved:
    @pytest.fixture
    def resolved(self, servers: Host) -> Host:
        """systemd-resolved without systemd, its programs from a package that is not installed."""
        root = UNPACKED if (UNPACKED / "lib/systemd/systemd-resolved").exists() else Path("/")
        daemon, client = root / "lib/systemd/systemd-resolved", root / "usr/bin/resolvectl"
        if not daemon.exists():
            pytest.skip(f"there is no systemd-resolved in {UNPACKED} or on this system: scripts/test gets it")
        libraries = ":".join(
            str(path.parent) for path in root.glob("usr/lib/*/systemd/libsystemd-shared-*.so")
        )
        link = f"export LD_LIBRARY_PATH={shlex.quote(libraries)}; exec"
        servers.program("resolvectl", f'echo "$*" >>/run/calls; {link} {shlex.quote(str(client))} "$@"')
        servers.program("start", f"{link} {shlex.quote(str(daemon))}")
        with (servers.etc / "passwd").open("a") as users, (servers.etc / "group").open("a") as groups:
            users.write("systemd-resolve:x:993:993::/:/usr/sbin/nologin\n")
            groups.write("systemd-resolve:x:993:\n")
        (servers.run / "dbus").mkdir()
        (servers.run / "systemd").mkdir()
        servers.run.chmod(0o755)
        (servers.run / "bus.conf").write_text(BUS)
        servers.namespace.popen(["dbus-daemon", "--config-file=/run/bus.conf", "--nofork"])
        eventually((servers.run / "dbus/system_bus_socket").exists)
        (servers.etc / "systemd").mkdir(exist_ok=True)
        (servers.etc / "systemd/resolved.conf").write_text(
            "[Resolve]\nDNS=127.0.0.9\nFallbackDNS=\nLLMNR=no\n"
        )
        servers.namespace.popen(["/run/bin/start"])
        eventually((servers.run / "systemd/resolve/stub-resolv.conf").exists)
        servers.resolv_conf.unlink()
        servers.resolv_conf.symlink_to("../run/systemd/resolve/stub-resolv.conf")
        eventually(lambda: dig(servers, "www.video.example") == "198.18.0.80")
        return servers

    def test_only_our_domains_come_here(self, resolved: Host) -> None:
        before = resolved.snapshot()
        applied = resolved.integrate()
        assert applied.notes == ()
        assert applied.mechanism == Mode.RESOLVED
        assert "stub-resolv.conf" in applied.why
        assert resolved.snapshot() == before  # nothing on disk
        assert dig(resolved, "friend.zignet") == "100.64.0.9"
        assert dig(resolved, "www.video.example") == "198.19.0.7"
        assert dig(resolved, "www.myvideo.example") == "198.18.0.80"
        upstreams = (resolved.run / applied.upstream_file.removeprefix("/run/")).read_text()
        assert "nameserver 127.0.0.9" in upstreams
        calls = (resolved.run / "calls").read_text()
        assert resolved.restore().left == ()
        assert dig(resolved, "friend.zignet") == ""
        assert dig(resolved, "www.video.example") == "198.18.0.80"
        assert (resolved.run / "calls").read_text() == f"{calls}revert zig0\nflush-caches\n"

    def test_all_names(self, resolved: Host) -> None:
        assert resolved.integrate(domains=(".",)).mechanism == Mode.RESOLVED
        assert dig(resolved, "www.video.example") == "198.19.0.7"
        assert dig(resolved, "www.other.example") == ""  # the server here knows nothing of it
        resolved.restore()
        assert dig(resolved, "www.other.example") == "198.18.0.80"

    def test_a_server_at_another_port(self, resolved: Host) -> None:
        assert resolved.integrate(servers=resolved.wanted().servers[:1]).mechanism == Mode.RESOLVED
        assert dig(resolved, "friend.zignet") == "100.64.0.9"

    def test_killed_between_any_two_steps(self, resolved: Host) -> None:
        steps = resolved.killed("integrate", Mode.AUTO, 0)
        assert steps is not None
        resolved.restore()
        for at in (1, 2, len(steps) // 2, len(steps)):
            assert resolved.killed("integrate", Mode.AUTO, at) is None
            assert resolved.restore().left == ()
            assert dig(resolved, "www.video.example") == "198.18.0.80"
            assert dig(resolved, "friend.zignet") == ""

    def test_a_link_that_is_gone(self, resolved: Host) -> None:
        """It took its names with it, and another link of that name would not be touched."""
        resolved.integrate()
        resolved.link += 1000
        (resolved.run / "calls").unlink()
        path = resolved.state_dir / "names.journal"
        path.write_text(
            path.read_text().replace(f'"index": {resolved.link - 1000}', f'"index": {resolved.link}')
        )
        assert resolved.restore().left == ()
        assert not (resolved.run / "calls").exists()

    def test_a_daemon_that_is_gone(self, resolved: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        resolved.integrate()
        children = resolved.namespace.children
        child = next(each for each in children if str(each.args[0]) == "/run/bin/start")
        child.kill()
        child.wait()
        assert resolved.restore().left == ()
        assert os.listdir(resolved.state_dir) == []


def test_the_programs_are_here() -> None:
    for program in ("dnsmasq", "dbus-daemon", "dig", "getent"):
        assert shutil.which(program), f"{program} is missing: scripts/test installs it"
