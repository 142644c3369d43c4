"""Contacts: their parts, links, lists as text, and the file."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zignet.contacts import (
    NAME,
    Contact,
    ContactError,
    Store,
    Unreadable,
    dump,
    format_link,
    parse,
    parse_link,
    read,
)
from zignet.contacts.contact import MOST_NOTE, MOST_TAGS
from zignet.identity import PublicKey, SecretKey

ALICE, BOB, CAROL = (SecretKey(bytes((seed,)) * 32).public for seed in (1, 2, 3))
NEGATED = PublicKey.from_bytes(ALICE.ed[:31] + bytes((ALICE.ed[31] ^ 0x80,)))


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path, wall=lambda: 1_800_000_000.5)
    yield made
    made.close()


class TestContact:
    def test_tags_are_folded_and_each_is_there_once(self):
        assert Contact("alice", ALICE, tags=("Work", "friend", "work")).tags == ("friend", "work")

    @pytest.mark.parametrize(
        "wrong",
        [
            {"name": ""},
            {"name": "a b"},
            {"name": "admin"},
            {"name": "a." * 5},
            {"name": ALICE.name},
            {"name": "x" * 64},
            {"note": "x" * (MOST_NOTE + 1)},
            {"note": "\x1b[31m"},
            {"tags": ("a b",)},
            {"tags": ("",)},
            {"tags": tuple(f"t{number}" for number in range(MOST_TAGS + 1))},
        ],
    )
    def test_what_is_wrong_is_said(self, wrong):
        with pytest.raises(ContactError, match=r"\.$"):
            Contact(**{"name": "alice", "key": ALICE, **wrong})


class TestLink:
    def test_round_trip(self):
        link = format_link(ALICE, "alice")
        assert link == f"zignet:{ALICE.name}?name=alice"
        assert parse_link(link) == (ALICE, "alice")
        assert parse_link(format_link(ALICE)) == (ALICE, "")

    @pytest.mark.parametrize(
        "text",
        [
            f"ZIGNET:{ALICE.name.upper()}?NAME=alice",
            f"  zignet:{ALICE.base58}?name=alice\n",
            f"zignet://{ALICE.name}/?name=alice&via=somebody#later",
            f"zignet:{ALICE.name}?via=x&name=alice&name=mallory",
            f"zignet:{ALICE.name}?name=%61lice",
        ],
    )
    def test_other_forms(self, text):
        assert parse_link(text) == (ALICE, "alice")

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "zignet:",
            "https://example.com",
            f"zignet:{ALICE.name[:-1]}",
            f"zignet:{ALICE.name}?name=a%20b",
            f"zignet:{ALICE.name}?name=admin",
            f"zignet:{ALICE.name}?x=" + "y" * 2_000,
        ],
    )
    def test_what_is_no_link(self, text):
        with pytest.raises(ContactError):
            parse_link(text)

    @given(st.text(max_size=100))
    def test_any_text_is_a_link_or_an_error(self, text):
        for link in (text, f"zignet:{text}", f"zignet:{ALICE.name}?{text}"):
            try:
                key, name = parse_link(link)
            except ContactError:
                continue
            assert isinstance(key, PublicKey)
            assert len(name) <= 63


class TestText:
    def test_round_trip(self):
        contacts = [Contact("alice", ALICE, "met in\nBerlin – 2026", ("friend",)), Contact("bob", BOB)]
        assert parse(dump(contacts)) == contacts
        assert parse(json.dumps(json.loads(dump(contacts))["contacts"])) == contacts

    def test_lines(self):
        text = (
            "\N{BYTE ORDER MARK}# friends\r\n\r\n"
            f"alice {ALICE.hex}  192.0.2.1:51830 # as in a file of peers\r\n"
            f"{format_link(BOB, 'bob')}\n"
            f"carol\n"
            f"dave {ALICE.name[:-1]}\n"
            f"{format_link(CAROL)}\n"
        )
        found = parse(text)
        assert found[:2] == [Contact("alice", ALICE), Contact("bob", BOB)]
        assert [(bad.place, bad.why.split()[0]) for bad in found[2:]] == [
            ("line 5", "Expected"),
            ("line 6", f'"{ALICE.name[:-1]}"'),
            ("line 7", "The"),
        ]

    @pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"contacts": 1}', "{}"])
    def test_json_that_is_none(self, text):
        with pytest.raises(ContactError):
            parse(text)

    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
    def test_any_entry_is_a_contact_or_told(self, value):
        good = {"name": "alice", "key": ALICE.name, "note": "", "tags": []}
        for word in good:
            (found,) = parse(json.dumps([{**good, word: value}]))
            assert isinstance(found, Contact | Unreadable)
        assert all(isinstance(found, Unreadable) for found in parse(json.dumps([value])))

    @given(st.text(max_size=200))
    def test_any_text_is_read_or_an_error(self, text):
        try:
            found = parse(text)
        except ContactError:
            return
        assert all(isinstance(entry, Contact | Unreadable) for entry in found)


class TestStore:
    def test_kept(self, store, tmp_path):
        store.add(Contact("Bob", BOB, "note", ("a", "b")))
        store.add(Contact("alice", ALICE))
        store.close()
        again = Store(tmp_path)
        assert list(again) == [
            Contact("alice", ALICE, added=1_800_000_000),
            Contact("Bob", BOB, "note", ("a", "b"), 1_800_000_000),
        ]
        assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o640
        again.close()

    def test_the_nodes_group_may_read_it_whatever_the_umask(self, tmp_path):
        before = os.umask(0o077)
        try:
            Store(tmp_path).close()
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o640

    def test_found_by_name_and_by_key_in_any_form(self, store):
        alice = store.add(Contact("Alice", ALICE))
        for text in ("Alice", "aLICE", ALICE.name, ALICE.base58, ALICE.hex, NEGATED.hex):
            assert store.find(text) == alice
        assert store.find("bob") is None
        assert store.find(BOB.name) is None

    @pytest.mark.parametrize("other", [("ALICE", BOB), ("alice", ALICE), ("bob", ALICE), ("bob", NEGATED)])
    def test_names_and_keys_are_there_once(self, store, other):
        store.add(Contact("alice", ALICE))
        with pytest.raises(ContactError, match=r"already|another contact"):
            store.add(Contact(*other))
        assert len(list(store)) == 1

    def test_changed_and_removed(self, store):
        store.add(Contact("alice", ALICE, "x", ("a",)))
        store.add(Contact("bob", BOB))
        assert store.change("alice", to="Alice").name == "Alice"
        assert store.change(ALICE.name, note="y", tags=("b",)).tags == ("b",)
        with pytest.raises(ContactError, match='"bob", with the key'):
            store.change("alice", to="bob")
        assert store.find("alice") == Contact("Alice", ALICE, "y", ("b",), 1_800_000_000)
        assert store.remove("ALICE").key == ALICE
        for act in (store.remove, lambda name: store.change(name, to="x")):
            with pytest.raises(ContactError, match="There is no contact"):
                act("alice")
        assert [contact.name for contact in store] == ["bob"]

    def test_two_processes(self, store, tmp_path):
        other = Store(tmp_path)
        before = store.version()
        assert store.version() == before
        other.add(Contact("alice", ALICE))
        assert store.version() != before
        assert store.find("alice") is not None
        own = store.version()
        store.remove("alice")
        assert store.version() == own  # only others' writing counts
        other.close()

    def test_many_at_once(self, store, tmp_path):
        keys = [SecretKey(bytes((seed,)) * 32).public for seed in range(100, 140)]

        def add(some):
            mine = Store(tmp_path)
            for key in some:
                mine.add(Contact(f"n{key.hex[:8]}", key))
            mine.close()

        threads = [threading.Thread(target=add, args=(keys[at::4],)) for at in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {contact.key for contact in store} == set(keys)

    def test_another_program_s_file(self, tmp_path):
        with sqlite3.connect(tmp_path / NAME) as db:
            db.execute("CREATE TABLE x (y)")
        with pytest.raises(ContactError, match="another program's"):
            Store(tmp_path)

    def test_a_later_version_s_file(self, store, tmp_path):
        store._db.execute("PRAGMA user_version = 9")
        with pytest.raises(ContactError, match="later version"):
            Store(tmp_path)

    def test_a_damaged_file_is_left_alone(self, tmp_path):
        (tmp_path / NAME).write_bytes(b"not a database" * 100)
        with pytest.raises(ContactError, match="damaged"):
            Store(tmp_path)
        assert (tmp_path / NAME).read_bytes() == b"not a database" * 100

    def test_a_row_that_somebody_else_has_written(self, store):
        store.add(Contact("alice", ALICE))
        store._db.execute("INSERT INTO contacts VALUES ('a b', x'00', x'00', '', '', 0)")
        assert [contact.name for contact in store] == ["alice"]

    def test_a_link_to_elsewhere(self, tmp_path):
        (tmp_path / NAME).symlink_to("/etc/hostname")
        with pytest.raises(ContactError, match="is not a file"):
            Store(tmp_path)

    def test_read_without_writing(self, store, tmp_path):
        assert read(tmp_path / "none") == ()
        store.add(Contact("bob", BOB, tags=("friend",)))
        store._db.execute("INSERT INTO contacts VALUES ('a b', x'00', x'00', '', 7, 0)")
        assert [(contact.name, contact.tags) for contact in read(tmp_path)] == [("bob", ("friend",))]
        (tmp_path / NAME).write_bytes(b"x" * 5_000)
        with pytest.raises(ContactError, match="not a database"):
            read(tmp_path)

    def test_a_directory_that_is_not_there(self, tmp_path: Path):
        with pytest.raises(ContactError, match="No such file"):
            Store(tmp_path / "none")
