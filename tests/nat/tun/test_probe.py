"""What the kernel does with packets that are written to the device."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import time
from dataclasses import replace

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from nat import header
from nat.tun import InterfaceGone, Offload, apply, ioctls, loopback_answers, probe, probe_offload

pytestmark = pytest.mark.root

ALIAS4, ALIAS6 = "100.127.3.4", "fd7a:0:0:ffff::34"


@pytest.fixture
def tun(host, plan):
    device = host.open()
    host.call(apply, replace(plan, capture=False))
    return device


def listen(host, address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = host.call(socket.create_server, (address, 0), family=family)
    server.settimeout(0.2)
    return server


def answers(host, tun, server, alias=ALIAS4, timeout_s=0.5):
    return host.call(loopback_answers, tun, alias, *server.getsockname()[:2], timeout_s=timeout_s)


def test_a_good_kernel_keeps_all_its_offload(host, tun):
    before = tun.offload
    dropped = "cat /sys/class/net/zig0/statistics/rx_dropped /sys/class/net/zig0/statistics/rx_errors"
    assert probe_offload(tun) == tun.offload == before
    assert host.shell(dropped) == "0\n0\n"  # the kernel took them from us; its IP layer drops them


def test_no_packet_of_the_probe_gets_as_far_as_the_firewall(host, tun):
    host.firewall("prerouting priority raw", "iifname zig0 counter")
    probe_offload(tun)
    assert "packets 0 " in host.shell("nft list ruleset")


def test_the_samples_are_real_super_packets():
    for feature, sample in probe._samples():
        flags, kind, length, size, start, offset = struct.unpack_from("=BBHHHH", sample)
        packet = sample[10:]
        parsed = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
        layer = parsed[TCP] if TCP in parsed else parsed[UDP]
        assert flags == header.VNET_NEEDS_CSUM
        assert len(packet) == (parsed.len if parsed.version == 4 else parsed.plen + 40)
        assert start == len(packet) - len(layer)
        assert offset == (16 if layer.name == "TCP" else 6)
        assert (kind == header.GSO_NONE) == (feature == Offload.CSUM)
        if kind:
            assert size * probe.SEGMENTS == len(layer.payload)
            assert length == len(packet) - len(layer.payload)


@pytest.mark.parametrize(
    ("refused", "left"),
    [
        ({header.GSO_UDP_L4}, Offload.TCP),
        ({header.GSO_TCPV4 | header.GSO_ECN}, Offload.ALL & ~Offload.TSO_ECN),
        ({header.GSO_UDP_L4, header.GSO_TCPV4, header.GSO_TCPV6}, Offload.CSUM),
        ({header.GSO_NONE}, Offload.NONE),
    ],
)
def test_a_kernel_that_refuses_what_it_promised(tun, monkeypatch, refused, left):
    """Seen on some kernels, not on this one: so the refusal is played, the rest is real."""
    real = os.write

    def write(descriptor, packet):
        if packet[header.VNET_GSO_TYPE] in refused:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(descriptor, packet)

    monkeypatch.setattr(probe.os, "write", write)
    possible = left & tun.offload
    assert probe_offload(tun) == tun.offload == possible


def test_a_kernel_that_refuses_everything(tun):
    """With two bytes more before each packet, ours make no sense to this kernel: a real EINVAL."""
    fcntl.ioctl(tun.fileno(), ioctls.TUNSETVNETHDRSZ, struct.pack("i", 12))
    assert probe_offload(tun) == tun.offload == Offload.NONE


def test_the_probes_say_so_when_the_interface_is_down_or_gone(host, tun):
    server = listen(host, "127.0.0.1")
    for command in ("ip link set zig0 down", "ip link del zig0"):
        host.shell(command)
        with pytest.raises(InterfaceGone):
            probe_offload(tun)
        with pytest.raises(InterfaceGone):
            answers(host, tun, server)


@pytest.mark.parametrize(
    ("address", "alias"), [("127.0.0.1", ALIAS4), ("100.64.0.1", ALIAS4), ("fd7a::1", ALIAS6)]
)
def test_a_listener_answers_and_accepts_nothing(host, tun, address, alias):
    server = listen(host, address)
    assert answers(host, tun, server, alias)
    with pytest.raises(TimeoutError):
        server.accept()
    assert "SYN-RECV" not in host.shell("ss -tan state syn-recv; true")


def test_a_port_without_a_listener_does_not_answer(host, tun):
    server = listen(host, "127.0.0.1")
    closed = server.getsockname()
    server.close()
    assert not host.call(loopback_answers, tun, ALIAS4, *closed, timeout_s=0.2)


def test_other_packets_are_no_answer_and_do_not_hide_one(host, tun):
    server = listen(host, "127.0.0.1")
    with host.namespace.socket(kind=socket.SOCK_DGRAM) as sender:
        for _ in range(100):
            sender.sendto(b"noise", (ALIAS4, 9))
        assert answers(host, tun, server)
        host.firewall("input priority 0", "tcp flags syn drop")
        sender.sendto(b"noise", (ALIAS4, 9))
        assert not answers(host, tun, server, timeout_s=0.2)


@pytest.mark.parametrize(
    ("hook", "rule"),
    [
        ("prerouting priority raw", "ip daddr 127.0.0.0/8 iifname != lo drop"),  # as Docker and kube-proxy do
        ("input priority filter", "iifname zig0 drop"),
    ],
)
def test_a_firewall_that_eats_loopback_traffic(host, tun, hook, rule):
    server = listen(host, "127.0.0.1")
    assert answers(host, tun, server)
    host.firewall(hook, rule)
    started = time.monotonic()
    assert not answers(host, tun, server, timeout_s=0.3)
    assert time.monotonic() - started < 2


def test_without_route_localnet_there_is_no_answer(host, plan):
    tun = host.open()
    host.call(apply, replace(plan, capture=False, route_localnet=False))
    assert not answers(host, tun, listen(host, "127.0.0.1"), timeout_s=0.2)
    assert answers(host, tun, listen(host, "100.64.0.1"))


def test_a_device_without_a_header(host, plan):
    """As a given descriptor may be; here it is a real one whose header is left off."""
    from pytun import IFF_NO_PI, IFF_TUN, TunTapDevice

    from nat.tun.given import open_given

    parent = host.call(TunTapDevice, name="zig0", flags=IFF_TUN | IFF_NO_PI)
    tun = host.call(open_given, f"fd:{os.dup(parent.fileno())}", Offload.ALL)
    host.call(apply, replace(plan, capture=False))
    assert tun.header == 0
    assert probe_offload(tun) == Offload.NONE
    assert answers(host, tun, listen(host, "127.0.0.1"))
    tun.close()
    parent.close()
