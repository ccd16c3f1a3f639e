"""The only place where a fault becomes a status and a body (RFC 9457)."""

import difflib
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from crank import errors
from crank.errors import CrankError, Problem

MEDIA_TYPE = "application/problem+json"
# RFC 9457 section 3.1.1: a type that says no more than its title.
PROBLEM_TYPE = "about:blank"
PROBLEMS_SHOWN_MAX = 20
_log = structlog.get_logger(__name__)

_STATUS: Sequence[tuple[type[CrankError], int]] = (
    (errors.NotAuthenticated, 401),
    (errors.NotAllowed, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.TooLarge, 413),
    (errors.InvalidRequest, 422),
    (errors.Unavailable, 503),
    (errors.StoreError, 503),
)
# The body could not even be read as what it claims to be.
_BAD_SYNTAX = frozenset({"malformed_json", "duplicate_key", "too_deep"})
_BY_HTTP: Mapping[int, tuple[str, str]] = {
    404: ("not_found", "See /docs for the paths that exist."),
    405: ("method_not_allowed", "Use a method named in the Allow header."),
    415: ("unsupported_media_type", "Send Content-Type: application/json."),
}


def status_of(fault: CrankError) -> int:
    """Return the HTTP status of a fault."""
    if fault.error_code in _BAD_SYNTAX:
        return 400
    if fault.error_code == "unsupported_media_type":
        return 415
    return next((status for kind, status in _STATUS if isinstance(fault, kind)), 500)


def problem_response(fault: CrankError) -> Response:
    """Return the answer that tells a caller of a fault; what is for the log alone stays out of it."""
    status = status_of(fault)
    if status >= 500:
        _log.error("request_failed", code=fault.error_code, message=fault.message, detail=fault.detail)
    headers = {}
    if isinstance(fault, errors.NotAuthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(fault, errors.Unavailable):
        headers["Retry-After"] = str(fault.retry_after_sec)
    elif fault.error_code == "idempotency_in_flight":
        headers["Retry-After"] = "1"
    return _respond(
        status, fault.error_code, fault.message, field=fault.field, fix=fault.fix, problems=fault.problems,
        headers=headers,
    )  # fmt: skip


def _respond(
    status: int,
    code: str,
    detail: str,
    *,
    field: str | None,
    fix: str,
    problems: Sequence[Problem] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = {
        "type": PROBLEM_TYPE,
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "field": field,
        "fix": fix,
        "problems": [
            {"field": entry.field, "cause": entry.cause, "fix": entry.fix} for entry in problems[:PROBLEMS_SHOWN_MAX]
        ],
    }
    return JSONResponse(body, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def _field(location: Sequence[Any]) -> str:
    parts = [str(part) for part in location if part not in ("body", "query", "path", "header")]
    return ".".join(parts)


def _validation_problems(found: Sequence[Mapping[str, Any]], known: Sequence[str]) -> list[tuple[str, Problem]]:
    problems: list[tuple[str, Problem]] = []
    for entry in found:
        field = _field(entry["loc"])
        if entry["type"] == "extra_forbidden":
            near = difflib.get_close_matches(field.rpartition(".")[2], known, n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            fix = f"{hint}Leave the field out."
            problems.append(("unknown_field", Problem(field, "There is no such field.", fix)))
        elif entry["type"] == "missing":
            problems.append(("missing_field", Problem(field, "The field is missing.", "Add it.")))
        else:
            problems.append(("invalid_field", Problem(field, str(entry["msg"]) + ".", "Correct the value.")))
    return problems


def install(app: FastAPI, *, known_fields: Sequence[str]) -> None:
    """Make every failure of the app a problem document of this one shape."""

    async def on_fault(_: Request, fault: Exception) -> Response:
        assert isinstance(fault, CrankError), "registered for this class alone"
        return problem_response(fault)

    async def on_validation(_: Request, fault: Exception) -> Response:
        assert isinstance(fault, RequestValidationError), "registered for this class alone"
        problems = _validation_problems(fault.errors(), known_fields)
        code, first = problems[0]
        return _respond(
            422, code, f"{first.field or 'The body'}: {first.cause}", field=first.field, fix=first.fix,
            problems=[problem for _, problem in problems],
        )  # fmt: skip

    async def on_http(_: Request, fault: Exception) -> Response:
        assert isinstance(fault, HTTPException), "registered for this class alone"
        code, fix = _BY_HTTP.get(fault.status_code, ("bad_request", "See /docs for how to ask."))
        detail = str(fault.detail)
        return _respond(fault.status_code, code, detail, field=None, fix=fix, headers=fault.headers)

    async def on_defect(_: Request, fault: Exception) -> Response:
        _log.error("defect", exc_info=fault)
        return _respond(
            500, CrankError.code, "The node failed in a way it should not have.", field=None,
            fix=CrankError.default_fix,
        )  # fmt: skip

    app.add_exception_handler(CrankError, on_fault)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_defect)
