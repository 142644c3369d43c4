"""What the control process is told, as it goes over a file in memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zignet.admin.settings import Settings
from zignet.config import Config

TEXT = """
state_dir: /var/lib/zignet
admin: {http: no}
inbound:
  policies:
    - {type: file, path: ./members.txt}
    - {type: script, command: "./verify.sh --strict", timeout: 2s, on_error: stale}
    - {type: database, url: "sqlite:///members.db", query: "select name from members where key = :key"}
  recheck: 1m
routes: ["MATCH,direct"]
"""


def passed(data: bytes) -> Settings:
    descriptor = os.memfd_create("test")
    try:
        os.write(descriptor, data)
        return Settings.load(descriptor)
    finally:
        os.close(descriptor)


def test_round(tmp_path: Path) -> None:
    config = Config.parse(TEXT, tmp_path / "zignet.yaml")
    found = passed(Settings.of(config, "token").dump())
    assert found == Settings.of(config, "token")
    assert found.config.inbound.policies == config.inbound.policies
    assert found.config.inbound.recheck_s == 60.0
    assert len(found.config.routes) == 0
    assert "sqlite" in found.config.inbound.policies[2].url.text  # type: ignore[union-attr]


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x80\x05K\x01."])
def test_what_is_being_written(data: bytes) -> None:
    with pytest.raises(ValueError, match="no settings"):
        passed(data)
