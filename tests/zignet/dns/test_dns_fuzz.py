import pytest

from tests.fuzzing import run
from tests.zignet.dns.fuzz import TARGETS


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
@pytest.mark.parametrize("seed", [1, 2])
def test_briefly(target, seed):
    assert run(target, seed, inputs=300) == 300
