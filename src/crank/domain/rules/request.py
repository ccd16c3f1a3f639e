"""What a submitted body means: from checked JSON fields to a draft of a job, or a clear complaint."""

import base64
import binascii
import hashlib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crank.domain.capability import Accelerator, Effects, parse_capability_name, parse_version_wanted
from crank.domain.ids import Digest, JobId, SessionId, parse_digest, parse_job_id, parse_name, parse_session_id
from crank.domain.json import JsonObject, JsonValue, canonical
from crank.domain.profile import LIMIT_RANGES
from crank.domain.quantity import (
    ARGS_BYTES_MAX,
    CODE_BYTES_MAX,
    FILE_PATH_BYTES_MAX,
    FILES_MAX,
    IDEMPOTENCY_KEY_CHARS_MAX,
    MOUNT_PATH_BYTES_MAX,
    OUTPUT_BYTES_MAX,
)
from crank.domain.trust import Attestation, parse_attestation
from crank.domain.wanted import (
    DEFAULT_PROFILE,
    DraftMount,
    bounded,
    capability_of_profile,
    parse_accelerator,
    parse_context,
    parse_mounts,
    parse_program,
)
from crank.domain.wanted_handles import DraftHandle, parse_handles
from crank.errors import InvalidRequest, NotSupported, TooLarge

RUNTIMES = frozenset({"python", "python3", "python3.11", "python-3.11"})


@dataclass(frozen=True, slots=True)
class DraftFile:
    """An input file: its bytes came with the request, or are a blob that was uploaded before."""

    path: str
    content: bytes | None
    sha256: Digest | None


@dataclass(frozen=True, slots=True)
class Draft:
    """A request whose every field is well formed, before anything was looked up.

    A request for a session may leave the capability out; it is empty then, and follows from the session.
    """

    job_id: JobId | None
    capability: str
    version: str | None
    env_profile: str | None
    accelerator: Accelerator | None
    gpu_model: str | None
    timeout_sec: float | None
    max_output_bytes: int | None
    memory_bytes: int | None
    cpu_sec: float | None
    idle_sec: float | None
    no_output_sec: float | None
    code: str | None
    args: JsonValue
    files: tuple[DraftFile, ...]
    mounts: tuple[DraftMount, ...]
    effects: Effects
    route: str
    session_id: SessionId | None = None
    context: str | None = None
    program: tuple[str, ...] | None = None
    stdin: bool = False
    detach: bool = True
    handles: tuple[DraftHandle, ...] = ()
    attestation: Attestation | None = None


def request_digest(fields: JsonObject) -> Digest:
    """Return the SHA-256 that tells two requests apart; the idempotency key is not part of it."""
    body = {name: value for name, value in fields.items() if name != "idempotency_key" and value is not None}
    return Digest(hashlib.sha256(canonical(body)).hexdigest())


def parse_idempotency_key(text: str) -> str:
    """Accept 1 to 255 visible ASCII characters. Raises InvalidRequest."""
    if not 0 < len(text) <= IDEMPOTENCY_KEY_CHARS_MAX or not all("!" <= char <= "~" for char in text):
        raise InvalidRequest(
            f"An idempotency key is 1 to {IDEMPOTENCY_KEY_CHARS_MAX} visible ASCII characters.",
            code="invalid_idempotency_key",
            field="idempotency_key",
        )
    return text


def parse_request(fields: JsonObject) -> Draft:
    """Make a draft of a body whose JSON types were checked. Raises InvalidRequest, NotSupported, TooLarge."""
    _refuse_unsupported(fields)
    runtime = fields.get("runtime")
    if runtime is not None and runtime not in RUNTIMES:
        raise InvalidRequest(
            f"The runtime {runtime[:40]!r} is not known.", code="unknown_runtime", field="runtime",
            fix="Use python3.11, or leave it out.",
        )  # fmt: skip
    profile = fields.get("env_profile")
    if profile is not None:
        parse_name(profile, field="env_profile")
    capability = fields.get("capability")
    session_id = None if fields.get("session") is None else parse_session_id(fields["session"])
    if capability is None and profile is None and session_id is not None:
        capability = ""
    elif capability is None:
        profile = profile or DEFAULT_PROFILE
        capability = capability_of_profile(profile)
        if "." not in capability:
            raise InvalidRequest(
                f"There is no environment profile {profile!r}.",
                code="unknown_profile",
                field="env_profile",
                fix="Use one that a worker has: GET /v1/capabilities lists them (python-core, python-docs, …).",
            )
    constraints = fields.get("constraints") or {}
    accelerator, level = constraints.get("accelerator"), constraints.get("attestation")
    return Draft(
        job_id=None if fields.get("job_id") is None else parse_job_id(fields["job_id"]),
        capability=capability and parse_capability_name(capability, field="env_profile" if profile else "capability"),
        version=None if fields.get("version") is None else parse_version_wanted(fields["version"]),
        env_profile=profile,
        accelerator=None if accelerator is None else parse_accelerator(accelerator),
        gpu_model=constraints.get("gpu_model"),
        timeout_sec=bounded(constraints, "timeout_sec", *LIMIT_RANGES["wall_sec"]),
        max_output_bytes=_whole(bounded(constraints, "max_output_bytes", 1, OUTPUT_BYTES_MAX)),
        memory_bytes=_whole(bounded(constraints, "memory_bytes", *LIMIT_RANGES["memory_bytes"])),
        cpu_sec=bounded(constraints, "cpu_sec", *LIMIT_RANGES["cpu_sec"]),
        idle_sec=bounded(constraints, "idle_sec", *LIMIT_RANGES["idle_sec"]),
        no_output_sec=bounded(constraints, "no_output_sec", *LIMIT_RANGES["no_output_sec"]),
        code=_code(fields.get("code")),
        args=_args(fields.get("args")),
        files=_files(fields.get("files") or []),
        mounts=parse_mounts(fields.get("mounts") or []),
        effects=_effects(fields.get("effects")),
        route=fields.get("route") or "local",
        session_id=session_id,
        context=parse_context(fields.get("context"), session_id),
        program=parse_program(fields),
        stdin=fields.get("stdin") is True,
        detach=fields.get("detach") is not False,
        handles=parse_handles(fields),
        attestation=None if level is None else parse_attestation(level, field="constraints.attestation"),
    )


_LATER: Mapping[str, str] = {
    "budget": "Budgets are not offered yet; jobs cost nothing on this node.",
}


def _refuse_unsupported(fields: JsonObject) -> None:
    for name, sentence in _LATER.items():
        if fields.get(name) is not None:
            raise NotSupported(sentence, field=name)
    if fields.get("route") not in (None, "local"):
        raise NotSupported("This node is not part of a mesh yet, so jobs run locally.", field="route",
                           fix="Leave route out, or send local.")  # fmt: skip


def _effects(text: str | None) -> Effects:
    if text is None:
        return Effects.EXTERNAL
    if text not in set(Effects):
        raise InvalidRequest(
            f"The effects {text[:40]!r} are not known.",
            code="invalid_field",
            field="effects",
            fix=f"Use one of {', '.join(Effects)}, or leave it out for external.",
        )
    return Effects(text)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _code(text: str | None) -> str | None:
    if text is None:
        return None
    if len(text.encode("utf-8", "surrogatepass")) > CODE_BYTES_MAX:
        raise TooLarge(
            f"The code is larger than {CODE_BYTES_MAX} bytes.",
            code="code_too_large",
            field="code",
            fix="Send big inputs as files or blobs, not inside the code.",
        )
    if "\x00" in text:
        raise InvalidRequest("The code holds a NUL character.", code="invalid_code", field="code")
    return text


def _args(value: JsonValue) -> JsonValue:
    if len(canonical(value)) > ARGS_BYTES_MAX:
        raise TooLarge(f"args are larger than {ARGS_BYTES_MAX} bytes.", code="args_too_large", field="args")
    return value


def parse_relative_path(text: str, *, field: str) -> str:
    """Accept a file's path inside a job folder: relative, plain segments, nothing that acts. Raises InvalidRequest.

    Refused: absolute, empty, `.` or `..` segments, backslash, control characters, segments that end in a
    dot or space, names that are not in Unicode NFC, more than 512 bytes in all or 255 in a segment.
    """
    segments = text.split("/")
    bad = (
        not text
        or len(text.encode("utf-8", "surrogatepass")) > FILE_PATH_BYTES_MAX
        or unicodedata.normalize("NFC", text) != text
        or "\\" in text
        or any(unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in text)
        or any(segment in {"", ".", ".."} or segment[-1] in ". " or segment[0] == " " for segment in segments)
        or any(len(segment.encode("utf-8", "surrogatepass")) > 255 for segment in segments)
    )
    if bad:
        raise InvalidRequest(
            f"The file path {text[:80]!r} is not a plain relative path.",
            code="invalid_path",
            field=field,
            fix="Use names with '/' between them, without '..', '\\', control characters or a leading '/'.",
        )
    return text


def parse_mount_path(text: str, *, field: str) -> str:
    """Accept the path of what lies in a mount already, whatever its owner called it: it names and makes nothing.

    Refused: absolute, empty, `.` or `..` segments, NUL, what is not Unicode, more than a kernel takes. Raises InvalidRequest.
    """
    segments = text.split("/")
    long = len(text.encode("utf-8", "surrogatepass")) > MOUNT_PATH_BYTES_MAX
    strange = any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text)
    if long or strange or any(segment in {"", ".", ".."} for segment in segments):
        raise InvalidRequest(
            f"The path {text[:80]!r} does not lie in a mount.",
            code="invalid_path",
            field=field,
            fix="Use names with '/' between them, as a listing gives them, without '..' or a leading '/'.",
        )
    return text


def _files(entries: list[Mapping[str, Any]]) -> tuple[DraftFile, ...]:
    if len(entries) > FILES_MAX:
        raise TooLarge(
            f"A job takes at most {FILES_MAX} files, not {len(entries)}.",
            code="too_many_files",
            field="files",
            fix="Mount the folder instead, or send an archive and unpack it in the job.",
        )
    found: dict[str, DraftFile] = {}
    for position, entry in enumerate(entries):
        where = f"files.{position}"
        path = parse_relative_path(entry["path"], field=f"{where}.path")
        # Two names that differ in case alone would be one file on some disks.
        if path.casefold() in found:
            raise InvalidRequest(f"The file {path[:80]!r} is given twice.", code="duplicate_file", field=where)
        found[path.casefold()] = _file(path, entry, where)
    _check_no_file_is_folder([file.path for file in found.values()])
    return tuple(found.values())


def _file(path: str, entry: Mapping[str, Any], where: str) -> DraftFile:
    given = [name for name in ("text", "base64", "sha256") if entry.get(name) is not None]
    if len(given) != 1:
        raise InvalidRequest("A file carries exactly one of text, base64 and sha256.", code="invalid_file", field=where)
    if given == ["sha256"]:
        return DraftFile(path, None, parse_digest(entry["sha256"], field=f"{where}.sha256"))
    if given == ["text"]:
        return DraftFile(path, entry["text"].encode("utf-8"), None)
    try:
        return DraftFile(path, base64.b64decode(entry["base64"], validate=True), None)
    except (binascii.Error, ValueError) as fault:
        raise InvalidRequest("The content is not base64.", code="invalid_file", field=f"{where}.base64") from fault


def _check_no_file_is_folder(paths: list[str]) -> None:
    files = set(paths)
    for path in paths:
        segments = path.split("/")
        for depth in range(1, len(segments)):
            if "/".join(segments[:depth]) in files:
                raise InvalidRequest(
                    f"{'/'.join(segments[:depth])[:80]!r} is a file and a folder at once.",
                    code="duplicate_file",
                    field="files",
                )
