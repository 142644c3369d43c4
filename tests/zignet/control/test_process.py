"""The packet process's side of its child, with children that misbehave in every way."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nat.loop import Loop
from zignet.control import process as module
from zignet.control import user as user_module
from zignet.control.process import ControlProcess
from zignet.control.user import User, closed_on_the_way
from zignet.rights import Cap

KEYS = ("label", "asked", "matched", "failed", "pending", "last_error", "last_error_age_s", "notes")
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
json_values = st.recursive(
    plain,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=9),
)

# What each child begins with; it sees its channel as `policy` and a connection to ask with as `question`
HEAD = """
import json, os, socket, sys, time
def given(name): return sys.argv[sys.argv.index(name) + 1]
policy = socket.socket(fileno=int(given("--policy")))
question = socket.socket(fileno=int(given("--questions").split(",")[0]))
settings = int(given("--settings"))
def say(**message): policy.sendall(json.dumps(message).encode() + b"\\n")
def settings_now(): return os.pread(settings, 1000, 0).decode()
"""
LIVE = "\nwhile policy.recv(1000): pass\n"
READY = "\nsay(ready=True, sources=[])\n"


class Judging:
    """What the hub would hear."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.decisions: list[dict[str, Any]] = []
        self.send: Callable[[dict[str, Any]], bool] = lambda message: False

    def connect(self, send: Callable[[dict[str, Any]], bool]) -> None:
        self.events.append("connect")
        self.send = send

    def disconnect(self) -> None:
        if self.events[-1:] == ["connect"]:
            self.events.append("disconnect")

    def resume(self) -> None:
        self.events.append("resume")

    def reloaded(self) -> None:
        self.events.append("reloaded")

    def told(self, message: dict[str, Any]) -> None:
        if message["decided"] == "bad":
            raise ValueError("no decision")
        self.decisions.append(message)


def answer(request: dict[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield {"asked": request["do"]}


class Lab:
    """A loop, and a child of some code."""

    def __init__(self, state: Path) -> None:
        self.loop = Loop()
        self.state = state
        self.judging = Judging()
        self.made: list[ControlProcess] = []

    def child(self, code: str, listeners: list[socket.socket] | None = None) -> ControlProcess:
        user = User(os.geteuid(), os.getegid(), self.state)
        command = [sys.executable, "-c", HEAD + code]
        made = ControlProcess(self.loop, user, command, answer, b"first", listeners or [], self.judging)
        self.made.append(made)
        made.start()
        return made

    def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds

        def look() -> None:
            if condition() or time.monotonic() > deadline:
                self.loop.stop()
            else:
                self.loop.call_later(0.005, look)

        look()
        self.loop.run()
        assert condition()

    def close(self) -> None:
        for made in self.made:
            made.close()
        self.loop.dispose()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.close()


def test_it_is_there_when_it_says_so(lab: Lab) -> None:
    child = lab.child(READY + LIVE)
    assert child.status()["state"] == "starting"
    lab.until(lambda: lab.judging.events == ["connect"])
    status = child.status()
    assert (status["state"], status["restarts"], status["last_error"]) == ("running", 0, None)
    assert status["memory"] > 1 << 20
    assert status["pid"] != os.getpid()


def test_questions_and_answers(lab: Lab) -> None:
    lab.child(
        READY + 'question.sendall(b\'{"do":"status"}\\n\'); got = question.recv(1000).decode()\n'
        'say(decided="x", got=got)' + LIVE
    )
    lab.until(lambda: lab.judging.decisions)
    assert '"asked":"status"' in lab.judging.decisions[0]["got"]


def test_what_it_is_asked(lab: Lab) -> None:
    lab.child(READY + "\nsay(decided='x', got=policy.recv(1000).decode())" + LIVE)
    lab.until(lambda: lab.judging.events)
    assert lab.judging.send({"admit": "somebody"})
    lab.until(lambda: lab.judging.decisions)
    assert lab.judging.decisions[0]["got"] == '{"admit":"somebody"}\n'


def test_settings_and_others(lab: Lab) -> None:
    child = lab.child(
        READY + "say(decided='x', got=settings_now())\npolicy.recv(1000)\n"
        "say(decided='y', got=settings_now()); say(configured=True)" + LIVE
    )
    lab.until(lambda: lab.judging.decisions)
    child.reload(b"second")
    lab.until(lambda: "reloaded" in lab.judging.events)
    assert [each["got"] for each in lab.judging.decisions] == ["first", "second"]


def test_its_sockets_outlive_it(lab: Lab, tmp_path: Path) -> None:
    """Whoever calls while it is started again waits in the queue."""
    listener = socket.create_server(("127.0.0.1", 0))
    lab.child(
        READY + "at = socket.socket(fileno=int(given('--listen')))\n"
        "caller, _ = at.accept(); caller.sendall(str(os.getpid()).encode()); caller.close(); sys.exit(1)",
        [listener],
    )
    pids: list[bytes] = []
    for count in (1, 2):
        with socket.create_connection(listener.getsockname()) as caller:
            caller.setblocking(False)

            def came(caller: socket.socket = caller, count: int = count) -> bool:
                if len(pids) < count:
                    with suppress(BlockingIOError):
                        pids.append(caller.recv(100))
                return len(pids) == count

            lab.until(came)
    assert len(set(pids)) == 2
    listener.close()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("sys.exit(3)", "it ended with 3"),
        ("os.kill(os.getpid(), 11)", "it was killed by signal 11"),
        ("policy.sendall(b'nonsense\\n')" + LIVE, "it sent what is no message"),
        ("policy.sendall(b'x' * 200_000)" + LIVE, "a line of more than"),
        (READY + "say(decided='bad')" + LIVE, "it sent what was not expected: no decision"),
        ("say(ready=True, sources=[{}])" + LIVE, "it sent what was not expected"),
        ("say(ready=True, sources=7)" + LIVE, "it sent what was not expected"),
        ("say(hello=1)" + LIVE, "it sent what was not expected"),
        ("policy.close(); time.sleep(600)", "it has closed its end; it was killed by signal 9"),
    ],
)
def test_whatever_it_does_it_is_started_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: str, why: str
) -> None:
    monkeypatch.setattr(module, "STOP_S", 0.2)
    with caplog.at_level(logging.WARNING, "zignet.control"):
        child = lab.child(code)
        first = child.status()["pid"]
        lab.until(lambda: child.restarts >= 2 and child.status()["pid"])
    assert child.status()["pid"] != first
    assert why in child.last_error
    assert why in caplog.text
    assert not Path(f"/proc/{first}").exists()


def test_the_same_again_and_again_is_not_said_again_and_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_DELAY_S", 0.05)
    with caplog.at_level(logging.WARNING, "zignet.control"):
        child = lab.child("sys.exit(3)")
        lab.until(lambda: child.restarts >= 5)
    assert caplog.text.count("it ended with 3") == 1


def test_a_program_that_is_not_there(lab: Lab) -> None:
    child = ControlProcess(
        lab.loop, User(os.geteuid(), os.getegid(), lab.state), ["/nonexistent"], answer, b""
    )
    lab.made.append(child)
    child.start()
    assert "can't be started: No such file" in child.last_error
    lab.until(lambda: child.restarts >= 2)
    assert child.status()["state"] == "down"


def test_one_that_says_nothing_is_replaced(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_S", 0.5)
    child = lab.child(READY + "time.sleep(600)")
    lab.until(lambda: child.restarts == 1)
    assert "it said nothing" in child.last_error


def test_one_that_will_not_go_is_killed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_S", 0.3)
    child = lab.child(
        "import signal; signal.signal(15, signal.SIG_IGN)\n" + READY + "\nwhile True: time.sleep(600)"
    )
    lab.until(lambda: lab.judging.events)
    pid = child.status()["pid"]
    lab.close()
    assert not Path(f"/proc/{pid}").exists()
    lab.made.clear()
    lab.loop = Loop()


def test_it_has_no_other_descriptors(lab: Lab, tmp_path: Path) -> None:
    """Least of all the TUN's, or another's connection."""
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), False)
        code = (
            "names = [f'/proc/self/fd/{n}' for n in os.listdir('/proc/self/fd')]\n"
            "say(decided='x', got=[os.readlink(name) for name in names if os.path.exists(name)])"
        )
        lab.child(READY + code + LIVE)
        lab.until(lambda: lab.judging.decisions)
    assert not any("secret" in each or "eventpoll" in each for each in lab.judging.decisions[0]["got"])


# --- the user


def test_what_is_closed_on_the_way(tmp_path: Path) -> None:
    place = tmp_path / "open" / "closed" / "below"
    place.mkdir(parents=True)
    tmp_path.chmod(0o755)
    closed = tmp_path / "open" / "closed"
    closed.chmod(0o700)
    own = closed.stat()
    assert closed_on_the_way(place, own.st_uid, own.st_gid) is None or os.geteuid() == 0
    others = next((each for each in reversed(place.parents) if not each.stat().st_mode & 1), None)
    assert closed_on_the_way(place, 65534, 65534) == others
    closed.chmod(0o750)
    assert closed_on_the_way(place, 65534, own.st_gid) in (None, *place.parents)


def test_without_user_namespaces_the_rights_to_change_users_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the person is told."""
    if os.geteuid() != 0:
        pytest.skip("another user never changes users")

    def refused(*what: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(user_module.Realm, "make", refused)
    found = user_module.user_of(tmp_path)
    assert found.realm is None
    assert found.name == "nobody"
    assert {Cap.SETUID, Cap.SETGID, Cap.KILL} <= found.needs
    assert "keeps the right to change users" in found.note
    assert found.state.stat().st_uid == found.uid


def test_the_state_directory_of_another_user(tmp_path: Path) -> None:
    """Its owner is the control process's user; what is left there is taken over, and no trap is followed."""
    if os.geteuid() != 0:
        pytest.skip("needs root to give files away")
    (tmp_path / "control").mkdir()
    (tmp_path / "control" / "contacts.db").write_text("")
    (tmp_path / "outside").write_text("")
    (tmp_path / "control" / "link").symlink_to(tmp_path / "outside")
    os.chown(tmp_path, 4711, 4712)
    found = user_module.user_of(tmp_path)
    try:
        assert (found.uid, found.gid) == (4711, 4712)
        assert (tmp_path / "control" / "contacts.db").stat().st_uid == 4711
        assert (tmp_path / "outside").stat().st_uid == 0
    finally:
        found.close()
    os.chown(tmp_path, 0, 0)
    (tmp_path / "control" / "contacts.db").unlink()
    (tmp_path / "control" / "link").unlink()
    (tmp_path / "control").rmdir()
    (tmp_path / "control").symlink_to("/etc")
    with pytest.raises(OSError, match=r"symbolic link|Not a directory"):
        user_module.user_of(tmp_path)


@given(json_values)
def test_whatever_it_says_of_its_sources(given_: object) -> None:
    """Is taken, or is nonsense; nothing else is raised."""
    with suppress(*module.NONSENSE):
        module._sources(given_)
