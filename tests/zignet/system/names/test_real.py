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

from nat.tun import open_tun
from zignet.system.names import Mode

from .conftest import MS_RDONLY, MS_REMOUNT, Host, mount

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]  # many processes

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


def unpacked(host: Host, path: str) -> str:
    """A program of a package that is not installed, or of this system: put into the host's PATH."""
    root = UNPACKED if (UNPACKED / path).exists() else Path("/")
    if not (root / path).exists():
        pytest.skip(f"there is no {path} in {UNPACKED} or on this system: scripts/test gets it")
    patterns = ("lib/*/", "usr/lib/*/", "usr/lib/*/systemd/")
    libraries = ":".join(str(each) for pattern in patterns for each in UNPACKED.glob(pattern))
    name = Path(path).name
    host.program(
        name, f'export LD_LIBRARY_PATH={shlex.quote(libraries)}; exec {shlex.quote(str(root / path))} "$@"'
    )
    return f"/run/bin/{name}"


def bus(host: Host) -> None:
    """A system bus that lets everybody do everything."""
    (host.run / "dbus").mkdir()
    (host.run / "bus.conf").write_text(BUS)
    host.namespace.popen(["dbus-daemon", "--config-file=/run/bus.conf", "--nofork"])
    eventually((host.run / "dbus/system_bus_socket").exists)


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
    logged = ("--log-queries", "--user=root", "--log-facility=/run/upstream")
    name_server(tun, "127.0.0.9", 53, "--address=/example/198.18.0.80", *logged)
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

    def test_killed(self, dnsmasq: Host) -> None:
        before = dnsmasq.snapshot()
        for _ in dnsmasq.operations("integrate", every=4):
            assert dnsmasq.restore().left == ()
            assert dnsmasq.snapshot() == before
        dnsmasq.restore()
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
        daemon = unpacked(servers, "lib/systemd/systemd-resolved")
        client = unpacked(servers, "usr/bin/resolvectl")
        os.rename(servers.run / "bin/resolvectl", servers.run / "bin/real")
        servers.program(
            "resolvectl", f'echo "$*" >>/run/calls; exec {client.replace("resolvectl", "real")} "$@"'
        )
        with (servers.etc / "passwd").open("a") as users, (servers.etc / "group").open("a") as groups:
            users.write("systemd-resolve:x:993:993::/:/usr/sbin/nologin\n")
            groups.write("systemd-resolve:x:993:\n")
        (servers.run / "systemd").mkdir()
        servers.run.chmod(0o755)
        bus(servers)
        (servers.etc / "systemd").mkdir(exist_ok=True)
        (servers.etc / "systemd/resolved.conf").write_text(
            "[Resolve]\nDNS=127.0.0.9\nFallbackDNS=\nLLMNR=no\n"
        )
        servers.namespace.popen([daemon])
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

    def test_killed(self, resolved: Host) -> None:
        for _ in resolved.operations("integrate", every=2):
            assert resolved.restore().left == ()
            assert dig(resolved, "www.video.example") == "198.18.0.80"
            assert dig(resolved, "friend.zignet") == ""
        assert dig(resolved, "friend.zignet") == "100.64.0.9"

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

    def test_another_link_of_that_name(self, resolved: Host) -> None:
        """Ours went with the node, as after `kill -9`; what came since is somebody else's and keeps what it has."""
        resolved.integrate()
        resolved.namespace.netlink(lambda ip: ip.link("del", index=resolved.link))
        device = resolved.call(open_tun, "auto", "zig0", "off")
        try:
            told = ["/run/bin/resolvectl", "dns", "zig0"]
            eventually(lambda: resolved.namespace.run([*told, "192.0.2.54"]).returncode == 0)
            assert resolved.restore().left == ()
            assert "192.0.2.54" in resolved.namespace.run(told).stdout
            assert dig(resolved, "friend.zignet") == ""
        finally:
            device.close()

    def test_a_daemon_that_starts_again(self, resolved: Host) -> None:
        """It keeps what it was told about links, so names go on coming here."""
        resolved.integrate()
        children = resolved.namespace.children
        child = next(each for each in children if str(each.args[0]) == "/run/bin/systemd-resolved")
        child.terminate()
        child.wait(PATIENCE_S)
        resolved.namespace.popen(["/run/bin/systemd-resolved"])
        eventually(lambda: dig(resolved, "friend.zignet") == "100.64.0.9")
        assert resolved.restore().left == ()
        assert dig(resolved, "friend.zignet") == ""

    def test_the_next_start_after_a_kill(self, resolved: Host) -> None:
        """What an earlier run led here and this one does not want goes back to where it went before."""
        assert resolved.killed("integrate", Mode.AUTO, 0)  # and nobody restores
        applied = resolved.integrate(domains=("zignet",))
        assert (applied.mechanism, applied.notes) == (Mode.RESOLVED, ())
        assert dig(resolved, "friend.zignet") == "100.64.0.9"
        assert dig(resolved, "www.video.example") == "198.18.0.80"

    def test_our_names_are_asked_for_nowhere_else(self, resolved: Host) -> None:
        resolved.integrate()
        log = resolved.run / "upstream"
        assert dig(resolved, "www.other.example") == "198.18.0.80"
        assert dig(resolved, "friend.zignet") == "100.64.0.9"
        dig(resolved, "nobody.zignet", "TXT")
        dig(resolved, "www.video.example", "AAAA")
        asked = log.read_text()
        assert " www.other.example from " in asked
        assert "zignet from " not in asked
        assert "[AAAA] www.video.example from " not in asked

    def test_a_daemon_that_is_gone(self, resolved: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        resolved.integrate()
        children = resolved.namespace.children
        child = next(each for each in children if str(each.args[0]) == "/run/bin/systemd-resolved")
        child.kill()
        child.wait()
        assert resolved.restore().left == ()
        assert os.listdir(resolved.state_dir) == []


CONNECTION = """\
[connection]
id=cable
uuid=11111111-2222-3333-4444-555555555555
type=ethernet
interface-name=eth7
[ipv4]
method=manual
address1=192.0.2.5/24
dns=192.0.2.53;
dns-search=corp.example;
[ipv6]
method=disabled
"""


class TestNetworkManager:
    def start(self, host: Host, more: str = "") -> None:
        """A real one, that manages one cable."""
        daemon = unpacked(host, "usr/sbin/NetworkManager")
        unpacked(host, "usr/bin/nmcli")
        host.namespace.netlink(lambda ip: ip.link("add", ifname="eth7", kind="veth", peer="eth8"))
        host.namespace.link("eth8", state="up")
        host.call(
            mount, "sysfs", "/sys", MS_REMOUNT | MS_RDONLY
        )  # as in a container: it does not wait for udev
        settings = host.etc / "NetworkManager"
        (settings / "system-connections").mkdir(parents=True)
        text = f"[main]\nplugins=keyfile\nauth-polkit=false\n{more}[keyfile]\nunmanaged-devices=interface-name:eth8\n"
        (settings / "NetworkManager.conf").write_text(text)
        (settings / "system-connections/cable.nmconnection").write_text(CONNECTION)
        (settings / "system-connections/cable.nmconnection").chmod(0o600)
        host.resolv_conf.write_text("nameserver 203.0.113.53\n")
        bus(host)
        host.namespace.popen([daemon, "--no-daemon"])
        eventually(
            lambda: b"Generated by NetworkManager\nsearch corp.example" in host.resolv_conf.read_bytes()
        )

    def test_it_leaves_resolv_conf_to_us(self, servers: Host) -> None:
        self.start(servers)
        applied = servers.integrate()
        assert applied.notes == ()
        assert applied.mechanism == Mode.NETWORKMANAGER
        assert dig(servers, "friend.zignet") == "100.64.0.9"
        for command in ("modify cable ipv4.dns 192.0.2.54", "up cable"):
            done = servers.namespace.run(["nmcli", "connection", *command.split()], timeout_s=60)
            assert done.returncode == 0, done.stderr
        upstreams = servers.run / applied.upstream_file.removeprefix("/run/")
        eventually(lambda: "nameserver 192.0.2.54" in upstreams.read_text())
        assert dig(servers, "friend.zignet") == "100.64.0.9"
        assert servers.restore().left == ()
        now = "# Generated by NetworkManager\nsearch corp.example\nnameserver 192.0.2.54\n"
        eventually(lambda: servers.resolv_conf.read_text() == now)
        assert not (servers.etc / "NetworkManager/conf.d").exists()

    def test_its_dnsmasq(self, servers: Host) -> None:
        self.start(servers, "dns=dnsmasq\n")
        assert "nameserver 127.0.0.1" in servers.resolv_conf.read_text()
        before = servers.resolv_conf.read_bytes()
        applied = servers.integrate()
        assert applied.notes == ()
        assert applied.changes == (
            "/etc/NetworkManager/dnsmasq.d/zignet.conf: video.example zignet to 127.0.0.1:53530",
        )
        assert servers.resolv_conf.read_bytes() == before
        eventually(lambda: dig(servers, "friend.zignet") == "100.64.0.9")
        assert dig(servers, "www.video.example") == "198.19.0.7"
        assert servers.restore().left == ()
        eventually(lambda: dig(servers, "friend.zignet") != "100.64.0.9")
        assert not (servers.etc / "NetworkManager/dnsmasq.d").exists()


def test_the_programs_are_here() -> None:
    for program in ("dnsmasq", "dbus-daemon", "dig", "getent"):
        assert shutil.which(program), f"{program} is missing: scripts/test installs it"
