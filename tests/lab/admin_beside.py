"""The Admin API beside a running node: `python -m tests.lab.admin_beside STATE_DIR ADDRESS…`. Prints "ready"."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from pathlib import Path

import uvloop

from zignet.admin.app import create_app, create_servers
from zignet.admin.listen import admin_listeners
from zignet.admin.node import NodeClient
from zignet.admin.token import admin_token
from zignet.control.place import socket_address


def question(state_dir: Path) -> socket.socket:
    end = socket.socket(socket.AF_UNIX)
    with socket_address(state_dir) as address:
        end.connect(address)
    return end


async def main(state_dir: Path, addresses: list[str]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    node = await NodeClient.open([question(state_dir) for _ in range(4)])
    sockets = admin_listeners(state_dir, addresses, lambda text: print(text, file=sys.stderr))
    servers = await create_servers(create_app(node, token=admin_token(state_dir)), sockets)
    print("ready", flush=True)
    await stop.wait()
    await servers.close()
    node.close()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), sys.argv[2:]))
