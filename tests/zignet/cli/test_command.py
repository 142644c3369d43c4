"""The real command, as a process: exit codes, messages, JSON, completion."""

from __future__ import annotations

import ctypes
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
        for name in ("up", "status", "flows", "route", "doctor", "check", "version", "bench", "reload"):
            assert f" {name} " in result.stdout
            assert command(home, name, "--help").returncode == 0
        assert "Exit codes" in result.stdout

    @pytest.mark.parametrize("args", [["status"], ["flows"], ["flows", "--watch"], ["reload"]])
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
