"""The Admin API of real nodes: curl and dig on this host, and peers that try to reach it."""

import json
import os
import signal
import socket

import pytest

from tests.lab.peers import Stream, eventually, ping, servers
from zignet.admin.listen import ADMIN_SOCKET
from zignet.admin.token import TOKEN_NAME
from zignet.identity import SecretKey
from zignet.lab.hosts import Hosts

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def net():
    """a and b are peers; both have an API. a answers names as well."""
    with Hosts("a", "b") as hosts:
        a, b = hosts
        hosts.start("b", admin={})
        dns = {"upstreams": [b.address]}
        hosts.start("a", admin={}, dns=dns, routes=["*.video.example -> b", "MATCH,direct"])
        for host in hosts:
            eventually(lambda host=host: host.status()["control"]["state"] == "running", 40)
        assert a.reaches(a.inner(b))
        with servers(b):
            yield hosts
        assert not any("Traceback" in host.node.log() for host in hosts)


@pytest.fixture
def curl(net):
    """Runs curl on a host: status and document."""

    def run(host, url, *options):
        command = ["curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", *options, url]
        done = host.namespace.run(command)
        assert done.returncode == 0, done.stderr
        body, _, code = done.stdout.rpartition("\n")
        return int(code), json.loads(body) if body.startswith("{") else body

    return run


def by_name(net):
    """curl's option that makes admin.zignet what a's name server says."""
    done = net["a"].namespace.run(["dig", "@100.64.0.1", "+short", "+time=8", "admin.zignet", "A"])
    assert done.stdout.strip() == "100.64.0.1"
    return "--resolve", f"admin.zignet:80:{done.stdout.strip()}"


def token(host):
    return (host.node.state_dir / TOKEN_NAME).read_text().strip()


def test_whoami_by_name_and_by_the_unix_socket(net, curl):
    a = net["a"]
    code, found = curl(a, "http://admin.zignet/api/whoami", *by_name(net))
    assert (code, found["key"], found["address"]) == (200, a.key, "100.64.0.1")
    path = str(a.node.state_dir / ADMIN_SOCKET)
    assert curl(a, "http://localhost/api/whoami", "--unix-socket", path) == (200, found)
    assert curl(a, f"http://[{found['address6']}]/api/whoami") == (200, found)
    assert curl(a, "http://100.64.0.1/api/whoami") == (200, found)
    code, _ = curl(a, f"http://{a.key}.zignet/api/whoami", "--resolve", f"{a.key}.zignet:80:100.64.0.1")
    assert code == 200


def test_another_name_for_our_address(net, curl):
    code, found = curl(net["a"], "http://evil.example/api/whoami", "--resolve", "evil.example:80:100.64.0.1")
    assert code == 421
    assert "admin.zignet" in found["error"]


def test_identity(net, curl):
    a, b = net
    address = a.inner(b)
    for query in (
        f"ip={address}",
        f"ip={a.inner(b, 6)}",
        f"pubkey={b.key}",
        f"pubkey={b.secret.public.base58}",
    ):
        code, found = curl(a, f"http://100.64.0.1/api/identity?{query}")
        assert (code, found["key"], found["address"], found["online"]) == (200, b.key, address, True)
    code, found = curl(a, f"http://100.64.0.1/api/identity?pubkey={a.key}")
    assert found["own"]
    assert curl(a, "http://100.64.0.1/api/identity?ip=100.64.99.99")[0] == 404


def test_peers_contacts_and_policy(net, curl):
    a, b = net
    (peer,) = eventually(lambda: curl(a, "http://100.64.0.1/api/peers")[1]["peers"])
    assert (peer["key"], peer["state"]) == (b.key, "connected")
    code, found = curl(a, f"http://100.64.0.1/api/policy/check?pubkey={b.key}&proto=tcp&port=22")
    assert (code, found["allowed"], found["service"]["allowed"]) == (200, True, True)
    stranger = SecretKey.generate().public
    code, found = curl(a, f"http://100.64.0.1/api/policy/check?pubkey={stranger.base58}")
    assert (code, found["allowed"]) == (200, False)
    assert "default_action: deny" in found["reason"]


def test_contacts(net, curl):
    """Written by the API, read by the command line, and known to the node at once."""
    a, b = net
    path = str(a.node.state_dir / ADMIN_SOCKET)
    friend = SecretKey.generate().public

    def ask(method, url, document=None):
        json_ = ("-H", "Content-Type: application/json", "-d", json.dumps(document)) if document else ()
        return curl(a, f"http://localhost{url}", "--unix-socket", path, "-X", method, *json_)

    assert ask("POST", "/api/contacts", {"name": "carol", "key": friend.base58})[0] == 200
    assert ask("POST", "/api/contacts", {"name": "bob", "key": b.key})[1]["online"]
    assert [each["name"] for each in ask("GET", "/api/contacts")[1]["contacts"]] == ["bob", "carol"]
    assert "carol" in a.namespace.run(a.node.command("contacts", "list")).stdout
    name = f"http://100.64.0.1/api/identity?pubkey={friend.hex}"
    eventually(lambda: curl(a, name)[1]["name"] == "carol", 30)
    assert ask("PATCH", "/api/contacts/carol", {"name": "dora"})[1]["key"] == friend.name
    eventually(lambda: curl(a, name)[1]["name"] == "dora", 30)
    for who in ("dora", "bob"):
        assert ask("DELETE", f"/api/contacts/{who}")[0] == 200
    assert ask("GET", "/api/contacts")[1]["contacts"] == []


def test_flows_routes_exits_dns(net, curl):
    a, b = net
    code, page = curl(a, "http://100.64.0.1/api/routes")
    assert [(rule["exit"], bool(rule["where"])) for rule in page["rules"]] == [
        ("b", True),
        ("direct", True),
        ("direct", False),
    ]
    code, found = curl(a, "http://100.64.0.1/api/routes/explain?name=www.video.example")
    assert found["exit"] == "b"
    code, page = curl(a, "http://100.64.0.1/api/flows?limit=5")
    assert (code, page["next"]) == (200, None)
    assert {each["name"] for each in curl(a, "http://100.64.0.1/api/exits")[1]["exits"]} >= {"direct", "b"}
    assert curl(a, "http://100.64.0.1/api/dns")[1]["others"] == "forward"
    code, found = curl(a, "http://100.64.0.1/api/dns/why?name=admin.zignet")
    assert found["source"] == "zone"
    assert curl(b, "http://100.64.0.1/api/dns")[0] == 404


def test_metrics_and_health(net, curl):

    def connected():
        _, text = curl(net["a"], "http://100.64.0.1/metrics")
        return "zignet_peers_connected 1.0" in text.splitlines()

    eventually(connected)
    assert curl(net["a"], "http://100.64.0.1/healthz") == (200, {"state": "running"})


def test_changes_need_the_token(net, curl):
    a, b = net
    url = f"http://100.64.0.1/api/peers/{b.key}/ping"
    assert curl(a, url, "-X", "POST")[0] == 401
    code, found = curl(a, url, "-X", "POST", "-H", f"Authorization: Bearer {token(a)}")
    assert code == 200
    assert 0 < found["rtt_s"] < 10
    path = str(a.node.state_dir / ADMIN_SOCKET)
    code, found = curl(a, "http://localhost/api/reload", "--unix-socket", path, "-X", "POST")
    assert (code, found) == (200, {"reloaded": True})
    code, found = curl(a, "http://localhost/api/dns/flush", "--unix-socket", path, "-X", "POST")
    assert code == 200
    config = a.node.config.read_text()
    try:
        a.node.config.write_text(config + "nonsense: 1\n")
        code, found = curl(a, "http://localhost/api/reload", "--unix-socket", path, "-X", "POST")
        assert code == 409
        assert "nonsense" in found["error"]
    finally:
        a.node.config.write_text(config)


def test_events(net):
    """b's node goes and comes back: whoever listens at a hears of it."""
    a, b = net
    stream = a.namespace.popen(
        ["curl", "-sSN", "--max-time", "60", "http://100.64.0.1/api/events"], stdout=-1, text=True
    )

    def heard(text):
        for line in stream.stdout:
            if text in line:
                return line
        raise AssertionError("the stream ended")

    heard('"running"')
    b.node.stop()
    assert not (b.node.state_dir / ADMIN_SOCKET).exists()
    assert b.key in heard('"left"')
    b.node.start()
    assert a.reaches(a.inner(b))
    assert b.key in heard('"connected"')
    stream.kill()
    stream.wait()


@pytest.mark.parametrize("version", [4, 6])
def test_a_peer_does_not_reach_it(net, version):
    """The address that b has for a leads to a's own address, where the API listens: for a alone."""
    a, b = net
    address = b.inner(a, version)
    assert ping(b, address) == 1
    with pytest.raises(TimeoutError):
        b.namespace.connect(address, 80, timeout_s=2.0)


def test_nor_does_the_cable(net):
    """A neighbour who sends packets for our ZigNet address over the cable."""
    a, b = net
    b.namespace.route("100.64.0.1/32", gateway=a.address)
    end = b.namespace.socket()
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        end.settimeout(2.0)
        with pytest.raises((TimeoutError, ConnectionRefusedError)):
            end.connect(("100.64.0.1", 80))
    finally:
        end.close()


def test_a_killed_control_process_ends_no_session_and_comes_back(net, curl):
    """Whoever asks meanwhile waits: the sockets are the packet process's."""
    a, b = net
    pid = a.status()["control"]["pid"]
    with Stream(a, a.inner(b)) as stream:
        stream.goes_on()
        os.kill(pid, signal.SIGKILL)
        code, found = curl(a, "http://100.64.0.1/api/whoami")
        assert (code, found["key"]) == (200, a.key)
        stream.goes_on()
    assert a.status()["control"]["pid"] != pid
