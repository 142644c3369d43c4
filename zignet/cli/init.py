"""`zignet init`: a key and a configuration to begin with. What exists stays as it is."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from zignet.cli.errors import ExitCode, Fault
from zignet.cli.files import intended
from zignet.cli.whoami import Identity, of_key

__all__ = ["Start", "report", "start"]

_TEMPLATE = """\
# ZigNet's configuration. Everything has a default; what is behind a # shows how to say it otherwise.
# `zignet check` reads this file and says what is wrong; docs/operations.md explains every key.

# Where this node keeps its key, and what it must remember. Secret: the file "identity" in it.
state_dir: {state_dir}

# Where peers reach this host. Open this UDP port in the firewall, and forward it in the router, if you can;
# one side of a pair that can be reached is enough.
listen: ["udp://[::]:51830"]

# Whom this host knows. The key is what `zignet whoami` shows there; without an endpoint the peer must come to us.
peers: []
#  - {{name: laptop, key: (56 characters)}}
#  - {{name: server, key: (56 characters), endpoint: "server.example:51830", keepalive: 25}}
#  - file: ./peers.txt      # many of them: one a line, "name key [endpoint]"

# Who else may come in. Peers from the list above may anyway, and contacts, for what is published to them.
inbound:
  default_action: deny
#  allow: [(key), (key)]
#  policies: [{{type: file, path: ./allowed.txt}}]                # or a script, a database, a chain
#  services: [{{proto: tcp, port: 22}}, {{proto: icmp}}]            # what they may reach here; without it, all
#publish: [{{name: web, port: 80}}]                               # for contacts: see `zignet contacts`, `zignet serve`

# Which of this machine's traffic enters. global: all of it, and each flow leaves by the exit that the routes
# choose. off: only what goes to peers.
proxy:
  mode: global
#  bypass: [192.168.0.0/16]

# Ways out, besides `direct`, `block` and peers, each by its name.
exits: {{}}
#  tokyo: {{type: socks5, address: "proxy.example:1080"}}

# Which flow leaves by which exit: the first rule that matches, else direct.
routes: []
#  - "*.video.example -> tokyo"
#  - MATCH,direct

# The Admin API, for this machine only: http://100.64.0.1/, http://admin.zignet/ once names are asked here, and
# admin.sock in the state directory.
admin: {{}}

# Names: answered at 127.0.0.1:53530 and 100.64.0.1:53. Those that a route sends to a proxy or a peer get addresses of
# their own. auto has this machine's programs ask here.
#dns: {{mode: auto}}
"""


@dataclass(frozen=True, slots=True)
class Start:
    """What `zignet init` found or made."""

    config: Path
    new_config: bool
    new_key: bool
    who: Identity


def start(given: Path | None, state_dir: Path | None = None) -> Start:
    """Make what is missing of the two. `given` is the file after -c.

    Raises `Fault`, `ConfigError` for an existing file that is wrong, `KeyFileError`.
    """
    from zignet.config import Config, load_config, parse_config
    from zignet.identity import SecretKey, read_key, write_key

    path = intended(given)
    new_config = not path.exists()
    if new_config:
        text = _TEMPLATE.format(state_dir=_quoted((state_dir or Config().state_dir).absolute()))
        config = parse_config(text, path)
        _write_new(path, text)
    elif state_dir is not None:
        raise Fault(
            f"{path} exists, and says itself where its state_dir is. Leave --state-dir out, or change it there.",
            ExitCode.USAGE,
        )
    else:
        config = load_config(path)
    key_file = config.identity_file
    new_key = not os.path.lexists(key_file)
    if new_key:
        key = SecretKey.generate()
        write_key(key_file, key)
    else:
        key = read_key(key_file)
    return Start(path, new_config, new_key, of_key(key.public, config))


def report(made: Start) -> str:
    """What was done, who this node is now, and what to do next."""
    files = f"the key {made.who['key_file']}", f"the configuration {made.config}"
    new = [file for file, is_new in zip(files, (made.new_key, made.new_config), strict=True) if is_new]
    kept = [file for file in files if file not in new]
    said = [f"Made {' and '.join(new)}."] if new else []
    said += [f"Kept {' and '.join(kept)}, as {'they were' if len(kept) > 1 else 'it was'}."] if kept else []
    return f"""\
{" ".join(said)}

name     {made.who["name"]}
IPv6     {made.who["address6"]}

Next:
  tell the name to your peers, and write theirs into `peers:` of {made.config}
  zignet -c {made.config} check
  sudo zignet -c {made.config} up
The key is this node: `zignet key export FILE` makes a copy of it under a passphrase."""


def _quoted(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)


def _write_new(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Fault(f"the configuration {path} can't be written: {error.strerror}") from error
