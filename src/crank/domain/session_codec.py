"""The JSON form of sessions that every store keeps. What cannot be read back is a damaged store."""

from dataclasses import asdict
from typing import Any

from crank.domain.capability import Accelerator
from crank.domain.ids import MountId
from crank.domain.job import MountUse
from crank.domain.job_codec import end_document, parse_end
from crank.domain.json import JsonObject
from crank.domain.session import Session, SessionEnd, SessionReason, SessionRequest, SessionState
from crank.domain.trust import Attestation
from crank.errors import StoreError


def session_request_document(request: SessionRequest) -> JsonObject:
    """Return the JSON form of what was asked."""
    level = None if request.attestation is None else request.attestation.label
    return {**asdict(request), "mounts": [asdict(use) for use in request.mounts], "attestation": level}


def session_end_document(end: SessionEnd | None) -> JsonObject | None:
    """Return the JSON form of how a session ended."""
    if end is None:
        return None
    return {**asdict(end), "job_end": None if end.job_end is None else end_document(end.job_end)}


def session_document(session: Session) -> JsonObject:
    """Return the JSON form of a session; `parse_session` reads it back to an equal value."""
    return {
        **asdict(session),
        "request": session_request_document(session.request),
        "end": session_end_document(session.end),
    }


def parse_session(document: Any) -> Session:
    """Read a stored session. Raises StoreError (`store_corrupt`)."""
    try:
        return Session(
            **{
                **document,
                "request": _parse_request(document["request"]),
                "state": SessionState(document["state"]),
                "end": _parse_end(document["end"]),
            }
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise StoreError(f"A stored session cannot be read back: {fault!r}.", code="store_corrupt") from fault


def _parse_request(document: Any) -> SessionRequest:
    accelerator, level = document["accelerator"], document.get("attestation")
    return SessionRequest(
        **{
            **document,
            "accelerator": None if accelerator is None else Accelerator(accelerator),
            "mounts": tuple(MountUse(use["name"], MountId(use["mount_id"])) for use in document["mounts"]),
            "attestation": None if level is None else Attestation[level.upper()],
        }
    )


def _parse_end(document: Any) -> SessionEnd | None:
    if document is None:
        return None
    job_end = document["job_end"]
    return SessionEnd(
        **{
            **document,
            "reason": SessionReason(document["reason"]),
            "job_end": None if job_end is None else parse_end(job_end),
        }
    )
