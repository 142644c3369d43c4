"""The real command, as a process: exit codes, messages, JSON, completion."""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from zignet.identity import SecretKey

ROOT = Path(__file__).parents[3]

CONFIG = """\
state_dir: {state_dir}
proxy: {{bypass: [192.168.0.0/16]}}
exits:
  tokyo: {{type: socks5, address: 192.0.2.10:1080}}
  office: {{type: http, address: 192.0.2.11:3128}}
routes:
  - "*.video.example -> tokyo"
  - DOMAIN-SUFFIX,news.example,office
  - MATCH,direct
"""


def key_of(number: int) -> str:
    """A good key, by name."""
    return SecretKey(bytes((number,)) * 32).public.name


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory with nothing in it."""
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(CONFIG.format(state_dir=tmp_path / "state"))
    return path


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), **more}


def command(
    home: Path, *args: object, cwd: Path | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    env = environment(home, **more.pop("env", {}))
    return subprocess.run(
        [sys.executable, "-m", "zignet", *map(str, args)],
        env=env,
        cwd=cwd or home,
        capture_output=True,
        text=True,
        timeout=60,
        **more,
    )


class TestCodesAndMessages:
    def test_usage(self, home: Path) -> None:
        for args in (["nonsense"], ["--nonsense"], ["flows", "--every", "x"], ["route", "explain", ":1"]):
            result = command(home, *args)
            assert result.returncode == 2, args
            assert result.stderr
            assert "Traceback" not in result.stderr

    def test_help(self, home: Path) -> None:
        result = command(home, "--help")
        assert result.returncode == 0
        for name in (
            *("up", "status", "flows", "route", "doctor", "check", "version", "bench", "reload"),
            *("peers", "ping", "wire-dump", "init", "whoami", "key", "dns"),
        ):
            assert f" {name} " in result.stdout
            assert command(home, name, "--help").returncode == 0
        assert "Exit codes" in result.stdout

    @pytest.mark.parametrize(
        "args", [["status"], ["flows"], ["flows", "--watch"], ["reload"], ["peers"], ["ping", "peer_us"]]
    )
    def test_not_running(self, home: Path, config: Path, args: list[str]) -> None:
        result = command(home, "-c", config, *args)
        assert (result.returncode, result.stdout) == (4, "")
        assert "is not running" in result.stderr
        assert "zignet up" in result.stderr
        assert len(result.stderr.splitlines()) == 1

    def test_a_missing_file(self, home: Path) -> None:
        result = command(home, "-c", "/nowhere/my.yaml", "check")
        assert result.returncode == 3
        assert result.stderr == "zignet: the configuration file /nowhere/my.yaml (from -c) does not exist\n"
        result = command(home, "check", env={"ZIGNET_CONFIG": "/nowhere/my.yaml"})
        assert result.returncode == 3
        assert "$ZIGNET_CONFIG" in result.stderr

    @pytest.mark.parametrize("args", [["check"], ["up"], ["status"], ["route", "explain", "a.example"]])
    def test_a_bad_file(self, home: Path, tmp_path: Path, args: list[str]) -> None:
        path = tmp_path / "bad.yaml"
        path.write_text("tun:\n  mtoo: 1500\nroutes:\n  - MATCH,nowhere\n")
        result = command(home, "-c", path, *args)
        assert (result.returncode, result.stdout) == (3, "")
        assert "bad.yaml:2: tun.mtoo" in result.stderr
        assert "bad.yaml:4" in result.stderr
        assert "Traceback" not in result.stderr

    @pytest.mark.root
    def test_up_without_privileges(self, home: Path, config: Path) -> None:
        def drop_net_admin() -> None:
            assert ctypes.CDLL(None).prctl(24, 12, 0, 0, 0) == 0  # PR_CAPBSET_DROP, CAP_NET_ADMIN

        result = command(home, "-c", config, "up", preexec_fn=drop_net_admin)
        assert (result.returncode, result.stdout) == (5, "")
        assert "CAP_NET_ADMIN" in result.stderr
        assert "sudo" in result.stderr

    def test_a_bug_is_admitted(self, home: Path, config: Path) -> None:
        """A state directory that is a file is nothing that the client expects."""
        program = (
            "import sys; from zignet.cli.errors import guarded\n"
            "sys.exit(guarded(lambda: 1 / 0, lambda: len(sys.argv) > 1))"
        )
        run = [sys.executable, "-c", program]
        quiet = subprocess.run(run, env=environment(home), capture_output=True, text=True, check=False)
        assert quiet.returncode == 1
        assert "this is a bug: ZeroDivisionError" in quiet.stderr
        assert "Traceback" not in quiet.stderr
        loud = subprocess.run(
            [*run, "-v"], env=environment(home), capture_output=True, text=True, check=False
        )
        assert "Traceback" in loud.stderr

    def test_a_reader_that_goes_away(self, home: Path, config: Path) -> None:
        line = f"{sys.executable} -m zignet --help | head -1; echo ${{PIPESTATUS[0]}}"
        result = subprocess.run(
            ["bash", "-c", line], env=environment(home), cwd=home, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in result.stderr


class TestFiles:
    def test_the_first_that_exists(self, home: Path, tmp_path: Path) -> None:
        here = tmp_path / "here"
        here.mkdir()
        own = home / ".zignet" / "zignet.yaml"
        own.parent.mkdir()
        own.write_text("{}")
        named = tmp_path / "named.yaml"
        named.write_text("{}")

        def used(*args: object, **env: str) -> str:
            result = command(home, *args, "check", "--json", cwd=here, env=env)
            return str(json.loads(result.stdout)["path"])

        assert used() == str(own)
        (here / "zignet.yaml").write_text("{}")
        assert used() == "zignet.yaml"
        assert used(ZIGNET_CONFIG=str(named)) == str(named)
        assert used("-c", own, ZIGNET_CONFIG=str(named)) == str(own)

    def test_check_without_a_file(self, home: Path) -> None:
        if Path("/etc/zignet/zignet.yaml").exists():
            pytest.skip("this machine has a configuration")
        result = command(home, "check")
        assert result.returncode == 3
        assert "Name one with -c" in result.stderr

    def test_check(self, home: Path, config: Path) -> None:
        result = command(home, "-c", config, "check")
        assert (result.returncode, result.stderr) == (0, "")
        assert "is right; rules: 3; exits: tokyo, office" in result.stdout

    def test_check_json(self, home: Path, tmp_path: Path) -> None:
        path = tmp_path / "bad.yaml"
        path.write_text("tun:\n  mtoo: 1500\n")
        result = command(home, "-c", path, "check", "--json")
        assert result.returncode == 3
        (problem,) = json.loads(result.stdout)["problems"]
        assert (problem["line"], problem["key"]) == (2, "tun.mtoo")


class TestWithANode:
    """The commands against a real control socket; the node's numbers are samples."""

    @pytest.fixture(autouse=True)
    def started(self, running: Path, tmp_path: Path, home: Path, node: Any) -> None:
        self.config = tmp_path / "my.yaml"
        self.config.write_text(CONFIG.format(state_dir=running))
        self.home = home
        self.node = node

    def zignet(self, *args: object, **more: Any) -> subprocess.CompletedProcess[str]:
        return command(self.home, "-c", self.config, *args, **more)

    def test_status(self) -> None:
        result = self.zignet("status")
        assert (result.returncode, result.stderr) == (0, "")
        assert "zig0" in result.stdout
        assert json.loads(self.zignet("status", "--json").stdout)["pid"] == 4321

    def test_flows(self) -> None:
        result = self.zignet("flows")
        assert (result.returncode, result.stderr) == (0, "")
        assert "www.video.example:443" in result.stdout
        assert "203.0.113.5:443" in result.stdout
        assert "2 flows" in result.stdout
        assert "3 flows" in self.zignet("flows", "--ended").stdout
        assert "3 flows" in self.zignet("flows", "--all").stdout

    def test_flows_json(self) -> None:
        flows = json.loads(self.zignet("flows", "--json").stdout)["flows"]
        assert [flow["id"] for flow in flows] == [2, 1]
        assert json.loads(self.zignet("flows", "--json", "--exit", "office").stdout) == {"flows": []}

    def test_watch_into_a_pipe(self) -> None:
        process = self.start("flows", "--watch", "--json", "--every", "0.1")
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert [flow["id"] for flow in lines[1]["flows"]] == [2, 1]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""

    def test_watch_on_a_terminal(self) -> None:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "zignet", "-c", str(self.config), "flows", "-w", "--every", "0.1"],
            env=environment(self.home, TERM="xterm", COLUMNS="100", LINES="30"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        shown = self.read_until(ours, b"www.video.example:443")
        assert b"\x1b[?1049h" in shown  # the other screen, so that the terminal's own stays as it was
        process.send_signal(signal.SIGINT)
        rest = self.read_until(ours, b"\x1b[?1049l")
        assert b"Traceback" not in rest
        assert process.wait(20) == 0
        os.close(ours)

    def test_peers(self) -> None:
        result = self.zignet("peers")
        assert (result.returncode, result.stderr) == (0, "")
        assert "peer2" in result.stdout
        assert "2 peers, 1 connected" in result.stdout
        assert all(len(line) <= 100 for line in result.stdout.splitlines())
        assert "3 peers" in self.zignet("peers", "--all").stdout
        narrow = self.zignet("peers", env={"COLUMNS": "80"}).stdout
        assert max(map(len, narrow.splitlines())) <= 80

    def test_peers_json(self) -> None:
        listed = json.loads(self.zignet("peers", "--json").stdout)["peers"]
        assert listed == self.node.open_peers
        assert json.loads(self.zignet("peers", "--all", "--json").stdout)["peers"] == [
            *self.node.open_peers,
            *self.node.earlier_peers,
        ]

    def test_more_peers_than_a_screen_takes(self, make_peer: Any) -> None:
        self.node.open_peers = [make_peer(number) for number in range(150)]
        shown = self.zignet("peers").stdout
        assert "150 peers, 150 connected; the first 100, --all for every one" in shown
        assert len(shown.splitlines()) == 103
        assert len(self.zignet("peers", "--all").stdout.splitlines()) == 154

    def test_ping(self) -> None:
        result = self.zignet("ping", "peer2", "-n", "2", "-i", "0.01")
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.splitlines() == [
            "pong from peer2 via 203.0.113.9:51830: seq=1 time=12.3 ms",
            "pong from peer2 via 203.0.113.9:51830: seq=2 time=12.3 ms",
            "2 sent, 2 answered, 0 % lost; min / avg / max 12.3 ms / 12.3 ms / 12.3 ms",
        ]
        assert self.node.pinged == ["peer2", "peer2"]

    def test_a_ping_that_takes_a_while(self, make_ping: Any) -> None:
        self.node.pings = [None, None, None, make_ping(handshake=True)]
        assert "after a handshake" in self.zignet("ping", "peer2", "-n1").stdout

    def test_ping_without_an_answer(self, make_ping: Any) -> None:
        self.node.pings = [make_ping(rtt_s=None, error="timed out")]
        result = self.zignet("ping", "peer2", "-n", "1")
        assert (result.returncode, result.stderr) == (1, "")
        assert "1 sent, 0 answered, 100 % lost" in result.stdout

    def test_ping_of_nobody(self) -> None:
        result = self.zignet("ping", "nobody")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == "zignet: nobody here is called nobody\n"

    def test_ping_json(self, make_ping: Any) -> None:
        result = self.zignet("ping", "peer2", "-n", "2", "-i", "0.01", "--json")
        assert json.loads(result.stdout) == {"pings": [make_ping(), make_ping()]}
        self.node.pings = [make_ping(rtt_s=None, error="timed out")]
        result = self.zignet("ping", "peer2", "-n", "1", "--json")
        assert result.returncode == 1
        assert json.loads(result.stdout)["pings"][0]["error"] == "timed out"

    @pytest.mark.parametrize("wrong", [["-n", "-1"], ["-i", "0"], []])
    def test_ping_usage(self, wrong: list[str]) -> None:
        assert self.zignet("ping", *(["peer2", *wrong] if wrong else [])).returncode == 2
        assert self.node.pinged == []

    @pytest.mark.parametrize("options", [[], ["--json"]])
    def test_ping_until_ctrl_c(self, options: list[str]) -> None:
        """Each line is written as it is known, also into a pipe; then the summary, and what came of it counts."""
        process = self.start("ping", "peer2", "-n", "0", "-i", "0.05", *options)
        assert process.stdout is not None
        if not options:
            first = process.stdout.readline()
            assert first.startswith(b"pong from peer2")
        deadline = time.monotonic() + 30
        while len(self.node.pinged) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, b"")
        if options:
            assert len(json.loads(out)["pings"]) >= 2
        else:
            assert b"0 % lost; min / avg / max" in out.splitlines()[-1]

    def test_ctrl_c_while_a_ping_is_under_way(self) -> None:
        """Nobody has answered: that is a failure, and no traceback."""
        self.node.pings = itertools.repeat(None)
        process = self.start("ping", "peer2")
        deadline = time.monotonic() + 30
        while not self.node.pinged:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (1, b"0 sent, 0 answered, 0 % lost\n", b"")

    def test_reload(self) -> None:
        assert self.zignet("reload").returncode == 0
        self.node.reload_error = "my.yaml:3: no such exit"
        result = self.zignet("reload")
        assert result.returncode == 3
        assert "my.yaml:3: no such exit" in result.stderr
        assert "older configuration stays in force" in result.stderr

    def test_a_file_that_was_broken_since(self) -> None:
        """The node runs on with the older configuration, so it must still be found."""
        with self.config.open("a") as file:
            file.write("nonsense: 1\n")
        for args in (["status"], ["flows"], ["reload"]):
            assert self.zignet(*args).returncode == 0, args
        assert self.zignet("check").returncode == 3

    def test_explain_asks_the_node(self) -> None:
        result = self.zignet("route", "explain", "other.example:8443", "--udp", "--no-resolve", "--json")
        assert result.returncode == 0
        answer = json.loads(result.stdout)
        assert (answer["live"], answer["exit"]) == (True, "tokyo")
        assert self.node.questions == [
            {"name": "other.example", "address": None, "port": 8443, "protocol": "udp"}
        ]
        shown = self.zignet("route", "explain", "other.example", "--no-resolve").stdout
        assert "the rules of the running node" in shown
        assert "The latest like it" in shown

    def start(self, *args: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "zignet", "-c", str(self.config), *args],
            env=environment(self.home),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    @staticmethod
    def read_until(terminal: int, wanted: bytes) -> bytes:
        shown = b""
        deadline = time.monotonic() + 30
        while wanted not in shown:
            ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
            assert ready, shown
            shown += os.read(terminal, 65536)
        return shown


class TestExplainWithoutANode:
    def explain(self, home: Path, config: Path, *args: str) -> Any:
        result = command(home, "-c", config, "route", "explain", *args, "--json")
        assert (result.returncode, result.stderr) == (0, "")
        return json.loads(result.stdout)

    def test_by_name(self, home: Path, config: Path) -> None:
        answer = self.explain(home, config, "https://www.video.example/x", "--no-resolve")
        assert (answer["exit"], answer["live"], answer["enters"]) == ("tokyo", False, True)
        assert answer["where"].endswith("my.yaml:7")

    def test_by_address(self, home: Path, config: Path) -> None:
        answer = self.explain(home, config, "203.0.113.5:80")
        assert (answer["exit"], answer["addresses"], answer["port"]) == ("direct", ["203.0.113.5"], 80)

    def test_bypassed(self, home: Path, config: Path) -> None:
        answer = self.explain(home, config, "192.168.1.1")
        assert not answer["enters"]
        assert "proxy.bypass" in json.dumps(answer["steps"])

    def test_resolved(self, home: Path, config: Path) -> None:
        answer = self.explain(home, config, "localhost")
        assert {"127.0.0.1", "::1"} & set(answer["addresses"])
        assert not answer["enters"]

    def test_text(self, home: Path, config: Path) -> None:
        result = command(home, "-c", config, "route", "explain", "news.example", "--udp", "--no-resolve")
        assert result.returncode == 0
        assert "leaves by office (refused)" in result.stdout
        assert "HTTP proxies carry no UDP" in result.stdout
        assert all(len(line) <= 100 for line in result.stdout.splitlines())


def test_version(home: Path) -> None:
    assert command(home, "--version").stdout.startswith("zignet ")
    facts = json.loads(command(home, "version", "--json").stdout)
    assert set(facts["modules"].values()) <= {"compiled", "interpreted"}
    assert facts["modules"]
    assert facts["zignet"] in command(home, "version").stdout


class TestCompletion:
    def complete(self, home: Path, line: str) -> list[str]:
        words = line.split(" ")
        env = {
            "_ZIGNET_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        }
        return command(home, env=env).stdout.split()

    @pytest.mark.parametrize("shell", ["bash", "zsh"])
    def test_scripts(self, home: Path, shell: str) -> None:
        script = command(
            home, "--show-completion", shell, env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
        )
        assert script.returncode == 0
        assert "_ZIGNET_COMPLETE" in script.stdout

    def test_commands(self, home: Path) -> None:
        assert self.complete(home, "zignet fl") == ["flows"]
        assert self.complete(home, "zignet route ex") == ["explain"]
        assert "--watch" in self.complete(home, "zignet flows --w")

    def test_exits_of_the_configuration(self, home: Path, config: Path) -> None:
        assert self.complete(home, f"zignet -c {config} flows --exit to") == ["tokyo"]
        assert self.complete(home, f"zignet -c {config} flows --exit ") == [
            "direct",
            "block",
            "tokyo",
            "office",
        ]
        assert self.complete(home, "zignet -c /nowhere flows --exit ") == []

    def test_destinations_of_the_configuration(self, home: Path, config: Path) -> None:
        explain = f"zignet -c {config} route explain"
        assert self.complete(home, f"{explain} vi") == ["video.example"]
        assert self.complete(home, f"{explain} https://ne") == ["https://news.example"]
        assert "admin.zignet" in self.complete(home, f"{explain} a")
        assert self.complete(home, "zignet -c /nowhere route explain v") == []
        assert "--no-probe" in self.complete(home, f"{explain} --no-p")
        assert "--timeout" in self.complete(home, f"{explain} --t")

    def test_peers_of_the_configuration(self, home: Path, tmp_path: Path) -> None:
        path = tmp_path / "peers.yaml"
        (tmp_path / "roll").write_text(f"far_one {key_of(3)}\nnear {key_of(4)}\n")
        path.write_text(
            "peers:\n"
            f"  - {{name: peer_us, key: {key_of(1)}}}\n"
            f"  - {{name: peer_eu, key: {key_of(2)}}}\n"
            "  - file: ./roll\n"
        )
        assert self.complete(home, f"zignet -c {path} ping pe") == ["peer_us", "peer_eu"]
        assert self.complete(home, f"zignet -c {path} ping far") == ["far_one"]
        assert self.complete(home, f"zignet -c {path} ping ") == ["peer_us", "peer_eu", "far_one", "near"]
        path.write_text("peers: [nonsense\n")
        assert self.complete(home, f"zignet -c {path} ping ") == []

    def test_new_commands(self, home: Path) -> None:
        assert self.complete(home, "zignet pe") == ["peers"]
        assert self.complete(home, "zignet pi") == ["ping"]
        assert "--all" in self.complete(home, "zignet peers --a")
