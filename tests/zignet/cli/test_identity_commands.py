"""`zignet init`, `whoami` and `key`, as processes."""

from __future__ import annotations

import json
import os
import pty
import select
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.zignet.identity.vectors import KEYS
from zignet.cli.qr import draw
from zignet.config import load_config
from zignet.identity import PublicKey, SecretKey, import_key, read_key, write_key

ROOT = Path(__file__).parents[3]
KEY = SecretKey(bytes.fromhex(KEYS[0]["seed"]))
WALLET = json.dumps([*KEY.seed, *KEY.public.ed])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory with nothing in it, where commands run."""
    path = tmp_path / "home"
    path.mkdir()
    return path


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), **more}


def zignet(home: Path, *args: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run it in a session of its own: no terminal to ask."""
    return subprocess.run(
        [sys.executable, "-m", "zignet", *map(str, args)],
        env=environment(home, **more.pop("env", {})),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        **more,
    )


def done(home: Path, *args: object, **more: Any) -> str:
    result = zignet(home, *args, **more)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def refused(home: Path, code: int, *args: object, **more: Any) -> str:
    result = zignet(home, *args, **more)
    assert (result.returncode, result.stdout) == (code, "")
    assert len(result.stderr.splitlines()) == 1
    assert "bug" not in result.stderr
    return result.stderr


def secret(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


class TestInit:
    def test_from_nothing(self, home: Path) -> None:
        told = done(home, "init")
        key_file, file = home / ".zignet" / "identity", home / "zignet.yaml"
        key = read_key(key_file)
        assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
        assert told.startswith(f"Made the key {key_file} and the configuration zignet.yaml.")
        assert key.public.name in told
        assert key.seed.hex() not in told
        assert "zignet -c zignet.yaml up" in told
        config = load_config(file)
        assert config.identity_file == key_file
        assert [str(each) for each in config.listening] == ["udp://[::]:51830"]
        assert "is right" in done(home, "check")
        assert all(len(line) <= 120 for line in file.read_text().splitlines())

    def test_what_the_template_shows_is_right(self, home: Path) -> None:
        """Its comments, uncommented, with keys in the place of their descriptions."""
        done(home, "init")
        file = home / "zignet.yaml"
        text = file.read_text().replace("exits: {}", "exits:").replace("routes: []", "routes:")
        text = text.replace("peers: []", "peers:")
        names = iter(vector["name"] for vector in KEYS)
        while "(56 characters)" in text or "(key)" in text:
            text = text.replace("(56 characters)" if "(56 characters)" in text else "(key)", next(names), 1)
        uncommented = "\n".join(
            line[1:] if line.startswith("#  ") and "file:" not in line else line for line in text.splitlines()
        )
        file.write_text(uncommented)
        config = load_config(file)
        assert [peer.name for peer in config.peers] == ["laptop", "server"]
        assert (len(config.inbound.allow), len(config.routes), list(config.exits)) == (2, 2, ["tokyo"])

    def test_again_changes_nothing(self, home: Path) -> None:
        first = done(home, "init")
        files = [home / "zignet.yaml", home / ".zignet" / "identity"]
        before = [file.read_bytes() for file in files]
        again = done(home, "init")
        assert [file.read_bytes() for file in files] == before
        assert again.startswith("Kept the key ")
        assert first.splitlines()[2] == again.splitlines()[2]

    def test_the_missing_one_is_made(self, home: Path) -> None:
        (home / "zignet.yaml").write_text("state_dir: ./here\n# mine\n")
        told = done(home, "init")
        assert (home / "zignet.yaml").read_text() == "state_dir: ./here\n# mine\n"
        assert f"Made the key {home}/here/identity. Kept the configuration" in told
        (home / "zignet.yaml").unlink()
        told = done(home, "init", "--state-dir", "here")
        assert "Made the configuration zignet.yaml. Kept the key" in told
        assert load_config(home / "zignet.yaml").state_dir == home / "here"

    @pytest.mark.parametrize("how", ["-c", "variable"])
    def test_where_it_is_told(self, home: Path, how: str) -> None:
        file = home / "new" / 'my "own".yaml'
        env = {"ZIGNET_CONFIG": str(file)} if how == "variable" else {}
        done(home, *(["-c", file] if how == "-c" else []), "init", "--state-dir", home / "a: b #", env=env)
        assert load_config(file).identity_file == home / "a: b #" / "identity"
        assert read_key(home / "a: b #" / "identity")
        assert not (home / "zignet.yaml").exists()

    def test_a_key_file_of_its_own(self, home: Path) -> None:
        (home / "zignet.yaml").write_text("key_file: ./keys/mine\n")
        done(home, "init")
        assert read_key(home / "keys" / "mine")

    def test_what_is_wrong(self, home: Path) -> None:
        (home / "zignet.yaml").write_text("colour: blue\n")
        assert "zignet.yaml:1: colour" in refused(home, 3, "init")
        (home / "zignet.yaml").write_text("{}")
        assert "--state-dir" in refused(home, 2, "init", "--state-dir", "x")
        (home / ".zignet").mkdir(exist_ok=True)
        secret(home / ".zignet" / "identity", "garbage")
        assert "is damaged" in refused(home, 3, "init")
        assert (home / ".zignet" / "identity").read_text() == "garbage"


class TestWhoami:
    @pytest.fixture(autouse=True)
    def key(self, home: Path) -> None:
        write_key(home / ".zignet" / "identity", KEY)

    def test_text(self, home: Path) -> None:
        shown = done(home, "whoami")
        for form in ("name", "base58", "public", "address6"):
            assert KEYS[0][form] in shown
        assert "█" not in shown
        assert KEY.seed.hex() not in shown

    def test_json(self, home: Path) -> None:
        answer = json.loads(done(home, "whoami", "--json"))
        assert answer == {
            "name": KEYS[0]["name"],
            "base58": KEYS[0]["base58"],
            "hex": KEYS[0]["public"],
            "x25519": KEYS[0]["x25519"],
            "address6": KEYS[0]["address6"],
            "key_file": str(home / ".zignet" / "identity"),
        }

    def test_the_address_is_in_the_configured_range(self, home: Path) -> None:
        (home / "zignet.yaml").write_text("tun: {range6: 'fd00:1:2:3::/64'}\n")
        assert json.loads(done(home, "whoami", "--json"))["address6"] == KEYS[0]["address6_in_64"]

    def test_qr_code(self, home: Path) -> None:
        shown = done(home, "whoami", "--qr").split("\n\n", 1)[1].rstrip("\n")
        assert shown == draw(KEYS[0]["name"].upper(), colours=False)

    def test_on_a_terminal(self, home: Path) -> None:
        ours, theirs = pty.openpty()
        process = subprocess.run(
            [sys.executable, "-m", "zignet", "whoami"],
            env=environment(home),
            cwd=home,
            stdout=theirs,
            timeout=60,
            check=False,
        )
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], 0.2)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:
                break
        os.close(ours)
        assert process.returncode == 0
        assert "▄" in shown.decode()
        assert KEYS[0]["name"] in shown.decode()

    def test_no_key(self, home: Path) -> None:
        (home / ".zignet" / "identity").unlink()
        assert "zignet init" in refused(home, 3, "whoami")

    def test_a_key_that_others_can_read(self, home: Path) -> None:
        (home / ".zignet" / "identity").chmod(0o644)
        assert "chmod 600" in refused(home, 3, "whoami")


def test_the_qr_code_is_the_one_of_the_text() -> None:
    """Taken apart again, and compared module by module."""
    segno = pytest.importorskip("segno")
    wanted = [list(row) for row in segno.make_qr("ABC", error="m").matrix_iter(border=2)]
    halves = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}
    for colours in (True, False):
        rows: list[list[int]] = []
        for line in draw("ABC", colours).split("\n"):
            bare = line.removeprefix("\x1b[38;5;16;48;5;231m").removesuffix("\x1b[0m")
            pairs = [halves[letter] for letter in bare]
            rows += [[pair[half] if colours else 1 - pair[half] for pair in pairs] for half in (0, 1)]
        assert rows[: len(wanted)] == [[int(bool(module)) for module in row] for row in wanted]


class TestKey:
    @pytest.fixture
    def file(self, home: Path) -> Path:
        return home / ".zignet" / "identity"

    @pytest.fixture
    def passphrase(self, home: Path) -> Path:
        return secret(home / "passphrase", "correct horse\n")

    def test_to_another_device(self, home: Path, file: Path, passphrase: Path, tmp_path: Path) -> None:
        write_key(file, KEY)
        told = done(home, "key", "export", "copy", "--passphrase-file", passphrase)
        assert KEY.public.name in told
        copy = home / "copy"
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert import_key(copy.read_text(), "correct horse") == KEY
        other = tmp_path / "other"
        other.mkdir()
        told = done(other, "key", "import", copy, "--passphrase-file", passphrase)
        assert f"This node is {KEY.public.name} now" in told
        assert read_key(other / ".zignet" / "identity") == KEY
        assert "already" in done(other, "key", "import", copy, "--passphrase-file", passphrase)

    def test_through_pipes(self, home: Path, file: Path, passphrase: Path) -> None:
        write_key(file, KEY)
        text = done(home, "key", "export", "--passphrase-file", passphrase)
        assert import_key(text, "correct horse") == KEY
        file.unlink()
        done(home, "key", "import", "-", "--passphrase-file", passphrase, input=text)
        assert read_key(file) == KEY

    def test_exports_that_are_refused(self, home: Path, file: Path, passphrase: Path) -> None:
        assert "zignet init" in refused(home, 3, "key", "export", "copy", "--passphrase-file", passphrase)
        write_key(file, KEY)
        (home / "there").write_text("precious")
        assert "not overwritten" in refused(
            home, 1, "key", "export", "there", "--passphrase-file", passphrase
        )
        assert (home / "there").read_text() == "precious"
        assert "--passphrase-file" in refused(home, 2, "key", "export", "copy")
        passphrase.chmod(0o644)
        assert "chmod 600" in refused(home, 1, "key", "export", "copy", "--passphrase-file", passphrase)
        secret(passphrase, "\nx")
        assert "empty" in refused(home, 2, "key", "export", "copy", "--passphrase-file", passphrase)
        assert "can't be read" in refused(home, 1, "key", "export", "copy", "--passphrase-file", "none")
        assert not (home / "copy").exists()

    def test_a_wallet(self, home: Path, file: Path) -> None:
        (home / "id.json").write_text(WALLET)
        done(home, "key", "import", "id.json")
        assert read_key(file) == KEY
        assert KEYS[0]["base58"] in done(home, "whoami")

    def test_an_identity_that_is_there_is_kept(self, home: Path, file: Path) -> None:
        present = SecretKey(bytes(32))
        write_key(file, present)
        (home / "id.json").write_text(WALLET)
        assert present.public.name in refused(home, 1, "key", "import", "id.json")
        assert read_key(file) == present
        told = done(home, "key", "import", "id.json", "--force")
        assert read_key(file) == KEY
        (aside,) = [path for path in file.parent.iterdir() if path != file]
        assert str(aside) in told
        assert read_key(aside) == present

    def test_a_damaged_one_goes_only_by_force(self, home: Path, file: Path) -> None:
        file.parent.mkdir()
        secret(file, "garbage")
        (home / "id.json").write_text(WALLET)
        assert "damaged" in refused(home, 3, "key", "import", "id.json")
        done(home, "key", "import", "id.json", "--force")
        assert read_key(file) == KEY

    @pytest.mark.parametrize("text", ["", "hello", "[1, 2]", WALLET.replace("1", "2")])
    def test_imports_that_are_refused(self, home: Path, file: Path, text: str) -> None:
        (home / "x").write_text(text)
        assert "Nothing was changed" in refused(home, 1, "key", "import", "x")
        assert not file.exists()

    def test_a_wrong_passphrase(self, home: Path, file: Path, passphrase: Path) -> None:
        write_key(file, KEY)
        done(home, "key", "export", "copy", "--passphrase-file", passphrase)
        file.unlink()
        assert "no terminal" in refused(home, 2, "key", "import", "copy")
        for wrong in ("incorrect", ""):
            secret(passphrase, f"{wrong}\n")
            told = refused(home, 1, "key", "import", "copy", "--passphrase-file", passphrase)
            assert "passphrase is wrong" in told
        assert not file.exists()

    def test_asked_for_at_the_terminal(self, home: Path, file: Path) -> None:
        write_key(file, KEY)
        terminal = Terminal(home, "key", "export", "copy")
        terminal.answer(b"Passphrase for the copy", "open sesame")
        terminal.answer(b"Once more", "open sesame")
        shown = terminal.end()
        assert b"open sesame" not in shown
        assert import_key((home / "copy").read_text(), "open sesame") == KEY

    def test_two_that_differ(self, home: Path, file: Path) -> None:
        write_key(file, KEY)
        terminal = Terminal(home, "key", "export", "copy")
        terminal.answer(b"Passphrase for the copy", "open sesame")
        terminal.answer(b"Once more", "open sezame")
        assert b"not the same" in terminal.end(1)
        assert not (home / "copy").exists()


class Terminal:
    """A command with a person in front of it."""

    def __init__(self, home: Path, *args: str) -> None:
        self.shown = b""
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            os.chdir(home)
            os.execve(sys.executable, [sys.executable, "-m", "zignet", *args], environment(home))

    def answer(self, question: bytes, answer: str) -> None:
        deadline = time.monotonic() + 30
        while question not in self.shown:
            assert select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))[0], self.shown
            self.shown += os.read(self.terminal, 4096)
        time.sleep(0.05)  # getpass drops what was typed before it asked
        os.write(self.terminal, answer.encode() + b"\n")

    def end(self, code: int = 0) -> bytes:
        while True:
            try:
                data = os.read(self.terminal, 4096)
            except OSError:
                break
            if not data:
                break
            self.shown += data
        os.close(self.terminal)
        _, status = os.waitpid(self.process, 0)
        assert os.waitstatus_to_exitcode(status) == code, self.shown
        return self.shown


def test_the_names_in_the_code_are_read(home: Path) -> None:
    """What the QR code holds is what from_text takes."""
    assert PublicKey.from_text(KEYS[0]["name"].upper()) == KEY.public


def test_help_and_completion(home: Path) -> None:
    shown = done(home, "--help")
    for name in ("init", "whoami", "key"):
        assert f" {name} " in shown
    words = "zignet key im"
    env = {"_ZIGNET_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "2"}
    assert done(home, env=env).split() == ["import"]
