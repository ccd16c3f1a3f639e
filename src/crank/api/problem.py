"""Where a fault becomes a status and a body, and nowhere else (RFC 9457)."""

import difflib
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from crank import errors
from crank.api.address import base_url
from crank.api.challenge import challenge
from crank.domain.json import JsonObject, dumps
from crank.errors import CrankError, Problem

PROBLEM_MEDIA_TYPE = "application/problem+json"
PROBLEMS_MAX = 20
_log = structlog.get_logger(__name__)

# By class, most special first.
_STATUS: Sequence[tuple[type[CrankError], int]] = (
    (errors.InvalidRequest, 422),
    (errors.NotAuthenticated, 401),
    (errors.UntrustedPeer, 403),
    (errors.NotAllowed, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.TooLarge, 413),
    (errors.Unavailable, 503),
    (errors.StoreError, 503),
)
# Faults of form rather than of meaning, and what HTTP itself has a status for.
_STATUS_BY_CODE: Mapping[str, int] = {
    "malformed_json": 400,
    "duplicate_key": 400,
    "too_deep": 400,
    "slow_request": 408,
    "not_acceptable": 406,
    "unsupported_media_type": 415,
    "method_not_allowed": 405,
    "join_too_often": 429,
    "renewed_too_often": 429,
    "wrong_host": 421,
    "wrong_origin": 403,
}
_HTTP_CODES: Mapping[int, tuple[str, str, str]] = {
    404: ("not_found", "Nothing lives at this address.", "Read /openapi.json for what this node offers."),
    405: ("method_not_allowed", "This address does not take this method.", "Use a method named in Allow."),
    413: ("too_large", "The request is too large.", errors.TooLarge.default_fix),
}


def status_of(fault: CrankError) -> int:
    """Return the HTTP status of a fault; one that no table names is a defect: 500."""
    if fault.error_code in _STATUS_BY_CODE:
        return _STATUS_BY_CODE[fault.error_code]
    return next((status for kind, status in _STATUS if isinstance(fault, kind)), 500)


def problem_body(fault: CrankError, status: int, *, job_id: str | None = None) -> JsonObject:
    """Return the one shape that every refusal has."""
    problems = fault.problems or ((Problem(fault.field, fault.message, fault.fix),) if fault.field else ())
    return {
        "type": f"urn:crank:problem:{fault.error_code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": fault.message,
        "code": fault.error_code,
        "field": fault.field,
        "fix": fault.fix,
        "problems": [
            {"field": entry.field, "cause": entry.cause, "fix": entry.fix} for entry in problems[:PROBLEMS_MAX]
        ],
        "job_id": job_id,
    }


def problem_response(
    fault: CrankError, *, headers: Mapping[str, str] | None = None, place: str | None = None
) -> Response:
    """Answer with a problem document. What callers must not know goes to the log alone.

    place  this node's address, for who must be told where credentials come from
    """
    status = status_of(fault)
    sent = dict(headers or {})
    sent["cache-control"] = "no-store"
    if isinstance(fault, errors.NotAuthenticated):
        sent["www-authenticate"] = challenge(fault, place)
    if isinstance(fault, errors.Unavailable):
        sent["retry-after"] = str(fault.retry_after_sec)
    elif status == 503:
        sent["retry-after"] = "10"
    elif fault.error_code == "idempotency_in_flight":
        sent["retry-after"] = "1"
    if status >= 500 or fault.detail:
        _log.warning("request_refused", status=status, code=fault.error_code, reason=fault.message, detail=fault.detail)
    if status == 500:
        fault = _hidden()
    return Response(dumps(problem_body(fault, status)), status, sent, PROBLEM_MEDIA_TYPE)


def _hidden() -> CrankError:
    return CrankError("Something went wrong inside the node; its log says what.")


def install(app: FastAPI) -> None:
    """Make every refusal of an application, the framework's own included, a problem document."""
    app.add_exception_handler(CrankError, _on_fault)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, on_defect)


async def _on_fault(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, CrankError), "registered for CrankError alone"
    return problem_response(fault, place=place_of(request))


def place_of(request: Request) -> str | None:
    """Return this node's address as a caller knows it, where the node gives tokens."""
    state = getattr(request.scope.get("app"), "state", None)
    gives = hasattr(state, "names") and request.app.state.desk.tokens is not None
    return base_url(request) if gives else None


async def on_defect(request: Request, fault: Exception) -> Response:
    """Answer a defect without a word about it, and log it whole."""
    _log.error("defect", method=request.method, path=request.url.path, exc_info=fault)
    return problem_response(_hidden())


async def _on_http(_request: Request, fault: Exception) -> Response:
    assert isinstance(fault, HTTPException), "registered for HTTPException alone"
    code, message, fix = _HTTP_CODES.get(
        fault.status_code, ("invalid_request", HTTPStatus(fault.status_code).phrase, "Correct the request.")
    )
    body = problem_body(CrankError(message, code=code, fix=fix), fault.status_code)
    return Response(dumps(body), fault.status_code, dict(fault.headers or {}), PROBLEM_MEDIA_TYPE)


# --- the framework's findings about a body or a parameter ------------------------------------


async def _on_validation(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, RequestValidationError), "registered for RequestValidationError alone"
    model = _model_of(request)
    found = [finding(entry, model) for entry in fault.errors()[:PROBLEMS_MAX]]
    code, first = found[0]
    message = f"{first.field or 'The body'}: {first.cause}"
    refused = errors.InvalidRequest(
        message, code=code, field=first.field, fix=first.fix, problems=[problem for _, problem in found]
    )
    return problem_response(refused)


def _model_of(request: Request) -> type[BaseModel] | None:
    field = getattr(request.scope.get("route"), "body_field", None)
    kind = getattr(getattr(field, "field_info", None), "annotation", None)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def finding(entry: Mapping[str, Any], model: type[BaseModel] | None) -> tuple[str, Problem]:
    """Return pydantic's finding as a code and a problem; the first part of its place says where the value came in."""
    place = [part for part in entry["loc"][1:] if not _is_union_branch(part)]
    field = ".".join(str(part) for part in place)
    if entry["type"] == "extra_forbidden":
        return "unknown_field", Problem(field, "It is not a field of this request.", _did_you_mean(place, model))
    if entry["type"] == "missing":
        return "missing_field", Problem(field, "It is required and was not sent.", f"Send {field or 'a body'}.")
    return "invalid_field", Problem(field, f"{entry['msg']}.", "Send a value of the type that /openapi.json gives.")


def _is_union_branch(part: object) -> bool:
    # pydantic names the branch of a union in the path of an error; callers never wrote it.
    return part in ("str", "MountWanted")


def _did_you_mean(place: Sequence[Any], model: type[BaseModel] | None) -> str:
    known = _fields_at(place[:-1], model)
    close = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.6) if place else []
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Use only {', '.join(known)}." if known else "Leave it out."


def _fields_at(place: Sequence[Any], model: type[BaseModel] | None) -> list[str]:
    for part in place:
        if isinstance(part, int):
            continue
        if model is None or part not in model.model_fields:
            return []
        model = _inner_model(model.model_fields[part].annotation)
    return sorted(model.model_fields) if model is not None else []


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_inner_model(part) for part in getattr(annotation, "__args__", ()))
    return next((found for found in inner if found is not None), None)
