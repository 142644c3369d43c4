"""The sockets that leave this host: their marks, their devices, and what happens when the kernel refuses."""

import os
import socket
from contextlib import closing

import pytest

from nat.sockets import Underlay, family_of, literal, sockaddr, text_of
from tests.lab.peers import eventually
from zignet.lab.namespace import Namespace

pytestmark = pytest.mark.packet_path

KINDS = [
    ("tcp", socket.SOCK_STREAM, socket.AF_INET),
    ("tcp", socket.SOCK_STREAM, socket.AF_INET6),
    ("udp", socket.SOCK_DGRAM, socket.AF_INET),
    ("udp", socket.SOCK_DGRAM, socket.AF_INET6),
]


@pytest.mark.parametrize(("name", "kind", "family"), KINDS)
def test_plain_sockets_do_not_block_and_are_not_inherited(name, kind, family):
    with closing(getattr(Underlay(), name)(int(family))) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == kind
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == family
        assert not os.get_blocking(made.fileno())
        assert not os.get_inheritable(made.fileno())
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0


@pytest.mark.root
@pytest.mark.parametrize("name", ["tcp", "udp", "icmp"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_every_socket_carries_the_mark_and_the_device(name, family):
    with closing(getattr(Underlay(0x5A), name)(int(family), "lo")) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0x5A
        device = made.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
        assert device.rstrip(b"\0") == b"lo"


def test_a_device_that_is_not_there_is_an_error_and_leaves_no_socket(no_leak):
    with pytest.raises(OSError, match="No such device"):
        Underlay().tcp(int(socket.AF_INET), "no-such-if")


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "::"])
def test_addresses(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    raw = socket.inet_pton(family, address)
    assert family_of(raw) == family
    assert text_of(raw) == address
    assert sockaddr(raw, 53) == (address, 53)


OWN = [
    *("127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "192.0.2.1", "2001:db8::1"),
    *("192.0.2.2", "2001:db8::2"),  # a second address
    *("203.0.113.200", "2001:db8:5::1234"),  # of a prefix that is local as a whole
    *("192.0.2.255", "::ffff:127.0.0.1"),
]
STRANGE = ["192.0.2.77", "2001:db8::77", "203.0.114.1", "2001:db8:6::1", "198.51.100.1"]


@pytest.fixture(scope="module")
def host():
    """A host with addresses, and with prefixes that are local as a whole ("AnyIP")."""
    with Namespace("host") as made:
        made.netlink(lambda ip: ip.link("add", ifname="eth0", kind="veth", peer={"ifname": "eth1"}))
        made.link("eth1", state="up")
        made.address("eth0", "192.0.2.1/24", "192.0.2.2/24", "2001:db8::1/64", "2001:db8::2/64")
        for prefix in ("203.0.113.192/26", "2001:db8:5::/64"):
            assert made.run(["ip", "route", "add", "local", prefix, "dev", "lo"]).returncode == 0
        for address in ("2001:db8::1", "2001:db8::2"):  # IPv6 waits for the carrier
            eventually(
                lambda address=address: "local" in made.run(["ip", "route", "get", address]).stdout, 30
            )
        yield made


@pytest.mark.root
@pytest.mark.parametrize("address", OWN + STRANGE)
@pytest.mark.parametrize("mark", [0, 0x5A])
def test_whether_an_address_is_this_host_s(host, address, mark):
    """What the kernel's routes say, not only its interfaces."""
    raw = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)

    def asked():
        underlay = Underlay(mark)
        return [underlay.is_own(raw) for _ in range(3)]

    assert host.call(asked) == [address in OWN] * 3


@pytest.mark.parametrize(
    ("address", "own"),
    [("127.0.0.1", True), ("::1", True), ("192.0.2.77", False), ("2001:db8::77", False), ("::", True)],
)
def test_where_the_kernel_tells_nothing_of_routes(address, own, monkeypatch):
    def refused(self, address):
        raise PermissionError

    monkeypatch.setattr(Underlay, "_kind", refused)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    assert Underlay().is_own(socket.inet_pton(family, address)) is own


def test_addresses_in_their_usual_notation():
    assert literal("192.0.2.1") == bytes((192, 0, 2, 1))
    assert literal("2001:db8::1") == socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    for name in ("", "www.example", "192.0.2", "::g", "1.2.3.4\0"):
        assert literal(name) is None
