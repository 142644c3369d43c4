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

from zignet.bench.kinds import Kind
from zignet.bench.measures import FIGURES, Plan, Result, medians

__all__ = ["PlotUnavailable", "as_json", "plot", "tables"]

CONGESTION_CONTROL = Path("/proc/sys/net/ipv4/tcp_congestion_control")


class PlotUnavailable(Exception):
    """There is no matplotlib; the text says how to get it."""


def as_json(kind: Kind, results: Sequence[Result], plan: Plan, mtu: int | None) -> dict[str, Any]:
    """Everything: the machine, the plan, each round, the medians and the ratios to ZigNet."""
    middle = medians(results)
    names = list(dict.fromkeys(result.engine for result in results))
    return {
        "machine": {
            "kernel": platform.release(),
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "congestion_control": CONGESTION_CONTROL.read_text().strip(),
        },
        "versions": {name: kind.engines[name].version() for name in names},
        "plan": asdict(plan) | {"mtu": mtu},
        "units": {key: figure.unit for key, figure in FIGURES.items()},
        "rounds": [asdict(result) for result in results],
        "medians": middle,
        "ratios": {way: _ratios(engines, kind.base(names)) for way, engines in middle.items()},
    }


def _ratios(engines: dict[str, dict[str, float]], base_name: str) -> dict[str, dict[str, float]]:
    """The base's figure over the other engine's, for each engine."""
    base = engines.get(base_name, {})
    return {
        name: {key: base[key] / value for key, value in figures.items() if key in base and value}
        for name, figures in engines.items()
        if name != base_name
    }


def tables(kind: Kind, results: Sequence[Result], console: Console) -> None:
    """Print a table for each way and kind of figure, with ZigNet's ratio to the other engines."""
    names = list(dict.fromkeys(result.engine for result in results))
    base = kind.base(names)
    for way, engines in medians(results).items():
        ratios = _ratios(engines, base)
        for title, keys in kind.tables.items():
            shown = [key for key in keys if any(key in figures for figures in engines.values())]
            if not shown:
                continue
            console.print(
                f"{title}, {kind.ways[way]}", style="italic"
            )  # a table's own title is as narrow as it is
            table = Table()
            table.add_column("engine")
            for key in shown:
                figure = FIGURES[key]
                table.add_column(f"{figure.title}\n{figure.unit}", justify="right")
            for name, figures in engines.items():
                cells = [_cell(key, figures.get(key), ratios.get(name, {}).get(key)) for key in shown]
                table.add_row(name, *cells, style="bold" if name == base else "")
            console.print(table)
    if len(names) > 1 and base:
        console.print(f"×: {base}'s figure divided by this engine's, in this run.")
    for result in results:
        for what, error in result.errors.items():
            console.print(
                f"{result.engine}, {kind.ways[result.way]}, round {result.round + 1}, {what}: {error}",
                style="red",
                markup=False,
            )


def _cell(key: str, value: float | None, ratio: float | None) -> str:
    if value is None:
        return "–"
    text = f"{value:,.{FIGURES[key].digits}f}"
    return f"{text} [dim]×{ratio:.2f}[/dim]" if ratio else text


def plot(kind: Kind, results: Sequence[Result], path: Path) -> None:
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
        key for key in kind.pictured if any(key in f for engines in middle.values() for f in engines.values())
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
        panel.set_xticks(range(len(middle)), [kind.ways[way] for way in middle], fontsize=8)
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
