"""`zignet status`: the running node at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zignet.cli.text import duration, printable, size
from zignet.control.messages import ExitStatus, Status

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

__all__ = ["show"]


def show(console: Console, status: Status) -> None:
    """Print the whole picture."""
    console.print(_facts(status))
    console.print()
    console.print(_exits(status["exits"]))
    for exit_ in status["exits"]:
        if exit_["last_error"]:
            age = exit_["last_error_age_s"] or 0
            console.print(
                f"[yellow]{_safe(exit_['name'])}[/]: {_safe(exit_['last_error'])} ({duration(age)} ago)"
            )
    for source in status["control"]["sources"] if status["control"] is not None else ():
        if source["last_error"]:
            age = source["last_error_age_s"] or 0
            console.print(
                f"[yellow]{_safe(source['label'])}[/]: {_safe(source['last_error'])} ({duration(age)} ago)"
            )
        for note in source["notes"]:
            console.print(f"[yellow]{_safe(source['label'])}[/]: {_safe(note)}")
    if error := status["config"]["last_reload_error"]:
        console.print(f"[red]the last reload failed, the older configuration is in force:[/] {_safe(error)}")


def _facts(status: Status) -> RenderableType:
    from rich.table import Table

    interface, flows, totals, config = (
        status["interface"],
        status["flows"],
        status["totals"],
        status["config"],
    )
    addresses = " ".join(filter(None, (interface["address"], interface["address6"])))
    path = config["path"] or "built-in defaults"
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows = {
        "ZigNet": f"{status['version']} ({'compiled' if status['compiled'] else 'interpreted'}), "
        f"{status['state']} for {duration(status['uptime_s'])}, process {status['pid']}, "
        f"{size(status['memory'])}B",
        "interface": f"{interface['name']}  {addresses}  mtu {interface['mtu']}  "
        f"listener {interface['listener']}  offload {interface['offload']}",
        "mode": f"{status['mode']}, {_count(status['rules'], 'rule')}",
        "configuration": f"{path}, read {duration(config['loaded_age_s'])} ago",
        "flows": f"{flows['tcp']} tcp ({flows['half_open']} half open), {flows['udp']} udp, "
        f"{flows['icmp']} icmp; limit {flows['limit']}{_elsewhere(status)}",
        "since start": f"{_count(totals['flows'], 'flow')}, {size(totals['up'])}B up, "
        f"{size(totals['down'])}B down, {totals['packets_in']} packets in, {totals['packets_out']} out",
    }
    rows |= _control(status)
    rows |= _peers(status)
    rows |= _names(status)
    if totals["dropped"]:
        rows["dropped"] = ", ".join(
            f"{count} {reason}" for reason, count in totals["dropped"].items() if count
        )
    for key, value in rows.items():
        if value:
            table.add_row(key, _safe(value))
    return table


def _elsewhere(status: Status) -> str:
    """Flows that the NAT does not have."""
    straight = status["flows"]["past_nat"]
    return f"; {straight} of them straight to peers" if straight else ""


def _control(status: Status) -> dict[str, str]:
    """The process that asks the policies and serves the API."""
    control = status["control"]
    if control is None:
        return {}
    since = f" for {duration(control['uptime_s'])}, process {control['pid']} of {control['user']}"
    memory = f", {size(control['memory'])}B" if control["memory"] else ""
    rows = {"control process": f"{control['state']}{since if control['pid'] else ''}{memory}"}
    if control["restarts"]:
        age = duration(control["last_error_age_s"] or 0)
        rows["started again"] = (
            f"{_count(control['restarts'], 'time')}, {age} ago because {control['last_error']}"
        )
    for number, source in enumerate(control["sources"], 1):
        rows[f"policy {number}"] = (
            f"{source['label']}: {source['asked']} asked, {source['matched']} matched, {source['failed']} failed"
        )
    return rows


def _peers(status: Status) -> dict[str, str]:
    """Who this node is, and how its peers are."""
    identity, peers = status["identity"], status["peers"]
    if identity is None or peers is None:
        return {}
    load = ", under load: cookies are asked for" if peers["under_load"] else ""
    rows = {
        "identity": f"{identity['key']}  {identity['listen']}  {identity['cipher']}",
        "peers": f"{_count(peers['known'], 'peer')}, {peers['connected']} connected, {peers['pending']} not "
        f"confirmed, {_count(peers['handshakes'], 'handshake')}{load}",
    }
    if peers["dropped"]:
        rows["of peers, dropped"] = ", ".join(
            f"{count} {reason}" for reason, count in peers["dropped"].items()
        )
    return rows


def _names(status: Status) -> dict[str, str]:
    """Who asks for names, and what became of it."""
    names = status["names"]
    if names is None:
        return {}
    answered = ", ".join(f"{count} {how}" for how, count in names["answered"].items() if count)
    upstreams = " ".join(names["upstreams"]) or "none"
    rows = {
        "names": f"asked at {' '.join(names['listen'])}; {answered or 'no queries yet'}",
        "name servers": f"{upstreams}; {names['outstanding']} of {_count(names['asked'], 'query', 'queries')} open",
        "fake addresses": f"{names['names']} of {names['room']} given, {' '.join(names['pools'])}",
    }
    if names["dropped"]:
        rows["of names, dropped"] = ", ".join(f"{n} {why}" for why, n in names["dropped"].items())
    return rows


def _exits(exits: list[ExitStatus]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("exit", "type", "address"):
        table.add_column(heading, no_wrap=True)
    for heading in ("flows", "up", "down", "dials", "failures"):
        table.add_column(heading, justify="right", no_wrap=True)
    for exit_ in exits:
        failures = str(exit_["failures"])
        table.add_row(
            _safe(exit_["name"]),
            exit_["type"],
            _safe(exit_["address"]),
            str(exit_["flows"]),
            size(exit_["up_bytes"]),
            size(exit_["down_bytes"]),
            str(exit_["dials"]),
            f"[yellow]{failures}[/]" if exit_["failures"] else failures,
        )
    return table


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def _safe(text: str) -> str:
    from rich.markup import escape

    return escape(printable(text))
