"""A PostgreSQL server of its own: its data in a directory that goes with it, a Unix socket, no port."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

UNPACKED = Path(sys.prefix) / "debian"  # see scripts/test
USER = 65534  # nobody: the server does not run as root
PATIENCE_S = 120


class Postgres:
    """A cluster, and the server on it while it runs."""

    def __init__(self, password: str) -> None:
        found = sorted(
            [*UNPACKED.glob("usr/lib/postgresql/*/bin"), *Path("/usr/lib/postgresql").glob("*/bin")]
        )
        if not found:
            pytest.fail("there is no PostgreSQL on this system: scripts/test gets it", pytrace=False)
        self._programs = found[-1]
        self.directory = Path(tempfile.mkdtemp(prefix="zn-pg-", dir="/tmp"))
        self.directory.chmod(0o755)
        secret = self.directory / "password"
        secret.write_text(password)
        self.sockets = self.directory / "run"
        self.sockets.mkdir()
        for each in (self.directory, secret, self.sockets):
            if os.geteuid() == 0:
                os.chown(each, USER, USER)
        self._data = self.directory / "data"
        self._run(
            "initdb",
            "-D",
            self._data,
            "-U",
            "zignet",
            "-A",
            "scram-sha-256",
            f"--pwfile={secret}",
            "--no-sync",
        )
        self.start()

    def _run(self, program: str, *arguments: object, check: bool = True) -> None:
        libraries = ":".join(str(each) for each in UNPACKED.glob("usr/lib/*/"))
        command = [str(self._programs / program), *map(str, arguments)]
        if os.geteuid() == 0:
            command[:0] = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        done = subprocess.run(
            command,
            cwd=self.directory,
            env={"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": libraries, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=(self.directory / "log").open("a"),
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0 or not check, (self.directory / "log").read_text()

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.sockets} -c fsync=off"
        self._run(
            "pg_ctl",
            "start",
            "-w",
            "-t",
            PATIENCE_S,
            "-D",
            self._data,
            "-o",
            options,
            "-l",
            self.directory / "server",
        )

    def stop(self, *, check: bool = True) -> None:
        """At once, as in a power cut; those who wait for an answer get none."""
        self._run("pg_ctl", "stop", "-m", "immediate", "-w", "-t", PATIENCE_S, "-D", self._data, check=check)

    def close(self) -> None:
        self.stop(check=False)
        shutil.rmtree(self.directory)
