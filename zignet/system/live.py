"""The real thing, on a small scale: a temporary TUN, a listener, and one connection between them."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Network

from nat.tun import (
    Offload,
    Overlap,
    Plan,
    Tun,
    TunError,
    apply,
    loopback_answers,
    open_tun,
    probe_offload,
    remove,
)
from zignet.config import Config
from zignet.system.check import Check, fail, ok, skip, warn
from zignet.system.privileges import NEED_RIGHTS, may_configure

__all__ = ["checks"]

LOOPBACK = "127.0.0.1"
BLOCK_LENGTH = 29  # prefix length: an address of our own and a few aliases
# Where the configured range is in use: the ends of a benchmark and a documentation range (RFC 2544, RFC 5737).
SPARE_BLOCKS = (IPv4Network("198.19.255.248/29"), IPv4Network("192.0.2.248/29"))

OFFLOAD_WORDS = {Offload.TSO4: "TSO4", Offload.TSO6: "TSO6", Offload.TSO_ECN: "ECN", Offload.USO4: "USO"}


@dataclass(frozen=True, slots=True)
class Trial:
    """A block for the temporary interface, which nothing else uses."""

    name: str
    block: IPv4Network

    @property
    def address(self) -> str:
        """The interface's own."""
        return str(self.block[1])

    @property
    def alias(self) -> str:
        """Where the test connection comes from."""
        return str(self.block[2])

    def plan(self, listener: str) -> Plan:
        """No rule, no route beyond the block: nobody's traffic notices."""
        return Plan(
            name=self.name,
            addresses=(self.address,),
            aliases=(str(self.block),),
            route_localnet=listener == "loopback",
        )


def checks(config: Config) -> list[Check]:
    """What the TUN driver can do, and whether a connection through it reaches a listener. Nothing stays."""
    if not may_configure():
        why = "a test interface needs root"
        return [skip("offload", why, NEED_RIGHTS), skip("firewall", why, NEED_RIGHTS)]
    name = f"zgt{os.getpid()}"
    try:
        tun = open_tun("auto", name, config.tun.offload)
    except TunError as error:
        return [fail("offload", f"{error.what}: {error.why}", error.advice)]
    promised = tun.offload
    try:
        trial = _bring_up(name, config)
        return [_offload(config, promised, probe_offload(tun)), _firewall(config, tun, trial)]
    except TunError as error:
        return [fail("firewall", f"the test interface failed: {error.what}: {error.why}", error.advice)]
    finally:
        with suppress(TunError):
            remove(Plan(name=name))
        tun.close()


def _bring_up(name: str, config: Config) -> Trial:
    """Configure the interface with the first block that is free. Raises `TunError`."""
    middle = config.tun.range.network_address + config.tun.range.num_addresses // 2
    candidates = (IPv4Network((middle, BLOCK_LENGTH), strict=False), *SPARE_BLOCKS)
    for block in candidates:
        trial = Trial(name, block)
        try:
            apply(trial.plan(config.tun.listener))
        except Overlap as error:
            taken = error
            continue
        return trial
    raise taken


def _offload(config: Config, promised: Offload, kept: Offload) -> Check:
    if config.tun.offload == "off":
        return ok("offload", "switched off by `tun.offload`")
    words = ", ".join(word for flag, word in OFFLOAD_WORDS.items() if flag & kept) or "none"
    if kept != promised:
        detail = f"{words}; the kernel promises more and then refuses such packets"
        return warn("offload", detail, "it works, slower; a newer kernel may do better")
    if not kept & Offload.TSO4:
        return warn("offload", words, "it works, slower: every packet goes one by one")
    return ok("offload", words)


def _firewall(config: Config, tun: Tun, trial: Trial) -> Check:
    name, look = "firewall", "see `nft list ruleset` and `iptables -S`"
    loopback = config.tun.listener == "loopback"
    address = LOOPBACK if loopback else trial.address
    if _reaches(tun, trial, address):
        return ok(name, f"a test connection from a TUN reached {address}")
    detail = f"a test connection from a TUN to {address} got no answer: "
    if loopback and _reaches(tun, trial, trial.address):
        why = "a rule drops what enters 127.0.0.0/8 from another interface than lo, as Docker's and kube-proxy's do"
        return fail(
            name, detail + why, f"set `tun.listener: tun`, which works here, or remove the rule ({look})"
        )
    why = "a rule drops input from interfaces that it does not know"
    return fail(name, detail + why, f"allow TCP input from {config.tun.name} ({look})")


def _reaches(tun: Tun, trial: Trial, address: str) -> bool:
    with socket.create_server((address, 0)) as listener:
        return loopback_answers(tun, trial.alias, address, listener.getsockname()[1])
