"""`zignet bench` on a short plan."""

import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from zignet.bench.engines import ENGINES
from zignet.bench.kinds import LAPTOP
from zignet.bench.measures import FIGURES, MEASURES, Plan, Result, medians
from zignet.bench.report import as_json, plot, tables

RESULTS = [
    Result("socks5", "none", 0, {"up1": 20.0, "conn": 10_000.0}),
    Result("socks5", "zignet", 0, {"up1": 8.0, "conn": 4_000.0}),
    Result("socks5", "zignet", 1, {"up1": 10.0, "conn": 5_000.0}),
    Result("socks5", "zignet", 2, {"up1": 90.0}, {"conn": "it [broke]"}),
]


def test_medians_and_ratios():
    assert medians(RESULTS)["socks5"]["zignet"] == {"up1": 10.0, "conn": 4_500.0}
    report = as_json(LAPTOP, RESULTS, Plan(), None)
    assert report["ratios"]["socks5"]["none"] == {"up1": 0.5, "conn": 0.45}
    assert json.loads(json.dumps(report)) == report


def test_the_table_shows_figures_ratios_and_errors():
    console = Console(width=160, record=True, file=io.StringIO())
    tables(LAPTOP, RESULTS, console)
    text = console.export_text()
    assert "20.00 ×0.50" in text
    assert "it [broke]" in text


def test_the_picture(tmp_path):
    pytest.importorskip("matplotlib")
    plot(LAPTOP, RESULTS, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_every_engine_says_what_it_is():
    for name, engine in ENGINES.items():
        assert engine.name == name
        assert engine.missing() or isinstance(engine.version(), str)


def bench(*arguments):
    command = [sys.executable, "-m", "zignet", "bench", "--quick", "--seconds", "0.3", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


@pytest.mark.root
def test_a_short_run_of_everything():
    done = bench("--engines", "none,redirect,zignet", "--flows", "50", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    figures = report["medians"]["socks5"]["zignet"]
    assert set(figures) == set(FIGURES)
    assert figures["up1"] > 0.1
    assert (figures["conn_failed"], figures["crossed"], figures["lost_flows"]) == (0, 0, 0)
    assert all(not result["errors"] for result in report["rounds"])


@pytest.mark.root
@pytest.mark.parametrize("engine", ["sing-box", "mihomo"])
def test_other_engines_run_in_the_same_lab(engine):
    done = bench("--engines", engine, "--measure", "latency", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["medians"]["socks5"][engine]["tcp50"] > 0


@pytest.mark.root
@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--engines", "fastest"], "fastest"), (["--measure", "beauty"], "conn"), (["--exit", "peer"], "peer")],
)
def test_unknown_names_are_refused(arguments, said):
    done = bench(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_measures_have_titles():
    assert {measure.needs for measure in MEASURES.values()} == {"tcp", "udp", "icmp"}
