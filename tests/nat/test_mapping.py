"""Mappings on real sockets: endpoint-independent, open to strangers, told of errors; and relays (SOCKS5)."""

import os
import socket
import subprocess
import sys

import pytest
from scapy.layers.inet import ICMP, IP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, IPerror6, IPv6

from nat.exit import Reason, Refusal, UdpDirect
from nat.settings import Settings
from tests.nat.test_gateway import families
from tests.nat.test_udp import HOSTS, all_of, datagram, train
from tests.nat.world import (
    APP4,
    APP6,
    Origin,
    Rules,
    Way,
    closed_port,
    packed,
    read_some,
    received,
    sums_right,
    udp_server,
    world,
)
from zignet.exits.socks5 import Socks5

pytestmark = pytest.mark.packet_path

APPS = {"v4": APP4, "v6": APP6}


@pytest.fixture
def servers(request):
    family = request.getfixturevalue("family") if "family" in request.fixturenames else "v4"
    made = [udp_server(HOSTS[family]) for _ in range(3)]
    yield made
    for one in made:
        one.close()


@families
def test_all_targets_see_the_same_port(family, servers, no_leak):
    with world() as lab:
        senders = []
        for server in servers:
            lab.device.put(datagram(server, sport=5000))
            senders.append(lab.loop.until(lambda server=server: received(server))[1])
        assert len(set(senders)) == 1
        assert len(lab.engine.mappings) == 1
        lab.device.put(datagram(servers[0], sport=5001))
        assert lab.loop.until(lambda: received(servers[0]))[1] not in senders
        assert len(lab.engine.mappings) == 2


@families
def test_strangers_may_answer(family, servers):
    with world() as lab:
        lab.device.put(datagram(servers[0]))
        _, sender = lab.loop.until(lambda: received(servers[0]))
        for number, stranger in enumerate(servers[1:] * 2):
            stranger.sendto(b"psst %d" % number, sender)
            out = lab.answer().packet
            assert sums_right(bytes(out))
            assert (out.src, out[UDP].sport) == stranger.getsockname()[:2]
            assert (out.dst, out[UDP].dport) == (APPS[family], 5000)
            assert bytes(out[UDP].payload) == b"psst %d" % number
        assert len(lab.engine.udp.flows) == 1
        assert lab.flow().down == 0  # it has not answered


def test_what_is_remembered_of_strangers_is_bounded(servers):
    with world() as lab:
        lab.device.put(datagram(servers[0]))
        _, sender = lab.loop.until(lambda: received(servers[0]))
        for number in range(300):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.bind((f"127.1.{number >> 8}.{number & 255}", 0))
                stranger.sendto(b"x", sender)
            assert lab.answer().packet.src == f"127.1.{number >> 8}.{number & 255}"
        assert len(lab.flow().mapping._strangers) <= 256


def test_a_mapping_goes_with_its_last_flow(servers, no_leak):
    with world(settings=Settings(udp_idle_s=60.0)) as lab:
        for server in servers[:2]:
            lab.device.put(datagram(server))
        _, sender = lab.loop.until(lambda: received(servers[1]))
        first, second = lab.engine.udp.flows.values()
        lab.engine.udp.remove(first)
        lab.loop.turn()
        servers[1].sendto(b"still there", sender)
        assert bytes(lab.answer().packet[UDP].payload) == b"still there"
        lab.engine.udp.remove(second)
        lab.loop.turn()
        assert len(lab.engine.mappings) == 0
        servers[1].sendto(b"too late", sender)
        lab.loop.settle()
        assert lab.written() == []


def test_each_exit_has_its_own_mapping(servers):
    one, other = Way("one"), Way("other")

    class ByPort(Rules):
        def choose(self, protocol, source, source_port, target, port, name):
            self.default = one if port == servers[0].getsockname()[1] else other
            return super().choose(protocol, source, source_port, target, port, name)

    with world(ByPort(one)) as lab:
        senders = []
        for server in servers[:2]:
            lab.device.put(datagram(server))
            senders.append(lab.loop.until(lambda server=server: received(server))[1])
        assert senders[0] != senders[1]


@families
def test_a_closed_port_is_told_to_the_application(family):
    with world() as lab:
        address = closed_udp_port(HOSTS[family])
        packet = datagram(address, b"anybody there?", sport=5000)
        lab.device.put(packet)
        out = lab.answer()
        assert sums_right(out.raw)
        assert (out.packet.src, out.packet.dst) == (HOSTS[family], APPS[family])
        if family == "v4":
            assert (out.packet[ICMP].type, out.packet[ICMP].code) == (3, 3)
            quote, udp = out.packet[IPerror], out.packet[UDPerror]
        else:
            assert out.packet[ICMPv6DestUnreach].code == 4
            quote, udp = out.packet[IPerror6], out.packet[UDPerror]
        assert (quote.src, quote.dst) == (APPS[family], HOSTS[family])
        assert (udp.sport, udp.dport) == (5000, address[1])
        assert bytes(udp.payload) == b"anybody there?"


def closed_udp_port(host):
    with udp_server(host) as one:
        return one.getsockname()[:2]


@families
def test_an_error_belongs_to_the_flow_that_caused_it(family, servers):
    """And it does not stop the others of the mapping: not even the datagram that finds it pending."""
    with world() as lab:
        closed = closed_udp_port(HOSTS[family])
        for number in range(20):
            lab.device.put(datagram(closed, b"knock"))
            lab.device.put(datagram(servers[0], b"%d" % number))
            lab.device.put(datagram(servers[1], b"%d" % number))
        for server in servers[:2]:
            assert [data for data, _ in all_of(lab, server, 20)] == [b"%d" % n for n in range(20)]
        lab.loop.settle()
        errors = lab.written()
        assert errors
        for out in errors:
            assert out.packet[UDPerror].dport == closed[1]


def in_a_namespace_without_routes():
    """In a network namespace of its own, with nothing but loopback."""
    for family, far in (("v4", "203.0.113.9"), ("v6", "2001:db8::9")):
        with world() as lab:
            lab.device.put(datagram((far, 4000), b"hello"))
            out = lab.answer().packet
            code = out[ICMP].code if family == "v4" else out[ICMPv6DestUnreach].code
            print(out.src, out.dst, code, bytes(out[UDPerror].payload).decode(), lab.flow().error)


@pytest.mark.root
def test_no_route_is_told_at_once():
    code = "from tests.nat.test_mapping import in_a_namespace_without_routes as run; run()"
    command = ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", sys.executable, "-c", code]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.splitlines() == [
        f"203.0.113.9 {APP4} 0 hello Network is unreachable",
        f"2001:db8::9 {APP6} 0 hello Network is unreachable",
    ]


def test_no_socket_is_a_refusal(servers):
    with world(Rules(Way(datagrams=UdpDirect("no-such-if")))) as lab:
        (out,) = lab.give(datagram(servers[0]))
        assert out.packet[ICMP].code == 13
        assert "no socket: No such device" in lab.engine.tally.recent[-1].error


def test_many_datagrams_to_a_server_that_is_slow(servers):
    """A full socket buffer drops and counts; nothing stops."""
    with world() as lab:
        for _ in range(300):
            lab.device.put(datagram(servers[0], bytes(1400)))
            lab.loop.turn()
        assert lab.flow().up == 300 * 1400
        got = 0
        while received(servers[0]):
            got += 1
        assert got > 10


# --- through a relay


class Proxy:
    """A SOCKS5 server with one association at a time; the test moves its datagrams by hand."""

    def __init__(self, lab, host="127.0.0.1"):
        self.lab = lab
        self.origin = Origin(host)
        self.relay = udp_server(host)
        self.control = None

    @property
    def way(self):
        host, port = self.origin.address
        return Way("proxy", datagrams=Socks5("proxy", packed(host), port).udp)

    def greet(self):
        """Up to the reply, which `grant` sends."""
        self.control = self.lab.loop.until(self.origin.accept)
        assert self.lab.loop.until(lambda: read_some(self.control)) == b"\5\1\0"
        self.control.send(b"\5\0")
        request = self.lab.loop.until(lambda: read_some(self.control))
        assert request[:3] == b"\5\3\0"

    def grant(self):
        host, port = self.relay.getsockname()[:2]
        kind = b"\4" if ":" in host else b"\1"
        self.control.send(b"\5\0\0" + kind + packed(host) + port.to_bytes(2, "big"))

    def taken(self):
        """The next datagram from the engine: (target, port, payload), and who sent it."""
        data, sender = self.lab.loop.until(lambda: received(self.relay))
        assert data[:3] == bytes(3)
        size = {1: 4, 4: 16}[data[3]]
        target, port = data[4 : 4 + size], int.from_bytes(data[4 + size : 6 + size], "big")
        return target, port, data[6 + size :], sender

    def close(self):
        for one in (self.origin, self.relay, self.control):
            if one is not None:
                one.close()


@pytest.fixture
def proxied(no_leak):
    with world() as lab:
        proxy = Proxy(lab)
        lab.rules.default = proxy.way
        yield lab, proxy
        proxy.close()


FAR = ("203.0.113.7", 4433)


def wrapped(address, port, payload):
    kind = b"\1" if len(packed(address)) == 4 else b"\4"
    return bytes(3) + kind + packed(address) + port.to_bytes(2, "big") + payload


def test_an_association_carries_datagrams_both_ways(proxied):
    lab, proxy = proxied
    lab.device.put(datagram(FAR, b"one"))
    lab.device.put(datagram(FAR, b"two"))
    lab.loop.settle()
    proxy.greet()
    proxy.grant()
    assert proxy.taken()[:3] == (packed(FAR[0]), FAR[1], b"one")  # what waited comes in its order
    target, port, payload, sender = proxy.taken()
    assert (target, port, payload) == (packed(FAR[0]), FAR[1], b"two")
    proxy.relay.sendto(wrapped(*FAR, b"the answer"), sender)
    out = lab.answer().packet
    assert sums_right(bytes(out))
    assert (out.src, out[UDP].sport, out[UDP].dport) == (*FAR, 5000)
    assert bytes(out[UDP].payload) == b"the answer"
    assert lab.flow().down == 10
    proxy.relay.sendto(wrapped("198.51.100.9", 99, b"a stranger"), sender)
    out = lab.answer().packet
    assert (out.src, out[UDP].sport) == ("198.51.100.9", 99)
    # A second target of the same port goes the same way.
    lab.device.put(datagram(("203.0.113.8", 53), b"elsewhere"))
    assert proxy.taken() == (packed("203.0.113.8"), 53, b"elsewhere", sender)
    assert len(lab.engine.mappings) == 1


def test_an_association_for_ipv6_targets_by_an_ipv4_proxy(proxied):
    lab, proxy = proxied
    lab.device.put(datagram(("2001:db8::7", 53), b"six"))
    lab.loop.settle()
    proxy.greet()
    proxy.grant()
    target, port, payload, sender = proxy.taken()
    assert (target, port, payload) == (packed("2001:db8::7"), 53, b"six")
    proxy.relay.sendto(wrapped("2001:db8::7", 53, b"back"), sender)
    out = lab.answer().packet
    assert isinstance(out, IPv6)
    assert sums_right(bytes(out))
    proxy.relay.sendto(wrapped("192.0.2.1", 53, b"the wrong family"), sender)
    lab.loop.settle()
    assert lab.written() == []


def test_super_datagrams_go_one_by_one_with_a_header_each():
    with world(header=10) as lab:
        proxy = Proxy(lab)
        lab.rules.default = proxy.way
        payload = os.urandom(2500)
        virtio, raw = train(FAR, payload, 1000)
        lab.device.put(raw, virtio)
        lab.loop.settle()
        proxy.greet()
        proxy.grant()
        assert [proxy.taken()[2] for _ in range(3)] == [payload[:1000], payload[1000:2000], payload[2000:]]
        proxy.close()


def test_what_waits_for_a_relay_is_bounded(proxied):
    lab, proxy = proxied
    for number in range(50):
        lab.device.put(datagram(FAR, b"%d" % number))
        lab.loop.turn()
    assert lab.engine.dropped["udp: the exit is not there yet"] == 18
    proxy.greet()
    proxy.grant()
    assert [proxy.taken()[2] for _ in range(32)] == [b"%d" % n for n in range(32)]


@pytest.mark.parametrize(
    "junk", [b"", b"\0\0\0\1", b"\0\0\1\1" + bytes(20), b"\0\0\0\3\1a\0\0x", bytes(range(40))]
)
def test_junk_from_a_relay_is_dropped(proxied, junk):
    lab, proxy = proxied
    lab.device.put(datagram(FAR, b"x"))
    lab.loop.settle()
    proxy.greet()
    proxy.grant()
    sender = proxy.taken()[3]
    proxy.relay.sendto(junk[:2] + b"\1" + junk[3:], sender)
    proxy.relay.sendto(wrapped(*FAR, b"good"), sender)
    assert bytes(lab.answer().packet[UDP].payload) == b"good"
    assert lab.engine.dropped["udp: malformed datagram from the exit"] == 1


def test_only_the_relay_is_listened_to(proxied):
    lab, proxy = proxied
    lab.device.put(datagram(FAR, b"x"))
    lab.loop.settle()
    proxy.greet()
    proxy.grant()
    sender = proxy.taken()[3]
    with udp_server() as stranger:
        stranger.sendto(wrapped(*FAR, b"forged"), sender)
        lab.loop.settle()
    assert lab.written() == []


@pytest.mark.parametrize("how", ["close", "reset"])
def test_the_association_ends_with_its_connection(proxied, how):
    lab, proxy = proxied
    lab.device.put(datagram(FAR, b"x"))
    lab.loop.settle()
    proxy.greet()
    proxy.grant()
    proxy.taken()
    flow = lab.flow()
    if how == "reset":
        proxy.control.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    proxy.control.close()
    lab.loop.until(lambda: flow.ended)
    assert flow.error == "the exit ended the association"
    assert len(lab.engine.mappings) == 0
    lab.device.put(datagram(FAR, b"again"))  # the next datagram tries anew
    lab.loop.settle()
    proxy.greet()
    proxy.grant()
    assert proxy.taken()[2] == b"again"


def test_a_proxy_that_grants_and_closes_in_one_breath(proxied):
    lab, proxy = proxied
    lab.device.put(datagram(FAR, b"x"))
    lab.loop.settle()
    flow = lab.flow()
    proxy.greet()
    proxy.grant()
    proxy.control.shutdown(socket.SHUT_WR)
    lab.loop.until(lambda: flow.ended, 2.0)
    assert len(lab.engine.mappings) == 0


def test_a_relay_s_closed_port_ends_the_association(proxied):
    lab, proxy = proxied
    lab.device.put(datagram(FAR, b"x"))
    lab.loop.settle()
    proxy.greet()
    proxy.grant()
    proxy.taken()
    proxy.relay.close()
    flow = lab.flow()
    lab.device.put(datagram(FAR, b"into the void"))
    lab.loop.until(lambda: flow.ended)
    assert "Connection refused" in flow.error


def test_a_proxy_that_is_down(no_leak):
    host, port = closed_port()
    with world(Rules(Way(datagrams=Socks5("proxy", packed(host), port).udp))) as lab:
        lab.device.put(datagram(FAR, b"x"))
        lab.loop.until(lambda: lab.engine.tally.recent)
        assert lab.engine.tally.recent[-1].error == "the exit cannot be reached: Connection refused"
        lab.loop.turn()
        assert len(lab.engine.mappings) == 0


def test_an_exit_without_udp(servers):
    with world(Rules(Way(refusal=Refusal(Reason.TIMED_OUT, "no UDP")))) as lab:
        assert lab.give(datagram(servers[0])) == []  # silence, as asked
        assert lab.engine.tally.recent[-1].error == "no UDP"


def test_flows_that_end_while_the_relay_is_asked_for(proxied):
    lab, proxy = proxied
    lab.device.put(datagram(FAR, b"x"))
    lab.loop.settle()
    lab.engine.udp.remove(lab.flow())
    lab.loop.settle()
    assert len(lab.engine.mappings) == 0
    assert len(lab.engine.dialler.waiting) == 0
    control = proxy.origin.accept()
    assert control.recv(9) in (b"", b"\5\1\0")
    control.close()


def test_a_named_target_s_answers_come_from_the_address_that_was_asked(proxied):
    """The proxy resolves the name to some other address; the application must not notice."""
    lab, proxy = proxied
    lab.device.put(datagram(FAR, b"x"))
    lab.loop.settle()
    proxy.greet()
    proxy.grant()
    sender = proxy.taken()[3]
    lab.flow().by_name = True
    for payload in (b"first", b"second"):
        proxy.relay.sendto(wrapped("192.0.2.200", FAR[1], payload), sender)
        out = lab.answer().packet
        assert (out.src, out[UDP].sport) == FAR
        assert bytes(out[UDP].payload) == payload
    assert isinstance(out, IP)
