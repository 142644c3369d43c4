"""Which flows are led to the node's own name server, and where it is."""

import pytest

from nat.exit import Dial, Route, Target
from zignet.dns.hijack import HijackChooser, OwnServer
from zignet.exits import Block

FOUR, SIX = bytes((100, 64, 0, 1)), bytes.fromhex("fd5a69676e65") + bytes(9) + b"\1"
FAR4, FAR6 = bytes((203, 0, 113, 53)), bytes.fromhex("20010db8") + bytes(11) + b"\x35"


class Others:
    """The choosers behind it."""

    def choose(self, *flow):
        return Route(Block(), "another rule")


@pytest.mark.parametrize(
    ("protocol", "port", "led"),
    [
        (17, 53, True),
        (6, 53, True),
        (17, 54, False),
        (6, 853, False),
        (17, 5353, False),
        (1, 53, False),
        (58, 0, False),
    ],
)
@pytest.mark.parametrize("target", [FAR4, FAR6, bytes((198, 19, 0, 7))])
@pytest.mark.parametrize("name", [None, "", "www.example"])
def test_which(protocol, port, led, target, name):
    server = OwnServer([FOUR])
    chooser = HijackChooser(Others(), server, lambda: True)
    route = chooser.choose(protocol, FOUR, 40001, target, port, name)
    assert (route.exit is server) == led
    assert route.rule == ("dns.mode: hijack" if led else "another rule")


def test_only_while_it_is_on():
    on = []
    chooser = HijackChooser(Others(), OwnServer([FOUR]), lambda: bool(on))
    ask = (17, FOUR, 40001, FAR4, 53, None)
    assert chooser.choose(*ask).rule == "another rule"
    on.append(1)
    assert chooser.choose(*ask).rule == "dns.mode: hijack"


def test_where():
    both, four = OwnServer([FOUR, SIX]), OwnServer([FOUR])
    assert both.tcp(Target(FAR4, 53)) == Dial(FOUR, 53)
    assert both.tcp(Target(FAR6, 53)) == Dial(SIX, 53)
    assert four.tcp(Target(FAR6, 53)) == Dial(FOUR, 53)
    assert both.udp().stand_in(Target(FAR6, 53)) == SIX
    assert both != OwnServer([FOUR, SIX])  # a mapping is of one
    assert len({both, four}) == 2
