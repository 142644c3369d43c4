"""How names would come to the node on this host, and whether an earlier run has left them led astray."""

from __future__ import annotations

from pathlib import Path

from zignet.config import Config
from zignet.system.check import Check, State, fail, ok, warn
from zignet.system.names import Mode, NamesError, Wanted, drift, foresee, leftover
from zignet.system.privileges import instance

__all__ = ["check", "checks"]


def checks(config: Config) -> list[Check]:
    """Nothing where names are not led anywhere."""
    if config.dns is None or config.dns.mode == "off":
        return []
    from zignet.dns.lead import wanted

    own = (str(config.tun.address),)
    proxy = config.proxy
    asked = wanted(
        config.dns,
        own,
        config.tun.name,
        1,
        ("zignet", *config.dns.fake),
        captures=proxy.mode == "global",
        bypass=proxy.bypass,
    )
    return [check(asked, config.state_dir, instance(config).state is State.WARN)]


def check(wanted: Wanted, state_dir: Path, running: bool) -> Check:
    """`running`: whether a node holds the state directory. Changes nothing."""
    name = "names"
    if not running and leftover(state_dir):
        detail = "a node that is gone has left this host's names led to it"
        return warn(name, detail, "the next start puts that right; without one: `zignet dns restore`")
    if running and (changed := drift(state_dir)):
        return warn(name, "; ".join(changed), "set `dns.mode` to whoever writes it, or start the node again")
    try:
        choice = foresee(wanted, state_dir)
    except NamesError as error:
        return fail(name, f"`dns.mode: {wanted.mode}` can't be: {error}", "set `dns.mode: auto`")
    if choice.mode is Mode.OFF and wanted.mode is Mode.AUTO:
        return warn(name, choice.why, "see `dns.mode`")
    return ok(name, f"{choice.mode}: {choice.why}")
