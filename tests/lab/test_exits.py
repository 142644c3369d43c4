"""Names and addresses by a peer's exit, in namespaces: real nodes, kernels and programs; the names are given.

app ── sealed ── exit ── web 192.0.2.3          198.19.0.2 is www.example, and so on as in `FAKES`
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys

import pytest
import yaml

from tests.lab.peers import CLOSED, ECHO, HTTP, digest, eventually, random_file, servers
from zignet.lab.certificates import Authority
from zignet.lab.hosts import Hosts
from zignet.lab.namespace import start_module

pytestmark = pytest.mark.root

FAKES = [
    *("www.example", "nowhere.example", "lan.example", "loop.example", "own.example", "zig.example"),
    *("direct.example", "mixed.example", "anyip.example"),
]
ANSWERS = {
    "www.example": ["192.0.2.3", "2001:db8::3"],
    "lan.example": ["10.0.0.3"],
    "loop.example": ["127.0.0.1", "::1", "::ffff:127.0.0.1"],
    "own.example": ["192.0.2.2", "2001:db8::2"],  # the exit's own
    "zig.example": ["100.64.0.2", "100.64.0.1", "198.19.0.2"],
    "anyip.example": ["203.0.113.200", "2001:db8:5::7"],  # of prefixes that are the exit's own as a whole
    "mixed.example": ["10.0.0.3", "192.0.2.3"],
}
ROUTES = ["direct.example -> direct", "*.example -> exit", "IP-CIDR,203.0.113.0/24,exit", "MATCH,direct"]
SIZE = 30 << 20


def fake(name, version=4):
    number = FAKES.index(name) + 2
    return f"198.19.0.{number}" if version == 4 else f"2001:2::{number:x}"


def begin(net, name, **changes):
    """Start a node with names; returns when it is ready."""
    host = net[name]
    node = host.prepare(net.config(name, **changes))
    (host.directory / "names.json").write_text(json.dumps({"fakes": FAKES, "answers": ANSWERS}))
    command = [sys.executable, "-m", "tests.lab.named_node", str(node.config)]
    with node.log_file.open("wb") as log:
        node.process = host.namespace.popen(command, stdout=log, stderr=log)
    eventually(lambda: "ready" in node.log() or node.process.poll() is not None, 40.0)
    assert node.process.poll() is None, node.log()
    return node


@pytest.fixture(scope="module")
def net():
    with Hosts("app", "exit", "web") as hosts:
        begin(hosts, "app", routes=ROUTES)
        begin(hosts, "exit", exit={"allow": ["app"]})
        files = hosts.directory / "files"
        files.mkdir()
        hosts.digest = random_file(files / "large", SIZE)
        web = hosts["web"].namespace
        command = ["python3", "-m", "http.server", "--bind", "::", "--directory", files, str(HTTP)]
        web.popen(command, stdout=-3, stderr=-3)
        eventually(lambda: web.run(["curl", "-s", f"http://127.0.0.1:{HTTP}/"]).returncode == 0)
        with servers(hosts["web"]):
            eventually(lambda: connect(hosts, "www.example") == 0, 20.0)
            yield hosts


def connect(net, name, port=HTTP, version=4):
    """0, or the errno of a connect from the application's host."""
    end = net["app"].namespace.socket(socket.AF_INET6 if version == 6 else socket.AF_INET)
    end.settimeout(15)
    with end:
        try:
            end.connect((fake(name, version), port))
        except TimeoutError:
            return errno.ETIMEDOUT
        except OSError as error:
            return error.errno
    return 0


def fetch(net, url, *more):
    """curl's exit code, and what it says."""
    done = net["app"].namespace.run(["curl", "-sS", "-g", "-m", "30", *more, url])
    return done.returncode, done.stdout + done.stderr


def exit_flows(net):
    return [flow for flow in net["exit"].node.flows() if flow["exit"] == "guests"]


@pytest.mark.parametrize("version", [4, 6])
def test_a_download_by_name(net, version):
    host = fake("www.example", version)
    target = net.directory / f"got-{version}"
    url = f"http://[{host}]:{HTTP}/large" if version == 6 else f"http://{host}:{HTTP}/large"
    assert fetch(net, url, "-o", str(target)) == (0, "")
    assert digest(target) == net.digest
    assert "www.example" in {flow["name"] for flow in exit_flows(net)}


@pytest.mark.parametrize("version", [4, 6])
def test_an_upload_and_its_echo(net, version):
    sent = bytes(range(256)) * 8192
    end = net["app"].namespace.connect(fake("www.example", version), ECHO, timeout_s=20.0)
    with end:
        got = b""
        for at in range(0, len(sent), 1 << 16):
            end.sendall(sent[at : at + (1 << 16)])
            while len(got) < at + (1 << 16):
                piece = end.recv(1 << 16)
                assert piece
                got += piece
    assert got == sent


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("name", "port", "code"),
    [
        ("www.example", CLOSED, errno.ECONNREFUSED),
        ("nowhere.example", HTTP, errno.EHOSTUNREACH),
        ("lan.example", HTTP, errno.ECONNREFUSED),
        ("loop.example", HTTP, errno.ECONNREFUSED),
        ("own.example", 51830, errno.ECONNREFUSED),
        ("zig.example", HTTP, errno.ECONNREFUSED),
        ("mixed.example", HTTP, 0),
    ],
)
def test_the_application_sees_the_truth(net, name, port, code, version):
    assert connect(net, name, port, version) == code


def test_curl_says_connection_refused(net):
    code, text = fetch(net, f"http://{fake('www.example')}:{CLOSED}/", "-v")
    assert code == 7
    assert "refused" in text.lower()


@pytest.mark.parametrize("version", [4, 6])
def test_datagrams(net, version):
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    end = net["app"].namespace.socket(family, socket.SOCK_DGRAM)
    end.settimeout(15)
    with end:
        end.connect((fake("www.example", version), ECHO))
        for size in (1, 100, 1200, 1400, 4000):  # in fragments, too
            for _ in range(3):
                payload = bytes(size)
                end.send(payload)
                assert end.recv(65536) == payload


def test_a_closed_port_of_udp(net):
    end = net["app"].namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.settimeout(15)
    with end:
        end.connect((fake("www.example"), CLOSED))
        end.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            end.recv(100)


@pytest.fixture(scope="module")
def authority(net):
    """HTTPS and HTTP/3 on the web host; who has signed its certificate."""
    made = Authority(net.directory)
    sites = {"www.example": ANSWERS["www.example"]}
    files = {"www.example": [str(path) for path in made.issue("www.example")]}
    plan = net.directory / "servers.json"
    plan.write_text(json.dumps({"sites": sites, "files": files}))
    start_module(net["web"].namespace, "zignet.lab.servers", str(plan))
    return made


@pytest.mark.parametrize("version", [4, 6])
def test_https(net, authority, version):
    address = fake("www.example", version)
    there = f"www.example:443:[{address}]" if version == 6 else f"www.example:443:{address}"
    code, text = fetch(net, "https://www.example/", "--cacert", str(authority.file), "--resolve", there)
    assert code == 0, text
    assert "192.0.2.2" in text or "2001:db8::2" in text  # whom the server saw: the exit


@pytest.mark.parametrize("version", [4, 6])
def test_quic(net, authority, version):
    pytest.importorskip("aioquic")
    address = fake("www.example", version)
    command = [sys.executable, "-m", "zignet.lab.quic", authority.file, "https://www.example/", address]
    done = net["app"].namespace.run(command)
    assert done.returncode == 0, done.stderr
    assert "h3" in done.stdout


def test_the_exit_is_no_way_into_itself(net):
    """Neither its own addresses nor those of peers are dialled: nothing reaches them, or comes back into ZigNet."""
    before = len(exit_flows(net))
    for name in ("own.example", "zig.example", "loop.example"):
        assert connect(net, name, ECHO) == errno.ECONNREFUSED
    assert len(exit_flows(net)) >= before


def test_an_address_of_the_internet_by_a_rule(net):
    """A rule sends a network by the peer: the flow comes by the NAT and goes on to (address, exit)."""
    app, web = net["app"].namespace, net["web"].namespace
    web.address("eth0", "203.0.113.5/24")
    net["exit"].namespace.netlink(
        lambda ip: ip.route("add", dst="203.0.113.0/24", oif=ip.link_lookup(ifname="eth0")[0])
    )
    app.netlink(lambda ip: ip.route("add", dst="203.0.113.0/24", oif=ip.link_lookup(ifname="zig0")[0]))
    code, text = fetch(net, f"http://203.0.113.5:{HTTP}/large", "-o", str(net.directory / "by-address"))
    assert (code, text) == (0, "")
    assert digest(net.directory / "by-address") == net.digest
    near, far = (where.socket(socket.AF_INET, socket.SOCK_DGRAM) for where in (app, web))
    with near, far:
        for end in (near, far):
            end.settimeout(15)
        far.bind(("203.0.113.5", 7008))
        near.connect(("203.0.113.5", 7008))
        for _ in range(3):
            near.send(b"hello")
            data, sender = far.recvfrom(100)
            far.sendto(data + b" back", sender)
            assert near.recv(100) == b"hello back"
    assert {"203.0.113.5"} <= {flow["name"] for flow in exit_flows(net)}


def test_a_sniffed_name_is_resolved_by_the_peer(net):
    """The application has an address of its own finding; the rule is about the name that it says."""
    app = net["app"].namespace
    app.netlink(lambda ip: ip.route("add", dst="198.51.100.7/32", oif=ip.link_lookup(ifname="zig0")[0]))
    url = f"http://198.51.100.7:{HTTP}/large"
    target = net.directory / "sniffed"
    assert fetch(net, url, "-H", "Host: www.example", "-o", str(target)) == (0, "")
    assert digest(target) == net.digest
    assert fetch(net, url, "-H", "Host: nowhere.example")[0] in (52, 56)  # accepted, and then reset


def test_who_may_is_decided_at_the_exit(net):
    """The right is taken away while a stream lives, and given back."""
    exit_ = net["exit"].node
    end = net["app"].namespace.connect(fake("www.example"), ECHO, timeout_s=20.0)
    with end:
        end.sendall(b"x")
        assert end.recv(1) == b"x"
        state = f"state_dir: {exit_.state_dir}\n"
        usual = net.config("exit")
        exit_.config.write_text(state + yaml.safe_dump(usual))
        reload(exit_)
        eventually(lambda: connect(net, "www.example") == errno.ECONNREFUSED)
        assert ending(end) == "reset"
    exit_.config.write_text(state + yaml.safe_dump(usual | {"exit": {"allow": ["app"]}}))
    reload(exit_)
    eventually(lambda: connect(net, "www.example") == 0)


def ending(end):
    """How a stream goes on: "reset", "end", or "on"."""
    try:
        end.sendall(b"y")
        return "on" if end.recv(1) else "end"
    except (ConnectionResetError, BrokenPipeError):
        return "reset"


def reload(node):
    os.kill(node.process.pid, signal.SIGHUP)


def test_the_exit_vanishes_and_comes_back(net):
    """kill -9 under a live stream: the stream gets a reset once the exit is back, and new ones work at once."""
    node = net["exit"].node
    end = net["app"].namespace.connect(fake("www.example"), ECHO, timeout_s=40.0)
    with end:
        end.sendall(b"x")
        assert end.recv(1) == b"x"
        node.kill()
        begin(net, "exit", exit={"allow": ["app"]})
        eventually(lambda: connect(net, "www.example") == 0, 40.0)
        assert ending(end) == "reset"


def test_an_exit_needs_no_more_than_its_section(net):
    """`zignet up` as it is: names by the hosts file and the name servers of that machine."""
    host = net["exit"]
    hosts = net.directory / "hosts"
    hosts.write_text("192.0.2.3 www.example\n")
    assert host.namespace.run(["mount", "--bind", hosts, "/etc/hosts"]).returncode == 0
    host.node.stop()
    net.start("exit", exit={"allow": ["app"]})
    eventually(lambda: connect(net, "www.example") == 0, 40.0)
    target = net.directory / "by-up"
    assert fetch(net, f"http://{fake('www.example')}:{HTTP}/large", "-o", str(target)) == (0, "")
    assert digest(target) == net.digest
    assert {flow["exit"] for flow in host.node.flows()} == {"guests"}
