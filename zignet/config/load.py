"""From a file to a `Config`: sections, exits, rule lines, and what must fit together."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from zignet.config.document import MAX_BYTES, Items, Node, Scalar, Table, compose
from zignet.config.files import read_text
from zignet.config.model import (
    AdminConfig,
    Config,
    DnsConfig,
    ExitConfig,
    InboundConfig,
    LimitsConfig,
    OfferConfig,
    ProxyConfig,
    SniffConfig,
    TimeoutsConfig,
    TunConfig,
)
from zignet.config.offer import ALL, check_offer
from zignet.config.peers import Roll, in_own_range
from zignet.config.problem import ConfigError, Problem
from zignet.config.reader import Reader, Reading, entries, of_type, path, read_fields, read_section
from zignet.config.services import check_services
from zignet.routing import RESERVED, Lines, check_lines, read_lines

__all__ = ["KEYS_BY_TYPE", "load_config", "parse_config"]

# Which keys an exit may have, by its type; the ones it must have first
KEYS_BY_TYPE: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "socks5": (("address",), ("username", "password_file", "udp", "interface")),
    "http": (("address",), ("username", "password_file", "interface")),
    "direct": ((), ("interface",)),
    "block": ((), ()),
}

MAX_RULE_BYTES = 64 << 20  # of a file of rules
_MOST_RULE_ERRORS = 20  # looked for; a list that is all wrong is wrong for one reason
_NOT_IN_NAMES = (",", "->", "→")
_OTHERS_MAY_READ = stat.S_IROTH | stat.S_IWOTH


def load_config(file: Path | str) -> Config:
    """The configuration in a file. Raises `ConfigError` with every mistake that was found."""
    try:
        text = read_text(Path(file), MAX_BYTES)
    except ValueError as error:
        raise ConfigError([Problem(str(file), 0, "", str(error))]) from None
    return parse_config(text, file)


def parse_config(text: str, file: Path | str = "zignet.yaml") -> Config:
    """The configuration in a text; `file` is for messages, and relative paths start at its folder."""
    if len(text) > MAX_BYTES:
        raise ConfigError([Problem(str(file), 0, "", f"larger than {MAX_BYTES >> 20} MiB")])
    root, problems = compose(text, str(file))
    reading = Reading(str(file), Path(file).absolute().parent, problems)
    if root is None or (isinstance(root, Scalar) and root.is_null):
        root = Table(1, {})
    roll = Roll()
    config = read_section(
        Config,
        root,
        "",
        reading,
        {
            "tun": _section(TunConfig),
            "proxy": _section(ProxyConfig),
            "limits": _section(LimitsConfig),
            "sniff": _section(SniffConfig),
            "timeouts": _section(TimeoutsConfig),
            "dns": _section(DnsConfig),
            "exits": _exits,
            "routes": _routes,
            "peers": roll.read,
            "inbound": _section(InboundConfig),
            "exit": _section(OfferConfig),
            "admin": _section(AdminConfig),
        },
    )
    _check_together(config, root, reading)
    config = _with_exit_service(config)
    roll.check(config, reading)
    if reading.problems:
        raise ConfigError(
            sorted(reading.problems, key=lambda problem: (problem.file != str(file), problem.line))
        )
    return config


def _section(kind: type) -> Reader:
    return partial(read_section, kind)


def _with_exit_service(config: Config) -> Config:
    """`exit: internet` among the services is another way to say `exit.allow`."""
    for service in config.inbound.services or ():
        if service.exit:
            return replace(
                config, exit=replace(config.exit, allow=ALL if service.allow is None else service.allow)
            )
    return config


# exits


def _exits(node: Node, key: str, reading: Reading) -> dict[str, ExitConfig]:
    exits: dict[str, ExitConfig] = {}
    for name, (line, child) in entries(node, key, reading).items():
        place = f"{key}.{name}"
        wrong = _wrong_name(name)
        if wrong:
            reading.complain(line, place, wrong)
        exits[name] = _exit(name, child, place, line, reading)
    return exits


def _wrong_name(name: str) -> str:
    if name in RESERVED:
        return f'"{name}" is always there, and is not changed; choose another name'
    if not name or name != name.strip() or not name.isprintable():
        return "an exit's name is some text without blanks around it"
    for part in _NOT_IN_NAMES:
        if part in name:
            return f"an exit's name can't hold \"{part}\": it means something in a rule"
    if name.lower() in ("by-name", "no-resolve", "packet") or name.lower().endswith((" by-name", " packet")):
        return "that is an option of rules"
    return ""


def _exit(name: str, node: Node, key: str, line: int, reading: Reading) -> ExitConfig:
    """One exit. One of no or of an unknown type stays as a name, so that rules about it are not wrong too."""
    if "password" in (table := entries(node, key, reading)):
        reading.complain(
            table["password"][0],
            f"{key}.password",
            "a password does not belong in the configuration, which is shown and shared; "
            "write it into a file of its own (chmod 600) and name that: password_file: ./name",
        )
        node = Table(node.line, {word: entry for word, entry in table.items() if word != "password"})
    typed = of_type(node, key, line, reading, KEYS_BY_TYPE, "an exit")
    if typed is None:
        return ExitConfig(name, "block")
    kind, rest = typed
    readers: dict[str, Reader] = {"password_file": _password_file}
    if "password_file" in rest.entries and "username" not in table:
        at = rest.entries["password_file"][0]
        reading.complain(at, f"{key}.password_file", "there is no username beside it")
    return ExitConfig(name, kind, **read_fields(ExitConfig, rest, key, reading, readers))


def _password_file(node: Node, key: str, reading: Reading) -> Any:
    """The path, once it is seen that the file is there and not open to everyone."""
    found = path(node, key, reading)
    if isinstance(found, Path):
        try:
            mode = found.stat().st_mode
        except OSError as error:
            reading.complain(node.line, key, f"{found}: {error.strerror}")
            return found
        if not stat.S_ISREG(mode):
            reading.complain(node.line, key, f"{found} is not a file")
        elif mode & _OTHERS_MAY_READ:
            reading.complain(node.line, key, f"everyone on this machine can read it: chmod 600 {found}")
        elif not os.access(found, os.R_OK):
            reading.complain(node.line, key, f"{found} can't be read by this user")
    return found


# routes


def _routes(node: Node, key: str, reading: Reading) -> Lines:
    """Rule lines, with the lines of the files that are named among them in their place."""
    if isinstance(node, Items):
        return Lines(_rule_lines(node, key, reading))
    if not (isinstance(node, Scalar) and node.is_null):
        reading.complain(node.line, key, 'expected a list of rules, such as - "*.example.com -> direct"')
    return Lines()


def _rule_lines(node: Items, key: str, reading: Reading) -> Iterator[tuple[str, str, int]]:
    for at, item in enumerate(node.items):
        place = f"{key}[{at}]"
        if isinstance(item, Scalar):
            yield item.text, reading.file, item.line
        elif isinstance(item, Table) and item.entries.keys() == {"file"}:
            yield from _rules_of_file(item.entries["file"][1], f"{place}.file", reading)
        else:
            reading.complain(
                item.line,
                place,
                'expected a rule line or "file: ./rules.txt"; put quotes around a rule with a colon',
            )


def _rules_of_file(node: Node, key: str, reading: Reading) -> Iterator[tuple[str, str, int]]:
    found = path(node, key, reading)
    if isinstance(found, Path):
        try:
            text = read_text(found, MAX_RULE_BYTES)
        except ValueError as error:
            reading.complain(node.line, key, str(error))
            return
        yield from read_lines(text.splitlines(), str(found))


# together


def _check_together(config: Config, root: Node, reading: Reading) -> None:
    peers = {peer.name for peer in config.peers} if config.routes else set()
    for error in islice(check_lines(config.routes, config.exits, peers), _MOST_RULE_ERRORS):
        file, _, number = error.where.rpartition(":")
        key = "routes" if file == reading.file else ""
        reading.problems.append(Problem(file, int(number), key, error.message))
    if config.limits.half_open > config.limits.flows:
        line = _line_of(root, "limits", "half_open") or _line_of(root, "limits", "flows")
        reading.complain(line, "limits.half_open", "more than limits.flows, which it is a part of")
    mtu_line = _line_of(root, "tun", "peer_mtu")
    if mtu_line and config.tun.peer_mtu > config.tun.mtu:
        reading.complain(mtu_line, "tun.peer_mtu", f"more than tun.mtu, which is {config.tun.mtu}")
    _check_pools(config, root, reading)
    if config.dns is not None and config.dns.mode == "hijack" and config.proxy.mode != "global":
        reading.complain(
            _line_of(root, "dns", "mode"),
            "dns.mode",
            f"hijack answers the queries that enter {config.tun.name}, and with `proxy.mode: {config.proxy.mode}` none "
            "do; set `proxy: {mode: global}`, or `dns: {mode: auto}`",
        )
    if len(config.listen) > 1:
        reading.complain(
            _line_of(root, "listen"),
            "listen",
            "one socket serves all peers, so one address is all there can be; udp://[::]:51830 is IPv4 and IPv6",
        )
    check_offer(config.exit, config.peers, _line_of(root, "exit", "allow"), reading)
    if config.inbound.services:
        names = [peer.name for peer in config.peers]
        check_services(config.inbound.services, names, bool(config.exit.allow), reading)
    for key in sorted(str(key) for key in config.inbound.allow & config.inbound.deny):
        reading.complain(_line_of(root, "inbound", "deny"), "inbound.deny", f"{key} is in inbound.allow, too")
    for name, settings in config.exits.items():
        if settings.address is not None and in_own_range(settings.address, config.tun):
            reading.complain(
                _line_of(root, "exits", name, "address"),
                f"exits.{name}.address",
                f"{settings.address} lies in ZigNet's own range (tun.range, tun.range6): "
                "its flows would go in circles",
            )


def _check_pools(config: Config, root: Node, reading: Reading) -> None:
    if config.dns is None:
        return
    for key, pool, other, own in (
        ("fake_range", config.dns.fake_range, "tun.range", config.tun.range),
        ("fake_range6", config.dns.fake_range6, "tun.range6", config.tun.range6),
    ):
        if pool.overlaps(own):
            line = _line_of(root, "dns", key) or _line_of(root, "dns")
            reading.complain(line, f"dns.{key}", f"{pool} overlaps {other}, which is {own}")


def _line_of(node: Node, *keys: str) -> int:
    """The line of a key, or 0 where the file does not have it."""
    line = 0
    for key in keys:
        if not isinstance(node, Table) or key not in node.entries:
            return 0
        line, node = node.entries[key]
    return line
