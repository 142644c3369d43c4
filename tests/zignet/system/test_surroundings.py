from __future__ import annotations

from dataclasses import replace

import pytest

from nat.tun import apply, open_tun
from zignet.config import Config
from zignet.node import plan_of
from zignet.system import State, surroundings

pytestmark = pytest.mark.root


def checks(host, config):
    return {check.name: check for check in host.call(surroundings.checks, config, plan_of(config))}


def shell(host, *commands):
    for command in commands:
        done = host.run(command.split())
        assert done.returncode == 0, done


def test_an_empty_host(host, config):
    assert {check.state for check in checks(host, config).values()} == {State.OK}


def test_an_overlap_names_both(host, config):
    shell(
        host,
        "ip link add up0 type veth peer name up1",
        "ip link set up0 up",
        "ip route add 100.64.0.0/10 dev up0 table 52",
    )
    check = checks(host, config)["address ranges"]
    assert check.state == State.FAIL
    assert "100.64.0.0/10 (tun.range) overlaps route 100.64.0.0/10 dev up0 table 52" in check.detail
    assert "tun.range" in check.advice


def test_other_tunnels_and_pieces_of_a_default_route(host, config):
    shell(
        host,
        "ip tuntap add Meta mode tun",
        "ip address add 198.18.0.1/30 dev Meta",
        "ip link set Meta up",
        "ip route add 0.0.0.0/1 dev Meta",
    )
    seen = checks(host, config)
    assert seen["other tunnels"].state == seen["default routes"].state == State.WARN
    assert "Meta (tun, 198.18.0.1)" in seen["other tunnels"].detail
    assert "0.0.0.0/1 dev Meta" in seen["default routes"].detail


@pytest.mark.parametrize(("mode", "state"), [("global", State.FAIL), ("off", State.WARN)])
def test_another_zignet(host, config, tmp_path, mode, state):
    tun = host.call(open_tun, "auto", "zig7", "auto")
    other = {"addresses": ("198.18.0.1",), "aliases": ("198.18.128.0/17",), "ranges": (), "table": 8000}
    host.call(apply, replace(plan_of(config), name="zig7", **other))
    check = checks(host, Config.parse(f"state_dir: {tmp_path}\nproxy: {{mode: {mode}}}\n"))["policy routing"]
    assert (check.state, "zig7" in check.detail) == (state, True)
    tun.close()
