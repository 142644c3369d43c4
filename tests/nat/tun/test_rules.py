from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat.tun import Plan
from nat.tun.rules import DEFAULT_LENGTH, Priority, in_order, is_default, wanted

FOUR = Plan(
    name="zig0",
    addresses=("100.64.0.1",),
    capture=True,
    fwmark=0x5A49,
    table=7649,
    bypass=("203.0.113.0/24",),
)
OWN = ["192.0.2.2", "127.0.0.1", "169.254.3.4", "2001:db8::2", "::1", "fe80::1", "10.0.0.1"]


def by(rules, priority):
    return [rule for rule in rules if rule.priority == priority]


def test_own_addresses_but_not_loopback_and_link_local_ones(plan):
    assert {rule.source for rule in by(wanted(plan, 4, OWN), Priority.OWN)} == {"192.0.2.2/32", "10.0.0.1/32"}
    assert {rule.source for rule in by(wanted(plan, 6, OWN), Priority.OWN)} == {"2001:db8::2/128"}


def test_bypassed_blocks_of_the_family_and_what_never_leaves_a_link(plan):
    four = {rule.destination for rule in by(wanted(plan, 4, ()), Priority.BYPASS)}
    assert four == {"203.0.113.0/24", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32"}
    six = {rule.destination for rule in by(wanted(plan, 6, ()), Priority.BYPASS)}
    assert six == {"2001:db8:b::/48", "fe80::/10", "ff00::/8"}


def test_the_capture_spares_marked_packets(plan):
    (capture,) = by(wanted(plan, 4, ()), Priority.CAPTURE)
    assert (capture.mark, capture.invert, capture.table) == (0x5A49, True, 7649)


def test_no_rules_without_capture_or_without_an_address_of_the_family(plan):
    assert not wanted(replace(plan, capture=False), 4, OWN)
    assert not wanted(replace(plan, addresses=("100.64.0.1",)), 6, OWN)


@pytest.mark.parametrize("version", [4, 6])
def test_order(plan, version):
    order = in_order(wanted(plan, version, OWN))
    assert order[0].priority == Priority.END
    assert order[-1].priority == Priority.CAPTURE


@pytest.mark.parametrize("block", ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "::/0", "2000::/3", "8000::/1"])
def test_pieces_of_a_default_route(block):
    assert is_default(block)


@pytest.mark.parametrize("block", ["10.0.0.0/8", "224.0.0.0/4", "fc00::/7", "2001:db8::/32"])
def test_blocks_that_are_no_default_route(block):
    assert not is_default(block)


def decide(rules, packet):
    """A naive walk, as the kernel's: the table that is looked up, or None where it goes on behind END."""
    source, destination, mark, interface, covered = packet
    for rule in sorted(rules):
        if rule.priority == Priority.END:
            return None
        matches = (
            (not rule.source or (source and ip_address(source) in ip_network(rule.source)))
            and (not rule.destination or ip_address(destination) in ip_network(rule.destination))
            and (not rule.interface or rule.interface == interface)
            and (not rule.mark or rule.mark == mark)
        )
        if bool(matches) == rule.invert:
            continue
        if not rule.table:
            return None  # goto END
        if rule.shortest < 0 or covered > rule.shortest:
            return rule.table
    raise AssertionError("there is no END")


@given(
    source=st.sampled_from(["", "192.0.2.2", "10.0.0.1", "100.64.0.1"]),
    destination=st.ip_addresses(v=4).map(str) | st.sampled_from(["203.0.113.7", "224.0.0.251"]),
    mark=st.sampled_from([0, 1, 0x5A49]),
    interface=st.sampled_from(["", "zig0", "up0"]),
    covered=st.sampled_from([0, 1, 24]),  # prefix length of the best route in `main`
)
def test_what_enters_the_device(source, destination, mark, interface, covered):
    """Exactly what is neither ours, nor near, nor bypassed, nor bound to another address."""
    verdict = decide(wanted(FOUR, 4, OWN), (source, destination, mark, interface, covered))
    address = ip_address(destination)
    spared = (
        interface == "zig0"
        or source in ("192.0.2.2", "10.0.0.1")
        or address in ip_network("203.0.113.0/24")
        or address.is_multicast
        or address in ip_network("169.254.0.0/16")
        or destination == "255.255.255.255"
    )
    near = covered > DEFAULT_LENGTH[4]
    if spared:
        assert verdict is None
    elif near:
        assert verdict == 254
    else:
        assert verdict == (None if mark == 0x5A49 else 7649)
