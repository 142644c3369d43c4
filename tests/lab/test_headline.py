"""`*.video.example -> peer_us`: a name, a fake address, a peer that resolves and dials. Nothing is given or stubbed.

laptop ── sealed ── us, jp ── web 192.0.2.4 (pages), and the name server that each of them asks
"""

import contextlib
import errno
import json
import socket

import pytest

from tests.lab.peers import CLOSED, ECHO, HTTP, digest, eventually, random_file, servers, url
from zignet.lab.hosts import Hosts
from zignet.lab.namespace import start_module

pytestmark = pytest.mark.root

WEB, WEB6 = "192.0.2.4", "2001:db8::4"
RECORDS = {
    "www.video.example": {"A": [WEB], "AAAA": [WEB6]},
    "www.anime.example": {"A": [WEB]},
    "private.video.example": {"A": ["10.0.0.3"]},
    "loop.video.example": {"A": ["127.0.0.1"], "AAAA": ["::1"]},
    "zignet.video.example": {"A": ["100.64.0.1"]},
    "plain.example": {"A": [WEB]},
    "sniffed.example": {"A": [WEB]},
}
ROUTES = ["*.video.example -> us", "*.anime.example -> jp", "MATCH,direct"]
DNS = {"upstreams": [WEB]}
PAGES = """
import http.server, sys
class Page(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/":
            return super().do_GET()
        body = self.client_address[0].removeprefix("::ffff:").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *line): pass
import socket
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
server = Server(("::", int(sys.argv[1])), Page)
print("ready", flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def net():
    with Hosts("laptop", "us", "jp", "web") as hosts, contextlib.ExitStack() as stack:
        web = hosts["web"]
        plan = hosts.directory / "names.json"
        plan.write_text(json.dumps({"records": RECORDS, "addresses": [WEB]}))
        names = start_module(web.namespace, "zignet.lab.nameserver", str(plan))
        stack.callback(names.kill)
        folder = hosts.directory / "pages"
        folder.mkdir()
        pages = web.namespace.popen(["python3", "-c", PAGES, str(HTTP)], cwd=folder)
        stack.callback(pages.kill)
        stack.enter_context(servers(web))
        hosts.start("laptop", hosts.config("laptop", dns=DNS, routes=ROUTES))
        for name in ("us", "jp"):
            hosts.start(name, hosts.config(name, dns=DNS, exit={"allow": ["laptop"]}))
        eventually(lambda: web.namespace.run(["curl", "-s", url(WEB, HTTP)]).returncode == 0)
        hosts.folder = folder
        yield hosts


def fake(net, name, kind="A"):
    done = net["laptop"].namespace.run(["dig", "@127.0.0.1", "-p", "53530", "+short", "+time=5", name, kind])
    (address,) = done.stdout.split()
    return address


def curl(net, address, path="", *options):
    return net["laptop"].namespace.run(
        ["curl", "-sS", "--max-time", "20", *options, url(address, HTTP, path)]
    )


def seen_from(host):
    """How a site may see a visitor who leaves there."""
    return host.address, host.address6


@pytest.mark.parametrize(("name", "by"), [("www.video.example", "us"), ("www.anime.example", "jp")])
@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_each_name_leaves_by_its_peer(net, name, by, kind):
    address = fake(net, name, kind)
    assert address.startswith(("198.19.", "2001:2::"))
    done = curl(net, address)
    assert done.stdout in seen_from(net[by]), done.stderr


def test_other_names_are_real_and_direct(net):
    assert fake(net, "plain.example") == WEB


def test_flows_that_the_nat_has_to_catch_first(net):
    """`proxy: global`, and a rule about addresses, or a name that was sniffed: on by a fake address of their own."""
    laptop = net["laptop"]
    laptop.node.stop()
    routes = ["sniffed.example -> jp", f"IP-CIDR,{WEB}/32,us", "MATCH,direct"]
    config = net.config("laptop", dns=DNS, routes=routes, proxy={"mode": "global"})
    net.start("laptop", config)
    try:
        # The web server's network is on the cable: leave by the default route, which leads into the TUN.
        laptop.namespace.run(["ip", "route", "del", "192.0.2.0/24", "dev", "eth0"])
        laptop.namespace.run(["ip", "route", "add", net["us"].address, "dev", "eth0"])
        laptop.namespace.run(["ip", "route", "add", net["jp"].address, "dev", "eth0"])
        assert curl(net, WEB).stdout in seen_from(net["us"])
        assert curl(net, WEB, "", "-H", "Host: sniffed.example").stdout in seen_from(net["jp"])
    finally:
        laptop.namespace.run(["ip", "route", "add", "192.0.2.0/24", "dev", "eth0"])
        laptop.node.stop()
        net.start("laptop", net.config("laptop", dns=DNS, routes=ROUTES))


def test_a_page_of_some_size_both_ways(net):
    sent = random_file(net.folder / "page", 20 << 20)
    got = net["laptop"].directory / "got"
    done = curl(net, fake(net, "www.video.example"), "page", "-o", str(got))
    assert done.returncode == 0, done.stderr
    assert digest(got) == sent


def test_udp(net):
    address = fake(net, "www.video.example")
    with net["laptop"].namespace.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.settimeout(10)
        end.connect((address, ECHO))
        for number in range(20):
            end.send(b"%d" % number)
            assert end.recv(100) == b"%d" % number


@pytest.mark.parametrize(
    ("name", "port", "why"),
    [
        ("www.video.example", CLOSED, errno.ECONNREFUSED),  # the far server refuses
        ("nowhere.video.example", HTTP, errno.EHOSTUNREACH),  # there is no such name
        ("private.video.example", HTTP, None),  # DNS rebinding: never dialled
        ("loop.video.example", HTTP, None),
        ("zignet.video.example", HTTP, None),
    ],
)
@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_the_application_sees_the_truth(net, name, port, why, kind):
    with pytest.raises(OSError, match=r"\[Errno") as error:
        net["laptop"].namespace.connect(fake(net, name, kind), port, 20.0)
    assert error.value.errno in ((why,) if why else (errno.ECONNREFUSED, errno.EACCES, errno.EHOSTUNREACH))


def test_the_exit_comes_back(net):
    """It is killed under a live stream; the next connection works, with nothing started again here."""
    address = fake(net, "www.video.example")
    with net["laptop"].namespace.connect(address, ECHO, 20.0) as end:
        end.sendall(b"hello")
        assert end.recv(100) == b"hello"
        net["us"].node.kill()
        net["us"].node.start()
        end.settimeout(60)
        with pytest.raises(OSError, match=r"reset|timed out"):
            talk_until_it_ends(end)
    assert eventually(lambda: curl(net, address).stdout in seen_from(net["us"]), 60)


def talk_until_it_ends(end):
    while True:
        end.sendall(b"more")
        if not end.recv(100):
            raise ConnectionResetError("reset")


def test_nothing_was_a_surprise(net):
    for name in ("laptop", "us", "jp"):
        assert "Traceback" not in net[name].node.log()
        assert "internal error" not in net[name].status()["peers"]["dropped"]
