"""Shapes of the GPT Actions: few, flat, every object with its properties, every field with a sentence."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from crank.api.models import Answer
from crank.api.wanted import Request

# Filled in by ChatGPT with objects, although their own rules want it declared as a list of texts.
_FILE_REFS: dict[str, Any] = {"anyOf": None, "type": "array", "items": {"type": "string"}, "maxItems": 10}
_OPEN_OBJECT: dict[str, Any] = {"anyOf": None, "type": "object", "properties": {}, "additionalProperties": True}
Wait = Annotated[
    float | None,
    Field(
        ge=0, le=35, json_schema_extra={"anyOf": None, "type": "number", "minimum": 0, "maximum": 35},
        description="Seconds to wait for the end before a job that goes on is answered with its id. 25 unless given.",
    ),
]  # fmt: skip


def _text(description: str, **more: Any) -> Any:
    return Field(None, description=description, json_schema_extra={"anyOf": None, "type": "string"}, **more)


class FileRef(BaseModel):
    """A file of the conversation, as ChatGPT hands it over; what it adds later is ignored."""

    model_config = ConfigDict(extra="ignore")

    name: str | None = None
    id: str | None = None
    mime_type: str | None = None
    download_link: str | None = None


class RunWanted(Request):
    """A script to run."""

    code: str = Field(
        description="Python 3.11. `args` is a global; the result is the global `result`; files go to /out."
    )
    profile: str | None = _text("Environment: python-core unless given. describeNode lists them with their packages.")
    args: dict[str, Any] | None = Field(
        None, description="The global `args` in the script.", json_schema_extra=_OPEN_OBJECT
    )
    folders: list[str] | None = Field(
        None, description="Names of shared folders that the script reads at /in/<name>. describeNode lists them.",
        json_schema_extra={"anyOf": None, "type": "array", "items": {"type": "string"}},
    )  # fmt: skip
    timeout_sec: float | None = Field(
        None, description="Longest run in seconds, within the profile's limit.",
        json_schema_extra={"anyOf": None, "type": "number"},
    )  # fmt: skip
    wait_sec: Wait = None
    openaiFileIdRefs: list[FileRef | str] | None = Field(  # noqa: N815 - the name is the contract
        None, max_length=10, json_schema_extra=_FILE_REFS,
        description="Up to ten files of any type from the conversation, 20 MB each; the script finds them in /scratch.",
    )  # fmt: skip


class CallWanted(Request):
    """A function to call."""

    capability: str = Field(description="Its name, as findCapabilities gives it.")
    args: dict[str, Any] | None = Field(
        None, description="What its input schema wants.", json_schema_extra=_OPEN_OBJECT
    )
    wait_sec: Wait = None


class FileBrief(Answer):
    """A file that the job left."""

    path: str
    size_bytes: int
    media_type: str


class JobBrief(Answer):
    """A job in few words."""

    job_id: str
    status: str
    finished: bool = Field(description="false: call waitForJob with the job_id, do not run it again.")
    reason: str | None = Field(description="How it ended.")
    message: str | None
    stdout: str
    stderr: str
    result: Any = Field(description="What the script gave as its result.")
    displays: list[str]
    files: list[FileBrief] = Field(description="What it left in /out: getFiles hands them to the person.")
    files_total: int
    cut: list[str] = Field(description="Which of these were cut because answers are short.")
    next: str | None = Field(description="What to do now.")


class FileReturned(Answer):
    """One file, its bytes in base64."""

    name: str
    mime_type: str
    content: str


class LeftOut(Answer):
    """A file that could not be sent, and what to do about it."""

    path: str
    cause: str
    next: str


class FilesReturned(Answer):
    """Files for the conversation."""

    openaiFileResponse: list[FileReturned]  # noqa: N815 - the name is the contract
    left_out: list[LeftOut] = Field(description="Those of the first twenty that could not be sent.")
    files_total: int


class TextPage(Answer):
    """A part of a file as text."""

    path: str
    text: str
    offset_bytes: int
    next_offset_bytes: int | None = Field(description="Where to read on; null at the end.")
    size_bytes: int


class CapabilityBrief(Answer):
    """A function or an environment."""

    name: str
    version: str
    summary: str
    effects: str
    takes_code: bool
    input_schema: str = Field(description="JSON Schema of args, as text.")


class CapabilitiesFound(Answer):
    """What matches."""

    capabilities: list[CapabilityBrief]
    total: int
    next: str | None


class NodeDescribed(Answer):
    """How to work with this node."""

    instructions: str
    cut: bool
