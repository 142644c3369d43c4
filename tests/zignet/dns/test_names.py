"""All of it wired to an engine, without root: queries on loopback, flows in a socket pair."""

import socket

import dnslib
import pytest
from scapy.layers.inet import ICMP, IP, TCP

from nat.sockets import Underlay
from tests.nat.world import APP4, World
from tests.zignet.dns.test_answers import query
from zignet.config import parse_config
from zignet.dns.names import Names
from zignet.exits import build_exits
from zignet.routing import build_rules


class Node:
    """What `zignet.node` does with names, on a world's engine."""

    def __init__(self, folder, server, more=""):
        upstream = f'upstreams: ["127.0.0.1:{server.port}"]'
        text = f"state_dir: {folder}/state\ndns: {{{upstream}, fake: ['*.example'], fake_range: 198.19.0.0/28}}\n{more}"
        self.config = parse_config(text, folder / "zignet.yaml")
        self.exits = build_exits(self.config)
        self.rules = build_rules(self.config, self.exits)
        self.world = World()
        self.loop = self.world.loop
        self.names = Names(self.loop, Underlay(0), self.config, ("100.64.0.1",))
        self.names.attach(self.world.engine, None, self.rules, self.exits)
        self.world.engine.choose_with(self.names.chooser(self.rules, self.exits))
        self.names.server.listen("127.0.0.1", 0)
        self.names._remember()

    def ask(self, name, kind="A"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(self.names.server.addresses[0])
            sock.send(query(name, kind))

            def read():
                try:
                    return sock.recv(4096)
                except BlockingIOError:
                    return None

            return dnslib.DNSRecord.parse(self.loop.until(read))

    def address(self, name):
        (record,) = self.ask(name).rr
        return str(record.rdata)

    def close(self):
        self.names.close()
        self.world.close()


@pytest.fixture
def node(no_leak, tmp_path, server):
    made = []

    def make(more=""):
        made.append(Node(tmp_path, server, more))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_flow_leaves_by_the_name(node, server):
    one = node()
    found = one.address("here.example")  # 127.0.0.1 and ::1, by the name server
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        one.world.device.put(
            IP(src=APP4, dst=found) / TCP(sport=40001, dport=listener.getsockname()[1], flags="S")
        )
        assert one.world.answer().packet[TCP].flags == "S"  # goes on: the exit stands
        assert one.world.flow().name == "here.example"
        listener.accept()[0].close()


def test_an_address_that_nobody_was_given(node):
    one = node()
    (out,) = one.world.give(IP(src=APP4, dst="198.19.0.9") / TCP(sport=40001, dport=80, flags="S"))
    assert (out.packet[ICMP].type, out.packet[ICMP].code) == (3, 1)


def test_what_was_given_is_soon_in_the_file(node, tmp_path, server):
    one = node()
    found = one.address("a.example")
    one.loop.until(lambda: not one.names._store._unsaved)
    other = node()  # a second one reads the file as it is: the first was not closed
    assert other.address("a.example") == found


def test_a_live_flow_keeps_its_address_when_the_pool_is_full(node, monkeypatch):
    one = node()
    wall = [1_800_000_000.0]
    monkeypatch.setattr(one.names.fakes, "_wall", lambda: wall[0])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = one.address("here.example")
        one.world.device.put(
            IP(src=APP4, dst=found) / TCP(sport=40001, dport=listener.getsockname()[1], flags="S")
        )
        one.world.answer()
        elsewhere = one.address("used.elsewhere.example")
        one.names.users.append(lambda: [bytes(map(int, elsewhere.split(".")))])
        for turn in range(5):
            wall[0] += 10_000
            for number in range(20):
                one.ask(f"{turn}-{number}.example")
        assert one.names.fakes.full == 5 * 9  # 11 of 13 can be recycled
        one.names._answers.flush()
        assert one.address("here.example") == found
        assert one.address("used.elsewhere.example") == elsewhere
    status = one.names.status()
    assert status["answered"]["pool full"] == 45
    assert (status["names"], status["room"]) == (13, 13)


def test_a_reload(node, server):
    one = node()
    assert one.address("www.video.example").startswith("198.19.")
    other = parse_config(f'dns: {{upstreams: ["127.0.0.1:{server.port}"], others: refuse}}')
    one.names.reload(other.dns, one.rules, one.exits)
    assert one.ask("www.video.example").header.rcode == 5  # neither fake any more, nor forwarded
    assert one.address("admin.zignet") == "100.64.0.1"
    one.names.reload(None, one.rules, one.exits)  # the section has gone: as it was until the restart
    assert one.ask("www.video.example").header.rcode == 5


def test_flush(node, server):
    one = node()
    one.ask("a.example")
    assert one.names.flush() == 1
    assert one.address("a.example") == "198.19.0.2"


def test_status(node, server):
    one = node()
    one.ask("text.example", "TXT")
    status = one.names.status()
    assert status["upstreams"] == [f"127.0.0.1:{server.port}"]
    assert (status["asked"], status["outstanding"], status["answered"]["forwarded"]) == (1, 0, 1)
    assert status["pools"] == ["198.19.0.0/28", "2001:2::/64"]


def test_what_would_be_answered(node, server):
    """For `route explain`: nothing is given."""
    one = node()
    named = one.names.named("www.video.example")
    assert (named["source"], named["text"], named["given"]) == ("fake", "dns.fake lists it", False)
    assert named["addresses"] == ["198.19.0.2", "2001:2::2"]
    assert len(one.names.fakes) == 0
    assert one.address("www.video.example") == "198.19.0.2"
    assert one.names.named("www.video.example")["given"]
    zone = one.names.named("admin.zignet")
    assert (zone["source"], zone["addresses"]) == ("zone", [])
    other = one.names.named("www.elsewhere.test")
    assert other["source"] == "forwarded"
    assert other["text"] == f"to 127.0.0.1:{server.port}; no rule about names leads it to an exit"
