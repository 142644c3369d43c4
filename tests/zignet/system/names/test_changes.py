"""Files replaced and put back: kinds, modes, owners; what somebody else has changed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from zignet.system.names.changes import ABSENT, Change, State, UnwritableError, look, put, torn


def file(content: bytes, **more: int) -> State:
    return State("file", content, **more)


def test_look(tmp_path: Path) -> None:
    path = tmp_path / "f"
    assert look(str(path)) == ABSENT
    assert look(str(path / "below")) == ABSENT
    path.write_bytes(b"x\xff")
    path.chmod(0o604)
    found = look(str(path))
    assert (found.kind, found.content, found.mode, found.uid) == ("file", b"x\xff", 0o604, os.getuid())
    link = tmp_path / "l"
    link.symlink_to("nowhere/at all")
    assert (look(str(link)).kind, look(str(link)).content) == ("link", b"nowhere/at all")
    for odd in (tmp_path, Path("/dev/null")):
        with pytest.raises(UnwritableError, match="is not a file"):
            look(str(odd))
    with path.open("wb") as big:
        big.truncate((1 << 20) + 1)
    with pytest.raises(UnwritableError, match="1 MiB"):
        look(str(path))


@pytest.mark.root
def test_put_and_back(tmp_path: Path) -> None:
    path, temporary = str(tmp_path / "f"), str(tmp_path / ".f.zignet-1")
    Path(temporary).write_text("of a run that was killed")
    wanted = file(b"new", mode=0o640, uid=4, gid=7)
    wanted = replace(wanted, attributes=(("user.label", b"\x00x"),))
    put(path, wanted, temporary, False)
    found = look(path)
    assert replace(found, attributes=()) == replace(wanted, attributes=())
    assert found.attributes in (wanted.attributes, ())  # where the file system has none
    put(path, State("link", b"../target", 0o777, 4, 7), temporary, False)
    assert os.readlink(path) == "../target"
    assert os.lstat(path).st_uid == 4
    put(path, ABSENT, temporary, False)
    assert os.listdir(tmp_path) == []


def test_a_link_is_never_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("somebody's")
    link = tmp_path / "link"
    link.symlink_to("target")
    with pytest.raises(UnwritableError):
        put(str(link), file(b"ours"), str(tmp_path / "t"), True)
    assert (tmp_path / "target").read_text() == "somebody's"


BEFORE, AFTER = file(b"nameserver 192.0.2.53\n"), file(b"nameserver 100.64.0.1\nsearch x\n")


@pytest.mark.parametrize("one", [BEFORE, file(b"")])
@pytest.mark.parametrize("other", [AFTER, file(b"n")])
def test_torn_is_every_moment_of_a_write_in_place(one: State, other: State) -> None:
    for a, b in ((one, other), (other, one)):
        for count in range(len(b.content) + 1):
            now = file(b.content[:count] + a.content[count:])
            assert torn(now, one, other)
        assert torn(file(b.content), one, other)
    assert not torn(file(b"nameserver 203.0.113.1\n"), BEFORE, AFTER)
    assert not torn(State("link", b"x"), BEFORE, AFTER)


class TestUndone:
    change = Change("/etc/resolv.conf", BEFORE, AFTER, "ab")

    def test_not_begun_and_done(self) -> None:
        assert self.change.undone_from(BEFORE) == BEFORE
        assert self.change.undone_from(AFTER) == BEFORE

    def test_somebody_elses(self) -> None:
        for now in (
            file(b"nameserver 203.0.113.1\n"),
            ABSENT,
            State("link", BEFORE.content),
            file(AFTER.content[:9]),
        ):
            assert self.change.undone_from(now) is None

    def test_torn_counts_only_in_place(self) -> None:
        now = file(AFTER.content[:15] + BEFORE.content[15:])
        assert self.change.undone_from(now) is None
        assert replace(self.change, in_place=True).undone_from(now) == BEFORE

    def test_a_mode_that_somebody_set_is_kept(self) -> None:
        now = replace(AFTER, mode=0o600, gid=9)
        assert self.change.undone_from(now) == replace(BEFORE, mode=0o600, gid=9)

    def test_nothing_was_there(self) -> None:
        made = replace(self.change, before=ABSENT)
        assert made.undone_from(AFTER) == ABSENT
        assert made.undone_from(file(b"x")) is None

    def test_the_temporary_file_is_beside_it(self) -> None:
        assert self.change.temporary == "/etc/.resolv.conf.zignet-ab"
