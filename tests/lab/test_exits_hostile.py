"""A peer that exits here and means harm: forged, missing, cut off and countless destinations; real nodes.

app ── sealed ── exit ── web 192.0.2.3          web also has somebody who says what no honest node says
"""

from __future__ import annotations

import contextlib
import struct
import time

import psutil
import pytest

from tests.lab.peers import ECHO, Stream, eventually, servers
from tests.lab.stranger import Stranger
from tests.lab.test_exits import ROUTES, begin, connect, exit_flows, fake
from zignet.lab.hosts import Hosts
from zignet.wire import Refusal, Refused, parse_control

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def net():
    with Hosts("app", "exit", "web") as hosts:
        begin(hosts, "app", routes=ROUTES)
        begin(hosts, "exit", exit={"allow": "all"}, inbound={"default_action": "allow"})
        with servers(hosts["web"]):
            eventually(lambda: connect(hosts, "www.example", ECHO) == 0, 20.0)
            yield hosts


FLAGS = {"EXIT": 4, "BACK": 8, "NAMED": 16}
SYN = struct.pack("!HHIIBBHHH", 1, ECHO, 3, 0, 0x50, 2, 500, 0, 0)


def asking(number, meaning=b"", payload=b"x", protocol=17, flags=4):
    """A frame of an exit flow; `meaning` is kind, length and name or address as they are on the wire."""
    packet = SYN if protocol == 6 else struct.pack("!HHHH", 1, ECHO, 8 + len(payload), 0) + payload
    head = bytes((protocol, flags | (FLAGS["NAMED"] if meaning else 0), 0, 64))
    return head + number.to_bytes(4, "big") + meaning + packet


def named(name):
    return bytes((1, len(name))) + name


@pytest.fixture
def harmful(net):
    """Somebody that the exit has let in, and dials for; afterwards it works for others as before."""
    with Stranger(net["web"], net["exit"]) as made:
        assert made.call()
        yield made
    assert connect(net, "www.example", ECHO) == 0
    assert "Traceback" not in net["exit"].node.log()


def answer(harmful, seconds=20.0):
    """The next refusal, as (reason, protocol, number); or the next frame of an exit flow, as it is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        frame = harmful.frame()
        if frame is not None and frame[0] in (6, 17):
            return frame
        if frame is not None and isinstance(told := parse_control(frame), Refused):
            return told.reason, told.protocol, told.number
    return None


def test_a_destination_that_is_missing_or_forged(net, harmful):
    harmful.say(asking(7, named(b"www.example"), b"hello"))
    frame = answer(harmful)
    assert (frame[4:8], frame[-5:]) == (b"\0\0\0\7", b"hello")
    for protocol in (6, 17):
        harmful.say(asking(99, protocol=protocol))
        assert answer(harmful) == (Refusal.NUMBER_UNKNOWN, protocol, 99)
    names = [named(name) for name in (b"own.example", b"loop.example", b"zig.example", b"lan.example")]
    own4 = [
        b"\4\4" + bytes(each) for each in ((127, 0, 0, 1), (100, 64, 0, 1), (198, 19, 0, 2), (0, 0, 0, 7))
    ]
    own6 = [b"\6\x10" + bytes(each) for each in (bytes(15) + b"\1", bytes(10) + b"\xff\xff\x7f\0\0\1")]
    for number, meaning in enumerate(names + own4 + own6, 100):
        harmful.say(asking(number, meaning))
        assert answer(harmful) == (Refusal.FORBIDDEN, 17, number)
        harmful.say(asking(number, meaning, protocol=6))
        assert answer(harmful) == (Refusal.FORBIDDEN, 6, number)
    assert not {"127.0.0.1", "::1"} & {flow["target"].rpartition(":")[0] for flow in exit_flows(net)}


def test_frames_that_are_cut_off_or_malformed(net, harmful):
    """Nothing comes of them; what is whole afterwards is answered."""
    for whole in (asking(7, named(b"www.example"), protocol=6), asking(7, named(b"www.example"))):
        for end in range(len(whole)):
            harmful.say(whole[:end])
    for meaning in (
        named(b""),
        named(b"a..b"),
        named(b"1.2.3.4"),
        named(b"A"),
        b"\4\3abc",
        b"\6\4abcd",
        b"\0\1a",
        b"\1\xffa",
    ):
        harmful.say(asking(8, meaning))
        harmful.say(asking(8, meaning, protocol=6))
    for number in (0, 1 << 24, 0xFFFFFFFF):
        harmful.say(asking(number, named(b"www.example")))
    harmful.say(asking(9, named(b"www.example"), flags=FLAGS["EXIT"] | FLAGS["BACK"]))
    harmful.say(asking(10, named(b"www.example"), b"whole"))
    while isinstance(frame := answer(harmful), tuple):
        assert frame[0] in (Refusal.NUMBER_UNKNOWN, Refusal.UNKNOWN_PROTOCOL)
    assert frame.endswith(b"whole")


def test_a_flood_of_numbers_spares_what_stands(net, harmful):
    """Ten thousand destinations: what they take is bounded, and nobody else loses a flow."""
    exit_ = psutil.Process(net["exit"].node.process.pid)
    with Stream(net["app"], fake("www.example")) as stream:
        stream.goes_on()
        harmful.end.settimeout(0.0)
        for number in range(1, 10_001):
            harmful.say(asking(number, named(b"www.example")))
            if number % 50 == 0:
                time.sleep(0.005)  # so that the kernel between them loses few
                with contextlib.suppress(OSError):
                    while True:
                        harmful.end.recv(65536)
        stream.goes_on(60.0)
        rule = f"exit for {harmful.secret.public.name}"
        live = [flow for flow in exit_flows(net) if flow["rule"] == rule and flow["ended_s"] is None]
        assert 0 < len(live) <= 4096
        assert exit_.memory_info().rss < 150 << 20
