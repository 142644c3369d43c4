"""Peers and strangers that mean harm: nothing crashes, nothing is passed on, what is refused is told and counted."""

import os
import random
import socket
import struct
import threading
import time

import pytest

from nat.craft import udp_packet
from tests.lab.peers import ECHO, Stream, eventually, ping, servers
from tests.lab.stranger import Stranger
from zignet.lab.hosts import Hosts
from zignet.noise import MessageType
from zignet.wire import Farewell, Ping, Pong, Protocol, Refusal, Refused, split, strip
from zignet.wire.fragment import FRAGMENT_HEADER

pytestmark = pytest.mark.root

TOKEN = b"12345678"
FLOOD = 20_000
V6, PARTIAL, EXIT, BACK, NAMED = 1, 2, 4, 8, 16


@pytest.fixture(scope="module")
def net():
    with Hosts("a", "b", "c") as hosts:
        hosts.start("a")
        hosts.start("b", inbound={"default_action": "allow"})
        with servers(hosts["b"]):
            yield hosts


@pytest.fixture(autouse=True)
def survived(net):
    """After every test b works, for strangers and for others, and nothing was a surprise to it."""
    yield
    b = net["b"]
    with Stranger(net["c"], b) as other:
        assert eventually(lambda: other.call() and speaks(other))
    assert ping(net["a"], net["a"].inner(b)) == 1
    assert "Traceback" not in b.node.log() + net["a"].node.log()
    assert "internal error" not in b.status()["totals"]["dropped"] | b.status()["peers"]["dropped"]


@pytest.fixture
def stranger(net):
    with Stranger(net["c"], net["b"]) as made:
        yield made


@pytest.fixture
def guest(stranger):
    """One that was let in."""
    assert stranger.call()
    return stranger


def speaks(one):
    one.say(Ping(TOKEN).encode())
    return one.told(Pong) == Pong(TOKEN)


def dropped(net):
    return net["b"].status()["peers"]["dropped"]


def count(net, reason):
    return dropped(net).get(reason, 0)


# --- messages


def test_every_truncation_of_every_message(net, stranger):
    """And some that are too long. Where the kernel does not take them away already, b counts them."""
    whole = stranger.initiation()
    for kind in (whole, b"\2" + whole[1:104], b"\3" + whole[1:64], b"\4" + whole[1:36]):
        for size in range(len(kind)):
            stranger.end.send(kind[:size])
        for size in (1, 50, 1200):
            stranger.end.send(kind + bytes(size))
    assert stranger.datagram(MessageType.RESPONSE, seconds=0.3) is None
    assert dropped(net).keys() <= {"not a message", "malformed", "no such session", "handshake: wrong mac1"}


def test_every_byte_of_an_initiation_counts(net, stranger):
    """With a right mac1: everything behind it is looked at, too."""
    stranger.initiation()
    whole = stranger.handshake.message
    for at in range(len(whole)):
        bent = bytearray(whole)
        bent[at] ^= 1 << random.randrange(8)
        if not 4 <= at < 8:  # the index is not sealed: a mac protects it
            stranger.end.send(stranger.macs.add(bytes(bent), 0.0))
            time.sleep(0.003)  # no more than are looked at without a cookie
    assert stranger.datagram(MessageType.RESPONSE, seconds=0.3) is None


def test_an_initiation_of_a_peer_is_answered_once(net, guest):
    """Of one that is connected the timestamp is known."""
    message = guest.initiation()
    time.sleep(0.03)
    guest.end.send(message)
    assert guest.datagram(MessageType.RESPONSE)
    for _ in range(3):
        time.sleep(0.03)
        guest.end.send(message)
    assert guest.datagram(MessageType.RESPONSE, seconds=0.3) is None
    assert count(net, "handshake: the initiation was seen before, or a newer one was") >= 3


def test_data_for_nobody_and_data_that_is_not_authentic(net, guest):
    before = count(net, "no such session"), count(net, "not authentic"), count(net, "replayed or too old")
    good = guest.sealed(Ping(TOKEN).encode())
    for at in range(16, len(good)):
        bent = bytearray(good)
        bent[at] ^= 0x10
        guest.end.send(bent)
        guest.end.send(struct.pack("<II", 4, random.getrandbits(32)) + good[8:])
    assert guest.told(Pong, seconds=0.2) is None
    guest.end.send(good)  # its counter was not spoilt by what was false
    guest.end.send(good)
    assert guest.told(Pong) == Pong(TOKEN)
    assert guest.told(Pong, seconds=0.2) is None
    many = len(good) - 16
    assert count(net, "no such session") <= before[0] + 3  # the kernel drops all but one in a thousand
    assert count(net, "not authentic") == before[1] + many
    assert count(net, "replayed or too old") == before[2] + 1


# --- frames


@pytest.mark.parametrize("version", [4, 6])
def test_a_whole_packet_is_refused(net, guest, version):
    """To loopback, as from there: it never reaches the TUN."""
    packet = packet_to_loopback(version)
    before = net["b"].status()["totals"]["packets_out"]
    guest.say(bytes((Protocol.WHOLE, 0, 0, 0)) + packet)
    assert guest.told(Refused) == Refused(
        Refusal.WHOLE_PACKETS, 0, Protocol.WHOLE, packet[:48].ljust(48, b"\0")
    )
    assert count(net, "from peers: refused, whole packets")
    assert net["b"].status()["totals"]["packets_out"] == before


def packet_to_loopback(version):
    udp = struct.pack(">HHHH", 1, ECHO, 9, 0) + b"x"
    if version == 4:
        home = socket.inet_aton("127.0.0.1")
        return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 29, 0, 0, 64, 17, 0, home, home) + udp
    home = socket.inet_pton(socket.AF_INET6, "::1")
    return struct.pack(">IHBB16s16s", 6 << 28, 9, 17, 64, home, home) + udp


@pytest.mark.parametrize("protocol", [2, 41, 43, 47, 50, 58, 59, 60, 99, 132, 255])
def test_an_unknown_protocol_is_refused(net, guest, protocol):
    """Among them those that would hide another behind an IPv6 extension header."""
    guest.say(bytes((protocol, V6, 0, 64)) + b"abcdefghijkl")
    assert guest.told(Refused) == Refused(Refusal.UNKNOWN_PROTOCOL, V6, protocol, b"abcdefgh")


@pytest.mark.parametrize(
    ("protocol", "flags"),
    [(6, BACK), (17, NAMED | V6), (6, 32), (17, 128), (1, PARTIAL), (4, V6), (44, V6)],
)
def test_a_flag_that_does_not_belong_is_refused(guest, protocol, flags):
    guest.say(bytes((protocol, flags, 0, 64)) + bytes(60))
    quote = bytes(48 if protocol == Protocol.WHOLE else 8)
    assert guest.told(Refused) == Refused(Refusal.UNKNOWN_PROTOCOL, flags, protocol, quote)


@pytest.mark.parametrize("protocol", [6, 17])
@pytest.mark.parametrize("named", [b"", b"\1\1a", b"\4\4\x7f\0\0\1"], ids=["", "name", "address"])
def test_who_may_not_exit_is_told(net, guest, protocol, named):
    """b offers nothing: whatever it is asked to dial, nothing leaves it, and nothing is written to its TUN."""
    before = net["b"].status()["totals"]["packets_out"]
    flags = EXIT | NAMED if named else EXIT
    packet = (
        struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 0x50, 2, 500, 0, 0) if protocol == 6 else b"\0\1\0\2\0\x08\0\0"
    )
    guest.say(bytes((protocol, flags, 0, 64)) + b"\0\0\0\7" + named + packet)
    assert guest.told(Refused) == Refused(Refusal.FORBIDDEN, flags, protocol, packet[:8], 7)
    guest.say(bytes((protocol, EXIT | BACK, 0, 64)) + b"\0\0\0\7" + packet)  # an answer that nobody wants
    assert net["b"].status()["totals"]["packets_out"] == before


def test_who_sent_it_is_not_the_senders_to_say(net, guest):
    """No frame has a source; what b's echo sees, and answers, is b's own address of the sender."""
    with net["b"].client() as client:
        (peer,) = [one for one in client.peers() if one["key"] == guest.secret.public.name]
    for version, address in ((4, peer["address"]), (6, peer["address6"])):
        source, target = ("100.64.0.99", "100.64.0.1") if version == 4 else ("fd5a::99", "fd5a::1")
        guest.say(datagram(source, target, b"who am I?"))
        heard = guest.frame()
        while heard is not None and heard[0] != Protocol.UDP:
            heard = guest.frame()
        assert heard[12:] == b"who am I?"
        assert heard[1] & V6 == (version == 6)
        assert ping(net["b"], address, "-W1") == 0  # a stranger does not answer pings, but they go to it
        heard = guest.frame()
        while heard is not None and heard[0] != Protocol.ICMP:
            heard = guest.frame()
        assert heard


def datagram(source, target, payload):
    """A frame with a UDP datagram for the echo; `strip` takes the addresses out."""
    kind = socket.AF_INET6 if ":" in source else socket.AF_INET
    packet = udp_packet(socket.inet_pton(kind, source), 4321, socket.inet_pton(kind, target), ECHO, payload)
    return strip(packet)


def test_sealed_garbage(net, guest):
    generator = random.Random(7)
    for protocol in (0, 1, 4, 6, 17, 44):
        for _ in range(300):
            head = bytes(
                (protocol, generator.choice((0, 0, 1, 2, 3, 5, 6, 7, 255)), 0, generator.randrange(256))
            )
            guest.say(head + generator.randbytes(generator.choice((0, 1, 7, 8, 19, 20, 39, 60, 1200))))
    assert eventually(lambda: speaks(guest))


def test_garbage_in_fragments(net, guest):
    generator = random.Random(8)
    piece = struct.Struct(">BBBBIHH")
    for _ in range(1500):
        number, length = generator.randrange(30), generator.choice((0, 3, 4, 100, 1000, 65535))
        offset = generator.choice((0, 1, 500, 65534, generator.randrange(65536)))
        guest.say(
            piece.pack(44, 0, 0, 0, number, offset, length) + generator.randbytes(generator.randrange(200))
        )
    whole = datagram("10.0.0.1", "10.0.0.2", bytes(30_000))
    for part in reversed(split(whole, 12345, 1200)):
        guest.say(part)
    heard = []
    while sum(len(part) - FRAGMENT_HEADER for part in heard) < len(whole):
        frame = guest.frame()
        assert frame is not None
        heard += [frame] if frame[0] == Protocol.FRAGMENT else []


def test_after_a_farewell_nothing_counts(net, guest):
    guest.say(Farewell(1).encode())
    guest.say(Ping(TOKEN).encode())
    assert guest.told(Pong, seconds=0.3) is None
    assert guest.call()
    assert speaks(guest)


# --- transit (C5)


@pytest.mark.parametrize("version", [4, 6])
def test_nothing_is_sent_on_for_others(net, version):
    """A packet that a forwards into its TUN, and one that has another address of a's, stay there."""
    a, b, c = net
    a.namespace.sysctl("net.ipv4.ip_forward" if version == 4 else "net.ipv6.conf.all.forwarding", 1)
    inside, own = a.inner(b, version), a.address if version == 4 else a.address6
    c.namespace.route(f"{inside}/{32 if version == 4 else 128}", gateway=own)
    assert ping(a, inside) == 1
    received, foreign = b.peer(a)["received"], from_others(a)
    assert ping(c, inside, "-W0.3", count=3) == 0
    assert ping(a, inside, "-W0.3", "-I", own, count=3) == 0
    assert from_others(a) == foreign + 6
    assert b.peer(a)["received"] == received
    assert ping(a, inside) == 1


def from_others(host):
    return host.status()["peers"]["dropped"].get("to peers: not from this host", 0)


# --- floods


def test_a_flood_spares_what_stands(net):
    """Random bytes, and handshakes whose mac1 is right and the rest is not."""
    a, b, c = net
    with Stranger(c, b) as one, Stream(a, a.inner(b)) as stream:
        stream.goes_on()
        one.initiation()
        forged = [one.macs.add(one.handshake.message[:40] + os.urandom(148), 0.0) for _ in range(500)]
        garbage = [os.urandom(random.choice((36, 64, 104, 220, 1200))) for _ in range(500)]
        moved = stream.moved

        def portion():
            for pair in zip(forged, garbage, strict=True):
                for message in pair:
                    one.end.send(message)

        def under_load():
            """How much it takes depends on the machine."""
            portion()
            return count(net, "handshake: under load, a cookie was sent") > 100

        for _ in range(FLOOD // 1000):
            portion()
        eventually(under_load, seconds=60)
        assert stream.moved > moved
        stream.goes_on()
    assert b.status()["peers"]["pending"] <= 4096


@pytest.fixture
def flood(net):
    """Handshakes whose mac1 is right and the rest is not, for as long as the test lasts."""
    stopped = threading.Event()
    with Stranger(net["c"], net["b"]) as one:
        one.initiation()
        forged = [one.macs.add(one.handshake.message[:40] + os.urandom(148), 0.0) for _ in range(200)]

        def send():
            while not stopped.wait(0.005):
                for message in forged:
                    one.end.send(message)

        thread = threading.Thread(target=send)
        thread.start()
        yield
        stopped.set()
        thread.join()


def test_a_newcomer_gets_in_under_load(net, flood):
    """By a cookie (protocol §3)."""
    b = net["b"]
    eventually(lambda: b.status()["peers"]["under_load"])
    with Stranger(net["a"], b) as newcomer:

        def asked_for_a_cookie():
            newcomer.end.send(newcomer.initiation())
            cookie = newcomer.datagram(MessageType.COOKIE, seconds=0.3)
            return cookie is not None and newcomer.macs.cookie_received(cookie, 0.0)

        assert eventually(asked_for_a_cookie)
        assert eventually(newcomer.call)
        assert speaks(newcomer)
