"""Other programs' interfaces, routes and rules, seen with the configuration in mind."""

from __future__ import annotations

from nat.tun import Plan, Survey, TunError, survey
from zignet.config import Config
from zignet.system.check import Check, fail, ok, warn

__all__ = ["checks"]

SETTINGS = ("tun.range", "tun.range6", "dns.fake_range", "dns.fake_range6")


def checks(config: Config, plan: Plan) -> list[Check]:
    """Everything that a look at the host tells."""
    try:
        seen = survey(plan)
    except TunError as error:
        return [fail("policy routing", f"{error.what}: {error.why}", error.advice)]
    return [_routing(config, seen), _overlaps(seen), _tunnels(seen), _defaults(seen)]


def _routing(config: Config, seen: Survey) -> Check:
    name = "policy routing"
    if seen.owner:
        detail = f"another ZigNet captures the traffic of this host, on {seen.owner}"
        if config.proxy.mode == "global":
            return fail(name, detail, "stop it, or set `proxy.mode: off`")
        return warn(name, detail, "its rules stay in force")
    return ok(name, f"the kernel has it, {seen.rules} rules of ours" if seen.rules else "the kernel has it")


def _overlaps(seen: Survey) -> Check:
    name = "address ranges"
    if seen.overlaps:
        detail = "; ".join(seen.overlaps)
        wrong = [f"`{setting}`" for setting in SETTINGS if f"({setting})" in detail] or [
            "`tun.range` or `tun.range6`"
        ]
        return fail(name, detail, f"set {' and '.join(wrong)} to free blocks")
    return ok(name, "nothing else uses them")


def _tunnels(seen: Survey) -> Check:
    name = "other tunnels"
    if not seen.neighbours:
        return ok(name, "none")
    listed = (f"{each.name} ({', '.join((each.kind, *each.addresses))})" for each in seen.neighbours)
    advice = (
        "two programs that capture all traffic get in each other's way: let only one do it, "
        "and tie exits to an uplink with `interface:`"
    )
    return warn(name, ", ".join(listed), advice)


def _defaults(seen: Survey) -> Check:
    name = "default routes"
    if not seen.defaults:
        return ok(name, "in one piece")
    detail = f"another VPN covers the default route with {', '.join(seen.defaults)}"
    advice = (
        "captured traffic goes to ZigNet first, and its own connections go through that VPN; stop one of them"
    )
    return warn(name, detail, f"{advice} if that is not what you want")
