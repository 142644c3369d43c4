"""All of it, in a namespace of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from nat.tun import apply, open_tun
from zignet.config import Config
from zignet.node import plan_of
from zignet.system import State, doctor, privileges, run

pytestmark = pytest.mark.root

NAMES = [
    "permission", "TUN driver", "kernel", "route_localnet", "IPv6", "policy routing", "address ranges",
    "other tunnels", "default routes", "offload", "firewall", "file descriptors", "listen backlog", "other instance",
]  # fmt: skip


def state_of(host):
    return host.run(
        ["sh", "-c", "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; ip -br l"]
    )


def test_a_healthy_machine_passes_and_is_left_as_it_was(host, config):
    before = state_of(host).stdout
    checks = host.call(run, config)
    assert [check.name for check in checks] == NAMES
    assert {check.name: check.detail for check in checks if check.state > State.WARN} == {}
    assert state_of(host).stdout == before


def test_it_works_beside_a_running_node_and_does_not_disturb_it(host, config):
    tun = host.call(open_tun, "auto", "zig0", "auto")
    host.call(apply, plan_of(config))
    before = state_of(host).stdout
    checks = {check.name: check for check in host.call(run, config)}
    assert all(check.state <= State.WARN for check in checks.values()), checks
    assert "rules of ours" in checks["policy routing"].detail
    assert state_of(host).stdout == before
    tun.close()


def test_a_check_that_breaks_is_a_check_that_failed(host, config, monkeypatch):
    def broken():
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(privileges, "backlog", broken)
    checks = {check.name: check for check in host.call(run, config)}
    assert checks["listen backlog"].state == State.FAIL
    assert "oops" in checks["listen backlog"].detail
    assert "other instance" in checks


def test_a_given_device_is_somebody_elses_to_set_up(host, tmp_path):
    config = Config.parse(f"state_dir: {tmp_path}\ntun: {{device: 'fd:3'}}\n")
    names = [check.name for check in host.call(run, config)]
    assert names == ["file descriptors", "listen backlog", "other instance"]


AS_NOBODY = """
import json, sys
from zignet.config import Config
from zignet.system import run
print(json.dumps({check.name: check.state.name for check in run(Config.parse(sys.argv[1]))}))
"""


def test_without_rights_it_only_looks(host, tmp_path):
    path = os.pathsep.join(os.path.abspath(each) for each in sys.path)
    drop = [
        "setpriv",
        "--bounding-set=-net_admin",
        sys.executable,
        "-c",
        AS_NOBODY,
        f"state_dir: {tmp_path}\n",
    ]
    done: subprocess.CompletedProcess[str] = host.run(drop, env={**os.environ, "PYTHONPATH": path})
    states = json.loads(done.stdout)
    assert states["permission"] == "FAIL"
    assert states["offload"] == states["firewall"] == "SKIP"
    assert states["address ranges"] == "OK"


def test_the_public_names():
    assert doctor.run is run
    assert sorted(State) == [State.OK, State.SKIP, State.WARN, State.FAIL]
