"""From a file to a `Config`, and every mistake with its line and key."""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from zignet.config import Config, ConfigError, Problem, load, load_config, parse_config
from zignet.exits import build_exits
from zignet.routing import Line, build_rules

ISSUE = """\
state_dir: ~/.zignet
tun:   {name: zig0, mtu: 1500, range: 100.64.0.0/10, listener: loopback, offload: auto}   # or tun
proxy: {mode: global, bypass: [192.168.0.0/16]}  # mode: global | off
exits:
  tokyo: {type: socks5, address: 192.0.2.10:1080}
  office: {type: http, address: 192.0.2.11:3128, username: me, password_file: ./pw}
routes:
  - "*.video.example -> tokyo"
  - DOMAIN-SUFFIX,news.example,office
  - IP-CIDR,203.0.113.0/24,direct
  - MATCH,direct
"""


def problems(text: str, file: Path | str = "z.yaml") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, file)
    assert str(caught.value)
    return [str(problem) for problem in caught.value.problems]


def write(file: Path, text: str, mode: int = 0o600) -> Path:
    file.write_text(text)
    file.chmod(mode)
    return file


@pytest.fixture
def issue(tmp_path: Path) -> Path:
    write(tmp_path / "pw", "hunter2\n")
    return write(tmp_path / "zignet.yaml", ISSUE)


def test_the_example_of_the_documentation(issue: Path):
    config = load_config(issue)
    assert config == load(issue) == Config.load(issue)
    assert config.state_dir == Path.home() / ".zignet"
    assert config.proxy.bypass == (ip_network("192.168.0.0/16"),)
    assert config.exits["tokyo"].address == "192.0.2.10:1080"
    assert config.exits["tokyo"].udp is True
    assert config.exits["office"].password_file == issue.parent / "pw"
    assert config.routes[0] == Line("*.video.example -> tokyo", f"{issue}:8")
    assert [line.where for line in config.routes] == [f"{issue}:{line}" for line in range(8, 12)]


def test_exits_and_rules_are_made_of_it(issue: Path):
    config = load_config(issue)
    rules = build_rules(config, build_exits(config))
    route = rules.choose(6, bytes(4), 1, bytes(4), 443, "www.video.example")
    assert route is not None
    assert (route.exit.name, route.rule) == ("tokyo", "*.video.example -> tokyo")


def test_the_secret_is_nowhere_in_it(issue: Path):
    config = load_config(issue)
    assert "hunter2" not in repr(config)
    assert "hunter2" not in str(config.to_json())


def test_all_mistakes_at_once_in_the_order_of_lines():
    text = """\
tun: {name: zig0, mtuu: 1500}
proxy: {mode: globl}
exits:
  tokyo: {type: socks5, adress: "192.0.2.1:1"}
  office: {type: http, address: "192.0.2.1:1", udp: true}
  nowhere: {}
  direct: {type: direct}
routes:
  - "*.a.example -> tokio"
  - GEOIP,CN,direct
  - {a: b}
limits: {flows: 100, half_open: 200}
colour: blue
"""
    assert problems(text) == [
        'z.yaml:1: tun.mtuu: unknown key; did you mean "mtu"?',
        'z.yaml:2: proxy.mode: "globl" is not one of global, off; did you mean "global"?',
        'z.yaml:4: exits.tokyo.adress: unknown key; did you mean "address"?',
        "z.yaml:4: exits.tokyo.address: missing; an exit of type socks5 needs it",
        "z.yaml:5: exits.office.udp: an exit of type http has no such key; "
        "known: address, interface, password_file, type, username",
        "z.yaml:6: exits.nowhere.type: missing; one of socks5, http, direct, block",
        'z.yaml:7: exits.direct: "direct" is always there, and is not changed; choose another name',
        'z.yaml:9: routes: unknown exit "tokio"; did you mean "tokyo"?',
        "z.yaml:10: routes: GEOIP is not supported: there is no database of places here; "
        "list the networks as IP-CIDR, or the names as DOMAIN-SUFFIX",
        'z.yaml:11: routes[2]: expected a rule line or "file: ./rules.txt"; '
        "put quotes around a rule with a colon",
        "z.yaml:12: limits.half_open: more than limits.flows, which it is a part of",
        "z.yaml:13: colour: unknown key; known: admin, cipher, dns, exit, exits, inbound, key_file, key_log, "
        "limits, listen, mark, peers, …",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "z.yaml:1: expected keys with values"),
        ("tun: []", "z.yaml:1: tun: expected keys with values"),
        (
            "admin: yes",
            "z.yaml:1: admin: expected keys with values, such as {name: value}; {} is all defaults",
        ),
        (
            "publish: [{name: a, port: 1, to: ['tag:']}]",
            'z.yaml:1: publish[0].to: nothing stands behind "tag:"',
        ),
        ("tun: {mtu: [1]}", "tun.mtu: expected a single value"),
        ("tun: {mtu: }", "tun.mtu: there is no value"),
        ("tun: {device: tun7}", 'tun.device: "tun7" is neither auto nor fd:N'),
        ("tun: {range: 100.64.0.1/10}", 'did you mean "100.64.0.0/10"?'),
        ("proxy: {bypass: 10.0.0.0/8}", "proxy.bypass: expected a list"),
        ("proxy: {bypass: [10.0.0.0/8, x]}", "proxy.bypass[1]: "),
        ("routes: MATCH,direct", "routes: expected a list of rules"),
        ("routes: ['']", "routes: an empty rule"),
        ("exits: {'a,b': {type: block}}", "it means something in a rule"),
        ("exits: {REJECT: {type: block}}", "is always there"),
        ("exits: {x: {type: block, address: 'a:1'}}", "an exit of type block has no such key"),
        ("exits: {x: {type: vmess}}", "exits.x.type: "),
        ("exits: {x: {type: http, address: 'a:1', password: pw}}", "password_file: ./name"),
        ("exits: {x: {type: http, address: '100.64.9.9:1'}}", "exits.x.address: 100.64.9.9:1 lies in"),
        ("exits: {x: {type: http, address: '[fd5a:6967:6e65::9]:1'}}", "lies in ZigNet's own range"),
        ("mark: 0\n", "mark: 0 is not within"),
        ("tun: {peer_mtu: 1279}", "tun.peer_mtu: 1279 is not within 1280 to 9000"),
        ("tun: {peer_mtu: 1501}", "tun.peer_mtu: more than tun.mtu, which is 1500"),
        ("cipher: aes256", 'cipher: "aes256" is not one of auto, aes, chacha20'),
        ("listn: []", 'did you mean "listen"?'),
        ("listen: udp://[::]:51830", "listen: expected a list"),
        ("listen: ['tcp://[::]:51830']", "listen[0]: "),
        ("listen: ['udp://[::]:1', 'udp://0.0.0.0:2']", "listen: one socket serves all peers"),
        ("inbound: {default: deny}", 'did you mean "default_action"?'),
        ("inbound: {default_action: admit}", "is not one of deny, allow"),
        ("inbound: {polices: []}", "inbound.polices: unknown key"),
        ("inbound: {allow: [laptop]}", 'inbound.allow[0]: "laptop" has 6 characters'),
        ("inbound: {allow: x}", "inbound.allow: expected a list"),
        ("key_file:", "key_file: there is no value"),
        ("table: 254\n", "table: 254 is the kernel's table main"),
        ("state_dir: ~nobody-of-this-name/x", "home directory is not known"),
        ("sniff: {limit: 1}", "sniff.limit: 1 is not within"),
        ("tun: {}\ntun: {}\n", "z.yaml:2: tun: given twice"),
        ("x" * (8 << 20) + "x", "larger than 8 MiB"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str):
    assert any(message in problem for problem in problems(text))


def test_a_broken_exit_does_not_make_its_rules_wrong():
    assert len(problems("exits: {tokyo: {type: sox}}\nroutes: ['MATCH,tokyo']\n")) == 1


@pytest.mark.parametrize("text", ["tun:\nroutes:\nexits:\nproxy: {bypass: }\n", "# nothing\n", "~\n"])
def test_empty_sections_are_defaults(text: str):
    assert parse_config(text) == Config()


def test_paths_start_at_the_files_folder(tmp_path: Path):
    config = parse_config("state_dir: ./state", tmp_path / "z.yaml")
    assert config.state_dir == tmp_path / "state"


# password files


def password_config(name: str = "pw") -> str:
    return f"exits:\n  x: {{type: http, address: 'a.example:1', username: me, password_file: {name}}}\n"


def test_a_password_file_open_to_all(tmp_path: Path):
    write(tmp_path / "pw", "secret", 0o644)
    (problem,) = problems(password_config(), tmp_path / "z.yaml")
    assert (
        f"z.yaml:2: exits.x.password_file: everyone on this machine can read it: chmod 600 {tmp_path}/pw"
        in problem
    )


def test_a_password_file_for_a_group(tmp_path: Path):
    write(tmp_path / "pw", "secret", 0o640)
    assert parse_config(password_config(), tmp_path / "z.yaml").exits["x"].password_file == tmp_path / "pw"


def test_a_password_file_that_is_missing_or_a_folder(tmp_path: Path):
    assert "No such file" in problems(password_config(), tmp_path / "z.yaml")[0]
    assert "is not a file" in problems(password_config("."), tmp_path / "z.yaml")[0]


def test_a_password_without_a_user(tmp_path: Path):
    write(tmp_path / "pw", "secret")
    text = password_config().replace("username: me, ", "")
    assert "there is no username" in problems(text, tmp_path / "z.yaml")[0]


# files


def test_rules_of_a_file_stand_in_its_place(tmp_path: Path):
    write(tmp_path / "list.txt", "# ads\n\nDOMAIN-SUFFIX,ads.example,REJECT\n*.b.example -> direct # why\n")
    text = "routes:\n  - DOMAIN,a.example,direct\n  - file: ./list.txt\n  - MATCH,direct\n"
    assert list(parse_config(text, tmp_path / "z.yaml").routes) == [
        Line("DOMAIN,a.example,direct", f"{tmp_path}/z.yaml:2"),
        Line("DOMAIN-SUFFIX,ads.example,REJECT", f"{tmp_path}/list.txt:3"),
        Line("*.b.example -> direct", f"{tmp_path}/list.txt:4"),
        Line("MATCH,direct", f"{tmp_path}/z.yaml:4"),
    ]


def test_mistakes_in_a_rule_file_name_that_file(tmp_path: Path):
    write(tmp_path / "list.txt", "MATCH,direct\nFOO,a,b\n")
    (problem,) = problems("routes: [{file: list.txt}]", tmp_path / "z.yaml")
    assert problem.startswith(f'{tmp_path}/list.txt:2: unknown rule type "FOO"')


def test_a_rule_file_that_is_missing_or_no_text(tmp_path: Path):
    assert "routes[0].file: " in problems("routes: [{file: none}]", tmp_path / "z.yaml")[0]
    (tmp_path / "binary").write_bytes(b"MATCH,direct\n\xff\xfe")
    assert "is not UTF-8 text (line 2)" in problems("routes: [{file: binary}]", tmp_path / "z.yaml")[0]


def test_many_bad_rules_do_not_take_all_day():
    found = problems("routes:\n" + "  - DOMAN,a,direct\n" * 5000)
    assert 1 <= len(found) <= 100


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\xef\xbb\xbfmark: 7\n"])
def test_encodings(tmp_path: Path, content: bytes):
    file = tmp_path / "z.yaml"
    file.write_bytes(content)
    if content.startswith(b"\xef"):
        assert load_config(file).mark == 7
    else:
        with pytest.raises(ConfigError, match="not UTF-8"):
            load_config(file)


def test_a_file_that_is_not_there_or_never_ends(tmp_path: Path):
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"directory|not a file"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="is not a file"):
        load_config("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is not a file"):
        load_config(tmp_path / "pipe")


def test_a_long_error_is_cut():
    text = str(ConfigError([Problem("f", line, "k", "m") for line in range(1, 51)]))
    assert text.count("\n") == 20
    assert text.endswith("… and 30 more")


KEY = "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkenm3iqb"
KEYS = [
    "tun",
    "proxy",
    "exits",
    "routes",
    "limits",
    "sniff",
    "mark",
    "type",
    "name",
    "address",
    "file",
    "bypass",
    "range",
    "listen",
    "peers",
    "key",
    "endpoint",
    "inbound",
    "allow",
]
TREES = st.recursive(
    st.none()
    | st.sampled_from(["socks5", "1.2.3.4:5", "10.0.0.0/8", "fd:1", "MATCH,x", "", "udp://[::]:1", KEY])
    | st.integers()
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=20,
)


# Invariant: any document is a Config or a ConfigError that names at least one problem, nothing else.
@given(TREES)
def test_any_tree_is_read_or_refused(tree):
    with suppress(ConfigError):
        parse_config(yaml.safe_dump(tree))


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str):
    with suppress(ConfigError):
        parse_config(text)


@pytest.mark.parametrize("mode", ["hijack", "auto"])
def test_queries_are_hijacked_in_global_mode_only(mode):
    text = f'proxy: {{mode: "off"}}\ndns:\n  mode: {mode}\n'
    if mode == "auto":
        assert parse_config(text).dns.mode == mode
        return
    with pytest.raises(ConfigError) as error:
        parse_config(text)
    (problem,) = error.value.problems
    assert (problem.line, problem.key) == (3, "dns.mode")
    assert "set `proxy: {mode: global}`" in str(error.value)
    assert parse_config(text.replace('"off"', "global")).dns.mode == mode
