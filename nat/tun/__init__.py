"""TUN devices, and what the system needs around them: addresses, routes, rules.

Five nouns:

* **device** (`Tun`): a descriptor that gives and takes whole IP packets, behind a header of `header` bytes;
* **offload** (`Offload`): which packets of more than one segment the kernel gives us, and takes from us;
* **plan** (`Plan`): all that the system is told about the device; `apply`, `sync` and `remove` carry it out;
* **rules** (`nat.tun.rules`): the policy rules of a global proxy, at fixed priorities, to be found again;
* **probe** (`nat.tun.probe`): asks the real kernel what it does, before anything depends on it.

    tun = open_tun("auto", "zig0", "auto")      # needs CAP_NET_ADMIN
    applied = apply(Plan(name=tun.name, addresses=("100.64.0.1",), aliases=("100.127.0.0/16",)))
    probe_offload(tun)                          # the interface is up now
    ...
    remove(plan)
    tun.close()                                 # routes vanish with the device

Everything here is synchronous and belongs before or after the packet loop, except `AddressWatch`.
"""

from nat.tun.configure import apply, remove, survey, sync
from nat.tun.device import Offload, Tun, open_tun
from nat.tun.errors import (
    BadDescriptor,
    InterfaceGone,
    NameTaken,
    NotPermitted,
    NoTunDriver,
    Overlap,
    OwnedByAnother,
    SettingRefused,
    TunError,
)
from nat.tun.plan import Applied, Neighbour, Plan, Survey
from nat.tun.probe import loopback_answers, probe_offload
from nat.tun.watch import AddressWatch

__all__ = [
    "AddressWatch",
    "Applied",
    "BadDescriptor",
    "InterfaceGone",
    "NameTaken",
    "Neighbour",
    "NoTunDriver",
    "NotPermitted",
    "Offload",
    "Overlap",
    "OwnedByAnother",
    "Plan",
    "SettingRefused",
    "Survey",
    "Tun",
    "TunError",
    "apply",
    "loopback_answers",
    "open_tun",
    "probe_offload",
    "remove",
    "survey",
    "sync",
]
