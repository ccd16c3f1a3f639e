"""Typed identifiers: only a parser makes one, so holding one proves that it is well formed."""

import hashlib
import re
from typing import NewType

from crank.errors import InvalidRequest

JobId = NewType("JobId", str)
AttemptId = NewType("AttemptId", str)
WorkerId = NewType("WorkerId", str)
InstanceId = NewType("InstanceId", str)
TenantId = NewType("TenantId", str)
MountId = NewType("MountId", str)
SessionId = NewType("SessionId", str)
CredentialId = NewType("CredentialId", str)
Digest = NewType("Digest", str)

LOCAL_TENANT = TenantId("local")

JOB_ID_CHARS_MAX = 128
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def parse_job_id(text: str, *, field: str = "job_id") -> JobId:
    """Accept a client's own job id: 1 to 128 of letters, digits, dot, underscore, hyphen.

    Raises InvalidRequest. The set leaves out everything that could act in a path or a header.
    """
    if not _JOB_ID.fullmatch(text):
        raise InvalidRequest(
            "A job id is 1 to 128 letters, digits, '.', '_' or '-', starting with a letter or digit.",
            code="invalid_job_id",
            field=field,
            fix="Choose another job_id, or leave it out and the node makes one.",
        )
    return JobId(text)


def parse_session_id(text: str, *, field: str = "session") -> SessionId:
    """Accept the id of a session, which only a node makes: a UUID version 7. Raises InvalidRequest."""
    if not is_uuid7(text):
        raise InvalidRequest(
            "A session's id is a UUID that the node made.",
            code="invalid_session_id",
            field=field,
            fix="Open one with POST /v1/sessions and use its session_id.",
        )
    return SessionId(text)


def parse_name(text: str, *, field: str) -> str:
    """Accept a short lower-case name (worker, mount, profile). Raises InvalidRequest."""
    if not _NAME.fullmatch(text):
        raise InvalidRequest(
            f"{field} is 1 to 63 lower-case letters, digits, '.', '_' or '-', and starts with a letter or digit.",
            code="invalid_name",
            field=field,
        )
    return text


def make_mount_id(node_id: str, host_path: str) -> MountId:
    """Make the id of a mount from the real path of its folder, so that the same folder always has the same one."""
    return MountId("m-" + hashlib.sha256(f"{node_id}\0{host_path}".encode()).hexdigest()[:16])


def parse_digest(text: str, *, field: str = "sha256") -> Digest:
    """Accept a SHA-256 in lower-case hexadecimal. Raises InvalidRequest."""
    if not _DIGEST.fullmatch(text):
        raise InvalidRequest(
            "A blob is named by its SHA-256: 64 lower-case hexadecimal digits.",
            code="invalid_digest",
            field=field,
        )
    return Digest(text)


def is_uuid7(text: str) -> bool:
    """Tell whether text is a UUID version 7 (RFC 9562) in canonical form."""
    return _UUID7.fullmatch(text) is not None
