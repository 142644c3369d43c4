"""A flow that is accepted before its exit is known: real connections whose first bytes are cut anywhere."""

import socket
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nat.flow import State
from nat.relay import RESET_ON_CLOSE
from nat.settings import Settings
from tests.nat.test_tcp import key_of, syn_of
from tests.nat.world import BLOCK, Origin, Rules, Way, closed_port, read_some, world
from tests.sniff.vectors import load

pytestmark = pytest.mark.packet_path

TLS = {str(vector): vector for vector in load("clienthello")}
HELLO = next(vector for vector in TLS.values() if vector.found.name)
GET = b"GET / HTTP/1.1\r\nHost: news.example\r\n\r\n"


class Arriving:
    """An application that was accepted, and whose exit depends on what it says."""

    def __init__(self, lab, **syn):
        (out,) = lab.give(syn_of(**syn))  # it passes at once
        self.client = lab.connect(out.packet)
        self.flow = lab.table.get(key_of(syn_of(**syn)))
        lab.loop.until(lambda: self.flow.state == State.ESTABLISHED)


def rules_of(server, name, **more):
    return Rules(Way("default", to=closed_port()), {name: Way("named", to=server.address)}, **more)


@pytest.mark.parametrize("vector", TLS)
def test_the_name_in_a_client_hello_chooses(vector, server, no_leak):
    hello = TLS[vector]
    with world(rules_of(server, hello.found.name)) as lab:
        here = Arriving(lab)
        here.client.sendall(hello.data)
        peer = lab.loop.until(server.accept)
        lab.loop.until(lambda: here.flow.relay.up == len(hello.data))
        assert peer.recv(1 << 16) == hello.data  # untouched
        flow = here.flow
        assert (flow.name, flow.known_by, flow.ech) == (
            hello.found.name,
            "tls" if hello.found.name else "address",
            hello.found.ech,
        )
        assert flow.route.exit.name == "named"
        assert [asked[-1] for asked in lab.rules.asked] == [None, hello.found.name]
        peer.close()
        here.client.close()


@settings(max_examples=12)
@given(st.lists(st.integers(1, len(HELLO.data) - 1), min_size=1, max_size=4))
def test_cut_anywhere(cuts):
    server = Origin()
    edges = [0, *sorted(set(cuts)), len(HELLO.data)]
    with world(rules_of(server, HELLO.found.name)) as lab:
        here = Arriving(lab)
        here.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, end in pairwise(edges):
            here.client.send(HELLO.data[start:end])
            lab.loop.settle(2)
        peer = lab.loop.until(server.accept)
        lab.loop.until(lambda: here.flow.relay.up == len(HELLO.data))
        assert peer.recv(1 << 16) == HELLO.data
        assert here.flow.name == HELLO.found.name
        peer.close()
        here.client.close()
    server.close()


def test_what_follows_the_hello_goes_through_too(server):
    """More than was needed was read, and more comes while the exit is dialled."""
    with world(rules_of(server, "news.example")) as lab:
        here = Arriving(lab, dport=80)
        here.client.send(GET + b"body")
        lab.loop.turn()
        here.client.send(b" and soul")
        peer = lab.loop.until(server.accept)
        got = bytearray()
        lab.loop.until(lambda: got.extend(read_some(peer) or b"") or got.endswith(b"soul"))
        assert got == GET + b"body and soul"
        assert here.flow.known_by == "http"
        peer.close()
        here.client.close()


def test_silence_is_no_name(server, no_leak):
    rules = Rules(Way("default", to=server.address), {"x": BLOCK})
    with world(rules, Settings(sniff_s=0.05)) as lab:
        here = Arriving(lab)
        lab.loop.call_later(0.6, lab.loop.stop)
        lab.loop.run()  # by the clock
        peer = server.accept()
        assert here.flow.name == ""
        assert here.flow.known_by == "address"
        peer.send(b"I speak first")
        assert lab.loop.until(lambda: read_some(here.client)) == b"I speak first"
        peer.close()
        here.client.close()


def test_a_trickle_does_not_extend_the_time(server):
    rules = Rules(Way("default", to=server.address), {"x": BLOCK})
    with world(rules) as lab:
        here = Arriving(lab)
        for byte in HELLO.data[:5]:
            here.client.send(bytes((byte,)))
            lab.loop.settle(2)
        lab.loop.pass_time(0.31)
        peer = lab.loop.until(server.accept)
        lab.loop.until(lambda: here.flow.relay.up == 5)
        assert peer.recv(99) == HELLO.data[:5]
        peer.close()
        here.client.close()


def test_noise_goes_by_the_address_at_once(server):
    with world(Rules(Way("default", to=server.address), {"x": BLOCK})) as lab:
        here = Arriving(lab)
        here.client.send(b"\xff\xfe no protocol that we know")
        peer = lab.loop.until(server.accept)
        assert lab.loop.until(lambda: read_some(peer)) == b"\xff\xfe no protocol that we know"
        peer.close()
        here.client.close()


@pytest.mark.parametrize("by_name", [False, True])
def test_the_name_goes_to_the_exit_only_if_the_rule_says_so(by_name, server):
    targets = []

    class Noting(Way):
        def tcp(self, target):
            targets.append(target)
            return super().tcp(target)

    rules = Rules(Way(), {"news.example": Noting("named", to=server.address)}, by_name=by_name)
    with world(rules) as lab:
        here = Arriving(lab, dport=80)
        here.client.send(GET)
        lab.loop.until(server.accept).close()
        assert [target.name for target in targets] == ["news.example" if by_name else None]
        assert targets[0].port == 80
        here.client.close()


@pytest.mark.parametrize("way", [BLOCK, Way("down", to=closed_port())])
def test_a_late_refusal_is_a_reset(way, no_leak):
    with world(Rules(Way(), {"news.example": way})) as lab:
        here = Arriving(lab, dport=80)
        here.client.send(GET)
        with pytest.raises(ConnectionResetError):
            lab.loop.until(lambda: read_some(here.client))
        assert here.flow.ended
        assert here.flow.error in ("a rule", "Connection refused")
        assert here.flow.relay is None
        here.client.close()


def test_an_application_that_says_nothing_and_goes(no_leak):
    with world(Rules(Way(), {"x": BLOCK})) as lab:
        here = Arriving(lab)
        here.client.close()
        lab.loop.until(lambda: here.flow.ended)
        assert here.flow.error == "closed before a byte was sent"
        assert lab.engine.tally.of("way").dials == 0
        lab.loop.pass_time(1.0)
        assert len(lab.engine.tcp.arrivals) == 0


@pytest.mark.parametrize("said", [b"", HELLO.data[:30]])
def test_an_application_that_resets_while_it_is_sniffed(said, no_leak):
    with world(Rules(Way(), {"x": BLOCK})) as lab:
        here = Arriving(lab)
        here.client.send(said)
        lab.loop.settle()
        here.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        here.client.close()
        lab.loop.until(lambda: here.flow.ended)
        assert "reset" in here.flow.error


def test_an_application_that_resets_while_its_exit_is_dialled(no_leak):
    origin = Origin(backlog=0)
    fillers = [socket.socket() for _ in range(4)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(origin.address)
    with world(Rules(Way(), {"news.example": Way("silent", to=origin.address)})) as lab:
        here = Arriving(lab, dport=80)
        here.client.send(GET)
        lab.loop.until(lambda: len(lab.engine.dialler.waiting))
        here.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        here.client.close()
        lab.loop.until(lambda: here.flow.ended)
        assert len(lab.engine.dialler.waiting) == 0
    for one in (origin, *fillers):
        one.close()


def test_a_half_close_after_a_few_bytes_still_has_somewhere_to_go(server, no_leak):
    with world(Rules(Way("default", to=server.address), {"x": BLOCK})) as lab:
        here = Arriving(lab)
        here.client.send(HELLO.data[:40])
        here.client.shutdown(socket.SHUT_WR)
        peer = lab.loop.until(server.accept)
        got = bytearray()
        lab.loop.until(lambda: (some := read_some(peer)) == b"" or got.extend(some or b""))
        assert got == HELLO.data[:40]
        peer.send(b"answer")
        peer.close()
        assert lab.loop.until(lambda: read_some(here.client)) == b"answer"
        assert lab.loop.until(lambda: read_some(here.client) == b"")
        lab.loop.until(lambda: here.flow.ended)
        assert here.flow.error == ""
        here.client.close()


def test_a_flow_whose_port_is_used_again_while_it_is_sniffed(no_leak):
    with world(Rules(Way(), {"x": BLOCK})) as lab:
        here = Arriving(lab, seq=1)
        lab.give(syn_of(seq=2))
        assert here.flow.ended
        lab.loop.settle()
        with pytest.raises(ConnectionResetError):
            here.client.recv(1)
        here.client.close()


def test_the_engine_stops_while_it_is_sniffed(no_leak):
    with world(Rules(Way(), {"x": BLOCK})) as lab:
        here = Arriving(lab)
        assert (here.flow.relay.up, here.flow.relay.down) == (0, 0)  # as people ask about a live flow
        lab.engine.close()
        lab.loop.turn()
        with pytest.raises(ConnectionResetError):
            here.client.recv(1)
        assert here.flow.error == "ZigNet stops"
        here.client.close()


def test_a_sniff_takes_no_more_than_its_bytes(server):
    """A record that announces more than the limit is not waited for."""
    rules = Rules(Way("default", to=server.address), {"x": BLOCK})
    with world(rules, Settings(sniff_bytes=64)) as lab:
        here = Arriving(lab)
        here.client.send(HELLO.data)
        peer = lab.loop.until(server.accept)
        lab.loop.until(lambda: here.flow.relay.up == len(HELLO.data))
        assert here.flow.name == ""
        peer.close()
        here.client.close()
