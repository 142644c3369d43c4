"""Real clients through the engine, each by the exit that the rules choose; the origin tells which it was."""

import json
import socket
import ssl
import struct
import sys
from pathlib import Path

import pytest

from zignet.lab.internet import HOST, HOST6, OFFICE, OFFICE6, TOKYO, TOKYO6
from zignet.lab.running import Running
from zignet.lab.servers import GREETING

pytestmark = pytest.mark.root

ROUTES = [
    "IP-CIDR,203.0.113.30/32,direct",
    "IP-CIDR6,2001:db8:4::30/128,direct",
    "IP-CIDR,203.0.113.40/32,tokyo",
    "IP-CIDR6,2001:db8:4::40/128,tokyo",
    "IP-CIDR,203.0.113.50/32,locked",
    "DOMAIN,other.example,locked_office",
    "*.video.example -> tokyo",
    "DOMAIN-SUFFIX,news.example,office",
    "DOMAIN,broken.test,down",
    "DOMAIN,shut.test,block",
    "MATCH,direct",
]
DIRECT, BY_TOKYO, BY_NAME = "203.0.113.30", "203.0.113.40", "203.0.113.10"
DIRECT6, BY_TOKYO6 = "2001:db8:4::30", "2001:db8:4::40"


@pytest.fixture(scope="module")
def node(net, directories, config):
    with Running(net.host, directories(), config(ROUTES)) as running:
        yield running


@pytest.fixture
def tcp(net, node):
    """Connects in the host."""
    made = []

    def connect(host, port, timeout_s=8.0):
        made.append(net.host.connect(host, port, timeout_s))
        return made[-1]

    yield connect
    for end in made:
        end.close()


@pytest.mark.parametrize(
    ("arguments", "seen", "protocol"),
    [
        pytest.param(["-4", "https://video.example/"], TOKYO, "https", id="https, socks5"),
        pytest.param(["-6", "https://video.example/"], TOKYO6, "https", id="https, socks5, IPv6"),
        pytest.param(["-4", "https://www.video.example/"], TOKYO, "https", id="below the name"),
        pytest.param(["-4", "https://news.example/"], OFFICE, "https", id="https, http proxy"),
        pytest.param(["-6", "https://news.example/"], OFFICE6, "https", id="https, http proxy, IPv6"),
        pytest.param(["-4", "http://news.example/"], OFFICE, "http", id="http by Host"),
        pytest.param(
            ["-4", "--http2-prior-knowledge", "http://news.example/"], OFFICE, "h2", id="h2 by :authority"
        ),
        pytest.param(["-4", "https://plain.example/"], HOST, "https", id="direct by address"),
        pytest.param(["-6", "http://plain.example/"], HOST6, "http", id="direct by address, IPv6"),
        pytest.param(["-4", "https://other.example/"], TOKYO, "https", id="socks5 with password"),
        pytest.param(["-6", "https://other.example/"], OFFICE6, "https", id="http proxy with password"),
        pytest.param(["-4", "--tls-max", "1.2", "https://video.example/"], TOKYO, "https", id="TLS 1.2"),
    ],
)
def test_curl(node, curl, arguments, seen, protocol):
    page = curl(*arguments)
    assert (page["client"], page["protocol"]) == (seen, protocol)


def test_the_flows_tell_the_way(node, curl):
    curl("-4", "https://video.example/")
    flow = [flow for flow in node.flows() if flow["name"] == "video.example"][-1]
    assert flow["exit"] == "tokyo"
    assert flow["known_by"] == "sni"
    assert flow["rule"] == "*.video.example -> tokyo"
    assert flow["up"] > 200
    assert flow["down"] > 800


def test_python_tls_carries_megabytes_untouched(net, tcp):
    context = ssl.create_default_context(cafile=str(net.authority.file))
    with context.wrap_socket(tcp("203.0.113.10", 443), server_hostname="video.example") as end:
        end.sendall(b"GET /bytes/5000000 HTTP/1.1\r\nHost: video.example\r\n\r\n")
        total = 0
        while data := end.recv(65536):
            total += len(data)
    assert total > 5_000_000


@pytest.mark.parametrize(
    ("url", "address", "seen"),
    [
        pytest.param("https://quic.example/", BY_TOKYO, TOKYO, id="socks5 by address"),
        pytest.param("https://quic.example/", BY_TOKYO6, TOKYO6, id="socks5 by address, IPv6"),
        pytest.param("https://video.example/", BY_NAME, TOKYO, id="socks5 by the name in the Initial"),
        pytest.param("https://plain.example/", DIRECT, HOST, id="direct"),
        pytest.param("https://plain.example/", DIRECT6, HOST6, id="direct, IPv6"),
    ],
)
def test_http3(net, node, url, address, seen):
    pytest.importorskip("aioquic")
    done = net.host.run([sys.executable, "-m", "zignet.lab.quic", net.authority.file, url, address])
    assert done.returncode == 0, done.stderr
    page = json.loads(done.stdout)
    assert (page["client"], page["protocol"]) == (seen, "h3")


@pytest.mark.parametrize("server", [DIRECT, BY_TOKYO], ids=["direct", "socks5"])
def test_dig(net, node, server):
    done = net.host.run(["dig", "+short", "+tries=1", "+time=3", f"@{server}", "any.example"])
    assert done.stdout.strip() == server


@pytest.mark.parametrize("target", [DIRECT, DIRECT6, BY_NAME])
def test_ping(net, node, target):
    done = net.host.run(["ping", "-c", "3", "-i", "0.1", "-W", "2", target])
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("host", [DIRECT, DIRECT6, BY_TOKYO, BY_TOKYO6])
@pytest.mark.parametrize("size", [1, 1200, 1472, 4000])
def test_udp_echo(net, node, host, size):
    with net.host.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.settimeout(3)
        payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
        end.sendto(payload, (host, 7))
        data, sender = end.recvfrom(65536)
    assert data == payload
    assert sender[:2] == (host, 7)


def test_one_udp_socket_speaks_with_many(net, node):
    hosts = [DIRECT, BY_NAME, "203.0.113.20", "203.0.113.40"]
    with net.host.socket(kind=socket.SOCK_DGRAM) as end:
        end.settimeout(3)
        for host in hosts:
            end.sendto(host.encode(), (host, 7))
        heard = dict(reversed(end.recvfrom(2048)) for _ in hosts)
    assert heard == {(host, 7): host.encode() for host in hosts}


@pytest.mark.parametrize("host", [DIRECT, BY_TOKYO], ids=["direct", "socks5"])
def test_udp_trains_arrive_whole(net, node, host):
    with net.host.socket(kind=socket.SOCK_DGRAM) as end:
        end.settimeout(3)
        end.connect((host, 7))
        train = b"".join(bytes((number,)) * 1000 for number in range(20)) + b"tail"
        end.sendmsg([train], [(socket.IPPROTO_UDP, 103, struct.pack("H", 1000))])  # UDP_SEGMENT
        heard = sorted(end.recv(2048) for _ in range(21))
    assert heard == sorted([bytes((number,)) * 1000 for number in range(20)] + [b"tail"])


@pytest.mark.parametrize(
    "options", [[], ["-R"], ["-P", "4"], ["-u", "-b", "50M"]], ids=["up", "down", "four", "udp"]
)
@pytest.mark.parametrize("host", [DIRECT, BY_TOKYO], ids=["direct", "socks5"])
def test_iperf3(net, node, host, options):
    server = net.origin.popen(["iperf3", "-s", "-1", "-B", host, "-p", "5201"], stdout=-3, stderr=-3)
    try:
        wait_for_listener(net.origin, 5201)
        done = net.host.run(["iperf3", "-J", "-c", host, "-p", "5201", "-t", "1", *options])
        result = json.loads(done.stdout)
        assert done.returncode == 0, result.get("error")
        assert result["end"].get("sum_received", result["end"].get("sum"))["bytes"] > 1_000_000
    finally:
        server.terminate()
        server.wait()


def wait_for_listener(namespace, port):
    needle = f":{port:04X} "
    while not any(
        needle in line and " 0A " in line
        for path in ("/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6")
        for line in namespace.call(Path(path).read_text).splitlines()
    ):
        pass


def exactly(end, size):
    data = b""
    while len(data) < size and (more := end.recv(size - len(data))):
        data += more
    return data


EVERY_EXIT = pytest.mark.parametrize(
    "host",
    [DIRECT, DIRECT6, BY_TOKYO, "203.0.113.50", BY_NAME],
    ids=["direct", "v6", "socks5", "locked", "undecided"],
)


@EVERY_EXIT
def test_half_close(tcp, host):
    end = tcp(host, 9)
    end.sendall(bytes(3_000_000))
    end.shutdown(socket.SHUT_WR)
    assert exactly(end, 7) == b"3000000"


@EVERY_EXIT
def test_echo_in_small_and_large_pieces(tcp, host):
    end = tcp(host, 7)
    for size in (1, 2, 1000, 70_000, 1):
        payload = bytes(i * 7 & 0xFF for i in range(size))
        end.sendall(payload)
        assert exactly(end, size) == payload


@EVERY_EXIT
def test_a_reset_comes_through(tcp, host):
    end = tcp(host, 19)
    end.sendall(b"x")
    with pytest.raises(ConnectionResetError):
        end.recv(1)


@EVERY_EXIT
def test_a_server_that_speaks_first(tcp, host):
    assert exactly(tcp(host, 25), len(GREETING)) == GREETING


def test_a_silent_server_holds_nobody_up(tcp):
    silent = tcp(DIRECT, 13)
    silent.sendall(b"anybody?")
    other = tcp(DIRECT, 7)
    other.sendall(b"here")
    assert exactly(other, 4) == b"here"


@pytest.mark.parametrize("host", [DIRECT, DIRECT6, BY_TOKYO], ids=["direct", "v6", "socks5"])
def test_refused_is_refused(tcp, host):
    with pytest.raises(ConnectionRefusedError):
        tcp(host, 81, timeout_s=3)


def test_the_name_that_was_asked_for_is_in_the_explanation(node):
    explained = node.ask("route", "explain", "https://www.video.example/", "--json")
    assert explained["exit"] == "tokyo"
    probe = explained["probe"]
    assert [step["step"] for step in probe["steps"]] == ["dns", "connect", "tls", "first_byte"]
    assert (probe["ok"], probe["tls"]["certificate"]["matches"]) == (True, True)
    (flow,) = explained["flows"]  # the probe's own
    assert (flow["exit"], flow["name"], flow["known_by"]) == ("tokyo", "www.video.example", "sni")


@pytest.mark.parametrize(
    ("destination", "step", "part"),
    [
        (f"http://{DIRECT}:81", "connect", "the server refused the connection; nothing listens there"),
        ("https://broken.test", "tls", "The exit down has failed: "),
        (f"{BY_TOKYO}:81", "connect", "The exit tokyo has failed: "),
        ("https://shut.test", "tls", "Refused here: DOMAIN,shut.test,block"),
        ("https://nowhere.test", "dns", "nowhere.test does not resolve here"),
    ],
)
def test_where_a_probe_fails(net, node, destination, step, part):
    hosts = net.directory / "hosts"
    before = hosts.read_text()
    hosts.write_text(f"{before}{BY_NAME} broken.test shut.test\n")
    done = net.host.run(node.command("route", "explain", destination, "--json"), timeout_s=100)
    hosts.write_text(before)
    found = json.loads(done.stdout)
    assert (done.returncode, found["probe"]["failed"]) == (1, step), found
    assert part in found["probe"]["verdict"]
