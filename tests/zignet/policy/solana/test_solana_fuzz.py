import pytest

from tests.fuzzing import run
from tests.zignet.policy.solana.fuzz import TARGETS


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_briefly(target):
    assert run(target, 1, inputs=200) == 200
