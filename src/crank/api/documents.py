"""What every operation says in the OpenAPI document about refusals and headers."""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.responses import Response

from crank.api.models import ProblemDocument
from crank.api.peer import Caller
from crank.api.problem import PROBLEM_MEDIA_TYPE
from crank.controller.desk import Desk
from crank.domain.json import JsonValue, dumps

_REFERENCE = "#/components/schemas/{model}"
_MEANINGS = {
    400: "The body is not strict JSON (malformed_json, duplicate_key, too_deep).",
    401: "No credential, or one that this node does not know; the same answer for every cause.",
    403: "Not this credential's to do.",
    404: "No such thing, or not yours to see.",
    406: "The answer cannot have a media type that you accept.",
    408: "The body came too slowly.",
    409: "It contradicts something that was accepted before, or the same request is in flight.",
    413: "A limit on size or count was passed.",
    415: "The body is not declared as JSON.",
    422: "A field or parameter is wrong, or asks for what nobody can do; `field` names it.",
    429: "Too often from here; try again after the time in Retry-After.",
    500: "A defect; the node's log says more.",
    503: "Try again after the time in Retry-After.",
}
_HEADERS = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "Bearer."}},
    409: {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds; sent for idempotency_in_flight."}},
    429: {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds."}},
    503: {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds."}},
}
_ALWAYS = (401, 422, 500, 503)
BODY = (400, 408, 413, 415)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what an operation may refuse with, beside what every operation may."""
    return {
        status: {
            "description": _MEANINGS[status],
            "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": _REFERENCE.format(model="ProblemDocument")}}},
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status in sorted({*_ALWAYS, *statuses})
    }


def header(description: str) -> dict[str, Any]:
    """Return the description of a response header."""
    return {"schema": {"type": "string"}, "description": description}


def answer(body: JsonValue, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with JSON that no cache keeps."""
    return Response(dumps(body), status, {"cache-control": "no-store", **(headers or {})}, "application/json")


def desk_of(request: Request) -> Desk:
    """Return the desk that serves this request, as the caller's credential sees it; where nobody was proven there is none."""
    caller: Caller = request.state.caller
    return caller.desk


def openapi(app: FastAPI) -> dict[str, Any]:
    """Return the document, made once, with the problem document among its schemas."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, openapi_version=app.openapi_version,
            summary=app.summary, description=app.description, routes=app.routes,
        )  # fmt: skip
        schema = ProblemDocument.model_json_schema(ref_template=_REFERENCE)
        schemas = document["components"]["schemas"]
        schemas.update(schema.pop("$defs"))
        schemas["ProblemDocument"] = schema
        app.openapi_schema = document
    return app.openapi_schema
