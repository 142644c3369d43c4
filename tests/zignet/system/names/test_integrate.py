"""The real thing on a private /etc: resolv.conf in every shape, somebody else's changes, kill -9 between the steps."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from zignet.system.names import DamagedJournalError, Mode, NamesError, drift, journal

from .conftest import MS_BIND, MS_RDONLY, MS_REMOUNT, PLAIN, Host, mount

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]  # many processes


def servers(host: Host) -> list[str]:
    text = host.call(Path("/etc/resolv.conf").read_text)
    return re.findall(r"^nameserver (\S+)", text, re.MULTILINE)


def test_a_file(host: Host) -> None:
    before = host.snapshot()
    applied = host.integrate()
    assert applied.mechanism == Mode.RESOLVCONF
    assert applied.upstreams == ("192.0.2.53", "192.0.2.54")
    assert applied.changes == ("/etc/resolv.conf: nameserver 100.64.0.1",)
    assert applied.notes == ()
    assert servers(host) == ["100.64.0.1"]
    status = host.resolv_conf.stat()
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o640, 4, 7)
    assert b"search corp.example" in host.resolv_conf.read_bytes()
    assert host.call(drift, host.state_dir) == ()
    restored = host.restore()
    assert (restored.done, restored.left) == (("/etc/resolv.conf put back",), ())
    assert host.snapshot() == before
    assert list(host.state_dir.iterdir()) == []
    assert host.restore() == type(restored)()


@pytest.mark.parametrize(
    "target", ["../run/resolvconf/resolv.conf", "/run/resolvconf/resolv.conf", "../run/nothing"]
)
def test_a_link(host: Host, target: str) -> None:
    """It is a link again afterwards, and what it led to was never touched."""
    real = host.run / "resolvconf" / "resolv.conf"
    real.parent.mkdir()
    real.write_bytes(PLAIN)
    host.resolv_conf.unlink()
    host.resolv_conf.symlink_to(target)
    before = host.snapshot()
    applied = host.integrate()
    assert servers(host) == ["100.64.0.1"]
    assert applied.upstreams == (() if "nothing" in target else ("192.0.2.53", "192.0.2.54"))
    assert not host.resolv_conf.is_symlink()
    real.write_bytes(b"nameserver 203.0.113.7\n")  # its owner goes on writing it
    assert host.restore().left == ()
    assert host.snapshot() == before
    assert os.readlink(host.resolv_conf) == target
    assert real.read_bytes() == b"nameserver 203.0.113.7\n"


def test_no_file(host: Host) -> None:
    host.resolv_conf.unlink()
    before = host.snapshot()
    assert host.integrate().mechanism == Mode.RESOLVCONF
    assert servers(host) == ["100.64.0.1"]
    assert host.restore().done == ("/etc/resolv.conf removed",)
    assert host.snapshot() == before


@pytest.fixture
def mounted(host: Host, tmp_path: Path) -> Path:
    """A container's resolv.conf: a mount of its own, over which nothing can be renamed."""
    inner = tmp_path / "inner"
    inner.write_bytes(PLAIN)
    inner.chmod(0o644)
    host.call(mount, inner, "/etc/resolv.conf")
    return inner


def test_mounted_by_itself(host: Host, mounted: Path) -> None:
    before, number = host.snapshot(), mounted.stat().st_ino
    assert host.integrate().mechanism == Mode.RESOLVCONF
    assert servers(host) == ["100.64.0.1"]
    assert mounted.stat().st_ino == number
    assert host.restore().left == ()
    assert host.snapshot() == before
    assert mounted.read_bytes() == PLAIN


def test_mounted_and_torn(host: Host, mounted: Path) -> None:
    """The power went while it was written in place."""
    host.integrate()
    ours = mounted.read_bytes()
    for count in (0, 1, 40, len(ours) - 1):
        mounted.write_bytes(ours[:count] + PLAIN[count:])
        assert host.restore().left == ()
        assert mounted.read_bytes() == PLAIN
        host.integrate()


def test_in_a_read_only_etc(host: Host, mounted: Path) -> None:
    """The mount itself can still be written."""
    host.call(mount, host.etc, "/etc", MS_BIND | MS_REMOUNT | MS_RDONLY)
    assert host.integrate().mechanism == Mode.RESOLVCONF
    assert servers(host) == ["100.64.0.1"]
    host.restore()
    assert mounted.read_bytes() == PLAIN


@pytest.mark.parametrize("linked", [False, True])
def test_read_only(host: Host, linked: bool) -> None:
    if linked:
        (host.run / "real").write_bytes(PLAIN)
        host.resolv_conf.unlink()
        host.resolv_conf.symlink_to("/run/real")
    before = host.snapshot()
    host.call(mount, host.etc, "/etc", MS_BIND | MS_REMOUNT | MS_RDONLY)
    applied = host.integrate()
    assert applied.mechanism == Mode.OFF
    assert "read-only" in applied.notes[0]
    assert "must ask 100.64.0.1" in applied.why
    with pytest.raises(NamesError, match="can't be changed: the file system is read-only"):
        host.integrate(Mode.RESOLVCONF)
    assert host.snapshot() == before
    assert list(host.state_dir.iterdir()) == []


def test_immutable(host: Host) -> None:
    if subprocess.run(["chattr", "+i", host.resolv_conf], capture_output=True, check=False).returncode:
        host.call(mount, host.resolv_conf, "/etc/resolv.conf")
        host.call(mount, host.resolv_conf, "/etc/resolv.conf", MS_BIND | MS_REMOUNT | MS_RDONLY)
    try:
        before = host.snapshot()
        with pytest.raises(NamesError, match=r"chattr -i|read-only|Device or resource busy"):
            host.integrate(Mode.RESOLVCONF)
        assert host.snapshot() == before
    finally:
        subprocess.run(["chattr", "-i", host.resolv_conf], capture_output=True, check=False)


class TestSomebodyElse:
    def test_another_file(self, host: Host) -> None:
        host.integrate()
        host.resolv_conf.write_bytes(b"nameserver 203.0.113.7\n")
        assert host.call(drift, host.state_dir) == ("/etc/resolv.conf was changed by somebody else since",)
        (left,) = host.restore().left
        assert "was left. Before ZigNet it was a file that named 192.0.2.53, 192.0.2.54" in left
        assert host.resolv_conf.read_bytes() == b"nameserver 203.0.113.7\n"
        assert list(host.state_dir.iterdir()) == []

    def test_another_link(self, host: Host) -> None:
        host.integrate()
        host.resolv_conf.unlink()
        host.resolv_conf.symlink_to("/run/other")
        assert host.restore().left
        assert os.readlink(host.resolv_conf) == "/run/other"

    def test_a_line_more(self, host: Host) -> None:
        host.integrate()
        with host.resolv_conf.open("ab") as file:
            file.write(b"nameserver 203.0.113.7\n")
        changed = host.resolv_conf.read_bytes()
        assert host.restore().left
        assert host.resolv_conf.read_bytes() == changed

    def test_it_was_removed(self, host: Host) -> None:
        host.integrate()
        host.resolv_conf.unlink()
        assert host.restore().left
        assert not host.resolv_conf.exists()

    def test_it_put_back_what_was(self, host: Host) -> None:
        host.integrate()
        host.resolv_conf.write_bytes(PLAIN)
        assert host.restore().left == ()

    def test_only_the_mode(self, host: Host) -> None:
        host.integrate()
        host.resolv_conf.chmod(0o600)
        host.restore()
        assert host.resolv_conf.read_bytes() == PLAIN
        assert host.resolv_conf.stat().st_mode & 0o777 == 0o600
        assert host.resolv_conf.stat().st_uid == 4

    def test_and_again(self, host: Host) -> None:
        """Called again it starts from what is there now, and puts that back in the end."""
        host.integrate()
        host.resolv_conf.write_bytes(b"nameserver 203.0.113.7\n")
        applied = host.integrate()
        assert applied.upstreams == ("203.0.113.7",)
        assert len(applied.notes) == 1
        assert servers(host) == ["100.64.0.1"]
        assert host.restore().left == ()
        assert host.resolv_conf.read_bytes() == b"nameserver 203.0.113.7\n"


class TestKilled:
    def test_before_any_operation(self, host: Host) -> None:
        before = host.snapshot()
        seen = 0
        for seen in host.operations("integrate", Mode.RESOLVCONF):
            assert host.restore().left == ()
            assert host.snapshot() == before
            assert not journal.path_in(host.state_dir).exists()
        assert seen >= 7  # journal: make, rename; resolv.conf: make, owner, mode, rename
        host.restore()
        assert host.snapshot() == before

    def test_in_place(self, host: Host, mounted: Path) -> None:
        for _ in host.operations("integrate", Mode.RESOLVCONF):
            assert host.restore().left == ()
            assert mounted.read_bytes() == PLAIN
        assert servers(host) == ["100.64.0.1"]
        host.restore()
        assert mounted.read_bytes() == PLAIN

    def test_in_the_restore_too(self, host: Host) -> None:
        before = host.snapshot()
        host.integrate()
        for _ in host.operations("restore"):
            assert host.restore().left == ()
            assert host.snapshot() == before
            host.integrate()
        assert host.snapshot() == before
        assert list(host.state_dir.iterdir()) == []

    def test_two_crashes_in_a_row(self, host: Host) -> None:
        """The next start is killed, too: in what it takes back first, and in what it does then."""
        before = host.snapshot()
        host.integrate()
        for _ in host.operations("integrate", Mode.RESOLVCONF):
            assert host.restore().left == ()
            assert host.snapshot() == before
            host.integrate()

    def test_many_crashes_in_a_row(self, host: Host) -> None:
        before = host.snapshot()
        for _ in host.operations("integrate", Mode.RESOLVCONF):
            continue
        assert host.restore().left == ()
        assert host.snapshot() == before

    def test_the_next_start_does_it(self, host: Host) -> None:
        before = host.snapshot()
        host.integrate()
        applied = host.integrate()
        assert applied.upstreams == ("192.0.2.53", "192.0.2.54")
        host.restore()
        assert host.snapshot() == before
        host.integrate()
        assert host.integrate(Mode.OFF).mechanism == Mode.OFF
        assert host.snapshot() == before

    def test_while_the_new_file_was_written(self, host: Host) -> None:
        """A half-written file beside it goes, too."""
        before = host.snapshot()
        for _ in host.operations("integrate", Mode.RESOLVCONF):
            if journal.path_in(host.state_dir).exists():
                break
        token = host.call(journal.read, host.state_dir).changes[0].token
        (host.etc / f".resolv.conf.zignet-{token}").write_text("half")
        host.restore()
        assert host.snapshot() == before


class TestWithoutAJournal:
    def test_cut_off(self, host: Host) -> None:
        host.integrate()
        path = journal.path_in(host.state_dir)
        path.write_bytes(path.read_bytes()[:100])
        before = host.snapshot()
        with pytest.raises(DamagedJournalError, match="Nothing was changed"):
            host.restore()
        assert host.snapshot() == before
        assert path.exists()

    def test_the_next_start_reads_the_comments(self, host: Host) -> None:
        before = host.snapshot()
        host.integrate()
        path = journal.path_in(host.state_dir)
        path.write_bytes(path.read_bytes()[:100])
        applied = host.integrate()
        assert "names.journal.damaged-1" in applied.notes[0]
        assert applied.upstreams == ("192.0.2.53", "192.0.2.54")
        assert host.restore().left == ()
        assert host.snapshot() == before

    @pytest.mark.parametrize("kind", ["file", "link"])
    def test_lost(self, host: Host, kind: str) -> None:
        if kind == "link":
            (host.run / "real").write_bytes(PLAIN)
            host.resolv_conf.unlink()
            host.resolv_conf.symlink_to("../run/real")
        before = host.snapshot()
        host.integrate()
        journal.forget(host.state_dir)
        assert "read out of its comments" in host.restore().done[-1]
        assert host.snapshot() == before

    def test_another_nodes_is_left_alone(self, host: Host, tmp_path: Path) -> None:
        host.integrate()
        ours = host.snapshot()
        first, host.state_dir = host.state_dir, tmp_path / "second"
        assert host.restore().done == ()
        assert host.snapshot() == ours
        assert host.integrate().mechanism == Mode.RESOLVCONF
        host.restore()
        assert host.snapshot() == ours
        host.state_dir = first
        host.restore()
        assert servers(host) == ["192.0.2.53", "192.0.2.54"]


class TestTwoNodes:
    """The first to come is the first to go: what the second one took the place of is of no use to anybody then."""

    @pytest.mark.parametrize("kind", ["file", "link", "nothing"])
    def test_the_first_stops_first(self, host: Host, tmp_path: Path, kind: str) -> None:
        if kind != "file":
            host.resolv_conf.unlink()
        if kind == "link":
            (host.run / "real").write_bytes(PLAIN)
            host.resolv_conf.symlink_to("../run/real")
        before = host.snapshot()
        first, second = tmp_path / "first", tmp_path / "second"
        for host.state_dir in (first, second):
            assert host.integrate().mechanism == Mode.RESOLVCONF
        host.state_dir = first
        assert host.restore().left
        assert servers(host) == ["100.64.0.1"]  # the second one's
        host.state_dir = second
        assert host.restore().left == ()
        assert host.snapshot() == before

    def test_one_after_the_other_comes_again(self, host: Host, tmp_path: Path) -> None:
        """Each time on top of the other's file, which its comments hold in turn."""
        before = host.snapshot()
        first, second = tmp_path / "first", tmp_path / "second"
        for host.state_dir in (first, second) * 3:
            host.restore()
            host.integrate()
        for host.state_dir in (first, second):
            host.restore()
        assert host.snapshot() == before


class TestPrograms:
    """A NetworkManager that is a stand-in: what is called, when, and what a failure leaves."""

    @pytest.fixture
    def manager(self, host: Host) -> Host:
        (host.run / "NetworkManager").mkdir()
        host.resolv_conf.write_bytes(b"# Generated by NetworkManager\nnameserver 192.0.2.53\n")
        host.program(
            "nmcli", 'echo "$* $(ls /etc/NetworkManager/conf.d 2>/dev/null)" >>/run/calls; exit ${FAIL:-0}'
        )
        program = host.run / "bin" / "NetworkManager"
        program.symlink_to("/bin/sleep")
        host.namespace.popen(["/run/bin/NetworkManager", "600"])
        return host

    def calls(self, host: Host) -> list[str]:
        return (host.run / "calls").read_text().split("\n")[:-1]

    def test_network_manager(self, manager: Host) -> None:
        before = manager.snapshot()
        applied = manager.integrate()
        assert applied.mechanism == Mode.NETWORKMANAGER
        assert applied.upstream_file == "/run/NetworkManager/no-stub-resolv.conf"
        assert servers(manager) == ["100.64.0.1"]
        assert "rc-manager=unmanaged" in (manager.etc / "NetworkManager/conf.d/zignet.conf").read_text()
        assert self.calls(manager) == ["general reload conf zignet.conf"]
        assert manager.restore().left == ()
        assert manager.snapshot() == before
        assert self.calls(manager)[1:] == ["general reload conf ", "general reload dns-full "]

    def test_killed_before_any_operation(self, manager: Host) -> None:
        before = manager.snapshot()
        for _ in manager.operations("integrate"):
            assert manager.restore().left == ()
            assert manager.snapshot() == before
        manager.restore()
        for _ in range(2):
            manager.integrate()
            for _ in manager.operations("restore"):
                continue
            assert manager.snapshot() == before

    def test_a_program_that_fails(self, manager: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        """Then it is as before, and the next best is tried."""
        before = manager.snapshot()
        manager.program("nmcli", "echo no such thing; exit 3")
        with pytest.raises(NamesError, match="`nmcli general reload conf` failed with 3: no such thing"):
            manager.integrate(Mode.NETWORKMANAGER)
        assert manager.snapshot() == before
        applied = manager.integrate()
        assert applied.mechanism == Mode.RESOLVCONF
        assert "networkmanager was tried first" in applied.notes[0]
        manager.restore()
        assert manager.snapshot() == before


def test_hijack_changes_nothing(host: Host) -> None:
    before = host.snapshot()
    more: dict[str, Any] = {"captures": True}
    assert host.integrate(**more).mechanism == Mode.HIJACK
    assert host.snapshot() == before
    assert not host.state_dir.exists()
