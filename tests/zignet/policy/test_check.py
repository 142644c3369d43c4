"""The whole of a decision, and the command that shows it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.zignet.policy.keys import KEYS, negation
from zignet.cli.app import run
from zignet.config import parse_config
from zignet.contacts import Contact, Store
from zignet.policy.build import make_judge
from zignet.policy.check import check, patient

PEER, DENIED, ALLOWED, LISTED, STRANGER, CONTACT = KEYS[:6]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration with everything in it."""
    (tmp_path / "listed.txt").write_text(f"{LISTED} friend\nnonsense\n")
    (tmp_path / "admins.txt").write_text(f"{LISTED.base58}\n")
    script = tmp_path / "verify.sh"
    script.write_text("#!/bin/sh\necho 'not paid'\nexit 1\n")
    script.chmod(0o755)
    found = tmp_path / "zignet.yaml"
    (tmp_path / "state" / "control").mkdir(parents=True)
    store = Store(tmp_path / "state" / "control")
    store.add(Contact("bob", CONTACT))
    store.close()
    found.write_text(f"""
state_dir: state
peers: [{{name: laptop, key: {PEER}}}]
inbound:
  deny: [{DENIED}]
  allow: [{ALLOWED}]
  policies:
    - {{type: file, path: listed.txt}}
    - {{type: script, command: ./verify.sh, timeout: 30s, optimistic: yes}}
  services:
    - {{proto: tcp, port: 22, allow: [laptop, "file:admins.txt"]}}
    - {{proto: tcp, port: 23, allow: ["file:none.txt"]}}
    - {{proto: icmp}}
""")
    return found


def ask(file: Path, key, service=None):
    config = parse_config(file.read_text(), file)

    async def scene():
        judge = make_judge(patient(config.inbound), time.monotonic) if config.inbound.policies else None
        try:
            return await check(config, judge, key, service, {CONTACT: "bob"})
        finally:
            if judge is not None:
                await judge.close()

    return asyncio.run(scene())


@pytest.mark.parametrize(
    ("key", "allowed", "decided_by", "said"),
    [
        (DENIED, False, "inbound.deny", "m-----"),
        (negation(DENIED), False, "inbound.deny", "m-----"),
        (PEER, True, "peers", "nm----"),
        (CONTACT, True, "contacts", "nnm---"),
        (ALLOWED, True, "inbound.allow", "nnnm--"),
        (LISTED, True, "inbound.policies[0]", "nnnnm-"),
        (STRANGER, False, "inbound.default_action", "nnnnnn"),
    ],
)
def test_the_order(file: Path, key, allowed: bool, decided_by: str, said: str):
    found = ask(file, key)
    assert (found["allowed"], found["decided_by"], found["failed"]) == (allowed, decided_by, False)
    letters = {"match": "m", "no match": "n", "not asked": "-"}
    rules = [step["rule"] for step in found["steps"]]
    assert rules == [
        "inbound.deny",
        "peers",
        "contacts",
        "inbound.allow",
        "inbound.policies[0]",
        "inbound.policies[1]",
        "inbound.default_action",
    ]
    assert "".join(letters[step["said"]] for step in found["steps"])[:6] == said
    assert (found["steps"][6]["said"] == "match") is (key == STRANGER)
    assert found["peer"] == {PEER: "laptop", CONTACT: "bob"}.get(key)
    assert (found["valid_s"] is None) is (key not in (LISTED, STRANGER))


def test_what_is_optimistic_is_waited_for(file: Path):
    assert ask(file, STRANGER)["steps"][5]["reason"] == "not paid"


def test_a_failure_decides(file: Path):
    (file.parent / "listed.txt").unlink()
    found = ask(file, LISTED)
    assert (found["allowed"], found["failed"], found["decided_by"]) == (False, True, "inbound.policies[0]")
    assert "No such file" in found["reason"]


@pytest.mark.parametrize(("default", "allowed"), [("allow", True), ("deny", False)])
def test_without_policies(tmp_path: Path, default: str, allowed: bool):
    config = parse_config(f"inbound: {{default_action: {default}}}", tmp_path / "z.yaml")
    found = asyncio.run(check(config, None, STRANGER))
    assert (found["allowed"], found["decided_by"]) == (allowed, "inbound.default_action")


@pytest.mark.parametrize(
    ("key", "service", "allowed"),
    [
        (PEER, ("tcp", 22), True),
        (negation(PEER), ("tcp", 22), True),
        (LISTED, ("tcp", 22), True),
        (ALLOWED, ("tcp", 22), False),
        (LISTED, ("tcp", 23), False),
        (LISTED, ("tcp", 80), False),
        (ALLOWED, ("icmp", None), True),
    ],
)
def test_services(file: Path, key, service, allowed: bool):
    found = ask(file, key, service)
    assert found["allowed"]
    assert found["service"]["allowed"] is allowed
    if service == ("tcp", 23):
        assert "none.txt: No such file" in found["service"]["reason"]


def test_whoever_may_not_come_in_reaches_nothing(file: Path):
    assert ask(file, STRANGER, ("icmp", None))["service"] is None


# the command


def command(file: Path, *words: str, capsys) -> tuple[int, str, str]:
    code = run(["-c", str(file), "policy", "check", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_for_people(file: Path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    code, out, _ = command(file, "laptop", capsys=capsys)
    assert code == 0
    assert f"laptop ({PEER}) may come in" in out
    code, out, _ = command(file, str(STRANGER), capsys=capsys)
    assert code == 7
    assert "may not come in" in out
    assert "not paid" in out
    assert "No policy matches this key" in out
    assert "note: file" in out
    assert 'line 2: "nonsense"' in out
    code, out, _ = command(file, LISTED.hex, "--port", "22", capsys=capsys)
    assert code == 0
    assert "line 1 (friend)" in out
    assert "tcp port 22 may be reached: inbound.services[0] allows file:" in out
    code, out, _ = command(file, LISTED.hex, "--proto", "udp", "--port", "22", capsys=capsys)
    assert code == 7
    (file.parent / "verify.sh").unlink()
    code, out, _ = command(file, str(STRANGER), capsys=capsys)
    assert code == 1
    assert "could not answer" in out


def test_a_contact(file: Path, capsys):
    code, out, _ = command(file, "Bob", "--json", capsys=capsys)
    found = json.loads(out)
    assert (code, found["key"], found["peer"], found["decided_by"]) == (0, CONTACT.name, "bob", "contacts")
    code, out, _ = command(file, "bob", "--port", "80", capsys=capsys)
    assert code == 7
    assert "reaches what is published to it" in out


def test_for_programs(file: Path, capsys):
    code, out, _ = command(file, str(STRANGER), "--json", capsys=capsys)
    found = json.loads(out)
    assert code == 7
    assert (found["key"], found["allowed"], found["service"]) == (STRANGER.name, False, None)
    assert found["notes"][0].startswith(f"file {file.parent}/listed.txt: line 2")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["lapto"], 2, '"lapto" is neither the name of a peer or contact nor a key; did you mean "laptop"?'),
        ([f"{STRANGER.name[:-1]}x"], 2, "is mistyped"),
        (["laptop", "--proto", "icmp", "--port", "1"], 2, "icmp has no ports"),
        (["laptop", "--proto", "sctp"], 2, "--proto is tcp, udp or icmp, not sctp"),
    ],
)
def test_what_was_typed_wrongly(file: Path, capsys, words: list[str], code: int, message: str):
    found, _, err = command(file, *words, capsys=capsys)
    assert found == code
    assert message in err


def test_a_wrong_configuration(file: Path, capsys):
    file.write_text("inbound: {policies: [{type: fil}]}")
    code, _, err = command(file, str(STRANGER), capsys=capsys)
    assert code == 3
    assert 'did you mean "file"?' in err


def test_nothing_heavy_is_loaded_for_nothing(file: Path):
    """SQLAlchemy and asyncio's friends come in only with what needs them, and none of it with the configuration."""
    program = (
        "import sys; from zignet.config import load_config; load_config(sys.argv[1]); "
        "print([name for name in ('sqlalchemy', 'asyncio', 'asyncpg', 'zignet.policy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
