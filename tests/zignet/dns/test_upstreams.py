"""Which name servers are asked."""

import os

import pytest

from zignet.dns.upstreams import Upstreams, parse_resolv_conf


def test_resolv_conf():
    text = """# a comment
    nameserver 192.0.2.1
    nameserver 2001:db8::1
    nameserver fe80::1%eth0
    nameserver 192.0.2.1
    nameserver nonsense
    nameserver
    search example
    options edns0
    """
    assert parse_resolv_conf(text) == ["192.0.2.1", "2001:db8::1", "fe80::1%eth0"]


class Files:
    def __init__(self, folder):
        self.resolv_conf = folder / "resolv.conf"
        self.resolved = folder / "resolved.conf"
        self.notes = []
        self.now = 0.0
        self.upstreams = Upstreams(
            own=("100.64.0.1",), note=self.notes.append, resolv_conf=self.resolv_conf, resolved=self.resolved
        )

    def servers(self):
        self.now += 2
        return [host for host, _ in self.upstreams.servers(self.now)]


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def test_a_change_of_the_file_is_seen(files):
    assert files.servers() == []
    files.resolv_conf.write_text("nameserver 192.0.2.1\n")
    assert files.servers() == ["192.0.2.1"]
    files.resolv_conf.write_text("nameserver 192.0.2.22\nnameserver 2001:db8::1\n")
    assert files.servers() == ["192.0.2.22", "2001:db8::1"]
    files.resolv_conf.unlink()
    assert files.servers() == []
    assert len(files.notes) == 2


def test_it_is_not_looked_at_for_each_query(files):
    files.resolv_conf.write_text("nameserver 192.0.2.1\n")
    assert files.upstreams.servers(100.0)
    os.unlink(files.resolv_conf)
    assert files.upstreams.servers(100.5)
    assert not files.upstreams.servers(101.5)


def test_the_servers_behind_the_stub_are_asked(files):
    files.resolv_conf.write_text("nameserver 127.0.0.53\noptions edns0 trust-ad\n")
    assert files.servers() == ["127.0.0.53"]  # there are none: it has to do
    files.resolved.write_text("nameserver 192.0.2.1\nnameserver 100.64.0.1\n")
    assert files.servers() == ["192.0.2.1"]


def test_a_file_that_names_only_us_changes_nothing(files):
    files.resolv_conf.write_text("nameserver 192.0.2.1\n")
    assert files.servers() == ["192.0.2.1"]
    files.resolv_conf.write_text("nameserver 100.64.0.1\n")
    assert files.servers() == ["192.0.2.1"]
    files.resolv_conf.write_text("nameserver 100.64.0.1\nnameserver 192.0.2.3\n")
    assert files.servers() == ["192.0.2.3"]


def test_what_is_given_holds(files):
    files.resolv_conf.write_text("nameserver 192.0.2.1\n")
    files.upstreams.use([("192.0.2.9", 5300)])
    assert files.upstreams.servers(9.0) == (("192.0.2.9", 5300),)
    files.upstreams.use([])
    assert files.servers() == ["192.0.2.1"]


def test_when_the_file_leads_to_us_those_that_were_there_before_are_asked(tmp_path):
    """As after a start: the file was read before, or only names us already."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 100.64.0.1\n")
    upstreams = Upstreams(own=["100.64.0.1"], resolv_conf=path, resolved=tmp_path / "none")
    assert upstreams.servers(0.0) == ()
    upstreams.stand_in(["192.0.2.53", "127.0.0.53", "100.64.0.1"])
    assert upstreams.servers(0.1) == (("192.0.2.53", 53),)
    path.write_text("nameserver 192.0.2.99\n")  # somebody has changed it
    assert upstreams.servers(2.0) == (("192.0.2.99", 53),)


def test_a_file_that_somebody_keeps_up_to_date(tmp_path):
    path, live = tmp_path / "resolv.conf", tmp_path / "live"
    path.write_text("nameserver 100.64.0.1\n")
    live.write_text("nameserver 192.0.2.1\n")
    upstreams = Upstreams(own=["100.64.0.1"], resolv_conf=path, resolved=tmp_path / "none")
    upstreams.stand_in([], str(live))
    assert upstreams.servers(0.0) == (("192.0.2.1", 53),)
    live.write_text("nameserver 192.0.2.2\n")
    assert upstreams.servers(2.0) == (("192.0.2.2", 53),)
