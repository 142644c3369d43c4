"""The policies of `inbound`: who may come in where no list of keys says it. The first that matches decides.

inbound:
  policies:
    - {type: file, path: ./allowed.txt}
    - {type: script, command: ./verify.sh --strict, timeout: 2s, on_error: stale}
    - {type: database, url: "sqlite:///members.db", query: "select name from members where key = :key"}
    - {type: solana, rpc_url: "http://127.0.0.1:8899", check: sol_balance, min_balance: 0.5, optimistic: yes}
"""

# ruff: noqa: RUF009 -- `setting` is `dataclasses.field`

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from zignet.config import values
from zignet.config.document import Items, Node, Scalar, Table
from zignet.config.reader import (
    Reader,
    Reading,
    many,
    of_type,
    one,
    others_may_read,
    path,
    read_fields,
    setting,
)
from zignet.config.url import Url, database_url, rpc_url
from zignet.identity import KeyFileError, read_secret
from zignet.routing import did_you_mean

__all__ = [
    "PARAMETERS",
    "DatabasePolicy",
    "FilePolicy",
    "PolicyConfig",
    "ScriptPolicy",
    "SolanaPolicy",
    "read_policies",
]

PARAMETERS = ("key", "base58", "hex")  # what a query may ask with: the key's three notations

_MOST = 256  # policies
_SEED_BYTES = 32  # of a program-derived address
_MOST_SEEDS = 14  # besides the key; the runtime adds one of its own to make 16
KEY_SEED = "{key}"  # where the member's key stands
_SOL_DECIMALS = 9
_TOKEN_DECIMALS = 19  # digits of a 64-bit amount: no mint has more of use
_PARAMETER = re.compile(r"(?<![:\w\\]):(\w+)")  # but not PostgreSQL's `::type`


@dataclass(frozen=True, slots=True, kw_only=True)
class _Policy:
    action_if_match: str = setting("allow", one(values.choice("allow", "deny")))
    on_error: str = setting("deny", one(values.choice("deny", "allow", "stale")))
    optimistic: bool = setting(False, one(values.flag))  # admit at once, and end it if the answer is no


def _command(node: Node, key: str, reading: Reading) -> Any:
    """A program and its arguments: a list, or one text in a shell's quoting. No shell is run."""
    if isinstance(node, Items):
        words = many(_argument)(node, key, reading)
    else:
        words = one(_words)(node, key, reading)
    if not isinstance(words, tuple) or not words:
        if words == ():
            reading.complain(node.line, key, "there is no program in it")
        return words
    program = path(Scalar(node.line, words[0], False), key, reading)
    return (str(program), *words[1:]) if isinstance(program, Path) else program


def _argument(text: str) -> str:
    if "\0" in text:
        raise ValueError("an argument has no zero byte")
    return text


def _words(text: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(_argument(text)))
    except ValueError as error:
        raise ValueError(f"the quotes in it do not fit: {error}") from None
    if not words:
        raise ValueError("expected a program and its arguments")
    return words


def _query(text: str) -> str:
    asked = _PARAMETER.findall(text)
    for name in asked:
        if name not in PARAMETERS:
            raise ValueError(f":{name} is no parameter{did_you_mean(name, PARAMETERS)}")
    if not asked:
        raise ValueError(
            "it does not ask about the key, so everybody would match: use :key, :base58 or :hex, "
            'as in "select 1 from members where key = :key"'
        )
    return text


def _database(node: Node, key: str, reading: Reading) -> Any:
    """The URL; a file of SQLite is found as other paths are."""
    found = one(database_url)(node, key, reading)
    if not isinstance(found, Url):
        return found
    if found.text.startswith("sqlite:"):
        file = path(Scalar(node.line, found.text.removeprefix("sqlite:///"), False), key, reading)
        return Url(f"sqlite:///{file}") if isinstance(file, Path) else file
    _guard(
        found,
        node.line,
        key,
        reading,
        "write the URL into a file of its own and name that: url_file: ./database.url",
    )
    return found


def _rpc_urls(node: Node, key: str, reading: Reading) -> Any:
    found = many(rpc_url)(node, key, reading) if isinstance(node, Items) else one(rpc_url)(node, key, reading)
    urls = (found,) if isinstance(found, Url) else found
    if urls == () and not (isinstance(node, Items) and node.items):
        reading.complain(node.line, key, "an empty list: nobody could be asked")
    for url in urls if isinstance(urls, tuple) else ():
        _guard(url, node.line, key, reading, "")
    return urls


def _guard(url: Url, line: int, key: str, reading: Reading, otherwise: str) -> None:
    """Complain of a secret that everybody on this machine can read."""
    file = Path(reading.file).absolute()
    if url.holds_secret and others_may_read(file):
        advice = f"chmod 600 {file}" + (f", or {otherwise}" if otherwise else "")
        reading.complain(
            line, key, f"it holds a secret, and others on this machine may read this file: {advice}"
        )


def _account(text: str) -> str:
    """A Solana address, which need not be anybody's key."""
    import base58

    try:
        size = len(base58.b58decode(text)) if len(text) <= 44 and text.isascii() else 0
    except ValueError:
        size = 0
    if size != 32:
        raise ValueError(f'"{text}" is not a Solana address (32 bytes in base58)')
    return text


def _amount(text: str) -> Decimal:
    """More than nothing: everybody has nothing."""
    try:
        amount = Decimal(text) if len(text) <= 40 and text.isascii() else None
    except InvalidOperation:
        amount = None
    if amount is None or not amount.is_finite():
        raise ValueError(f'"{text}" is not a number such as 100 or 0.5')
    if not 0 < amount < 2**64:
        raise ValueError(f"{text} is not more than 0" if amount <= 0 else f"{text} is more than there can be")
    if -int(amount.normalize().as_tuple().exponent) > _TOKEN_DECIMALS:
        raise ValueError(f"{text} has more than {_TOKEN_DECIMALS} decimals")
    return amount


def _seeds(node: Node, key: str, reading: Reading) -> Any:
    """One or several, the member's key among them: behind the others, unless `{key}` stands somewhere."""
    found = many(_seed)(node, key, reading) if isinstance(node, Items) else one(_seed)(node, key, reading)
    seeds = (found,) if isinstance(found, str) else found
    if not isinstance(seeds, tuple):
        return seeds
    if len(seeds) > _MOST_SEEDS:
        reading.complain(node.line, key, f"a program derives an address of at most {_MOST_SEEDS + 1} seeds")
    return seeds if KEY_SEED in seeds else (*seeds, KEY_SEED)


def _seed(text: str) -> str:
    """A text for itself, or `hex:…`, `pubkey:…`, `u64:…`."""
    kind, colon, rest = text.partition(":")
    size = len(text.encode())
    if colon and kind == "hex":
        try:
            size = len(bytes.fromhex(rest))
        except ValueError:
            raise ValueError(f'"{text}" is not hexadecimal') from None
    elif colon and kind == "pubkey":
        _account(rest)
        size = _SEED_BYTES
    elif colon and kind == "u64":
        if not (rest.isascii() and rest.isdigit() and len(rest) <= 20 and int(rest) < 1 << 64):
            raise ValueError(f'"{text}" is not a number of 64 bits')
        size = 8
    if not 1 <= size <= _SEED_BYTES:
        raise ValueError(f"a seed has 1 to {_SEED_BYTES} bytes")
    return text


_TIMEOUT = one(values.duration(0.05, 30.0))
_CACHE = one(values.duration(0.0, 30 * 86400.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePolicy(_Policy):
    """A file of keys, one a line."""

    type: str = "file"
    path: Path = setting(Path(), path)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptPolicy(_Policy):
    """A program that says by its exit code."""

    type: str = "script"
    command: tuple[str, ...] = setting((), _command)  # the program's path, and its arguments
    timeout_s: float = setting(2.0, _TIMEOUT, key="timeout")
    at_once: int = setting(8, one(values.whole(1, 64)))  # of them running
    cache_s: float | None = setting(
        None, _CACHE, key="cache"
    )  # for how long an answer stands; None: `recheck`


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabasePolicy(_Policy):
    """A query; a row in its result is a match."""

    type: str = "database"
    url: Url | None = setting(None, _database)  # from the file, if `url_file` names one
    url_file: Path | None = setting(None, path)
    query: str = setting("", one(_query))
    timeout_s: float = setting(5.0, _TIMEOUT, key="timeout")
    at_once: int = setting(4, one(values.whole(1, 64)))  # connections
    cache_s: float | None = setting(None, _CACHE, key="cache")


@dataclass(frozen=True, slots=True, kw_only=True)
class SolanaPolicy(_Policy):
    """What a wallet has. The key's Ed25519 form is the wallet."""

    type: str = "solana"
    rpc_url: tuple[Url, ...] = setting((), _rpc_urls)  # the first that answers
    check: str = ""  # one of `CHECKS`
    min_balance: Decimal | None = setting(None, one(_amount))  # in SOL, or in the token's own unit
    token_mint: str | None = setting(None, one(_account))
    mint: str | None = setting(None, one(_account))  # of an NFT
    collection: str | None = setting(None, one(_account))  # that an NFT is a verified member of
    program_id: str | None = setting(None, one(_account))
    seed: tuple[str, ...] = setting((), _seeds)  # of the address that the program derives
    timeout_s: float = setting(5.0, _TIMEOUT, key="timeout")
    cache_s: float | None = setting(None, _CACHE, key="cache")


PolicyConfig = FilePolicy | ScriptPolicy | DatabasePolicy | SolanaPolicy

# Which keys each check needs; where there are several tuples, those of just one
CHECKS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "sol_balance": (("min_balance",),),
    "token_balance": (("token_mint", "min_balance"),),
    "nft": (("mint",), ("collection",)),
    "allow_list": (("program_id", "seed"),),
}

_COMMON = ("action_if_match", "on_error", "optimistic")
_OF_CHECKS = tuple(dict.fromkeys(word for ways in CHECKS.values() for way in ways for word in way))
_SLOW = ("timeout", "cache")
KEYS_BY_TYPE: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "file": (("path",), _COMMON),
    "script": (("command",), (*_SLOW, "at_once", *_COMMON)),
    "database": (("query",), ("url", "url_file", *_SLOW, "at_once", *_COMMON)),
    "solana": (("rpc_url", "check"), (*_OF_CHECKS, *_SLOW, *_COMMON)),
}
_CLASSES: Mapping[str, type[PolicyConfig]] = {
    "file": FilePolicy,
    "script": ScriptPolicy,
    "database": DatabasePolicy,
    "solana": SolanaPolicy,
}


def read_policies(node: Node, key: str, reading: Reading) -> tuple[PolicyConfig, ...]:
    """The reader of `inbound.policies`."""
    if not isinstance(node, Items):
        if not (isinstance(node, Scalar) and node.is_null):
            reading.complain(
                node.line, key, "expected a list of policies, such as - {type: file, path: ./allowed.txt}"
            )
        return ()
    if len(node.items) > _MOST:
        reading.complain(node.line, key, f"more than {_MOST} policies")
        return ()
    found = (_policy(item, f"{key}[{at}]", reading) for at, item in enumerate(node.items))
    return tuple(policy for policy in found if policy is not None)


def _policy(node: Node, key: str, reading: Reading) -> PolicyConfig | None:
    typed = of_type(node, key, node.line, reading, KEYS_BY_TYPE, "a policy")
    if typed is None:
        return None
    kind, table = typed
    readers: dict[str, Reader] = {"check": one(values.choice(*CHECKS))} if kind == "solana" else {}
    made = _CLASSES[kind]
    given = read_fields(made, table, key, reading, readers)
    if given.get("optimistic") and given.get("action_if_match") == "deny":
        line = table.entries["optimistic"][0]
        reading.complain(
            line, f"{key}.optimistic", "it admits at once, which does not go with action_if_match: deny"
        )
    if kind == "database":
        given |= _where_the_database_is(table, key, given, reading)
    elif kind == "solana":
        _check_words(table, key, given, reading)
    return made(**given)


def _where_the_database_is(
    table: Table, key: str, given: Mapping[str, Any], reading: Reading
) -> dict[str, Any]:
    """The URL from the file that is named for it."""
    entries = table.entries
    if ("url" in entries) == ("url_file" in entries):
        what = "give one of them" if "url" in entries else "missing; or url_file, if it holds a password"
        reading.complain(table.line, f"{key}.url", what)
        return {}
    file = given.get("url_file")
    if not isinstance(file, Path):
        return {}
    line, place = entries["url_file"][0], f"{key}.url_file"
    try:
        text = read_secret(file).strip()
    except FileNotFoundError:
        reading.complain(line, place, f"{file}: No such file or directory")
    except KeyFileError as error:
        reading.complain(line, place, str(error))
    else:
        inside = Reading(str(file), file.parent, [])
        url = _database(Scalar(line, text, False), place, inside)
        for problem in inside.problems:
            reading.complain(line, place, f"{file}: {problem.message}")
        if isinstance(url, Url):
            return {"url": url}
    return {}


def _check_words(table: Table, key: str, given: Mapping[str, Any], reading: Reading) -> None:
    """Complain of what the check lacks, and of what belongs to another."""
    check = given.get("check")
    if check is None:
        return
    ways = CHECKS[check]
    there = [word for word in _OF_CHECKS if word in table.entries]
    known = {word for way in ways for word in way}
    for word in there:
        if word not in known:
            line = table.entries[word][0]
            reading.complain(
                line, f"{key}.{word}", f"the check {check} has no such key; it has {', '.join(sorted(known))}"
            )
    line = table.entries["check"][0]
    if len(ways) > 1:
        chosen = [way for way in ways if any(word in there for word in way)]
        if len(chosen) != 1:
            names = " or ".join(word for way in ways for word in way)
            reading.complain(line, f"{key}.check", f"the check {check} needs one of {names}")
        return
    for word in ways[0]:
        if word not in there:
            reading.complain(line, f"{key}.{word}", f"missing; the check {check} needs it")
    amount = given.get("min_balance")
    if (
        check == "sol_balance"
        and amount is not None
        and -int(amount.normalize().as_tuple().exponent) > _SOL_DECIMALS
    ):
        at = table.entries["min_balance"][0]
        reading.complain(
            at, f"{key}.min_balance", f"{amount} has more than {_SOL_DECIMALS} decimals, and SOL has no more"
        )
