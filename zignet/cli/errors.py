"""Exit codes, and how an error reads: one paragraph that says what, why, and what to do.

The packet process uses this too, so nothing heavy is imported.
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable
from enum import IntEnum

from zignet.cli.text import printable

__all__ = ["ExitCode", "Fault", "complain", "guarded"]


class ExitCode(IntEnum):
    """What the `zignet` command returns to the shell. Stable: scripts may rely on them."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    CONFIGURATION = 3
    NOT_RUNNING = 4
    PRIVILEGES = 5
    ALREADY_RUNNING = 6
    DENIED = 7  # by policy: `zignet policy check`
    INTERRUPTED = 130  # 128 + SIGINT, as shells do


class Fault(Exception):
    """An error that ends the command; its text is all the person needs."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILURE) -> None:
        super().__init__(message)
        self.code = code


def guarded(action: Callable[[], object], verbose: Callable[[], bool] = lambda: False) -> int:
    """Run `action`; whatever it raises becomes a message on stderr and an exit code.

    A traceback is shown for errors that are ours, and only where `verbose` answers so.
    """
    try:
        action()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away, e.g. `head`: nobody to complain to
        return ExitCode.FAILURE
    except Exception as error:
        code = _code(error)
        if code is None:
            _admit(error, verbose())
            return ExitCode.FAILURE
        lines = str(error).splitlines()
        complain(lines[0] if len(lines) == 1 else "\n  ".join(["several things are wrong:", *lines]))
        return code
    return ExitCode.OK


def complain(message: str) -> None:
    """One paragraph on stderr. It may quote a link, a file, an answer: nothing in it steers the terminal."""
    shown = "\n".join(printable(line) for line in message.split("\n"))
    print(f"zignet: {shown}", file=sys.stderr)


def _code(error: Exception) -> ExitCode | None:
    """The code of an error that is no fault of the program, or None."""
    from zignet.config import ConfigError
    from zignet.control import AlreadyRunning, ControlError, NotPermitted, NotRunning
    from zignet.exits import ExitSetupError
    from zignet.identity import BadKey, KeyFileError
    from zignet.routing import RuleError

    if (code := _code_of_tun(error)) is not None:
        return code
    match error:
        case Fault():
            return error.code
        case ConfigError() | ExitSetupError() | RuleError() | KeyFileError():
            return ExitCode.CONFIGURATION
        case BadKey():  # as it was typed
            return ExitCode.USAGE
        case NotRunning():
            return ExitCode.NOT_RUNNING
        case NotPermitted():
            return ExitCode.PRIVILEGES
        case ControlError():
            return ExitCode.FAILURE
        case AlreadyRunning():
            return ExitCode.ALREADY_RUNNING
        case OSError() if error.errno in (errno.EPERM, errno.EACCES):
            return ExitCode.PRIVILEGES
        case _:
            return None


def _code_of_tun(error: Exception) -> ExitCode | None:
    """For errors of `nat.tun`, which is not loaded for the question alone: it is none if it is not there."""
    errors = sys.modules.get("nat.tun.errors")
    if errors is None or not isinstance(error, errors.TunError):
        return None
    if isinstance(error, errors.NotPermitted):
        return ExitCode.PRIVILEGES
    return ExitCode.ALREADY_RUNNING if isinstance(error, errors.OwnedByAnother) else ExitCode.FAILURE


def _admit(error: Exception, verbose: bool) -> None:
    if verbose:
        traceback.print_exception(error)
    where = "" if verbose else " Run it again with -v for the details, and please report them."
    complain(f"this is a bug: {type(error).__name__}: {error}.{where}")
