"""The books of flows that leave by a peer's exit at the SYN: what the packet path tells them, and what people see."""

import socket

import pytest

from nat.exit import Reason, Refusal, Route
from nat.flow import State
from nat.settings import Settings
from tests.nat.world import closed_port, packed, udp_server
from tests.zignet.peers.exits import exit_lab
from tests.zignet.peers.pair import tcp, udp
from tests.zignet.peers.test_guest import ACK, FAKE, RST, SYN, anywhere, connected, families, server
from zignet.peers.carried import CLOSING_S, DIALLING_S, Books
from zignet.report import shown
from zignet.wire import Flag, Refused

pytestmark = pytest.mark.packet_path
__all__ = ["anywhere", "server"]

FIN = 0x01


def books(lab):
    return lab.destinations.books


def tally(lab):
    return books(lab)._tally


def only(lab):
    (flow,) = books(lab).flows()
    return flow


def stands(lab, server, family="v4", sport=40_000):
    """A connection whose SYN-ACK has come back to the application; (syn at the exit, near end, far end)."""
    syn, near, far = connected(lab, family, server, sport)
    answer = syn.__class__(src=syn.dst, dst=syn.src) / syn["TCP"].__class__(
        sport=syn["TCP"].dport, dport=syn["TCP"].sport, flags="SA", seq=7, ack=1001
    )
    lab.world.device.put(answer)
    lab.back()
    return syn, near, far


def backward(lab, syn, flags, payload=b""):
    """A segment of the exit's listener to the application."""
    packet = syn.__class__(src=syn.dst, dst=syn.src) / syn["TCP"].__class__(
        sport=syn["TCP"].dport, dport=syn["TCP"].sport, flags=flags, seq=8, ack=1001
    )
    lab.world.device.put(packet / payload if payload else packet)
    return lab.back()


def close(*ends):
    for end in ends:
        if end is not None:
            end.close()


@families
def test_a_connection_from_its_syn_to_its_end(anywhere, server, family):
    port = server.address[1]
    with exit_lab() as lab:
        lab.names.answers["www.example"] = [packed(server.address[0])]
        lab.give(tcp(FAKE[family], seq=1000, flags=SYN, ports=(40_000, port)))
        lab.give(tcp(FAKE[family], seq=1000, flags=SYN, ports=(40_000, port)))  # once more: the same
        row = shown(only(lab), 0.0)
        assert (row["state"], row["name"], row["exit"], row["rule"]) == (
            *("dialling", "www.example"),
            *("peer_us", "a rule"),
        )
        assert row["target"].endswith(f":{port}")
        assert row["source"].endswith(":40000")
        assert tally(lab).of("peer_us").dials == 1
        far = lab.until(server.accept)
        syn = lab.tun().packet
        lab.world.device.take()
        near = lab.world.connect(syn) if family == "v4" else None
        backward(lab, syn, "SA")
        assert only(lab).state == State.ESTABLISHED
        for _ in range(2):
            lab.give(tcp(FAKE[family], b"GET /", seq=1001, flags=ACK, ports=(40_000, port)))
        backward(lab, syn, "A", b"hello there")
        flow = only(lab)
        assert (flow.up, flow.down) == (10, 11)
        backward(lab, syn, "FA")
        assert only(lab).state == State.CLOSING
        lab.give(tcp(FAKE[family], seq=1006, flags=FIN | ACK, ports=(40_000, port)))
        assert len(books(lab)) == 0
        assert list(tally(lab).recent) == [flow]
        assert (flow.error, flow.ended > 0) == ("", True)
        done = tally(lab).of("peer_us")
        assert (done.flows, done.up, done.down, done.failures) == (1, 10, 11, 0)
        lab.give(tcp(FAKE[family], seq=1007, flags=ACK, ports=(40_000, port)))  # the last ACK begins nothing
        assert len(books(lab)) == 0
        close(near, far)


@pytest.mark.parametrize("who", ["application", "far end"])
def test_a_reset_ends_it(anywhere, server, who):
    with exit_lab() as lab:
        syn, near, far = stands(lab, server)
        if who == "application":
            lab.give(tcp(FAKE["v4"], seq=1001, flags=RST, ports=(40_000, server.address[1])))
        else:
            backward(lab, syn, "RA")
        (flow,) = tally(lab).recent
        assert flow.error == f"reset by the {who}"
        assert len(books(lab)) == 0
        close(near, far)


def test_a_new_connection_between_the_same_ports(anywhere, server):
    with exit_lab() as lab:
        _, near, far = stands(lab, server)
        first = only(lab)
        lab.give(tcp(FAKE["v4"], seq=9000, flags=SYN, ports=(40_000, server.address[1])))
        assert only(lab) is not first
        assert "began again" in first.error
        close(near, far)


def test_the_far_server_refuses(anywhere):
    host, port = closed_port("127.0.0.1")
    with exit_lab() as lab:
        lab.names.answers["www.example"] = [packed(host)]
        lab.give(tcp(FAKE["v4"], seq=1000, flags=SYN, ports=(40_000, port)))
        lab.back()
        (flow,) = tally(lab).recent
        assert flow.error == "refused by the far end"
        assert tally(lab).of("peer_us").failures == 1
        assert tally(lab).of("peer_us").last_error == flow.error


@pytest.mark.parametrize(
    ("address", "limits", "why"),
    [
        (None, {}, "the exit finds no such name, or no way to it"),
        ("127.0.0.1", {}, "the exit does not allow it"),  # the rule against rebinding
        ("192.0.2.1", {"ports": frozenset((443,))}, "the exit does not allow it"),
    ],
)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_the_exit_says_why(address, limits, why, protocol):
    with exit_lab(**limits) as lab:
        nothing = Refusal(Reason.HOST_UNREACHABLE, "it does not exist")
        lab.names.answers["www.example"] = nothing if address is None else [packed(address)]
        if protocol == "tcp":
            lab.give(tcp(FAKE["v4"], seq=1000, flags=SYN, ports=(40_000, 80)))
        else:
            lab.give(udp(FAKE["v4"], b"x", ports=(40_000, 80)))
        lab.back()
        (flow,) = tally(lab).recent
        assert flow.error == why
        assert len(books(lab)) == 0


def test_the_key_may_not_exit():
    with exit_lab() as lab:
        lab.guests.may = lambda link: False
        lab.give(tcp(FAKE["v4"], seq=1000, flags=SYN))
        lab.back()
        (flow,) = tally(lab).recent
        assert flow.error == "the exit does not allow it"


@pytest.mark.parametrize("protocol", [6, 17, 1, 0])
@pytest.mark.parametrize("reason", [0, 1, 4, 8, 255])
def test_refusals_of_every_kind(protocol, reason):
    """A later version may have other reasons, and a malicious exit may say anything: the books go on."""
    with exit_lab() as lab:
        packet = tcp(FAKE["v4"], seq=1000, flags=SYN) if protocol == 6 else udp(FAKE["v4"], b"x")
        lab.give(packet)
        quote = packet[20:28]
        for number, ports in ((7, quote), (7, bytes(8)), (8, quote), (0, quote)):
            lab.app.rare.refused(lab.links[0], Refused(reason, int(Flag.EXIT), protocol, ports, number))
        live = len(books(lab)) + len(tally(lab).recent)
        assert live == 1
        assert all(flow.error for flow in tally(lab).recent)


@families
def test_datagrams(anywhere, family):
    """The first goes by the slow path; with an answer the packet path finds new source ports by itself."""
    host = {"v4": "127.0.0.1", "v6": "::1"}[family]
    with exit_lab() as lab, udp_server(host) as end:
        lab.names.answers["www.example"] = [packed(host)]
        port = end.getsockname()[1]
        lab.give(udp(FAKE[family], b"12345", ports=(40_000, port)))
        data, sender = lab.until(lambda: _received(end))
        assert (data, only(lab).up, only(lab).state) == (b"12345", 5, State.ESTABLISHED)
        end.sendto(b"answer", sender)
        lab.back()
        assert only(lab).down == 6
        asked = len(lab.chooser.asked)
        lab.give(udp(FAKE[family], b"more", ports=(40_000, port)))
        lab.give(udp(FAKE[family], b"123", ports=(40_001, port)))
        assert len(lab.chooser.asked) == asked
        assert [(flow.source_port, flow.up) for flow in books(lab).flows()] == [(40_000, 9), (40_001, 3)]


def _received(end: socket.socket):
    try:
        return end.recvfrom(2048)
    except BlockingIOError:
        return None


def test_what_the_nat_has_is_not_counted_twice(anywhere, server):
    """A flow that was sniffed connects on to a fake address: it is in the engine's books."""
    with exit_lab() as lab:
        route = lab.chooser.choose(6, b"", 0, FAKE["v4"][1], 0, None)
        lab.chooser.choose = lambda *flow: Route(route.exit, "sniffed before", True, route.name, again=True)
        _, near, far = stands(lab, server)
        lab.give(tcp(FAKE["v4"], b"x", seq=1001, flags=ACK, ports=(40_000, server.address[1])))
        assert len(books(lab)) == 0
        assert not tally(lab).exits
        close(near, far)


def test_its_address_means_something_else(anywhere, server):
    with exit_lab() as lab:
        _, near, far = stands(lab, server)
        lab.fakes.names[7] = "other.example"
        lab.give(tcp(FAKE["v4"], seq=5, flags=SYN, ports=(40_009, 80)))
        (ended,) = tally(lab).recent
        assert "means something else" in ended.error
        assert only(lab).name == "other.example"
        close(near, far)


def test_silence_ends_a_flow(anywhere, server):
    with exit_lab() as lab:
        _, near, far = stands(lab, server)
        lab.give(tcp(FAKE["v4"], seq=5, flags=SYN, ports=(40_001, 80)))
        lab.give(udp(FAKE["v4"], b"x", ports=(40_002, 53)))
        now, settings = lab.app.loop.now, Settings()
        books(lab).sweep(now + settings.udp_idle_s + 1)
        assert [flow.source_port for flow in tally(lab).recent] == [40_002]
        books(lab).sweep(now + DIALLING_S + 1)
        assert tally(lab).recent[-1].error == "no answer"
        books(lab).sweep(now + settings.tcp_idle_s - 1)
        assert only(lab).source_port == 40_000
        books(lab).sweep(now + settings.tcp_idle_s + 1)
        assert tally(lab).recent[-1].error == "idle for 3600 s"
        assert len(books(lab)) == 0
        close(near, far)


def test_a_half_closed_one_is_not_kept_for_ever(anywhere, server):
    with exit_lab() as lab:
        syn, near, far = stands(lab, server)
        backward(lab, syn, "FA")
        books(lab).sweep(lab.app.loop.now + CLOSING_S + 1)
        assert len(books(lab)) == 0
        close(near, far)


def test_there_is_a_most(anywhere, server):
    """More than that are carried, but not shown."""
    with exit_lab() as lab:
        lab.destinations.books = Books(tally(lab), Settings(flows=2, udp_flows=1), lab.app.gateway)
        for port in range(5):
            lab.give(tcp(FAKE["v4"], seq=5, flags=SYN, ports=(40_000 + port, 80)))
            lab.give(udp(FAKE["v4"], b"x", ports=(40_000 + port, 80)))
        assert len(books(lab)) == 3
