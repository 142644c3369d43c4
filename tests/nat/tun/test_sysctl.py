import pytest

from nat.tun import sysctl

pytestmark = pytest.mark.root


def value(host, setting):
    return host.shell(f"cat /proc/sys/net/{setting}").strip()


def test_the_settings_of_a_device_that_carries_both(bare):
    bare.open()
    assert bare.call(sysctl.settle, "zig0", route_localnet=True, ipv6=True) == []
    assert value(bare, "ipv4/conf/zig0/route_localnet") == "1"
    assert value(bare, "ipv4/conf/zig0/rp_filter") == "0"
    assert value(bare, "ipv6/conf/zig0/addr_gen_mode") == "1"
    assert value(bare, "ipv6/conf/zig0/accept_ra") == "0"
    bare.shell("ip link set zig0 up")
    assert "fe80" not in bare.shell("ip address show zig0")


def test_a_device_that_carries_only_ipv4_has_no_ipv6(bare):
    bare.open()
    bare.call(sysctl.settle, "zig0", route_localnet=False, ipv6=False)
    assert value(bare, "ipv6/conf/zig0/disable_ipv6") == "1"
    assert value(bare, "ipv4/conf/zig0/route_localnet") == "0"


def test_restore_makes_it_like_any_other(bare):
    bare.open()
    bare.open("zig1")
    bare.call(sysctl.settle, "zig0", route_localnet=True, ipv6=True)
    bare.call(sysctl.restore, "zig0")
    listing = "cd /proc/sys/net; grep -s . ipv4/conf/{0}/* ipv6/conf/{0}/* | grep -v secret | sed s,/{0}/,/,"
    assert bare.shell(listing.format("zig0")) == bare.shell(listing.format("zig1"))
    assert "fe80" not in bare.shell("ip address show zig0")


def test_restoring_what_is_gone_does_nothing(bare):
    bare.call(sysctl.restore, "zig0")


@pytest.mark.parametrize("which", ["all", "default"])
def test_ipv6_that_is_switched_off(bare, which):
    assert bare.call(sysctl.ipv6_enabled)
    bare.namespace.sysctl(f"net.ipv6.conf.{which}.disable_ipv6", 1)
    assert not bare.call(sysctl.ipv6_enabled)
    assert sysctl.ipv6_exists()
