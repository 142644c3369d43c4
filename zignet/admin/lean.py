"""Sanic, without what it loads for HTTP/3 where aioquic happens to be installed: 14 MiB. Import this before it."""

from __future__ import annotations

import sys
from typing import Any

_modules: dict[str, Any] = sys.modules
_hidden = "aioquic" not in _modules
if _hidden:
    _modules["aioquic"] = None  # to whoever asks, it is not installed
try:
    import sanic  # noqa: F401
finally:
    if _hidden:
        del _modules["aioquic"]
