"""What governs names on this host: the facts that `choose` decides by. Looks only; changes nothing."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path

from zignet.system.names import resolv_conf

__all__ = ["Dnsmasq", "Host", "dnsmasq_of", "glance", "local_networks", "look", "manager_plugin"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Dnsmasq:
    """A dnsmasq that runs on its own."""

    directory: str | None  # whose files it reads, or None
    resolv_file: str  # where it reads its upstreams


@dataclass(frozen=True, slots=True)
class Host:
    """The facts. Paths are absolute."""

    system: str = "linux"  # sys.platform
    content: bytes = b""  # that programs read as /etc/resolv.conf
    target: str | None = None  # if it is a symlink
    programs: frozenset[str] = frozenset()  # of those that we may call, the ones that are there
    resolved: bool = False  # systemd-resolved runs
    manager: bool = False  # NetworkManager runs
    manager_plugin: str = ""  # its `dns=`
    manager_writes: bool = False  # … and /etc/resolv.conf is its own
    dnsmasq: Dnsmasq | None = None
    networks: tuple[Network, ...] = field(
        default=()
    )  # that have a route of their own, and so never enter the TUN

    @property
    def nameservers(self) -> tuple[Address, ...]:
        """Of /etc/resolv.conf; without any, programs ask this host (resolv.conf(5))."""
        return resolv_conf.nameservers(self.content)

    def reaches_tun(self, address: Address, bypass: tuple[Network, ...] = ()) -> bool:
        """Whether a packet to it takes the default route, where that leads into the TUN."""
        if address.is_loopback or address.is_link_local or address.is_unspecified:
            return False
        return not any(address in network for network in (*self.networks, *bypass) if network.prefixlen)


PROGRAMS = ("resolvectl", "nmcli", "systemctl", "service")


def look() -> Host:
    """This host as it is now."""
    glanced = glance()
    target = None
    with suppress(OSError):
        target = os.readlink(resolv_conf.PATH)
    programs = {name for name in PROGRAMS if _is_program(name)}
    if not Path("/run/systemd/system").is_dir():
        programs.discard("systemctl")  # there, but systemd is not
    manager = Path("/run/NetworkManager").is_dir() and _runs("NetworkManager") is not None
    return Host(
        system=sys.platform,
        content=glanced.content,
        target=target,
        programs=frozenset(programs),
        resolved=Path("/run/systemd/resolve").is_dir() and _runs("systemd-resolve") is not None,
        manager=manager,
        manager_plugin=manager_plugin(_manager_files()) if manager else "",
        manager_writes=manager and (b"NetworkManager" in glanced.content.partition(b"\n")[0]),
        dnsmasq=_dnsmasq(),
        networks=glanced.networks,
    )


def glance() -> Host:
    """Of it only whom programs ask, and by which way: cheap enough to be done again and again."""
    content = b""
    with suppress(OSError):
        content = Path(resolv_conf.PATH).read_bytes()[: 1 << 20]
    networks = (
        *local_networks(_text("/proc/thread-self/net/route")),
        *local_networks6(_text("/proc/thread-self/net/ipv6_route")),
    )
    return Host(system=sys.platform, content=content, networks=networks)


def manager_plugin(files: list[str]) -> str:
    """NetworkManager's `[main] dns`, from its configuration files in the order in which they are read."""
    value = ""
    for text in files:
        section = ""
        for line in map(str.strip, text.splitlines()):
            if line.startswith("["):
                section = line.strip("[]")
            elif section == "main" and line.partition("=")[0].strip() == "dns":
                value = line.partition("=")[2].strip()
    return value


def dnsmasq_of(arguments: list[str], files: dict[str, str]) -> Dnsmasq:
    """What a dnsmasq reads, from its command line and the configuration files it may name."""
    options = list(_options(arguments))
    main = next((value for name, value in options if name in ("C", "conf-file")), "/etc/dnsmasq.conf")
    for line in files.get(main, "").splitlines():
        name, _, value = line.partition("#")[0].partition("=")
        options.append((name.strip(), value.strip()))
    directories = [value for name, value in options if name in ("7", "conf-dir") and value]
    resolv = [value for name, value in options if name in ("r", "resolv-file") and value]
    chosen = next((each for each in directories if _takes(each)), None)
    return Dnsmasq(chosen and chosen.partition(",")[0], resolv[-1] if resolv else resolv_conf.PATH)


def _options(arguments: list[str]) -> list[tuple[str, str]]:
    """`-C FILE`, `-CFILE`, `--conf-file=FILE`, as name and value."""
    found = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument.startswith("--"):
            name, _, value = argument[2:].partition("=")
            found.append((name, value))
        elif argument.startswith("-") and len(argument) > 1:
            found.append((argument[1], argument[2:] or following))
    return found


def _takes(directory: str) -> bool:
    """Whether `DIR,.suffix,…` or `DIR,*.suffix` reads a file called zignet.conf (dnsmasq(8), --conf-dir)."""
    filters = directory.split(",")[1:]
    only = [each[1:] for each in filters if each.startswith("*")]
    not_ = [each for each in filters if not each.startswith("*") and each]
    return not any(map("zignet.conf".endswith, not_)) and (not only or any(map("zignet.conf".endswith, only)))


def local_networks(table: str) -> list[Network]:
    """The destinations in /proc/net/route, without defaults. Its numbers are little-endian (proc(5))."""
    found: list[Network] = []
    for line in table.splitlines()[1:]:
        words = line.split()
        with suppress(ValueError, IndexError, OverflowError):
            address, mask = (int(words[at], 16).to_bytes(4, sys.byteorder) for at in (1, 7))
            if any(mask):
                found.append(ip_network((address, int.from_bytes(mask).bit_count()), strict=False))
    return found


def local_networks6(table: str) -> list[Network]:
    """The destinations in /proc/net/ipv6_route, without defaults."""
    found: list[Network] = []
    for line in table.splitlines():
        words = line.split()
        with suppress(ValueError, IndexError):
            if length := int(words[1], 16):
                found.append(ip_network((bytes.fromhex(words[0]), length), strict=False))
    return found


def _dnsmasq() -> Dnsmasq | None:
    found = None
    for pid in _processes("dnsmasq"):
        arguments = _text(f"/proc/{pid}/cmdline").split("\0")
        if "--conf-file=/dev/null" in arguments or any("NetworkManager" in each for each in arguments):
            continue  # somebody's helper
        named = [value for name, value in _options(arguments) if name in ("C", "conf-file") and value]
        found = dnsmasq_of(arguments, {path: _text(path) for path in (*named, "/etc/dnsmasq.conf")})
        if found.directory is not None:
            break
    return found


def _manager_files() -> list[str]:
    """In NetworkManager's own order (NetworkManager.conf(5))."""
    parts: dict[str, Path] = {}
    for directory in (
        "/usr/lib/NetworkManager/conf.d",
        "/run/NetworkManager/conf.d",
        "/etc/NetworkManager/conf.d",
    ):
        with suppress(OSError):
            parts |= {path.name: path for path in Path(directory).glob("*.conf")}
    return [
        _text("/etc/NetworkManager/NetworkManager.conf"),
        *(_text(parts[name]) for name in sorted(parts)),
    ]


def _is_program(name: str) -> bool:
    """As `shutil.which`, which costs the packet process a megabyte."""
    directories = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return any(os.access(os.path.join(each, name), os.X_OK) for each in directories if each)


def _runs(name: str) -> int | None:
    return next(iter(_processes(name)), None)


def _processes(name: str) -> list[int]:
    """Of this name (15 characters at most), in our network namespace: others' resolvers are not ours."""
    found = []
    with suppress(OSError):
        ours = os.stat("/proc/thread-self/ns/net").st_ino
        for entry in os.listdir("/proc"):
            if entry.isdecimal() and _text(f"/proc/{entry}/comm").strip() == name[:15]:
                with suppress(OSError):
                    if os.stat(f"/proc/{entry}/ns/net").st_ino == ours:
                        found.append(int(entry))
    return sorted(found)


def _text(path: str | Path) -> str:
    with suppress(OSError), open(path, errors="replace") as file:
        return file.read(1 << 20)
    return ""
