from __future__ import annotations

import pytest

from nat.tun import Offload, probe
from zignet.config import Config
from zignet.system import State, live

pytestmark = pytest.mark.root


def firewall(host, hook, rule):
    text = f"table inet test {{\nchain test {{\ntype filter hook {hook}\n{rule}\n}}\n}}\n"
    assert host.run(["nft", "-f", "-"], input=text).returncode == 0


def checks(host, config):
    return {check.name: check for check in host.call(live.checks, config)}


@pytest.mark.parametrize("listener", ["loopback", "tun"])
def test_a_connection_goes_through(host, tmp_path, listener):
    config = Config.parse(f"state_dir: {tmp_path}\ntun: {{listener: {listener}}}\n")
    assert {check.state for check in checks(host, config).values()} == {State.OK}
    assert "zgt" not in host.run(["ip", "link"]).stdout


def test_a_rule_that_eats_127_is_named_with_the_way_out(host, config):
    firewall(host, "prerouting priority raw", "ip daddr 127.0.0.0/8 iifname != lo drop")
    check = checks(host, config)["firewall"]
    assert check.state == State.FAIL
    assert "127.0.0.0/8 from another interface than lo" in check.detail
    assert "tun.listener: tun" in check.advice
    assert "zgt" not in host.run(["ip", "link"]).stdout


def test_an_iptables_rule_is_seen_just_the_same(host, config):
    rule = ["iptables", "-t", "raw", "-A", "PREROUTING", "-d", "127.0.0.0/8", "!", "-i", "lo", "-j", "DROP"]
    assert host.run(rule).returncode == 0
    assert checks(host, config)["firewall"].state == State.FAIL


def test_with_that_rule_the_other_listener_is_well(host, tmp_path):
    firewall(host, "prerouting priority raw", "ip daddr 127.0.0.0/8 iifname != lo drop")
    config = Config.parse(f"state_dir: {tmp_path}\ntun: {{listener: tun}}\n")
    assert checks(host, config)["firewall"].state == State.OK


@pytest.mark.parametrize("listener", ["loopback", "tun"])
def test_a_rule_that_drops_all_input_is_told_apart(host, tmp_path, listener):
    firewall(host, "input priority filter; policy drop;", "iifname lo accept")
    config = Config.parse(f"state_dir: {tmp_path}\ntun: {{listener: {listener}}}\n")
    check = checks(host, config)["firewall"]
    assert check.state == State.FAIL
    assert "allow TCP input from zig0" in check.advice


def test_another_block_is_taken_where_the_range_is_in_use(host, config):
    host.run(["ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1"])
    host.run(["ip", "link", "set", "up0", "up"])
    for block in ("100.64.0.0/10", "198.19.0.0/16"):
        assert host.run(["ip", "route", "add", block, "dev", "up0"]).returncode == 0
    assert {check.state for check in checks(host, config).values()} == {State.OK}
    host.run(["ip", "route", "add", "192.0.2.0/24", "dev", "up0"])
    (check,) = checks(host, config).values()
    assert check.state == State.FAIL
    assert "overlaps route" in check.detail
    assert "zgt" not in host.run(["ip", "link"]).stdout


def test_offload(host, tmp_path, config, monkeypatch):
    assert "TSO4" in checks(host, config)["offload"].detail
    off = Config.parse(f"state_dir: {tmp_path}\ntun: {{offload: off}}\n")
    assert "switched off" in checks(host, off)["offload"].detail
    sample = [(Offload.USO4 | Offload.USO6, b"\0" * 10)]  # too short: the kernel answers EINVAL
    monkeypatch.setattr(probe, "_samples", lambda: sample)
    check = checks(host, config)["offload"]
    assert check.state == State.WARN
    assert "promises more" in check.detail
