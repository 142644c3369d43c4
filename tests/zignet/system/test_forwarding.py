"""What a packet exit tells the system: the table, the switches, and the journal that puts them back."""

from __future__ import annotations

import json
import subprocess

import pytest

from zignet.lab.namespace import Namespace
from zignet.system.forwarding import ForwardingError, Wanted, begin, restore, switches, table
from zignet.system.forwarding.carry import _nft

WANTED = Wanted("zig0", ("100.64.0.1", "fd00::1"), ("100.64.0.0/10", "fd00::/49"), 0x7A67)
JOURNAL = "forwarding.journal"


def comments(commands, chain):
    return [
        each["add"]["rule"]["comment"]
        for each in commands["nftables"]
        if each.get("add", {}).get("rule", {}).get("chain") == chain
    ]


def test_the_table_replaces_itself():
    first, second, third, *_ = table.replace(WANTED, ())["nftables"]
    assert [*first, *second, *third] == ["add", "delete", "add"]
    assert table.name_of("zig-0.1") == "zignet_zig_0_1"


def test_transit_is_forbidden_first():
    """And what was not forwarded before is dropped, in the families that were switched on."""
    for closed in ((), (4,), (4, 6)):
        found = comments(table.replace(WANTED, closed), "forward")
        assert found[0] == "no transit from peer to peer"
        assert sum("not forwarded before" in comment for comment in found) == len(closed)


def test_only_a_global_proxy_marks():
    assert comments(table.replace(WANTED, ()), "output")
    without = Wanted(WANTED.device, WANTED.addresses, WANTED.peers)
    assert not comments(table.replace(without, ()), "output")


@pytest.mark.parametrize(
    ("path", "value", "known"),
    [
        ("ipv4/ip_forward", "0", True),
        ("ipv6/conf/all/forwarding", "1", True),
        ("ipv6/conf/eth0.7/accept_ra", "2", True),
        ("ipv4/conf/eth0/rp_filter", "0", False),
        ("ipv4/ip_forward", "7", False),
        ("ipv4/conf/../forwarding", "0", False),
        ("ipv4/conf/a/b/forwarding", "0", False),
        ("../../kernel/core_pattern", "0", False),
    ],
)
def test_what_a_journal_may_name(path, value, known):
    assert switches.is_known(path, value) is known


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version": 2, "device": "zig0", "before": {}}',
        '{"version": 1, "device": 7, "before": {}}',
        '{"version": 1, "device": "zig0", "before": {"../../kernel/core_pattern": "0"}}',
        '{"version": 1, "device": "zig0", "before": {"ipv4/ip_forward": "|sh"}}',
    ],
)
def test_a_damaged_journal_changes_nothing(tmp_path, text):
    (tmp_path / JOURNAL).write_text(text)
    with pytest.raises(ForwardingError, match="does not say how"):
        restore(tmp_path)
    assert (tmp_path / JOURNAL).read_text() == text


def test_somebody_elses_journal(tmp_path):
    (tmp_path / JOURNAL).write_text("{}")
    (tmp_path / JOURNAL).chmod(0o666)
    with pytest.raises(ForwardingError, match="could have been written by somebody else"):
        restore(tmp_path)


def test_without_a_journal_there_is_nothing_to_do(tmp_path):
    assert restore(tmp_path / "no such") == []


@pytest.mark.root
class TestReal:
    """In a namespace of its own."""

    @pytest.fixture
    def space(self):
        with Namespace("forwarding") as made:
            yield made

    def state(self, space):
        def look():
            found = {path: switches._read(path) for path in switches.noted((4, 6))}
            return found, subprocess.run(["nft", "list", "tables"], capture_output=True, check=True).stdout

        return space.call(look)

    def test_there_and_back(self, space, tmp_path):
        space.sysctl("net.ipv4.conf.lo.forwarding", 1)  # one that was set by itself
        space.sysctl("net.ipv6.conf.lo.accept_ra", 1)
        before = self.state(space)
        space.call(begin, tmp_path, WANTED)
        settings, tables = self.state(space)
        assert settings["ipv4/ip_forward"] == settings["ipv6/conf/all/forwarding"] == "1"
        assert settings["ipv6/conf/lo/accept_ra"] == "2"
        assert b"zignet_zig0" in tables
        assert (tmp_path / JOURNAL).stat().st_mode & 0o777 == 0o600
        assert space.call(restore, tmp_path) == []
        assert self.state(space) == before
        assert list(tmp_path.iterdir()) == []

    def test_what_somebody_has_changed_meanwhile_stays(self, space, tmp_path):
        space.call(begin, tmp_path, WANTED)
        space.sysctl("net.ipv4.ip_forward", 0)
        space.sysctl("net.ipv4.conf.lo.forwarding", 1)
        assert space.call(restore, tmp_path) == []
        settings, _ = self.state(space)
        assert (settings["ipv4/conf/lo/forwarding"], settings["ipv6/conf/all/forwarding"]) == ("1", "0")

    def test_twice_is_once(self, space, tmp_path):
        """A second one after a killed one, which `up` has restored first, is the same again."""
        space.call(begin, tmp_path, WANTED)
        space.call(restore, tmp_path)
        space.call(begin, tmp_path, WANTED)
        assert self.state(space)[1].count(b"zignet_zig0") == 1
        assert len(json.loads((tmp_path / JOURNAL).read_text())["before"]) > 4

    def test_rules_that_are_not_taken(self, space, tmp_path):
        """Nothing of it stays."""
        before = self.state(space)
        wrong = Wanted("a-name-that-no-interface-has", (), ("100.64.0.0/10",))
        with pytest.raises(ForwardingError, match="did not take the rules"):
            space.call(begin, tmp_path, wrong)
        assert self.state(space) == before
        assert list(tmp_path.iterdir()) == []

    def test_without_nft(self, space, monkeypatch):
        monkeypatch.setattr("shutil.which", lambda *args, **kwargs: None)
        with pytest.raises(ForwardingError, match="install nftables"):
            space.call(_nft, table.delete("zig0"))
