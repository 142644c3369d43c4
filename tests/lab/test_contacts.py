"""Contacts at real nodes: what is published to them, what they are told of, and what becomes of one that is removed."""

import json
import signal
import socket
import subprocess

import pytest

from tests.lab.peers import ECHO, HTTP, SSH, eventually, ping, servers
from tests.lab.test_services import dial, error_of, listening, refused
from zignet.contacts import Contact, Store
from zignet.lab.hosts import Hosts

pytestmark = pytest.mark.root

WEB = {"name": "site", "proto": "tcp", "port": HTTP}
FILES = {"name": "files", "proto": "tcp", "port": ECHO, "to": ["tag:friend"]}
DNS = {"listen": ["127.0.0.1:53530"]}


@pytest.fixture
def net():
    """`host` has no peers at all, and publishes to its contacts; the others know where it is."""
    with Hosts("friend", "other", "host") as hosts:
        for name in ("friend", "other"):
            others = [peer for peer in hosts.config(name)["peers"] if peer["name"] == "host"]
            hosts.start(name, peers=others, inbound={})
        hosts.start("host", peers=[], inbound={}, publish=[WEB, FILES], dns=DNS, admin={})
        with servers(hosts["host"]):
            yield hosts


def book(net):
    directory = net["host"].node.state_dir / "control"
    directory.mkdir(mode=0o700, exist_ok=True)
    return Store(directory)


def add(net, name, *tags):
    store = book(net)
    store.add(Contact(name, net[name].secret.public, tags=tags))
    store.close()


def reach(net, who, port):
    answer = dial(net, who, port, 4)
    if isinstance(answer, socket.socket):
        answer.close()
        return True
    assert refused(answer), answer
    return False


def test_from_stranger_to_contact_and_back(net):
    friend, host = net["friend"], net["host"]
    address = friend.inner(host)
    assert ping(friend, address) == 0
    add(net, "friend", "friend")
    with listening(net, HTTP), listening(net, SSH):
        eventually(lambda: error_of(lambda: dial(net, "friend", HTTP, 4).close()) is None, 30)
        assert reach(net, "friend", HTTP)
        assert reach(net, "friend", ECHO)
        assert not reach(net, "friend", SSH)
        assert ping(friend, address) == 0  # nothing but what is published
        # what it is told, and by which name it is known
        told = eventually(lambda: friend.peer(host)["services"])
        assert told == [
            {"name": "site", "proto": "tcp", "port": HTTP},
            {"name": "files", "proto": "tcp", "port": ECHO},
        ]
        row = host.peer(friend)
        assert (row["name"], row["contact"], row["configured"]) == ("friend", True, False)
        listed = host.node.ask("contacts", "list", "--json")["contacts"]
        assert [(one["name"], one["online"]) for one in listed] == [("friend", True)]
        asked = host.node.ask("dns", "query", "friend.zignet", "A", "--json")
        assert row["address"] in str(asked)
        # a contact without the tag
        add(net, "other")
        eventually(lambda: isinstance(dial(net, "other", HTTP, 4), socket.socket), 30)
        assert not reach(net, "other", ECHO)
        assert [one["name"] for one in eventually(lambda: net["other"].peer(host)["services"])] == ["site"]
        # and one that is none any more
        store = book(net)
        store.remove("friend")
        store.close()
        eventually(lambda: "is not admitted any more" in host.node.log(), 30)
        assert not isinstance(dial(net, "friend", HTTP, 4), socket.socket)
        assert reach(net, "other", HTTP)


def test_serve_and_curl(net):
    """A program on 127.0.0.1 alone, and a friend with curl; the Admin API has the same port for this host."""
    friend, host = net["friend"], net["host"]
    add(net, "friend", "friend")
    pages = host.directory / "pages"
    pages.mkdir()
    (pages / "index.html").write_text("hello from the host\n")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    web = host.namespace.popen(
        ["python3", "-m", "http.server", "--bind", "127.0.0.1", "--directory", pages, "3000"], **quiet
    )
    serving = host.namespace.popen(
        host.node.command("serve", "3000", "--to", "tag:friend"), stdout=subprocess.PIPE
    )
    try:
        assert b"is served to tag:friend as web" in serving.stdout.readline()
        for version in (4, 6):
            address = friend.inner(host, version)
            at = f"[{address}]" if version == 6 else address
            command = ["curl", "-sS", "-m", "20", f"http://{at}/"]
            page = eventually(lambda command=command: friend.namespace.run(command).stdout, 30)
            assert page == "hello from the host\n"
            own = host.node.ask("status", "--json")["identity"]["address6" if version == 6 else "address"]
            asked = host.namespace.run(
                ["curl", "-sS", "-m", "20", f"http://{f'[{own}]' if version == 6 else own}/api/whoami"]
            )
            assert json.loads(asked.stdout)["key"] == host.key
        assert [one["name"] for one in friend.peer(host)["services"]] == ["site", "files", "web"]
        serving.send_signal(signal.SIGINT)
        assert serving.wait(20) == 0
        assert refused(dial(net, "friend", 80, 4))
        assert [one["name"] for one in friend.peer(host)["services"]] == ["site", "files"]
    finally:
        for process in (serving, web):
            process.kill()
            process.wait()


def test_serve_that_is_killed_leaves_nothing(net):
    host = net["host"]
    add(net, "friend", "friend")
    serving = host.namespace.popen(host.node.command("serve", "3000"), stdout=subprocess.PIPE)
    assert b"is served to contacts" in serving.stdout.readline()
    eventually(lambda: isinstance(dial(net, "friend", 80, 4), socket.socket), 30)
    serving.kill()
    serving.wait()
    eventually(lambda: refused(dial(net, "friend", 80, 4)), 60)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["0"], '"0" is neither a port nor host:port'),
        (["localhost:"], "is neither a port nor host:port"),
        (["3000", "--name", "a b"], "is not a name for a service"),
        (["3000", "--name", "files", "--port", "81"], "is published by the configuration already"),
    ],
)
def test_serve_says_what_is_wrong(net, arguments, told):
    done = net["host"].namespace.run(net["host"].node.command("serve", *arguments))
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
