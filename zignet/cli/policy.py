"""`zignet policy check`: may this key come in, and why? Asked of the configuration, and of the node if one runs."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from zignet.cli.contacts import book
from zignet.cli.errors import ExitCode, Fault
from zignet.cli.files import load
from zignet.cli.text import duration, printable
from zignet.contacts import NAME
from zignet.control.place import CONTROL_NAME
from zignet.policy.build import make_judge
from zignet.policy.check import Check, check, patient
from zignet.policy.judge import Judge
from zignet.policy.rules import Said

if TYPE_CHECKING:
    from rich.console import Console

    from zignet.config import Config
    from zignet.control.messages import Decided
    from zignet.identity import PublicKey

__all__ = ["Answer", "answer", "asked_of_node", "code", "key_of", "lines", "of_node", "show"]

Answer = tuple[Check, list[str]]  # and what the sources note

_SHORTEST_KEY = 32  # characters
_GLANCE_S = 0.2  # between two looks at what is waited for
_STYLES = {Said.MATCH: "green", Said.FAILED: "red", Said.NO_MATCH: ""}


def answer(path: Path | None, who: str, proto: str | None, port: int | None) -> Answer:
    """Ask the sources that the configuration names. Raises `Fault`, `ConfigError`."""
    config = load(path)
    if port is not None and proto == "icmp":
        raise Fault("icmp has no ports", ExitCode.USAGE)
    service = (proto or "tcp", port) if proto or port is not None else None
    contacts = _contacts(config)
    return asyncio.run(_ask(config, key_of(who, config, contacts), service, contacts))


def _contacts(config: Config) -> dict[PublicKey, str]:
    """The names of the node's contacts. Raises `Fault`."""
    directory = config.state_dir / CONTROL_NAME
    if not (directory / NAME).exists():
        return {}
    with book(directory) as contacts:
        return {contact.key: contact.name for contact in contacts}


def key_of(who: str, config: Config, contacts: dict[PublicKey, str]) -> PublicKey:
    """The key of a peer's or a contact's name, or in any notation. Raises `Fault`."""
    from zignet.identity import BadKey, PublicKey
    from zignet.routing import did_you_mean

    named = {name.lower(): key for key, name in contacts.items()}
    named |= {peer.name.lower(): peer.key for peer in config.peers}
    if (key := named.get(who.lower())) is not None:
        return key
    try:
        return PublicKey.from_text(who)
    except BadKey as error:
        if len(who) >= _SHORTEST_KEY:
            raise Fault(str(error), ExitCode.USAGE) from None
        hint = did_you_mean(who, named)
        message = f'"{printable(who)}" is neither the name of a peer or contact nor a key{hint}'
        raise Fault(message, ExitCode.USAGE) from None


async def _ask(
    config: Config, key: PublicKey, service: tuple[str, int | None] | None, contacts: dict[PublicKey, str]
) -> Answer:
    if not config.inbound.policies:
        return await check(config, None, key, service, contacts), []
    judge = make_judge(patient(config.inbound), time.monotonic)
    waiting = asyncio.create_task(_say_what_is_waited_for(judge))
    try:
        found = await check(config, judge, key, service, contacts)
        notes = [f"{status.label}: {note}" for status in judge.status() for note in status.notes]
        return found, notes
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await judge.close()


async def _say_what_is_waited_for(judge: Judge) -> None:
    """On a terminal, after a moment."""
    if not sys.stderr.isatty():
        return
    from rich.console import Console
    from rich.markup import escape

    await asyncio.sleep(_GLANCE_S)
    with Console(stderr=True).status("asking") as shown:
        since = time.monotonic()
        while True:
            asked = ", ".join(escape(printable(each.label)) for each in judge.status() if each.pending)
            shown.update(f"asking {asked} … {duration(time.monotonic() - since)}")
            await asyncio.sleep(_GLANCE_S)


def asked_of_node(state_dir: Path, key: str) -> Decided | None:
    """What the node that runs says, which may have asked earlier, and asks as another user. None: none can be asked."""
    from zignet.control.client import Client, ControlError

    try:
        with Client(state_dir) as client:
            return client.policy_check(key)
    except ControlError:
        return None


def of_node(decided: Decided) -> str:
    """The same as a sentence."""
    if decided["allowed"] is None:
        return printable(f"The running node can't tell: {decided['reason']}.")
    verb = "admits" if decided["allowed"] else "does not admit"
    return printable(f"The running node {verb} it: {decided['reason']}")


def code(found: Check) -> ExitCode:
    """What the command returns."""
    service = found["service"]
    if found["allowed"] and (service is None or service["allowed"]):
        return ExitCode.OK
    return ExitCode.FAILURE if found["failed"] else ExitCode.DENIED


def show(console: Console, found: Check, notes: list[str]) -> None:
    """A line for each rule, and what follows."""
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    who = f"{found['peer']} ({found['key']})" if found["peer"] else found["key"]
    verdict = "[green]may come in[/]" if found["allowed"] else "[red]may not come in[/]"
    console.print(f"[bold]{escape(who)}[/] {verdict}", soft_wrap=True)
    grid = Table.grid(padding=(0, 2))
    for style in ("cyan", "", ""):
        grid.add_column(style=style, no_wrap=style == "cyan", overflow="fold")
    for step in found["steps"]:
        said = Text(
            step["said"], "dim" if step["said"] == "not asked" else _STYLES.get(Said(step["said"]), "")
        )
        about = ": ".join(part for part in (step["source"], step["reason"]) if part)
        grid.add_row(f"  {step['rule']}", said, Text(printable(about)))
    console.print(grid)
    print("\n".join(lines(found, notes)))


def lines(found: Check, notes: list[str]) -> list[str]:
    """What decided, for how long, what may be reached, and what else should be known."""
    valid = f" Asked again in {duration(found['valid_s'])}." if found["valid_s"] is not None else ""
    told = [printable(found["reason"] + valid)]
    if (service := found["service"]) is not None:
        what = service["proto"] if service["port"] is None else f"{service['proto']} port {service['port']}"
        may = "may be reached" if service["allowed"] else "may not be reached"
        told.append(printable(f"{what} {may}: {service['reason']}."))
    return told + [f"note: {printable(note)}" for note in notes]
