from __future__ import annotations

from collections.abc import Iterator

import pytest

from zignet.config import Config
from zignet.lab.namespace import Namespace


@pytest.fixture
def host() -> Iterator[Namespace]:
    """A namespace with a loopback interface and nothing else."""
    with Namespace("doctor") as namespace:
        yield namespace


@pytest.fixture
def config(tmp_path) -> Config:
    return Config.parse(f"state_dir: {tmp_path}\n")
