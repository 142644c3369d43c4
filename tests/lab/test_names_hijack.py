"""Queries that enter the TUN are answered by the node, whomever they ask; resolv.conf is left as it is."""

import ipaddress
import json
import shutil
import socket

import pytest

from tests.lab.peers import eventually
from tests.lab.test_names import DNS, POOL4, POOL6, ROUTES, dig, name_server
from tests.lab.test_names_system import Private
from zignet.lab.internet import OFFICE, OFFICE6

pytestmark = pytest.mark.root

__all__ = ["name_server"]

NOBODY, NOBODY6 = "203.0.113.99", "2001:db8:4::99"  # there is no such host
LOCAL = "192.0.2.1"  # the router
RESOLV_CONF = f"# by hand\nsearch corp.example\nnameserver {OFFICE}\nnameserver {NOBODY}\n"
HIJACK = DNS.replace('"off"', "global").replace(f"upstreams: [{OFFICE}]", "mode: hijack")
ALL_ROUTES = [*ROUTES, "MATCH,direct"]


@pytest.fixture
def start(net, directories, config, name_server):
    """Nodes with an /etc of their own, one after the other."""
    started = []

    def make(dns=HIJACK, resolv_conf=RESOLV_CONF, mechanism="hijack"):
        directory = directories()
        shutil.copytree("/etc", directory / "etc", symlinks=True)
        path = directory / "etc" / "resolv.conf"
        path.unlink(missing_ok=True)
        path.write_text(resolv_conf)
        node = Private(net.host, directory, config(ALL_ROUTES, dns))
        started.append(node)
        node.start()
        eventually(lambda: status(node)["why"] != "not yet", 30)
        assert status(node)["mechanism"] == mechanism, node.log()
        return node

    yield make
    for node in started:
        node.__exit__()


@pytest.fixture
def node(start):
    return start()


def status(node):
    return node.ask("dns", "status", "--json")


def asked(net, server, name, kind="A", *options):
    """The data of the answers, and that they come from the server that was asked."""
    whole = dig(net, name, kind, *options, server=server, port=53)
    assert f"SERVER: {server}#53" in whole
    return dig(net, name, kind, "+short", *options, server=server, port=53).split()


@pytest.mark.parametrize("options", [[], ["+tcp"]])
@pytest.mark.parametrize("server", [NOBODY, NOBODY6, OFFICE, OFFICE6])
def test_any_server_is_this_one(net, node, server, options):
    (v4,) = asked(net, server, "www.shop.example", "A", *options)
    (v6,) = asked(net, server, "www.shop.example", "AAAA", *options)
    assert ipaddress.ip_address(v4) in POOL4
    assert ipaddress.ip_address(v6) in POOL6
    assert asked(net, server, "plain.test.example", "A", *options) == [
        "203.0.113.30"
    ]  # forwarded, and by no circle
    assert asked(net, server, "admin.zignet", "A", *options) == ["100.64.0.1"]
    assert "status: NXDOMAIN" in dig(net, "nothing.test.example", "A", *options, server=server, port=53)


def test_programs_with_the_resolv_conf_as_it_was(net, node):
    done = node.inside("curl", "-sS", "--max-time", "15", "http://www.shop.example/")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["server"] == "video.example"
    assert node.inside("getent", "ahostsv4", "plain.test.example").stdout.startswith("203.0.113.30")
    seen = status(node)
    assert (seen["domains"], seen["changes"], seen["upstreams"]) == (
        ["."],
        [],
        [f"{OFFICE}:53", f"{NOBODY}:53"],
    )
    assert "dns.mode: hijack" in seen["why"]
    flows = [flow for flow in node.flows() if flow["target"].endswith(":53")]
    assert {(flow["exit"], flow["rule"]) for flow in flows} == {("dns", "dns.mode: hijack")}
    explained = node.ask("route", "explain", f"dns://{NOBODY}", "--json")
    assert (explained["rule"], explained["exit"]) == ("dns.mode: hijack", "dns")
    assert node.resolv_conf == RESOLV_CONF
    assert node.stop() == 0
    assert node.resolv_conf == RESOLV_CONF
    assert not (node.directory / "state" / "names.journal").exists()


def test_what_is_not_dns_gets_nothing_and_breaks_nothing(net, node):
    for data in (b"", b"x", b"\0" * 12, b"\xff" * 512, b"hello" * 280):
        with net.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((NOBODY, 53))
            sock.send(data)
        with net.host.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(15)
            sock.connect((NOBODY, 53))
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
    with net.host.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:  # the handshake is with us, too
        sock.settimeout(15)
        sock.connect((NOBODY, 53))
    assert asked(net, NOBODY, "admin.zignet") == ["100.64.0.1"]
    assert "internal error" not in node.log()
    assert "Traceback" not in node.log()


def test_all_servers_asked_from_one_socket(net, node):
    """As musl does."""
    query = bytes.fromhex("123401000001000000000000") + b"\3www\4shop\7example\0\0\1\0\1"
    with net.host.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(15)
        servers = {(OFFICE, 53), (NOBODY, 53), ("203.0.113.98", 53)}
        for server in servers:
            sock.sendto(query, server)
        seen = [sock.recvfrom(4096) for _ in servers]
    assert {sender for _, sender in seen} == servers
    assert len({data for data, _ in seen}) == 1


def test_auto_takes_it_where_it_fits(start):
    node = start(HIJACK.replace("hijack", "auto"))
    assert "all traffic enters zig0" in status(node)["why"]
    assert node.resolv_conf == RESOLV_CONF


def test_another_network_whose_server_is_near(start, net):
    """`auto` finds another way; `hijack` says that there is none, and is back when there is."""
    node, local = start(HIJACK.replace("hijack", "auto")), f"nameserver {LOCAL}\n"
    (node.etc / "resolv.conf").write_text(local)
    eventually(lambda: status(node)["mechanism"] == "resolvconf", 60)
    assert "nameserver 100.64.0.1" in node.resolv_conf
    assert node.stop() == 0
    assert node.resolv_conf == local
    node = start()
    (node.etc / "resolv.conf").write_text(local)
    eventually(lambda: status(node)["mechanism"] == "off", 60)
    assert LOCAL in status(node)["why"]
    (node.etc / "resolv.conf").write_text(RESOLV_CONF)
    eventually(lambda: status(node)["mechanism"] == "hijack", 60)
    assert asked(net, NOBODY, "admin.zignet") == ["100.64.0.1"]


def test_a_server_on_the_local_network_is_not_seen_there(start, net):
    node = start(resolv_conf=f"nameserver {LOCAL}\n", mechanism="off")
    assert f"the way to the resolver {LOCAL} does not lead through zig0" in status(node)["why"]
    assert "dns.mode: resolvconf" in status(node)["why"]


def test_nor_one_in_the_bypass(start):
    dns = HIJACK.replace("mode: global", f"mode: global, bypass: [{OFFICE}/32]")
    node = start(dns, resolv_conf=f"nameserver {OFFICE}\n", mechanism="off")
    assert OFFICE in status(node)["why"]


def test_a_reload_ends_it_and_begins_it(net, node, config):
    def answered():
        found = dig(net, "www.shop.example", "A", "+short", server=OFFICE, port=53)
        return ipaddress.ip_address(found.strip()) in POOL4

    assert answered()
    node.reload(config(ALL_ROUTES, HIJACK.replace("hijack", "off")))
    eventually(lambda: not answered(), 30)
    node.reload(config(ALL_ROUTES, HIJACK))
    eventually(answered, 30)
