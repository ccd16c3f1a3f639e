"""What a node's refusals mean: from an answer to a fault of the one tree."""

from collections.abc import Mapping
from typing import Any

from crank import errors
from crank.errors import CrankError, Problem, Unavailable

_BY_STATUS: Mapping[int, type[CrankError]] = {
    400: errors.InvalidRequest,
    401: errors.NotAuthenticated,
    403: errors.NotAllowed,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.TooLarge,
    422: errors.InvalidRequest,
    429: errors.Unavailable,
    503: errors.Unavailable,
}
_BY_CODE: Mapping[str, type[CrankError]] = {
    kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CrankError)
}


def fault_of(status: int, body: Any) -> CrankError:
    """Return the fault that a problem document (RFC 9457) tells of."""
    document = body if isinstance(body, dict) else {}
    code = str(document.get("code") or "")
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status) or (CrankError if status >= 500 else errors.InvalidRequest)
    # OAuth's endpoints say `error_description` where a problem document says `detail`.
    said = document.get("detail") or document.get("error_description") or document.get("title")
    message = str(said or f"The node answered with status {status}.")
    fix = document.get("fix") or None
    if issubclass(kind, Unavailable):
        return kind(message, code=code or None, fix=fix)
    problems = tuple(
        Problem(str(entry.get("field", "")), str(entry.get("cause", "")), str(entry.get("fix", "")))
        for entry in document.get("problems") or ()
        if isinstance(entry, dict)
    )
    fault = kind(message, code=code or None, field=document.get("field") or None, fix=fix, problems=problems)
    if document.get("job_id"):
        fault.add_note(f"job_id={document['job_id']}")
    return fault


def job_id_of(fault: CrankError) -> str | None:
    """Return the job that a fault is about, when the node named one."""
    for note in getattr(fault, "__notes__", ()):
        if note.startswith("job_id="):
            return str(note.removeprefix("job_id="))
    return None
