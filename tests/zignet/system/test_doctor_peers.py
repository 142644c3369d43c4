from __future__ import annotations

import socket

from zignet.config import Config
from zignet.identity import SecretKey, write_key
from zignet.system import State
from zignet.system.peers import checks


def config_with(tmp_path, more=""):
    return Config.parse(f"state_dir: {tmp_path}\n{more}", tmp_path / "zignet.yaml")


def by_name(found):
    return {check.name: check for check in found}


def test_without_peers_there_is_nothing_to_check(tmp_path):
    assert checks(config_with(tmp_path)) == []


def test_a_key_and_a_free_port(tmp_path):
    key = SecretKey.generate()
    write_key(tmp_path / "identity", key)
    found = by_name(checks(config_with(tmp_path, 'listen: ["udp://127.0.0.1:0"]')))
    assert all(check.state == State.OK for check in found.values()), found
    assert key.public.name in found["identity"].detail


def test_no_key(tmp_path):
    check = by_name(checks(config_with(tmp_path, 'listen: ["udp://127.0.0.1:0"]')))["identity"]
    assert check.state == State.FAIL
    assert "zignet init" in check.advice


def test_a_port_that_is_taken(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        check = by_name(checks(config_with(tmp_path, f'listen: ["udp://127.0.0.1:{port}"]')))["underlay port"]
    assert (check.state, str(port) in check.detail) == (State.FAIL, True)


def test_endpoints_with_names(tmp_path):
    one, other = (SecretKey.generate().public.name for _ in range(2))
    peers = (
        f'peers: [{{name: here, key: {one}, endpoint: "localhost:1"}}, '
        f'{{name: gone, key: {other}, endpoint: "no-such-host.invalid:1"}}]'
    )
    found = by_name(checks(config_with(tmp_path, f'listen: ["udp://127.0.0.1:0"]\n{peers}')))
    assert found["peer here"].state == State.OK
    assert found["peer gone"].state == State.WARN


def test_whole_packets(tmp_path, monkeypatch):
    """Only of a host that sends them on."""
    listen = 'listen: ["udp://127.0.0.1:0"]'

    def check(offer):
        return by_name(checks(config_with(tmp_path, f"{listen}\nexit: {offer}"))).get("whole packets")

    assert check("{allow: all}") is None
    assert check("{packets: true}").state == State.WARN
    found = check("{allow: all, packets: true}")
    assert (found.state, "nft" in found.detail) == (State.OK, True)
    monkeypatch.setattr("shutil.which", lambda *args, **kwargs: None)
    found = check("{allow: all, packets: true}")
    assert (found.state, found.advice) == (State.FAIL, "install nftables")
