"""Magic DNS on real nodes: fake addresses by dig and curl, through direct and a SOCKS5 exit, over restarts."""

import errno
import ipaddress
import json
import socket

import pytest

from tests.lab.peers import eventually
from zignet.lab.internet import OFFICE, SITES
from zignet.lab.namespace import start_module
from zignet.lab.running import NotReady, Running

pytestmark = pytest.mark.root

VIDEO4, VIDEO6 = SITES["video.example"]
RECORDS = {
    "www.shop.example": {"A": [VIDEO4], "AAAA": [VIDEO6], "TXT": ['"a shop"']},
    "svc.shop.example": {
        "A": [VIDEO4],
        "HTTPS": [f"1 . alpn=h2,h3 port=8443 ipv4hint={VIDEO4} echconfig=AAAA ipv6hint={VIDEO6}"],
    },
    "far.shop.example": {"HTTPS": ["0 plain.test.example.", "1 svc.shop.example. alpn=h2"]},
    "svc.test.example": {"HTTPS": [f"1 . alpn=h2 ipv4hint={VIDEO4}"]},
    "four.shop.example": {"A": [VIDEO4]},
    "six.shop.example": {"AAAA": [VIDEO6]},
    "refused.shop.example": {"A": [VIDEO4]},
    "www.tunnel.example": {"A": ["192.0.2.250"]},  # what this host finds is wrong, on purpose
    "plain.test.example": {"A": ["203.0.113.30"]},
    "large.test.example": {"TXT": ['"' + "x" * 200 + '"'] * 12},
}
DNS = f"""\
proxy: {{mode: "off"}}
dns: {{upstreams: [{OFFICE}], fake: ["*.shop.example"], real: [real.shop.example]}}
"""
ROUTES = ["*.video.example -> tokyo", "*.news.example -> direct"]
POOL4, POOL6 = ipaddress.ip_network("198.19.0.0/16"), ipaddress.ip_network("2001:2::/64")


@pytest.fixture(scope="module")
def name_server(net):
    plan = net.directory / "names.json"
    plan.write_text(json.dumps({"records": RECORDS, "addresses": [OFFICE]}))
    process = start_module(net.office, "zignet.lab.nameserver", str(plan))
    yield
    process.kill()
    process.wait()


@pytest.fixture
def node(engine, name_server):
    return engine(ROUTES, DNS)


def dig(net, name, kind="A", *options, server="127.0.0.1", port=53530):
    command = ["dig", f"@{server}", "-p", str(port), "+tries=1", "+time=8", *options, name, kind]
    done = net.host.run(command)
    assert done.returncode == 0, done.stdout
    return done.stdout


def address(net, name, kind="A", **where):
    """The only address of a name."""
    (found,) = dig(net, name, kind, "+short", **where).split()
    return found


def page(net, name, found, *options):
    """The page of a site, by the address that it was given."""
    host = f"[{found}]" if ":" in found else found
    command = [
        "curl",
        "-sS",
        "--max-time",
        "15",
        "--resolve",
        f"{name}:80:{host}",
        *options,
        f"http://{name}/",
    ]
    done = net.host.run(command)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_fake_addresses_are_answered(net, node):
    v4, v6 = address(net, "www.shop.example"), address(net, "www.shop.example", "AAAA")
    assert ipaddress.ip_address(v4) in POOL4
    assert ipaddress.ip_address(v6) in POOL6
    assert int(ipaddress.ip_address(v4)) & 0xFFFF == int(ipaddress.ip_address(v6)) & 0xFFFF
    assert address(net, "www.shop.example", server="100.64.0.1", port=53) == v4
    assert address(net, "wWw.ShOp.example") == v4
    assert address(net, "www.video.example") != v4
    for found in (v4, v6):
        reverse = ipaddress.ip_address(found).reverse_pointer
        assert dig(net, reverse, "PTR", "+short").strip() == "www.shop.example."
    status = node.ask("status", "--json")["names"]
    assert status["names"] == 2
    assert status["answered"]["fake"] >= 5


@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_curl_by_a_fake_address_through_direct(net, node, kind):
    seen = page(net, "www.shop.example", address(net, "www.shop.example", kind))
    assert (seen["server"], seen["name"]) == ("video.example", "www.shop.example")
    (flow,) = [flow for flow in node.flows() if flow["name"] == "www.shop.example"]
    assert (flow["exit"], flow["known_by"], flow["error"]) == ("direct", "dns", None)


@pytest.mark.parametrize("name", ["four.shop.example", "six.shop.example"])
@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_the_family_that_the_name_has_is_dialled(net, node, name, kind):
    seen = page(net, name, address(net, name, kind))
    assert (":" in seen["client"]) == name.startswith("six")


@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_curl_by_a_fake_address_through_a_proxy(net, node, kind):
    """The proxy gets the name and resolves it itself: from its own hosts file."""
    seen = page(net, "www.video.example", address(net, "www.video.example", kind))
    assert seen["server"] == "video.example"
    assert seen["client"] in ("198.51.100.10", "2001:db8:2::10")  # tokyo
    flow = next(flow for flow in node.flows() if flow["name"] == "www.video.example")
    assert (flow["exit"], flow["known_by"]) == ("tokyo", "dns")


@pytest.mark.parametrize("name", ["www.shop.example", "www.video.example"])
@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_udp_by_a_fake_address(net, node, name, kind):
    found = address(net, name, kind)
    with net.host.socket(socket.AF_INET6 if ":" in found else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(15)
        sock.connect((found, 7))
        for number in range(3):
            sock.send(b"echo %d" % number)
            assert sock.recv(100) == b"echo %d" % number


def test_refusals_are_true(net, node):
    unreachable = errno.EHOSTUNREACH
    for found, port, why in (
        (address(net, "refused.shop.example"), 4444, errno.ECONNREFUSED),
        (
            address(net, "nowhere.shop.example"),
            80,
            unreachable,
        ),  # a fake address, but the name does not exist
        (address(net, "nowhere.shop.example", "AAAA"), 80, unreachable),
        ("198.19.200.200", 80, unreachable),  # nobody has this one
        ("2001:2::1234", 80, unreachable),
        ("2001:2::5:1234", 80, unreachable),
    ):
        with pytest.raises(OSError, match=r"\[Errno") as error:
            net.host.connect(found, port, 20.0)
        assert error.value.errno == why, found


def test_other_names_and_types_are_forwarded_untouched(net, node):
    assert address(net, "plain.test.example") == "203.0.113.30"
    assert dig(net, "www.shop.example", "TXT", "+short").strip() == '"a shop"'
    assert "status: NXDOMAIN" in dig(net, "nothing.test.example")
    large = dig(net, "large.test.example", "TXT", "+short")
    assert large.count("x" * 200) == 12  # truncated, and asked for again by TCP
    assert address(net, "plain.test.example", "A") == "203.0.113.30"
    assert dig(net, "plain.test.example", "A", "+short", "+tcp").strip() == "203.0.113.30"


@pytest.mark.parametrize("options", [[], ["+tcp"], ["+dnssec", "+noedns"], ["+dnssec"]])
def test_services_lead_to_the_fake_address(net, node, options):
    """Asked for by a browser beside A and AAAA: what the site speaks is told, where it is would lead past the exit."""
    assert dig(net, "svc.shop.example", "TYPE65", "+short", *options).split() == [
        "1",
        ".",
        'alpn="h2,h3"',
        "port=8443",
    ]
    assert dig(net, "far.shop.example", "HTTPS", "+short", *options).split() == [
        "1",
        "svc.shop.example.",
        'alpn="h2"',
    ]
    whole = dig(net, "svc.shop.example", "HTTPS", *options)
    assert " ad;" not in whole.replace(" ad ", " ad;")
    assert "RRSIG" not in whole
    untouched = dig(net, "svc.test.example", "HTTPS", "+short", *options).split()
    assert untouched == ["1", ".", 'alpn="h2"', f"ipv4hint={VIDEO4}"]


def test_what_is_not_said(net, node):
    assert "status: NOERROR" in (answer := dig(net, "www.shop.example", "HTTPS"))
    assert "ANSWER: 0" in answer
    assert "status: NXDOMAIN" in dig(net, "real.shop.example")
    assert "status: NXDOMAIN" in dig(net, "nobody.zignet")
    assert address(net, "admin.zignet") == "100.64.0.1"


def fakes_of(net, names):
    return {name: (address(net, name), address(net, name, "AAAA")) for name in names}


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_mappings_outlive_the_node(net, node, end):
    names = [f"n{number}.shop.example" for number in range(5)] + ["www.video.example"]
    before = fakes_of(net, names)
    last = address(net, "last.shop.example")
    if end == "stop":
        assert node.stop() == 0
    else:
        node.kill()
    node.start()
    others = fakes_of(net, ["other.shop.example", "another.shop.example"])
    assert last not in {v4 for v4, _ in others.values()}
    assert not {*others.values()} & {*before.values()}
    assert fakes_of(net, names) == before


def test_a_reload_changes_what_is_fake(net, node, config):
    assert address(net, "plain.test.example") == "203.0.113.30"
    text = config([*ROUTES, "*.test.example -> tokyo"], DNS)
    node.reload(text)
    eventually(lambda: ipaddress.ip_address(address(net, "plain.test.example")) in POOL4, 20)


def test_a_pool_that_overlaps_a_route_is_an_error_that_names_both(net, directories, config, name_server):
    net.host.route("198.19.4.0/24", "192.0.2.1")
    try:
        with pytest.raises(NotReady) as error:
            Running(net.host, directories(), config(ROUTES, DNS)).start()
    finally:
        net.host.run(["ip", "route", "del", "198.19.4.0/24"])
    assert "198.19.0.0/16 (dns.fake_range) overlaps" in str(error.value)
    assert "198.19.4.0/24" in str(error.value)


def test_in_global_mode_as_well(net, engine, name_server):
    node = engine([*ROUTES, "MATCH,direct"], DNS.replace('"off"', "global"))
    seen = page(net, "www.shop.example", address(net, "www.shop.example"))
    assert seen["server"] == "video.example"
    assert address(net, "plain.test.example") == "203.0.113.30"  # our own queries do not come back to us
    assert all(flow["target"] != f"{OFFICE}:53" for flow in node.flows())
