"""Descriptors that somebody else opened."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

import pytest
from pytun import IFF_NO_PI, IFF_TAP, IFF_TUN, IFF_VNET_HDR, TunTapDevice

from nat.tun import BadDescriptor, Offload, open_tun

TUNSETIFF = 0x400454CA


def given(descriptor: int, offload: str = "auto"):
    """The device, on a copy of the descriptor: it is the device's to close."""
    return open_tun(f"fd:{os.dup(descriptor)}", "ignored", offload)


@pytest.mark.root
@pytest.mark.parametrize(("flags", "header"), [(IFF_VNET_HDR, 10), (0, 0)])
def test_a_tun_keeps_the_header_that_its_opener_chose(bare, flags, header):
    parent = bare.call(TunTapDevice, name="vpn3", flags=IFF_TUN | IFF_NO_PI | flags)
    tun = given(parent.fileno())
    assert (tun.name, tun.header) == ("vpn3", header)
    assert bool(tun.offload & Offload.TSO4) == bool(header)
    assert bare.call(lambda: tun.mtu) == 1500
    bare.shell("ip link set vpn3 mtu 1400")
    assert bare.call(lambda: tun.mtu) == 1400
    assert not os.get_blocking(tun.fileno())
    assert not os.get_inheritable(tun.fileno())
    tun.disable_offload()
    assert tun.offload == Offload.NONE
    tun.close()
    tun.close()
    assert "vpn3" in bare.shell("ip link")  # the parent holds it
    parent.close()


@pytest.mark.root
def test_the_setting_limits_the_offload_of_a_given_tun(bare):
    parent = bare.call(TunTapDevice, name="vpn3", flags=IFF_TUN | IFF_NO_PI | IFF_VNET_HDR)
    tun = given(parent.fileno(), "off")
    assert (tun.offload, tun.header) == (Offload.NONE, 10)
    tun.close()
    parent.close()


@pytest.mark.root
@pytest.mark.parametrize(("flags", "said"), [(IFF_TAP | IFF_NO_PI, "TAP device"), (IFF_TUN, "IFF_NO_PI")])
def test_a_device_with_other_headers_is_refused(bare, flags, said):
    parent = bare.call(os.open, "/dev/net/tun", os.O_RDWR)  # pytun would add IFF_NO_PI
    bare.call(fcntl.ioctl, parent, TUNSETIFF, struct.pack("16sH22x", b"vpn3", flags))
    with pytest.raises(BadDescriptor, match=said):
        bare.call(given, parent)
    os.close(parent)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_socket_that_keeps_packets_apart_will_do(kind):
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        tun = given(ours.fileno())
        assert (tun.name, tun.mtu, tun.header, tun.offload) == ("", 1500, 0, Offload.NONE)
        theirs.send(b"one")
        theirs.send(b"two")
        assert [os.read(tun.fileno(), 100), os.read(tun.fileno(), 100)] == [b"one", b"two"]
        with pytest.raises(BlockingIOError):
            os.read(tun.fileno(), 100)
        assert tun.set_offload(Offload.ALL) == Offload.NONE
        tun.close()


def test_what_keeps_no_packets_apart_is_refused():
    ours, theirs = socket.socketpair()
    with ours, theirs, open("/dev/null") as null:
        for descriptor in (ours.fileno(), null.fileno()):
            with pytest.raises(BadDescriptor, match="neither a TUN"):
                given(descriptor)


@pytest.mark.parametrize("device", ["fd:", "fd:x", "fd:-1", "fd:1.5", "fd:٣"])
def test_what_is_no_number_is_refused(device):
    with pytest.raises(BadDescriptor, match="no number"):
        open_tun(device, "", "auto")


@pytest.mark.parametrize("device", ["fd:987654", f"fd:{1 << 70}"])
def test_a_closed_descriptor_is_refused(device):
    with pytest.raises(BadDescriptor, match="not open"):
        open_tun(device, "", "auto")
