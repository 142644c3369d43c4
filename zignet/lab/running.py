"""A running `zignet up`, for the demo and the tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from zignet.lab.namespace import Namespace

__all__ = ["NotReady", "Running"]

READY_S = 40.0
STOP_S = 10.0


class NotReady(Exception):
    """The engine did not come up; the text is what it said."""


class Running:
    """`zignet -c FILE up` in a namespace. A context manager that waits until it is ready, and stops it."""

    def __init__(self, namespace: Namespace, directory: Path, config: str) -> None:
        self.namespace = namespace
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config = self.directory / "zignet.yaml"
        self.state_dir = self.directory / "state"
        self.log_file = self.directory / "log"
        self.write(config)
        self.process: subprocess.Popen[Any] | None = None

    def write(self, config: str) -> None:
        """The configuration; `state_dir` is added."""
        self.config.write_text(f"state_dir: {self.state_dir}\n{config}")

    def command(self, *arguments: str) -> list[str]:
        """A zignet command line with this configuration."""
        return [sys.executable, "-m", "zignet", "-c", str(self.config), *arguments]

    def start(self) -> Running:
        """Start, and return when it is ready. Raises NotReady."""
        with self.log_file.open("wb") as log:
            process = self.namespace.popen(
                self.command("up"), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.process = process
        deadline = time.monotonic() + READY_S
        while "ready" not in self.log():
            if process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise NotReady(self.log())
            time.sleep(0.02)
        return self

    def stop(self) -> int:
        """SIGTERM; its exit code, negative for a signal that it died of."""
        if self.process is None:
            return 0
        self.process.terminate()
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL: nothing is restored."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def reload(self, config: str) -> None:
        """A new configuration, and SIGHUP."""
        self.write(config)
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGHUP)

    def log(self) -> str:
        """What it has said."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def ask(self, *arguments: str) -> Any:
        """The JSON that a command prints. Raises RuntimeError with what it said instead."""
        done = self.namespace.run(self.command(*arguments))
        if done.returncode != 0:
            raise RuntimeError(done.stderr or done.stdout)
        return json.loads(done.stdout)

    def flows(self) -> list[dict[str, Any]]:
        """All flows, ended ones too."""
        answer = self.ask("flows", "--json", "--all")
        flows: list[dict[str, Any]] = answer["flows"] if isinstance(answer, dict) else answer
        return flows

    def __enter__(self) -> Running:
        return self.start()

    def __exit__(self, *error: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
