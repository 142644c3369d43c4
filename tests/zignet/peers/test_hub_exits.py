"""Exit flows between two hubs: what waits for a handshake, what is told when nobody answers, and who may."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP

from tests.zignet.peers.exits import POOL4, Chooser, Fakes
from tests.zignet.peers.hubs import OWN4, met
from tests.zignet.peers.pair import tcp, udp
from zignet.exits.guests import GuestExit
from zignet.exits.peer import PeerExit
from zignet.wire import Refusal

FAKE = POOL4[7].packed
SYN, ACK = 0x02, 0x10


@pytest.fixture
def pair(world):
    a, b = world.node("a"), world.node("b")
    a.knows(b)
    b.knows(a)
    fakes = Fakes()
    a.hub.lead_names(fakes, Chooser(fakes, PeerExit("b", b.key)))
    return a, b


def test_a_syn_waits_for_the_handshake_and_is_named(world, pair):
    a, b = pair
    a.give(tcp((OWN4, FAKE), flags=SYN))
    world.run(1.0)
    assert a.connected(b)
    (reset,) = a.take()  # b offers nothing
    assert IP(reset)[TCP].flags == "RA"
    assert b.dropped()["from peers: refused, forbidden"] == 1
    assert a.passed == []


def test_the_right_comes_with_the_offer_and_goes_with_it(world, pair):
    a, b = pair
    met(world, a, b)
    b.hub.offer_exit(GuestExit(), lambda key: key == a.key)
    assert b.hub.guests.admit(b.link(a)) is not None
    b.hub.guests.flows_of = lambda guest: []  # there is no engine here
    b.hub.offer_exit(GuestExit(), lambda key: key == b.key)
    assert b.link(a).guest is None
    b.hub.offer_exit(GuestExit(), lambda key: True)
    guest = b.hub.guests.admit(b.link(a))
    assert guest is not None
    b.hub.offer_exit(None, lambda key: True)
    assert b.link(a).guest is None
    # What ends with its link
    b.hub.offer_exit(GuestExit(), lambda key: True)
    b.hub.guests.admit(b.link(a))
    link = b.link(a)
    b.forgets(a)
    b.admits()
    world.run(1.0)
    assert link.guest is None


def test_nobody_answers(world, pair):
    """A connection that begins is told that the host is unreachable, one that stands is reset."""
    a, b = pair
    met(world, a, b)
    a.give(tcp((OWN4, FAKE), flags=SYN))
    world.run(1.0)
    a.take()
    world.fate = lambda datagram: ()
    a.link(b).tunnel.forget()
    a.give(tcp((OWN4, FAKE), b"x", flags=ACK, seq=5, ack=77, ports=(1, 2)))
    a.give(tcp((OWN4, FAKE), flags=SYN, ports=(3, 4)))
    a.give(udp((OWN4, FAKE), b"x", ports=(5, 6)))
    world.run(120.0)
    told = [IP(packet) for packet in a.take()]
    assert [packet.src for packet in told] == ["198.19.0.7"] * 3
    assert (told[0][TCP].flags, told[0][TCP].seq, told[0][TCP].dport) == ("R", 77, 1)
    assert [packet[ICMP].code for packet in told[1:]] == [1, 1]
    first, *failed = a.hub.engine.tally.recent
    assert first.error == "the exit does not allow it"
    assert [(flow.source_port, flow.error) for flow in failed] == [
        (3, "b is not reachable"),
        (5, "b is not reachable"),
    ]
    assert a.hub.carried_counts() == (0, 0)
    # Recovery without a restart
    world.fate = lambda datagram: (datagram,)
    a.give(tcp((OWN4, FAKE), flags=SYN, ports=(7, 8)))
    world.run(10.0)
    assert a.connected(b)


def test_what_is_no_name_is_the_engine_s(world, pair):
    a, _ = pair
    unknown = tcp((OWN4, POOL4[8].packed), flags=SYN)
    foreign = tcp((bytes((172, 17, 0, 2)), FAKE), flags=SYN)
    stray = tcp((OWN4, POOL4[9].packed), b"x")
    for packet in (unknown, foreign, stray):
        a.give(packet)
    assert a.passed == [unknown, foreign, stray]


def test_a_peer_that_is_gone_from_the_configuration(world, pair):
    a, b = pair
    a.forgets(b)
    a.give(tcp((OWN4, FAKE), flags=SYN))
    (told,) = a.take()
    assert IP(told)[ICMP].code == 1
    assert a.passed == []


def test_refusals_for_strange_numbers_change_nothing(world, pair):
    from zignet.wire import Refused

    a, b = pair
    met(world, a, b)
    a.take()
    for number in (0, 7, 8, 0xFFFFFFFF):
        frame = Refused(Refusal.PORT, 4, 6, bytes(8), number).encode()
        b.hub.sender.frames(b.link(a), b.link(a).ready(world.now), [frame], b.link(a).address, False)
    world.run(1.0)
    assert a.take() == []
