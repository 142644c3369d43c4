"""Rights that are given up, in children of our own: what is left, and what is possible with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zignet.rights import Cap, Realm, capabilities, may_reach

pytestmark = pytest.mark.root

NOBODY = 65534


def child(code: str, *pass_fds: int) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, after `from zignet.rights import *`."""
    text = f"import os, sys\nfrom pathlib import Path\nfrom zignet.rights import *\n{code}"
    return subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        pass_fds=pass_fds,
    )


STATUS = """
lines = dict(line.split(":\\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(*(int(lines[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")), lines["NoNewPrivs"])
"""


AGAIN = f"\nos.execv(sys.executable, [sys.executable, '-c', {('from pathlib import Path' + STATUS)!r}])"


def test_one_capability_is_kept() -> None:
    done = child(f"print(*map(int, keep([Cap.NET_ADMIN])))\n{STATUS}")
    only = 1 << Cap.NET_ADMIN
    assert done.stdout.splitlines() == [str(int(Cap.NET_ADMIN)), f"{only} {only} {only} {only} 0 0"], (
        done.stderr
    )


def test_the_helpers_of_root_have_it_too() -> None:
    only = 1 << Cap.NET_ADMIN
    assert child(f"keep([Cap.NET_ADMIN]){AGAIN}").stdout.split()[1:3] == [str(only), str(only)]


def test_the_helpers_of_another_user_have_it_too() -> None:
    """As under systemd, with AmbientCapabilities=CAP_NET_ADMIN."""
    code = (
        "import ctypes\n"
        "ctypes.CDLL(None).prctl(8, 1)\n"  # PR_SET_KEEPCAPS
        f"os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3)\n"
        "keep([Cap.NET_ADMIN])\nos.execv('/bin/cat', ['cat', '/proc/self/status'])"
    )
    done = child(code)
    assert f"CapEff:\t{1 << Cap.NET_ADMIN:016x}\n" in done.stdout, done.stderr


def test_nothing_is_left_of_one_that_became_somebody_else() -> None:
    done = child(
        f"stays_private()\nbecome({NOBODY}, {NOBODY})\nprint(os.getresuid(), os.getresgid(), os.getgroups()){STATUS}"
    )
    triple = f"({NOBODY}, {NOBODY}, {NOBODY})"
    assert done.stdout.splitlines() == [f"{triple} {triple} []", "0 0 0 0 0 1"], done.stderr


def test_a_process_with_net_admin_alone_starts_another_user_in_a_realm(tmp_path: Path) -> None:
    """And can end it, while that one can't touch it, nor see what is root's."""
    hidden = tmp_path / "hidden"
    state = hidden / "deep" / "control"
    state.mkdir(parents=True)
    hidden.chmod(0o700)
    os.chown(state, NOBODY, NOBODY)
    (hidden / "secret").write_text("s")
    closed = next(each for each in reversed(state.parents) if not each.stat().st_mode & 1)
    realm = Realm.make([state], [closed])
    try:
        code = f"""
import signal, time
keep([Cap.NET_ADMIN])
pid = os.fork()
if pid == 0:
    Realm.enter{realm.descriptors!r}
    become({NOBODY}, {NOBODY})
    print(os.getresuid(), sorted(capabilities()))
    Path("{state}/made").write_text("x")
    for attempt in (lambda: Path("{hidden}/secret").read_text(), lambda: os.kill(os.getppid(), 15),
                    lambda: Path("{hidden}/other").mkdir(), lambda: os.setuid(0)):
        try:
            attempt()
            print("it could")
        except OSError:
            print("it could not")
    sys.stdout.flush()
    time.sleep(60)
while not Path("{state}/made").exists():
    time.sleep(0.01)
time.sleep(0.2)
os.kill(pid, signal.SIGKILL)
print(os.waitpid(pid, 0)[1])
"""
        done = child(code, *realm.descriptors)
    finally:
        realm.close()
    triple = f"({NOBODY}, {NOBODY}, {NOBODY})"
    assert done.stdout.splitlines() == [f"{triple} []", *["it could not"] * 4, "9"], done.stderr
    assert (state / "made").stat().st_uid == NOBODY


def test_a_realm_that_can_not_be_made_says_why() -> None:
    with pytest.raises(FileNotFoundError):
        Realm.make([Path("/nonexistent")])


def test_what_can_be_reached_without_a_capability(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    os.chown(other, NOBODY, NOBODY)
    before = capabilities()
    everything = range(64)
    assert may_reach(tmp_path, everything)
    assert may_reach(other, ())
    assert not may_reach(other, everything)
    assert not may_reach(other / "file", everything)
    assert capabilities() == before


def test_it_dies_with_its_parent() -> None:
    code = """
import time
pid = os.fork()
if pid == 0:
    dies_with_parent(os.getppid())
    print(os.getpid(), flush=True)
    time.sleep(60)
time.sleep(60)
"""
    text = f"import os\nfrom zignet.rights import *\n{code}"
    parent = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.stdout.close()
