"""Faults in the words of each part of the E2B protocol, so that its clients raise the right exception."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from crank.controller.box_call import BoxGone, BoxRefused
from crank.errors import (
    Conflict,
    CrankError,
    InvalidRequest,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    NotSupported,
    TooLarge,
    Unavailable,
)

GONE = "The sandbox was not found"
# What a client of the control plane, or of files, is answered; the first that fits.
_STATUS: tuple[tuple[type[CrankError], int], ...] = (
    (NotSupported, 501),
    (TooLarge, 413),
    (InvalidRequest, 400),
    (NotAuthenticated, 401),
    (NotAllowed, 403),
    (NotFound, 404),
    (Conflict, 409),
    (Unavailable, 503),
)
# The same for Connect: status and code.
_CONNECT: tuple[tuple[type[CrankError], str], ...] = (
    (NotSupported, "unimplemented"),
    (TooLarge, "resource_exhausted"),
    (InvalidRequest, "invalid_argument"),
    (NotAuthenticated, "unauthenticated"),
    (NotAllowed, "permission_denied"),
    (NotFound, "not_found"),
    (Conflict, "failed_precondition"),
    (Unavailable, "unavailable"),
)
CONNECT_STATUS = {
    "canceled": 499,
    "invalid_argument": 400,
    "deadline_exceeded": 504,
    "not_found": 404,
    "already_exists": 409,
    "permission_denied": 403,
    "resource_exhausted": 429,
    "failed_precondition": 400,
    "unimplemented": 501,
    "internal": 500,
    "unavailable": 503,
    "unauthenticated": 401,
}
# What the steward refuses with, as a client of files is answered.
_FILES = {"not_found": 404, "resource_exhausted": 507, "permission_denied": 403, "internal": 500, "unimplemented": 501}
_BUSY = frozenset({"sessions_full", "key_share_taken", "queue_full", "session_queue_full", "uploads_full"})


def status_of(fault: CrankError) -> int:
    """Return the HTTP status of a fault; a full node is one that limits its callers."""
    if fault.error_code in _BUSY:
        return 429
    return next((status for kind, status in _STATUS if isinstance(fault, kind)), 500)


def sentence(fault: CrankError) -> str:
    """Return a fault for a person: what is wrong, and what to do."""
    return f"{fault.message} {fault.fix}" if status_of(fault) < 500 else fault.message


def plain(status: int, message: str) -> Response:
    """Return a fault of the control plane, of files or of the code interpreter."""
    return JSONResponse({"code": status, "message": message}, status)


def gone() -> Response:
    """Return what every call to a sandbox answers that is not there, whatever the reason."""
    return JSONResponse({"sandboxId": "", "message": GONE, "code": 502}, 502)


def control_fault(fault: CrankError) -> Response:
    """Return a fault of the control plane."""
    response = plain(status_of(fault), sentence(fault))
    if isinstance(fault, Unavailable):
        response.headers["Retry-After"] = str(fault.retry_after_sec)
    return response


def plain_fault(fault: Exception) -> Response:
    """Return a fault of files or of the code interpreter."""
    match fault:
        case BoxGone():
            return gone()
        case BoxRefused():
            return plain(_FILES.get(fault.code, 400), fault.message)
        case NotFound(error_code="sandbox_not_found"):
            return gone()
        case CrankError():
            # The file system of a sandbox is full, or the file is larger than a node takes.
            return plain(status_of(fault), sentence(fault))
    return plain(500, "The node failed; its log says how.")


def connect_word(fault: Exception) -> tuple[str, str]:
    """Return a fault as Connect's code and message."""
    match fault:
        case BoxGone():
            return "unavailable", GONE
        case BoxRefused():
            return (fault.code if fault.code in CONNECT_STATUS else "internal"), fault.message
        case NotFound(error_code="sandbox_not_found"):
            return "unavailable", GONE
        case CrankError():
            return next((code for kind, code in _CONNECT if isinstance(fault, kind)), "internal"), sentence(fault)
    return "internal", "The node failed; its log says how."


def connect_fault(fault: Exception) -> Response:
    """Return a fault of a unary call."""
    code, message = connect_word(fault)
    if code == "unavailable" and message == GONE:
        return gone()
    return JSONResponse({"code": code, "message": message}, CONNECT_STATUS.get(code, 500))


def not_offered(what: str) -> Callable[[Request], Response]:
    """Return a route that answers, in time and in words, that something is not here."""

    def answer(_: Request) -> Response:
        return plain(501, f"{what} is not offered by this node.")

    return answer
