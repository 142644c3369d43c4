"""Against the kernel's own messages, through pyroute2."""

import pytest

from nat.tun import messages
from nat.tun.rules import MAIN, Priority, Rule

RULES = [
    Rule(Priority.INSIDE, interface="zig0"),
    Rule(Priority.BYPASS, destination="203.0.113.0/24"),
    Rule(Priority.BYPASS, destination="192.0.2.1/32"),
    Rule(Priority.OWN, source="192.0.2.2/32"),
    Rule(Priority.NEAR, table=MAIN, shortest=3),
    Rule(Priority.NEAR, table=MAIN, shortest=0),
    Rule(Priority.CAPTURE, mark=0x5A49, invert=True, table=7649),
    Rule(Priority.CAPTURE, mark=0xFFFFFFFF, invert=True, table=200),
    Rule(Priority.END),
]
RULES6 = [
    Rule(Priority.OWN, source="2001:db8::2/128"),
    Rule(Priority.BYPASS, destination="ff00::/8"),
    *RULES[4:],
]


@pytest.mark.root
@pytest.mark.parametrize(
    ("version", "rule"), [*((4, rule) for rule in RULES), *((6, rule) for rule in RULES6)], ids=str
)
def test_a_rule_comes_back_as_it_was_set_and_goes(bare, version, rule):
    family = messages.FAMILIES[version]

    def ours(ip):
        found = ip.get_rules(family=family)
        return [messages.as_rule(each) for each in found if each.get("priority") == rule.priority]

    request = messages.as_request(rule, version)
    bare.namespace.netlink(lambda ip: ip.rule("add", **request))
    assert bare.namespace.netlink(ours) == [rule]
    bare.namespace.netlink(lambda ip: ip.rule("del", **request))
    assert bare.namespace.netlink(ours) == []


@pytest.mark.root
def test_routes_and_links(host):
    def look(ip):
        routes = {
            messages.block(version, route): messages.device(route)
            for version in (4, 6)
            for route in ip.get_routes(family=messages.FAMILIES[version], table=MAIN)
        }
        links = {link.get("ifname"): (link["index"], messages.kind(link)) for link in ip.get_links()}
        return routes, links

    host.shell(
        "ip route add 192.0.2.128/25 nexthop dev up0 nexthop dev lo; ip route add unreachable 198.18.0.0/15"
    )
    routes, links = host.namespace.netlink(look)
    index, kind = links["up0"]
    assert (kind, links["lo"][1]) == ("veth", "")
    assert {
        routes[block] for block in ("0.0.0.0/0", "192.0.2.0/24", "2001:db8:1::/64", "192.0.2.128/25")
    } == {index}
    assert routes["::/0"] == index
    assert routes["198.18.0.0/15"] == 0
