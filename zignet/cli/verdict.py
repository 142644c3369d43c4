"""Where a probe failed, and what to do about it: one or two sentences. Pure.

The socket knows the least: for a refusal it says the same, whoever refused. The node knows more (the error of that very
flow, the state of the peer), and what it says goes first.
"""

from __future__ import annotations

from dataclasses import dataclass

from zignet.cli.probe import Stage, Trouble
from zignet.cli.text import printable
from zignet.control.messages import Explanation

__all__ = ["Case", "is_of_peer", "verdict"]


@dataclass(frozen=True, slots=True)
class Case:
    """What is known besides the failed step."""

    far: str  # name or address, as the person gave it
    port: int
    explanation: Explanation
    live: bool  # a node runs
    enters: bool  # the flow went into the TUN
    error: str = ""  # of this very flow, in the node's books
    silent: str = ""  # why a ping of the peer that is the exit was not answered


def is_of_peer(explanation: Explanation) -> bool:
    """Whether the address is a peer's own: no rule is asked."""
    return explanation.get("peer") is not None and explanation["exit_type"] != "peer"


def verdict(stage: Stage, case: Case) -> str:
    """For a step with trouble."""
    assert stage.trouble is not None
    trouble, explanation = stage.trouble, case.explanation
    if stage.step == "dns":
        return trouble.text  # whoever asked has put it into words
    if is_of_peer(explanation):
        return _of_peer(stage, trouble, case)
    if not case.live or not case.enters:
        return f"{_plainly(stage, case)} This connection did not go through ZigNet."
    if explanation["refused"]:
        where = f" ({explanation['where']})" if explanation["where"] else ""
        return (
            f"Refused here: {explanation['rule']}{where} leads it to {explanation['exit']}, which does not carry it. "
            "Change that rule, or put another before it."
        )
    if explanation["exit_type"] == "peer":
        return _by_peer(stage, trouble, case)
    if case.error and (explanation["exit_type"] != "direct" or stage.step != "connect"):
        return f"The exit {explanation['exit']} has failed: {printable(case.error)}. {_advice(case)}"
    return _plainly(stage, case)


def _unconnected(name: str, explanation: Explanation) -> str:
    peer = explanation.get("peer")
    if peer is None or peer["state"] == "connected":
        return ""
    at = f" at {peer['path']}" if peer["path"] else ""
    return (
        f"The peer {name} is not connected{at}. `zignet ping {name}` says why; its node has to run, to know this "
        "node's key, and one of the two has to reach the other."
    )


def _of_peer(stage: Stage, trouble: Trouble, case: Case) -> str:
    """The address is a peer's own."""
    peer = case.explanation.get("peer")
    name = (peer["name"] or peer["key"]) if peer is not None else ""
    if stage.step == "connect" and (told := _unconnected(name, case.explanation)):
        return told
    if stage.step == "connect" and trouble.kind == "refused":
        return f"{name} refused the connection: nothing listens on port {case.port} at its ZigNet address."
    return _plainly(stage, case)


def _by_peer(stage: Stage, trouble: Trouble, case: Case) -> str:
    """The exit is a peer."""
    name = case.explanation["exit"]
    if told := _unconnected(name, case.explanation):
        return f"Nobody has dialled {case.far}. {told}"
    silent = case.silent or ("it is silent" if "is not reachable" in case.error else "")
    if silent:
        return (
            f"The peer {name} does not answer ({printable(silent)}), so nobody has dialled {case.far}: its "
            f"node, or the way to it, is gone. `zignet ping {name}` says when it is back."
        )
    if "does not allow" in case.error:
        return (
            f"{name} does not dial this for us: its `exit` section leaves out this node, port {case.port}, or the "
            f"addresses that {case.far} has there (private ones are never dialled unless it says so). `exit: "
            f"{{allow: […]}}` in the configuration of {name} is the place."
        )
    if "no such name" in case.error or (stage.step == "connect" and trouble.kind == "unreachable"):
        return (
            f"{name} finds no address for {case.far}, or no way to the one it finds. Is the name right? On {name}, "
            f"`zignet dns query {case.far}` or `dig` says what its name servers answer."
        )
    if "no route" in case.error or trouble.kind == "no route":
        return f"{name} has no route to {case.far}: its own way to the internet is broken."
    if stage.step == "connect" and trouble.kind == "refused":
        return (
            f"{name} has dialled {case.far}, and the server there refused the connection: nothing listens on port "
            f"{case.port}, or its firewall says no."
        )
    if stage.step == "connect" and trouble.kind == "timeout":
        return (
            f"{name} is connected, and has not answered for {case.far}: {trouble.text}. The server there is silent, or "
            f"the way from {name} to it is broken."
        )
    if case.error and stage.step != "connect":
        return f"{_plainly(stage, case)} The node says of this flow: {printable(case.error)}."
    return _plainly(stage, case)


def _plainly(stage: Stage, case: Case) -> str:
    """What the socket alone says."""
    trouble, there = stage.trouble, f"{case.far} port {case.port}"
    assert trouble is not None
    if stage.step == "connect":
        match trouble.kind:
            case "refused":
                return f"{there}: the server refused the connection; nothing listens there, or a firewall says no."
            case "unreachable" | "no route":
                return f"{there}: this host has no way to it ({trouble.text})."
            case "forbidden":
                return f"{there}: a firewall of this host, or on the way, forbids it ({trouble.text})."
            case "timeout":
                return f"{there}: {trouble.text}; the server is silent, or a firewall drops the packets."
        return f"{there}: {trouble.text}."
    what = "TLS handshake" if stage.step == "tls" else "request"
    match trouble.kind:
        case "timeout":
            return f"The connection to {there} stands, but there was {trouble.text} to the {what}."
        case "reset" | "closed":
            hint = (
                f"It may speak no TLS, or not serve {case.far}." if stage.step == "tls" else "Try it again."
            )
            return f"The far end ended the connection to {there} during the {what}. {hint}"
        case "tls":
            return f"TLS with {there} failed: {trouble.text}. Something else than TLS may be spoken there."
    return f"The connection to {there} stands, but the {what} failed: {trouble.text}."


def _advice(case: Case) -> str:
    if case.explanation["exit_type"] in ("socks5", "http"):
        return f"The proxy is {case.explanation['exit_address']}: does it run, and does it take this target?"
    return "`zignet flows --all` shows it among the others."
