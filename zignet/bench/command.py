"""`zignet bench`: the laptop benchmark, for users."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from zignet.bench.engines import ENGINES, Engine, EngineFailure
from zignet.bench.measures import MEASURES, Plan, Result
from zignet.bench.report import PlotUnavailable, as_json, plot, tables
from zignet.bench.world import World

__all__ = ["bench", "run"]

PLAIN_WIDTH = 120  # columns, where there is no terminal to ask
QUICK = Plan(seconds=1.0, connections=4_000, then=500, flows=500, rounds=1, pings=800)


def run(
    names: Sequence[str],
    exits: Sequence[str],
    measures: Sequence[str],
    plan: Plan,
    mtu: int | None,
    progress: Progress,
) -> list[Result]:
    """Measure engines in interleaved rounds, so that a busy minute of the machine hits all of them."""
    results = []
    steps = plan.rounds * len(exits) * len(names) * len(measures)
    task = progress.add_task("building the lab", total=steps)
    with World() as world:
        for number in range(plan.rounds):
            for exit_ in exits:
                for name in names:
                    result = Result(exit_, name, number)
                    results.append(result)
                    engine = ENGINES[name](world, exit_ == "socks5", mtu)
                    progress.update(task, description=f"{name}: starting")
                    try:
                        engine.start()
                        for key in measures:
                            progress.update(task, description=f"{name}, {exit_}: {MEASURES[key].title}")
                            one(world, engine, key, plan, result)
                            progress.advance(task)
                    except EngineFailure as error:
                        result.errors["start"] = str(error)
                        progress.advance(task, len(measures))
                    finally:
                        engine.stop()
    progress.update(task, description="done")
    return results


def one(world: World, engine: Engine, key: str, plan: Plan, result: Result) -> None:
    """One measure of one engine, its figures or its error into `result`."""
    measure = MEASURES[key]
    if measure.needs not in engine.carries:
        return
    try:
        result.figures |= measure.run(world, engine, plan)
    except (RuntimeError, OSError, ValueError) as error:
        result.errors[key] = str(error)


def _listed(text: str, known: Sequence[str], what: str) -> list[str]:
    """The names in a comma-separated option. Raises typer.BadParameter."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"no {what} {name!r}; there are {', '.join(known)}")
    return names


def _engines(text: str, console: Console) -> list[str]:
    """The engines to run; those that are not installed are left out unless they were asked for."""
    if text:
        names = _listed(text, list(ENGINES), "engine")
        for name in names:
            if why := ENGINES[name].missing():
                raise typer.BadParameter(f"{name} cannot run here: {why}")
        return names
    for name, engine in ENGINES.items():
        if why := engine.missing():
            console.print(f"without {name}: {why}", style="dim", markup=False)
    return [name for name, engine in ENGINES.items() if not engine.missing()]


def bench(
    engines: Annotated[str, typer.Option(help="Comma-separated; default: all that are installed.")] = "",
    exit_: Annotated[str, typer.Option("--exit", help="socks5, direct, or both with a comma.")] = "socks5",
    measure: Annotated[str, typer.Option(help=f"Of {', '.join(MEASURES)}; default: all.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="One short round.")] = False,
    seconds: Annotated[float | None, typer.Option(help="Of each throughput.", min=0.2)] = None,
    rounds: Annotated[int | None, typer.Option(help="Medians are taken over them.", min=1)] = None,
    flows: Annotated[int | None, typer.Option(help="Idle flows for memory; try 10000.", min=1)] = None,
    mtu: Annotated[int | None, typer.Option(help="One MTU for all TUNs; default: each engine's own.")] = None,
    as_json_: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
    plot_: Annotated[Path | None, typer.Option("--plot", help="Draw a PNG.", metavar="FILE.png")] = None,
) -> None:
    """Measure this machine: ZigNet beside no proxy, the kernel's REDIRECT and other engines.

    Everything happens in network namespaces that are made for it and removed; nothing leaves the machine.
    """
    progress_console = Console(stderr=True)
    if os.geteuid() != 0:
        progress_console.print("zignet bench makes network namespaces: run it as root", style="red")
        raise typer.Exit(2)
    names = _engines(engines, progress_console)
    exits = _listed(exit_, ("socks5", "direct"), "exit")
    measures = _listed(measure, list(MEASURES), "measure") if measure else list(MEASURES)
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
        results = run(names, exits, [key for key in MEASURES if key in measures], plan, mtu, progress)
    if as_json_:
        typer.echo(json.dumps(as_json(results, plan, mtu), indent=2))
    else:
        console = Console()
        tables(results, console if console.is_terminal else Console(width=PLAIN_WIDTH))
    if plot_ is not None:
        try:
            plot(results, plot_)
        except PlotUnavailable as error:
            progress_console.print(str(error), style="red")
            raise typer.Exit(1) from error
    if any(result.errors for result in results if result.engine == "zignet"):
        raise typer.Exit(1)
