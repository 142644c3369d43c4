"""Who comes in by policies, with real nodes: files, scripts, and the control process that asks them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.lab.peers import ECHO, eventually, ping, servers
from tests.lab.stranger import Stranger
from zignet.lab.hosts import PORT, Hosts
from zignet.peers.waiting import MOST_OF_ONE_SITE
from zignet.rights import Cap
from zignet.wire import Farewell, FarewellReason, Ping, Pong

pytestmark = pytest.mark.root
SOMEBODY = 4711  # a user id
PATIENCE_S = 60.0  # on a machine that does much else


@pytest.fixture(scope="module")
def net():
    """a admits by policies, b calls it."""
    with Hosts("a", "b") as hosts:
        for directory in (hosts.directory, hosts["a"].directory):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o755)  # policies are asked as nobody
        yield hosts


@pytest.fixture(scope="module")
def members(net):
    """The file of the first policy."""
    file = net["a"].directory / "members.txt"
    file.write_text("")
    file.chmod(0o644)
    return file


@pytest.fixture(scope="module")
def script(net):
    """The program of the second: it says yes to whom a file names, and notes whom it was asked about."""
    file = net["a"].directory / "verify.sh"
    file.write_text('#!/bin/sh\ngrep -q "$ZIGNET_KEY" "$(dirname "$0")/friends.txt"\n')
    file.chmod(0o755)
    (net["a"].directory / "friends.txt").write_text("")
    (net["a"].directory / "friends.txt").chmod(0o644)
    return file


@pytest.fixture(scope="module")
def config(net, members, script):
    """The configuration of a, with changes to `inbound`."""

    def made(admin=None, **inbound):
        policies = [
            {"type": "file", "path": str(members)},
            {"type": "script", "command": [str(script)], "timeout": "10s", "cache": "1s"},
        ]
        usual = {"policies": policies, "recheck": "2s"} | inbound
        more = {} if admin is None else {"admin": admin}
        return {"proxy": {"mode": "off"}, "listen": [f"udp://[::]:{PORT}"], "inbound": usual, **more}

    return made


@pytest.fixture
def a(net, config, members):
    """Its node runs, and nobody is admitted yet."""
    members.write_text("")
    host = net["a"]
    host.prepare(config()).start()
    control(host)
    yield host
    if host.node.process.poll() is None:
        assert host.node.stop() == 0
    assert "Traceback" not in host.node.log()


@pytest.fixture
def stranger(net, a):
    with Stranger(net["b"], net["a"]) as made:
        yield made


def control(host):
    """The control process as status has it, once it runs."""

    def running():
        found = host.status()["control"]
        return found if found["state"] == "running" else None

    return eventually(running, PATIENCE_S)


def admit(members, *strangers):
    members.write_text("".join(f"{one.secret.public.base58}\n" for one in strangers))


def entry(host, stranger):
    with host.client() as client:
        return next((peer for peer in client.peers() if peer["key"] == stranger.secret.public.name), None)


def comes_in(stranger, seconds=PATIENCE_S):
    """It tries until it has a session that works."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if stranger.call(tries=1):
            stranger.say(Ping(b"12345678").encode())
            if stranger.told(Pong):
                return True
    return False


def alive(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def caps(pid, name):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1], 16)


# --- who


def test_a_file_admits_and_its_change_ends_the_session(a, members, stranger):
    admit(members, stranger)
    assert comes_in(stranger)
    why = entry(a, stranger)["admitted"]
    assert str(members) in why
    assert "line 1" in why
    members.write_text("# nobody\n")
    assert stranger.told(Farewell, PATIENCE_S) == Farewell(FarewellReason.NOT_ADMITTED)
    assert entry(a, stranger) is None
    eventually(lambda: f"{stranger.secret.public.name} is not admitted any more: " in a.node.log())
    assert not stranger.call()


def test_a_check_asks_the_node_as_well(a, members, stranger):
    key = stranger.secret.public.name
    assert a.namespace.run(a.node.command("policy", "check", key)).returncode != 0
    members.write_text(key)

    def checked():
        done = a.namespace.run(a.node.command("policy", "check", key, "--json"))
        found = json.loads(done.stdout)
        return found if found["running"]["allowed"] else None

    found = eventually(checked, PATIENCE_S)
    assert found["allowed"]
    assert str(members) in found["running"]["reason"]
    shown = a.namespace.run(a.node.command("policy", "check", key)).stdout
    assert "The running node admits it: " in shown


def test_a_script_admits_and_changes_its_mind(a, script, stranger):
    friends = script.parent / "friends.txt"
    friends.write_text(stranger.secret.public.name + "\n")
    assert comes_in(stranger)
    assert "verify.sh" in entry(a, stranger)["admitted"]
    friends.write_text("\n")
    assert stranger.told(Farewell, PATIENCE_S) == Farewell(FarewellReason.NOT_ADMITTED)


def test_deny_by_file(net, a, members, config, stranger):
    """The first policy that matches decides; and a reload takes other policies without a restart."""
    pid = control(a)["pid"]
    admit(members, stranger)
    deny = {"type": "file", "path": str(members), "action_if_match": "deny"}
    a.node.reload(yaml.safe_dump(config(policies=[deny], default_action="allow")))
    eventually(lambda: "reloaded" in a.node.log(), PATIENCE_S)
    with Stranger(net["b"], a) as other:
        assert comes_in(other)
    assert not stranger.call()
    members.write_text("")
    assert comes_in(stranger)
    assert control(a)["pid"] == pid


def test_a_node_that_calls(net, a, members):
    """A real one: its first packet goes through at the first handshake, a moment late."""
    b = net["b"]
    members.write_text(b.key)
    net.start("b")
    try:
        assert ping(b, b.inner(a)) == 1
        assert a.peer(b)["state"] == "connected"
        with servers(b):
            flow = a.namespace.connect(a.inner(b), ECHO, timeout_s=PATIENCE_S)
            with flow:
                flow.sendall(b"x")
                assert flow.recv(1) == b"x"
                members.write_text("")

                def is_reset():
                    try:
                        flow.sendall(b"x")
                        flow.setblocking(False)
                        return flow.recv(1) == b""
                    except BlockingIOError:
                        return False
                    except ConnectionResetError:
                        return True

                eventually(is_reset, PATIENCE_S)
        eventually(lambda: "does not admit this node any more" in b.node.log(), PATIENCE_S)
        assert ping(b, b.inner(a)) == 0
    finally:
        b.node.stop()


# --- the process


def test_rights(a):
    """The packet process keeps one, the control process none."""
    node, child = a.node.process.pid, control(a)["pid"]
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert caps(node, name) == 1 << Cap.NET_ADMIN
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert caps(child, name) == 0
    status = Path(f"/proc/{child}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert {line.split()[1] for line in status.splitlines() if line.startswith("Uid")} != {"0"}
    assert control(a)["user"] == "nobody"


def test_it_is_small(a):
    """As docs/performance.md has it: MiB, resident."""
    status = a.status()
    assert status["memory"] < 55 << 20
    assert status["control"]["memory"] < 90 << 20


def test_its_death_is_no_ones_end(net, a, members):
    """Sessions go on, without a gap; a stranger waits, and comes in when it is there again."""
    b = net["b"]
    members.write_text(b.key)
    net.start("b")
    try:
        assert ping(b, b.inner(a)) == 1
        for _ in range(3):
            before = control(a)
            os.kill(before["pid"], signal.SIGKILL)
            assert ping(b, b.inner(a), count=20) == 20
            after = control(a)
            assert after["pid"] != before["pid"]
            assert after["restarts"] == before["restarts"] + 1
            assert "killed by signal 9" in after["last_error"]
        with Stranger(b, a) as stranger:
            members.write_text(f"{b.key}\n{stranger.secret.public.name}\n")
            os.kill(control(a)["pid"], signal.SIGKILL)
            stranger.end.send(stranger.initiation())
            response = stranger.datagram(2, PATIENCE_S)
            if response is None:  # it took longer than anybody is kept waiting
                assert comes_in(stranger)
            else:
                stranger.handshake.finish(response)
        assert ping(b, b.inner(a), count=5) == 5
    finally:
        b.node.stop()


def test_a_flood_of_strangers_while_it_stands_still(net, a, members, stranger):
    """Bounded, and whoever is connected notices nothing."""
    admit(members, stranger)
    assert comes_in(stranger)
    pid = control(a)["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        memory = a.status()["memory"]
        with Stranger(net["b"], a) as one:
            for _ in range(200):
                another = Stranger(net["b"], a)
                message = another.initiation()
                another.close()
                one.end.send(message)
        key = "handshake: too many strangers of one address wait to be admitted"

        def dropped():
            """All but those that wait; under load, cookies are asked for instead."""
            counts = a.status()["peers"]["dropped"]
            lost = sum(count for reason, count in counts.items() if reason.startswith("handshake: "))
            return counts.get(key, 0) > 0 and lost >= 200 - MOST_OF_ONE_SITE

        eventually(dropped, PATIENCE_S)
        stranger.say(Ping(b"87654321").encode())
        assert stranger.told(Pong, PATIENCE_S) == Pong(b"87654321")
        assert a.status()["memory"] < memory + (4 << 20)
    finally:
        os.kill(pid, signal.SIGCONT)
    with Stranger(net["b"], a) as late:
        admit(members, stranger, late)
        assert comes_in(late)
    assert control(a)["pid"] == pid


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT"])
def test_a_stop_leaves_no_process(a, how):
    pid = control(a)["pid"]
    a.node.process.send_signal(getattr(signal, how))
    assert a.node.process.wait(PATIENCE_S) == 0
    assert not alive(pid)


def test_a_stop_does_not_wait_for_one_that_stands_still(a):
    pid = control(a)["pid"]
    os.kill(pid, signal.SIGSTOP)
    a.node.process.send_signal(signal.SIGTERM)
    assert a.node.process.wait(PATIENCE_S) == 0
    assert not alive(pid)
    assert "is killed" in a.node.log()


def test_a_node_that_is_killed_takes_it_along(a):
    pid = control(a)["pid"]
    a.node.kill()
    eventually(lambda: not alive(pid), PATIENCE_S)


def test_its_scripts_go_with_it(net, a, config):
    """Also when the node is killed in the midst of a question."""
    policy = {"type": "script", "command": ["/bin/sleep", "300"], "timeout": "60s"}
    pid = control(a)["pid"]
    a.node.reload(yaml.safe_dump(config(policies=[policy])))
    eventually(lambda: "reloaded" in a.node.log(), PATIENCE_S)
    with Stranger(net["b"], a) as one:

        def asking():
            one.end.send(one.initiation())
            return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

        (script,) = map(int, eventually(asking, PATIENCE_S))
    a.node.kill()
    eventually(lambda: not alive(pid), PATIENCE_S)
    eventually(lambda: not alive(script), PATIENCE_S)


def test_a_node_without_root(net, a, members, config, stranger):
    """As systemd starts it with User= and AmbientCapabilities: its child is the same user, without these."""
    a.node.stop()
    state = a.node.state_dir
    a.prepare(config(admin={}))
    for path in (a.directory, *a.directory.rglob("*")):
        os.chown(path, SOMEBODY, SOMEBODY)
    command = [
        sys.executable,
        "-m",
        "tests.lab.as_user",
        str(SOMEBODY),
        str(a.directory),
        "--",
        *a.node.command("up"),
    ]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with a.node.log_file.open("wb") as log:
        a.node.process = a.namespace.popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
        )
    try:
        eventually(lambda: "ready" in a.node.log() or a.node.process.poll() is not None, PATIENCE_S)
        assert a.node.process.poll() is None, a.node.log()
        found = control(a)
        node, child = a.node.process.pid, found["pid"]
        assert (caps(node, "CapEff"), caps(child, "CapEff"), caps(child, "CapPrm")) == (
            1 << Cap.NET_ADMIN,
            0,
            0,
        )
        assert os.stat(f"/proc/{node}").st_uid == SOMEBODY
        assert str(SOMEBODY) in Path(f"/proc/{child}/status").read_text()
        admit(members, stranger)
        assert comes_in(stranger)
        os.kill(child, signal.SIGKILL)
        eventually(lambda: control(a)["pid"] != child, PATIENCE_S)
        a.node.process.send_signal(signal.SIGTERM)
        assert a.node.process.wait(PATIENCE_S) == 0
        assert not a.namespace.netlink(lambda ip: ip.link_lookup(ifname="zig0"))
    finally:
        a.node.kill()
        for path in (a.directory, *a.directory.rglob("*")):
            os.chown(path, 0, 0)
        assert state.exists()


def test_without_policies_there_is_no_such_process(net, a, config):
    a.node.stop()
    a.prepare(config(policies=[])).start()
    assert a.status()["control"] is None


def test_a_file_that_it_may_not_read(net, a, config):
    """Said once, with the user and what to do."""
    a.node.stop()
    secret = net["a"].directory / "secret"
    secret.mkdir(exist_ok=True)
    (secret / "members.txt").write_text("")
    (secret / "members.txt").chmod(0o600)
    a.prepare(config(policies=[{"type": "file", "path": str(secret / "members.txt")}])).start()
    control(a)
    with Stranger(net["b"], a) as one:
        assert not one.call()

        def reported():
            (source,) = control(a)["sources"]
            return source["last_error"]

        assert "members.txt" in eventually(reported, PATIENCE_S)
