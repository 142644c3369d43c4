"""How a command finds the running node: by what the configuration says, read no further than need be."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from zignet.cli import files
from zignet.config import ConfigError, load_config


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path | None]:
    """The files that were read properly."""
    read: list[Path | None] = []
    load = files.load

    def noted(path: Path | None) -> Any:
        read.append(path)
        return load(path)

    monkeypatch.setattr(files, "load", noted)
    return read


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(text)
    return path


GUESSED = [
    "state_dir: {}",
    "state_dir:   {}   ",
    "state_dir: {}  # where it lives",
    'state_dir: "{}"',
    "state_dir: '{}'",
    "routes: []\nstate_dir: {}\ntun: {{mtu: 1500}}",
    "# state_dir: /elsewhere\nstate_dir: {}",
    "routes: []\r\nstate_dir: {}\r\n",
]
PARSED = [
    "{{state_dir: {}}}",
    '{{"state_dir": {}, routes: []}}',
    '"state_dir": {}',
    "'state_dir': {}",
    "? state_dir\n: {}",
    "state_dir :  {}",
    "state_dir:\n  {}",
    "state_dir: >-\n  {}",
    "\ufeffstate_dir: {}",
]


@pytest.mark.parametrize("text", GUESSED)
def test_a_node_that_answers_is_found_without_reading_the_file(
    running: Path, tmp_path: Path, parsed: list[Any], text: str
) -> None:
    path = write(tmp_path, text.format(running))
    assert files.state_dir(path) == running
    assert parsed == []
    assert load_config(path).state_dir == running  # and that was right


@pytest.mark.parametrize("text", PARSED)
def test_what_can_be_written_in_another_way_is_read_properly(
    running: Path, tmp_path: Path, parsed: list[Any], text: str
) -> None:
    path = write(tmp_path, text.format(running))
    assert files.state_dir(path) == running
    assert parsed == [path]


@pytest.mark.parametrize("text", [*GUESSED, *PARSED])
def test_where_no_node_answers_the_file_is_read(tmp_path: Path, parsed: list[Any], text: str) -> None:
    path = write(tmp_path, text.format(tmp_path / "nobody"))
    assert files.state_dir(path) == tmp_path / "nobody"
    assert parsed == [path]


@pytest.mark.parametrize("rest", ["nonsense: 1", "routes: [", "\tx", "peers:\n  - file: ./missing"])
def test_a_file_that_was_broken_since(running: Path, tmp_path: Path, parsed: list[Any], rest: str) -> None:
    assert files.state_dir(write(tmp_path, f"state_dir: {running}\n{rest}\n")) == running
    assert parsed == []
    with pytest.raises(ConfigError):
        files.state_dir(write(tmp_path, f"state_dir: {tmp_path / 'nobody'}\n{rest}\n"))


def test_a_long_file(running: Path, tmp_path: Path, parsed: list[Any]) -> None:
    """A hundred thousand peers are not looked at."""
    line = "  - {name: peer, key: " + "a" * 56 + "}\n"
    path = write(tmp_path, f"state_dir: {running}\npeers:\n{line * 100_000}")
    begun = time.monotonic()
    assert files.state_dir(path) == running
    assert time.monotonic() - begun < 1.0
    assert parsed == []


def test_relative_to_the_file(
    running: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parsed: list[Any]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    write(tmp_path, f"state_dir: ./{running.name}\n")
    found = files.state_dir(Path("../my.yaml"))
    assert found.samefile(running)
    assert parsed == []


def test_under_the_home_directory(
    running: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parsed: list[Any]
) -> None:
    monkeypatch.setenv("HOME", str(running.parent))
    assert files.state_dir(write(tmp_path, f"state_dir: ~/{running.name}\n")) == running
    assert parsed == []


@pytest.mark.parametrize("text", ["", "routes: []\n", "nonsense: 1\n"])
def test_the_default_where_the_file_says_nothing(
    running: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parsed: list[Any], text: str
) -> None:
    monkeypatch.setenv("HOME", str(running.parent))
    running.rename(running.parent / ".zignet")
    assert files.state_dir(write(tmp_path, text)) == running.parent / ".zignet"
    assert parsed == []


def test_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parsed: list[Any]) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.state_dir(None) == tmp_path / ".zignet"
    assert parsed == [None]


def test_a_home_that_nobody_has(tmp_path: Path, parsed: list[Any]) -> None:
    path = write(tmp_path, "state_dir: ~nobody-of-this-name/x\n")
    with pytest.raises(ConfigError):
        files.state_dir(path)
    assert parsed == [path]
