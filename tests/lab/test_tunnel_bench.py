"""`zignet bench --tunnel` on a short plan, and that nothing of it stays."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zignet.bench.engine import EngineFailure
from zignet.bench.kinds import TUNNEL
from zignet.bench.measures import FIGURES, TUNNEL_MEASURES, Plan, Result, add_differences
from zignet.bench.report import as_json, tables
from zignet.bench.tunnels import TUNNELS, Bare, Nebula, WireGuardGo
from zignet.bench.world import TunnelWorld

RUN_DIRS = (Path("/run/netns"), Path("/var/run/wireguard"))
ALONE = {"icmp50", "icmp99", "up1", "down1", "up10", "down10", "udp", "udp_lost", "conn"}
ALONE |= {"conn_failed", "stalled"}
COSTS = {"added50", "added99", "cpu", "start"}

RESULTS = [
    Result("tunnel", "bare", 0, {"icmp50": 12.0, "up1": 20.0}),
    Result("tunnel", "wireguard-go", 0, {"icmp50": 300.0, "up1": 0.5}),
    Result("tunnel", "zignet", 0, {"icmp50": 100.0, "up1": 5.0}),
    Result("tunnel", "zignet-chacha", 0, {"up1": 2.5}),
]


def left_of(pid):
    """Names of this process that are still there."""
    return [
        path
        for directory in RUN_DIRS
        if directory.exists()
        for path in directory.iterdir()
        if f"zn-{pid}-" in path.name or f"zn{pid}" in path.name
    ]


def command(*arguments):
    return [sys.executable, "-m", "zignet", "bench", "--tunnel", "--quick", "--seconds", "0.3", *arguments]


def bench(*arguments, **options):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=110, **options)


@pytest.fixture(scope="module")
def world():
    with TunnelWorld() as made:
        yield made


def test_what_a_tunnel_adds_to_the_ping():
    add_differences(RESULTS, "bare")
    assert [result.figures.get("added50") for result in RESULTS] == [None, 288.0, 88.0, None]


def test_the_ratio_is_to_the_aes_node_if_it_ran():
    ratios = as_json(TUNNEL, RESULTS, Plan(), None)["ratios"]["tunnel"]
    assert ratios["wireguard-go"]["up1"] == 10.0
    assert ratios["zignet-chacha"]["up1"] == 2.0
    without = [result for result in RESULTS if result.engine != "zignet"]
    assert as_json(TUNNEL, without, Plan(), None)["ratios"]["tunnel"]["wireguard-go"]["up1"] == 5.0


def test_the_tables_show_every_figure():
    from io import StringIO

    from rich.console import Console

    shown = {key for keys in TUNNEL.tables.values() for key in keys}
    assert shown == ALONE | COSTS
    console = Console(width=160, record=True, file=StringIO())
    tables(TUNNEL, RESULTS, console)
    assert "0.50 ×10.00" in console.export_text()


def test_every_tunnel_says_what_it_is():
    for name, tunnel in TUNNELS.items():
        assert tunnel.name == name
        assert tunnel.missing() or name == "bare" or tunnel.version()


def test_a_tunnel_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "wireguard-tools" in WireGuardGo.missing()
    assert "Debian: nebula)" in Nebula.missing()
    assert Bare.missing() is None


@pytest.mark.root
def test_a_short_run_beside_the_bare_link(tmp_path):
    directory = RUN_DIRS[1].exists()
    done = bench("--engines", "bare,wireguard-go", "--json", env=os.environ | {"TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert all(not result["errors"] for result in report["rounds"]), report["rounds"]
    figures = report["medians"]["tunnel"]
    assert set(figures["bare"]) == ALONE
    assert set(figures["wireguard-go"]) == ALONE | COSTS
    assert figures["bare"]["up1"] > figures["wireguard-go"]["up1"] > 0.01
    assert figures["wireguard-go"]["added50"] > 0
    assert figures["wireguard-go"]["cpu"] > 0
    assert set(figures["bare"]) <= set(FIGURES)
    assert report["versions"]["wireguard-go"]
    assert list(tmp_path.iterdir()) == []
    assert RUN_DIRS[1].exists() == directory


@pytest.mark.root
def test_nebula_carries_all_that_is_measured(world):
    engine = Nebula(world, "tunnel")
    engine.start()
    try:
        plan = Plan(seconds=0.3, connections=500, then=100, pings=100)
        figures = {}
        for measure in TUNNEL_MEASURES.values():
            figures |= measure.run(engine, plan)
        assert set(figures) | {"added50", "added99"} == ALONE | COSTS
        assert figures["up1"] > 0.01
        assert figures["conn_failed"] == 0
    finally:
        engine.stop()
    assert links(world) == {"lo", "eth0"}


def links(world):
    return {
        link["ifname"]
        for host in (world.near, world.far)
        for link in host.namespace.netlink(
            lambda ip: [dict(x, ifname=x.get("ifname")) for x in ip.get_links()]
        )
    }


@pytest.mark.root
def test_the_mtu_holds_for_each_tunnel(world):
    for kind in (WireGuardGo, Nebula):
        engine = kind(world, "tunnel", 1300)
        engine.start()
        try:
            for size, good in ((1272, True), (1273, False)):
                ping = ["ping", "-c1", "-W1", "-M", "do", "-s", str(size), engine.targets[0]]
                assert (world.host.run(ping).returncode == 0) == good
        finally:
            engine.stop()


@pytest.mark.root
@pytest.mark.parametrize(("kind", "port"), [(WireGuardGo, 51820), (Nebula, 4242)])
def test_a_start_that_fails_says_why_and_leaves_nothing(world, kind, port):
    engine = kind(world, "tunnel")
    with world.far.namespace.socket(kind=socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", port))
        with pytest.raises(EngineFailure, match=r"(?i)address already in use"):
            engine.start()
    assert engine.running == []
    assert links(world) == {"lo", "eth0"}
    assert not [path for path in left_of(os.getpid()) if path.suffix == ".sock"]
    engine = kind(world, "tunnel")  # and so the next one can start
    engine.start()
    engine.stop()


@pytest.mark.root
def test_ctrl_c_leaves_nothing(tmp_path):
    running = subprocess.Popen(
        command("--engines", "wireguard-go", "--seconds", "20"),
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    deadline = time.monotonic() + 20
    while not any(path.suffix == ".sock" for path in left_of(running.pid)):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    _, said = running.communicate(timeout=20)
    assert running.returncode != 0
    assert "Traceback" not in said
    assert left_of(running.pid) == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(running.pid, 0)


@pytest.mark.root
@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--exit", "direct"], "--exit"), (["--flows", "5"], "--flows"), (["--engines", "mihomo"], "nebula")],
)
def test_what_belongs_to_the_other_kind_is_refused(arguments, said):
    done = bench(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
