"""Carry out a plan: the node's side of `nat.tun.network`, which runs as a child process for a moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import Any

from nat.tun.errors import TunError
from nat.tun.plan import Applied, Plan, Survey

__all__ = ["apply", "remove", "survey", "sync"]

TIMEOUT_S = 30.0  # the child needs 0.3 s; a machine that swaps needs more

_one_at_a_time = threading.Lock()  # a `sync` in a thread must not overtake the `remove` of a stop


def apply(plan: Plan) -> Applied:
    """Make the system match the plan: the device up, addresses, routes, and the rules of a global proxy.

    May be called again, with the same plan or another one for the same device; leftovers of a killed run are
    replaced. On an error nothing of the plan stays. Raises `TunError`: `Overlap`, `NotPermitted`,
    `SettingRefused`, `OwnedByAnother`, `InterfaceGone`.
    """
    return Applied.from_json(_run("apply", plan))


def sync(plan: Plan) -> Applied:
    """Bring the rules in line with the addresses that the host has now; after `remove` it does nothing.

    Raises `TunError`.
    """
    return Applied.from_json(_run("sync", plan))


def remove(plan: Plan) -> Applied:
    """Take everything back, also where the device is gone already; where it is not, it goes down.

    A device that outlives us keeps its MTU and queue length. Raises `TunError`.
    """
    return Applied.from_json(_run("remove", plan))


def survey(plan: Plan) -> Survey:
    """Look at the host with the plan in mind, and change nothing. Needs no privilege. Raises `TunError`."""
    return Survey.from_json(_run("survey", plan))


def _run(task: str, plan: Plan) -> dict[str, Any]:
    what = f"cannot {task} the configuration of {plan.name}"
    # The child finds the modules where this process found them, wherever that was.
    path = os.pathsep.join(os.path.abspath(each) for each in sys.path)
    try:
        with _one_at_a_time:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "nat.tun.network"],
                input=json.dumps({"task": task, "plan": plan.to_json()}),
                env={**os.environ, "PYTHONPATH": path},
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
                start_new_session=True,  # Ctrl-C is for the node, which then removes what this one set
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TunError(what, str(error)) from error
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise TunError(what, f"the helper failed: {lines[-1]}") from None
    if "error" in answer:
        raise TunError.from_json(answer["error"])
    result: dict[str, Any] = answer["result"]
    return result
