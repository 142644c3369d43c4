"""All checks of `zignet doctor`, in the order in which one would repair things."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from zignet.config import Config
from zignet.system import live, peers, privileges, resolution, surroundings, upstreams
from zignet.system.check import Check, State, fail

__all__ = ["Check", "State", "run"]

Examinations = tuple[tuple[str, Callable[[], Check | Iterable[Check]]], ...]


def run(config: Config) -> list[Check]:
    """Look at everything that the engine needs of this machine, for this configuration.

    Takes a few seconds at most. With root it opens a temporary TUN, with an address block that nothing else uses,
    and removes it again; otherwise it only reads. A device that somebody else opens (`tun.device: fd:N`) is
    that program's to set up, so its part is left out. Never raises: a check that breaks is a check that failed.
    """
    device: Examinations = () if config.tun.descriptor is not None else _device(config)
    found: list[Check] = []
    for name, examine in (*device, *_process(config)):
        try:
            result = examine()
        except Exception as error:  # a doctor that falls ill helps nobody
            result = fail(name, f"the check itself failed: {error!r}", "please report this")
        found += [result] if isinstance(result, Check) else result
    return found


def _device(config: Config) -> Examinations:
    """The TUN, and what leads traffic into it and out of it."""
    from zignet.node import plan_of, with_names

    return (
        ("permission", privileges.capability),
        ("TUN driver", privileges.driver),
        ("kernel", privileges.kernel),
        ("route_localnet", lambda: privileges.settings(config)),
        ("IPv6", privileges.ipv6),
        ("surroundings", lambda: surroundings.checks(config, plan_of(with_names(config)))),
        ("test interface", lambda: live.checks(config)),
    )


def _process(config: Config) -> Examinations:
    """What the node needs wherever its packets come from."""
    return (
        ("file descriptors", lambda: privileges.descriptors(config)),
        ("listen backlog", privileges.backlog),
        ("other instance", lambda: privileges.instance(config)),
        ("exits", lambda: upstreams.checks(config)),
        ("peers", lambda: peers.checks(config)),
        ("names", lambda: resolution.checks(config)),
    )
