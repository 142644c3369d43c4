"""An exit that vanishes under live flows: when is it dead, who is told what, and how it goes on when it is back."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from tests.zignet.peers.exits import POOL4, POOL6, Chooser, Fakes
from tests.zignet.peers.hubs import OWN4, met
from tests.zignet.peers.pair import tcp, udp
from zignet.exits.peer import PeerExit
from zignet.peers import destinations as module
from zignet.peers.streams import Stream

FAKE, FAKE6 = POOL4[7].packed, POOL6[7].packed
SYN, ACK = 0x02, 0x10
DEAD_S = 22.5  # from the first data that nobody answers
ATTEMPT_S = 7.5  # no more than this until the next attempt is in vain


@pytest.fixture
def pair(world):
    """Who has talked, and has used the exit."""
    a, b = world.node("a"), world.node("b")
    a.streams = []
    fakes = Fakes()
    a.hub.lead_names(fakes, Chooser(fakes, PeerExit("b", b.key)))
    a.hub.destinations.streams = lambda *pools: a.streams
    met(world, a, b)
    syn(a)
    world.run(30.0)
    a.take()  # b offers nothing: a RST
    return a, b


def syn(a, port=1):
    a.give(tcp((OWN4, FAKE), flags=SYN, ports=(port, 80)))


def segment(a, port=9, **fields):
    """Of a connection that stands."""
    a.give(tcp((OWN4, FAKE), b"data", flags=ACK, seq=5, ack=77, ports=(port, 80), **fields))


def told(a):
    """What the application gets to hear, in short."""
    found = []
    for packet in map(IP, a.take()):
        assert packet.src == "198.19.0.7"
        if TCP in packet and packet[TCP].flags == "R":
            found.append(("reset", packet[TCP].dport, packet[TCP].seq))
        elif TCP in packet:
            found.append((str(packet[TCP].flags), packet[TCP].dport))
        else:
            quoted = IP(bytes(packet[ICMP].payload))
            kind = {(3, 1): "unreachable", (3, 13): "prohibited"}[packet[ICMP].type, packet[ICMP].code]
            found.append((kind, quoted[UDP if quoted.proto == 17 else TCP].sport))
    return found


def test_a_stream_is_reset_when_its_exit_is_dead(world, pair):
    """With the number that its kernel believes: what it has acknowledged in that very segment."""
    a, b = pair
    b.kill()
    for _ in range(21):
        segment(a)
        world.run(1.0)
    assert told(a) == []
    world.run(1.5)
    segment(a)
    assert told(a) == [("reset", 9, 77)]
    assert a.dropped()["exit flows: reset, the exit does not answer"] == 1


def test_a_segment_with_options_or_without_offload_is_reset_too(world, pair):
    a, b = pair
    b.kill()
    segment(a)
    world.run(DEAD_S)
    timestamps = bytes.fromhex("0101080a0000000100000002")
    segment(a, options=timestamps)
    a.give(tcp((OWN4, FAKE), flags=0x11, seq=5, ack=78, ports=(9, 80)))  # FIN
    a.give(tcp((OWN4, FAKE), flags=0x14, seq=5, ack=78, ports=(9, 80)))  # a RST is not answered
    assert told(a) == [("reset", 9, 77), ("reset", 9, 78)]


def test_a_silence_of_twenty_seconds_breaks_nothing(world, pair):
    """Another network, a restart of the underlay: the stream's own repetitions bridge it."""
    a, b = pair
    world.fate = lambda datagram: ()
    segment(a)
    world.run(19.0)
    world.fate = lambda datagram: (datagram,)
    world.run(20.0)
    assert told(a) == []
    assert a.connected(b)
    assert not a.link(b).tunnel.dead


def test_a_connection_to_a_dead_exit_fails_within_seconds(world, pair):
    a, b = pair
    b.kill()
    segment(a)
    world.run(DEAD_S)
    syn(a, 5)
    a.give(udp((OWN4, FAKE), b"x", ports=(6, 53)))
    a.send(b, b"for the peer itself")
    assert told(a) == []  # it has one attempt
    world.run(ATTEMPT_S)
    assert told(a) == [("unreachable", 5), ("unreachable", 6)]
    assert len(a.link(b).waiting or ()) == 0  # there is a session for it still


def test_what_is_for_the_peer_itself_waits_its_ninety_seconds(world, pair):
    a, b = pair
    b.kill()
    a.link(b).tunnel.forget()
    a.send(b, b"x")
    syn(a, 5)
    world.run(17.5)
    assert told(a) == [("unreachable", 5)]
    assert len(a.link(b).waiting) == 1
    world.run(75.0)
    (packet,) = a.take()
    assert IP(packet)[ICMP].code == 1


def test_the_first_connection_of_all_has_a_fair_chance(world):
    """Of four attempts, in seventeen seconds; and whoever is told has had one."""
    a, b = world.node("a"), world.node("b")
    a.knows(b)
    b.knows(a)
    fakes = Fakes()
    a.hub.lead_names(fakes, Chooser(fakes, PeerExit("b", b.key)))
    world.fate = lambda datagram: ()
    syn(a)
    world.run(16.5)
    assert told(a) == []
    syn(a)  # its repetition
    world.run(1.0)
    assert told(a) == [("unreachable", 1)] * 2
    world.fate = lambda datagram: (datagram,)
    syn(a)
    world.run(ATTEMPT_S)
    assert a.connected(b)
    assert told(a) == [("RA", 1)]  # b has had it, and offers nothing


@pytest.mark.parametrize("away_s", [30.0, 300.0])
def test_it_goes_on_when_the_exit_is_back(world, pair, away_s):
    """Without a restart here, however long it was away: in the row of attempts, or with a new one."""
    a, b = pair
    b.kill()
    segment(a)
    world.run(away_s)
    syn(a, 4)
    world.run(ATTEMPT_S)
    told(a)
    b.start()
    syn(a, 5)
    a.give(udp((OWN4, FAKE), b"x", ports=(6, 53)))
    world.run(ATTEMPT_S)
    assert not a.link(b).tunnel.dead
    assert told(a) == [("RA", 5), ("prohibited", 6)]  # by b, which offers nothing
    assert b.dropped()["from peers: refused, forbidden"] == 2
    # A stream of before: its exit has forgotten it, and the next segment is answered at once.
    segment(a)
    world.run(0.5)
    assert told(a) == [("reset", 9, 77)]


def test_a_restart_is_noticed_by_the_first_repetition(world, pair):
    """The exit is another process by now, and says nothing to its old sessions."""
    a, b = pair
    b.restart()
    syn(a, 5)
    world.run(1.0)
    assert told(a) == []
    syn(a, 5)  # as a kernel repeats it, after a second
    world.run(0.5)
    assert told(a)[-1:] == [("RA", 5)]


def test_a_syn_after_a_silence_that_means_nothing_goes_at_once(world, pair):
    """The last acknowledgement of a connection is never answered: no handshake is made for that."""
    a, b = pair
    handshakes = a.hub.handshakes
    for pause in (0.5, 1.0, 3.0, 5.0):
        segment(a)
        world.run(0.2)
        a.take()
        a.link(b).tunnel.unheard_since = world.now  # as after one
        world.run(pause)
        syn(a, 5)
        world.run(0.2)
        assert told(a) == [("RA", 5)]
    assert a.hub.handshakes == handshakes


def test_streams_that_only_wait_are_asked_to_speak(world, pair):
    """A download: nothing is ever sent but acknowledgements, so only its kernel knows of it."""
    a, b = pair
    own6 = a.own6
    a.streams = [
        Stream(OWN4, 4001, FAKE, 80, 20.0),
        Stream(own6, 4002, FAKE6, 443, 20.0),
        Stream(OWN4, 4003, FAKE, 80, 3600.0),  # idle: it may see the exit again
        Stream(bytes((172, 17, 0, 2)), 4004, FAKE, 80, 20.0),  # somebody's behind this host
        Stream(OWN4, 4005, POOL4[99].packed, 80, 20.0),  # no destination of a peer
    ]
    b.kill()
    segment(a)
    world.run(DEAD_S)
    probes = [IP(packet) if packet[0] >> 4 == 4 else IPv6(packet) for packet in a.take()]
    assert [(probe[TCP].flags, probe[TCP].sport, probe[TCP].dport) for probe in probes] == [
        ("S", 80, 4001),
        ("S", 443, 4002),
    ]
    assert [probe.dst for probe in probes] == ["100.64.0.1", str(ip_address(own6))]
    a.give(tcp((OWN4, FAKE), flags=ACK, seq=1, ack=123_456, ports=(4001, 80)))  # the kernel's answer
    assert told(a) == [("reset", 4001, 123_456)]
    world.run(60.0)
    assert told(a) == []  # once


def test_streams_are_asked_after_a_silence_too(world, pair):
    """The exit was restarted: whoever waits learns it from the exit itself."""
    a, b = pair
    a.streams = [Stream(OWN4, 4001, FAKE, 80, 3600.0)]
    b.restart()
    segment(a)
    world.run(15.5)
    assert ("S", 4001) in told(a)
    a.give(tcp((OWN4, FAKE), flags=ACK, seq=1, ack=99, ports=(4001, 80)))
    world.run(0.5)
    assert told(a) == [("reset", 4001, 99)]


def test_a_renewal_asks_nobody(world, pair):
    a, b = pair
    a.streams = [Stream(OWN4, 4001, FAKE, 80, 0.0)]
    before = a.hub.handshakes
    for _ in range(300):
        a.send(b, b"x")
        b.send(a, b"y")
        world.run(1.0)
    assert a.hub.handshakes > before + 1
    assert all(packet[9] == 17 for packet in a.take())


def test_an_exit_that_says_farewell_is_dead_at_once(world, pair):
    a, b = pair
    a.streams = [Stream(OWN4, 4001, FAKE, 80, 3600.0)]
    b.stop()
    assert told(a) == [("S", 4001)]
    segment(a)
    assert told(a) == [("reset", 9, 77)]
    syn(a, 5)
    world.run(ATTEMPT_S)
    assert told(a) == [("unreachable", 5)]
    b.start()
    syn(a, 6)
    world.run(ATTEMPT_S)
    assert told(a)[-1:] == [("RA", 6)]


def test_many_streams_are_asked_a_few_at_a_time(world, pair, monkeypatch):
    monkeypatch.setattr(module, "PROBED_AT_ONCE", 2)
    a, b = pair
    a.streams = [Stream(OWN4, 4001 + n, FAKE, 80, 0.0) for n in range(5)]
    a.hub.destinations.probe(a.peer(b))
    assert len(a.take()) == 2
    world.run(0.1)
    assert len(a.take()) == 3


def test_a_peer_that_is_no_exit_costs_no_look(world, pair):
    a, _ = pair
    c = world.node("c")
    met(world, a, c)
    a.hub.destinations.streams = None
    c.kill()
    a.send(c, b"x")
    world.run(30.0)
    assert a.link(c).tunnel.dead
