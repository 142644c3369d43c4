"""Where the API is reached. The packet process makes these sockets, and hands them to the control process.

admin.sock in the state directory     mode 0660: who may open it may change what the command line may
port 80 of the node's own addresses   only for packets from that very address, and so from this host: what a peer
                                      sends never meets this socket, and may meet another (`zignet serve`)
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from zignet.bpf import attach_filter, attach_selector, by_source, only_from
from zignet.control.place import listen

__all__ = ["ADMIN_SOCKET", "admin_listeners", "remove_admin_socket"]

ADMIN_SOCKET = "admin.sock"
PORT = 80
BACKLOG = 64


def admin_listeners(
    state_dir: Path, addresses: Iterable[str], note: Callable[[str], None] = lambda text: None
) -> list[socket.socket]:
    """The unix socket, and one for each of the node's own addresses that can be had; `note` hears of the others.

    Raises OSError where not even the unix socket can be made.
    """
    made = [listen(state_dir, ADMIN_SOCKET, 0o660)]
    for address in addresses:
        try:
            made.append(_tcp(address))
        except OSError as error:
            note(
                f"http://admin.zignet/ is not answered at {address}, port {PORT}: {error.strerror}. "
                f"{state_dir / ADMIN_SOCKET} works all the same"
            )
    return made


def remove_admin_socket(state_dir: Path) -> None:
    """At the end, by the process that has made it: the one that serves it may not write there."""
    with suppress(OSError):
        (state_dir / ADMIN_SOCKET).unlink()


def _tcp(address: str) -> socket.socket:
    """Of several sockets of the address and port the first, and for this host alone: `zignet serve` is the second.

    Binding it to `lo` does not do: to the kernel, what this host sends to itself comes by the address's own device.
    """
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    packed = socket.inet_pton(made.family, address)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        attach_filter(made, only_from(packed))  # where it can't be, accepting looks again
        made.bind((address, PORT))
        made.listen(BACKLOG)
        attach_selector(made, by_source(packed))
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made
