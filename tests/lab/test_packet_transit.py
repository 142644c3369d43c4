"""No transit: whatever a peer sends, nothing of it reaches another peer, this host's own addresses, or a loop."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest
from scapy.layers.inet import IP, UDP, IPOption_LSRR
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting
from scapy.packet import Raw

from nat.craft import icmp_error, udp_packet
from tests.lab.peers import eventually, ping
from tests.lab.stranger import Stranger
from tests.lab.test_packet_exit import FAR4, FAR6, NETS, TABLE, counter, family, route
from zignet.lab.hosts import Hosts
from zignet.wire import Refusal, Refused, split, strip, to_exit, wrap

pytestmark = pytest.mark.root

PORT = 7777
ANY4, ANY6 = bytes((10, 1, 2, 3)), bytes.fromhex("fd00") + bytes(13) + b"\7"
FORGED4 = [
    *("100.64.0.1", "100.127.0.1", "198.19.0.7", "0.0.0.7", "0.0.0.0", "127.0.0.1", "127.1.2.3", "224.0.0.1"),
    *("255.255.255.255", "192.0.2.255", "192.0.2.2", "169.254.1.1", "10.0.0.3", "240.0.0.1"),
]
FORGED6 = [
    *(
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:100.64.0.1",
        "::ffff:203.0.113.5",
        "64:ff9b::7f00:1",
        "100::7",
    ),
    *("fd5a:6967:6e65::1", "fe80::1", "ff02::1", "2001:db8::2", "2001:2::7", "::100.64.0.2", "2002:7f00:1::"),
]


@pytest.fixture(scope="module")
def net():
    with Hosts("app", "exit", "web", "evil") as hosts:
        web = hosts["web"]
        web.namespace.address("eth0", f"{FAR4}/24", f"{FAR6}/64")
        for block in NETS:
            route(hosts["exit"], block, "eth0")
        hosts.start("exit", exit={"allow": "all", "packets": True})
        hosts.start("app", routes=[f"IP-CIDR,{NETS[0]},exit,packet"])
        route(hosts["app"], NETS[0], "zig0")
        eventually(lambda: ping(hosts["app"], FAR4) == 1, 30.0)
        yield hosts


@pytest.fixture
def evil(net):
    """One that the exit admits, and that says what it likes."""
    with Stranger(net["evil"], net["exit"], net["evil"].secret) as made:
        assert made.call()
        yield made


@contextlib.contextmanager
def ears(net):
    """Whatever arrives at this port, on any host."""
    ends = []
    for host in net:
        end = host.namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        end.bind(("::", PORT))
        end.setblocking(False)
        ends.append((host.name, end))

    def heard():
        found = []
        for name, end in ends:
            with contextlib.suppress(BlockingIOError):
                while True:
                    data, sender = end.recvfrom(65536)
                    found.append((name, data, sender[0]))
        return found

    try:
        yield heard
    finally:
        for _, end in ends:
            end.close()


def whole(address, text=b"forged", **more):
    """The frame of a datagram to an address."""
    packed = socket.inet_pton(family(address), address)
    return wrap(udp_packet(ANY6 if len(packed) == 16 else ANY4, PORT, packed, PORT, text), **more)


def arrives(evil, heard, address=FAR4):
    """Whether the way works at all: to be asked after what must not have worked."""
    evil.say(whole(address, b"allowed"))
    return eventually(lambda: [each for each in heard() if each[1] != b"noise"], 20.0)


@pytest.mark.parametrize("back", [False, True])
def test_destinations(net, evil, back):
    """Addresses of peers, of this host, of names, of numbers; loopback, multicast, broadcast; with IPv4 inside."""
    exit_ = net["exit"]
    peers = [exit_.inner(net[name], version) for name in ("app", "evil") for version in (4, 6)]
    own = exit_.status()["interface"]["address6"]
    with ears(net) as heard:
        for address in (*FORGED4, *FORGED6, *peers, own):
            evil.say(whole(address, back=back))
            if back:
                continue
            refusal = evil.told(Refused, 10.0)
            assert refusal, address
            assert refusal.reason == Refusal.FORBIDDEN, address
            time.sleep(0.06)  # refusals have a rate
        assert arrives(evil, heard) == [("web", b"allowed", f"::ffff:{exit_.address}")]


def test_sources_and_shapes(net, evil):
    """A source is never believed, and what is no plain packet is not sent on."""
    good = whole(FAR4)
    options = IP(src="0.0.0.0", dst=FAR4, options=[IPOption_LSRR(routers=["100.64.0.2"])]) / UDP(dport=PORT)
    pieces = IP(src="0.0.0.0", dst=FAR4, flags="MF") / UDP(sport=PORT, dport=PORT) / Raw(b"forged12")
    plain = UDP(sport=PORT, dport=PORT) / Raw(b"forged")
    chains = [
        IPv6(src="::", dst=FAR6) / IPv6ExtHdrRouting(type=2, addresses=["fd5a:6967:6e65::1"]) / plain,
        IPv6(src="::", dst=FAR6) / IPv6ExtHdrHopByHop() / plain,
        IPv6(src="::", dst=FAR6) / IPv6ExtHdrFragment() / plain,
    ]
    head = bytes((4, 0, 0, 64))
    with ears(net) as heard:
        for source in (ANY4, bytes((100, 64, 0, 2)), bytes((192, 0, 2, 3))):
            evil.say(good[:16] + source + good[20:])
        for packet in (options, pieces, *chains):
            evil.say(head + bytes(packet))
        for bent in (
            good[:4],
            good[:20],
            good[:25],
            bytes((4, 4, 0, 0)) + good[4:],
            good[:4] + b"\x70" + good[5:],
        ):
            evil.say(bent)
        assert arrives(evil, heard) == [("web", b"allowed", f"::ffff:{net['exit'].address}")]


def test_in_pieces_and_in_bundles(net, evil):
    """Whatever they come in, the same questions are asked."""
    inner = net["exit"].inner(net["app"])
    with ears(net) as heard:
        for address in (inner, "127.0.0.1", net["exit"].address):
            frame = whole(address)
            for piece in split(whole(address, bytes(3000)), 7, 1200):
                evil.say(piece)
            evil.say(b"\xff\0\0\0" + (len(frame).to_bytes(2, "big") + frame) * 2)
        assert arrives(evil, heard) == [("web", b"allowed", f"::ffff:{net['exit'].address}")]


def test_errors_about_packets_of_others(net, evil):
    """An ICMP error goes to whoever has sent what it quotes, and quotes nobody else."""
    app = socket.inet_aton(net["exit"].inner(net["app"]))
    far = socket.inet_aton(FAR4)
    quoted = udp_packet(far, PORT, ANY4, 5, b"x")
    frame = bytearray(wrap(icmp_error(3, 3, 0, ANY4, far, quoted=quoted)))
    before = net["exit"].status()["peers"]["dropped"]
    frame[4 + 20 + 8 + 16 : 4 + 20 + 8 + 20] = (
        app  # as if it were the application's host that had heard from there
    )
    evil.say(bytes(frame))
    evil.say(wrap(icmp_error(3, 3, 0, ANY4, app, quoted=udp_packet(far, PORT, ANY4, 5, b"x"))))
    assert evil.told(Refused, 10.0)
    after = net["exit"].status()["peers"]["dropped"]
    assert sum(after.values()) >= sum(before.values()) + 2


def test_exit_flows_to_a_peer(net, evil):
    """By the other way out neither."""
    inner = net["exit"].inner(net["app"])
    frame = strip(udp_packet(ANY4, PORT, ANY4, PORT, b"forged"))
    with ears(net) as heard:
        for number, address in enumerate((inner, "127.0.0.1", net["exit"].address, "0.0.0.9"), 3):
            evil.say(to_exit(frame, number, address))
        assert arrives(evil, heard) == [("web", b"allowed", f"::ffff:{net['exit'].address}")]


def test_answers_that_nobody_asked_for(net):
    """Who is not the exit of a rule brings no answers from its networks; the exit none from elsewhere."""
    app = net["app"]
    with Stranger(net["evil"], app, net["evil"].secret) as evil, ears(net) as heard:
        assert evil.call()
        for source in (FAR4, "192.0.2.3", "127.0.0.1", "0.0.0.0"):
            packet = udp_packet(socket.inet_aton(source), PORT, ANY4, PORT, b"forged")
            evil.say(wrap(packet, back=True))
        evil.say(whole(FAR4))  # it is no exit either
        assert evil.told(Refused, 10.0).reason == Refusal.WHOLE_PACKETS
        assert heard() == []
    net["exit"].node.kill()
    with Stranger(net["exit"], app, net["exit"].secret) as false, ears(net) as heard:
        assert eventually(false.call, 30.0)
        for source in ("192.0.2.3", "127.0.0.1", "0.0.0.0", "100.64.0.2", "100.64.0.1"):
            false.say(wrap(udp_packet(socket.inet_aton(source), PORT, ANY4, PORT, b"forged"), back=True))
        syn = bytearray(wrap(udp_packet(socket.inet_aton(FAR4), PORT, ANY4, PORT, bytes(12)), back=True))
        syn[4 + 9], syn[4 + 20 + 12], syn[4 + 20 + 13] = 6, 0x50, 0x02
        false.say(bytes(syn))
        false.say(wrap(udp_packet(socket.inet_aton(FAR4), PORT, ANY4, PORT, b"an answer"), back=True))
        assert eventually(heard, 20.0) == [("app", b"an answer", f"::ffff:{FAR4}")]


def packets(host):
    """How many the kernel has had from the TUN, and given to it."""

    def look():
        with open("/proc/thread-self/net/dev") as file:
            (line,) = (line for line in file if "zig0" in line)
        numbers = line.partition(":")[2].split()
        return int(numbers[1]), int(numbers[9])

    return host.namespace.call(look)


@pytest.mark.parametrize("table", ["with the table", "without it"])
def test_two_exits_in_a_circle(table):
    """Each has a rule and a route that send the network to the other: no packet comes back to where it was."""
    with Hosts("one", "two") as hosts:
        for name, other in (("one", "two"), ("two", "one")):
            exit_ = {"allow": [other], "packets": True}
            hosts.start(name, exit=exit_, routes=[f"IP-CIDR,{NETS[0]},{other},packet"])
            route(hosts[name], NETS[0], "zig0")
        one, two = hosts["one"], hosts["two"]
        assert one.reaches(one.inner(two))
        if table == "without it":
            for host in (one, two):
                assert host.namespace.run(["nft", "delete", "table", "inet", TABLE]).returncode == 0
        before = packets(one), packets(two)
        assert ping(one, FAR4, "-W", "1", count=5) == 0
        time.sleep(0.5)
        after = packets(one), packets(two)
        assert after[0][1] - before[0][1] <= 8, (before, after)  # 5, and a keepalive or so
        assert after[1][0] - before[1][0] <= 8, (before, after)
        if table == "with the table":
            assert counter(two, "no transit from peer to peer") == 5
        else:
            assert two.status()["peers"]["dropped"]["to exits: not from this host"] == 5
