import pytest

from tests.zignet.peers.fuzz import TARGETS, fuzz_neighbours, run

pytestmark = pytest.mark.packet_path

XFAIL = pytest.mark.xfail(strict=True, reason="see test_one_peer_cannot_write_into_anothers_packet")


@pytest.mark.parametrize(
    "target",
    [pytest.param(one, marks=[XFAIL] if one is fuzz_neighbours else []) for one in TARGETS],
    ids=lambda target: target.__name__,
)
@pytest.mark.parametrize("seed", [1, 2])
def test_briefly(target, seed):
    assert run(target, seed, inputs=100) == 100
