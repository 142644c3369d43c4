"""`zignet dns` as a process, against a node's control socket and real name servers."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dnslib import RCODE, RR
from dnslib.server import BaseResolver, DNSHandler, DNSLogger, DNSServer

from zignet.cli import dns_query
from zignet.cli.dns import put_back
from zignet.cli.dns_query import Query, parse
from zignet.cli.errors import ExitCode, Fault
from zignet.lab.namespace import Namespace

ROOT = Path(__file__).parents[3]
ZONE = """
www.video.example. 1 A 198.19.0.7
www.video.example. 1 AAAA 2001:2::7
7.0.19.198.in-addr.arpa. 1 PTR www.video.example.
odd.example. 60 TXT "a\\027[31mb"
"""


def mount(source: Path, target: str) -> None:
    assert ctypes.CDLL(None).mount(os.fsencode(source), target.encode(), None, 4096, None) == 0  # MS_BIND


class Zone(BaseResolver):
    """ZONE; `big.example` has too many records for a datagram; everything else does not exist."""

    def __init__(self) -> None:
        self.records = RR.fromZone(ZONE)
        self.seen: list[str] = []

    def resolve(self, request: Any, handler: Any) -> Any:
        self.seen.append(f"{handler.protocol} {request.q.qname}")
        reply = request.reply()
        names = [record for record in self.records if record.rname == request.q.qname]
        if str(request.q.qname) == "big.example.":
            reply.add_answer(
                *RR.fromZone("\n".join(f"big.example. 9 A 192.0.2.{last}" for last in range(100)))
            )
        elif str(request.q.qname) == "broken.example.":
            reply.header.rcode = RCODE.SERVFAIL
        elif not names:
            reply.header.rcode = RCODE.NXDOMAIN
        reply.add_answer(*(record for record in names if record.rtype == request.q.qtype))
        return reply


class Handler(DNSHandler):
    udplen = 512  # bytes


@pytest.fixture
def zone() -> Iterator[tuple[Zone, str]]:
    """A name server on UDP and TCP, and where."""
    resolver, quiet = Zone(), DNSLogger("-truncated,-error,-request,-reply")
    udp = DNSServer(resolver, "127.0.0.1", 0, logger=quiet, handler=Handler)
    tcp = DNSServer(resolver, "127.0.0.1", udp.server.server_address[1], tcp=True, logger=quiet)
    for server in (udp, tcp):
        server.start_thread()
    yield resolver, f"127.0.0.1:{udp.server.server_address[1]}"
    for server in (udp, tcp):
        server.stop()
        server.server.server_close()


@pytest.fixture
def config(tmp_path: Path, running: Path) -> Path:
    path = tmp_path / "my.yaml"
    path.write_text(f"state_dir: {running}\n")
    return path


def zignet(home: Path, *args: object, **more: Any) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT), **more}
    command = [sys.executable, "-m", "zignet", *map(str, args)]
    return subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=60, check=False)


class TestStatus:
    def test_text(self, config: Path, tmp_path: Path, node: Any) -> None:
        node.dns.shown["notes"] = ["/etc/resolv.conf was changed by [somebody] else\x1b[2J"]
        result = zignet(tmp_path, "-c", config, "dns", "status")
        assert (result.returncode, result.stderr) == (0, "")
        for text in (
            "127.0.0.1:53530, 100.64.0.1:53",
            "resolved: systemd-resolved governs",
            "video.example zignet",
        ):
            assert text in result.stdout
        assert "192.0.2.53" in result.stdout
        assert "3 of 65000" in result.stdout
        assert "5 fake, 2 zone, 40 forwarded" in result.stdout
        assert "note: /etc/resolv.conf was changed by [somebody] else?[2J" in result.stdout
        assert all(len(line) <= 100 for line in result.stdout.splitlines())

    def test_all_names(self, config: Path, tmp_path: Path, node: Any) -> None:
        node.dns.shown |= {"domains": ["."], "others": "refuse", "queries": {}, "cached": 1}
        shown = zignet(tmp_path, "-c", config, "dns", "status").stdout
        for text in ("all names", "refused", "none yet", "1 answer "):
            assert text in shown

    def test_json(self, config: Path, tmp_path: Path, node: Any) -> None:
        result = zignet(tmp_path, "-c", config, "dns", "status", "--json")
        assert json.loads(result.stdout) == node.dns.shown

    @pytest.mark.parametrize("command", ["status", "flush", "query a.example"])
    def test_without_dns(self, config: Path, tmp_path: Path, node: Any, command: str) -> None:
        node.dns = None
        result = zignet(tmp_path, "-c", config, "dns", *command.split())
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == (
            "zignet: this node answers no names: there is no `dns` in its configuration, or it is off\n"
        )

    @pytest.mark.parametrize("command", ["status", "flush", "query a.example"])
    def test_not_running(self, tmp_path: Path, command: str) -> None:
        path = tmp_path / "other.yaml"
        path.write_text(f"state_dir: {tmp_path / 'nowhere'}\n")
        result = zignet(tmp_path, "-c", path, "dns", *command.split())
        assert (result.returncode, result.stdout) == (4, "")
        assert "is not running" in result.stderr

    def test_a_node_that_died(self, tmp_path: Path) -> None:
        path = tmp_path / "other.yaml"
        path.write_text(f"state_dir: {tmp_path}\n")
        (tmp_path / "names.journal").write_text("{}")
        result = zignet(tmp_path, "-c", path, "dns", "status")
        assert result.returncode == 4
        assert "still led to it: `zignet dns restore`" in result.stderr

    def test_flush(self, config: Path, tmp_path: Path, node: Any) -> None:
        result = zignet(tmp_path, "-c", config, "dns", "flush")
        assert (result.returncode, result.stdout) == (0, "12 answers forgotten.\n")
        assert node.dns.flushed == 1


class TestQuery:
    @pytest.fixture(autouse=True)
    def prepare(self, config: Path, tmp_path: Path, node: Any, zone: tuple[Zone, str]) -> None:
        self.node, self.home, self.config = node, tmp_path, config
        self.zone, self.where = zone
        node.dns.shown["listen"] = [self.where]

    def query(self, *args: str) -> subprocess.CompletedProcess[str]:
        return zignet(self.home, "-c", self.config, "dns", "query", *args)

    def test_both_families_and_why(self) -> None:
        result = self.query("WWW.video.example")
        assert (result.returncode, result.stderr) == (0, "")
        lines = result.stdout.splitlines()
        assert lines[0] == "www.video.example.  1  A  198.19.0.7"
        assert lines[1].startswith("; A: NOERROR, ")
        assert lines[1].endswith(f"ms from {self.where}; fake: rule zignet.yaml:9 *.video.example -> peer_us")
        assert lines[2] == "www.video.example.  1  AAAA  2001:2::7"
        assert self.node.dns.asked == [("www.video.example", "A"), ("www.video.example", "AAAA")]

    def test_json(self) -> None:
        (answer,) = json.loads(self.query("www.video.example", "a", "--json").stdout)["answers"]
        assert answer["took_s"] > 0
        assert {key: answer[key] for key in answer if key != "took_s"} == {
            "name": "www.video.example",
            "type": "A",
            "rcode": "NOERROR",
            "records": [{"name": "www.video.example.", "ttl": 1, "kind": "A", "data": "198.19.0.7"}],
            "server": self.where,
            "tcp": False,
            "source": "fake",
            "why": "rule zignet.yaml:9 *.video.example -> peer_us",
        }

    def test_an_address(self) -> None:
        assert "1  PTR  www.video.example." in self.query("198.19.0.7").stdout

    def test_no_such_name_and_no_such_record(self) -> None:
        result = self.query("nobody.zignet", "A")
        assert result.returncode == 1
        assert "NXDOMAIN (no such name)" in result.stdout
        result = self.query("www.video.example", "HTTPS")
        assert result.returncode == 0
        assert "NOERROR (no record of this type)" in result.stdout
        result = self.query("broken.example", "A")
        assert result.returncode == 1
        assert "SERVFAIL (failed)" in result.stdout

    def test_an_answer_without_a_reason(self) -> None:
        result = self.query("unknown.example", "A")
        assert result.stdout.endswith(f"from {self.where}\n")

    def test_truncated(self) -> None:
        result = self.query("big.example", "A")
        assert result.stdout.count("  9  A  192.0.2.") == 100
        assert "over TCP" in result.stdout
        assert self.zone.seen == ["udp big.example.", "tcp big.example."]
        assert "over TCP" in self.query("www.video.example", "A", "--tcp").stdout

    def test_nothing_steers_the_terminal(self) -> None:
        shown = self.query("odd.example", "TXT").stdout
        assert "TXT" in shown
        assert "\x1b" not in shown

    def test_another_server(self, tmp_path: Path) -> None:
        """Without a node."""
        result = zignet(tmp_path, "dns", "query", "www.video.example", "A", "--server", self.where)
        assert (result.returncode, result.stderr) == (0, "")
        assert "198.19.0.7" in result.stdout

    @pytest.mark.parametrize(
        "wrong",
        [
            ["a..example"],
            ["x" * 64],
            ["a.example", "NONSENSE"],
            ["a.example", "TYPE65536"],
            ["a.example", "-s", "dns.example"],
            ["a.example", "-s", "192.0.2.1:0"],
            [],
        ],
    )
    def test_usage(self, wrong: list[str]) -> None:
        result = self.query(*wrong)
        assert (result.returncode, result.stdout) == (2, "")
        assert "Traceback" not in result.stderr

    def test_nobody_there(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        result = self.query("a.example", "A", "-s", f"127.0.0.1:{port}")
        assert (result.returncode, result.stdout) == (1, "")
        assert "can't be asked: Connection refused" in result.stderr

    @pytest.mark.parametrize(
        "answer",
        [
            b"\x80\x00" + bytes(8),
            b"\x80\x00\x00\x01\x00\x01\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01",  # a name that points at itself
            b"\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x00\x00\x01\x00\x01",  # another question
            b"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07example\x00\x00\x01\x00\x01",  # no answer
            b"\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff" + b"\xff" * 300,
        ],
    )
    def test_what_is_no_answer(self, answer: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(60)

            def serve() -> None:
                query, whence = sock.recvfrom(4096)
                sock.sendto(b"x", whence)  # too short for anything: passed over
                sock.sendto(query[:2] + answer, whence)

            thread = threading.Thread(target=serve)
            thread.start()
            result = self.query("a.example", "A", "-s", f"127.0.0.1:{sock.getsockname()[1]}")
            thread.join()
        assert (result.returncode, result.stdout) == (1, "")
        assert "the server" in result.stderr
        assert "bug" not in result.stderr


class TestParse:
    def test_types(self) -> None:
        assert parse("a.example.", None) == (Query("a.example", "A", 1), Query("a.example", "AAAA", 28))
        assert parse("a.example", "type65280") == (Query("a.example", "TYPE65280", 65280),)
        assert parse("2001:db8::1", None)[0].name.endswith(".8.b.d.0.1.0.0.2.ip6.arpa")
        assert parse("bücher.example", "A")[0].name == "xn--bcher-kva.example"
        assert parse("_dns.resolver.arpa", "SRV")[0].code == 33

    @pytest.mark.parametrize("name", ["", ".", "a" * 64, ".".join(["abc"] * 70), "ü" * 64])
    def test_names_that_are_none(self, name: str) -> None:
        with pytest.raises(Fault):
            parse(name, "A")


class TestRestore:
    def test_nothing_to_do(self, tmp_path: Path) -> None:
        path = tmp_path / "other.yaml"
        path.write_text(f"state_dir: {tmp_path}\n")
        result = zignet(tmp_path, "-c", path, "dns", "restore")
        assert result.returncode == 0
        assert "nothing to put back" in result.stdout

    def test_a_running_node(self, config: Path, tmp_path: Path) -> None:
        result = zignet(tmp_path, "-c", config, "dns", "restore")
        assert (result.returncode, result.stdout) == (1, "")
        assert "--force" in result.stderr
        assert zignet(tmp_path, "-c", config, "dns", "restore", "--force").returncode == 0

    def test_a_damaged_journal(self, tmp_path: Path) -> None:
        path = tmp_path / "other.yaml"
        path.write_text(f"state_dir: {tmp_path}\n")
        (tmp_path / "names.journal").write_text('{"version": 1, "mech')
        (tmp_path / "names.journal").chmod(0o600)
        result = zignet(tmp_path, "-c", path, "dns", "restore")
        assert (result.returncode, result.stdout) == (1, "")
        assert "is damaged (it is cut off, or no JSON)" in result.stderr
        assert (tmp_path / "names.journal").exists()

    @pytest.mark.root
    def test_what_was_left_and_who_may(self, tmp_path: Path) -> None:
        """On a private /etc: as a user that may not, then as root, with a file that somebody has changed since."""
        etc, state_dir = tmp_path / "etc", tmp_path / "state"
        etc.mkdir()
        for name in ("passwd", "group", "nsswitch.conf"):
            (etc / name).write_bytes(Path("/etc", name).read_bytes())
        (etc / "resolv.conf").write_text("nameserver 192.0.2.53\n")
        program = "\n".join(
            (
                "import os, sys",
                "from ipaddress import ip_address",
                "from pathlib import Path",
                "from zignet.system.names import *",
                "os.environ['PATH'] = ''",
                "wanted = Wanted('zig0', 0, (Server(ip_address('100.64.0.1')),), ('zignet',), Mode.RESOLVCONF)",
                "integrate(wanted, Path(sys.argv[1]))",
            )
        )
        (tmp_path / "my.yaml").write_text(f"state_dir: {state_dir}\n")

        def inside(namespace: Namespace, *command: object) -> subprocess.CompletedProcess[str]:
            env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
            return namespace.run([sys.executable, *map(str, command)], env=env, cwd=ROOT)

        restore = ("-m", "zignet", "-c", tmp_path / "my.yaml", "dns", "restore")
        with Namespace("dns") as namespace:
            namespace.call(mount, etc, "/etc")
            assert inside(namespace, "-c", program, state_dir).stderr == ""
            assert "nameserver 100.64.0.1" in (etc / "resolv.conf").read_text()
            os.seteuid(4)
            try:
                with pytest.raises(Fault, match="only root may") as raised:
                    put_back(state_dir, True)
            finally:
                os.seteuid(0)
            assert raised.value.code == ExitCode.PRIVILEGES
            (etc / "resolv.conf").write_text("nameserver 203.0.113.7\n")
            result = inside(namespace, *restore, "--json")
            assert result.returncode == 1
            answer = json.loads(result.stdout)
            assert answer["done"] == []
            assert "Before ZigNet it was a file that named 192.0.2.53" in answer["left"][0]
            assert inside(namespace, "-c", program, state_dir).stderr == ""
            result = inside(namespace, *restore)
            assert (result.returncode, result.stdout) == (0, "/etc/resolv.conf put back\n")
            assert (etc / "resolv.conf").read_text() == "nameserver 203.0.113.7\n"


class TestCompletion:
    def complete(self, home: Path, line: str) -> list[str]:
        env = {"_ZIGNET_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        return zignet(home, **env).stdout.split()

    def test_words(self, tmp_path: Path) -> None:
        assert self.complete(tmp_path, "zignet dn") == ["dns"]
        assert self.complete(tmp_path, "zignet dns re") == ["restore"]
        assert self.complete(tmp_path, "zignet dns query ad") == ["admin.zignet"]
        assert self.complete(tmp_path, "zignet dns query x.example AA") == ["AAAA"]


@pytest.mark.parametrize("tcp", [False, True])
def test_a_server_that_keeps_on_talking_is_left(tcp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Junk, or one byte at a time, forever: the patience is for all of it."""
    monkeypatch.setattr(dns_query, "_PATIENCE_S", 0.4)
    stopped = threading.Event()
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    if tcp:
        sock.listen()

    def talk() -> None:
        if tcp:
            end, _ = sock.accept()
            send = end.send
        else:
            _, peer = sock.recvfrom(512)
            send = functools.partial(lambda where, data: sock.sendto(data, where), peer)
        with contextlib.suppress(OSError):
            while not stopped.wait(0.02):
                send(b"\x7f")

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    (query,) = dns_query.parse("www.video.example", "A")
    with pytest.raises(Fault, match="did not answer"):
        dns_query.ask(query, sock.getsockname(), tcp)
    stopped.set()
    thread.join()
    sock.close()
