"""Ordinary programs between two nodes: IPv4 and IPv6 inside, over either outside."""

import errno
import hashlib
import json
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.lab.peers import (
    CLOSED,
    HTTP,
    SINK,
    SSH,
    checksum_errors,
    digest,
    eventually,
    family,
    ping,
    random_file,
    servers,
    udp,
    url,
)
from zignet.lab.hosts import Hosts

pytestmark = pytest.mark.root

SIZE = 50 << 20  # bytes


@pytest.fixture(scope="module", params=[4, 6], ids=["over-v4", "over-v6"])
def net(request):
    with Hosts("a", "b") as hosts:
        hosts.start_all(version=request.param)
        hosts.checksum_errors = [checksum_errors(host) for host in hosts]
        with servers(hosts["b"]):
            yield hosts


@pytest.fixture(scope="module")
def file(net):
    """A large file on b, served by its web server; gives its digest."""
    directory = net.directory / "files"
    directory.mkdir()
    made = random_file(directory / "large", SIZE)
    command = ["python3", "-m", "http.server", "--bind", "::", "--directory", directory, str(HTTP)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = net["b"].namespace.popen(command, **quiet)
    eventually(lambda: net["b"].namespace.run(["curl", "-s", url("127.0.0.1", HTTP)]).returncode == 0)
    yield made
    server.terminate()


@pytest.fixture(scope="module", params=[4, 6], ids=["v4", "v6"])
def b(request, net):
    """The address of b on a."""
    return net["a"].inner(net["b"], request.param)


def test_curl_fetches_a_large_file(net, file, b):
    into = net.directory / "fetched"
    done = net["a"].namespace.run(["curl", "-sS", "-o", into, url(b, HTTP, "large")])
    assert done.returncode == 0, done.stderr
    assert digest(into) == file


def test_nc_sends_a_large_file(net, file, b):
    into = net.directory / "sent"
    with into.open("wb") as out, (net.directory / "files/large").open("rb") as source:
        sink = net["b"].namespace.popen(["nc", "-l", "-N", "-6" if ":" in b else "-4", str(SINK)], stdout=out)
        eventually(lambda: listens(net["b"], SINK))
        done = net["a"].namespace.run(["nc", "-N", b, str(SINK)], stdin=source)
        assert done.returncode == 0, done.stderr
        assert sink.wait(10) == 0
    assert digest(into) == file


def listens(host, port):
    files = (Path("/proc/thread-self/net", name) for name in ("tcp", "tcp6"))
    text = "".join(host.namespace.call(file.read_text) for file in files)
    return re.search(rf":{port:04X} \S+ 0A ", text) is not None


@pytest.fixture(scope="module")
def login(net):
    """A command line of ssh for root on b, where an sshd runs; without the address."""
    keys = net.directory / "keys"
    keys.mkdir()
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)]
        subprocess.run(command, check=True)
    Path("/run/sshd").mkdir(exist_ok=True)  # its privilege separation wants it
    settings = {"StrictModes": "no", "UsePAM": "no", "PidFile": "none", "PermitRootLogin": "yes"}
    settings |= {"AuthorizedKeysFile": keys / "user.pub", "HostKey": keys / "host", "Port": SSH}
    command = ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", *options_of(settings)]
    server = net["b"].namespace.popen(command, stderr=subprocess.DEVNULL)
    eventually(lambda: listens(net["b"], SSH))
    settings = {"BatchMode": "yes", "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null"}
    settings |= {"LogLevel": "ERROR", "IdentityFile": keys / "user", "Port": SSH, "User": "root"}
    yield ["ssh", *options_of(settings)]
    server.terminate()


def options_of(settings):
    return [f"-o{name}={value}" for name, value in settings.items()]


@pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="no sshd here")
def test_ssh(net, login, b):
    text = "x" * 3_000_000
    done = net["a"].namespace.run([*login, b, "sha256sum; echo $SSH_CONNECTION"], input=text)
    assert done.returncode == 0, done.stderr
    seen, connection = done.stdout.splitlines()
    assert seen.split()[0] == hashlib.sha256(text.encode()).hexdigest()
    assert connection.split()[0] == net["b"].inner(net["a"], 6 if ":" in b else 4)


@pytest.mark.parametrize(
    "options", [[], ["-R"], ["-P", "4"], ["-u", "-b", "400M"]], ids=["up", "down", "four", "udp"]
)
def test_iperf3(net, b, options):
    server = net["b"].namespace.popen(["iperf3", "-s", "-1"], stdout=-3, stderr=-3)
    eventually(lambda: listens(net["b"], 5201))
    done = net["a"].namespace.run(["iperf3", "-J", "-c", b, "-n", "20M", *options])
    result = json.loads(done.stdout)
    assert done.returncode == 0, result.get("error")
    assert result["end"].get("sum_received", result["end"].get("sum"))["bytes"] > 1_000_000
    assert server.wait(5) == 0


@pytest.mark.parametrize("size", [0, 1, 7, 1_200, 1_372, 1_392, 1_440, 1_500, 4_000, 20_000, 60_000, 65_000])
def test_datagrams_of_every_size_come_back(net, b, size):
    payload = bytes(i * 7 & 0xFF for i in range(size))
    with udp(net["a"], b) as end:
        end.send(payload)
        assert end.recv(65536) == payload


def test_a_datagram_without_a_checksum(net):
    with udp(net["a"], net["a"].inner(net["b"])) as end:
        end.setsockopt(socket.SOL_SOCKET, 11, 1)  # SO_NO_CHECK; of IPv4
        for size in (10, 5_000):
            end.send(bytes(size))
            assert end.recv(65536) == bytes(size)


@pytest.mark.parametrize("size", [100, 5_000])
def test_what_a_header_says_arrives(net, b, size):
    """DSCP and hop limit, of a datagram that goes in one piece and of one in several."""
    kind = family(b)
    level, traffic, hops, tell = (  # linux/in.h, linux/in6.h
        (socket.IPPROTO_IP, socket.IP_TOS, socket.IP_TTL, (socket.IP_RECVTOS, 12))
        if kind == socket.AF_INET
        else (41, socket.IPV6_TCLASS, 16, (socket.IPV6_RECVTCLASS, socket.IPV6_RECVHOPLIMIT))
    )
    there, here = (net[name].namespace.socket(kind, socket.SOCK_DGRAM) for name in "ba")
    with there, here:
        there.settimeout(5)
        there.bind(("", SINK))
        for option in tell:
            there.setsockopt(level, option, 1)
        here.setsockopt(level, traffic, 0xB8)
        here.setsockopt(level, hops, 9)
        here.sendto(bytes(size), (b, SINK))
        data, told, *_ = there.recvmsg(65536, 200)
    assert len(data) == size
    assert sorted(value[0] for _, _, value in told) == [9, 0xB8]


def test_a_train_of_datagrams_comes_back_whole(net, b):
    with udp(net["a"], b) as end:
        train = b"".join(bytes((number,)) * 1000 for number in range(20)) + b"tail"
        end.sendmsg([train], [(socket.IPPROTO_UDP, 103, b"\xe8\x03")])  # UDP_SEGMENT, 1000
        heard = sorted(end.recv(2048) for _ in range(21))
    assert heard == sorted([bytes((number,)) * 1000 for number in range(20)] + [b"tail"])


@pytest.mark.parametrize("size", [0, 56, 1_372, 3_000, 20_000, 65_000])
def test_pings_of_every_size(net, b, size):
    assert ping(net["a"], b, "-s", str(size), count=3) == 3


def test_the_mtu_of_the_interface_is_told(net, b):
    header = 48 if ":" in b else 28
    assert ping(net["a"], b, "-M", "do", "-s", str(1420 - header)) == 1
    done = net["a"].namespace.run(["ping", "-c1", "-W0.2", "-M", "do", "-s", str(1421 - header), b])
    assert done.returncode != 0
    assert "1420" in done.stdout + done.stderr


@pytest.mark.parametrize("size", [1, 1_000, 20_000])
def test_udp_to_a_closed_port_is_refused(net, b, size):
    with udp(net["a"], b) as end:
        end.connect((b, CLOSED))
        end.send(bytes(size))
        with pytest.raises(ConnectionRefusedError):
            end.recv(1)


def test_tcp_to_a_closed_port_is_refused(net, b):
    with pytest.raises(ConnectionRefusedError):
        net["a"].namespace.connect(b, CLOSED)


@pytest.mark.parametrize("version", [4, 6])
def test_an_address_that_nobody_has_is_unreachable(net, version):
    nobody = "100.64.7.7" if version == 4 else "fd5a:6967:6e65:0:1::7"
    with pytest.raises(OSError) as caught:  # noqa: PT011
        net["a"].namespace.connect(nobody, 80)
    assert caught.value.errno == errno.EHOSTUNREACH


def test_a_host_is_one_hop_away(net, b):
    assert ping(net["a"], b, "-t", "1") == 1


def test_the_kernel_found_nothing_wrong(net):
    assert [checksum_errors(host) for host in net] == net.checksum_errors


def test_no_fault_was_logged(net):
    for host in net:
        assert "Traceback" not in host.node.log()
        assert host.status()["totals"]["dropped"] == {}
