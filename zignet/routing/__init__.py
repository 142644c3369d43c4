"""Rules: which exit a flow leaves by.

A rule is one line, in Clash's format or as an arrow:

    DOMAIN,www.example.com,tokyo         this name                 www.example.com -> tokyo
    DOMAIN-SUFFIX,example.com,tokyo      it and all below it       *.example.com -> tokyo
    DOMAIN-KEYWORD,video,tokyo           names that contain it
    DOMAIN-REGEX,^ads?[0-9]*\\.,block     names it is found in
    IP-CIDR,203.0.113.0/24,office        the target's address      203.0.113.0/24 -> office
    SRC-IP-CIDR,10.0.0.0/8,office        the source's address
    DST-PORT,80/443/8000-9000,office     the target's port
    NETWORK,udp,block                    tcp, udp or icmp
    MATCH,direct                         everything                * -> direct

The first rule that matches wins; what no rule matches goes `direct`. An option after the exit, `by-name`
(`*.example.com -> office by-name`), gives the exit the flow's name instead of its address. `packet`
(`203.0.113.0/24 -> peer_us packet`) gives a peer the packets for a network as they are.

    Line, Lines, read_lines   lines of text, each with the file and line that it came from
    parse_rule                one line to one `Rule`
    Rules                     all of them, as tables: `choose` costs the same for ten and for 100,000 names
    Explanation               what `Rules.explain` answers, for people
"""

from zignet.routing.explain import Considered, Explanation
from zignet.routing.lines import Line, Lines, read_lines
from zignet.routing.names import ascii_name
from zignet.routing.nearest import did_you_mean
from zignet.routing.rule import ALIASES, RESERVED, Rule, RuleError, parse_rule
from zignet.routing.rules import Rules, build_rules, check_lines

__all__ = [
    "ALIASES",
    "RESERVED",
    "Considered",
    "Explanation",
    "Line",
    "Lines",
    "Rule",
    "RuleError",
    "Rules",
    "ascii_name",
    "build_rules",
    "check_lines",
    "did_you_mean",
    "parse_rule",
    "read_lines",
]
