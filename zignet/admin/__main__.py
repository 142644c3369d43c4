"""`python -m zignet.admin`: started by the packet process, never by people (`zignet.control.process`).

Gives up its rights before it loads anything that is large, or reads what others wrote.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from zignet import rights

NICE = 10  # packets come first


def numbers(text: str) -> list[int]:
    """`3,4,5`"""
    return [int(each) for each in text.split(",") if each]


def user(text: str) -> tuple[int, int]:
    """`uid:gid`"""
    uid, gid = text.split(":")
    return int(uid), int(gid)


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(prog="zignet.admin", add_help=False)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--user", type=user, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--settings", type=int, required=True)
    parser.add_argument("--policy", type=int, required=True)
    parser.add_argument("--questions", type=numbers, required=True)
    parser.add_argument("--listen", type=numbers, default=[])
    parser.add_argument("--realm", type=numbers, default=[])
    parser.add_argument("--covered", default="")
    parser.add_argument("--level", type=int, default=20)  # logging.INFO
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o077)
    if options.realm:
        rights.Realm.enter(*options.realm)
        for descriptor in options.realm:
            os.close(descriptor)
    os.nice(NICE)
    rights.become(*options.user)
    rights.stays_private()
    rights.dies_with_parent(options.parent)
    for descriptor in (options.settings, options.policy, *options.questions, *options.listen):
        os.set_inheritable(descriptor, False)  # scripts have no business with them
    os.chdir(options.state)
    os.environ["HOME"] = str(options.state)

    from zignet.admin.process import run

    covered = [Path(each) for each in options.covered.split(os.pathsep) if each]
    return run(options.settings, options.policy, options.questions, options.listen, covered, options.level)


if __name__ == "__main__":
    sys.exit(main())
