"""Whole packets by a peer's exit, in namespaces: real nodes, kernels, ping, traceroute, curl, iperf3 and nft.

app ── sealed ── exit ── web: 203.0.113.5 and 2001:db8:f::5, which only the exit has a route to
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import threading

import pytest
import yaml

from tests.lab.peers import (
    ECHO,
    HTTP,
    bytes_round,
    checksum_errors,
    digest,
    eventually,
    ping,
    random_file,
    servers,
)
from zignet.lab.hosts import Hosts

pytestmark = pytest.mark.root

FAR4, FAR6 = "203.0.113.5", "2001:db8:f::5"
NETS = ("203.0.113.0/24", "2001:db8:f::/64")
ROUTES = [f"IP-CIDR,{NETS[0]},exit,packet", f"{NETS[1]} -> exit packet", "MATCH,direct"]
SIZE = 30 << 20
TABLE = "zignet_zig0"
DATAGRAMS = 7009  # port


def far(version):
    return FAR6 if version == 6 else FAR4


def offer(**more):
    return {"exit": {"allow": ["app"], "packets": True, **more}}


def route(host, block, device):
    host.namespace.netlink(
        lambda ip: ip.route("add", dst=block, oif=ip.link_lookup(ifname=device)[0], family=family(block))
    )


def family(text):
    return socket.AF_INET6 if ":" in text else socket.AF_INET


def forwarding(host):
    """What the kernel of a host says of forwarding."""

    def look():
        with (
            open("/proc/sys/net/ipv4/ip_forward") as four,
            open("/proc/sys/net/ipv6/conf/all/forwarding") as six,
        ):
            return four.read().strip(), six.read().strip()

    return host.namespace.call(look)


def settings(host):
    """All that may change with it."""

    def look():
        found = {}
        for version in (4, 6):
            top = f"/proc/sys/net/ipv{version}/conf"
            for device in os.listdir(top):
                for name in ("forwarding", "accept_ra", "accept_redirects"):
                    with contextlib.suppress(OSError), open(f"{top}/{device}/{name}") as file:
                        found[version, device, name] = file.read().strip()
        return {key: value for key, value in found.items() if key[1] != "zig0"}

    return host.namespace.call(look)


def tables(host):
    return host.namespace.run(["nft", "list", "tables"]).stdout


def start(net, name, **changes):
    """Start a node, with the routes that lead to it what its rules are about."""
    host = net[name]
    net.start(name, **changes)
    if name == "app":
        for block in NETS:
            route(host, block, "zig0")
    return host.node


@pytest.fixture(scope="module")
def net():
    with Hosts("app", "exit", "web") as hosts:
        web, exit_ = hosts["web"], hosts["exit"]
        web.namespace.address("eth0", f"{FAR4}/24", f"{FAR6}/64")
        for block in NETS:
            route(exit_, block, "eth0")
        hosts.before = settings(exit_)
        start(hosts, "exit", **offer())
        start(hosts, "app", routes=ROUTES)
        hosts.errors = {host.name: checksum_errors(host) for host in hosts}
        files = hosts.directory / "files"
        files.mkdir()
        hosts.digest = random_file(files / "large", SIZE)
        command = ["python3", "-m", "http.server", "--bind", "::", "--directory", files, str(HTTP)]
        web.namespace.popen(command, stdout=-3, stderr=-3)
        web.namespace.popen(["iperf3", "-s"], stdout=-3, stderr=-3)
        eventually(lambda: web.namespace.run(["curl", "-s", f"http://127.0.0.1:{HTTP}/"]).returncode == 0)
        with servers(web), datagrams(web):
            yield hosts


@contextlib.contextmanager
def datagrams(web):
    """A UDP echo that answers from the address that it was asked at."""
    ends = []
    for address in (FAR4, FAR6):
        end = web.namespace.socket(family(address), socket.SOCK_DGRAM)
        end.bind((address, DATAGRAMS))
        threading.Thread(target=echo, args=(end,), daemon=True).start()
        ends.append(end)
    yield
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def echo(end):
    with contextlib.suppress(OSError):
        while (got := end.recvfrom(65536))[1] is not None:
            end.sendto(*got)


@pytest.mark.parametrize("version", [4, 6])
def test_ping(net, version):
    eventually(lambda: ping(net["app"], far(version)) == 1, 30.0)
    assert ping(net["app"], far(version), count=3) == 3
    big = ("-s", "5000")  # fragments, here and there; the first may be lost to the search for the path's MTU
    eventually(lambda: ping(net["app"], far(version), *big) == 1, 30.0)
    assert ping(net["app"], far(version), *big, count=3) == 3


@pytest.mark.parametrize("version", [4, 6])
def test_a_download(net, version):
    target = net.directory / f"got-{version}"
    host = f"[{far(version)}]" if version == 6 else far(version)
    done = net["app"].namespace.run(
        ["curl", "-sS", "-g", "-m", "60", "-o", str(target), f"http://{host}:{HTTP}/large"]
    )
    assert done.returncode == 0, done.stderr
    assert digest(target) == net.digest


@pytest.mark.parametrize("version", [4, 6])
def test_streams_and_datagrams(net, version):
    """Both ways, super-packets included; the web sees the exit's address and not the application's."""
    assert bytes_round(net["app"], far(version), 8 << 20) == 8 << 20
    end = net["app"].namespace.socket(family(far(version)), socket.SOCK_DGRAM)
    end.settimeout(3)
    with end:
        end.connect((far(version), DATAGRAMS))
        for size in (1, 1200, 1472, 4000, 30000):
            data = os.urandom(size)
            answer = b""
            while (
                answer != data
            ):  # an answer may be lost to the search for the path's MTU, and is then asked for again
                end.send(data)
                with contextlib.suppress(TimeoutError):
                    answer = end.recv(65536)
    with net["app"].namespace.connect(far(version), ECHO, timeout_s=20.0) as end:
        port = end.getsockname()[1]
        ask = ["ss", "-Htn", f"dport = :{port}"]
        seen = eventually(lambda: net["web"].namespace.run(ask).stdout)
        exit_ = net["exit"]
        assert (f"[{exit_.address6}]" if version == 6 else exit_.address) in seen, seen


def test_checksums(net):
    """None of all that was wrong: what the kernels have counted."""
    for host in net:
        assert checksum_errors(host) == net.errors[host.name]


@pytest.mark.parametrize("how", ["-I", "-U", "-T"])
@pytest.mark.parametrize("version", [4, 6])
def test_traceroute(net, version, how):
    """The exit is a hop, and the far end the next."""
    command = ["traceroute", f"-{version}", "-n", "-q", "1", "-w", "5", "-m", "4", how, "-N", "1"]
    if how == "-T":
        command += ["-p", str(HTTP)]
    done = net["app"].namespace.run([*command, far(version)], timeout_s=60.0)
    hops = re.findall(r"^ *(\d+)  (\S+)", done.stdout, re.MULTILINE)
    assert hops == [("1", net["app"].inner(net["exit"], version)), ("2", far(version))], (
        done.stdout + done.stderr
    )


@pytest.mark.parametrize("version", [4, 6])
def test_what_the_far_end_refuses(net, version):
    """A RST, and ICMP port unreachable, are the far end's own."""
    with pytest.raises(ConnectionRefusedError):
        net["app"].namespace.connect(far(version), 4444, timeout_s=20.0)
    end = net["app"].namespace.socket(family(far(version)), socket.SOCK_DGRAM)
    end.settimeout(15)
    with end:
        end.connect((far(version), 4444))
        end.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            end.recv(10)


@pytest.mark.parametrize("version", [4, 6])
def test_too_big_for_a_link_behind_the_exit(net, version):
    """The path MTU is found by the errors of the exit's kernel, and by those of routers."""
    link = net["exit"].namespace
    block = NETS[version == 6]
    index = link.netlink(lambda ip: ip.link_lookup(ifname="eth0")[0])
    link.netlink(
        lambda ip: ip.route("replace", dst=block, oif=index, metrics={"mtu": 1300}, family=family(block))
    )
    try:
        size = "1400"
        done = net["app"].namespace.run(["ping", "-c2", "-W3", "-M", "do", "-s", size, far(version)])
        assert re.search(r"too big|too long|Frag needed|mtu", done.stdout + done.stderr), done.stdout
        assert bytes_round(net["app"], far(version), 1 << 20) == 1 << 20
    finally:
        link.netlink(lambda ip: ip.route("replace", dst=block, oif=index, family=family(block)))


def test_the_system_of_the_exit(net):
    """Forwarding is on, and the table stands; hosts that are no exit have neither."""
    assert forwarding(net["exit"]) == ("1", "1")
    assert TABLE in tables(net["exit"])
    assert forwarding(net["app"]) == ("0", "0")
    assert tables(net["app"]) == ""
    found = json.loads(net["exit"].namespace.run(["nft", "-j", "list", "table", "inet", TABLE]).stdout)
    comments = [each["rule"].get("comment") for each in found["nftables"] if "rule" in each]
    assert comments.count("no transit from peer to peer") == 1
    assert comments.count("peers leave as this host") == 2


def test_explain(net):
    said = net["app"].namespace.run(net["app"].node.command("route", "explain", FAR4)).stdout
    assert "exit" in said
    assert "packets" in said, said


def counter(host, comment, version=None):
    """How many packets a rule of the table has dropped."""
    found = json.loads(host.namespace.run(["nft", "-j", "list", "table", "inet", TABLE]).stdout)
    rules = [each["rule"] for each in found["nftables"] if each.get("rule", {}).get("comment") == comment]
    return sum(part["counter"]["packets"] for rule in rules for part in rule["expr"] if "counter" in part)


def test_nothing_else_is_forwarded(net):
    """Neither to peers, for whoever is not their answer, nor what was not forwarded before."""
    web, exit_ = net["web"].namespace, net["exit"]
    inner = exit_.inner(net["app"])
    for block in (inner, "198.51.100.0/24"):
        web.run(["ip", "route", "add", block, "via", exit_.address])
    route(exit_, "198.51.100.0/24", "eth0")
    assert ping(net["web"], inner, "-W", "1") == 0
    assert counter(exit_, "and nothing else") == 1
    assert ping(net["web"], "198.51.100.9", "-W", "1") == 0
    assert counter(exit_, "was not forwarded before this node, and is not by it") == 1


def test_who_may_is_decided_at_the_exit(net):
    """Without the right applications are told at once, and so they are for what the exit sends nowhere."""
    exit_, app = net["exit"], net["app"]
    usual = net.config("exit", **offer())
    reload(exit_, usual | {"exit": {"allow": ["app"]}})
    eventually(lambda: "filtered" in app.namespace.run(["ping", "-c1", "-W2", FAR4]).stdout, 20.0)
    assert connect_error(app, FAR4) == "ConnectionRefusedError"
    reload(exit_, usual | offer(ports=[443]))
    eventually(lambda: ping(app, FAR4) == 1, 20.0)  # ports are about TCP and UDP
    assert connect_error(app, FAR4) == "ConnectionRefusedError"
    reload(exit_, usual)
    eventually(lambda: connect_error(app, FAR4) == "", 20.0)


def reload(host, config):
    host.node.config.write_text(f"state_dir: {host.node.state_dir}\n{yaml.safe_dump(config)}")
    os.kill(host.node.process.pid, signal.SIGHUP)


def connect_error(host, address):
    """The name of what a connect runs into, or ""."""
    try:
        host.namespace.connect(address, ECHO, timeout_s=20.0).close()
    except OSError as error:
        return type(error).__name__
    return ""


def test_a_kill_is_repaired_and_a_stop_takes_everything_back(net):
    exit_ = net["exit"]
    exit_.node.kill()
    assert forwarding(exit_) == ("1", "1")
    assert TABLE in tables(exit_)
    start(net, "exit", **offer())
    eventually(lambda: ping(net["app"], FAR4) == 1, 40.0)
    exit_.node.kill()
    start(net, "exit")  # one that offers nothing
    assert (forwarding(exit_), tables(exit_)) == (("0", "0"), "")
    assert settings(exit_) == net.before
    exit_.node.stop()
    start(net, "exit", **offer())
    assert forwarding(exit_) == ("1", "1")
    assert exit_.node.stop() == 0
    assert (forwarding(exit_), tables(exit_)) == (("0", "0"), "")
    assert settings(exit_) == net.before
    assert not list(exit_.node.state_dir.glob("forwarding.journal*"))


def test_what_the_owner_has_switched_on_stays_on(net):
    """And only the table is ours then; other tables are not touched."""
    exit_ = net["exit"]
    exit_.namespace.sysctl("net.ipv4.ip_forward", 1)
    exit_.namespace.run(["nft", "add", "table", "inet", "somebody"])
    start(net, "exit", **offer())
    listed = exit_.namespace.run(["nft", "list", "table", "inet", TABLE]).stdout
    assert listed.count("was not forwarded before this node") == 1  # IPv6
    eventually(lambda: ping(net["app"], FAR4) == 1, 40.0)
    assert exit_.node.stop() == 0
    assert forwarding(exit_) == ("1", "0")
    assert tables(exit_).split() == ["table", "inet", "somebody"]


def test_an_exit_that_is_a_global_proxy_and_checks_reverse_paths(net):
    """Answers come by the default route, which for the host's own traffic is the TUN."""
    exit_, web = net["exit"], net["web"]
    exit_.node.stop()
    exit_.namespace.sysctl("net.ipv4.conf.all.rp_filter", 1)
    exit_.namespace.sysctl("net.ipv4.conf.eth0.rp_filter", 1)
    exit_.namespace.run(["ip", "route", "del", NETS[0], "dev", "eth0"])
    exit_.namespace.run(["ip", "route", "add", "default", "via", web.address])
    start(net, "exit", proxy={"mode": "global"}, **offer())
    eventually(lambda: ping(net["app"], FAR4) == 1, 40.0)
    assert bytes_round(net["app"], FAR4, 1 << 20) == 1 << 20
    too_large(net)
    assert connect_error(exit_, FAR4) == ""  # its own traffic still takes the TUN
    assert FAR4 in str(exit_.node.flows())
    assert exit_.node.stop() == 0
    assert "85" not in exit_.namespace.run(["ip", "rule"]).stdout


def too_large(net):
    """A datagram that the route to peers does not carry is told of to the far end, past the TUN."""
    web, exit_ = net["web"].namespace, net["exit"]
    end = net["app"].namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
    far = web.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with end, far:
        far.bind((FAR4, 7010))
        far.settimeout(10)
        end.connect((FAR4, 7010))
        end.send(b"x")
        _, sender = far.recvfrom(10)
        assert sender[0] == exit_.address
        far.connect(sender)
        far.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO

        def told():
            try:
                far.send(bytes(1450))
            except OSError:
                return True
            return False

        eventually(told, 20.0)
