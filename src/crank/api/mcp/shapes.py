"""What each tool takes and answers: strict models in, schemas out, in the plainest form that every host reads."""

import functools
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from crank.api.models import EndDocument
from crank.api.wanted import FileWanted, MountWanted, Request
from crank.controller.browse import ENTRIES_MAX
from crank.domain.job import Status
from crank.domain.json import JsonObject
from crank.domain.quantity import WAIT_SEC_MAX
from crank.domain.rules.page import PAGE_BYTES_MAX
from crank.domain.rules.patience import WAIT_SEC_DEFAULT

POSITION_MAX = 2**53 - 1
_WAIT = f"How long this call waits for the end, 0 to {WAIT_SEC_MAX} s; {WAIT_SEC_DEFAULT:g} unless given."
_JOB = "A job's id, as run_python or call_capability gave it."


class Waits(Request):
    """A call that starts a job and waits for it for a while."""

    wait_sec: float | None = Field(None, ge=0, le=WAIT_SEC_MAX, description=_WAIT)
    detach: bool = Field(False, description="true: the job goes on when this call is cancelled.")
    idempotency_key: str | None = Field(None, description="The same key starts the job once within an hour.")
    timeout_sec: float | None = Field(None, description="How long the job may run, in seconds.")
    files: list[FileWanted] | None = Field(None, description="Small input files; the script finds them in /scratch.")
    mounts: list[str | MountWanted] | None = Field(
        None, description="Folders of the node by name, read-only at /in/<name>; list_files without a place names them."
    )


class HandedOver(Request):
    """A capability that may be called, or a mount that a call may take along."""

    name: str
    capability: str | None = None
    calls_max: int | None = None
    mount: str | None = None


class RunPython(Waits):
    """run_python."""

    code: str = Field(description="The script. `args` is a global; set `result`; leave files in /out.")
    profile: str | None = Field(None, description="Environment: python-core unless given; find_capability names others.")
    capability: str | None = Field(None, description="A capability that runs scripts, instead of a profile.")
    args: Any = Field(None, description="Any JSON value; the script finds it as the global `args`.")
    session: str | None = Field(None, description="A session's id, to share its variables and files; `new` opens one.")
    context: str | None = Field(None, description="Named globals in the session; main unless given.")
    accelerator: Literal["cpu", "gpu"] | None = None
    memory_bytes: int | None = Field(None, description="Memory that the script may use.")
    handles: list[HandedOver] | None = Field(
        None, description="What the script may call for by `import crank; crank.call(capability, args)`."
    )


class CallCapability(Waits):
    """call_capability."""

    name: str = Field(description="A capability's name, as find_capability gave it.")
    args: Any = Field(None, description="What its input schema asks for.")
    version: str | None = Field(None, description="1, 1.2 or 1.2.3: any version that starts so.")


class JobWait(Request):
    """job_wait."""

    job_id: str = Field(description=_JOB)
    wait_sec: float | None = Field(None, ge=0, le=WAIT_SEC_MAX, description=_WAIT)


class JobCancel(Request):
    """job_cancel."""

    job_id: str = Field(description=_JOB)


class Somewhere(Request):
    """A place that holds files: exactly one of the three, or for a listing none."""

    job_id: str | None = Field(None, description="What this job left in /out.")
    mount: str | None = Field(None, description="A mount, by name.")
    session: str | None = Field(None, description="A session, by id.")


class ListFiles(Somewhere):
    """list_files."""

    path: str = Field("", description="A folder inside a mount or session; the topmost unless given.")
    after: str = Field("", description="`next` of the page before.")
    limit: int = Field(100, ge=1, le=ENTRIES_MAX)


class ReadFile(Somewhere):
    """read_file."""

    path: str | None = Field(None, description="The file's path, as list_files gave it.")
    stream: Literal["stdout", "stderr"] | None = Field(None, description="With job_id: what the job printed, all of it.")
    offset_bytes: int = Field(0, ge=0, le=POSITION_MAX, description="`next_offset_bytes` of the page before.")
    max_bytes: int = Field(PAGE_BYTES_MAX, ge=1, le=PAGE_BYTES_MAX)


class FindCapability(Request):
    """find_capability."""

    query: str = Field(min_length=1, max_length=2_000, description="What shall be done, in words; or a name.")


# --- answers ---------------------------------------------------------------------------------


class Shown(BaseModel):
    """What the node sends; a later version may add fields."""

    model_config = ConfigDict(extra="ignore")


class Display(Shown):
    """A rich result: its media types, and its text where it has one. Pictures come as content of their own."""

    media_types: list[str]
    text: str | None


class ArtifactShown(Shown):
    """A file that the job left; read_file reads it."""

    path: str
    size_bytes: int
    sha256: str
    media_type: str


class DenialShown(Shown):
    """What a wall refused."""

    layer: str
    action: str
    count: int
    told_by: str


class JobShown(Shown):
    """A job as it stands; `next` says what to do while it has not ended."""

    job_id: str
    status: Status
    ended: bool
    next: str | None
    capability: str
    session: str | None
    pending: str | None
    end: EndDocument | None
    stdout: str
    stdout_cut: bool = Field(description="Something is left out here; read_file with stream gives all of it.")
    stderr: str
    stderr_cut: bool
    has_result: bool
    result: Any
    result_cut: bool = Field(description="The result is large: this is part of its JSON text.")
    displays: list[Display]
    displays_total: int
    artifacts: list[ArtifactShown]
    artifacts_total: int
    not_collected: list[str]
    denials: list[DenialShown]
    notes: list[str]
    tier: str | None
    wall_sec: float | None
    cpu_sec: float | None
    peak_memory_bytes: int | None


class FileShown(Shown):
    """An entry of a folder, or a mount."""

    path: str
    kind: str
    size_bytes: int | None


class FilesShown(Shown):
    """A page of a folder; `next` is the `after` of the next page."""

    files: list[FileShown]
    next: str | None


class PageShown(Shown):
    """A page of a file: `text` where it is UTF-8, else `base64`."""

    path: str
    media_type: str | None
    offset_bytes: int
    size_bytes: int
    text: str | None
    base64: str | None
    next_offset_bytes: int | None


class CandidateShown(Shown):
    """A capability that may fit, and why."""

    name: str
    version: str
    summary: str
    why: list[str]
    score: float
    use: str = Field(description="The tool and the argument to call it with.")
    accelerator: str
    effects: str
    timeout_sec: float
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None


class FoundShown(Shown):
    """At most three candidates, the best first; none when nothing fits."""

    candidates: list[CandidateShown]
    message: str


@functools.cache
def schema_of(model: type[BaseModel]) -> JsonObject:
    """Return a model's JSON Schema without references and titles: not every host follows them."""
    schema = model.model_json_schema(mode="validation")
    named = schema.pop("$defs", {})
    plain: JsonObject = _plain(schema, named, incoming=issubclass(model, Request))
    plain.pop("description", None)
    return plain


def _plain(part: Any, named: JsonObject, *, incoming: bool) -> Any:
    if isinstance(part, list):
        return [_plain(entry, named, incoming=incoming) for entry in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _plain(named[part["$ref"].rpartition("/")[2]], named, incoming=incoming)
    found = {
        name: {key: _plain(value, named, incoming=incoming) for key, value in entry.items()}
        if name == "properties"
        else _plain(entry, named, incoming=incoming)
        for name, entry in part.items()
        if name == "properties" or not (name == "title" and isinstance(entry, str))
    }
    return _without_null(found) if incoming else found


def _without_null(part: JsonObject) -> JsonObject:
    """Say of a field that may be left out what it is; that null does too need not be said."""
    choices = [entry for entry in part.get("anyOf", ()) if entry != {"type": "null"}]
    if part.get("default", 0) is None:
        part = {name: value for name, value in part.items() if name != "default"}
    if len(choices) == 1:
        rest = {name: value for name, value in part.items() if name != "anyOf"}
        return {**choices[0], **rest}
    return {**part, "anyOf": choices} if choices else part
