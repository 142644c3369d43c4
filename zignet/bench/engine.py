"""What all engines of a bench have in common: one or more programs, started, watched and stopped."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ClassVar, Generic, TypeVar

import psutil
from pyroute2 import NetlinkError

from zignet.bench.world import UPLINK, World
from zignet.lab.namespace import Namespace

__all__ = ["Engine", "EngineFailure", "zignet_version"]

START_S = 20.0
STOP_S = 5.0
LAST_WORDS = 600  # characters

W = TypeVar("W", bound=World)


class EngineFailure(Exception):
    """The engine could not be started or does not carry traffic; the text is for the person."""


class Engine(Generic[W]):
    """One engine in one world. `way` is which of its tasks it has: an exit, or `tunnel`."""

    name: ClassVar[str] = ""
    carries: ClassVar[frozenset[str]] = frozenset({"tcp", "udp", "icmp"})
    programs: ClassVar[Mapping[str, str]] = {}  # that it needs, and Debian's packages of them

    def __init__(self, world: W, way: str, mtu: int | None = None) -> None:
        self.world = world
        self.way = way
        self.mtu = mtu  # of its TUN; None for the engine's own default
        self.running: list[subprocess.Popen[Any]] = []
        self.directory = Path(mkdtemp(prefix=f"{self.name}-{way}-", dir=world.directory))

    @classmethod
    def missing(cls) -> str | None:
        """Why this engine cannot run on this machine, or None."""
        lacking = [program for program in cls.programs if shutil.which(program) is None]
        if not lacking:
            return None
        packages = ", ".join(dict.fromkeys(cls.programs[program] for program in lacking))
        return f"{' and '.join(lacking)} not installed (Debian: {packages})"

    @classmethod
    def version(cls) -> str:
        """For the record."""
        return ""

    @property
    def targets(self) -> Sequence[str]:
        """The addresses of the origin, as loads use them."""
        raise NotImplementedError

    @property
    def seen_as(self) -> str:
        """The address that the origin sees when traffic goes the expected way."""
        raise NotImplementedError

    def launch(self) -> None:
        """Start the programs, with all that a user must do for them. Raises EngineFailure."""

    # --- life

    def start(self) -> None:
        """Start and wait until traffic goes the expected way. Raises EngineFailure."""
        try:
            self.launch()
            self.wait()
        except (OSError, RuntimeError, NetlinkError) as error:
            said = self.last_words()
            self.stop()
            raise EngineFailure(f"{self.name} could not be started: {error}; {said}") from error
        except BaseException:
            self.stop()
            raise

    def run(self, namespace: Namespace, command: Sequence[str | Path], **options: Any) -> None:
        """Start a program; what it says goes to its log."""
        with (self.directory / f"{len(self.running)}.log").open("wb") as log:
            child = namespace.popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)
        self.running.append(child)

    def wait(self) -> None:
        """Until the origin sees who it should."""
        deadline = time.monotonic() + START_S
        seen = "nothing"
        while time.monotonic() < deadline:
            self.check()
            try:
                seen = self.world.load("address", host=self.targets[0])["address"]
            except RuntimeError as error:
                seen = str(error)
            if seen == self.seen_as and self.through():
                time.sleep(0.3)
                return
            time.sleep(0.2)
        raise EngineFailure(
            f"{self.name}: the origin saw {seen} instead of {self.seen_as}: {self.last_words()}"
        )

    def wait_for(self, found: Callable[[], Any], what: str) -> Any:
        """What `found` gives as soon as it is not empty. Raises EngineFailure."""
        deadline = time.monotonic() + START_S
        while not (value := found()):
            self.check()
            if time.monotonic() > deadline:
                raise EngineFailure(f"{self.name} made no {what}: {self.last_words()}")
            time.sleep(0.02)
        return value

    def check(self) -> None:
        """Whether all programs live. Raises EngineFailure."""
        if any(child.poll() is not None for child in self.running):
            raise EngineFailure(f"{self.name} ended at once: {self.last_words()}")

    def through(self) -> bool:
        """Whether packets have gone through an interface of the engine's own."""
        return not self.running or any(
            link.get("stats64", {}).get("rx_packets", 0) + link.get("stats64", {}).get("tx_packets", 0) > 0
            for link in self.world.host.netlink(lambda ip: list(ip.get_links()))
            if link.get("ifname") not in ("lo", UPLINK)
        )

    def stop(self) -> None:
        """Stop, and take back what the engine may have left."""
        for child in self.running:
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + STOP_S
        for child in self.running:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.running.clear()

    def last_words(self) -> str:
        """The ends of its logs."""
        said = [log.read_text(errors="replace").strip() for log in sorted(self.directory.glob("*.log"))]
        return "\n".join(text[-LAST_WORDS:] for text in said if text) or "it said nothing"

    # --- what it costs

    def processes(self) -> Iterator[psutil.Process]:
        """Its processes."""
        for child in self.running:
            parent = psutil.Process(child.pid)
            yield parent
            yield from parent.children(recursive=True)

    def resident(self) -> int:
        """Resident memory of all, bytes. By smaps_rollup: newer kernels' statm lags behind by up to a MiB."""
        return sum(_resident(process.pid) for process in self.processes())

    def cpu(self) -> float:
        """CPU seconds of all so far, in user and kernel mode."""
        return sum(sum(process.cpu_times()[:2]) for process in self.processes())


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    return 0


def zignet_version() -> str:
    """Of the package, and whether the packet path is compiled."""
    import zignet
    from zignet.packet_path import compiled_modules

    return f"{zignet.__version__} {'compiled' if all(compiled_modules().values()) else 'interpreted'}"
