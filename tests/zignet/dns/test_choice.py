"""Which names get fake addresses, and what flows to such addresses mean."""

import pytest

from nat.exit import Reason
from tests.zignet.dns.test_answers import POOL4, POOL6, Nobody
from zignet.dns.choice import STALE, FakeChooser, Which
from zignet.dns.fakes import Fakes
from zignet.dns.patterns import Patterns
from zignet.exits import BUILT_IN, Socks5
from zignet.routing import Line, Rules

TOKYO = Socks5("tokyo", bytes((192, 0, 2, 1)), 1080)
EXITS = {**BUILT_IN, "tokyo": TOKYO}
SOURCE, FAR = bytes((100, 64, 0, 1)), bytes((203, 0, 113, 5))


def rules(*lines):
    return Rules.parse([Line(line, f"test:{number}") for number, line in enumerate(lines)], EXITS)


def which(*lines, fake=(), real=()):
    return Which(rules(*lines), EXITS, fake, real)


@pytest.mark.parametrize(
    ("lines", "name", "fake"),
    [
        (("*.video.example -> tokyo",), "www.video.example", True),
        (("*.video.example -> tokyo",), "video.example", True),
        (("*.video.example -> tokyo",), "other.example", False),
        (("www.video.example -> direct", "*.video.example -> tokyo"), "www.video.example", False),
        (("www.video.example -> block", "*.video.example -> tokyo"), "www.video.example", False),
        (("DOMAIN-KEYWORD,video,tokyo",), "www.video.example", True),
        (("DOMAIN-REGEX,^www,tokyo",), "www.video.example", True),
        (("203.0.113.0/24 -> direct", "*.video.example -> tokyo"), "www.video.example", True),
        (("MATCH,tokyo",), "www.video.example", False),  # not by a rule about names
        (("MATCH,direct", "*.video.example -> tokyo"), "www.video.example", False),  # never reached
        (("*.zignet -> tokyo",), "peer.zignet", False),
        (("*.local -> tokyo",), "printer.local", False),
        (("*.example -> tokyo",), "a b.example", False),
        (("DOMAIN-KEYWORD,a,tokyo",), "\\001a.example", False),
    ],
)
def test_names(lines, name, fake):
    assert which(*lines)(name) is fake


def test_the_lists_come_first():
    chosen = which(
        "*.video.example -> tokyo",
        fake=["*.shop.example", "one.example"],
        real=["ntp.video.example", "*.x.shop.example"],
    )
    assert [chosen(name) for name in ("a.video.example", "a.shop.example", "one.example")] == [True] * 3
    assert [chosen(name) for name in ("ntp.video.example", "a.x.shop.example", "a.one.example")] == [
        False
    ] * 3


@pytest.mark.parametrize(
    ("patterns", "name", "there"),
    [
        ((), "a.example", False),
        (("a.example",), "a.example", True),
        (("a.example",), "b.a.example", False),
        (("*.a.example",), "a.example", True),
        (("*.a.example",), "c.b.a.example", True),
        (("*.a.example",), "ba.example", False),
        (("*.example",), "", False),
    ],
)
def test_patterns(patterns, name, there):
    assert (name in Patterns(patterns)) is there


@pytest.fixture
def fakes():
    return Fakes(POOL4, POOL6, Nobody(), lambda: 1_800_000_000.0)


def choose(chooser, target, port=443, name=None, protocol=6):
    return chooser.choose(protocol, SOURCE, 4000, target, port, name)


def test_a_flow_to_a_fake_address_has_its_name(fakes):
    chooser = FakeChooser(rules("*.video.example -> tokyo", "DST-PORT,22,block"), EXITS, fakes)
    number = fakes.number_of("www.video.example")
    for address in (fakes.address4(number), fakes.address6(number)):
        for protocol in (6, 17):
            route = choose(chooser, address, protocol=protocol)
            assert (route.exit, route.name, route.by_name) == (TOKYO, "www.video.example", True)
            assert route.rule == "*.video.example -> tokyo"
        # whatever was sniffed, or said to have no name: the answer that led here counts
        assert choose(chooser, address, name="").name == "www.video.example"
        assert choose(chooser, address, name="wrong.example").name == "www.video.example"
    other = fakes.number_of("other.example")
    assert choose(chooser, fakes.address4(other)).exit is BUILT_IN["direct"]
    assert choose(chooser, fakes.address4(other), 22).exit is BUILT_IN["block"]
    target = choose(chooser, fakes.address4(number)).target(fakes.address4(number), 443, "")
    assert (target.name, target.only_name) == ("www.video.example", True)


def test_other_flows_are_the_rules_own(fakes):
    below = rules("*.video.example -> tokyo", "203.0.113.0/24 -> block")
    chooser = FakeChooser(below, EXITS, fakes)
    for target in (FAR, bytes(16), bytes((198, 18, 255, 255))):
        for name in (None, "", "www.video.example"):
            assert choose(chooser, target, name=name) == choose(below, target, name=name)


def test_rules_about_addresses_do_not_see_the_fake_one(fakes):
    chooser = FakeChooser(
        rules("198.18.0.0/15 -> block", "2001:2::/32 -> block", "*.example -> tokyo"), EXITS, fakes
    )
    number = fakes.number_of("www.example")
    assert choose(chooser, fakes.address4(number)).exit is TOKYO
    assert choose(chooser, fakes.address6(number)).exit is TOKYO


def test_an_address_that_means_nothing_is_refused(fakes):
    chooser = FakeChooser(rules("MATCH,tokyo"), EXITS, fakes)
    for address in (fakes.address4(77), fakes.address6(77), fakes.address4(0), fakes.address6(1 << 63)):
        route = choose(chooser, address)
        assert route is STALE
        assert route.exit.tcp(route.target(address, 443, "")).reason is Reason.HOST_UNREACHABLE
        assert route.exit.udp().reason is Reason.HOST_UNREACHABLE


def test_a_name_that_was_sniffed_goes_by_its_exit(fakes):
    chooser = FakeChooser(rules("MATCH,direct"), EXITS, fakes)
    route = choose(chooser, fakes.address4(fakes.number_of("www.example", "tokyo")))
    assert (route.exit, route.name) == (TOKYO, "www.example")
    assert choose(chooser, fakes.address4(fakes.number_of("www.example", "gone"))) is STALE


def test_using_a_mapping_proves_it(fakes):
    chooser = FakeChooser(rules("MATCH,direct"), EXITS, fakes)
    number = fakes.number_of("www.example")
    choose(chooser, fakes.address6(number))
    assert fakes._proven[number]


@pytest.mark.parametrize(
    ("lines", "fake", "domains"),
    [
        ((), (), {"zignet"}),
        (
            ("*.video.example -> tokyo", "DOMAIN,one.example,tokyo"),
            (),
            {"zignet", "video.example", "one.example"},
        ),
        (
            ("*.video.example -> direct", "DOMAIN,one.example,block"),
            ("*.more.example",),
            {"zignet", "more.example"},
        ),
        (("MATCH,tokyo", "DOMAIN,never.example,tokyo"), (), {"zignet"}),
        (("IP-CIDR,203.0.113.0/24,tokyo", "DST-PORT,443,tokyo"), (), {"zignet"}),
        (("DOMAIN-KEYWORD,video,tokyo",), (), {"."}),
        (("DOMAIN-REGEX,^video,tokyo",), (), {"."}),
        (("DOMAIN-KEYWORD,video,block",), (), {"zignet"}),
        (tuple(f"DOMAIN,n{number}.example,tokyo" for number in range(2_000)), (), {"."}),
    ],
)
def test_which_domains_the_system_must_lead_here(lines, fake, domains):
    assert set(which(*lines, fake=fake).domains()) == domains


def test_why_a_name_is_fake():
    found = which("*.video.example -> tokyo", fake=("a.example",))
    assert found.reason("www.video.example") == "rule *.video.example -> tokyo"
    assert found.reason("a.example") == "dns.fake lists it"


@pytest.mark.parametrize(
    ("lines", "name", "why"),
    [
        (("*.video.example -> tokyo",), "ntp.video.example", "dns.real lists it"),
        (("*.video.example -> tokyo",), "other.example", "no rule about names leads it to an exit"),
        (("MATCH,tokyo",), "other.example", "no rule about names leads it to an exit"),
        (("www.a.example -> direct",), "www.a.example", "rule www.a.example -> direct needs no fake address"),
        (("*.local -> tokyo",), "printer.local", "names of this kind are never led to an exit"),
    ],
)
def test_why_a_name_is_real(lines, name, why):
    chosen = which(*lines, real=["ntp.video.example"])
    assert not chosen(name)
    assert chosen.why_real(name) == why
