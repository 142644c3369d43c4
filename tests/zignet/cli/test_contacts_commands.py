"""`zignet contacts`, as processes."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from tests.zignet.cli.test_identity_commands import done, zignet
from zignet.contacts import format_link
from zignet.identity import SecretKey

ALICE, BOB = (SecretKey(bytes((seed,)) * 32).public for seed in (1, 2))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory with nothing in it, where commands run."""
    path = tmp_path / "home"
    path.mkdir()
    return path


def listed(home: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(done(home, "contacts", "list", "--json"))["contacts"]
    return found


def test_from_the_first_to_the_last(home: Path) -> None:
    assert "No contacts" in done(home, "contacts", "list")
    told = done(home, "contacts", "add", "Alice", ALICE.base58, "--tag", "friend", "--note", "Berlin")
    assert told == "Alice is a contact now, and reached as alice.zignet.\n"
    done(home, "contacts", "add", format_link(BOB, "bob"))
    assert [(one["name"], one["key"], one["tags"], one["online"]) for one in listed(home)] == [
        ("Alice", ALICE.name, ["friend"], None),
        ("bob", BOB.name, [], None),
    ]
    table = done(home, "contacts", "list", "--tag", "FRIEND")
    assert "Berlin" in table
    assert "bob" not in table
    done(home, "contacts", "rename", "alice", "al")
    done(home, "contacts", "edit", "AL", "--untag", "friend", "--tag", "work", "--note", "")
    assert listed(home)[0] | {"added": 0} == {
        "name": "al",
        "key": ALICE.name,
        "note": "",
        "tags": ["work"],
        "added": 0,
        "link": format_link(ALICE, "al"),
        "online": None,
        "last_seen": None,
        "address": None,
    }
    assert done(home, "contacts", "link", "al") == f"{format_link(ALICE, 'al')}\n"
    assert format_link(ALICE, "al") in done(home, "contacts", "remove", ALICE.name)
    assert [one["name"] for one in listed(home)] == ["bob"]


def test_out_and_in_again(home: Path) -> None:
    done(home, "contacts", "add", "alice", ALICE.name, "--tag", "friend")
    done(home, "contacts", "export", "friends.json")
    assert stat.S_IMODE(os.stat(home / "friends.json").st_mode) == 0o600
    again = zignet(home, "contacts", "export", "friends.json")
    assert (again.returncode, again.stderr) == (1, "zignet: friends.json: File exists\n")
    assert json.loads(done(home, "contacts", "export"))["contacts"][0]["tags"] == ["friend"]
    done(home, "contacts", "remove", "alice")
    assert done(home, "contacts", "import", "friends.json") == "1 added, 0 known already, 0 not taken.\n"
    assert done(home, "contacts", "import", "friends.json") == "0 added, 1 known already, 0 not taken.\n"
    lines = f"bob {BOB.hex}\nalice {BOB.hex}\nmallory\n"
    taken = zignet(home, "contacts", "import", "-", input=lines)
    assert taken.returncode == 1
    assert taken.stdout.splitlines()[0] == "1 added, 0 known already, 2 not taken."
    assert "line 3: Expected a name and a key." in taken.stdout
    assert 'alice: There is another contact of the name "alice"' in taken.stdout


def test_this_node_s_own_link(home: Path) -> None:
    done(home, "init")
    name = json.loads(done(home, "whoami", "--json"))["name"]
    assert done(home, "contacts", "link") == f"zignet:{name}\n"
    taken = zignet(home, "contacts", "import", "-", input=f"me {name}\nalice {ALICE}\n")
    assert taken.returncode == 1
    assert taken.stdout.startswith("1 added, 0 known already, 1 not taken.")
    assert "me: This key is this node's own" in taken.stdout
    assert done(home, "contacts", "rename", "alice", "al") == "alice is al now, and reached as al.zignet.\n"
    shown = done(home, "contacts", "link", "--name", "laptop", "--qr")
    assert shown.startswith(f"zignet:{name}?name=laptop\n\n")
    assert "█" in shown


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("add", "a b", ALICE.name), '"a b" is not a name'),
        (("add", "alice", ALICE.name[:-1]), ALICE.name[:-1]),
        (("add", "alice"), 'begins with "zignet:"'),
        (("add", format_link(ALICE)), "The link has no name"),
        (("remove", "nobody"), 'There is no contact "nobody"'),
        (("link", "nobody"), 'There is no contact "nobody"'),
        (("edit", "nobody"), "Say what to change"),
        (("import", "nothing.txt"), "nothing.txt can't be read"),
    ],
)
def test_a_mistake_is_one_line(home: Path, args: tuple[str, ...], told: str) -> None:
    result = zignet(home, "contacts", *args)
    assert result.returncode in (1, 2)
    assert told in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.root
def test_root_leaves_files_to_the_directory_s_owner(home: Path) -> None:
    folder = home / ".zignet" / "control"
    folder.mkdir(parents=True)
    os.chown(folder, 12345, 12345)
    done(home, "contacts", "add", "alice", ALICE.name)
    assert (folder / "contacts.db").stat().st_uid == 12345


def test_what_is_said_of_a_new_contact_is_true(home: Path) -> None:
    """The configuration's names and keys come first, and nobody is a contact of their own."""
    done(home, "init")
    (home / "zignet.yaml").write_text(f"peers: [{{name: Server, key: {ALICE.name}}}]\n")
    same_key = done(home, "contacts", "add", "alice", ALICE.name)
    assert same_key == (
        "alice is a contact now, and reached as server.zignet: the configuration names this key Server.\n"
    )
    same_name = done(home, "contacts", "add", "server", BOB.name)
    assert same_name.startswith("server is a contact now, and not reached: the configuration has the name")
    own = json.loads(done(home, "whoami", "--json"))["name"]
    result = zignet(home, "contacts", "add", "me", own)
    assert (result.returncode, result.stdout) == (1, "")
    assert "this node's own" in result.stderr


def test_a_name_in_a_link_cannot_steer_the_terminal(home: Path) -> None:
    result = zignet(home, "contacts", "add", f"zignet:{ALICE.name}?name=a%1b[31m")
    assert result.returncode == 1
    assert "\x1b" not in result.stderr
    assert '"a?[31m" is not a name' in result.stderr


def test_completion_knows_contacts(home: Path) -> None:
    (home / "zignet.yaml").write_text(f"peers: [{{name: alfred, key: {BOB.name}}}]\n")
    done(home, "contacts", "add", "alice", ALICE.name)
    for line, names in (
        ("zignet policy check al", ["alfred", "alice"]),
        ("zignet ping ali", ["alice"]),
        ("zignet contacts remove al", ["alice"]),
    ):
        env = {
            "_ZIGNET_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(line.count(" ")),
        }
        assert zignet(home, env=env).stdout.split() == names
