"""Whether the proxies that exits lead to accept connections."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from zignet.config import Config, ExitConfig
from zignet.system.check import Check, ok, warn
from zignet.system.privileges import may_configure

__all__ = ["checks"]

TIMEOUT_S = 2.0
AT_ONCE = 16


def checks(config: Config) -> list[Check]:
    """One for each exit with an address; they are tried side by side."""
    exits = [each for each in config.exits.values() if each.address is not None]
    if not exits:
        return []
    with ThreadPoolExecutor(min(AT_ONCE, len(exits))) as pool:
        return list(pool.map(lambda each: _reach(config, each), exits))


def _reach(config: Config, upstream: ExitConfig) -> Check:
    name, address = f"exit {upstream.name}", upstream.address or ""
    host, _, port = address.rpartition(":")
    started = time.monotonic()
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        family, kind, protocol, _, target = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.settimeout(TIMEOUT_S)
            if may_configure():  # past our own TUN, should a node be running
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, config.mark)
            if upstream.interface:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, upstream.interface.encode())
            probe.connect(target)
    except TimeoutError:
        return warn(
            name,
            f"{address}: no answer within {TIMEOUT_S:g} s",
            "is the proxy running, and is it let through?",
        )
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        return warn(name, f"{address}: {why}", "is the proxy running, and is its address right?")
    return ok(name, f"{address} accepts connections ({(time.monotonic() - started) * 1000:.0f} ms)")
