"""The zone of real nodes: peers by name and by key, whether they were seen yet or not; and what peers may ask."""

import ipaddress

import pytest

from tests.lab.peers import eventually, ping
from zignet.lab.hosts import Hosts

pytestmark = pytest.mark.root

DNS = {"listen": ["127.0.0.1:53530"], "upstreams": ["192.0.2.99"], "fake": ["*.shop.example"]}


@pytest.fixture(scope="module")
def net():
    with Hosts("a", "b") as hosts:
        hosts.start_all(dns=DNS)
        yield hosts
        assert not any("Traceback" in host.node.log() for host in hosts)


def dig(host, name, kind="A", server="127.0.0.1", port=53530, *options):
    command = ["dig", f"@{server}", "-p", str(port), "+tries=1", "+time=5", *options, name, kind]
    return host.namespace.run(command).stdout


def short(host, name, kind="A", **where):
    command = ["dig", "@127.0.0.1", "-p", "53530", "+tries=1", "+time=5", "+short", name, kind]
    return host.namespace.run(command).stdout.split()


def test_a_peer_that_nobody_has_seen_yet_has_a_name_and_is_reached_by_it(net):
    a, b = net["a"], net["b"]
    (v4,) = short(a, "b.zignet")
    (v6,) = short(a, "b.zignet", "AAAA")
    assert (v4, v6) == (a.inner(b), a.inner(b, 6))
    assert ping(a, v4) == 1
    assert ping(a, v6) == 1


def test_names_of_keys(net):
    a, b = net["a"], net["b"]
    assert short(a, f"{b.key}.zignet") == short(a, "b.zignet")
    assert short(a, f"{b.key.upper()}.zignet", "AAAA") == short(a, "b.zignet", "AAAA")
    assert short(a, f"{a.key}.zignet") == short(a, "admin.zignet") == ["100.64.0.1"]
    assert short(a, f"{a.key}.zignet", "AAAA") == short(b, "a.zignet", "AAAA")  # the same everywhere
    assert "NXDOMAIN" in dig(a, f"{'a' * 56}.zignet")  # no key: its checksum is wrong


def test_a_key_that_is_not_known_has_its_own_address(net):
    from zignet.identity import SecretKey

    stranger = SecretKey.generate().public
    assert short(net["a"], f"{stranger.name}.zignet") == []
    assert "NOERROR" in dig(net["a"], f"{stranger.name}.zignet")
    (v6,) = short(net["a"], f"{stranger.name}.zignet", "AAAA")
    assert ipaddress.ip_address(v6) in ipaddress.ip_network("fd5a:6967:6e65::/48")


def test_reverse_names(net):
    a, b = net["a"], net["b"]
    for address in (a.inner(b), a.inner(b, 6)):
        assert short(a, ipaddress.ip_address(address).reverse_pointer, "PTR") == ["b.zignet."]
    assert short(a, "1.0.64.100.in-addr.arpa", "PTR") == ["admin.zignet."]


def test_the_nodes_own_addresses_answer(net):
    a = net["a"]
    (own6,) = short(a, "admin.zignet", "AAAA")
    for server in ("100.64.0.1", own6):
        for options in ((), ("+tcp",)):
            assert "100.64.0.1" in dig(a, "admin.zignet", "A", server, 53, *options)


def test_a_peer_is_not_answered(net):
    a, b = net["a"], net["b"]
    assert ping(b, b.inner(a)) == 1
    said = dig(b, "b.zignet", "A", b.inner(a), 53)
    assert "ANSWER SECTION" not in said
    said = dig(b, "b.zignet", "A", b.inner(a), 53, "+tcp")
    assert "ANSWER SECTION" not in said
    dropped = eventually(lambda: a.node.ask("status", "--json")["names"]["dropped"])
    assert dropped["from another host"] >= 2


def test_a_peer_that_is_renamed(net):
    b = net["b"]
    assert short(b, "a.zignet")
    text = b.node.config.read_text().partition("\n")[2]
    b.node.reload(text.replace("name: a", "name: anna"))
    eventually(lambda: short(b, "anna.zignet"), 20)
    assert short(b, "a.zignet") == []
