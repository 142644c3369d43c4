"""The OpenAPI document is what the API does: schemathesis asks all that the document allows, and compares."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import pytest

from tests.zignet.admin.conftest import TOKEN, Served, api
from tests.zignet.admin.test_app import Sample
from zignet.admin.api import Api
from zignet.admin.endpoint import endpoints_of
from zignet.admin.openapi import document, schema_of


class Inner(TypedDict):
    text: str | None


class Outer(TypedDict):
    inner: Inner
    many: list[Inner]
    counts: dict[str, int]
    word: Literal["a", "b"]
    perhaps: NotRequired[float]


def test_schemas() -> None:
    schemas: dict[str, Any] = {}
    assert schema_of(Outer, schemas) == {"$ref": "#/components/schemas/Outer"}
    assert schemas["Outer"]["required"] == ["inner", "many", "counts", "word"]
    assert schemas["Outer"]["properties"] == {
        "inner": {"$ref": "#/components/schemas/Inner"},
        "many": {"type": "array", "items": {"$ref": "#/components/schemas/Inner"}},
        "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
        "word": {"type": "string", "enum": ["a", "b"]},
        "perhaps": {"type": "number"},
    }
    assert schemas["Inner"]["properties"]["text"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    with pytest.raises(TypeError):
        schema_of(set[int], schemas)


def test_the_document(served: Served) -> None:
    found = served.ask("/openapi.json").json
    assert found["openapi"] == "3.1.0"
    assert {(method.upper(), path) for path, each in found["paths"].items() for method in each} == {
        (each.method, each.path) for each in endpoints_of(Api)
    }
    assert found == document(endpoints_of(Api), "0.1.0")


CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "ignored_auth",
)


@pytest.mark.timeout(300)
def test_schemathesis_finds_nothing(tmp_path: Path, node: Any) -> None:
    with api(tmp_path, node, judge=Sample, contacts=tmp_path) as served:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"http://{served.host}/openapi.json"),
                *("--url", f"http://{served.host}", "--header", f"Authorization: Bearer {TOKEN}"),
                *("--checks", ",".join(CHECKS), "--exclude-path", "/api/events"),  # which has no end
                *(
                    "--max-examples",
                    "15",
                    "--workers",
                    "1",
                    "--generation-database",
                    "none",
                    "--no-color",
                    "--seed",
                    "1",
                ),
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=280,
        )
        assert done.returncode == 0, done.stdout + done.stderr
