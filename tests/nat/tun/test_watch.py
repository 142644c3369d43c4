import select
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat.tun import AddressWatch, apply, sync
from nat.tun.watch import _attributes, _messages


@pytest.fixture
def watch(host):
    made = host.call(AddressWatch, "zig0")
    yield made
    made.close()


def changed(host, watch):
    """`drain` in the namespace; True or False, after waiting a little for the kernel."""
    select.select([watch], [], [], 0.2)
    return host.call(watch.drain)


@pytest.mark.root
@pytest.mark.parametrize("address", ["192.0.2.7/24", "2001:db8:1::7/64"])
def test_an_address_that_comes_and_goes(host, watch, address):
    assert not changed(host, watch)
    host.shell(f"ip addr add {address} dev up0")
    assert changed(host, watch)
    assert not changed(host, watch)
    host.shell(f"ip addr del {address} dev up0")
    assert changed(host, watch)
    assert not changed(host, watch)


@pytest.mark.root
def test_a_lifetime_that_is_renewed_is_no_change(host, watch):
    host.shell("ip addr add 2001:db8:1::7/64 dev up0 valid_lft 100 preferred_lft 100")
    assert changed(host, watch)
    host.shell("ip addr change 2001:db8:1::7/64 dev up0 valid_lft 200 preferred_lft 200")
    assert not changed(host, watch)


@pytest.mark.root
def test_our_own_interface_does_not_count(host, watch):
    host.open()
    host.shell("ip link set zig0 up; ip addr add 100.64.0.1 dev zig0")
    assert not changed(host, watch)


@pytest.mark.root
def test_more_than_the_socket_holds_is_a_change_too(host, watch):
    batch = "".join(f"addr add 10.{i >> 8}.{i & 255}.1/32 dev up0\n" for i in range(4000))
    host.namespace.run(["ip", "-batch", "-"], input=batch)
    assert changed(host, watch)
    assert not changed(host, watch)
    host.shell("ip addr add 192.0.2.7/24 dev up0")
    assert changed(host, watch)


@pytest.mark.root
def test_it_does_not_block_and_can_be_polled(host, watch):
    assert not select.select([watch], [], [], 0)[0]
    assert not host.call(watch.drain)
    host.shell("ip addr add 192.0.2.7/24 dev up0")
    assert select.select([watch], [], [], 2)[0]


@pytest.mark.root
def test_a_rule_that_another_program_removed_comes_back(host, watch, plan):
    """As network managers do that take every rule for theirs."""
    host.open()
    host.call(apply, plan)
    before = host.lines("rule")
    assert not changed(host, watch)
    host.shell("ip rule del pref 8520")
    assert changed(host, watch)
    host.shell("ip rule add pref 9999 lookup main; ip rule del pref 9999")
    assert not changed(host, watch)
    host.call(sync, plan)
    assert host.lines("rule") == before
    assert not changed(host, watch)


def message(kind, body):
    padding = bytes(-len(body) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + padding


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


kinds = st.integers(0, 65535)


@given(st.lists(st.tuples(kinds, st.binary(max_size=40))), st.binary(max_size=15))
def test_each_message_of_a_datagram_is_read(messages, trailing):
    data = b"".join(message(*each) for each in messages)
    assert list(_messages(data + trailing)) == messages


@given(st.lists(st.tuples(kinds, st.binary(max_size=20))))
def test_each_attribute_of_a_message_is_read(attributes):
    assert list(_attributes(b"".join(attribute(*each) for each in attributes))) == attributes


@given(st.binary(max_size=300))
def test_garbage_is_read_to_its_end_and_nothing_else_happens(data):
    watch = AddressWatch()
    for each in (
        *_messages(data),
        *(each for kind in (20, 21, 33) for each in _messages(message(kind, data))),
    ):
        watch._learn(each)
    watch.close()
