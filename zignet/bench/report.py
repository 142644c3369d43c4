"""What a bench found: a table for people, JSON for programs, a picture for documents."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from zignet.bench.engines import ENGINES
from zignet.bench.measures import FIGURES, Plan, Result, medians

__all__ = ["PlotUnavailable", "as_json", "plot", "tables"]

BASE = "zignet"  # ratios are to this engine where it ran
TABLES = {
    "throughput": ("up1", "down1", "up10", "down10", "cpu", "udp", "udp_lost"),
    "connections and latency": ("conn", "conn_failed", "stalled", "tcp50", "tcp99", "icmp50", "icmp99"),
    "memory and idle flows": ("start", "per_flow", "flows", "crossed", "lost_flows"),
}
PICTURED = ("up1", "down1", "up10", "down10", "conn", "udp", "tcp50", "per_flow")


class PlotUnavailable(Exception):
    """There is no matplotlib; the text says how to get it."""


def as_json(results: Sequence[Result], plan: Plan, mtu: int | None) -> dict[str, Any]:
    """Everything: the machine, the plan, each round, the medians and the ratios to ZigNet."""
    middle = medians(results)
    return {
        "machine": {
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        },
        "versions": {name: ENGINES[name].version() for name in {result.engine: None for result in results}},
        "plan": asdict(plan) | {"mtu": mtu},
        "units": {key: figure.unit for key, figure in FIGURES.items()},
        "rounds": [asdict(result) for result in results],
        "medians": middle,
        "ratios": {exit_: _ratios(engines) for exit_, engines in middle.items()},
    }


def _ratios(engines: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """ZigNet's figure over the other engine's, for each engine."""
    base = engines.get(BASE, {})
    return {
        name: {key: base[key] / value for key, value in figures.items() if key in base and value}
        for name, figures in engines.items()
        if name != BASE
    }


def tables(results: Sequence[Result], console: Console) -> None:
    """Print a table for each exit and kind of figure, with ZigNet's ratio to the other engines."""
    for exit_, engines in medians(results).items():
        ratios = _ratios(engines)
        for title, keys in TABLES.items():
            shown = [key for key in keys if any(key in figures for figures in engines.values())]
            if not shown:
                continue
            table = Table(title=f"{title}, exit {exit_}", title_justify="left")
            table.add_column("engine")
            for key in shown:
                figure = FIGURES[key]
                table.add_column(f"{figure.title}\n{figure.unit}", justify="right")
            for name, figures in engines.items():
                cells = [_cell(key, figures.get(key), ratios.get(name, {}).get(key)) for key in shown]
                table.add_row(name, *cells, style="bold" if name == BASE else "")
            console.print(table)
    if len({result.engine for result in results}) > 1 and any(result.engine == BASE for result in results):
        console.print("×: ZigNet's figure divided by this engine's, in this run.")
    for result in results:
        for what, error in result.errors.items():
            console.print(
                f"{result.engine}, exit {result.exit}, round {result.round + 1}, {what}: {error}",
                style="red",
                markup=False,
            )


def _cell(key: str, value: float | None, ratio: float | None) -> str:
    if value is None:
        return "–"
    text = f"{value:,.{FIGURES[key].digits}f}"
    return f"{text} [dim]×{ratio:.2f}[/dim]" if ratio else text


def plot(results: Sequence[Result], path: Path) -> None:
    """Bars, one panel for each figure, one colour for each engine. Raises PlotUnavailable."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise PlotUnavailable("a picture needs matplotlib: pip install zignet[plot]") from error
    mpl.use("Agg")
    from matplotlib import pyplot

    middle = medians(results)
    names = list(dict.fromkeys(result.engine for result in results))
    shown = [
        key for key in PICTURED if any(key in f for engines in middle.values() for f in engines.values())
    ]
    columns = min(4, len(shown)) or 1
    rows = -(-len(shown) // columns) or 1
    picture, axes = pyplot.subplots(rows, columns, figsize=(3.4 * columns, 2.9 * rows), squeeze=False)
    colours = pyplot.get_cmap("tab10")
    width = 0.8 / max(1, len(names))
    for panel, key in zip(axes.flat, shown, strict=False):
        for place, name in enumerate(names):
            heights = [engines.get(name, {}).get(key, 0.0) for engines in middle.values()]
            where = [index + (place - (len(names) - 1) / 2) * width for index in range(len(heights))]
            bars = panel.bar(where, heights, width, label=name, color=colours(place))
            panel.bar_label(
                bars, [f"{h:,.{FIGURES[key].digits}f}" if h else "" for h in heights], fontsize=6, rotation=90
            )
        figure = FIGURES[key]
        better = "higher" if figure.higher_is_better else "lower"
        panel.set_title(f"{figure.title}, {figure.unit} ({better} is better)", fontsize=8)
        panel.set_xticks(range(len(middle)), [f"exit {exit_}" for exit_ in middle], fontsize=8)
        panel.margins(y=0.25)
        panel.tick_params(axis="y", labelsize=7)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    for panel in axes.flat[len(shown) :]:
        panel.set_visible(False)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="lower center", ncols=len(names), frameon=False, fontsize=8)
    picture.tight_layout(rect=(0, 0.05, 1, 1))
    picture.savefig(path, dpi=150)
    pyplot.close(picture)
