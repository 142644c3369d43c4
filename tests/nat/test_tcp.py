"""TCP from the SYN to the relay: the honest connect, refusals, retransmissions, successors, and the real pump."""

import socket

import pytest
from scapy.layers.inet import ICMP, IP, TCP, IPerror, TCPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6

from nat.exit import Reason, Refusal
from nat.flow import State
from nat.relay import RESET_ON_CLOSE
from nat.settings import Settings
from tests.nat.test_dial import GRANTED, WELCOME, Words
from tests.nat.test_gateway import FAMILIES, families, headers, key_of, like
from tests.nat.world import (
    APP4,
    BLOCK,
    FAR4,
    NO_VIRTIO,
    VIRTIO,
    Origin,
    Rules,
    Way,
    closed_port,
    completed,
    partial,
    read_some,
    sums_right,
    world,
)

pytestmark = pytest.mark.packet_path

MSS = [("MSS", 1460), ("SAckOK", b""), ("WScale", 7)]


def syn_of(family="v4", sport=40_000, dport=443, seq=1000, **more):
    return FAMILIES[family]() / TCP(sport=sport, dport=dport, seq=seq, flags="S", options=MSS, **more)


def to(address, name="way", **more):
    return Rules(Way(name, to=address, **more))


def silent_address():
    """A listener whose queue is full, and what fills it: a dial there hangs."""
    origin = Origin(backlog=0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(origin.address)
        fillers.append(filler)
    return origin, fillers


@pytest.fixture
def silent():
    origin, fillers = silent_address()
    yield origin.address
    for one in (origin, *fillers):
        one.close()


# --- the honest connect


@families
@headers
def test_a_syn_is_held_until_the_exit_stands(family, header, server):
    with world(to(server.address), header=header) as lab:
        syn = syn_of(family)
        lab.device.put(syn)
        out = lab.answer()
        flow = lab.flow()
        assert server.accept() is not None  # the exit stood first
        assert flow.state == State.HALF_OPEN
        assert out.packet[TCP].flags == "S"
        assert sums_right(out.raw)
        assert out.raw == like(bytes(syn), src=out.packet.src, dst=out.packet.dst, dport=out.packet.dport)
        assert out.packet.dst == ("127.0.0.1" if family == "v4" else "::1")
        assert lab.engine.tally.of("way").dials == 1


@families
def test_a_held_syn_keeps_its_unfinished_checksum(family, server):
    with world(to(server.address), header=10) as lab:
        virtio, raw = partial(syn_of(family))
        lab.device.put(raw, virtio)
        # Something else goes through the buffer in the meantime.
        lab.device.put(FAMILIES["v4"]() / TCP(sport=9, dport=9, flags="A") / bytes(3000))
        outs = [lab.answer(), lab.answer()]
        (out,) = [out for out in outs if out.packet[TCP].flags == "S"]
        assert out.header == virtio
        start = VIRTIO.unpack(virtio)[4]
        assert sums_right(completed(out.raw, start, 16))


@families
@headers
def test_a_refusal_is_a_reset_of_this_very_syn(family, header, no_leak):
    with world(to(closed_port()), header=header) as lab:
        lab.device.put(syn_of(family, seq=0xFFFFFFFF))
        out = lab.answer()
        tcp = out.packet[TCP]
        assert (tcp.flags, tcp.ack, tcp.seq) == ("RA", 0, 0)
        assert (tcp.sport, tcp.dport) == (443, 40_000)
        assert (out.packet.src, out.packet.dst) == (syn_of(family).dst, syn_of(family).src)
        assert sums_right(out.raw)
        assert out.header == NO_VIRTIO[:header]
        assert len(lab.table) == 0
        (ended,) = lab.engine.tally.recent
        assert ended.error == "Connection refused"
        assert lab.engine.tally.of("way").failures == 1
        assert list(lab.engine.flows()) == []


@families
@pytest.mark.parametrize("reason", [Reason.PROHIBITED, Reason.REFUSED, Reason.FAILED])
def test_block_is_a_reset_at_once(family, reason):
    with world(Rules(Way("block", refusal=Refusal(reason, "so it is")))) as lab:
        (out,) = lab.give(syn_of(family))
        assert out.packet[TCP].flags == "RA"
        assert out.packet[TCP].ack == 1001
        (ended,) = lab.engine.tally.recent
        assert (ended.error, ended.route.rule) == ("so it is", "to block")
        assert lab.engine.tally.of("block").dials == 0
        assert len(lab.table) == 0


@families
@pytest.mark.parametrize(
    ("reason", "code4", "code6"), [(Reason.HOST_UNREACHABLE, 1, 3), (Reason.NET_UNREACHABLE, 0, 0)]
)
def test_unreachable_is_icmp_about_this_very_syn(family, reason, code4, code6):
    with world(Rules(Way(refusal=Refusal(reason)))) as lab:
        syn = syn_of(family)
        (out,) = lab.give(syn)
        assert sums_right(out.raw)
        assert out.packet.src == syn.dst
        if family == "v4":
            assert (out.packet[ICMP].type, out.packet[ICMP].code) == (3, code4)
            assert out.packet[IPerror].src == APP4
            assert out.packet[TCPerror].sport == 40_000
            assert out.packet[TCPerror].seq == 1000
        else:
            assert out.packet[ICMPv6DestUnreach].code == code6
        assert bytes(syn) in out.raw  # quoted whole, as the application sent it


def test_a_real_unreachable_network(no_leak):
    """The errno of a real connect: TCP has no broadcast."""
    with world(to(("255.255.255.255", 80))) as lab:
        lab.device.put(syn_of())
        out = lab.answer()
        assert (out.packet[ICMP].type, out.packet[ICMP].code) == (3, 0)
        assert lab.engine.tally.of("way").last_error == "Network is unreachable"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_time_out_is_silence_and_the_next_syn_tries_again(family, silent):
    with world(to(silent)) as lab:
        assert lab.give(syn_of(family)) == []
        flow = lab.flow()
        assert flow.state == State.DIALLING
        lab.loop.pass_time(31.0)
        lab.loop.settle()
        assert lab.written() == []
        assert len(lab.table) == 0
        assert flow.error == "the connection timed out"
        lab.give(syn_of(family))
        assert lab.flow().number > flow.number


def test_a_syn_that_is_repeated_while_it_is_held(silent):
    with world(to(silent)) as lab:
        for _ in range(5):
            assert lab.give(syn_of()) == []
        assert len(lab.table) == 1
        assert lab.engine.tally.of("way").dials == 1


def test_a_syn_that_is_repeated_later_passes(server):
    with world(to(server.address)) as lab:
        lab.device.put(syn_of())
        first = lab.answer()
        (again,) = lab.give(syn_of())
        assert again == first
        with lab.connect(first.packet):
            lab.loop.until(lambda: lab.flow().state == State.ESTABLISHED)
            (again,) = lab.give(syn_of())
            assert again == first
        assert len(lab.table) == 1


@pytest.mark.parametrize("state", ["dialling", "half-open", "sniffing", "established"])
def test_a_new_syn_with_another_number_is_a_new_flow(state, server, silent, no_leak):
    rules = to(silent if state == "dialling" else server.address)
    if state == "sniffing":
        rules.names = {"x": rules.default}
    with world(rules) as lab:
        lab.device.put(syn_of(seq=1))
        lab.loop.settle()
        old = lab.flow()
        client = None
        if state != "dialling":
            first = lab.answer().packet
            if state != "half-open":
                client = lab.connect(first)
                lab.loop.until(lambda: old.state == State.ESTABLISHED)
        lab.device.put(syn_of(seq=2))
        lab.loop.settle()
        new = lab.flow()
        assert new is not old
        assert new.key == key_of(syn_of())
        assert lab.table.get(new.key) is new
        assert old.ended
        assert old.error
        if state != "dialling":
            out = lab.answer().packet
            assert out[TCP].seq == 2
            assert out.src != first.src  # the next alias: the kernel has not forgotten the other
        if client is not None:
            with pytest.raises(ConnectionResetError):
                lab.loop.until(lambda: read_some(client))
            client.close()
        lab.loop.settle()


def test_a_port_that_speaks_first_is_not_sniffed(server):
    rules = Rules(Way("other"), {"x": Way("x")})
    rules.default = Way("way", to=server.address)
    with world(rules, Settings(server_first=frozenset({7777}))) as lab:
        for port in (22, 7777):
            lab.device.put(syn_of(dport=port))
            lab.answer()
        assert [asked[-1] for asked in rules.asked] == ["", ""]
        assert lab.engine.tally.of("way").dials == 2


# --- what is no SYN


@families
@pytest.mark.parametrize("flags", ["A", "PA", "F", "FA", "SA", "", "UAP", "SF", "SR", "R", "RA"])
def test_only_a_syn_makes_a_flow(family, flags, server):
    with world(to(server.address)) as lab:
        packet = FAMILIES[family]() / TCP(sport=40_000, dport=443, seq=5, ack=77, flags=flags) / b"four"
        outs = lab.give(packet)
        if flags == "SF":
            assert len(lab.table) == 1  # a SYN all the same
            return
        assert len(lab.table) == 0
        assert lab.rules.asked == []
        if "R" in flags:
            assert outs == []
            return
        (out,) = outs
        reply = out.packet[TCP]
        assert sums_right(out.raw)
        if "A" in flags:
            assert (reply.flags, reply.seq) == ("R", 77)
        else:
            assert (reply.flags, reply.ack) == ("RA", 5 + 4 + ("F" in flags))


def test_nothing_is_said_to_the_listener_about_a_flow_that_is_gone():
    with world() as lab:
        stray = IP(src="127.0.0.1", dst="127.99.0.1") / TCP(sport=lab.listener4.port, dport=7, flags="A")
        assert lab.give(stray) == []


def test_a_flood_of_syns_is_bounded():
    with world(Rules(Way(), {"x": Way()}), Settings(flows=50, half_open=20)) as lab:
        for number in range(500):
            lab.device.put(bytes(syn_of(sport=1000 + number)))
            lab.loop.turn()
            lab.written()
        assert len(lab.table) == 20
        assert len(lab.engine.gateway.rewrites) == 40
        assert lab.engine.tally.flows == 480


def test_a_full_table_says_so(server):
    with world(to(server.address), Settings(flows=1)) as lab:
        lab.device.put(syn_of())
        with lab.connect(lab.answer().packet):
            lab.loop.until(lambda: lab.flow().state == State.ESTABLISHED)
            assert lab.give(syn_of(sport=41_000)) == []
        assert lab.engine.dropped["tcp: no room for a new flow"] == 1


def test_an_evicted_dial_is_given_up(silent, no_leak):
    with world(to(silent), Settings(half_open=1)) as lab:
        lab.give(syn_of())
        first = lab.flow()
        lab.give(syn_of(sport=40_001))
        assert first.ended
        assert first.error == "the handshake was not completed"
        assert lab.flow() is not first
        assert len(lab.engine.dialler.waiting) == 1


def test_a_flow_that_is_never_accepted_lets_its_exit_go(server, no_leak):
    with world(to(server.address)) as lab:
        lab.device.put(syn_of())
        lab.answer()
        flow, peer = lab.flow(), server.accept()
        lab.loop.pass_time(131.0)
        lab.loop.settle()
        assert peer.recv(9) == b""
        assert flow.error == "the handshake was not completed"
        assert len(lab.table) == 0
        peer.close()


def test_an_application_that_gives_up_its_handshake(server, no_leak):
    """A port scanner's SYN, SYN-ACK, RST: the exit's socket is not kept."""
    with world(to(server.address)) as lab:
        lab.device.put(syn_of())
        lab.answer()
        peer = server.accept()
        (out,) = lab.give(FAMILIES["v4"]() / TCP(sport=40_000, dport=443, seq=1001, flags="R"))
        assert out.packet.dst == "127.0.0.1"
        lab.loop.settle()
        assert peer.recv(9) == b""
        assert len(lab.table) == 0
        peer.close()


# --- accepted


class Conversation:
    """A flow that stands: the application's socket, and the server's."""

    def __init__(self, lab, server, **syn):
        lab.device.put(syn_of(**syn))
        out = lab.answer().packet
        self.client = lab.connect(out)
        self.peer = lab.loop.until(server.accept)
        self.flow = lab.table.get(key_of(syn_of(**syn)))
        lab.loop.until(lambda: self.flow.state == State.ESTABLISHED)
        self.client.setblocking(False)
        self.peer.setblocking(False)

    def close(self):
        self.client.close()
        self.peer.close()


def test_bytes_go_both_ways_and_are_counted(server, no_leak):
    with world(to(server.address)) as lab:
        talk = Conversation(lab, server)
        talk.client.send(b"question")
        assert lab.loop.until(lambda: read_some(talk.peer)) == b"question"
        talk.peer.send(b"the answer")
        assert lab.loop.until(lambda: read_some(talk.client)) == b"the answer"
        assert (talk.flow.relay.up, talk.flow.relay.down) == (8, 10)
        talk.client.close()
        lab.loop.until(lambda: read_some(talk.peer) == b"")
        talk.peer.close()
        lab.loop.until(lambda: talk.flow.ended)
        assert (talk.flow.up, talk.flow.down, talk.flow.error) == (8, 10, "")
        assert talk.flow.state == State.CLOSING
        books = lab.engine.tally.of("way")
        assert (books.flows, books.up, books.down) == (1, 8, 10)
        assert talk.flow.relay is None


def test_a_proxy_s_first_bytes_belong_to_the_flow(server):
    with world(to(server.address, handshake=Words)) as lab:
        lab.device.put(syn_of())
        peer = lab.loop.until(server.accept)
        peer.send(WELCOME + GRANTED + b"banner")
        client = lab.connect(lab.answer().packet)
        assert lab.loop.until(lambda: read_some(client)) == b"banner"
        client.close()
        peer.close()


@pytest.mark.parametrize("who", ["client", "peer"])
def test_a_reset_goes_through(who, server, no_leak):
    with world(to(server.address)) as lab:
        talk = Conversation(lab, server)
        one, other = (talk.client, talk.peer) if who == "client" else (talk.peer, talk.client)
        one.send(b"last")
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        one.close()
        lab.loop.until(lambda: talk.flow.ended)
        lab.loop.settle()
        assert other.recv(9) == b"last"
        with pytest.raises(ConnectionResetError):
            other.recv(9)
        assert "reset" in talk.flow.error
        other.close()


def test_an_exit_that_dies_before_the_accept(server):
    """The exit stood, then broke: the application's connection is accepted, and then reset."""
    with world(to(server.address)) as lab:
        lab.device.put(syn_of())
        out = lab.answer().packet
        peer = lab.loop.until(server.accept)
        peer.send(b"bye")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        peer.close()
        lab.loop.settle()
        client = lab.connect(out)
        flow = lab.flow()
        lab.loop.until(lambda: flow.ended)
        try:
            assert client.recv(9) == b"bye"
        finally:
            with pytest.raises(ConnectionResetError):
                client.recv(9)
            client.close()


def test_idle_flows_end(server, no_leak):
    with world(to(server.address), Settings(tcp_idle_s=100.0)) as lab:
        talk = Conversation(lab, server)
        lab.loop.pass_time(99.0)
        assert not talk.flow.ended
        lab.loop.pass_time(102.0)
        assert talk.flow.error == "idle for 100 s"
        lab.loop.settle()
        with pytest.raises(ConnectionResetError):
            talk.peer.recv(1)
        talk.close()


def test_a_stranger_on_the_listener_is_reset(no_leak):
    with world() as lab:
        stranger = socket.create_connection(("127.0.0.1", lab.listener4.port))
        with pytest.raises(ConnectionResetError):
            lab.loop.until(lambda: read_some(stranger))
        stranger.close()
        stranger = socket.create_connection(("::1", lab.listener6.port))
        with pytest.raises(ConnectionResetError):
            lab.loop.until(lambda: read_some(stranger))
        stranger.close()


def test_no_flow_gets_another_s_connection(server, no_leak):
    """Forty flows at once, half of them on one source port: each hears its own echo."""
    with world(to(server.address)) as lab:
        talks = [
            Conversation(lab, server, sport=40_000 if n % 2 else 40_000 + n, dport=1000 + n)
            for n in range(40)
        ]
        for n, talk in enumerate(talks):
            talk.client.send(b"%d" % n)
        for n, talk in enumerate(talks):
            assert lab.loop.until(lambda talk=talk: read_some(talk.peer)) == b"%d" % n
            talk.peer.send(b"answer %d" % n)
        for n, talk in enumerate(talks):
            assert lab.loop.until(lambda talk=talk: read_some(talk.client)) == b"answer %d" % n
            talk.close()
        lab.loop.until(lambda: not list(lab.engine.flows()))


def test_a_pair_is_not_used_again_while_the_kernel_keeps_it(server):
    """A hundred short connections from one port to one target: each is a real one, none waits."""
    with world(to(server.address)) as lab:
        aliases = set()
        for number in range(100):
            talk = Conversation(lab, server, seq=number)
            aliases.add(talk.flow.alias)
            talk.client.close()  # the side that closes first keeps TIME_WAIT
            lab.loop.until(lambda talk=talk: read_some(talk.peer) == b"")
            talk.peer.close()
            lab.loop.until(lambda talk=talk: talk.flow.ended)
        assert len(aliases) == 100


def test_what_stops_resets(server, no_leak):
    with world(to(server.address)) as lab:
        talk = Conversation(lab, server)
        lab.engine.close()
        lab.loop.turn()
        for sock in (talk.client, talk.peer):
            with pytest.raises(ConnectionResetError):
                sock.recv(9)
            sock.close()
        assert talk.flow.error == "ZigNet stops"


def test_a_peer_of_ipv6_is_accepted_too(server):
    """Its alias is no address of this host, so the listener's end is shown to the engine by hand."""
    with world(to(server.address)) as lab:
        lab.device.put(syn_of("v6"))
        out = lab.answer().packet
        assert isinstance(out, IPv6)
        client, ours = socket.socketpair()
        ours.setblocking(False)
        lab.engine.tcp.accepted(ours, out.src, out.sport)
        peer = lab.loop.until(server.accept)
        client.send(b"over six")
        assert lab.loop.until(lambda: read_some(peer)) == b"over six"
        client.close()
        peer.close()


def test_the_rules_see_the_flow_as_it_is():
    with world(Rules(BLOCK)) as lab:
        lab.give(syn_of(sport=4711, dport=8443))
        assert lab.rules.asked == [(6, APP4, 4711, FAR4, 8443, None)]
