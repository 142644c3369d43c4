"""Machines on one cable, for what happens between peers: `Hosts("a", "b")`.

    a 192.0.2.1, 2001:db8::1 ── eth0 ───── eth0 ── b 192.0.2.2, 2001:db8::2      (three and more: a switch between)

The cable has an MTU, may lose datagrams, and a machine may move to another address. Each has a key, and runs
a ZigNet node when told to.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pyroute2 import Ethtool, IPRoute

from zignet.control import Client
from zignet.control.messages import Peer, Status
from zignet.lab.lab import Lab
from zignet.lab.namespace import Namespace, join, start_module
from zignet.lab.running import Running

if TYPE_CHECKING:
    from zignet.identity import SecretKey

__all__ = ["PORT", "UNDERLAY", "Host", "Hosts"]

UNDERLAY = "eth0"
PORT = 51830
MOVE = 100  # what a move adds to the last part of an address
REACH_S = 10.0
FILTERS = {"iptables": (), "ip6tables": ("135", "136")}  # neighbour discovery (RFC 4861 §4) is not lost
SEGMENTATION = (
    "tx-udp-segmentation",
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-generic-segmentation",
)


class Host:
    """One machine. `node` is its ZigNet node, once there was one."""

    def __init__(self, name: str, number: int, namespace: Namespace, directory: Path) -> None:
        self.name = name
        self.number = number
        self.namespace = namespace
        self.directory = directory
        self.node: Running | None = None

    @property
    def address(self) -> str:
        """On the underlay."""
        return f"192.0.2.{self.number}"

    @property
    def address6(self) -> str:
        """On the underlay."""
        return f"2001:db8::{self.number:x}"

    @property
    def prefixes(self) -> tuple[str, str]:
        """Both, as they stand on the interface."""
        return f"{self.address}/24", f"{self.address6}/64"

    def endpoint(self, version: int = 4) -> str:
        """Where its node listens, as a configuration names it."""
        return f"{self.address}:{PORT}" if version == 4 else f"[{self.address6}]:{PORT}"

    @cached_property
    def secret(self) -> SecretKey:
        """Its identity, made at the first look and written where its node will read it."""
        from zignet.identity import SecretKey, write_key

        secret = SecretKey.generate()
        state_dir = self.directory / "state"
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_key(state_dir / "identity", secret)
        return secret

    @property
    def key(self) -> str:
        """The name of its public key."""
        return self.secret.public.name

    def prepare(self, config: Mapping[str, Any]) -> Running:
        """A node with this configuration, not started; its key and what it remembers stay from one to the next."""
        _ = self.secret  # written now, if it was not before
        self.node = Running(self.namespace, self.directory, yaml.safe_dump(dict(config), sort_keys=False))
        return self.node

    def client(self) -> Client:
        """Asks its running node: `with host.client() as client`."""
        assert self.node is not None
        return Client(self.node.state_dir)

    def status(self) -> Status:
        """What its running node says of itself. Raises ControlError."""
        with self.client() as client:
            return client.status()

    def peer(self, other: Host) -> Peer:
        """What its running node says of another one. Raises LookupError, ControlError."""
        with self.client() as client:
            for peer in client.peers():
                if peer["key"] == other.key:
                    return peer
        raise LookupError(f"{self.name} does not know {other.name}")

    def inner(self, other: Host, version: int = 4) -> str:
        """The address by which this machine reaches another one through ZigNet."""
        peer = self.peer(other)
        return peer["address"] if version == 4 else peer["address6"]

    def reaches(self, address: str, within_s: float = REACH_S) -> bool:
        """Whether an address answers a ping, sooner or later."""
        deadline = time.monotonic() + within_s
        while self.namespace.run(["ping", "-c1", "-W1", address]).returncode != 0:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True


class Hosts(Lab):
    """The machines, by name. `mtu` is the underlay's."""

    def __init__(self, *names: str, mtu: int = 1500) -> None:
        self.names = names
        self.mtu = mtu
        self.hosts: dict[str, Host] = {}
        self.ports: list[tuple[Namespace, str]] = []  # the cable's ends
        super().__init__()

    def build(self) -> None:
        """Machines, cables, addresses."""
        for number, name in enumerate(self.names, 1):
            self.hosts[name] = Host(name, number, self.add(name), self.directory / name)
        machines = [host.namespace for host in self.hosts.values()]
        if len(machines) == 2:
            join(machines[0], UNDERLAY, machines[1], UNDERLAY)
        else:
            self._switch(machines)
        self.ports += [(machine, UNDERLAY) for machine in machines]
        self.set_mtu(self.mtu)
        for host in self:
            host.namespace.sysctl("net.ipv4.conf.all.promote_secondaries", 1)  # so that a move leaves no gap
            host.namespace.address(UNDERLAY, *host.prefixes)
        self.wait_for_carriers()

    def _switch(self, machines: Iterable[Namespace]) -> None:
        switch = self.add("switch")
        switch.netlink(lambda ip: ip.link("add", ifname="br0", kind="bridge", br_stp_state=0))
        (bridge,) = switch.netlink(lambda ip: ip.link_lookup(ifname="br0"))
        for machine in machines:
            join(machine, UNDERLAY, switch, machine.role)
            self.ports.append((switch, machine.role))
            switch.link(machine.role, master=bridge, state="up")
        self.ports.append((switch, "br0"))
        switch.link("br0", state="up")

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts.values())

    # --- the cable

    def set_mtu(self, mtu: int) -> None:
        """Of the underlay, everywhere."""
        self.mtu = mtu
        for namespace, interface in self.ports:
            namespace.link(interface, mtu=mtu)

    def lose(self, share: float, *names: str) -> None:
        """Lose this share of what arrives at the machines named (all of them, and so both ways); 0 ends it.

        From then on the cable carries each datagram by itself, as a real one does, so that none takes others with it.
        """
        self.one_by_one()
        for name in names or self.names:
            namespace = self[name].namespace
            for program, spared in FILTERS.items():
                _checked(namespace, program, "-w", "-F", "INPUT")
                if share > 0:
                    for kind in spared:
                        _append(namespace, program, "ACCEPT", "-p", "icmpv6", "--icmpv6-type", kind)
                    how = ("-m", "statistic", "--mode", "random", "--probability", f"{share:.6f}")
                    _append(namespace, program, "DROP", "-i", UNDERLAY, *how)

    def delay(self, name: str, seconds: float) -> None:
        """Hold what goes between a machine and the switch for so long, each way. Once a machine, of three or more."""
        switch = next(namespace for namespace in self.namespaces if namespace.role == "switch")
        (bridge,) = switch.netlink(lambda ip: ip.link_lookup(ifname="br0"))
        near, far = f"{name}-near", f"{name}-far"
        join(switch, near, switch, far)
        for interface, master in ((name, 0), (near, 0), (far, bridge)):
            switch.link(interface, mtu=self.mtu, master=master, state="up")
            self.ports.append((switch, interface))
        start_module(switch, "zignet.lab.delay", name, near, str(seconds))
        self.wait_for_carriers()

    def one_by_one(self) -> None:
        """Take segmentation offload from the cable: trains of datagrams are cut up before they are on it."""

        def off(interface: str) -> None:
            tool = Ethtool()
            features = tool.get_features(interface)
            for name in SEGMENTATION:
                features.features[name].enable = False
            tool.set_features(interface, features)
            tool.close()

        for namespace, interface in self.ports:
            if interface != "br0":
                namespace.call(off, interface)

    def move(self, name: str) -> None:
        """A machine takes another address, and gives the one it had back."""
        host = self[name]
        old = host.prefixes
        host.number += MOVE if host.number < MOVE else -MOVE
        host.namespace.address(UNDERLAY, *host.prefixes)

        def give_back(ip: IPRoute) -> None:
            (index,) = ip.link_lookup(ifname=UNDERLAY)
            for prefix in old:
                address, _, length = prefix.partition("/")
                ip.addr("del", index=index, address=address, prefixlen=int(length))

        host.namespace.netlink(give_back)

    # --- the nodes

    def config(self, name: str, version: int = 4, **changes: Any) -> dict[str, Any]:
        """Of a node that knows all others and lets them in, and leaves other traffic alone."""
        others = [host for host in self if host.name != name]
        usual = {
            "proxy": {"mode": "off"},
            "listen": [f"udp://[::]:{PORT}"],
            "peers": [
                {"name": host.name, "key": host.key, "endpoint": host.endpoint(version)} for host in others
            ],
            "inbound": {"default_action": "deny", "allow": [host.key for host in others]},
        }
        return usual | changes

    def start(self, name: str, config: Mapping[str, Any] | None = None, **changes: Any) -> Running:
        """Start a node; with `config` if there is one, else the usual one with changes. Raises NotReady."""
        return self[name].prepare(config or self.config(name, **changes)).start()

    def start_all(self, **changes: Any) -> None:
        """Start all nodes. Raises NotReady."""
        for name in self.names:
            self.start(name, **changes)


def _append(namespace: Namespace, program: str, verdict: str, *match: str) -> None:
    _checked(namespace, program, "-w", "-A", "INPUT", *match, "-j", verdict)


def _checked(namespace: Namespace, *command: str) -> None:
    done = namespace.run(command)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
