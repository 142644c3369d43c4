"""The OpenAPI document, made from the endpoints and from the TypedDicts that they answer with."""

from __future__ import annotations

import types
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from zignet.admin.documents import Error
from zignet.admin.endpoint import JSON, Endpoint

__all__ = ["document", "schema_of"]

PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
}
ALWAYS = (400, 403, 405, 408, 413, 421, 500, 503)  # what any request may be answered with
ABOUT = (
    "What runs here, who is who, and who may come in. Only this host can ask. Changes need the token that "
    "`admin-token` in the state directory holds, unless they are asked for by the unix socket `admin.sock` beside it."
)


def document(endpoints: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for each in endpoints:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "ZigNet Admin API", "version": version, "description": ABOUT},
        "servers": [{"url": "http://admin.zignet"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(each: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"schema": {"type": "string"}}
    if not isinstance(each.answer, str):
        answer = {"schema": schema_of(each.answer, schemas)}
    statuses = {*ALWAYS, each.declined, *((401,) if each.changes else ()), *each.also}
    error = {JSON: {"schema": schema_of(Error, schemas)}}
    responses: dict[str, Any] = {"200": {"description": each.summary, "content": {each.media: answer}}}
    for status in sorted(statuses):
        responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": error}
    operation: dict[str, Any] = {
        "operationId": each.handler,
        "summary": each.summary,
        "parameters": [
            {
                "name": parameter.name,
                "in": "path" if each.in_path(parameter) else "query",
                "required": parameter.required,
                "description": parameter.text,
                "schema": parameter.kind.schema(),
            }
            for parameter in each.parameters
        ],
        "responses": responses,
    }
    if each.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": schema_of(each.body, schemas)}},
        }
    if each.changes:
        operation["security"] = [{"token": []}, {}]  # the second: by the unix socket
    return operation


def schema_of(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a type; TypedDicts are put into `schemas`, and referred to. Raises TypeError."""
    if kind in PLAIN:
        return PLAIN[kind]
    if is_typeddict(kind):
        return _reference(kind, schemas)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is list:
        return {"type": "array", "items": schema_of(arguments[0], schemas)}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1], schemas)}
    if origin is Literal:
        return {"type": "string", "enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(each, schemas) for each in arguments]}
    raise TypeError(f"{kind} has no schema")


def _reference(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    name = kind.__name__
    if name not in schemas:
        schemas[name] = {}  # so that one that holds itself ends
        hints = get_type_hints(kind, include_extras=True)
        optional = {each for each, hint in hints.items() if get_origin(hint) is NotRequired}
        properties = {
            each: schema_of(get_args(hint)[0] if each in optional else hint, schemas)
            for each, hint in hints.items()
        }
        schemas[name] = {
            "type": "object",
            "properties": properties,
            "required": [each for each in properties if each not in optional],
            "additionalProperties": False,
        }
    return {"$ref": f"#/components/schemas/{name}"}
