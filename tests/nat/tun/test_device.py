import pytest

from nat.tun import Offload, TunError, open_tun
from nat.tun.device import wanted_offload


def test_settings_of_offload():
    assert wanted_offload("auto") == Offload.ALL
    assert wanted_offload("tcp") == Offload.CSUM | Offload.TSO4 | Offload.TSO6 | Offload.TSO_ECN
    assert wanted_offload("off") == Offload.NONE


def test_the_flags_are_the_kernels():
    # TUN_F_CSUM, TSO4, TSO6, TSO_ECN, USO4, USO6 of linux/if_tun.h; UFO (0x10) is never asked for
    assert int(Offload.ALL) == 0x6F


@pytest.mark.parametrize(
    ("device", "offload", "said"), [("utun7", "auto", "tun.device"), ("auto", "most", "tun.offload")]
)
def test_unknown_settings_are_named(device, offload, said):
    with pytest.raises(TunError, match=said):
        open_tun(device, "zig0", offload)
