"""What requests are checked against: exact fields, exact types, nothing else."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Level = Literal["none", "thumbprint", "join"]
_LEVEL = "The least that the machine which runs it must have proved when it joined."


class Request(BaseModel):
    """Strict: no coercion, no unknown field."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Constraints(Request):
    """What the job needs, and what it may use; a profile's own limits are never passed."""

    accelerator: Literal["cpu", "gpu"] | None = None
    gpu_model: str | None = None
    timeout_sec: float | None = Field(None, description="Wall clock, in seconds.")
    max_output_bytes: int | None = Field(None, description="Kept of stdout and of stderr, each.")
    memory_bytes: int | None = None
    cpu_sec: float | None = Field(None, description="CPU time of the whole process tree.")
    idle_sec: float | None = Field(None, description="End it when the tree did nothing for so long.")
    no_output_sec: float | None = Field(None, description="End it when nothing was printed for so long.")
    attestation: Level | None = Field(None, description=_LEVEL)


class FileWanted(Request):
    """An input file, found at /scratch/<path>; exactly one of text, base64 and sha256 carries it."""

    path: str
    text: str | None = None
    base64: str | None = None
    sha256: str | None = Field(None, description="A blob that was uploaded before.")


class MountWanted(Request):
    """A mount under another name: the job finds it at /in/<name>."""

    name: str
    mount: str = Field(description="The mount's id or name.")


class HandleWanted(Request):
    """Something that the job's code may ask for while it runs, by `import crank` inside; the code sees no secret."""

    name: str = Field(description="How the code names it.")
    kind: Literal["call", "mount", "budget"] = Field(
        description="call: start jobs of a capability. mount: a folder that such a job may take along. budget: not offered yet."
    )
    capability: str | None = Field(None, description="Of a call: a name, a prefix such as document.*, or *.")
    version: str | None = Field(None, description="Of a call: one version in full.")
    constraints: dict[str, Any] | None = Field(None, description="Of a call: a JSON Schema that its args must satisfy.")
    calls_max: int | None = Field(None, description="Of a call: how many may be made with it, by the job and all below it.")
    mounts: list[str] | None = Field(None, description="Of a call: handles of kind mount that it may take along; all unless given.")
    mount: str | None = Field(None, description="Of a mount: the mount's id or name.")
    amount: int | None = Field(None, description="Of a budget.")


class JobWanted(Request):
    """One job."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"code": "print(args['n'] * 2)", "args": {"n": 21}, "env_profile": "python-core"},
                {
                    "capability": "python.run.docs",
                    "code": "import os; print(os.listdir('/in/docs'))",
                    "mounts": ["docs"],
                },
            ]
        }
    )

    job_id: str | None = Field(None, description="Your own id, unique per tenant; the node makes one otherwise.")
    runtime: str | None = Field(None, description="python3.11")
    env_profile: str | None = Field(None, description="python-core unless said otherwise.")
    capability: str | None = Field(None, description="Follows from env_profile unless given.")
    version: str | None = Field(None, description="1, 1.2 or 1.2.3: any version that starts so.")
    constraints: Constraints | None = None
    code: str | None = None
    args: Any = Field(None, description="Any JSON value; the script finds it as the global `args`.")
    files: list[FileWanted] | None = None
    mounts: list[str | MountWanted] | None = None
    program: list[str] | None = Field(
        None,
        description="One of the profile's programs and its arguments, in place of code.",
        examples=[["pandoc", "-v"]],
    )
    stdin: bool | None = Field(None, description="true keeps stdin open for POST …/stdin; otherwise it is empty.")
    session: str | None = Field(None, description="The id of a session whose state the job shares.")
    context: str | None = Field(None, description="Named globals in the session; main unless said otherwise.")
    idempotency_key: str | None = None
    budget: Any = Field(None, description="Not offered yet: anything but null is refused.")
    route: Literal["local", "any"] | None = Field(None, description="Only local is offered yet.")
    effects: Literal["pure", "idempotent", "external"] | None = None
    handles: list[HandleWanted] | None = Field(None, description="What its code may ask for while it runs.")
    detach: bool | None = Field(
        None, description="false: it is cancelled when no request has waited for it or followed it for 5 s."
    )


class SessionClocks(Request):
    """When a session ends by itself; the operator sets ceilings."""

    idle_sec: float | None = Field(None, description="Without a running job for this long.")
    lifetime_sec: float | None = Field(None, description="This long after it was opened, whatever runs.")


class SessionWanted(SessionClocks):
    """One session: a sandbox that lives on between its jobs."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"env_profile": "python-core", "idle_sec": 900}]})

    name: str | None = Field(None, description="For people; it need not be unique.")
    env_profile: str | None = Field(None, description="python-core unless said otherwise.")
    capability: str | None = Field(None, description="Follows from env_profile unless given.")
    version: str | None = Field(None, description="1, 1.2 or 1.2.3: any version that starts so.")
    accelerator: Literal["cpu", "gpu"] | None = None
    gpu_model: str | None = None
    memory_bytes: int | None = Field(None, description="Of everything in the session together.")
    attestation: Level | None = Field(None, description=_LEVEL)
    mounts: list[str | MountWanted] | None = None


class StdinWanted(Request):
    """Bytes for the stdin of a running job, at most 1 MiB; text or base64 carries them."""

    text: str | None = None
    base64: str | None = None
    offset_bytes: int | None = Field(
        None, ge=0, description="Where they begin in all that was sent; a repeat is harmless."
    )
    end: bool = Field(False, description="Nothing follows.")


class MountAdded(Request):
    """A folder of this node that jobs may read."""

    path: str = Field(description="Absolute path on the node.", examples=["/srv/documents"])
    name: str | None = Field(None, examples=["docs"])
