"""`zignet route explain` against real nodes: the whole way, and a probe that goes it. Nothing is given or stubbed.

laptop ── sealed ── us, jp ── web 192.0.2.4 (https, http), and the name server that each of them asks
"""

import contextlib
import json
import re
import socket

import pytest

from tests.lab.peers import CLOSED, ECHO, eventually, servers
from zignet.lab.certificates import Authority
from zignet.lab.hosts import Hosts
from zignet.lab.namespace import start_module

pytestmark = pytest.mark.root

WEB, WEB6 = "192.0.2.4", "2001:db8::4"
RECORDS = {
    "www.video.example": {"A": [WEB], "AAAA": [WEB6]},
    "private.video.example": {"A": ["10.0.0.3"]},
    "silent.video.example": {"A": [WEB]},
    "www.anime.example": {"A": [WEB]},
    "plain.example": {"A": [WEB], "AAAA": [WEB6]},
    "kept.video.example": {"A": [WEB]},
    "www.ads.example": {"A": [WEB]},
}
ROUTES = ["*.video.example -> us", "*.anime.example -> jp", "*.ads.example -> shut", "MATCH,direct"]
DNS = {"upstreams": [WEB], "real": ["kept.video.example"], "fake": ["*.ads.example"]}
SILENT = 9999


@pytest.fixture(scope="module")
def net():
    with Hosts("laptop", "us", "jp", "web") as hosts, contextlib.ExitStack() as stack:
        web = hosts["web"]
        plan = hosts.directory / "names.json"
        plan.write_text(json.dumps({"records": RECORDS, "addresses": [WEB]}))
        names = start_module(web.namespace, "zignet.lab.nameserver", str(plan))
        stack.callback(names.kill)
        authority = Authority(hosts.directory)
        files = {"www.video.example": list(map(str, authority.issue("www.video.example")))}
        sites = hosts.directory / "sites.json"
        sites.write_text(json.dumps({"sites": {"www.video.example": [WEB6]}, "files": files}))
        pages = start_module(web.namespace, "zignet.lab.servers", str(sites))
        stack.callback(pages.kill)
        stack.enter_context(servers(web))
        silent = web.namespace.socket(socket.AF_INET6)
        silent.bind(("::", SILENT))
        silent.listen()
        stack.callback(silent.close)
        config = hosts.config("laptop", dns=DNS, routes=ROUTES, exits={"shut": {"type": "block"}})
        hosts.start("laptop", config)
        hosts.start("us", hosts.config("us", dns=DNS, exit={"allow": ["laptop"]}))
        hosts.start("jp", hosts.config("jp", dns=DNS, exit={"allow": []}))
        yield hosts


def explain(net, *arguments, host="laptop", timeout_s=120.0):
    """What it prints as JSON, and its exit code."""
    laptop = net[host]
    command = laptop.node.command("route", "explain", *arguments, "--json")
    done = laptop.namespace.run(command, timeout_s=timeout_s)
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done.returncode


def steps(found):
    return {step["stage"]: step["text"] for step in found["steps"]}


def test_the_whole_way_through_a_peer(net):
    found, code = explain(net, "https://www.video.example/page?x=1")
    assert code == 0, found
    assert (found["live"], found["enters"], found["exit"], found["exit_type"]) == (True, True, "us", "peer")
    assert found["dns"]["source"] == "fake"
    assert "*.video.example -> us" in found["dns"]["text"]
    assert found["addresses"][0].startswith("198.19.")
    assert found["addresses"] == found["dns"]["addresses"]
    assert (found["rule"], found["decided"]) == ("*.video.example -> us", "syn")
    assert found["where"].rpartition(":")[2].isdigit()
    assert "it dials www.video.example:443, a name that it resolves itself" in steps(found)["exit"]
    us = net["us"]
    peer = found["peer"]
    assert (peer["name"], peer["key"], peer["state"]) == ("us", us.key, "connected")
    assert peer["path"] == us.endpoint()
    assert peer["path_mtu"] > 1200
    assert peer["rtt_s"] > 0
    assert f"key {us.key[:8]}…, connected" in steps(found)["peer"]
    assert f"direct to {us.endpoint()}, MTU " in steps(found)["path"]
    probe = found["probe"]
    assert (probe["ok"], probe["failed"], probe["verdict"]) == (True, None, None)
    assert [step["step"] for step in probe["steps"]] == ["dns", "connect", "tls", "first_byte"]
    assert all(step["ok"] and step["took_s"] > 0 for step in probe["steps"])
    assert probe["address"] == found["addresses"][0]
    assert (probe["tls"]["version"], probe["tls"]["alpn"]) == ("TLSv1.3", None)
    certificate = probe["tls"]["certificate"]
    assert (certificate["subject"], certificate["issuer"]) == ("www.video.example", "ZigNet lab CA")
    assert certificate["matches"]
    assert probe["http"]["status"].startswith("HTTP/1.1 200")
    (flow,) = found["flows"]  # it went that very way
    assert flow["error"] is None
    assert (flow["exit"], flow["name"], flow["known_by"]) == ("us", "www.video.example", "dns")
    assert flow["down"] > 500


def test_the_flow_is_in_the_books_of_both(net):
    """It never enters the NAT here; there it is a guest's."""
    laptop, us = net["laptop"], net["us"]
    address = explain(net, "www.video.example", "--no-probe")[0]["addresses"][0]
    before = next(one for one in laptop.status()["exits"] if one["name"] == "us")
    with laptop.namespace.connect(address, ECHO, 20.0) as end:
        end.sendall(b"x" * 1000)
        received = 0
        while received < 1000:
            received += len(end.recv(1000))

        def row():
            flows = [one for one in laptop.node.ask("flows", "--json")["flows"] if one["up"] == 1000]
            return flows[0] if flows and flows[0]["down"] == 1000 else None

        flow = eventually(row)
        port = end.getsockname()[1]
        assert (flow["source"], flow["state"]) == (f"100.64.0.1:{port}", "established")
        assert (flow["target"], flow["exit"], flow["name"]) == (
            f"{address}:{ECHO}",
            "us",
            "www.video.example",
        )
        assert laptop.status()["flows"]["past_nat"] == 1
        assert laptop.peer(us)["exit_flows"] == 1
        assert us.peer(laptop)["guest_flows"] == 1
        assert next(one for one in us.status()["exits"] if one["name"] == "guests")["flows"] == 1
        assert "by it" in laptop.namespace.run(laptop.node.command("peers")).stdout
    eventually(lambda: laptop.status()["flows"]["past_nat"] == 0)
    after = next(one for one in laptop.status()["exits"] if one["name"] == "us")
    assert (after["up_bytes"] - before["up_bytes"], after["down_bytes"] - before["down_bytes"]) == (
        1000,
        1000,
    )
    eventually(lambda: us.peer(laptop)["guest_flows"] == 0)


def test_without_a_probe_nothing_is_done(net):
    before = net["us"].status()["totals"]["flows"]
    found, code = explain(net, "never.video.example", "--no-probe")
    assert (code, found["probe"]) == (0, None)
    assert not found["dns"]["given"]
    again, _ = explain(net, "other.video.example", "--no-probe")
    assert found["addresses"] == again["addresses"]  # neither has been given it
    udp, code = explain(net, "udp://www.video.example:443")
    assert (code, udp["probe"], udp["exit"], udp["protocol"]) == (0, None, "us", "udp")
    assert net["us"].status()["totals"]["flows"] == before


def test_a_fake_address_alone(net):
    address = explain(net, "www.video.example", "--no-probe")[0]["addresses"][0]
    found, code = explain(net, f"https://{address}/")
    assert (code, found["exit"], found["probe"]["ok"]) == (0, "us", True)
    assert found["peer"]["name"] == "us"
    stale, code = explain(net, "198.19.200.200:80")
    assert (code, stale["refused"]) == (1, True)
    assert "no name has this address" in steps(stale)["exit"]


@pytest.mark.parametrize(
    ("destination", "step", "told"),
    [
        (
            f"www.video.example:{CLOSED}",
            "connect",
            "us has dialled www.video.example, and the server there refused",
        ),
        ("http://nowhere.video.example", "connect", "us finds no address for nowhere.video.example"),
        ("http://private.video.example", "connect", "us does not dial this for us"),
        (
            "http://www.anime.example",
            "connect",
            "jp does not dial this for us: its `exit` section leaves out",
        ),
        ("https://www.ads.example", "connect", "*.ads.example -> shut"),
        (f"https://www.video.example:{ECHO}", "tls", "TLS with www.video.example port 7007 failed"),
        ("http://nothing.example", "dns", "There is no name nothing.example"),
    ],
)
def test_where_it_fails_and_what_to_do(net, destination, step, told):
    found, code = explain(net, destination)
    assert code == 1
    assert (found["probe"]["ok"], found["probe"]["failed"]) == (False, step)
    assert told in found["probe"]["verdict"]
    assert found["probe"]["steps"][-1]["ok"] is False


def test_a_silent_server_ends_in_time(net):
    found, code = explain(net, f"https://silent.video.example:{SILENT}", "--timeout", "1")
    assert (code, found["probe"]["failed"]) == (1, "tls")
    assert "stands, but there was no answer within 1 s" in found["probe"]["verdict"]


def test_a_direct_one(net):
    found, code = explain(net, "http://plain.example/")
    assert code == 0, found
    assert (found["exit"], found["dns"]["source"]) == ("direct", "forwarded")
    assert f"{WEB}:53; no rule about names leads it to an exit" in found["dns"]["text"]
    assert found["addresses"] == [WEB, WEB6]
    assert (found["peer"], found["enters"]) == (None, False)  # proxy.mode is off
    assert found["probe"]["http"]["status"].startswith("HTTP/1.1 200")
    refused, code = explain(net, f"http://plain.example:{CLOSED}")
    assert code == 1
    assert "did not go through ZigNet" in refused["probe"]["verdict"]


def test_a_name_that_a_list_keeps_real(net):
    found, code = explain(net, "http://kept.video.example")
    assert (code, found["dns"]["source"]) == (0, "forwarded")
    assert "dns.real lists it" in found["dns"]["text"]
    assert found["addresses"] == [WEB]


def test_a_peer_itself(net):
    found, code = explain(net, f"us.zignet:{CLOSED}")
    assert (found["dns"]["source"], found["peer"]["name"]) == ("zone", "us")
    assert (code, {"syn", "rule", "exit"} & set(steps(found))) == (1, set())
    assert f"us refused the connection: nothing listens on port {CLOSED}" in found["probe"]["verdict"]
    text = net["laptop"].namespace.run(
        net["laptop"].node.command("route", "explain", "us.zignet:80", "--no-probe")
    )
    assert "goes to the peer us" in text.stdout, text.stderr


def test_for_people(net):
    laptop = net["laptop"]
    done = laptop.namespace.run(laptop.node.command("route", "explain", "https://www.video.example"))
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("leaves by us", "fake address 198.19.", "Tried just now", "first byte", "in all"):
        assert part in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


def test_the_system_asks_somebody_else(net):
    """The lab's resolv.conf does not lead to the node, and that is said."""
    found, _ = explain(net, "www.video.example", "--no-probe")
    assert "programs that ask it do not come this way" in steps(found)["system"]


def test_without_a_node(net):
    """The configuration alone, as the file says."""
    laptop = net["laptop"]
    config = laptop.directory / "elsewhere.yaml"
    text = laptop.node.config.read_text()
    config.write_text(text.replace(str(laptop.node.state_dir), str(laptop.directory / "nowhere")))
    command = laptop.node.command("route", "explain", "https://www.video.example", "--json")
    command[command.index("-c") + 1] = str(config)
    done = laptop.namespace.run(command, timeout_s=120)
    found = json.loads(done.stdout)
    assert (done.returncode, found["live"], found["probe"]) == (0, False, None)
    assert (found["exit"], found["dns"]["source"], found["decided"]) == ("us", "fake", "syn")
    assert net["us"].endpoint() in steps(found)["peer"]


def test_the_exit_has_gone(net):
    """The last of these tests: `us` does not come back."""
    net["us"].node.kill()
    for patience in ("2", "60"):  # before the node itself knows, and after
        found, code = explain(net, "https://www.video.example", "--timeout", patience)
        assert (code, found["probe"]["failed"]) == (1, "connect")
        assert re.search("The peer us (does not answer|is not connected)", found["probe"]["verdict"])
        assert "zignet ping us" in found["probe"]["verdict"]


def test_nothing_was_a_surprise(net):
    for name in ("laptop", "us", "jp"):
        assert "Traceback" not in net[name].node.log()
