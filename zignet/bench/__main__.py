"""`python -m zignet.bench` is `zignet bench`."""

import typer

from zignet.bench.command import bench

if __name__ == "__main__":
    typer.run(bench)
