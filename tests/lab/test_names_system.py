"""The system's names lead to a real node: programs that know nothing of it, in a host with an /etc of its own."""

import json

import pytest

from tests.lab.peers import eventually
from tests.lab.test_names import DNS, ROUTES, VIDEO4, name_server
from zignet.lab.etc import copy_etc
from zignet.lab.internet import OFFICE
from zignet.lab.running import Running

pytestmark = pytest.mark.root

__all__ = ["name_server"]

RESOLV_CONF = f"# by hand\nsearch corp.example\nnameserver {OFFICE}\noptions timeout:3\n"


class Private(Running):
    """A node in a mount namespace, whose /etc is a copy."""

    def command(self, *arguments):
        command = super().command(*arguments)
        if arguments != ("up",):
            return command
        script = f'mount --bind {self.etc} /etc && exec "$@"'
        return ["unshare", "-m", "sh", "-c", script, "sh", *command]

    @property
    def etc(self):
        return self.directory / "etc"

    @property
    def resolv_conf(self):
        return (self.etc / "resolv.conf").read_text()

    def inside(self, *command):
        """Run a program that sees this /etc."""
        return self.namespace.run(["nsenter", "-t", str(self.process.pid), "-m", *command])


@pytest.fixture
def node(net, directories, config, name_server):
    directory = directories()
    copy_etc(directory, RESOLV_CONF)
    dns = DNS.replace(f"upstreams: [{OFFICE}]", "mode: resolvconf")
    with Private(net.host, directory, config(ROUTES, dns)) as made:
        eventually(lambda: "100.64.0.1" in made.resolv_conf, 30)
        yield made


def page(node, name):
    done = node.inside("curl", "-sS", "--max-time", "15", f"http://{name}/")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_curl_needs_to_be_told_nothing(net, node):
    assert page(node, "www.shop.example")["server"] == "video.example"
    assert page(node, "www.video.example")["client"] in ("198.51.100.10", "2001:db8:2::10")  # tokyo
    assert node.inside("getent", "ahostsv4", "plain.test.example").stdout.startswith("203.0.113.30")
    assert node.inside("getent", "ahostsv4", "admin.zignet").stdout.startswith("100.64.0.1")
    status = node.ask("dns", "status", "--json")
    assert status["mechanism"] == "resolvconf"
    assert status["upstreams"] == [f"{OFFICE}:53"]
    assert "zignet" in status["domains"]
    assert node.stop() == 0
    assert node.resolv_conf == RESOLV_CONF


def test_after_a_kill_it_comes_back_with_the_same_upstreams(net, node):
    node.kill()
    assert "100.64.0.1" in node.resolv_conf
    node.start()
    eventually(lambda: node.ask("dns", "status", "--json")["mechanism"] == "resolvconf", 30)
    assert page(node, "www.shop.example")["server"] == "video.example"
    assert node.inside("getent", "ahostsv4", "plain.test.example").stdout.startswith("203.0.113.30")
    assert node.stop() == 0
    assert node.resolv_conf == RESOLV_CONF


def test_why(net, node):
    def why(name, *options):
        done = net.host.run(node.command("dns", "query", name, *options, "--json"))
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "*.video.example -> tokyo" in why("www.video.example")
    assert "dns.fake lists it" in why("www.shop.example")
    assert OFFICE in why("plain.test.example")
    assert VIDEO4 not in why("www.shop.example")


def test_a_reload_leads_other_domains_here_and_off_takes_it_back(net, node, config):
    dns = DNS.replace(f"upstreams: [{OFFICE}]", "mode: resolvconf")
    node.reload(config([*ROUTES, "DOMAIN-SUFFIX,test.example,tokyo"], dns))
    eventually(lambda: "test.example" in node.ask("dns", "status", "--json")["domains"], 30)
    node.reload(config(ROUTES, dns.replace("resolvconf", "off")))
    eventually(lambda: node.resolv_conf == RESOLV_CONF, 30)


def test_a_start_without_names_takes_back_what_a_kill_left(node, config):
    node.kill()
    assert node.resolv_conf != RESOLV_CONF
    node.write(config(ROUTES, 'proxy: {mode: "off"}\n'))
    node.start()
    assert node.resolv_conf == RESOLV_CONF


def test_doctor_says_how_it_would_be(net, node):
    done = net.host.run(node.command("doctor", "--json"))
    (found,) = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "names"]
    assert "resolvconf" in found["detail"] or "changed" in found["detail"]


def test_what_somebody_else_writes_is_led_here_again(net, node):
    """A DHCP client has heard of other name servers: names come here again, and the others are asked there."""
    changed = f"# by dhclient\nnameserver 192.0.2.200\nnameserver {OFFICE}\n"
    (node.etc / "resolv.conf").write_text(changed)
    eventually(lambda: "100.64.0.1" in node.resolv_conf, 60)
    assert page(node, "www.shop.example")["server"] == "video.example"
    eventually(
        lambda: node.ask("dns", "status", "--json")["upstreams"] == ["192.0.2.200:53", f"{OFFICE}:53"], 30
    )
    assert "led here again" in node.log()
    assert node.stop() == 0
    assert node.resolv_conf == changed
