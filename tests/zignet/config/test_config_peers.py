"""Peers: in the configuration, and in files of their own."""

from __future__ import annotations

import gc
import tracemalloc
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from zignet.config import ConfigError, PeerConfig, parse_config
from zignet.config.peers import in_own_range, read_line
from zignet.identity import PublicKey, SecretKey, curve

PAIRS = [SecretKey(number.to_bytes(32, "big")) for number in range(1, 8)]
A, B, C, D = (pair.public for pair in PAIRS[:4])
NEGATION = PublicKey.from_bytes(bytes([*A.ed[:31], A.ed[31] ^ 0x80]))
PSK = "00112233445566778899aabbccddeeff" * 2


def problems(text: str, file: Path | str = "z.yaml") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, file)
    return [str(problem) for problem in caught.value.problems]


def write(file: Path, text: str, mode: int = 0o600) -> Path:
    file.write_bytes(text.encode())
    file.chmod(mode)
    return file


def test_a_peer_with_everything(tmp_path: Path):
    write(tmp_path / "us.psk", PSK)
    text = f"""
peers:
  - name: peer_us
    key: {A.name}
    endpoint: "203.0.113.9:51830"
    psk_file: ./us.psk
    keepalive: 25
    address: 100.64.3.4
  - {{name: de, key: {B.base58}, endpoint: "de.example:9"}}
  - {{name: JP, key: {C.hex}}}
"""
    config = parse_config(text, tmp_path / "z.yaml")
    assert config.peers == (
        PeerConfig("peer_us", A, "203.0.113.9:51830", tmp_path / "us.psk", 25, IPv4Address("100.64.3.4")),
        PeerConfig("de", B, "de.example:9"),
        PeerConfig("JP", C),
    )
    assert PSK[:16] not in repr(config)
    assert PSK[:16] not in str(config.to_json())


def test_all_mistakes_at_once():
    wrong = A.name[:-3] + "xxx"
    text = f"""\
exits: {{tokyo: {{type: block}}}}
peers:
  - {{name: a, key: {wrong}, endpont: "h:1"}}
  - {{name: tokyo, key: {A}}}
  - {{name: admin, key: {B}}}
  - {{key: {B}}}
  - {{name: c}}
  - laptop
  - {{name: d, key: {C}, endpoint: "h", keepalive: 1.5, address: "::1"}}
  - {{name: e, key: {D}, endpoint: "100.64.0.9:1", address: 10.0.0.1}}
  - {{file: none.txt, name: x}}
"""
    assert problems(text) == [
        f'z.yaml:3: peers[0].key: "{wrong}" is mistyped: its end is not that of a name',
        'z.yaml:3: peers[0].endpont: unknown key; did you mean "endpoint"?',
        'z.yaml:4: peers.tokyo.name: "tokyo" is the name of an exit',
        'z.yaml:5: peers[2].name: "admin" means something else already; choose another name',
        "z.yaml:6: peers[3].name: missing; every peer has a name and a key",
        "z.yaml:7: peers[4].key: missing; every peer has a name and a key",
        'z.yaml:8: peers[5]: expected a peer, such as {name: peer_us, key: ...}, or "file: ./peers.txt"',
        'z.yaml:9: peers[6].endpoint: "h" is not host:port, for example 192.0.2.10:1080',
        "z.yaml:9: peers[6].keepalive: 1.5 is not a whole number of seconds",
        'z.yaml:9: peers[6].address: "::1" is not an IPv4 address such as 100.64.0.9',
        "z.yaml:10: peers.e.endpoint: 100.64.0.9:1 lies in ZigNet's own range (tun.range, tun.range6), "
        "and a peer's endpoint is its address outside of it",
        "z.yaml:10: peers.e.address: 10.0.0.1 is not in tun.range, 100.64.0.0/10",
        "z.yaml:11: peers[8].name: a file of peers stands alone: - file: ./peers.txt",
        f"z.yaml:11: peers[8].file: {Path.cwd()}/none.txt: No such file or directory",
    ]


def test_no_list():
    assert "peers: expected a list" in problems("peers: {a: b}")[0]
    assert parse_config("peers:").peers == ()


def test_doubles():
    text = f"""\
peers:
  - {{name: a, key: {A}}}
  - {{name: A, key: {B}}}
  - {{name: b, key: {A.base58}}}
  - {{name: c, key: {NEGATION}}}
"""
    assert problems(text) == [
        'z.yaml:3: peers[1].name: the name "A" is given twice; the first is in z.yaml:2',
        'z.yaml:4: peers[2].key: the same key as "a" in z.yaml:2; both would be one peer',
        'z.yaml:5: peers[3].key: the negation of the key of "a" in z.yaml:2; both would be one peer',
    ]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("100.128.0.1", "is not in tun.range"),
        ("100.127.0.1", "is one of the NAT's aliases (100.127.0.0/16)"),
        ("100.64.0.1", "is this host's own"),
        ("100.64.0.0", "is this host's own"),
        ("100.64.0.2", '100.64.0.2 is "first" in z.yaml:1 already'),
    ],
)
def test_addresses_that_a_peer_can_not_have(address: str, message: str):
    text = f"peers: [{{name: first, key: {A}, address: 100.64.0.2}},\n {{name: b, key: {B}, address: '{address}'}}]"
    (problem,) = problems(text)
    assert problem.startswith("z.yaml:2: peers.b.address: ")
    assert message in problem


def test_a_key_both_allowed_and_denied():
    text = f"inbound:\n  allow: [{A}, {B}]\n  deny: [{NEGATION}]\n"
    (problem,) = problems(text)
    assert problem.startswith("z.yaml:3: inbound.deny: ")
    assert problem.endswith("is in inbound.allow, too")
    inbound = parse_config(f"inbound: {{allow: [{A}, {B}, {A.hex}], deny: [{C}]}}").inbound
    assert (inbound.allow, inbound.deny) == ({A, B}, {C})


def test_pre_shared_keys(tmp_path: Path):
    text = f"peers:\n  - {{name: a, key: {A}, psk_file: psk}}\n"
    file = tmp_path / "z.yaml"
    assert f"peers[0].psk_file: {tmp_path}/psk: No such file" in problems(text, file)[0]
    write(tmp_path / "psk", PSK, 0o644)
    assert f"chmod 600 {tmp_path}/psk" in problems(text, file)[0]
    write(tmp_path / "psk", PSK[1:])
    (problem,) = problems(text, file)
    assert "is not a pre-shared key" in problem
    assert PSK[1:9] not in problem
    write(tmp_path / "psk", PSK)
    assert parse_config(text, file).peers[0].psk_file == tmp_path / "psk"


# files


FILE = f"peers:\n  - {{name: z, key: {D}}}\n  - file: ./peers.txt\n"


def test_a_file_of_peers(tmp_path: Path):
    text = f"""\ufeff# ours\r
\r
us {A} 203.0.113.9:51830\r
  de\t{B.base58}   # Berlin\r
#old {A}\r
jp {C.hex} jp.example:1 # Tokyo\r
"""
    write(tmp_path / "peers.txt", text)
    assert parse_config(FILE, tmp_path / "z.yaml").peers == (
        PeerConfig("z", D),
        PeerConfig("us", A, "203.0.113.9:51830"),
        PeerConfig("de", B),
        PeerConfig("jp", C, "jp.example:1"),
    )


def test_mistakes_in_a_file_have_its_lines(tmp_path: Path):
    text = f"""\
us
de {A.name[:-1]}
z {A}
jp {D}
kr {B} 100.64.0.1:1
fr {C} a b
it {C} host
{B} it
"""
    file = write(tmp_path / "peers.txt", text)
    yaml = tmp_path / "z.yaml"
    assert problems(FILE, yaml) == [
        f"{file}:1: expected a name, a key and perhaps an endpoint, not 1 words",
        f'{file}:2: "{A.name[:-1]}" has 55 characters: a key is a name of 56, 64 hexadecimal digits, '
        "or base58 as wallets show it",
        f'{file}:3: the name "z" is given twice; the first is in {yaml}:2',
        f'{file}:4: the same key as "z" in {yaml}:2; both would be one peer',
        f"{file}:5: peers.kr.endpoint: 100.64.0.1:1 lies in ZigNet's own range (tun.range, tun.range6), "
        "and a peer's endpoint is its address outside of it",
        f"{file}:6: expected a name, a key and perhaps an endpoint, not 4 words",
        f'{file}:7: "host" is not host:port, for example 192.0.2.10:1080',
        f'{file}:8: "{B}" looks like the name of a key, so it can\'t be the name of a peer',
    ]


def test_a_file_that_is_all_wrong_is_told_of_in_short(tmp_path: Path):
    write(tmp_path / "peers.txt", "x\n" * 50_000)
    assert len(problems(FILE, tmp_path / "z.yaml")) == 20


def test_a_file_that_is_missing_or_no_text(tmp_path: Path):
    assert "peers[1].file: " in problems(FILE, tmp_path / "z.yaml")[0]
    (tmp_path / "peers.txt").write_bytes(b"# x\na \xff\n")
    assert "is not UTF-8 text (line 2)" in problems(FILE, tmp_path / "z.yaml")[0]


@pytest.fixture
def cheap_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for libsodium's 30 µs a key, so that a test can have many."""
    monkeypatch.setattr(curve, "x25519_of", lambda eds: [bytes(reversed(ed)) for ed in eds])


def name_of(number: int) -> str:
    from zignet.identity.names import encode_name

    return encode_name((number + 2).to_bytes(32, "little"))


@pytest.mark.usefixtures("cheap_curve")
def test_a_long_file_is_read_by_threads_in_its_order(tmp_path: Path):
    lines = [f"peer-{number} {name_of(number)} 203.0.113.9:{number % 60000 + 1}" for number in range(10_000)]
    lines[7_000] = "peer-x nonsense"
    lines[9_000] = f"peer-5 {name_of(9_000)}"
    file = write(tmp_path / "peers.txt", "\n".join(lines))
    found = problems("peers: [{file: peers.txt}]", tmp_path / "z.yaml")
    assert [problem.split(": ")[0] for problem in found] == [f"{file}:7001", f"{file}:9001"]
    assert f"the first is in {file}:6" in found[1]
    write(file, "\n".join(line for at, line in enumerate(lines) if at not in (7_000, 9_000)))
    peers = parse_config("peers: [{file: peers.txt}]", tmp_path / "z.yaml").peers
    assert [peer.name for peer in peers] == [
        line.split()[0] for at, line in enumerate(lines) if at not in (7000, 9000)
    ]


@pytest.mark.usefixtures("cheap_curve")
def test_memory_of_a_peer(tmp_path: Path):
    count = 5_000
    lines = (f"peer-{number:05} {name_of(number)} 203.0.113.9:{number + 10_000}" for number in range(count))
    write(tmp_path / "peers.txt", "\n".join(lines))
    parse_config("peers: []", tmp_path / "z.yaml")  # what is loaded once
    tracemalloc.start()
    try:
        config = parse_config("peers: [{file: peers.txt}]", tmp_path / "z.yaml")
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(config.peers) == count
    assert used / count <= 400


@pytest.mark.parametrize(
    ("endpoint", "inside"),
    [
        ("100.64.0.2:1", True),
        ("100.127.255.255:1", True),
        ("100.128.0.0:1", False),
        ("[fd5a:6967:6e65::2]:1", True),
        ("[2001:db8::1]:1", False),
        ("host.example:1", False),
        ("host7:1", False),
    ],
)
def test_endpoints_inside(endpoint: str, inside: bool):
    assert in_own_range(endpoint, parse_config("").tun) is inside


@pytest.mark.parametrize("line", ["", "  ", "# x", "\t#"])
def test_lines_with_nothing_on_them(line: str):
    assert read_line(line) is None


def test_whole_packets():
    """What sends them on, and who takes them: a peer alone."""
    peers = f"peers: [{{name: us, key: {A.name}}}]"
    config = parse_config(
        f"{peers}\nexit: {{allow: [us], packets: true}}\nroutes: ['203.0.113.0/24 -> us packet']"
    )
    assert config.exit.packets
    assert not parse_config("").exit.packets
    assert config.to_json()["exit"]["packets"] is True
    wrong = f"{peers}\nroutes:\n  - IP-CIDR,203.0.113.0/24,direct,packet\n  - '*.example -> us packet'\n"
    assert problems(wrong) == [
        'z.yaml:3: routes: packet sends whole packets, which only a peer takes, and "direct" is none',
        "z.yaml:4: routes: packet belongs to IP-CIDR: a whole packet has an address, and nothing else is asked",
    ]
