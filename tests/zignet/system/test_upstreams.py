from __future__ import annotations

import socket

import pytest

from zignet.config import Config
from zignet.system import State, upstreams


def config_with(tmp_path, **exits):
    lines = "".join(f"  {name}: {{type: socks5, address: '{address}'}}\n" for name, address in exits.items())
    return Config.parse(f"state_dir: {tmp_path}\nexits:\n{lines}")


def test_without_exits_there_is_nothing_to_check(config):
    assert upstreams.checks(config) == []


def test_one_that_answers_and_one_that_does_not(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as closed:
        port, other = server.getsockname()[1], closed.getsockname()[1]
        closed.close()
        good, bad = upstreams.checks(
            config_with(tmp_path, good=f"127.0.0.1:{port}", bad=f"127.0.0.1:{other}")
        )
    assert (good.name, good.state) == ("exit good", State.OK)
    assert (bad.name, bad.state) == ("exit bad", State.WARN)
    assert "refused" in bad.detail


def test_ipv6(tmp_path):
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        (check,) = upstreams.checks(config_with(tmp_path, six=f"[::1]:{server.getsockname()[1]}"))
    assert check.state == State.OK


@pytest.mark.root
def test_silence_ends_after_two_seconds(host, tmp_path, monkeypatch):
    monkeypatch.setattr(upstreams, "TIMEOUT_S", 0.2)
    rule = ["iptables", "-A", "OUTPUT", "-d", "127.0.0.9", "-j", "DROP"]
    assert host.run(rule).returncode == 0

    def inside():
        from zignet.system.upstreams import _reach

        config = config_with(tmp_path, mute="127.0.0.9:1080")
        return _reach(config, config.exits["mute"])

    check = host.call(inside)
    assert (check.state, "no answer within 0.2 s" in check.detail) == (State.WARN, True)
