"""`tests/vectors/protocol/identity.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parents[2] / "vectors" / "protocol" / "identity.json"
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(_FILE.read_text())

KEYS = VECTORS["keys"]
BAD_KEYS = VECTORS["bad_keys"]
BAD_TEXTS = VECTORS["bad_texts"]
