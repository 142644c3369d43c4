"""On the real /dev/net/tun, in a namespace."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import select
import socket
import struct
import subprocess
from contextlib import suppress

import pytest
from scapy.layers.inet import IP, TCP, UDP

from nat import header
from nat.tun import NameTaken, Offload, TunError, open_tun

pytestmark = pytest.mark.root

HAS_USO = tuple(int(part) for part in platform.release().split(".")[:2]) >= (6, 2)
BEST = Offload.ALL if HAS_USO else Offload.TCP
needs_uso = pytest.mark.skipif(not HAS_USO, reason="USO came with Linux 6.2")

UDP_SEGMENT = 103  # linux/udp.h
HERE, THERE = "198.18.0.1", "198.18.0.9"
OPEN = """
from nat.tun import TunError, open_tun
import nat.tun.linux
{before}
try:
    open_tun("auto", "zig0", "auto")
except TunError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def tun(bare):
    device = bare.open()
    bare.namespace.address("zig0", f"{HERE}/24")
    return device


def read(tun, timeout_s=2.0):
    """The next IPv4 packet: (flags, gso_type, gso_size) of its virtio_net_hdr, and itself."""
    while select.select([tun], [], [], timeout_s)[0]:
        data = os.read(tun.fileno(), 70000)
        flags, kind, _, size, _, _ = struct.unpack_from("=BBHHHH", data)
        if data[tun.header] >> 4 == 4:
            return (flags, kind, size), IP(data[tun.header :])
    raise AssertionError("nothing came out of the device")


def write(tun, packet):
    os.write(tun.fileno(), bytes(tun.header) + bytes(packet))


def test_a_new_device_says_what_it_is(bare):
    tun = bare.open()
    assert (tun.name, bare.call(lambda: tun.mtu), tun.header) == ("zig0", 1500, 10)
    assert tun.offload == BEST
    assert not os.get_blocking(tun.fileno())


@pytest.mark.parametrize(("setting", "offload"), [("tcp", Offload.TCP), ("off", Offload.NONE)])
def test_less_offload_is_taken_as_asked(bare, setting, offload):
    tun = bare.open(offload=setting)
    assert (tun.offload, tun.header) == (offload, 10)


def test_children_do_not_inherit_the_device(tun):
    assert fcntl.fcntl(tun.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    child = subprocess.run(["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True)
    assert "/dev/net/tun" not in child.stdout


def test_the_interface_vanishes_with_the_device(bare):
    tun = bare.open()
    tun.close()
    tun.close()
    assert "zig0" not in bare.shell("ip link")


def test_a_name_that_another_program_holds(bare, tun):
    with pytest.raises(NameTaken, match="zig0: another program"):
        bare.call(open_tun, "auto", "zig0", "auto")


def test_a_name_that_is_another_kind_of_interface(bare):
    with pytest.raises(NameTaken, match="no such TUN device"):
        bare.call(open_tun, "auto", "lo", "auto")


@pytest.mark.parametrize("name", ["", "a name", "x" * 16, "a/b", "."])
def test_a_name_that_no_interface_can_have(name):
    with pytest.raises(TunError, match="interface name"):
        open_tun("auto", name, "auto")


def test_a_persistent_device_that_nobody_holds_is_taken_over(bare):
    bare.shell("ip tuntap add zig0 mode tun")
    tun = bare.open()
    assert tun.offload == BEST
    tun.close()
    assert "zig0" in bare.shell("ip link")


def test_without_the_privilege(bare):
    drop = "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)"
    said = bare.python(OPEN.format(before=drop))
    assert said.startswith("NotPermitted cannot open the TUN device zig0")
    assert "CAP_NET_ADMIN" in said


def test_without_the_driver(bare):
    said = bare.python(
        OPEN.format(before=""), through="unshare -m sh -c 'mount -t tmpfs none /dev/net && exec \"$@\"' sh"
    )
    assert said.startswith("NoTunDriver")
    assert "modprobe tun" in said


def test_tcp_comes_out_in_super_packets_until_offload_is_off(bare, tun):
    """A client of an address that this test answers for, by hand."""
    with bare.namespace.socket() as client:
        client.setblocking(False)
        client.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno"
        )  # unpaced: segments as large as may be
        with pytest.raises(BlockingIOError):
            client.connect((THERE, 80))
        syn = read(tun)[1]
        options = [("MSS", 1460), ("WScale", 7)]
        ports = {"sport": syn.dport, "dport": syn.sport}
        answer = TCP(**ports, seq=1000, ack=syn.seq + 1, flags="SA", window=65535, options=options)
        write(tun, IP(src=THERE, dst=HERE) / answer)
        assert not read(tun)[1][TCP].payload

        largest = 0
        while largest < 20_000:
            with suppress(BlockingIOError):
                client.send(bytes(200_000))  # there is always more to send
            fields, packet = read(tun)
            largest = max(largest, len(packet[TCP].payload))
            if len(packet) > 1500:
                assert fields == (header.VNET_NEEDS_CSUM, header.GSO_TCPV4, 1460)
            acknowledge(tun, packet)

        tun.disable_offload()
        assert tun.offload == Offload.NONE
        while select.select([tun], [], [], 0.3)[0]:
            acknowledge(tun, read(tun)[1])
        client.send(bytes(50_000))
        for _ in range(5):
            (_, kind, size), packet = read(tun)
            assert (kind, size) == (header.GSO_NONE, 0)
            assert len(packet) <= 1500
            assert_summed(packet)
            acknowledge(tun, packet)


def acknowledge(tun, packet):
    end = packet.seq + len(packet[TCP].payload)
    ack = TCP(sport=packet.dport, dport=packet.sport, seq=1001, ack=end, flags="A", window=65535)
    write(tun, IP(src=packet.dst, dst=packet.src) / ack)


def assert_summed(packet):
    """Scapy fills in the checksum that the packet has."""
    fresh = IP(bytes(packet))
    del fresh[TCP if TCP in fresh else UDP].chksum
    assert bytes(fresh) == bytes(packet)


@needs_uso
def test_udp_comes_out_in_super_packets_until_offload_is_off(bare, tun):
    with bare.namespace.socket(kind=socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1200)
        client.sendto(bytes(12_000), (THERE, 5353))
        (_, kind, size), packet = read(tun)
        assert (kind, size, len(packet[UDP].payload)) == (header.GSO_UDP_L4, 1200, 12_000)

        tun.disable_offload()
        client.sendto(bytes(12_000), (THERE, 5353))
        for _ in range(10):
            (_, kind, size), packet = read(tun)
            assert (kind, size, len(packet[UDP].payload)) == (header.GSO_NONE, 0, 1200)
            assert_summed(packet)


@needs_uso
def test_a_super_packet_goes_in(bare, tun):
    """Three datagrams in one write arrive as three."""
    packet = IP(src=THERE, dst=HERE) / UDP(sport=7, dport=5353) / (b"abcd" * 750)
    raw = bytearray(bytes(packet))
    words = struct.unpack("!4H", socket.inet_aton(THERE) + socket.inet_aton(HERE))
    total = sum(words) + socket.IPPROTO_UDP + 3008
    raw[26:28] = ((total & 0xFFFF) + (total >> 16)).to_bytes(2, "big")  # the pseudo-header's sum alone
    vnet = struct.pack("=BBHHHH", header.VNET_NEEDS_CSUM, header.GSO_UDP_L4, 28, 1000, 20, 6)
    with bare.namespace.socket(kind=socket.SOCK_DGRAM) as server:
        server.bind((HERE, 5353))
        server.settimeout(2)
        os.write(tun.fileno(), vnet + raw)
        assert [server.recv(4000) for _ in range(3)] == [b"abcd" * 250] * 3


def test_reads_and_writes_say_that_the_interface_is_gone(bare, tun):
    bare.shell("ip link set zig0 down")
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write(tun, IP())
    bare.shell("ip link del zig0")
    for action in (lambda: os.read(tun.fileno(), 100), lambda: write(tun, IP())):
        with pytest.raises(OSError, match=os.strerror(errno.EBADFD)):
            action()
    events = select.poll()
    events.register(tun.fileno(), 0)
    assert events.poll(1000)[0][1] & select.POLLERR
