"""Plans, carried out on a real host: what `apply`, `sync` and `remove` do to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from dataclasses import replace

import pytest

from nat.tun import (
    InterfaceGone,
    NotPermitted,
    Overlap,
    OwnedByAnother,
    SettingRefused,
    TunError,
    apply,
    configure,
    remove,
    survey,
    sync,
)

pytestmark = pytest.mark.root

SO_MARK = 36


def test_everything_is_as_it_was_after_remove_and_close(host, plan):
    before = host.state()
    tun = host.open()
    applied = host.call(apply, plan)
    assert (applied.ipv6, applied.notes) == (True, ())
    during = host.state()
    assert "100.127.0.0/16 dev zig0" in during
    assert len(during.splitlines()) > len(before.splitlines()) + 20
    host.call(remove, plan)
    tun.close()
    assert host.state() == before


def test_closing_the_device_alone_already_frees_the_traffic(host, plan):
    tun = host.open()
    host.call(apply, plan)
    assert host.way(host.far4) == "zig0"
    tun.close()
    assert (host.way(host.far4), host.way(host.far6)) == ("up0", "up0")


def test_what_enters_and_what_does_not(host, plan):
    host.open()
    host.shell("ip route add 10.20.0.0/16 via 192.0.2.1; ip route add 0.0.0.0/1 via 192.0.2.1")
    host.call(apply, plan)
    ways = {each: host.way(each) for each in (host.far4, "9.9.9.9", host.far6, "10.20.3.4", "192.0.2.77")}
    assert ways == {
        host.far4: "zig0",
        "9.9.9.9": "zig0",
        host.far6: "zig0",
        "10.20.3.4": "up0",
        "192.0.2.77": "up0",
    }
    for spared in ("203.0.113.9", "2001:db8:b::9", "224.0.0.251", "255.255.255.255", "169.254.7.7"):
        assert host.way(spared) == "up0"
    assert host.way("127.0.0.9") == "lo"
    assert host.way("fe80::1", "oif up0") == host.way("ff02::fb", "oif up0") == "up0"
    for far, near in ((host.far4, host.near4), (host.far6, host.near6)):
        assert (
            host.way(far, "mark 0x5a49") == host.way(far, f"from {near}") == host.way(far, "oif up0") == "up0"
        )
    assert host.way("100.127.200.7") == host.way("fd7a:0:0:ffff::77") == "zig0"
    assert "src 100.64.0.1 " in host.shell(f"ip route get {host.far4}")
    assert "src fd7a::1 " in host.shell(f"ip route get {host.far6}")


def test_the_kernel_sends_nothing_of_its_own_into_the_device(host, plan):
    tun = host.open()
    host.call(apply, plan)
    host.shell("sleep 1.5")  # router solicitations and membership reports come within a second
    with pytest.raises(BlockingIOError):
        os.read(tun.fileno(), 2000)


def test_settings_of_the_device(host, plan):
    host.open()
    host.call(apply, replace(plan, mtu=1400, queue_length=777))
    link = host.shell("ip -d link show zig0")
    assert "mtu 1400" in link
    assert "qlen 777" in link
    assert "MULTICAST" not in link
    assert host.shell("cat /proc/sys/net/ipv4/conf/zig0/route_localnet") == "1\n"
    addresses = host.shell("ip -br address show zig0")
    assert addresses.split()[2:] == ["100.64.0.1/32", "fd7a::1/128"]


def test_nothing_of_another_interface_changes(host, plan):
    mine = "cd /proc/sys/net; grep -s . ipv4/conf/[!z]*/* ipv6/conf/[!z]*/* | grep -v stable_secret"
    before = host.shell(mine)
    host.open()
    host.call(apply, plan)
    assert host.shell(mine) == before


def test_route_localnet_stays_off_where_it_is_not_needed(host, plan):
    host.open()
    host.call(apply, replace(plan, route_localnet=False))
    assert host.shell("cat /proc/sys/net/ipv4/conf/zig0/route_localnet") == "0\n"


def test_services_of_the_host_stay_reachable_under_strict_rp_filter(host, plan):
    """Old connections, new ones from outside, and our own marked ones."""
    far = host.outside
    with socket_server(host, host.near4) as service, socket_server(far, host.far4) as remote:
        old = host.namespace.connect(host.far4, remote.getsockname()[1])
        old_far = remote.accept()[0]
        host.open()
        host.call(apply, plan)
        assert host.shell("cat /proc/sys/net/ipv4/conf/all/rp_filter") == "1\n"
        old.send(b"still here")
        assert old_far.recv(100) == b"still here"
        new = far.connect(host.near4, service.getsockname()[1])
        service.accept()[0].send(b"hello")
        assert new.recv(100) == b"hello"
        marked = host.namespace.socket()
        marked.setsockopt(socket.SOL_SOCKET, SO_MARK, plan.fwmark)
        marked.settimeout(3)
        marked.connect(remote.getsockname())
        for each in (old, old_far, new, marked):
            each.close()


def socket_server(where, address):
    call = where.call
    server = call(socket.create_server, (address, 0))
    server.settimeout(3)
    return server


def test_apply_twice_changes_nothing(host, plan):
    host.open()
    host.call(apply, plan)
    once = host.state()
    assert host.call(apply, plan).notes == ()
    assert host.state() == once


def test_another_plan_for_the_same_device_replaces_the_first(host, plan):
    host.open()
    host.call(apply, replace(plan, capture=False))
    without = host.state()
    assert "lookup 7649" not in without
    host.call(apply, replace(plan, bypass=("198.51.100.0/24",), table=9000, routes=("198.19.0.0/16",)))
    assert host.way(host.far4) == "up0"
    assert host.way("198.19.1.2") == host.way("203.0.113.9") == "zig0"
    assert "lookup 7649" not in host.state()
    host.call(apply, replace(plan, capture=False))
    assert host.state() == without


RUN_AND_WAIT = """
import sys, time
from nat.tun import Plan, apply, open_tun
import json
plan = Plan.from_json(json.loads(sys.argv[1]))
tun = open_tun("auto", plan.name, "auto")
apply(plan)
print("up", flush=True)
time.sleep(60)
"""


def test_the_next_start_repairs_what_kill_9_left(host, plan):
    before = host.state()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(each) for each in sys.path)}
    argv = [sys.executable, "-c", RUN_AND_WAIT, json.dumps(plan.to_json())]
    first = host.namespace.popen(argv, stdout=-1, env=environment)
    assert first.stdout.readline() == b"up\n"
    first.send_signal(signal.SIGKILL)
    first.wait()
    first.stdout.close()
    left = host.state()
    assert "lookup 7649" in left
    assert "dev zig0" not in left
    assert host.way(host.far4) == "up0"  # what is left is harmless

    again = "ip route add default via 192.0.2.1 proto static"
    move = f"ip addr del {{}} dev up0; ip addr add {{}} dev up0; {again}"
    host.shell(move.format("192.0.2.2/24", "192.0.2.3/25"))
    tun = host.open()
    (note,) = host.call(apply, replace(plan, table=8000)).notes
    assert "rules of an earlier run" in note
    rules = host.shell("ip rule")
    assert "192.0.2.0/25 " in rules
    assert "192.0.2.0/24 " not in rules
    assert "7649" not in rules
    host.call(remove, replace(plan, table=8000))
    tun.close()
    host.shell(move.format("192.0.2.3/25", "192.0.2.2/24"))
    assert sorted(host.state().splitlines()) == sorted(before.splitlines())


def test_remove_works_without_the_device(host, plan):
    before = host.state()
    tun = host.open()
    host.call(apply, plan)
    tun.close()
    host.call(remove, plan)
    assert host.state() == before
    host.call(remove, plan)


def test_remove_leaves_a_device_that_is_not_ours_as_a_fresh_one(host, plan):
    host.shell("ip tuntap add zig0 mode tun; ip tuntap add zig1 mode tun")
    host.open()
    host.call(apply, plan)
    host.call(remove, plan)
    settings = (
        "cd /proc/sys/net; grep -s . ipv4/conf/{0}/* ipv6/conf/{0}/* | grep -v stable_secret | sed s,/{0}/,/,"
    )
    assert host.shell(settings.format("zig0")) == host.shell(settings.format("zig1"))
    assert "100." not in host.shell("ip route show table all; ip address show zig0")


def test_sync_follows_the_addresses_of_the_host(host, plan):
    host.open()
    host.call(apply, plan)
    host.shell(
        "ip addr add 198.51.100.50/25 dev up0; ip addr add 2001:db8:f::50/64 dev up0;"
        "ip addr del 2001:db8:1::2/64 dev up0"
    )
    host.call(sync, plan)
    four, six = host.lines("-4 rule"), host.lines("-6 rule")
    assert "8510: from 198.51.100.0/25 goto 8540 proto 90" in four
    assert "8510: from 192.0.2.0/24 goto 8540 proto 90" in four
    assert [line for line in six if line.startswith("8510")] == [
        "8510: from 2001:db8:f::/64 goto 8540 proto 90"
    ]


def test_sync_after_remove_does_nothing(host, plan):
    """A thread of the node may come late."""
    host.open()
    before = host.lines("rule")
    host.call(apply, plan)
    host.call(remove, plan)
    host.call(sync, plan)
    assert host.lines("rule") == before


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "ip route add 100.64.0.0/10 dev up0",
            "100.64.0.0/10 (tun.range) overlaps route 100.64.0.0/10 dev up0",
        ),
        ("ip route add 100.0.0.0/8 dev up0 table 52", "overlaps route 100.0.0.0/8 dev up0 table 52"),
        ("ip addr add 100.100.1.1/32 dev up0", "overlaps address 100.100.1.1 dev up0"),
        ("ip route add unreachable 100.64.7.0/24", "overlaps route 100.64.7.0/24"),
        (
            "ip -6 route add fd7a:0:0:7::/64 dev up0",
            "fd7a::/48 (tun.range6) overlaps route fd7a:0:0:7::/64 dev up0",
        ),
    ],
)
def test_an_overlap_names_both_sides_and_leaves_no_trace(host, plan, command, said):
    host.shell(command)
    tun = host.open()
    before = host.state()
    with pytest.raises(Overlap) as raised:
        host.call(apply, plan)
    assert said in raised.value.why
    assert raised.value.advice == "set tun.range or tun.range6 to free blocks"
    assert host.state() == before
    tun.close()


def test_default_routes_and_their_halves_overlap_nothing(host, plan):
    host.open()
    host.shell(
        "ip route add 0.0.0.0/1 via 192.0.2.1; ip -6 route add ::/1 dev up0; ip -6 route add 8000::/1 dev up0"
    )
    host.call(apply, plan)
    assert host.way(host.far6) == host.way("1.1.1.1") == "zig0"
    assert set(host.call(survey, plan).defaults) == {"0.0.0.0/1 dev up0", "::/1 dev up0", "8000::/1 dev up0"}


def test_without_ipv6_the_rest_works_and_it_is_said(host, plan):
    before = [line for line in host.state().splitlines() if "ipv6" not in line]
    host.namespace.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    tun = host.open()
    applied = host.call(apply, plan)
    assert not applied.ipv6
    assert "IPv6 is switched off" in applied.notes[0]
    assert host.way(host.far4) == "zig0"
    assert not [line for line in host.lines("-6 rule") if "zig0" in line or "7649" in line]
    assert "inet6" not in host.shell("ip address show zig0")
    host.call(remove, plan)
    tun.close()
    assert before[0] in host.state()


def test_a_plan_without_ipv6_says_that_ipv6_goes_its_own_way(host, plan):
    host.open()
    applied = host.call(apply, replace(plan, addresses=("100.64.0.1",), aliases=("100.127.0.0/16",)))
    assert not applied.ipv6
    assert "IPv6 traffic keeps its own way" in applied.notes[0]
    assert host.way(host.far6) == "up0"


def test_a_rule_of_another_program_that_comes_first_is_noticed(host, plan):
    host.open()
    host.shell("ip route add default via 192.0.2.1 table 99; ip rule add pref 5000 lookup 99")
    (note,) = host.call(apply, plan).notes
    assert note.startswith("up0 takes IPv4 traffic before zig0")


def test_the_rules_of_others_further_down_are_met(host, plan):
    """A host with two uplinks keeps sending each address its own way."""
    host.shell(
        "ip link add up1 type veth peer name peer1; ip link set up1 up; ip addr add 192.0.2.130/25 dev up1;"
        "ip route add default dev up1 table 101; ip rule add from 192.0.2.130 lookup 101 pref 20000"
    )
    host.open()
    host.call(apply, plan)
    assert host.way(host.far4, "from 192.0.2.130") == "up1"
    assert host.way(host.far4, "from 192.0.2.2") == "up0"


def test_a_second_zignet_does_not_take_the_first_ones_place(host, plan):
    host.open()
    host.call(apply, plan)
    during = host.lines("rule")
    host.open("zig1")
    other = {"addresses": ("198.18.0.1",), "aliases": ("198.18.128.0/17",), "ranges": (), "table": 8000}
    second = replace(plan, name="zig1", **other)
    with pytest.raises(OwnedByAnother, match="zig0 captures"):
        host.call(apply, second)
    host.call(apply, replace(second, capture=False))
    assert host.call(survey, second).owner == "zig0"
    assert host.lines("rule") == during
    host.call(remove, second)
    assert host.lines("rule") == during
    assert host.way(host.far4) == "zig0"


def test_an_interface_that_does_not_exist(host, plan):
    with pytest.raises(InterfaceGone, match="no interface of that name"):
        host.call(apply, plan)


def test_a_failure_half_way_takes_everything_back(host, plan):
    """An MTU that no device has is refused late, after the settings."""
    tun = host.open()
    before = host.state()
    with pytest.raises(TunError, match="cannot configure zig0"):
        host.call(apply, replace(plan, mtu=70000))
    assert host.state() == before
    tun.close()


APPLY = """
import json, sys
from nat.tun import Plan, TunError, apply, survey
plan = Plan.from_json(json.loads({plan!r}))
try:
    print({task}(plan))
except TunError as error:
    print(type(error).__name__, error)
"""


def program(plan, task="apply"):
    return APPLY.format(plan=json.dumps(plan.to_json()), task=task)


def test_without_the_privilege(host, plan):
    """Root without CAP_NET_ADMIN, as in a container."""
    host.open()
    before = host.state()
    drop = "setpriv --bounding-set=-net_admin"
    said = host.python(program(plan), through=drop)
    assert said.startswith(NotPermitted.__name__), said
    assert "CAP_NET_ADMIN" in said
    assert host.state() == before
    assert host.python(program(plan, "survey"), through=drop).startswith("Survey(ipv6=True, overlaps=()")


MOUNT = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys"
READ_ONLY = f"unshare -m sh -c '{MOUNT} && exec \"$@\"' sh"


def test_a_read_only_proc_sys(host, plan):
    host.open()
    said = host.python(program(plan), through=READ_ONLY)
    assert said.startswith(SettingRefused.__name__), said
    assert "/proc/sys is read-only here" in said
    assert "tun.listener: tun" in said
    said = host.python(program(replace(plan, route_localnet=False)), through=READ_ONLY)
    assert said.startswith("Applied(ipv6=True"), said


def test_a_container_that_gave_new_interfaces_the_setting_needs_no_write(host, plan):
    host.namespace.sysctl("net.ipv4.conf.default.route_localnet", 1)
    host.open()
    assert host.python(program(plan), through=READ_ONLY).startswith("Applied(ipv6=True")


def test_survey_sees_other_tunnels(host, plan):
    host.shell(
        "ip tuntap add wg9 mode tun; ip addr add 10.9.0.1/24 dev wg9; ip route add 100.64.0.0/10 dev up0"
    )
    seen = host.call(survey, plan)
    (neighbour,) = seen.neighbours
    assert (neighbour.name, neighbour.kind, neighbour.addresses) == ("wg9", "tun", ("10.9.0.1",))
    assert seen.overlaps == ("100.64.0.0/10 (tun.range) overlaps route 100.64.0.0/10 dev up0",)
    assert (seen.rules, seen.owner, seen.ipv6) == (0, "", True)


def test_a_helper_that_cannot_run_is_an_error_of_ours(monkeypatch, plan):
    monkeypatch.setattr(configure.sys, "executable", "/bin/false")
    with pytest.raises(TunError, match="the helper failed: exit code 1"):
        survey(plan)
    monkeypatch.setattr(configure.sys, "executable", "/no/such/python")
    with pytest.raises(TunError, match="No such file"):
        survey(plan)


def test_the_node_never_loads_pyroute2(bare):
    assert (
        bare.python("import sys, nat.tun; print('pyroute2' in sys.modules, 'asyncio' in sys.modules)")
        == "False False\n"
    )


def test_connections_over_the_device_are_not_paced(host, plan):
    """Both ends are on this host; a paced sender would only wake up more often."""
    host.open()
    host.call(apply, plan)
    for family in ("-4", "-6"):
        routes = [
            line for line in host.lines(f"{family} route show table all proto 90") if "dev zig0" in line
        ]
        assert routes
        assert all("congctl reno" in line for line in routes)
