"""Our resolv.conf, and what it says of the one before."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as some

from zignet.system.names.resolv_conf import Before, before_ours, compose, is_ours, nameservers, owner_of
from zignet.system.names.wanted import Server

SERVER = Server(ip_address("100.64.0.1"))


def test_what_is_kept() -> None:
    old = b"# x\nnameserver 192.0.2.53\nsearch a.example b.example\n\toptions ndots:2\nsortlist 1.2.3.4\nnonsense\n"
    lines = compose(SERVER, old, None, "/var/lib/zignet").decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "nameserver 100.64.0.1",
        "search a.example b.example",
        "\toptions ndots:2",
        "sortlist 1.2.3.4",
    ]


def test_servers() -> None:
    text = b"nameserver 192.0.2.53\n nameserver\t2001:db8::1 \nnameserver x\nnameserver\n#nameserver 1.2.3.4\n;\n"
    assert nameservers(text) == (ip_address("192.0.2.53"), ip_address("2001:db8::1"))
    assert nameservers(b"nameserver fe80::1%eth0\n") == (ip_address("fe80::1%eth0"),)
    assert nameservers(b"\xff\xfe nameserver \x80\nnameserver \xff\n") == ()


def test_a_link() -> None:
    made = compose(SERVER, b"nameserver 127.0.0.53\n", "../run/systemd/resolve/stub-resolv.conf", "/s")
    assert before_ours(made) == Before(target="../run/systemd/resolve/stub-resolv.conf")
    assert owner_of(made) == "/s"


@given(some.binary(max_size=300), some.sampled_from([b"", b"\n"]))
def test_the_earlier_file_is_in_it(content: bytes, end: bytes) -> None:
    made = compose(SERVER, content + end, None, "/state")
    assert is_ours(made)
    found = before_ours(made)
    assert (found.content if found else b"") == content + end
    assert nameservers(made)[0] == SERVER.address
    assert len(nameservers(made)) == 1


def test_there_was_nothing() -> None:
    made = compose(SERVER, b"", None, "/state")
    assert before_ours(made) == Before()


def test_strangers_files_are_not_ours() -> None:
    assert before_ours(b"nameserver 192.0.2.1\n#was nameserver 192.0.2.53\n") is None
    assert owner_of(b"") == ""
