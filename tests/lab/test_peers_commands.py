"""What people see of peers: ping, peers, status, whoami, a capture with its keys; and the proxy beside them."""

import json
import re
import stat
import subprocess

import pytest

from tests.lab.peers import HTTP, bytes_round, eventually, ping, servers, url
from zignet.lab.hosts import PORT, Hosts

pytestmark = pytest.mark.root

FAR, FAR6, ENDPOINT = "198.51.100.9", "2001:db8:9::9", "198.51.100.2"


@pytest.fixture(scope="module")
def net():
    """a: a proxy for all traffic, and a peer of b, which it reaches through the default route, as it does the rest."""
    with Hosts("a", "b") as hosts:
        a, b = hosts
        b.namespace.netlink(more_addresses)
        a.namespace.route("default", gateway=b.address)
        a.namespace.route("default6", gateway=b.address6)
        hosts.capture = a.directory / "seen.pcap"
        a.directory.mkdir(exist_ok=True)
        tcpdump = [
            *("tcpdump", "-U", "--immediate-mode", "-i", "eth0"),
            *("-w", hosts.capture, "udp", "port", str(PORT)),
        ]
        hosts.tcpdump = a.namespace.popen(tcpdump, stderr=subprocess.PIPE)
        hosts.tcpdump.stderr.readline()  # it listens
        hosts.start("b")
        hosts.start(
            "a",
            proxy={"mode": "global"},
            routes=["MATCH,direct"],
            peers=[{"name": "b", "key": b.key, "endpoint": f"{ENDPOINT}:{PORT}"}],
            key_log="./session.keys",
        )
        with servers(b):
            yield hosts
        assert not any("Traceback" in host.node.log() for host in hosts)


def more_addresses(ip):
    """On b: those of the world behind the default route, and of b's node there."""
    (lo,) = ip.link_lookup(ifname="lo")
    (eth0,) = ip.link_lookup(ifname="eth0")
    for address, length in ((ENDPOINT, 32), (FAR, 32), (FAR6, 128)):
        ip.addr("add", index=lo, address=address, prefixlen=length)
    ip.route("add", dst="192.0.2.1/32", oif=eth0, prefsrc=ENDPOINT)


@pytest.fixture
def zignet(net):
    """A command on a: its exit code, and what it said."""

    def run(*arguments):
        done = net["a"].namespace.run(net["a"].node.command(*arguments))
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_capture_of_the_underlay_can_be_read_with_the_keys(net, zignet):
    a, b = net
    keys = a.directory / "session.keys"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert str(keys) in a.node.log()  # a warning
    assert ping(a, a.inner(b), "-s", "100") == 1
    assert zignet("ping", "b", "-n", "1")[0] == 0
    wanted = (
        f"initiation .* for {b.secret.public.x.hex()[:16]}",
        "response",
        "icmp echo request, id .*length 100",
        "icmp echo reply, id .*length 100",
        "challenge, path 1",
        "answer, path 1, datagram of 1472 seen from 192.0.2.1",
        ": ping, token",
        ": pong, token",
    )

    def read(*more):
        return zignet("wire-dump", str(net.capture), *more)[1]

    net.tcpdump.terminate()
    net.tcpdump.wait()
    seen = read("--keys", str(keys))
    assert [line for line in wanted if not re.search(line, seen)] == []
    assert "icmp" not in read()
    assert "sealed (no key)" in read()


def test_proxy_and_peers_share_an_interface(net):
    a, b = net
    for inside in (a.inner(b), a.inner(b, 6)):
        assert bytes_round(a, inside, 2 << 20) == 2 << 20
    for outside in (FAR, FAR6):
        assert bytes_round(a, outside, 2 << 20) == 2 << 20
    flows = a.node.flows()
    assert {flow["target"] for flow in flows} == {f"{FAR}:7007", f"[{FAR6}]:7007"}
    assert {flow["exit"] for flow in flows} == {"direct"}
    assert a.peer(b)["received"] > 4 << 20
    assert a.peer(b)["path"] == f"{ENDPOINT}:{PORT}"  # the mark keeps the underlay out of the TUN


def test_curl_to_a_service_of_a_peer(net):
    """A service on the address that b has for itself is reached by the address that a has for b."""
    a, b = net
    directory = net.directory / "site"
    directory.mkdir()
    (directory / "page").write_text("hello from b\n")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    own = b.status()["identity"]["address"]
    command = ["python3", "-m", "http.server", "--bind", own, "--directory", directory, str(HTTP)]
    server = b.namespace.popen(command, **quiet)
    eventually(lambda: b.namespace.run(["curl", "-s", url(own, HTTP)]).returncode == 0)
    assert a.namespace.run(["curl", "-sS", url(a.inner(b), HTTP, "page")]).stdout == "hello from b\n"
    server.terminate()


def test_ping_says_by_which_path(net, zignet):
    for name in ("b", net["b"].key, net["a"].inner(net["b"]), net["a"].inner(net["b"], 6)):
        code, said = zignet("ping", name, "-n", "2", "-i", "0.05")
        assert code == 0
        assert said.count(f"pong from b via {ENDPOINT}:{PORT}") == 2
        assert "2 sent, 2 answered, 0 % lost" in said


def test_ping_as_json(zignet):
    code, said = zignet("ping", "b", "-n", "1", "--json")
    assert code == 0
    (answer,) = json.loads(said)["pings"]
    assert answer["path"] == f"{ENDPOINT}:{PORT}"
    assert 0 < answer["rtt_s"] < 1


@pytest.mark.parametrize(
    ("name", "said"),
    [("nobody", "nobody here is called nobody"), ("100.64.99.99", "nobody here"), ("fd5a::1", "nobody here")],
)
def test_ping_of_nobody(zignet, name, said):
    code, output = zignet("ping", name, "-n", "1")
    assert code == 1
    assert said in output


def test_ping_of_a_mistyped_name(net, zignet):
    key = net["b"].key
    code, output = zignet("ping", key[:20] + ("x" if key[20] != "x" else "y") + key[21:], "-n", "1")
    assert code != 0
    assert "mistyped" in output


def test_peers(net, zignet):
    assert ping(net["a"], net["a"].inner(net["b"])) == 1
    code, said = zignet("peers")
    assert code == 0
    assert f"{ENDPOINT}:{PORT}" in said
    assert "1 peer, 1 connected" in said
    (peer,) = json.loads(zignet("peers", "--json")[1])["peers"]
    assert (peer["name"], peer["key"], peer["state"]) == ("b", net["b"].key, "connected")
    assert peer["path_mtu"] == 1472
    assert peer["cipher"] in ("AES-256-GCM", "ChaCha20-Poly1305")
    assert min(peer["received"], peer["sent"]) > 0
    assert peer["loss"] < 0.05


def test_status_and_whoami(net, zignet):
    status = json.loads(zignet("status", "--json")[1])
    who = json.loads(zignet("whoami", "--json")[1])
    assert who["name"] == status["identity"]["key"] == net["a"].key
    assert status["interface"]["address6"] == status["identity"]["address6"]
    assert status["peers"]["connected"] == 1
    assert net["a"].key in zignet("status")[1]
