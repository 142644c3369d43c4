"""`inbound.policies`: what each type of policy takes, and that no secret is shown."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from zignet.config import (
    ConfigError,
    DatabasePolicy,
    FilePolicy,
    ScriptPolicy,
    SolanaPolicy,
    Url,
    parse_config,
)
from zignet.config.url import database_url, rpc_url

MINT = "So11111111111111111111111111111111111111112"
QUERY = "select 1 from members where key = :key"
PASSWORD = "hunter2secret"


def read(policies: str, file: Path | str = "z.yaml"):
    return parse_config(f"inbound:\n  policies:\n{policies}", file).inbound.policies


def problems(policies: str, file: Path | str = "z.yaml") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(policies, file)
    return [str(problem) for problem in caught.value.problems]


def test_the_policies_of_the_notes_read_as_written(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    text = f"""
inbound:
  policies:
    - {{type: file, path: ~/.zignet/allowed_peers.txt, action_if_match: allow}}
    - {{type: solana, rpc_url: "http://127.0.0.1:8899", check: token_balance, token_mint: "{MINT}",
       min_balance: 100, action_if_match: allow}}
    - {{type: script, command: ~/.zignet/verify.sh, timeout: 2s, action_if_match: allow}}
    - {{type: database, url: "postgresql://zignet@db.example/members", query: "{QUERY}", action_if_match: allow}}
    - {{type: database, url: "sqlite:///members.db", query: "{QUERY}", action_if_match: deny, on_error: stale}}
  default_action: deny
  recheck: 5m
"""
    inbound = parse_config(text, tmp_path / "z.yaml").inbound
    assert inbound.recheck_s == 300
    assert inbound.policies == (
        FilePolicy(path=Path("/home/me/.zignet/allowed_peers.txt")),
        SolanaPolicy(
            rpc_url=(Url("http://127.0.0.1:8899"),),
            check="token_balance",
            token_mint=MINT,
            min_balance=Decimal(100),
        ),
        ScriptPolicy(command=("/home/me/.zignet/verify.sh",), timeout_s=2.0),
        DatabasePolicy(url=Url("postgresql://zignet@db.example/members"), query=QUERY),
        DatabasePolicy(
            url=Url(f"sqlite:///{tmp_path}/members.db"), query=QUERY, action_if_match="deny", on_error="stale"
        ),
    )
    assert parse_config(text, tmp_path / "z.yaml").inbound == inbound  # a reload that changes nothing is seen
    json.dumps(inbound_json := parse_config(text, tmp_path / "z.yaml").to_json()["inbound"])
    assert inbound_json["policies"][1]["rpc_url"] == ["http://127.0.0.1:8899"]
    assert inbound_json["policies"][0]["type"] == "file"
    assert inbound_json["recheck"] == 300


def test_all_mistakes_at_once():
    assert problems("""\
    - {path: x}
    - {type: fil, path: x}
    - {type: file, pat: x}
    - {type: file, path: x, timeout: 2s}
    - {type: file, path: x, on_error: alow, optimistic: perhaps}
    - {type: file, path: x, action_if_match: deny, optimistic: yes}
    - {type: script, command: "run 'it", timeout: 5h}
    - {type: script, command: []}
    - {type: script}
    - {type: database, query: "select 1 from members"}
    - {type: database, url: "sqlite:///a.db", url_file: b, query: "select 1 where :kex = 1"}
    - {type: database, url: "mysql://db/x", query: "select :key::text"}
    - {type: database, url: members.db, query: "select :key"}
    - file
""") == [
        "z.yaml:3: inbound.policies[0].type: missing; one of file, script, database, solana",
        'z.yaml:4: inbound.policies[1].type: "fil" is not one of file, script, database, solana; did you mean "file"?',
        'z.yaml:5: inbound.policies[2].pat: unknown key; did you mean "path"?',
        "z.yaml:5: inbound.policies[2].path: missing; a policy of type file needs it",
        "z.yaml:6: inbound.policies[3].timeout: a policy of type file has no such key; known: action_if_match, "
        "on_error, optimistic, path, type",
        'z.yaml:7: inbound.policies[4].on_error: "alow" is not one of deny, allow, stale; did you mean "allow"?',
        'z.yaml:7: inbound.policies[4].optimistic: "perhaps" is neither true nor false',
        "z.yaml:8: inbound.policies[5].optimistic: it admits at once, which does not go with action_if_match: deny",
        "z.yaml:9: inbound.policies[6].command: the quotes in it do not fit: No closing quotation",
        "z.yaml:9: inbound.policies[6].timeout: 5h is not within 0.05 to 30 seconds",
        "z.yaml:10: inbound.policies[7].command: there is no program in it",
        "z.yaml:11: inbound.policies[8].command: missing; a policy of type script needs it",
        "z.yaml:12: inbound.policies[9].query: it does not ask about the key, so everybody would match: "
        'use :key, :base58 or :hex, as in "select 1 from members where key = :key"',
        "z.yaml:12: inbound.policies[9].url: missing; or url_file, if it holds a password",
        'z.yaml:13: inbound.policies[10].query: :kex is no parameter; did you mean "key"?',
        "z.yaml:13: inbound.policies[10].url: give one of them",
        "z.yaml:14: inbound.policies[11].url: expected postgresql://user@host/database or sqlite:///members.db",
        "z.yaml:15: inbound.policies[12].url: this is not a URL such as postgresql://user@host/database "
        "or sqlite:///members.db",
        "z.yaml:16: inbound.policies[13]: expected keys with values, such as {name: value}",
        "z.yaml:16: inbound.policies[13].type: missing; one of file, script, database, solana",
    ]


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("check: sol_balanse, min_balance: 1", 'did you mean "sol_balance"?'),
        ("check: sol_balance", "min_balance: missing; the check sol_balance needs it"),
        ("check: sol_balance, min_balance: 0", "0 is not more than 0"),
        ("check: sol_balance, min_balance: -1", "-1 is not more than 0"),
        ("check: sol_balance, min_balance: nan", '"nan" is not a number'),
        ("check: sol_balance, min_balance: 1e300", "is more than there can be"),
        ("check: sol_balance, min_balance: 0.0000000001", "has more than 9 decimals"),
        ("check: nft, mint: x", '"x" is not a Solana address'),
        (f"check: sol_balance, min_balance: 1, mint: {MINT}", "the check sol_balance has no such key"),
        ("check: token_balance, min_balance: 1", "token_mint: missing"),
        ("check: nft", "needs one of mint or collection"),
        (f"check: nft, mint: {MINT}, collection: {MINT}", "needs one of mint or collection"),
        (f"check: allow_list, program_id: {MINT}", "seed: missing"),
        (f"check: allow_list, program_id: {MINT}, seed: {'x' * 33}", "a seed has 1 to 32 bytes"),
        (f"check: allow_list, program_id: {MINT}, seed: 'hex:0g'", '"hex:0g" is not hexadecimal'),
        (f"check: allow_list, program_id: {MINT}, seed: 'hex:'", "a seed has 1 to 32 bytes"),
        (f"check: allow_list, program_id: {MINT}, seed: 'u64:-1'", "is not a number of 64 bits"),
        (f"check: allow_list, program_id: {MINT}, seed: 'pubkey:x'", "is not a Solana address"),
        (f"check: allow_list, program_id: {MINT}, seed: {['a'] * 15}", "at most 15 seeds"),
        ("min_balance: 1", "check: missing; a policy of type solana needs it"),
    ],
)
def test_what_a_check_on_chain_needs(rest: str, message: str):
    (problem,) = problems(f'    - {{type: solana, rpc_url: "http://a.example", {rest}}}')
    assert message in problem


def test_checks_on_chain():
    one, other = f"""
    - {{type: solana, rpc_url: ["http://a.example", "https://b.example/"], check: nft, collection: {MINT}, cache: 1h}}
    - {{type: solana, rpc_url: "http://a.example", check: allow_list, program_id: {MINT}, seed: member, optimistic: on}}
""".strip().split("\n")
    nft, listed = read(f"    {one}\n{other}\n")
    assert [url.text for url in nft.rpc_url] == ["http://a.example", "https://b.example/"]
    assert (nft.collection, nft.cache_s, nft.optimistic) == (MINT, 3600, False)
    assert (listed.program_id, listed.seed, listed.optimistic) == (MINT, ("member", "{key}"), True)
    (listed,) = read(f"{other}\n".replace("seed: member", "seed: [a, '{key}', 'u64:7', 'hex:00ff']"))
    assert listed.seed == ("a", "{key}", "u64:7", "hex:00ff")
    for urls in ("[]", '["ftp://x"]', "7", '"http://[::1"', '"http://h:x"'):
        (problem,) = problems(f"    - {{type: solana, rpc_url: {urls}, check: nft, mint: {MINT}}}")
        assert "rpc_url" in problem


def test_commands(tmp_path: Path):
    text = "    - {type: script, command: './check me.sh'}\n    - {type: script, command: ['./check me.sh', '$HOME']}\n"
    policies = read(text, tmp_path / "z.yaml")
    assert [policy.command for policy in policies] == [
        (f"{tmp_path}/check", "me.sh"),
        (f"{tmp_path}/check me.sh", "$HOME"),
    ]


# secrets


def configuration(tmp_path: Path, url: str, mode: int, key: str = "url") -> tuple[str, Path]:
    file = tmp_path / "z.yaml"
    text = f'    - {{type: database, {key}: "{url}", query: "{QUERY}"}}\n'
    file.write_text(f"inbound:\n  policies:\n{text}")
    file.chmod(mode)
    return text, file


URLS = [f"postgresql://me:{PASSWORD}@h/d", f"postgresql://h/d?user=me&password={PASSWORD}"]


@pytest.mark.parametrize("url", URLS)
def test_a_password_in_a_file_that_others_read(tmp_path: Path, url: str):
    text, file = configuration(tmp_path, url, 0o644)
    (problem,) = problems(text, file)
    assert problem == (
        f"{file}:3: inbound.policies[0].url: it holds a secret, and others on this machine may read this file: "
        f"chmod 600 {file}, or write the URL into a file of its own and name that: url_file: ./database.url"
    )


@pytest.mark.parametrize("url", URLS)
def test_a_password_is_never_shown(tmp_path: Path, url: str):
    text, file = configuration(tmp_path, url, 0o600)
    config = parse_config(f"inbound:\n  policies:\n{text}", file)
    (policy,) = config.inbound.policies
    assert policy.url.text == url
    for shown in (repr(config), str(policy.url), json.dumps(config.to_json()), f"{policy}"):
        assert PASSWORD not in shown


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{PASSWORD}@[::1/d",
        f"postgresql://me:{PASSWORD}@h:x/d",
        f"postgresql://me:{PASSWORD}",
        f"postgresql://me:{PASSWORD}@h",
        f"mysql://me:{PASSWORD}@h/d",
        f"me:{PASSWORD}@h/d",
        f"postgresql://me:{PASSWORD} @h/d",
        f"postgresql://me:{PASSWORD}\u2100@h/d",
    ],
)
def test_nor_in_what_is_wrong_with_a_url(tmp_path: Path, url: str):
    text, file = configuration(tmp_path, url, 0o600)
    (problem,) = problems(text, file)
    assert PASSWORD not in problem


def test_a_url_in_a_file_of_its_own(tmp_path: Path):
    text, file = configuration(tmp_path, "./db.url", 0o644, "url_file")
    secret = tmp_path / "db.url"
    assert problems(text, file) == [
        f"{file}:3: inbound.policies[0].url_file: {secret}: No such file or directory"
    ]
    secret.write_text(f"{URLS[0]}\n")
    secret.chmod(0o644)
    assert f"chmod 600 {secret}" in problems(text, file)[0]
    secret.chmod(0o600)
    (policy,) = read(text, file)
    assert (policy.url.text, policy.url_file) == (URLS[0], secret)
    secret.write_text(f"mysql://me:{PASSWORD}@h/d")
    (problem,) = problems(text, file)
    assert f"{secret}: expected postgresql://" in problem
    assert PASSWORD not in problem


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://rpc.example/v2/abcdef0123", "https://rpc.example/…"),
        ("https://rpc.example/?api-key=abc", "https://rpc.example/…"),
        ("http://127.0.0.1:8899", "http://127.0.0.1:8899"),
        ("http://me:pw@h:1/", "http://me:***@h:1/"),
    ],
)
def test_what_is_shown_of_an_rpc_service(url: str, shown: str):
    assert str(rpc_url(url)) == shown
    assert rpc_url(url) == rpc_url(url)
    assert len({rpc_url(url), rpc_url(url)}) == 1


def test_a_key_of_an_rpc_service_is_a_secret(tmp_path: Path):
    file = tmp_path / "z.yaml"
    policies = f'    - {{type: solana, rpc_url: "https://h/?api-key=abc", check: nft, mint: {MINT}}}\n'
    file.write_text(policies)
    file.chmod(0o644)
    assert f"chmod 600 {file}" in problems(policies, file)[0]
    file.chmod(0o600)
    assert read(policies, file)[0].rpc_url[0].text.endswith("abc")


def test_drivers_in_a_url_are_ours_to_choose():
    assert database_url("postgres://h/d").text == "postgresql://h/d"
    assert database_url("postgresql+asyncpg://h/d") == database_url("postgresql://h/d")
    assert database_url("sqlite+aiosqlite:////x").text == "sqlite:////x"
