"""The server on real sockets: UDP and TCP, forwarding, strangers, clients that misbehave."""

import ipaddress
import socket
import threading

import dnslib
import pytest

from tests.zignet.dns.test_answers import made, query
from zignet.dns import server as module
from zignet.dns import stream as stream_module
from zignet.dns.server import Server


@pytest.fixture
def serve(loop, server, exchange_with):
    """A running server in front of a name server; its port."""
    started = []

    def start(**more):
        running = Server(loop, made(), exchange_with(server), **more)
        started.append(running)
        running.listen("127.0.0.1", 0)
        return running

    yield start
    for running in started:
        running.close()
    loop.turn()


def udp(loop, running, message):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(running.addresses[0])
        sock.send(message)
        return loop.until(lambda: read(sock))


def read(sock):
    try:
        return sock.recv(65_535)
    except BlockingIOError:
        return None


class Client:
    """A TCP connection."""

    def __init__(self, loop, running):
        self.loop = loop
        self.sock = socket.create_connection(running.addresses[0])
        self.sock.setblocking(False)
        self.got = b""

    def send(self, *messages):
        self.sock.send(b"".join(len(message).to_bytes(2, "big") + message for message in messages))

    def more(self):
        data = read(self.sock)
        if data == b"":
            return "end"
        self.got += data or b""
        size = int.from_bytes(self.got[:2], "big")
        if len(self.got) < 2 or len(self.got) < 2 + size:
            return None
        message, self.got = self.got[2 : 2 + size], self.got[2 + size :]
        return message

    def answer(self):
        return self.loop.until(self.more)


@pytest.fixture
def client(loop):
    made_ = []

    def connect(running):
        made_.append(Client(loop, running))
        return made_[-1]

    yield connect
    for each in made_:
        each.sock.close()


def addresses(message):
    return [str(record.rdata) for record in dnslib.DNSRecord.parse(message).rr]


def test_udp(loop, serve):
    running = serve()
    assert addresses(udp(loop, running, query("www.video.example"))) == ["198.19.0.2"]
    assert addresses(udp(loop, running, query("admin.zignet"))) == ["100.64.0.1"]


def test_forwarded_as_it_was(loop, serve, server):
    answer = udp(loop, serve(), query("V4.example", id=0xBEEF))
    assert answer[:2] == b"\xbe\xef"
    assert addresses(answer) == ["203.0.113.20", "203.0.113.21"]
    assert b"\x02V4\x07example" in answer
    assert server.raw[0][2:] == query("V4.example")[2:]  # but for its id
    assert addresses(udp(loop, serve(), query("text.example", "TXT"))) == ['"hello"']


@pytest.mark.parametrize("truncating", [False, True])
def test_services_without_what_leads_past_us(loop, serve, server, client, truncating):
    server.truncating = truncating
    running = serve()
    stream = client(running)
    stream.send(query("svc.video.example", "HTTPS", edns=True))
    for answer in (udp(loop, running, query("svc.video.example", "HTTPS", edns=True)), stream.answer()):
        assert [str(record.rdata) for record in dnslib.DNSRecord.parse(answer).rr] == ["1 . alpn=h2"]
    assert {kind for _, kind, _ in server.asked} == {"HTTPS"}
    assert all(
        len(message) == 12 + 19 + 4 for message in server.raw
    )  # no EDNS: signatures would be of no use


def test_services_of_an_upstream_that_says_nothing(loop, serve, server):
    server.failing = True
    seen = dnslib.DNSRecord.parse(udp(loop, serve(), query("svc.video.example", "HTTPS")))
    assert (seen.header.rcode, seen.rr) == (0, [])


def test_ours_is_not_told_to_anybody(loop, serve, server):
    running = serve()
    for name in ("nobody.zignet", "x.y.zignet", "9.9.64.100.in-addr.arpa", "www.video.example"):
        udp(loop, running, query(name))
    assert server.asked == []


def test_a_truncated_answer_is_passed_on(loop, serve, server, client):
    server.truncating = True
    running = serve()
    assert dnslib.DNSRecord.parse(udp(loop, running, query("v4.example"))).header.tc == 1
    stream = client(running)
    stream.send(query("v4.example"))
    assert addresses(stream.answer()) == ["203.0.113.20", "203.0.113.21"]
    assert [way for _, _, way in server.asked] == ["udp", "tcp"]


def test_the_upstream_is_down(loop, serve, server, client):
    server._selector.unregister(server._ends[1])
    server._ends[1].close()
    running = serve()
    assert dnslib.DNSRecord.parse(udp(loop, running, query("v4.example"))).header.rcode == 2
    running.exchange.upstreams.use([])
    running.exchange.upstreams._files = ()
    stream = client(running)
    running.exchange.upstreams._found = ()
    running.exchange.upstreams._next_look = 1e18
    stream.send(query("v4.example"), query("www.video.example"))
    assert dnslib.DNSRecord.parse(stream.answer()).header.rcode == 2
    assert addresses(stream.answer()) == ["198.19.0.2"]


def test_tcp_byte_by_byte_and_many_at_once(loop, serve, client):
    running = serve()
    stream = client(running)
    message = query("www.video.example")
    for byte in len(message).to_bytes(2, "big") + message:
        stream.sock.send(bytes((byte,)))
        loop.turn()
    assert addresses(stream.answer()) == ["198.19.0.2"]
    stream.send(*(query("www.video.example", id=number) for number in range(300)))
    assert [int.from_bytes(stream.answer()[:2], "big") for _ in range(300)] == list(range(300))


def test_tcp_forwarded_many_at_once(loop, serve, client):
    running = serve()
    stream = client(running)
    stream.send(*(query("v4.example", id=number) for number in range(200)))
    seen = {int.from_bytes(stream.answer()[:2], "big") for _ in range(200)}
    assert seen == set(range(200))
    assert len(running.exchange) == 0


def test_a_half_closed_connection_is_answered(loop, serve, client):
    running = serve()
    stream = client(running)
    stream.send(query("v4.example"))
    stream.sock.shutdown(socket.SHUT_WR)
    assert len(addresses(stream.answer())) == 2
    assert stream.answer() == "end"
    assert running.connections == 0


@pytest.mark.parametrize("data", [b"\xff\xff" + bytes(100), b"\0\1x", b"\0\0"])
def test_what_is_not_dns_ends_the_connection(loop, serve, client, data):
    running = serve()
    stream = client(running)
    stream.sock.send(data)
    assert stream.answer() == "end"
    assert running.connections == 0


def test_who_goes_away_asks_no_longer(loop, serve, client, server):
    server.silent.add("*")
    running = serve()
    stream = client(running)
    stream.send(*(query("v4.example", id=number) for number in range(5)))
    loop.until(lambda: len(running.exchange) == 5)
    stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    stream.sock.close()
    loop.until(lambda: running.connections == 0)
    assert len(running.exchange) == 0


def test_who_does_not_read_is_not_read_from(loop, serve, client, monkeypatch):
    monkeypatch.setattr(stream_module, "MOST_UNSENT", 4096)
    running = serve()
    stream = client(running)
    stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    message = query("www.video.example")
    packets = (len(message).to_bytes(2, "big") + message) * 1000
    left = b""
    for _ in range(5_000):  # until our own send buffer is full: nobody reads it
        left = left or packets
        try:
            left = left[stream.sock.send(left) :]
        except BlockingIOError:
            break
        loop.turn()
    else:
        pytest.fail("all of it was read")
    (connection,) = list(running.idle._items)
    assert len(connection._out) < 4096 + 200
    assert len(connection._in) < 200_000


def test_connections_are_bounded_and_end_when_idle(loop, serve, client, monkeypatch):
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 3)
    running = serve()
    streams = [client(running) for _ in range(5)]
    loop.until(lambda: streams[1].more() == "end")
    loop.settle()
    assert running.connections == 3
    streams[4].send(query("www.video.example"))
    assert addresses(streams[4].answer()) == ["198.19.0.2"]
    loop.pass_time(30)
    loop.settle()
    assert running.connections == 0


def test_strangers_get_nothing(loop, serve, client):
    running = serve(strangers=(ipaddress.ip_network("127.0.0.0/8"),), own=frozenset(("127.0.0.9",)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(query("www.video.example"), running.addresses[0])
        loop.until(lambda: running.dropped["from another host"])
        sock.setblocking(False)
        assert read(sock) is None
    stream = client(running)
    assert stream.answer() == "end"
    assert not running.is_stranger("127.0.0.9")
    assert not running.is_stranger("::1")
    assert not running.is_stranger("fe80::1%lo")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.9", 0))
        sock.setblocking(False)
        sock.sendto(query("www.video.example"), running.addresses[0])
        assert loop.until(lambda: read(sock))


def test_a_port_that_is_taken(loop, serve, exchange_with, server):
    running = serve()
    with pytest.raises(OSError, match="in use"):
        running.listen(*running.addresses[0])
    assert len(running.addresses) == 1


def test_both_families(loop, serve):
    running = serve()
    port = running.listen("::1", 0)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(query("www.video.example"), ("::1", port))
        assert loop.until(lambda: read(sock))


def test_a_flood_of_forwards_is_answered_with_failures(loop, serve, server, monkeypatch):
    from zignet.dns import exchange

    monkeypatch.setattr(exchange, "MOST_OUTSTANDING", 10)
    server.silent.add("*")
    running = serve()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(running.addresses[0])
        for number in range(30):
            sock.send(query(f"{number}.example"))
        failed = []
        loop.until(lambda: failed.append(read(sock)) or len([each for each in failed if each]) == 20)
    assert {each[3] & 0xF for each in failed if each} == {2}
    assert len(running.exchange) == 10
    assert threading.active_count() < 50
