"""From the configuration to sources and a judge. What a policy needs is loaded only where there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from zignet.config import InboundConfig, PolicyConfig
from zignet.policy.judge import Changed, Judge
from zignet.policy.source import Source

__all__ = ["make_judge", "make_sources"]

# Each takes its policy, and for how many seconds an answer stands if the policy does not say
_SOURCES: Mapping[str, tuple[str, str]] = {
    "file": ("zignet.policy.sources.file", "FileSource"),
    "script": ("zignet.policy.sources.script", "ScriptSource"),
    "database": ("zignet.policy.sources.database", "DatabaseSource"),
    "solana": ("zignet.policy.sources.solana.policy", "solana_source"),
}


def make_sources(policies: Sequence[PolicyConfig], recheck_s: float) -> list[Source]:
    """A source for each policy; nothing is opened yet."""
    made: list[Source] = []
    for policy in policies:
        module, name = _SOURCES[policy.type]
        made.append(getattr(import_module(module), name)(policy, recheck_s))
    return made


def make_judge(
    inbound: InboundConfig,
    now: Callable[[], float],
    changed: Changed = lambda key, verdict: None,
) -> Judge:
    """The judge of an `inbound` section, not started."""
    sources = make_sources(inbound.policies, inbound.recheck_s)
    return Judge(
        inbound.policies,
        inbound.default_action,
        sources,
        now,
        recheck_s=inbound.recheck_s,
        changed=changed,
    )
