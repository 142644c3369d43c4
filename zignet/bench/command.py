"""`zignet bench`: the laptop benchmark, for users."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from zignet.bench.engine import Engine, EngineFailure
from zignet.bench.kinds import LAPTOP, TUNNEL, Kind
from zignet.bench.measures import Measure, Plan, Result, add_differences
from zignet.bench.report import PlotUnavailable, as_json, plot, tables

__all__ = ["bench", "run"]

PLAIN_WIDTH = 120  # columns, where there is no terminal to ask
QUICK = Plan(seconds=1.0, connections=4_000, then=500, flows=500, rounds=1, pings=800)


def run(
    kind: Kind,
    names: Sequence[str],
    ways: Sequence[str],
    measures: Sequence[str],
    plan: Plan,
    mtu: int | None,
    progress: Progress,
) -> list[Result]:
    """Measure engines in interleaved rounds, so that a busy minute of the machine hits all of them."""
    results = []
    steps = plan.rounds * len(ways) * len(names) * len(measures)
    task = progress.add_task("building the lab", total=steps)
    with kind.world() as world:
        for number in range(plan.rounds):
            for way in ways:
                one_round = [Result(way, name, number) for name in names]
                results += one_round
                for result in one_round:
                    engine = kind.engines[result.engine](world, way, mtu)
                    progress.update(task, description=f"{engine.name}: starting")
                    try:
                        engine.start()
                        for key in measures:
                            measure = kind.measures[key]
                            what = f"{engine.name}, {kind.ways[way]}: {measure.title}"
                            progress.update(task, description=what)
                            one(engine, key, measure, plan, result)
                            progress.advance(task)
                    except EngineFailure as error:
                        result.errors["start"] = str(error)
                        progress.advance(task, len(measures))
                    finally:
                        engine.stop()
                add_differences(one_round, kind.bare)
    progress.update(task, description="done")
    return results


def one(engine: Engine[Any], key: str, measure: Measure, plan: Plan, result: Result) -> None:
    """One measure of one engine, its figures or its error into `result`."""
    if measure.needs not in engine.carries:
        return
    try:
        result.figures |= measure.run(engine, plan)
    except (RuntimeError, OSError, ValueError) as error:
        result.errors[key] = str(error)


def _listed(text: str, known: Sequence[str], what: str) -> list[str]:
    """The names in a comma-separated option. Raises typer.BadParameter."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"no {what} {name!r}; there are {', '.join(known)}")
    return names


def _engines(kind: Kind, text: str, console: Console) -> list[str]:
    """The engines to run; those that are not installed are left out unless they were asked for."""
    if text:
        names = _listed(text, list(kind.engines), "engine")
        for name in names:
            if why := kind.engines[name].missing():
                raise typer.BadParameter(f"{name} cannot run here: {why}")
        return names
    for name, engine in kind.engines.items():
        if why := engine.missing():
            console.print(f"without {name}: {why}", style="dim", markup=False)
    return [name for name, engine in kind.engines.items() if not engine.missing()]


def _ways(tunnel: bool, exit_: str | None, flows: int | None) -> list[str]:
    """The tasks of the engines. Raises typer.BadParameter for options of the other kind of bench."""
    if not tunnel:
        return _listed(exit_ or "socks5", list(LAPTOP.ways), "exit")
    if exit_ is not None or flows is not None:
        raise typer.BadParameter("--exit and --flows are for proxies: a tunnel has neither")
    return list(TUNNEL.ways)


def bench(
    tunnel: Annotated[
        bool, typer.Option("--tunnel", help="Between two nodes, beside other tunnels.")
    ] = False,
    engines: Annotated[str, typer.Option(help="Comma-separated; default: all that are installed.")] = "",
    exit_: Annotated[
        str | None, typer.Option("--exit", help="socks5 (default), direct, or both with a comma.")
    ] = None,
    measure: Annotated[
        str, typer.Option(help=f"Of {', '.join(LAPTOP.measures)}; default: all that there are.")
    ] = "",
    quick: Annotated[bool, typer.Option("--quick", help="One short round.")] = False,
    seconds: Annotated[float | None, typer.Option(help="Of each throughput.", min=0.2)] = None,
    rounds: Annotated[int | None, typer.Option(help="Medians are taken over them.", min=1)] = None,
    flows: Annotated[int | None, typer.Option(help="Idle flows for memory; try 10000.", min=1)] = None,
    mtu: Annotated[
        int | None, typer.Option(help="One MTU for all TUNs; default: each engine's own.", min=576, max=65535)
    ] = None,
    as_json_: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
    plot_: Annotated[Path | None, typer.Option("--plot", help="Draw a PNG.", metavar="FILE.png")] = None,
) -> None:
    """Measure this machine: ZigNet beside no proxy, the kernel's REDIRECT and other engines.

    With --tunnel: two nodes beside the bare link, wireguard-go and Nebula.

    Everything happens in network namespaces that are made for it and removed; nothing leaves the machine.
    """
    progress_console = Console(stderr=True)
    if os.geteuid() != 0:
        progress_console.print("zignet bench makes network namespaces: run it as root", style="red")
        raise typer.Exit(2)
    kind = TUNNEL if tunnel else LAPTOP
    ways = _ways(tunnel, exit_, flows)
    names = _engines(kind, engines, progress_console)
    measures = _listed(measure, list(kind.measures), "measure") if measure else list(kind.measures)
    base = QUICK if quick else Plan()
    plan = Plan(
        seconds=seconds or base.seconds,
        connections=base.connections,
        then=base.then,
        flows=flows or base.flows,
        rounds=rounds or base.rounds,
        pings=base.pings,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=progress_console, transient=True) as progress:
        results = run(
            kind, names, ways, [key for key in kind.measures if key in measures], plan, mtu, progress
        )
    if as_json_:
        typer.echo(json.dumps(as_json(kind, results, plan, mtu), indent=2))
    else:
        console = Console()
        tables(kind, results, console if console.is_terminal else Console(width=PLAIN_WIDTH))
    if plot_ is not None:
        try:
            plot(kind, results, plot_)
        except PlotUnavailable as error:
            progress_console.print(str(error), style="red", markup=False)
            raise typer.Exit(1) from error
    if any(result.errors for result in results if result.engine in kind.bases):
        raise typer.Exit(1)
