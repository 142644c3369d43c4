"""What every file of fuzz targets needs: a target runs on a repeatable source of chance, briefly or for long."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence

Target = Callable[[random.Random], object]


def run(target: Target, seed: int, *, seconds: float = 0, inputs: int = 0) -> int:
    """Runs one target for a number of seconds or of inputs; returns how many inputs it saw."""
    end = time.monotonic() + seconds
    done = 0
    while done < inputs if inputs else time.monotonic() < end:
        try:
            target(random.Random(f"{seed}:{done}"))
        except BaseException:
            print(f"{target.__name__}: failed at seed {seed}, input {done}")
            raise
        done += 1
    return done


def main(description: str | None, targets: Sequence[Target]) -> None:
    """The command line of such a file."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    for target in targets:
        done = run(target, options.seed, seconds=options.seconds / len(targets))
        print(f"{target.__name__}: {done} inputs, seed {options.seed}, no failure")
