"""Real sockets on loopback. What a kernel or a driver may refuse is refused where the socket is called, only there."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket

import pytest

from zignet.lab.namespace import Namespace
from zignet.transport import Udp, UdpError
from zignet.transport.udp import ERRORS_PER_READ, UDP_GRO, UDP_SEGMENT

HOSTS = {"v4": "127.0.0.1", "v6": "::1"}
families = pytest.mark.parametrize("family", HOSTS)
marks = pytest.mark.parametrize("ecn", range(4))


@pytest.fixture
def opened():
    """Open sockets; they are closed at the end."""
    with contextlib.ExitStack() as stack:

        def open_udp(host, port=0, **more):
            made = Udp.open(host, port, **more)
            stack.callback(made.close)
            return made

        open_udp.adopt = lambda made: stack.callback(made.close) and made
        yield open_udp


def arrived(udp, total, seconds=5.0):
    """(datagrams, senders, ECN fields) of the next `total` bytes."""
    buffer = memoryview(bytearray(65_536))
    datagrams, senders, fields = [], set(), set()
    while total > 0:
        assert select.select([udp], [], [], seconds)[0], f"{total} bytes are missing"
        got = udp.receive_into(buffer)
        if got is None:
            continue
        count, size, sender, ecn = got
        data = bytes(buffer[:count])
        step = size or count or 1
        datagrams += [data[at : at + step] for at in range(0, count, step)]
        senders.add(sender)
        fields.add(ecn)
        total -= count
    return datagrams, senders, fields


def content(size, number=0):
    return bytes((number + at) & 0xFF for at in range(256)) * (size // 256) + bytes(size % 256)


# --- there and back


@families
@marks
def test_one_datagram(opened, family, ecn):
    one, other = opened(HOSTS[family]), opened(HOSTS[family])
    target = one.address(HOSTS[family], other.port)
    one.send(memoryview(b"hello"), 0, target, ecn)
    got = arrived(other, 5)
    assert got == ([b"hello"], {other.address(HOSTS[family], one.port)}, {ecn})
    assert other.receive_into(memoryview(bytearray(65_536))) is None
    assert not one.dropped
    assert not other.dropped


@families
@marks
@pytest.mark.parametrize(
    ("count", "size", "last"), [(2, 1200, 1200), (64, 1000, 1), (46, 1400, 700), (7, 9000, 2507)]
)
def test_many_datagrams_of_one_call(opened, family, ecn, count, size, last):
    one, other = opened(HOSTS[family]), opened(HOSTS[family])
    datagrams = [content(size, number) for number in range(count - 1)] + [content(last, 99)]
    data = b"".join(datagrams)
    assert len(data) <= 65_507
    one.send(memoryview(data), size, one.address(HOSTS[family], other.port), ecn)
    assert arrived(other, len(data)) == (datagrams, {other.address(HOSTS[family], one.port)}, {ecn})
    assert one.segmenting


@marks
@pytest.mark.parametrize("family", HOSTS)
def test_a_socket_of_both_versions(opened, family, ecn):
    """IPv4 comes as mapped addresses, goes to them, and an address is the same in both directions."""
    dual, plain = opened("::"), opened(HOSTS[family])
    there, here = dual.address(HOSTS[family], plain.port), plain.address(HOSTS[family], dual.port)
    for size, data in ((0, b"alone"), (1000, content(2500))):
        plain.send(memoryview(data), size, here, ecn)
        datagrams, senders, fields = arrived(dual, len(data))
        assert (b"".join(datagrams), senders, fields) == (data, {there}, {ecn})
        (sender,) = senders
        dual.send(memoryview(data), size, sender, ecn)
        datagrams, senders, fields = arrived(plain, len(data))
        assert (b"".join(datagrams), senders, fields) == (data, {here}, {ecn})
    assert dual.version(there) == (4 if family == "v4" else 6)
    assert there[0] == ("::ffff:127.0.0.1" if family == "v4" else "::1")


def test_an_empty_datagram(opened):
    one, other = opened("127.0.0.1"), opened("127.0.0.1")
    one.send(memoryview(b""), 0, one.address("127.0.0.1", other.port))
    select.select([other], [], [], 5)
    assert other.receive_into(memoryview(bytearray(100)))[:2] == (0, 0)


def test_the_dscp_is_no_ecn(opened):
    """Of the traffic class only the two low bits are told."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as raw:
        raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0xB9)
        other = opened("::1")
        raw.sendto(b"x", ("::1", other.port))
        assert arrived(other, 1)[2] == {1}


# --- opening


def test_where_it_listens(opened):
    one = opened("127.0.0.1")
    assert one.local == f"udp://127.0.0.1:{one.port}"
    assert one.fileno() == one.sock.fileno()
    assert not one.v6
    six = opened("::1")
    assert six.local == f"udp://[::1]:{six.port}"
    assert six.v6
    one.close()
    one.close()


def test_a_port_that_is_taken(opened):
    one = opened("127.0.0.1")
    with pytest.raises(UdpError, match=rf"udp://127.0.0.1:{one.port}: another program has this port"):
        Udp.open("127.0.0.1", one.port)


def test_an_address_that_is_nobodys():
    with pytest.raises(UdpError, match=r"udp://\[2001:db8::77\]:51830: no interface of this host"):
        Udp.open("2001:db8::77", 51830)


def test_a_system_without_ipv6(monkeypatch):
    def refuse(*_):
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(UdpError, match=r"no such sockets .*Set `listen: \[\"udp://0.0.0.0:51830\"\]`"):
        Udp.open("::", 51830)


def test_nothing_stays_open_after_an_error():
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(UdpError):
        Udp.open("192.0.2.99", 51830)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.root
def test_the_mark_and_large_buffers(opened):
    one = opened("::", mark=0x1234)
    assert one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) == 0x1234
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        assert one.sock.getsockopt(socket.SOL_SOCKET, option) == 2 * (8 << 20)
    assert one.ceiling(one.address("127.0.0.1", 9)) == 65_507


# --- addresses


def test_addresses_have_one_form(opened):
    four, six = opened("127.0.0.1"), opened("::1")
    assert four.address("192.0.2.1", 5) == ("192.0.2.1", 5)
    assert six.address("192.0.2.1", 5) == ("::ffff:192.0.2.1", 5, 0, 0)
    assert six.address("2001:DB8:0:0::1", 5) == ("2001:db8::1", 5, 0, 0)
    assert six.address("fe80::1%lo", 5) == ("fe80::1", 5, 0, socket.if_nametoindex("lo"))


@pytest.mark.parametrize(
    "host", ["", "localhost", "192.0.2", "192.0.2.256", "192.0.2.1 ", "::g", "fe80::1%nowhere0"]
)
def test_what_is_no_address(opened, host):
    with pytest.raises(ValueError, match="can't be reached"):
        opened("::1").address(host, 5)


def test_a_socket_of_ipv4_reaches_no_ipv6(opened):
    with pytest.raises(ValueError, match="can't be reached"):
        opened("127.0.0.1").address("2001:db8::1", 5)


@pytest.mark.parametrize(
    ("address", "packed", "text", "version"),
    [
        (("192.0.2.1", 51830), "00000000000000000000ffffc0000201ca76", "192.0.2.1:51830", 4),
        (("::ffff:192.0.2.1", 51830, 0, 0), "00000000000000000000ffffc0000201ca76", "192.0.2.1:51830", 4),
        (("2001:db8::1", 1, 0, 0), "20010db80000000000000000000000010001", "[2001:db8::1]:1", 6),
        (("::", 0, 0, 0), "000000000000000000000000000000000000", "[::]:0", 6),
        (("fe80::1", 65535, 0, 3), "fe800000000000000000000000000001ffff", "[fe80::1]:65535", 6),
        (("::ffff:1", 9, 0, 0), "000000000000000000000000ffff00010009", "[::ffff:1]:9", 6),
    ],
)
def test_forms_of_an_address(address, packed, text, version):
    assert Udp.text(address) == text
    assert Udp.version(address) == version
    assert Udp.packed(address).hex() == packed


# --- what is too large


@families
def test_the_ceiling_of_loopback(opened, family):
    one = opened("::")
    assert one.ceiling(one.address(HOSTS[family], 9)) == (65_507 if family == "v4" else 65_536 - 48)
    assert one.ceiling(one.address("2001:db8::77" if family == "v6" else "240.0.0.1", 9)) >= 1232


@pytest.fixture
def small():
    """A namespace whose loopback carries 1,400 bytes, and a route that is known to carry 1,300."""
    namespace = Namespace("udp")
    try:
        namespace.link("lo", mtu=1400)
        for command in (
            "ip link add far type veth peer name near",
            "ip link set far up",
            "ip link set near up",
            "ip address add 198.51.100.1/24 dev far",
            "ip -6 address add 2001:db8:5::1/64 dev far nodad",
            "ip route add 203.0.113.0/24 dev far mtu 1300",
            "ip -6 route add 2001:db8:6::/64 dev far mtu 1300",
        ):
            done = namespace.run(command.split())
            assert done.returncode == 0, done.stderr
        yield namespace
    finally:
        namespace.close()


@pytest.mark.root
@pytest.mark.parametrize(
    ("listening", "host", "mtu"),
    [
        ("0.0.0.0", "127.0.0.1", 1400),
        ("0.0.0.0", "198.51.100.7", 1500),
        ("0.0.0.0", "203.0.113.7", 1300),
        ("::", "127.0.0.1", 1400),
        ("::", "203.0.113.7", 1300),
        ("::", "::1", 1400),
        ("::", "2001:db8:5::7", 1500),
        ("::", "2001:db8:6::7", 1300),
    ],
)
def test_what_does_not_fit_its_way(small, listening, host, mtu):
    """Nothing is fragmented: whoever sends hears at once what was too large, and for whom."""
    one = small.call(Udp.open, listening, 0)
    try:
        told = []
        one.too_large = lambda address, size: told.append((address, size))
        address = one.address(host, 9)
        most = mtu - (48 if ":" in host else 28)
        assert small.call(one.ceiling, address) == most
        for count in (1, 3):
            one.send(memoryview(bytes(most * count)), most if count > 1 else 0, address)
            assert told == []
        one.send(memoryview(bytes(most + 1)), 0, address)
        assert told == [(address, most + 1)]
        one.send(memoryview(bytes(3 * most + 3)), most + 1, address)
        assert told == [(address, most + 1)] * 2
        assert one.dropped == {"too large for the path": 2}
        assert one.segmenting
        one.too_large = None
        one.send(memoryview(bytes(2000)), 0, address)
        assert one.dropped == {"too large for the path": 3}
    finally:
        one.close()


@pytest.mark.root
def test_nowhere_to_go(small):
    one = small.call(Udp.open, "::", 0)
    try:
        one.send(memoryview(b"x"), 0, one.address("192.0.2.1", 9))
        one.send(memoryview(b"x"), 0, one.address("2001:db8:7::1", 9))
        one.send(memoryview(bytes(2000)), 1000, one.address("192.0.2.1", 9), 1)
        assert one.dropped == {"not sent: ENETUNREACH": 3}
        assert one.segmenting
    finally:
        one.close()


def test_an_address_that_cannot_be_sent_to_is_not_too_far(opened):
    """Port 0: no datagram fits there, but no smaller one would."""
    one = opened("127.0.0.1")
    told = []
    one.too_large = lambda *what: told.append(what)
    one.send(memoryview(b"x"), 0, one.address("127.0.0.1", 0))
    assert told == []
    assert one.dropped == {"not sent: EINVAL": 1}


# --- kernels and drivers that do less


class Refusing(socket.socket):
    """A socket that says no to what a test names."""

    options = ()  # numbers of socket options
    send_errors = ()  # errno for the next calls of sendmsg that would segment
    plain_errors = ()  # and of sendto, and sendmsg that would not
    read_errors = ()

    def setsockopt(self, level, option, *value):
        if option in self.options:
            raise OSError(errno.ENOPROTOOPT, "no")
        return super().setsockopt(level, option, *value)

    def sendmsg(self, buffers, ancillary=(), *more):
        segments = any(kind == UDP_SEGMENT for _, kind, _ in ancillary)
        self.fail("send_errors" if segments else "plain_errors")
        return super().sendmsg(buffers, ancillary, *more)

    def sendto(self, *what):
        self.fail("plain_errors")
        return super().sendto(*what)

    def recvmsg_into(self, *what):
        self.fail("read_errors")
        return super().recvmsg_into(*what)

    def fail(self, kind):
        codes = getattr(self, kind)
        if codes:
            setattr(self, kind, codes[1:])
            raise OSError(codes[0], os.strerror(codes[0]))


def refusing(opened, host="127.0.0.1", **what):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = Refusing(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    for name, value in what.items():
        setattr(sock, name, value)
    sock.bind((host, 0))
    return opened.adopt(Udp(sock))


@families
@pytest.mark.parametrize("code", [errno.EIO, errno.EOPNOTSUPP])
@pytest.mark.parametrize("ecn", [0, 2])
def test_where_segmentation_does_not_work_they_go_one_by_one(opened, family, code, ecn):
    """EIO: an interface without checksum offload. It is tried once, and nothing is lost."""
    one, other = refusing(opened, HOSTS[family], send_errors=(code,) * 5), opened(HOSTS[family])
    datagrams = [content(1000, number) for number in range(9)] + [content(10)]
    data = b"".join(datagrams)
    for _ in range(2):
        one.send(memoryview(data), 1000, one.address(HOSTS[family], other.port), ecn)
        got, _, fields = arrived(other, len(data))
        assert (got, fields) == (datagrams, {ecn})
        assert not one.segmenting
    assert one.sock.send_errors == (code,) * 4
    assert not one.dropped


@families
def test_a_kernel_without_gro(opened, family):
    one, other = opened(HOSTS[family]), refusing(opened, HOSTS[family], options=(UDP_GRO,))
    datagrams = [content(1000, number) for number in range(9)]
    one.send(memoryview(b"".join(datagrams)), 1000, one.address(HOSTS[family], other.port))
    buffer = memoryview(bytearray(65_536))
    for datagram in datagrams:
        select.select([other], [], [], 5)
        assert other.receive_into(buffer)[:2] == (1000, 0)
        assert bytes(buffer[:1000]) == datagram


@pytest.mark.parametrize("size", [0, 500])
def test_a_full_buffer_is_a_lost_datagram(opened, size):
    one = refusing(opened, send_errors=(errno.EAGAIN,), plain_errors=(errno.EAGAIN,))
    one.too_large = lambda *what: pytest.fail("not too large")
    one.send(memoryview(bytes(1000)), size, one.address("127.0.0.1", 9))
    assert one.dropped == {"the socket's buffer is full": 1}
    assert one.segmenting


def test_each_of_those_that_go_one_by_one_has_its_own_fate(opened):
    one, other = refusing(opened, plain_errors=(errno.EPERM, errno.EMSGSIZE)), opened("127.0.0.1")
    one.segmenting = False
    told = []
    one.too_large = lambda address, size: told.append((address, size))
    address = one.address("127.0.0.1", other.port)
    one.send(memoryview(content(1000) * 3 + b"end"), 1000, address)
    assert arrived(other, 1003)[0] == [content(1000), b"end"]
    assert told == [(address, 1000)]
    assert one.dropped == {"not sent: EPERM": 1, "too large for the path": 1}


@pytest.mark.parametrize("code", [errno.EMSGSIZE, errno.EINVAL])
def test_segments_that_do_not_fit(opened, code):
    """EINVAL: kernels before 6.14."""
    one = refusing(opened, send_errors=(code,))
    told = []
    one.too_large = lambda address, size: told.append((address, size))
    one.send(memoryview(bytes(3000)), 1400, one.address("127.0.0.1", 9))
    assert told == [(one.address("127.0.0.1", 9), 1400)]
    assert one.segmenting


def test_an_error_about_an_earlier_datagram_is_no_end(opened):
    one, other = opened("127.0.0.1"), refusing(opened, read_errors=(errno.ECONNREFUSED, errno.EHOSTUNREACH))
    one.send(memoryview(b"x"), 0, one.address("127.0.0.1", other.port))
    assert arrived(other, 1)[0] == [b"x"]
    assert other.dropped == {"told: ECONNREFUSED": 1, "told: EHOSTUNREACH": 1}


def test_errors_without_end_are_given_up(opened):
    other = refusing(opened, read_errors=(errno.ECONNREFUSED,) * 1000)
    assert other.receive_into(memoryview(bytearray(100))) is None
    assert other.dropped.total() == ERRORS_PER_READ


def test_many_sizes_are_not_kept_for_ever(opened):
    one, other = opened("127.0.0.1"), opened("127.0.0.1")
    address = one.address("127.0.0.1", other.port)
    for size in range(1, 2100):
        for ecn in (0, 1, 2):
            one.send(memoryview(bytes(2 * size)[: 2 * size]), size, address, ecn)
    assert len(one._ancillary) <= 4096
    assert one.segmenting
