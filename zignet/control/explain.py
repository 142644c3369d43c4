"""The way of a flow that does not exist yet, step by step, by the rules and exits in force.

The node answers with this from what it runs; the command line answers with the same from the file alone.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address

from nat.exit import Exit, Refusal, Target
from sniff.ports import speaks_first
from zignet.control.messages import Explanation, Question, Step
from zignet.exits import AnyExit
from zignet.exits.names import host_port
from zignet.routing import Considered, Rules
from zignet.routing import Explanation as Found

__all__ = ["explain", "explain_again", "explain_stale", "hijacked"]

_CATCH_ALL = ("MATCH", "* ", "*->")  # to win over these is no news
_PROTOCOLS = {"tcp": 6, "udp": 17}
_UNKNOWN = bytes(4)  # 0.0.0.0 stands for an address that was not looked up
FAKE = Step(
    stage="syn",
    text="decided at once: a fake address tells the name with the SYN, so the exit is dialled first",
)
_SOURCE = bytes((100, 64, 0, 1))
_SOURCE6 = bytes(16)


def explain(
    rules: Rules, question: Question, server_first: Collection[int] = (), *, fake: bool = False
) -> Explanation:
    """The answer to a question, whose addresses must be addresses. Asks nothing of the network.

    `server_first` are the configured ports where the server speaks first, besides the known ones. `fake`: the flow goes
    to a fake address, which stands for the name.
    """
    protocol = _PROTOCOLS[question["protocol"]]
    port = question["port"]
    target = _UNKNOWN if question["address"] is None else ip_address(question["address"]).packed
    if fake:  # rules about addresses can't match it
        target = bytes(len(target))
    source = _source(question, target)
    name = (question["name"] or "").rstrip(".").lower()
    if _is_whole(rules, question, protocol, source, target, name):
        return _whole(rules.explain(protocol, source, 0, target, port, ""))
    found = rules.explain(protocol, source, 0, target, port, name)
    nameless = not found.at_syn and not fake and _is_nameless(question, server_first)
    if name and nameless:
        name = ""
        found = rules.explain(protocol, source, 0, target, port, name)
    route = found.route
    winner = found.winner
    assert route is not None  # a name, or the certainty that there is none, decides
    assert winner is not None
    by_name = name if (route.by_name or fake) and name else None
    before = [FAKE] if fake else [_syn(found), *_sniffed(found, question, name, nameless)]
    answer = _answer(
        route.exit,
        winner.rule,
        Target(target, port, by_name, fake),
        question,
        [*before, _rule(winner, found.matches[1:])],
    )
    answer["where"] = winner.where
    answer["decided"] = "syn" if found.at_syn or fake else "sniff"
    return answer


def explain_again(exit_: Exit, name: str, question: Question) -> Explanation:
    """For a fake address that stands for a name by one exit: a flow that was relayed by the node, and goes on."""
    target = Target(bytes(len(ip_address(question["address"] or "::").packed)), question["port"], name, True)
    rule = "what the node itself connects on to, after a sniff or a rule about addresses"
    return _answer(exit_, rule, target, question, [FAKE, Step(stage="rule", text=rule)])


def explain_stale(question: Question) -> Explanation:
    """For a fake address that stands for nothing."""
    text = (
        "no name has this address (any more), and the application sees host unreachable. A program that keeps "
        "addresses for longer than their TTL has to be started again"
    )
    return Explanation(
        rule="a fake address without a name",
        where="",
        exit="block",
        exit_type="block",
        exit_address="",
        decided="syn",
        refused=True,
        steps=[Step(stage="exit", text=text)],
    )


def _answer(exit_: Exit, rule: str, target: Target, question: Question, steps: list[Step]) -> Explanation:
    outcome, refused = _outcome(exit_, target, question)
    return Explanation(
        rule=rule,
        where="",
        exit=exit_.name,
        exit_type=_kind(exit_),
        exit_address=_where(exit_),
        decided="syn",
        refused=refused,
        steps=[*steps, Step(stage="exit", text=outcome)],
    )


def hijacked() -> Explanation:
    """The answer for port 53 with `dns.mode: hijack`."""
    steps = [
        Step(
            stage="syn", text="decided at once: queries that enter the TUN are answered here, before any rule"
        ),
        Step(
            stage="exit", text="dns is this node's own name server, in the name of the server that is asked"
        ),
    ]
    return Explanation(
        rule="dns.mode: hijack",
        where="",
        exit="dns",
        exit_type="dns",
        exit_address="",
        decided="syn",
        refused=False,
        steps=steps,
    )


def _is_whole(
    rules: Rules, question: Question, protocol: int, source: bytes, target: bytes, name: str
) -> bool:
    """Whether a rule sends its packets as they are. A name that a rule is about has a fake address."""
    if question["address"] is None or (name and rules.by_name(name) is not None):
        return False
    return rules.whole(protocol, source, 0, target, question["port"]) is not None


def _whole(found: Found) -> Explanation:
    """The way of packets that are no flow here."""
    route, winner = found.route, found.winner
    assert route is not None  # there is no name
    assert winner is not None
    where = _where(route.exit)
    steps = [
        Step(stage="packet", text="each packet is judged by its address; rules about names are not asked"),
        _rule(winner, found.matches[1:]),
        Step(
            stage="exit",
            text=f"{route.exit.name} is a peer, {where}…: it gets the packets as they are, and sends them on",
        ),
    ]
    return Explanation(
        rule=winner.rule,
        where=winner.where,
        exit=route.exit.name,
        exit_type=_kind(route.exit),
        exit_address=where,
        decided="packet",
        refused=False,
        steps=steps,
    )


def _source(question: Question, target: bytes) -> bytes:
    given = question.get("source")
    if given is not None:
        return ip_address(given).packed
    return _SOURCE if len(target) == 4 else _SOURCE6


def _is_nameless(question: Question, server_first: Collection[int]) -> bool:
    """Whether the server speaks first, so that waiting for the client's first bytes would be in vain."""
    port = question["port"]
    return question["protocol"] == "tcp" and (speaks_first(port) or port in server_first)


def _syn(found: Found) -> Step:
    if found.at_syn:
        text = "decided at once: no rule about names could still win, so the exit is dialled first"
        return Step(stage="syn", text=text)
    if not found.undecided_by:
        return Step(stage="syn", text="not decided yet: the rule gives its exit the flow's name")
    first = found.undecided_by[0]
    more = f" and {found.undecided_count - 1} more" if found.undecided_count > 1 else ""
    return Step(
        stage="syn",
        text=f"not decided yet: {_at(first)}{first.rule}{more} could still win, so the name is needed first",
    )


def _sniffed(found: Found, question: Question, name: str, nameless: bool) -> list[Step]:
    if found.at_syn:
        return []
    if question["protocol"] == "udp":
        how = "the name is read from the first datagrams (QUIC)"
    elif nameless:
        how = "on this port the server speaks first, so no name is waited for"
        return [Step(stage="sniff", text=how)]
    else:
        how = "the name is read from the first bytes (TLS server name, HTTP Host)"
    taken = f"{how}; taken to be {name}" if name else f"{how}; taken to be absent"
    return [Step(stage="sniff", text=taken)]


def _rule(winner: Considered, beaten: tuple[Considered, ...]) -> Step:
    text = f"{_at(winner)}{winner.rule}"
    if not winner.where:
        text = f"no rule matches: the default, {winner.exit}"
    if beaten and beaten[0].where and not beaten[0].rule.startswith(_CATCH_ALL):
        text += f"  (ahead of {_at(beaten[0])}{beaten[0].rule})"
    return Step(stage="rule", text=text)


def _at(considered: Considered) -> str:
    return f"{considered.where}: " if considered.where else ""


def _outcome(exit_: Exit, target: Target, question: Question) -> tuple[str, bool]:
    """What the exit does with the flow, in words, and whether it refuses."""
    udp = question["protocol"] == "udp"
    if _kind(exit_) == "peer":  # its plan would be a new fake address
        return f"{exit_.name} is a peer, {_where(exit_)}…: it dials {_far_end(target, question)}", False
    plan = exit_.udp() if udp else exit_.tcp(target)
    if isinstance(plan, Refusal):
        shown = "ICMP administratively prohibited" if udp else "a reset"
        return f"{exit_.name} refuses: {plan.message}; the application sees {shown}", True
    far_end = _far_end(target, question)
    kind, where = _kind(exit_), _where(exit_)
    match kind:
        case "direct":
            through = f" through {where}" if where else ""
            return f"{exit_.name} sends to {far_end} from this host{through}", False
        case "socks5":
            how = "UDP ASSOCIATE" if udp else "CONNECT"
            return f"{exit_.name} asks the SOCKS5 proxy {where} for {far_end} ({how})", False
        case "http":
            return f"{exit_.name} asks the HTTP proxy {where} for {far_end} (CONNECT)", False
        case _:
            return f"{exit_.name} carries it to {far_end}", False


def _far_end(target: Target, question: Question) -> str:
    if target.name is not None:
        return f"{target.name}:{target.port}, a name that it resolves itself"
    if question["address"] is None:
        return f"the address that the application chooses, port {target.port}"
    return host_port(target.address, target.port)


def _kind(exit_: Exit) -> str:
    return exit_.kind if isinstance(exit_, AnyExit) else type(exit_).__name__.lower()


def _where(exit_: Exit) -> str:
    return exit_.where if isinstance(exit_, AnyExit) else ""
