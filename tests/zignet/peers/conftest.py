"""A world of whole hubs, whose clock is ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.zignet.peers.hubs import World
from zignet.peers import gate, hub, report


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path)
    monkeypatch.setattr(hub, "time", made.time)
    monkeypatch.setattr(report, "time", made.time)
    monkeypatch.setattr(gate, "FREE_S", 1e9)  # the time that a handshake takes is the machine's, not ours
    monkeypatch.setattr(hub, "random", SimpleNamespace(uniform=lambda least, most: least))
    yield made
    made.close()
