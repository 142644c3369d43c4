"""Exit flows through a real engine: names resolved there, dialled first, and the true answer at the application."""

from __future__ import annotations

import socket
import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, UDPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6

from nat.exit import Reason, Refusal
from nat.flow import State
from tests.nat.world import Origin, closed_port, packed, read_some, received, sums_right, udp_server
from tests.zignet.peers.exits import exit_lab
from tests.zignet.peers.pair import ONE4, ONE6, tcp, udp
from zignet.exits.block import Block
from zignet.peers import guest as guest_module

pytestmark = pytest.mark.packet_path

FAKE = {"v4": (ONE4, bytes((198, 19, 0, 7))), "v6": (ONE6, packed("2001:2::7"))}
SYN, ACK, RST = 0x02, 0x10, 0x04
LOOPBACK = {"v4": "127.0.0.1", "v6": "::1"}
families = pytest.mark.parametrize("family", ["v4", "v6"])


class Anywhere:
    """What these tests lift: their servers are on loopback."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr("zignet.exits.guests.may_dial", lambda packed, **how: packed in self.allowed)
        self.allowed = {packed("127.0.0.1"), packed("::1")}


@pytest.fixture
def anywhere(monkeypatch):
    return Anywhere(monkeypatch)


@pytest.fixture
def server():
    made = Origin()
    yield made
    made.close()


def layer(packet):
    return IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)


def connected(lab, family, server, sport=40_000, number=7):
    """A TCP flow that stands: (the kernel's end at the exit's listener, the server's end)."""
    lab.names.answers["www.example"] = [packed(server.address[0])]
    way = FAKE[family]
    lab.give(tcp(way, seq=1000, flags=SYN, ports=(sport, server.address[1])))
    far = lab.until(server.accept)
    syn = lab.tun()
    assert sums_right(syn.raw)
    near = lab.world.connect(syn.packet) if family == "v4" else None
    if near is not None:
        lab.until(lambda: lab.world.flow().state == State.ESTABLISHED)
    return syn.packet, near, far


@families
def test_a_name_is_dialled_and_the_syn_answered(anywhere, server, family):
    with exit_lab() as lab:
        syn, near, far = connected(lab, family, server)
        # The kernel at the exit answers the listener's side; it comes back under the fake address.
        answer = syn.__class__(src=syn.dst, dst=syn.src) / TCP(
            sport=syn[TCP].dport, dport=syn[TCP].sport, flags="SA", seq=7, ack=1001
        )
        lab.world.device.put(answer)
        back = layer(lab.back())
        assert sums_right(bytes(back))
        assert (packed(back.src), packed(back.dst)) == FAKE[family][::-1]
        assert (back[TCP].flags, back[TCP].seq, back[TCP].ack) == ("SA", 7, 1001)
        assert (back[TCP].sport, back[TCP].dport) == (server.address[1], 40_000)
        # Data has no name with it, and is translated by the quick path.
        lab.give(tcp(FAKE[family], b"GET /", seq=1001, ack=8, ports=(40_000, server.address[1])))
        data = lab.tun()
        assert sums_right(data.raw)
        assert data.packet.dst == syn.dst
        assert bytes(data.packet[TCP].payload) == b"GET /"
        flow = lab.world.flow()
        assert (flow.name, flow.route.rule) == ("www.example", f"exit for {lab.links[1].peer.name}")
        if near is not None:
            near.sendall(b"hello")
            assert lab.until(lambda: read_some(far)) == b"hello"
            near.close()
        far.close()


@families
def test_a_refusal_of_the_far_end_is_a_reset(anywhere, family):
    host, port = closed_port(LOOPBACK[family])
    with exit_lab() as lab:
        lab.names.answers["www.example"] = [packed(host)]
        lab.give(tcp(FAKE[family], seq=1000, flags=SYN, ports=(40_000, port)))
        back = layer(lab.back())
        assert (back[TCP].flags, back[TCP].ack, back[TCP].dport) == ("RA", 1001, 40_000)
        assert (packed(back.src), packed(back.dst)) == FAKE[family][::-1]
        assert sums_right(bytes(back))


@families
@pytest.mark.parametrize("reason", [Reason.HOST_UNREACHABLE, Reason.NET_UNREACHABLE])
def test_a_name_without_an_address_is_unreachable(anywhere, family, reason):
    with exit_lab() as lab:
        lab.names.answers["www.example"] = Refusal(reason, "it does not exist")
        for packet in (tcp(FAKE[family], seq=9, flags=SYN), udp(FAKE[family], b"x")):
            lab.give(packet)
            back = layer(lab.back())
            assert sums_right(bytes(back))
            host = reason is Reason.HOST_UNREACHABLE
            if family == "v4":
                assert (back[ICMP].type, back[ICMP].code) == (3, 1 if host else 0)
                assert (packed(back[IPerror].src), packed(back[IPerror].dst)) == FAKE["v4"]
            else:
                assert back[ICMPv6DestUnreach].code == (3 if host else 0)


REBOUND = [
    *("127.0.0.1", "0.0.0.0", "10.0.0.1", "192.168.1.1", "100.64.0.9", "169.254.169.254", "198.18.0.1"),
    *("::1", "::", "fe80::1", "fec0::1", "fd00::1", "ff02::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1"),  # mapped, compatible
    *("64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::a00:1"),  # NAT64
    *("2002:7f00:1::1", "2002:a00:1::1", "2001:0:a00:1::"),  # 6to4, Teredo
]


@pytest.mark.parametrize("address", REBOUND)
def test_rebinding_is_refused(server, address):
    """A name of the public internet that resolves to something private, or to this host; TCP and UDP."""
    far = udp_server()
    with exit_lab() as lab:
        lab.names.answers["www.example"] = [packed(address)]
        lab.give(tcp(FAKE["v4"], seq=1000, flags=SYN, ports=(40_000, server.address[1])))
        assert layer(lab.back())[TCP].flags == "RA"
        lab.give(udp(FAKE["v4"], b"x", ports=(40_000, far.getsockname()[1])))
        assert layer(lab.back())[ICMP].code == 13
        assert server.accept() is None
        assert received(far) is None
        assert lab.world.device.take() is None
    far.close()


def test_an_address_can_be_a_destination(anywhere, server):
    with exit_lab() as lab:
        lab.fakes.names[7] = "127.0.0.1"
        lab.give(tcp(FAKE["v4"], seq=1000, flags=SYN, ports=(40_000, server.address[1])))
        lab.until(server.accept).close()
        anywhere.allowed.clear()
        lab.give(tcp(FAKE["v4"], seq=1000, flags=SYN, ports=(40_001, server.address[1])))
        assert layer(lab.back())[TCP].flags == "RA"


@families
def test_datagrams_and_their_answers(anywhere, family):
    far = udp_server(LOOPBACK[family])
    port = far.getsockname()[1]
    with exit_lab() as lab:
        lab.names.answers["www.example"] = [packed(LOOPBACK[family])]
        lab.give(udp(FAKE[family], b"one", ports=(5000, port)))
        data, source = lab.until(lambda: received(far))
        assert data == b"one"
        far.sendto(b"two", source)
        back = lab.back()
        assert sums_right(back)
        assert back.endswith(b"two")
        at = 40 if family == "v6" else 20
        assert back[at : at + 4] == port.to_bytes(2, "big") + (5000).to_bytes(2, "big")
        # Answered: now without its name, on the quick path, out of the same socket.
        asked = len(lab.chooser.asked)
        lab.give(udp(FAKE[family], b"three", ports=(5000, port)))
        assert lab.until(lambda: received(far)) == (b"three", source)
        assert len(lab.chooser.asked) == asked
        # Another source port has a socket of its own.
        lab.give(udp(FAKE[family], b"four", ports=(5001, port)))
        assert lab.until(lambda: received(far))[1] != source
        # Who was not written to can't be told apart from anybody: dropped, and counted.
        stranger = udp_server(LOOPBACK[family])
        stranger.sendto(b"five", source)
        lab.until(lambda: lab.turn() or lab.exit.dropped)
        assert lab.exit.dropped == {"exit flows: from whom the guest has not written to": 1}
        stranger.close()
    far.close()


@families
def test_a_closed_port_of_udp(anywhere, family):
    host, port = closed_port(LOOPBACK[family])
    with exit_lab() as lab:
        lab.names.answers["www.example"] = [packed(host)]
        lab.give(udp(FAKE[family], b"x", ports=(5000, port)))
        back = layer(lab.back())
        assert sums_right(bytes(back))
        if family == "v4":
            assert back[ICMP].code == 3
            assert (back[UDPerror].sport, back[UDPerror].dport) == (5000, port)
        else:
            assert back[ICMPv6DestUnreach].code == 4


def test_one_port_for_all_destinations(anywhere):
    """Endpoint-independent mapping (RFC 4787 §4.1), as STUN and QUIC want it: names and addresses, one socket."""
    fars = [udp_server(), udp_server(), udp_server("127.0.0.2")]
    anywhere.allowed.add(packed("127.0.0.2"))
    meanings = {7: "one.example", 8: "two.example", 9: "127.0.0.2"}
    with exit_lab() as lab:
        lab.fakes.names.update(meanings)
        lab.names.answers |= {"one.example": [packed("127.0.0.1")], "two.example": [packed("127.0.0.1")]}
        seen = set()
        for number, far in zip(meanings, fars, strict=True):
            way = ONE4, bytes((198, 19, 0, number))
            lab.give(udp(way, b"who am I?", ports=(5000, far.getsockname()[1])))
            _, source = lab.until(lambda far=far: received(far))
            seen.add(source[1])
            far.sendto(b"you", source)
            back = lab.back()
            assert (back[12:16], back[-3:]) == (way[1], b"you")  # from the address that was asked
        assert len(seen) == 1
        assert len(lab.world.engine.udp.mappings) == 1
        # Filtering is address-dependent (§5): an address has no name here, so who was not asked has none.
        fars[0].sendto(b"x", ("127.0.0.1", seen.pop()))
        assert lab.back()[12:16] == bytes((198, 19, 0, 7))
    for far in fars:
        far.close()


# (the exit's kernel is told, the application's is): ICMP's origin, type, code and MTU
ICMP_AT_EXIT = [
    ("v4", (2, 3, 4, 1300), (3, 4, 1300)),
    ("v6", (3, 2, 0, 1300), (2, 0, 1300)),
    ("v6", (2, 3, 4, 1300), (2, 0, 1320)),  # its name led to an IPv4 address
    ("v4", (3, 2, 0, 1300), (3, 4, 1280)),
    ("v4", (2, 3, 3, 0), (3, 3, 0)),
    ("v4", (2, 3, 1, 0), (3, 1, 0)),
    ("v4", (2, 3, 0, 0), (3, 0, 0)),
    ("v4", (2, 3, 13, 0), (3, 13, 0)),
    ("v6", (3, 1, 3, 0), (1, 3, 0)),
    ("v6", (3, 1, 0, 0), (1, 0, 0)),
    ("v4", (2, 11, 0, 0), None),  # routers behind the exit are not shown
    ("v4", (2, 3, 4, 100), None),  # smaller than any path: nonsense
    ("v6", (3, 2, 0, 1000), None),
]


@pytest.mark.parametrize(("family", "heard", "told"), ICMP_AT_EXIT)
def test_what_the_exit_s_kernel_hears_by_icmp(anywhere, family, heard, told):
    far = udp_server(LOOPBACK[family])
    port = far.getsockname()[1]
    origin, kind, code, mtu = heard
    offender = socket.AF_INET, bytes(6) + bytes((192, 0, 2, 9))
    if origin == 3:
        offender = socket.AF_INET6, bytes(6) + packed("2001:db8::9") + bytes(4)
    error = (
        struct.pack("=IBBBBII", 90, origin, kind, code, 0, mtu, 0)
        + struct.pack("=H", offender[0])
        + offender[1]
    )
    with exit_lab() as lab:
        lab.names.answers["www.example"] = [packed(LOOPBACK[family])]
        lab.give(udp(FAKE[family], b"x" * 100, ports=(5000, port)))
        lab.until(lambda: received(far))
        mappings = lab.world.engine.udp.mappings
        for _ in range(300):
            mappings.icmp_error(lab.world.flow(), b"x" * 100, error)
        got = []
        while more := lab.turn():
            got += more
        assert len(got) == (0 if told is None else 200)  # a second
        if told is None:
            return
        assert sums_right(got[0])
        at = 20 if family == "v4" else 40
        assert (got[0][at], got[0][at + 1], int.from_bytes(got[0][at + 6 : at + 8], "big")) == told
        assert packed(layer(got[0]).src) == FAKE[family][1]
        quoted = layer(got[0][at + 8 :])
        assert (packed(quoted.src), packed(quoted.dst)) == FAKE[family]
        assert (quoted[UDP].sport, quoted[UDP].dport) == (5000, port)
    far.close()


def test_an_exit_that_has_forgotten_is_told_again(anywhere):
    """It was restarted: the numbers mean nothing there."""
    far = udp_server()
    port = far.getsockname()[1]
    with exit_lab() as lab:
        lab.names.answers["www.example"] = [packed("127.0.0.1")]
        lab.give(udp(FAKE["v4"], b"one", ports=(5000, port)))
        _, source = lab.until(lambda: received(far))
        far.sendto(b"two", source)
        lab.back()
        lab.guests.dismiss(lab.links[1])
        assert list(lab.world.engine.flows()) == []
        lab.give(udp(FAKE["v4"], b"lost", ports=(5000, port)))
        lab.until(lambda: lab.turn() or lab.destinations.by_number[7].answered_until == 0.0)
        assert lab.links[1].guest is not None
        lab.give(udp(FAKE["v4"], b"four", ports=(5000, port)))
        assert lab.until(lambda: received(far))[0] == b"four"
    far.close()


def test_a_segment_of_no_flow_is_reset(anywhere):
    with exit_lab() as lab:
        lab.names.answers["www.example"] = [packed("127.0.0.1")]
        lab.give(udp(FAKE["v4"], b"x", ports=(5000, 9)))  # makes the destination
        lab.give(tcp(FAKE["v4"], b"x", seq=5, ack=77, flags=ACK))
        resets = lab.until(lambda: [one for one in lab.turn() if one[9] == 6])
        assert (layer(resets[0])[TCP].flags, layer(resets[0])[TCP].seq) == ("R", 77)


def test_ports_and_protocols_of_the_policy(anywhere, server):
    with exit_lab(ports=(server.address[1],), carries_udp=False) as lab:
        lab.names.answers["www.example"] = [packed("127.0.0.1")]
        lab.give(tcp(FAKE["v4"], flags=SYN, ports=(40_000, 22)))
        assert layer(lab.back())[TCP].flags == "RA"
        lab.give(udp(FAKE["v4"], b"x", ports=(40_000, server.address[1])))
        assert layer(lab.back())[ICMP].code == 13
        lab.give(tcp(FAKE["v4"], flags=SYN, ports=(40_001, server.address[1])))
        lab.until(server.accept).close()
    with exit_lab(ports=(53,)) as lab:
        lab.give(udp(FAKE["v4"], b"x", ports=(40_000, 54)))
        assert layer(lab.back())[ICMP].code == 13


def test_who_may_not_exit(anywhere, server):
    with exit_lab() as lab:
        lab.guests.may = lambda link: False
        lab.give(tcp(FAKE["v4"], flags=SYN, ports=(40_000, server.address[1])))
        assert layer(lab.back())[TCP].flags == "RA"
        assert lab.exit.dropped == {"from peers: refused, forbidden": 1}
        assert lab.links[1].guest is None


def test_the_right_may_be_taken_away(anywhere, server):
    with exit_lab() as lab:
        _, near, far = connected(lab, "v4", server)
        lab.guests.recheck(lab.links[1])
        assert lab.links[1].guest is not None
        lab.guests.may = lambda link: False
        lab.guests.recheck(lab.links[1])
        assert lab.links[1].guest is None
        lab.until(lambda: [*lab.world.engine.flows()] == [])
        with pytest.raises(ConnectionResetError):
            lab.until(lambda: read_some(far) == b"")
        # A segment that comes late is reset, as one of a connection that is not there.
        lab.turn()
        lab.give(tcp(FAKE["v4"], b"x", seq=5, ack=77, flags=ACK))
        resets = lab.until(lambda: [one for one in lab.turn() if layer(one)[TCP].flags == "R"])
        assert layer(resets[0])[TCP].seq == 77
        near.close()
        far.close()


def test_the_end_of_a_link_ends_its_flows(anywhere, server):
    """Dialled, waiting for the accept, established; datagrams too."""
    with exit_lab() as lab:
        _, near, far = connected(lab, "v4", server)
        way = FAKE["v4"]
        lab.give(tcp(way, seq=1, flags=SYN, ports=(40_001, server.address[1])))
        waiting = lab.until(server.accept)
        lab.tun()
        lab.names.answers.clear()
        lab.give(tcp(way, seq=1, flags=SYN, ports=(40_002, server.address[1])))
        lab.give(udp(way, b"x"))
        assert len(list(lab.world.engine.flows())) == 4
        lab.guests.dismiss(lab.links[1])
        lab.turn()
        assert list(lab.world.engine.flows()) == []
        assert len(lab.names.waiting) == 2
        assert lab.names.cancelled >= 2
        for sock in (near, far, waiting):
            sock.close()


def test_a_number_that_means_something_else(anywhere):
    """UDP flows of the old name end; its socket does not answer for the new one."""
    far, other = udp_server(), udp_server("127.0.0.2")
    anywhere.allowed.add(packed("127.0.0.2"))
    port = far.getsockname()[1]
    other.close()
    other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    other.bind(("127.0.0.2", port))
    other.setblocking(False)
    with exit_lab() as lab:
        lab.names.answers["www.example"] = [packed("127.0.0.1")]
        lab.names.answers["other.example"] = [packed("127.0.0.2")]
        lab.give(udp(FAKE["v4"], b"one", ports=(5000, port)))
        assert lab.until(lambda: received(far))[0] == b"one"
        lab.fakes.names[7] = "other.example"
        lab.give(udp(FAKE["v4"], b"two", ports=(5000, port)))
        assert lab.until(lambda: received(other))[0] == b"two"
        assert received(far) is None
        assert lab.world.flow().name == "other.example"
    far.close()
    other.close()


def test_streams_go_on_when_their_number_means_something_else(anywhere, server):
    """At the exit and at the application: what was dialled stays dialled."""
    with exit_lab() as lab:
        lab.names.answers["other.example"] = [packed("127.0.0.1")]
        _, near, far = connected(lab, "v4", server)
        lab.fakes.names[7] = "other.example"
        lab.give(tcp(FAKE["v4"], seq=1, flags=SYN, ports=(40_001, server.address[1])))
        other = lab.until(server.accept)
        lab.tun()
        assert {flow.name for flow in lab.world.engine.flows()} == {"www.example", "other.example"}
        lab.give(tcp(FAKE["v4"], b"GET /", seq=1001, ack=8, ports=(40_000, server.address[1])))
        assert bytes(lab.tun().packet[TCP].payload) == b"GET /"  # to the listener, as before
        near.sendall(b"hello")
        assert lab.until(lambda: read_some(far)) == b"hello"
        for sock in (near, far, other):
            sock.close()


def test_numbers_are_bounded_and_live_ones_stay(anywhere, server, monkeypatch):
    monkeypatch.setattr(guest_module, "MOST_NUMBERS", 8)
    monkeypatch.setattr(guest_module, "GIVEN_UP", 2)
    with exit_lab() as lab:
        _, near, far = connected(lab, "v4", server)  # the oldest number, with a flow
        guest = lab.links[1].guest
        for number in range(100, 130):
            assert guest._learn(number, "a.example")
            assert len(guest.meanings) <= 8
            assert 7 in guest.meanings
        assert 129 in guest.meanings
        # All are in use: no more are taken, and no time is spent on looking again at once.
        monkeypatch.setattr(
            lab.guests,
            "flows_of",
            lambda guest: [
                type("Flow", (), {"target": number.to_bytes(4, "big")}) for number in guest.meanings
            ],
        )
        assert [guest._learn(number, "b.example") for number in range(200, 210)][-1] is False
        assert len(guest.meanings) <= 8
        near.close()
        far.close()


@pytest.mark.parametrize("kind", ["peer", "direct", "none"])
def test_rules_decide_at_the_application(anywhere, server, kind):
    with exit_lab() as lab:
        lab.names.answers["www.example"] = [packed("127.0.0.1")]
        packet = tcp(FAKE["v4"], seq=1, flags=SYN, ports=(40_000, 22))
        lab.chooser.ways[22] = Block()
        if kind == "peer":
            lab.give(tcp(FAKE["v4"], seq=1, flags=SYN, ports=(40_000, server.address[1])))
            lab.until(server.accept).close()
        if kind == "none":
            lab.fakes.names.clear()
            packet = tcp(FAKE["v4"], seq=1, flags=SYN)
        lab.give(packet)
        assert lab.passed == [
            packet
        ]  # the engine's, which blocks it, dials it, or says that it means nothing


def test_ports_of_datagrams_are_asked_about_each(anywhere):
    far = udp_server()
    port = far.getsockname()[1]
    with exit_lab() as lab:
        lab.names.answers["www.example"] = [packed("127.0.0.1")]
        lab.give(udp(FAKE["v4"], b"one", ports=(5000, port)))
        _, source = lab.until(lambda: received(far))
        far.sendto(b"two", source)
        lab.back()
        lab.chooser.ways[22] = Block()
        lab.give(udp(FAKE["v4"], b"x", ports=(5000, 22)))
        assert len(lab.passed) == 1
        # New rules are for the next datagram of every port.
        lab.chooser.ways[port] = Block()
        lab.destinations.lead(lab.fakes, lab.chooser)
        lab.give(udp(FAKE["v4"], b"y", ports=(5000, port)))
        assert len(lab.passed) == 2
    far.close()


def test_a_guest_has_its_share_of_flows(anywhere, server):
    """And gets another one as soon as one has ended. Datagrams have a share of their own."""
    with exit_lab() as lab:
        lab.guests.shares = {6: 3, 17: 2}
        lab.names.answers["www.example"] = [packed("127.0.0.1")]
        for sport in (1, 2, 3):
            lab.give(tcp(FAKE["v4"], seq=1, flags=SYN, ports=(sport, server.address[1])))
            lab.until(server.accept).close()
        for _ in range(2):
            lab.give(tcp(FAKE["v4"], seq=1, flags=SYN, ports=(4, server.address[1])))
            resets = lab.until(lambda: [one for one in lab.turn() if layer(one)[TCP].flags == "RA"])
            assert layer(resets[0])[TCP].dport == 4
        assert len(list(lab.world.engine.flows())) == 3
        for sport in (1, 2, 3):
            lab.give(udp(FAKE["v4"], b"x", ports=(sport, 9)))
        told = lab.until(lambda: [one for one in lab.turn() if layer(one)[ICMP].code == 13])
        assert layer(told[0])[UDPerror].sport == 3
        assert len(list(lab.world.engine.flows())) == 5
        lab.world.engine.tcp.end(next(iter(lab.world.engine.flows())), "for the test")
        lab.links[1].guest._count_again = 0.0
        lab.give(tcp(FAKE["v4"], seq=1, flags=SYN, ports=(5, server.address[1])))
        lab.until(server.accept).close()
        assert sum(flow.protocol == 6 for flow in lab.world.engine.flows()) == 3
