"""What a peer may reach: ordinary clients against a real node that closes all but some services to them."""

import errno
import socket
import time

import pytest
import yaml

from tests.lab.peers import ECHO, HTTP, SSH, eventually, family, ping, servers, udp
from zignet.lab.hosts import Hosts

pytestmark = pytest.mark.root

OTHER = 9_009  # a port that is open on the host, and closed to peers


@pytest.fixture(scope="module")
def net():
    with Hosts("friend", "other", "host") as hosts:
        admins = hosts.directory / "admins.txt"
        admins.write_text(f"# who may log in\n{hosts['friend'].key}\n")
        services = [
            {"proto": "tcp", "port": SSH, "allow": [f"file:{admins}"]},
            {"proto": "tcp", "port": f"{HTTP},{ECHO}"},
            {"proto": "udp", "port": ECHO, "allow": ["friend"]},
            {"proto": "icmp", "allow": ["friend"]},
        ]
        for name in ("friend", "other"):
            hosts.start(name)
        host = hosts["host"]
        everyone = [hosts[name].key for name in ("friend", "other")]
        hosts.start("host", inbound={"default_action": "deny", "allow": everyone, "services": services})
        hosts.admins = admins
        with servers(host):
            yield hosts


@pytest.fixture(scope="module", params=[4, 6], ids=["v4", "v6"])
def version(request):
    return request.param


def dial(net, who, port, version):
    """Connect as an application does; the connection, or the errno that it is told (None: nothing, for 20 s)."""
    address = net[who].inner(net["host"], version)
    end = net[who].namespace.socket(family(address), socket.SOCK_STREAM)
    end.settimeout(20)
    try:
        end.connect((address, port))
    except OSError as error:
        end.close()
        return error.errno
    return end


def refused(answer):
    """Told so, at once: EHOSTUNREACH over IPv4, EACCES over IPv6."""
    return answer in (errno.EHOSTUNREACH, errno.EACCES)


def error_of(act):
    try:
        act()
    except OSError as error:
        return error
    return None


def is_reset(end):
    time.sleep(0.05)
    return isinstance(error_of(lambda: end.sendall(b"after")), ConnectionResetError)


def listening(net, port):
    listener = net["host"].namespace.socket(socket.AF_INET6)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::", port))
    listener.listen()
    return listener


def test_tcp(net, version):
    with listening(net, SSH), listening(net, OTHER):
        for who, port, is_open in (
            ("friend", SSH, True),
            ("other", SSH, False),
            ("friend", ECHO, True),
            ("other", ECHO, True),
            ("friend", OTHER, False),
        ):
            answer = dial(net, who, port, version)
            if is_open:
                answer.close()
            else:
                assert refused(answer), (who, port, answer)


def test_curl_is_told_at_once(net, version):
    address = net["friend"].inner(net["host"], version)
    at = f"[{address}]" if version == 6 else address
    done = net["friend"].namespace.run(["curl", "-sS", "-m", "20", f"http://{at}:{OTHER}/"])
    assert done.returncode == 7, done.stderr  # could not connect, and not 28, a time-out


def test_udp_and_ping(net, version):
    for who, is_open in (("friend", True), ("other", False)):
        address = net[who].inner(net["host"], version)
        assert ping(net[who], address) == is_open
        with udp(net[who], address) as end:
            end.send(b"hello")
            if is_open:
                assert end.recv(100) == b"hello"
            else:
                assert refused(error_of(lambda end=end: end.recv(100)).errno)


def test_what_the_host_asks_is_answered(net, version):
    """By whom may reach nothing but two ports."""
    with servers(net["other"]):
        address = net["host"].inner(net["other"], version)
        assert ping(net["host"], address) == 1
        with udp(net["host"], address) as end:
            end.send(b"hello")
            assert end.recv(100) == b"hello"
        with net["host"].namespace.connect(address, ECHO, timeout_s=20) as end:
            end.sendall(b"hello")
            assert end.recv(100) == b"hello"


def test_a_line_that_is_taken_out_of_the_file_ends_the_connection(net, version):
    with listening(net, SSH) as listener:
        end = dial(net, "friend", SSH, version)
        served, _ = listener.accept()
        end.sendall(b"before")
        assert served.recv(100) == b"before"
        before = net.admins.read_text()
        try:
            net.admins.write_text("# nobody\n")
            eventually(lambda: refused(dial(net, "friend", SSH, version)), 30)
            eventually(lambda: is_reset(end), 30)
            served.setblocking(False)
            with pytest.raises(BlockingIOError):
                served.recv(100)
        finally:
            net.admins.write_text(before)
        eventually(lambda: not refused(dial(net, "friend", SSH, version)), 30)
        served.close()
        end.close()


def test_a_reload_opens_and_closes(net):
    node = net["host"].node
    closed = node.config.read_text()
    with listening(net, OTHER):
        assert refused(dial(net, "other", OTHER, 4))
        try:
            document = yaml.safe_load(closed)
            document["inbound"]["services"] = "all"
            node.config.write_text(yaml.safe_dump(document))
            assert net["host"].namespace.run(node.command("reload")).returncode == 0
            dial(net, "other", OTHER, 4).close()
        finally:
            node.config.write_text(closed)
            assert net["host"].namespace.run(node.command("reload")).returncode == 0
        assert refused(dial(net, "other", OTHER, 4))
