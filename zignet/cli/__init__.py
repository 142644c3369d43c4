"""The `zignet` command.

app        the commands and their options
errors     exit codes, and how an error reads
files      which configuration file is meant
up         becomes the packet process, which never imports any of this
flows, status, route, doctor, check, version, reload    one command each
init, whoami, key    the node's identity; qr draws it
wire_dump  what a capture holds of ours
text       sizes, times and names as people read them
"""

from zignet.cli.errors import ExitCode, guarded

__all__ = ["ExitCode", "guarded", "main"]


def main(args: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    from zignet.cli.app import run

    return run(args)
