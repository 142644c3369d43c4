"""A hostile peer at an exit, briefly."""

import pytest

from tests.fuzzing import run
from tests.zignet.peers.fuzz_exits import TARGETS

pytestmark = pytest.mark.packet_path


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_fuzz_briefly(target):
    assert run(target, 1, inputs=60) == 60
