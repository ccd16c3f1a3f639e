"""The OpenAPI documents of the GPT Actions: 3.1 from the routes, and 3.0.3 made of it for importers that know no newer.

They name nothing of what the node has, so anybody may read them: an importer sends no credential.
"""

import copy
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.openapi.utils import get_openapi
from starlette.responses import Response

from crank.api import actions
from crank.api.address import base_url
from crank.api.documents import answer
from crank.api.strict import StrictRoute
from crank.domain.json import JsonObject
from crank.errors import InvalidRequest

VERSIONS = ("3.1.0", "3.0.3")
_DESCRIPTION = (
    "Runs the Python that you write in a sandbox on the person's own machine, over folders that they share, and brings "
    "back what it prints, its result and its files. Read describeNode first."
)
_REFUSED = {"description": "Refused: code, detail and fix say why and what to do."}
router = APIRouter(route_class=StrictRoute, include_in_schema=False)


@router.get("/openapi/actions.json")
async def document(request: Request, openapi: str = VERSIONS[0]) -> Response:
    """Return the document, as OpenAPI 3.1 or with `?openapi=3.0.3` as that."""
    if openapi not in VERSIONS:
        raise InvalidRequest(
            f"There is no document for OpenAPI {openapi[:20]!r}.",
            code="unknown_openapi",
            field="openapi",
            fix=f"Ask for one of {', '.join(VERSIONS)}.",
        )
    return answer(_document(request, openapi))


@router.get("/openapi/actions-3.0.json")
async def older_document(request: Request) -> Response:
    """Return the document as OpenAPI 3.0.3, for importers that drop queries."""
    return answer(_document(request, VERSIONS[1]))


def _document(request: Request, version: str) -> JsonObject:
    made = actions_document(server=request.app.state.public_url or base_url(request), version=request.app.version)
    return made if version == VERSIONS[0] else as_3_0(made)


def actions_document(*, server: str, version: str) -> JsonObject:
    """Return the document in OpenAPI 3.1. `server` is the address that ChatGPT shall call."""
    document = get_openapi(
        title="Crank", version=version, openapi_version=VERSIONS[0], description=_DESCRIPTION,
        routes=actions.router.routes, servers=[{"url": server}],
    )  # fmt: skip
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"] = {"200": operation["responses"]["200"], "default": _REFUSED}
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError", "FileRef"):
        schemas.pop(name, None)
    made: JsonObject = _walk(document, _tidy)
    return made


def as_3_0(document: JsonObject) -> JsonObject:
    """Return the same operations in OpenAPI 3.0.3."""
    made: JsonObject = _walk(copy.deepcopy(document), _older)
    made["openapi"] = VERSIONS[1]
    return made


def _walk(value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    if isinstance(value, dict):
        return change({name: _walk(inner, change) for name, inner in value.items()})
    return [_walk(inner, change) for inner in value] if isinstance(value, list) else value


def _tidy(schema: dict[str, Any]) -> dict[str, Any]:
    """Drop generated titles and choices that a sentence replaced; say `or null` in the short way."""
    if isinstance(schema.get("title"), str) and "version" not in schema:
        schema.pop("title")
    choices = schema.get("anyOf", ...)
    if choices is None:
        schema.pop("anyOf")
    elif isinstance(choices, list) and len(choices) == 2 and {"type": "null"} in choices:
        one = next(choice for choice in choices if choice != {"type": "null"})
        schema.pop("anyOf")
        schema.update({**one, "type": [one["type"], "null"]})
    if "in" in schema and isinstance(schema.get("schema"), dict):
        # A parameter that is not sent is not null either.
        kinds = schema["schema"].get("type")
        schema["schema"] = {"type": kinds[0] if isinstance(kinds, list) else kinds, **_bounds(schema["schema"])}
    return schema


def _bounds(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name not in ("type", "description")}


def _older(schema: dict[str, Any]) -> dict[str, Any]:
    kinds = schema.get("type")
    if isinstance(kinds, list):
        schema["type"] = next(kind for kind in kinds if kind != "null")
        schema["nullable"] = True
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if isinstance(schema.get("examples"), list):
        schema["example"] = schema.pop("examples")[0]
    if "$ref" in schema and len(schema) > 1:
        # In 3.0 whatever stands beside a reference is ignored.
        schema["allOf"] = [{"$ref": schema.pop("$ref")}]
    return schema
