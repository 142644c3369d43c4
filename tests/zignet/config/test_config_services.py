"""What peers may reach: `inbound.services`, and the lists of who may."""

from __future__ import annotations

from pathlib import Path

import pytest

from zignet.config import Config, ConfigError, parse_config
from zignet.config.members import key_files, members_of
from zignet.config.offer import ALL
from zignet.identity import SecretKey

ALICE, BOB = (SecretKey(bytes((seed,)) * 32).public for seed in (1, 2))
PEERS = f"peers: [{{name: alice, key: {ALICE}}}]\n"


def services(text: str, more: str = "", file: Path | str = "zignet.yaml") -> Config:
    return parse_config(f"{PEERS}inbound:\n  services: {text}\n{more}", file)


def test_as_the_documentation_has_it(tmp_path: Path) -> None:
    (tmp_path / "admins.txt").write_text(f"{BOB}\n")
    made = services(
        '[{proto: tcp, port: 22, allow: [Alice, "file:admins.txt"]}, {proto: tcp, port: "80,443, 8000-8100"}, '
        "{proto: udp, port: [53, 1-2]}, {proto: icmp}, {proto: udp}]",
        file=tmp_path / "zignet.yaml",
    )
    found = made.inbound.services
    assert found is not None
    assert [(one.proto, one.ports, one.allow) for one in found] == [
        ("tcp", ((22, 22),), ("Alice", f"file:{tmp_path}/admins.txt")),
        ("tcp", ((80, 80), (443, 443), (8000, 8100)), None),
        ("udp", ((53, 53), (1, 2)), None),
        ("icmp", (), None),
        ("udp", (), None),
    ]
    (file,) = key_files(found[0].allow)
    members = members_of(found[0].allow, made.peers, {file: {BOB}})
    assert members is not None
    assert ALICE in members
    assert BOB in members
    assert SecretKey(bytes((3,)) * 32).public not in members
    assert members_of(None, made.peers, {}) is None
    nobody = members_of((), made.peers, {})
    assert nobody is not None
    assert ALICE not in nobody
    assert made.to_json()["inbound"]["services"][1] == {"proto": "tcp", "port": "80,443,8000-8100"}


def test_no_list_is_everything_and_an_empty_one_nothing() -> None:
    assert parse_config(PEERS).inbound.services is None
    assert services("all").inbound.services is None
    assert services("[]").inbound.services == ()


def test_an_exit_among_the_services() -> None:
    assert services("[{exit: internet, allow: [alice]}]").exit.allow == ("alice",)
    assert services("[{exit: internet}]").exit.allow == ALL
    assert services("[{exit: internet, allow: []}]").exit.allow == ()
    assert services("[{proto: icmp}]", "exit: {allow: [alice]}").exit.allow == ("alice",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "nothing stands here"),
        ("some", "expected all, or a list"),
        ("[tcp]", "expected a service"),
        ("[{}]", "expected either proto"),
        ("[{proto: tcp, exit: internet}]", "expected either proto"),
        ("[{proto: sctp}]", '"sctp" is not one of'),
        ("[{proto: tcp, port: 65536}]", "is not within 0 to 65535"),
        ("[{proto: tcp, port: 90-80}]", "the first is more than the last"),
        ("[{proto: tcp, port: ssh}]", '"ssh" is not a whole number'),
        ("[{proto: tcp, port: ''}]", "is not a whole number"),
        ("[{proto: icmp, port: 1}]", "icmp has no ports"),
        ("[{exit: internet, port: 1}]", "stand in the section exit"),
        ("[{exit: lan}]", '"lan"'),
        ("[{proto: tcp, ports: 22}]", 'unknown key; did you mean "port"'),
        ("[{proto: tcp, allow: [bob]}]", '"bob" is neither the name of a peer'),
        ("[{proto: tcp, allow: alice}]", "expected a list"),
        ("[{exit: internet}, {exit: internet}]", "twice"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        services(text)
    assert message in str(error.value)
    assert "zignet.yaml:3" in str(error.value)


def test_an_exit_is_offered_in_one_place() -> None:
    with pytest.raises(ConfigError, match=r"exit\.allow says the same"):
        services("[{exit: internet}]", "exit: {allow: [alice]}")
