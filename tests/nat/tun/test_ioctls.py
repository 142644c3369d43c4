import fcntl
import os
import struct

import pytest

from nat.tun import Offload, ioctls


@pytest.mark.root
def test_any_header_length_becomes_the_short_one(bare):
    tun = bare.open()
    fcntl.ioctl(tun.fileno(), ioctls.TUNSETVNETHDRSZ, struct.pack("i", 12))
    ioctls.set_header(tun.fileno())
    now = fcntl.ioctl(tun.fileno(), ioctls.TUNGETVNETHDRSZ, bytes(4))
    assert struct.unpack("i", now) == (ioctls.HEADER,)


@pytest.mark.root
@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        (Offload.CSUM, Offload.CSUM),
        (Offload.TCP & ~Offload.TSO_ECN, Offload.CSUM | Offload.TSO4 | Offload.TSO6),
        (Offload.TSO4, Offload.NONE),  # segmentation without checksums does not exist
    ],
)
def test_offload_is_what_the_kernel_can_do_of_what_was_asked(bare, wanted, got):
    assert bare.open().set_offload(wanted) == got


def test_a_descriptor_that_is_no_tun_has_no_identity_and_no_offload():
    with open(os.devnull) as null:
        assert ioctls.identify(null.fileno()) is None
        assert ioctls.offload_at_most(null.fileno(), Offload.ALL) == Offload.NONE


def test_the_mtu_of_an_unknown_interface_is_the_usual_one():
    assert ioctls.interface_mtu("no-such") == 1500
    assert ioctls.interface_mtu("lo") >= 1500
