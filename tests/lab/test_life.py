"""Starts, stops, crashes and reloads: the system is left as it was found, and live flows stay."""

import socket
import threading
import time

import pytest

from zignet.lab.internet import HOST, TOKYO
from zignet.lab.running import NotReady, Running

pytestmark = pytest.mark.root


def eventually(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def traffic(net):
    """A connection that is kept busy; what it ends with is in `errors`."""
    stop = threading.Event()
    errors = []
    end = None

    def keep_busy():
        try:
            while not stop.is_set():
                end.sendall(b"x" * 1000)
                end.recv(1000)
        except OSError as error:
            errors.append(error)

    def start():
        nonlocal end
        end = net.host.connect("203.0.113.30", 7)
        thread.start()
        return errors

    thread = threading.Thread(target=keep_busy, daemon=True)
    yield start
    stop.set()
    if end is not None:
        end.close()


def test_a_stop_restores_everything(net, engine, traffic):
    before = net.host.snapshot()
    node = engine(["MATCH,direct"])
    assert net.host.snapshot() != before
    traffic()
    assert node.stop() == 0
    assert net.host.snapshot() == before


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_signals_stop_it(net, engine, name):
    import signal

    before = net.host.snapshot()
    node = engine(["MATCH,direct"])
    node.process.send_signal(getattr(signal, name))
    assert node.process.wait(8) == 0
    assert net.host.snapshot() == before


def test_the_network_works_after_kill_and_the_next_start_cleans(net, engine, curl, traffic):
    before = net.host.snapshot()
    node = engine(["MATCH,tokyo"])
    traffic()
    node.kill()
    assert curl("-4", "http://plain.example/")["client"] == HOST  # what is left does no harm
    again = Running(net.host, node.directory, node.config.read_text().partition("\n")[2])
    with again:
        assert curl("-4", "http://plain.example/")["client"] == TOKYO
    assert again.process.returncode == 0
    assert net.host.snapshot() == before


def test_a_second_instance_is_refused(net, engine, curl, config, directories):
    node = engine(["MATCH,tokyo"])
    same_state = net.host.run(node.command("up"), timeout_s=10)
    assert same_state.returncode != 0
    assert "already" in same_state.stderr
    other_state = Running(net.host, directories(), config(["MATCH,direct"]))
    with pytest.raises(NotReady) as refused:
        other_state.start()
    assert "zig0" in str(refused.value)
    assert curl("-4", "http://plain.example/")["client"] == TOKYO  # the first one goes on


def test_the_interface_is_deleted_underneath(net, engine):
    before = net.host.snapshot()
    node = engine(["MATCH,direct"])
    net.host.netlink(lambda ip: ip.link("del", index=ip.link_lookup(ifname="zig0")[0]))
    assert node.process.wait(8) != 0
    assert "zig0" in node.log().splitlines()[-1]
    assert "Traceback" not in node.log()
    assert net.host.snapshot() == before


def test_a_reload_changes_routes_and_spares_live_flows(net, engine, config, curl):
    node = engine(["MATCH,direct"])
    with net.host.connect("203.0.113.30", 7) as live:
        live.sendall(b"before")
        assert live.recv(6) == b"before"
        node.reload(config(["MATCH,tokyo"]))
        eventually(lambda: curl("-4", "http://plain.example/")["client"] == TOKYO)
        live.sendall(b"after")
        assert live.recv(5) == b"after"


def test_a_broken_file_changes_nothing_and_is_told(net, engine, curl):
    node = engine(["MATCH,tokyo"])
    node.reload("routes:\n  - 'MATCH,nowhere'\n")
    eventually(lambda: node.ask("status", "--json")["config"]["last_reload_error"])
    assert "nowhere" in node.ask("status", "--json")["config"]["last_reload_error"]
    assert "nowhere" in node.log()
    assert curl("-4", "http://plain.example/")["client"] == TOKYO


def test_mode_off_leaves_traffic_alone(net, engine, curl):
    engine(["MATCH,tokyo"], "proxy: {mode: off}\n")
    assert curl("-4", "http://plain.example/")["client"] == HOST


def test_bypassed_addresses_leave_as_before(net, engine, curl):
    engine(["MATCH,tokyo"], "proxy: {bypass: [203.0.113.30/32]}\n")
    assert curl("-4", "http://plain.example/")["client"] == HOST
    assert curl("-4", "http://news.example/")["client"] == TOKYO


def test_the_listener_on_the_tun_address(net, engine, curl):
    engine(["MATCH,tokyo"], "tun: {listener: tun}\n")
    assert curl("-4", "http://plain.example/")["client"] == TOKYO


def test_without_offload(net, engine, curl):
    engine(["MATCH,tokyo"], "tun: {offload: off}\n")
    assert curl("-4", "http://plain.example/")["client"] == TOKYO
    with net.host.connect("203.0.113.30", 9) as end:
        end.sendall(bytes(2_000_000))
        end.shutdown(socket.SHUT_WR)
        assert end.recv(7) == b"2000000"
