"""`zignet route explain`: the way of one request, from its name to what its exit does; and whether it works.

The node is asked before and after the probe: before, which way it would go; after, which way it went.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zignet.cli.destination import Destination
from zignet.cli.files import load
from zignet.cli.lookup import Found, SystemLookup, by_node
from zignet.cli.probe import Probe, Stage, Trouble, try_out
from zignet.cli.steps import compared, named_step, outside, peer_steps
from zignet.cli.verdict import Case, is_of_peer, verdict
from zignet.control import Client, ControlError, Declined, NotPermitted, NotRunning
from zignet.control.messages import Explanation, Named, Question, Step

if TYPE_CHECKING:
    from zignet.config import Config

__all__ = ["PATIENCE_S", "Answer", "Wish", "answer"]

PATIENCE_S = 10.0  # of each step of the probe


@dataclass(frozen=True, slots=True)
class Wish:
    """How much is to be done."""

    source: str | None = None  # as if the flow came from there
    resolve: bool = True
    probe: bool = True
    patience_s: float = PATIENCE_S


@dataclass(frozen=True, slots=True)
class Answer:
    """The explanation for the first address, and where other addresses would go another way."""

    destination: Destination
    addresses: list[str]
    live: bool  # from the running node, not from the file alone
    enters: bool  # the TUN; otherwise the rest is only what would be
    explanation: Explanation
    others: dict[str, Explanation]  # by address: those that leave otherwise
    probe: Probe | None = None
    failed_at: Stage | None = None  # of the probe, or the look-up before it
    verdict: str = ""  # where it failed, and what to do


def answer(destination: Destination, path: Path | None, wish: Wish) -> Answer:
    """Ask the running node, or the configuration where none runs; with a node, try it out as well."""
    config = load(path)
    with _asking(config) as node:
        return _answer(destination, config, node, wish)


class _Node:
    """Who is asked: the running node, or the configuration alone."""

    def __init__(self, client: Client | None, ask: Callable[[Question], Explanation]) -> None:
        self.live = client is not None
        self.ask = ask
        self.listen = ""  # where its name server is asked; "": it has none
        if client is not None:
            with suppress(Declined):
                self.listen = next(iter(client.dns()["listen"]), "")
        self._client = client

    def silence(self, peer: str) -> str:
        """Why a peer does not answer a ping; "" if it does, or if there is nobody to ask it."""
        if self._client is None:
            return ""
        try:
            found = self._client.ping(peer)
        except ControlError as error:
            return str(error)
        return (found["error"] or "timed out") if found["rtt_s"] is None else ""


def _answer(destination: Destination, config: Config, node: _Node, wish: Wish) -> Answer:
    name = destination.name
    tries = node.live and wish.probe and destination.protocol == "tcp" and wish.source is None
    tries = tries and (name is None or wish.resolve)
    first = node.ask(_question(destination, destination.address, wish))
    named = first.get("dns")
    system = SystemLookup(name, destination.port) if name is not None and wish.resolve else None
    found = _found(destination, node, named, system, tries, wish)
    explanations = {one: node.ask(_question(destination, one, wish)) for one in found.addresses} or {
        "": first
    }
    probe = None
    if tries:
        looked = _looked(found) if name is not None else ()
        probe = Probe("", destination.port, stages=list(looked))
        if found.addresses:
            probe = try_out(
                list(found.addresses),
                destination.port,
                name,
                destination.speaks,
                destination.path,
                wish.patience_s,
                looked,
            )
            again = _question(destination, probe.address, wish)
            if probe.source is not None:
                again["source_port"] = probe.source[1]
            explanations[probe.address] = node.ask(again)
    at = probe.address if probe is not None and probe.address else next(iter(explanations))
    chosen = explanations.pop(at)
    why_not = outside(config, at) if at else None
    steps = [named_step(destination, found, chosen.get("dns"), wish.resolve)]
    if system is not None and node.live and _is_ours(named) and (note := compared(system, found)):
        steps.append(Step(stage="system", text=note))
    if why_not is not None:
        steps.append(Step(stage="tun", text=why_not))
    by_rules = [] if is_of_peer(chosen) else chosen["steps"]
    chosen["steps"] = [*steps, *by_rules, *peer_steps(config, chosen)]
    others = {
        one: other
        for one, other in explanations.items()
        if one and (other["exit"], other["rule"]) != (chosen["exit"], chosen["rule"])
    }
    failed = probe.failed if probe is not None else None
    told = ""
    if failed is not None and probe is not None:
        error = next(
            (flow["error"] or "" for flow in chosen.get("flows", ()) if _is(flow["source"], probe)), ""
        )
        by_peer = (
            chosen["exit_type"] == "peer" and failed.trouble is not None and failed.trouble.kind == "timeout"
        )
        case = Case(
            far=name or destination.address or "",
            port=destination.port,
            explanation=chosen,
            live=node.live,
            enters=why_not is None,
            error=error,
            silent=node.silence(chosen["exit"]) if by_peer else "",
        )
        told = verdict(failed, case)
    addresses = list(found.addresses)
    return Answer(destination, addresses, node.live, why_not is None, chosen, others, probe, failed, told)


def _found(
    destination: Destination,
    node: _Node,
    named: Named | None,
    system: SystemLookup | None,
    tries: bool,
    wish: Wish,
) -> Found:
    """The addresses that a program gets, if it asks the node's server where there is one."""
    if destination.name is None:
        return Found((destination.address or "",), "", 0.0)
    if node.listen and system is not None and (tries or (named is not None and named["source"] == "zone")):
        return by_node(destination.name, node.listen)
    if _is_fake(named) and named is not None:
        return Found(tuple(named["addresses"]), "", 0.0)
    if system is None:
        return Found((), "", 0.0)
    return system.wait(wish.patience_s)


def _looked(found: Found) -> tuple[Stage, ...]:
    """The look-up as a step of the probe."""
    if found.trouble or not found.addresses:
        return (Stage("dns", found.took_s, found.trouble, Trouble("other", found.trouble)),)
    return (Stage("dns", found.took_s, f"{', '.join(found.addresses)} from {found.by}"),)


def _is_fake(named: Named | None) -> bool:
    return named is not None and named["source"] == "fake"


def _is_ours(named: Named | None) -> bool:
    """Whether only the node's server gives the answer that leads into ZigNet."""
    return named is not None and named["source"] in ("fake", "zone")


def _is(source: str, probe: Probe) -> bool:
    return probe.source is not None and source.rpartition(":")[2] == str(probe.source[1])


@contextmanager
def _asking(config: Config) -> Iterator[_Node]:
    """Whom to ask."""
    with ExitStack() as stack:
        try:
            client = stack.enter_context(Client(config.state_dir))
        except (NotRunning, NotPermitted):
            client = None
        yield _Node(client, _from_file(config) if client is None else client.explain)


def _from_file(config: Config) -> Callable[[Question], Explanation]:
    from zignet.control.explain import explain
    from zignet.dns.choice import Which
    from zignet.exits import build_exits
    from zignet.routing import build_rules

    exits = build_exits(config)
    rules = build_rules(config, exits)
    which = Which(rules, exits, config.dns.fake, config.dns.real) if config.dns is not None else None

    def ask(question: Question) -> Explanation:
        name = (question["name"] or "").removesuffix(".").lower()
        named = None
        if which is not None and name:
            fake = which(name)
            text = which.reason(name) if fake else which.why_real(name)
            named = Named(source="fake" if fake else "forwarded", text=text, addresses=[], given=False)
        fake = _is_fake(named) and question["address"] is None
        explanation = explain(rules, question, config.sniff.server_first, fake=fake)
        explanation["dns"] = named
        return explanation

    return ask


def _question(destination: Destination, address: str | None, wish: Wish) -> Question:
    question = Question(
        name=destination.name, address=address, port=destination.port, protocol=destination.protocol
    )
    if wish.source is not None:
        question["source"] = wish.source
    return question
