"""The whole of a decision about one key, for people: every rule in its order, what it said, and which one decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TypedDict

from zignet.config import Config, InboundConfig
from zignet.config.members import FILE
from zignet.identity import BadKey, PublicKey
from zignet.policy.judge import Judge
from zignet.policy.keyfile import read_keys
from zignet.policy.rules import Said, Verdict
from zignet.policy.services import may_reach

__all__ = ["Check", "CheckStep", "Reach", "check", "patient"]

NOT_ASKED = "not asked"


class CheckStep(TypedDict):
    """One rule."""

    rule: str  # its place, e.g. inbound.policies[2]; `contacts` for those of the node
    source: str  # for a policy: whom it asks
    said: str  # match, no match, failed, not asked
    reason: str


class Reach(TypedDict):
    """What was asked about a service."""

    proto: str
    port: int | None
    allowed: bool
    reason: str


class Check(TypedDict):
    """A decision."""

    key: str
    peer: str | None  # its name, if it is a peer or a contact
    allowed: bool
    decided_by: str  # the rule
    failed: bool  # a source could not answer, and that decided
    reason: str
    valid_s: float | None  # None: until the configuration changes
    steps: list[CheckStep]
    service: Reach | None


def patient(inbound: InboundConfig) -> InboundConfig:
    """The same, with nothing optimistic in it: who asks what holds wants the final answer."""
    return replace(inbound, policies=tuple(replace(policy, optimistic=False) for policy in inbound.policies))


async def check(
    config: Config,
    judge: Judge | None,
    key: PublicKey,
    service: tuple[str, int | None] | None = None,
    contacts: Mapping[PublicKey, str] = MappingProxyType({}),  # and their names
) -> Check:
    """Ask every rule in turn, until one decides. The judge, of a `patient` configuration, may be missing if there are
    no policies. Raises `Busy`."""
    inbound = config.inbound
    peer = next((peer.name for peer in config.peers if peer.key == key), None)
    lists = (
        ("inbound.deny", key in inbound.deny, False),
        ("peers", peer is not None, True),
        ("contacts", key in contacts, True),
        ("inbound.allow", key in inbound.allow, True),
    )
    steps: list[CheckStep] = []
    verdict: Verdict | None = None
    for rule, matches, allows in lists:
        if verdict is not None:
            steps.append(_step(rule, NOT_ASKED, ""))
            continue
        steps.append(
            _step(rule, Said.MATCH if matches else Said.NO_MATCH, "named there" if matches else "not there")
        )
        if matches:
            does = "admits" if allows else "denies"
            verdict = Verdict(allows, f"The configuration {does} this key ({rule}).", 0.0)
    listed = verdict is not None
    if verdict is None and judge is not None:
        verdict = await judge.decide(key)
    trail = {step.rule: step for step in verdict.trail} if verdict is not None else {}
    labels = [status.label for status in judge.status()] if judge is not None else []
    for at, label in enumerate(labels):
        rule, said = f"inbound.policies[{at}]", trail.get(at)
        steps.append(_step(rule, said.said if said else NOT_ASKED, said.reason if said else "", label))
    asked = [step for step in steps if step["said"] != NOT_ASKED]
    decided = listed or (asked[-1]["said"] in (Said.MATCH, Said.FAILED))
    default = inbound.default_action
    steps.append(
        _step("inbound.default_action", NOT_ASKED if decided else Said.MATCH, "" if decided else default)
    )
    allowed = verdict.allowed if verdict is not None else default == "allow"
    reach = None
    if service is not None and allowed:
        admitted_as_contact = [step["rule"] for step in asked if step["said"] == Said.MATCH][:1] == [
            "contacts"
        ]
        only_published = admitted_as_contact and default == "deny" and key not in inbound.allow
        reach = _published(*service) if only_published else _reach(config, key, *service)
    return Check(
        key=key.name,
        peer=peer or contacts.get(key),
        allowed=allowed,
        decided_by=asked[-1]["rule"] if decided else "inbound.default_action",
        failed=decided and asked[-1]["said"] == Said.FAILED,
        reason=verdict.reason
        if verdict is not None
        else f"Nothing names this key (inbound: default_action: {default}).",
        valid_s=verdict.valid_s if verdict is not None and not listed else None,
        steps=steps,
        service=reach,
    )


def _step(rule: str, said: str, reason: str, source: str = "") -> CheckStep:
    return CheckStep(rule=rule, source=source, said=str(said), reason=reason)


def _published(proto: str, port: int | None) -> Reach:
    reason = "a contact whom nothing else admits reaches what is published to it (publish)"
    return Reach(proto=proto, port=port, allowed=False, reason=reason)


def _reach(config: Config, key: PublicKey, proto: str, port: int | None) -> Reach:
    named = {peer.name.lower(): peer.key for peer in config.peers}

    def is_member(text: str) -> bool:
        if text.startswith(FILE):
            return bool(read_keys(Path(text.removeprefix(FILE))).line_of(key))
        try:
            return (named.get(text.lower()) or PublicKey.from_text(text)) == key
        except BadKey:
            return False  # the configuration has been checked

    try:
        allowed, reason = may_reach(config.inbound.services, proto, port, is_member)
    except ValueError as error:  # a file that can't be read lets nobody in
        allowed, reason = False, str(error)
    return Reach(proto=proto, port=port, allowed=allowed, reason=reason)
