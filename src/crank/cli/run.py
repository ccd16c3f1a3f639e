"""`crank run`: a script in, its output live, its end as the exit code, its files in --out."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from crank.bootstrap.node import client_options, some_node
from crank.bootstrap.profiles import Profiles
from crank.cli.exit_codes import REFUSAL_CODES, ExitCode, of_fault, of_status
from crank.cli.handle import parse_handle
from crank.cli.job_view import end_sentence, evidence_lines, job_object, refusal_object, used_lines
from crank.cli.live import LiveView
from crank.cli.out_folder import new_file
from crank.cli.show import print_json, say
from crank.client import AsyncClient, JobResult, job_id_of
from crank.config import load
from crank.domain.json import JsonValue, dumps, loads_strict
from crank.domain.quantity import CODE_BYTES_MAX, GIB, KIB, MIB
from crank.errors import CrankError, InvalidRequest

# What a capability keeps for its next job is of no use to a person.
_FOR_THE_NEXT = ".crank/kept.tar"
_UNITS = {"": 1, "k": KIB, "m": MIB, "g": GIB, "kib": KIB, "mib": MIB, "gib": GIB}


@Parameter(name="*")
@dataclass(frozen=True)
class Asked:
    """What the job may be told and given."""

    profile: Annotated[str | None, Parameter(help="Environment profile; python-core unless given.")] = None
    capability: Annotated[str | None, Parameter(help="Capability by name, instead of a profile.")] = None
    arg: Annotated[
        tuple[str, ...],
        Parameter(help="name=value, more than once; JSON if it parses, else text.", negative=(), show_default=False),
    ] = ()
    args: Annotated[str | None, Parameter(help="All arguments as one JSON value.")] = None
    mount: Annotated[
        tuple[str, ...],
        Parameter(
            help="name=folder, read-only at /in/<name>; or the name of a mount that exists.",
            negative=(),
            show_default=False,
        ),
    ] = ()
    file: Annotated[
        tuple[str, ...],
        Parameter(help="path[=name]: a file that the job finds in /scratch.", negative=(), show_default=False),
    ] = ()
    handle: Annotated[
        tuple[str, ...],
        Parameter(
            help="name=capability, name=mount:<mount>, or one JSON object: what its code may ask for (import crank).",
            negative=(),
            show_default=False,
        ),
    ] = ()
    accelerator: Annotated[str | None, Parameter(help="cpu or gpu.")] = None
    timeout: Annotated[float | None, Parameter(help="Seconds that the job may run.")] = None
    memory: Annotated[str | None, Parameter(help="Memory that it may use: 512MiB, 2GiB.")] = None
    cpu_sec: Annotated[float | None, Parameter(help="Seconds of CPU time that it may use.")] = None
    idle_sec: Annotated[float | None, Parameter(help="End it when it did nothing for so many seconds.")] = None
    no_output_sec: Annotated[
        float | None, Parameter(help="End it when it printed nothing for so many seconds.", negative=())
    ] = None
    session: Annotated[str | None, Parameter(help="Run it in this session, with the state that is there.")] = None
    context: Annotated[str | None, Parameter(help="Named globals in the session; main unless given.")] = None
    job_id: Annotated[str | None, Parameter(help="A job id of your own.")] = None
    idempotency_key: Annotated[str | None, Parameter(help="The same key runs the job once within an hour.")] = None


@dataclass(frozen=True, slots=True)
class Tell:
    """How the end of a job is told."""

    as_json: bool
    verbose: bool


def run(
    script: Annotated[str | None, Parameter(help="File to run, or - for stdin.", allow_leading_hyphen=True)] = None,
    /,
    *,
    asked: Asked = Asked(),
    out: Annotated[Path | None, Parameter(help="Folder for the files that the job leaves in /out.")] = None,
    detach: Annotated[
        bool, Parameter(help="Only submit; print the job's id.", negative=(), show_default=False)
    ] = False,
    json: Annotated[bool, Parameter(help="Print one JSON object at the end.", negative=(), show_default=False)] = False,
    verbose: Annotated[
        bool,
        Parameter(
            name=("--verbose", "-v"), help="Tell what it used and what held it.", negative=(), show_default=False
        ),
    ] = False,
) -> int:
    """Run a script in the sandbox and bring back what it leaves.

    Uses the node that runs, or starts one for this command. The job's stdout goes to stdout, its stderr
    to stderr. Ctrl-C cancels the job and shows its end; a second Ctrl-C leaves.
    """
    code = _read_code(script, asked)
    if detach and out is not None:
        raise InvalidRequest("--detach does not wait, so there is nothing for --out.", code="usage", field="out")
    body = _fields(asked)
    try:
        return asyncio.run(_run(code, asked, body, out=out, detach=detach, tell=Tell(json, verbose)))
    except CrankError as fault:
        if json and fault.error_code in REFUSAL_CODES:
            print_json(refusal_object(fault, job_id_of(fault) or asked.job_id))
            return of_fault(fault)
        raise


def _read_code(script: str | None, asked: Asked) -> str | None:
    if script is None:
        if asked.capability is None:
            raise InvalidRequest("Name a script, or - to read it from stdin.", code="usage", field="script")
        return None
    if script.startswith("-") and script != "-":
        # A lone hyphen is allowed to stand for stdin, and with it every unknown option got here.
        raise InvalidRequest(f"Unknown option: {script[:80]}.", code="usage", fix="See 'crank run --help'.")
    try:
        octets = sys.stdin.buffer.read(CODE_BYTES_MAX + 1) if script == "-" else Path(script).read_bytes()
        return octets.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise InvalidRequest("The script is not UTF-8.", code="script_not_text", field="script") from fault
    except OSError as fault:
        raise InvalidRequest(
            f"The script {script} cannot be read: {fault.strerror}.",
            code="script_unreadable",
            field="script",
            fix="Check the path.",
        ) from fault


def _fields(asked: Asked) -> dict[str, Any]:
    return {
        "profile": asked.profile,
        "capability": asked.capability,
        "args": parse_args(asked.args, asked.arg),
        "accelerator": asked.accelerator,
        "timeout_sec": asked.timeout,
        "memory_bytes": None if asked.memory is None else parse_size(asked.memory),
        "cpu_sec": asked.cpu_sec,
        "idle_sec": asked.idle_sec,
        "no_output_sec": asked.no_output_sec,
        "session": asked.session,
        "context": asked.context,
        "job_id": asked.job_id,
        "idempotency_key": asked.idempotency_key,
        "files": dict(_file(entry) for entry in asked.file),
        "handles": [parse_handle(entry) for entry in asked.handle] or None,
    }


def parse_args(whole: str | None, single: Sequence[str]) -> JsonValue:
    """Join `--args` and every `--arg name=value`; a value is JSON if it parses, else text.

    Raises InvalidRequest.
    """
    args: JsonValue = None
    if whole is not None:
        try:
            args = loads_strict(whole.encode())
        except InvalidRequest as fault:
            raise InvalidRequest(f"--args is not JSON: {fault.message}", code="invalid_args", field="args") from fault
    if not single:
        return args
    if args is not None and not isinstance(args, dict):
        raise InvalidRequest("--arg can only add to --args that is an object.", code="invalid_args", field="arg")
    joined = dict(args or {})
    for entry in single:
        name, equals, value = entry.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"--arg {entry[:80]!r} is not name=value.", code="usage", field="arg")
        try:
            joined[name] = loads_strict(value.encode())
        except InvalidRequest:
            joined[name] = value
    return joined


def parse_size(text: str) -> int:
    """Read 512MiB, 2g or a number of bytes. Raises InvalidRequest."""
    number = text.strip().lower().rstrip("kmgib")
    unit = text.strip().lower()[len(number) :].removesuffix("b") if text.strip() else ""
    unit = unit if unit in ("", "k", "m", "g") else unit + "b"
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise InvalidRequest(
            f"{text!r} is not a size.", code="usage", field="memory", fix="Write 512MiB, 2GiB or a number of bytes."
        ) from None


def _file(entry: str) -> tuple[str, Path]:
    source, equals, name = entry.partition("=")
    path = Path(source)
    if not path.is_file():
        raise InvalidRequest(f"There is no file {source!r}.", code="file_unreadable", field="file")
    return (name if equals else path.name), path


async def _mounts(client: AsyncClient, asked: Asked) -> dict[str, str]:
    uses: dict[str, str] = {}
    for entry in asked.mount:
        name, equals, folder = entry.partition("=")
        if name in uses:
            raise InvalidRequest(f"The mount name {name!r} is used twice.", code="usage", field="mount")
        uses[name] = (await client.add_mount(str(Path(folder).absolute()))).mount_id if equals else name
    return uses


async def _run(
    code: str | None, asked: Asked, fields: dict[str, Any], *, out: Path | None, detach: bool, tell: Tell
) -> int:
    settings = load()
    if not settings.node_file.exists():
        Profiles(settings).build_first(say)
    async with some_node(settings) as node, AsyncClient(client_options(node)) as client:
        body = await client.prepare(code, mounts=await _mounts(client, asked), **fields)
        if detach:
            return _tell_submitted(await client.submit(body), as_json=tell.as_json)
        job = await _follow(client, await client.submit(body), as_json=tell.as_json)
        if out is not None:
            await fetch_artifacts(client, job, out)
        _tell_end(job, tell, out=out)
        return of_status(job.status)


def _tell_submitted(job: JobResult, *, as_json: bool) -> int:
    if as_json:
        print_json(job_object(job))
    else:
        print(job.job_id)
        say(f"follow it with: crank job logs -f {job.job_id}")
    return ExitCode.OK


async def _follow(client: AsyncClient, job: JobResult, *, as_json: bool) -> JobResult:
    """Show the job until its end. The first Ctrl-C cancels it, the second leaves."""
    view = LiveView(quiet=as_json)
    waiting = asyncio.create_task(client.wait(job.job_id, on_event=view.show))
    asking: list[asyncio.Task[JobResult]] = []

    def interrupted() -> None:
        if asking:
            waiting.cancel()
            return
        say("cancelling the job; Ctrl-C again to leave at once")
        asking.append(asyncio.create_task(client.cancel(job.job_id)))

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        return await waiting
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        view.close()
        with contextlib.suppress(CrankError):
            await asyncio.gather(*asking)


async def fetch_artifacts(client: AsyncClient, job: JobResult, out: Path) -> None:
    """Download every artifact of a job into a folder. Raises Conflict, InvalidRequest, Unavailable."""
    out.mkdir(parents=True, exist_ok=True)
    for artifact in job.artifacts:
        if artifact.path == _FOR_THE_NEXT:
            continue
        with new_file(out, artifact.path) as target:
            await client.download(job.job_id, artifact, target)


def _tell_end(job: JobResult, tell: Tell, *, out: Path | None) -> None:
    if tell.as_json:
        print_json(job_object(job))
        return
    if job.has_result and job.result is not None:
        say(f"result: {dumps(job.result)[:10_000]}")
    if job.artifacts:
        where = f"in {out}" if out is not None else f"kept; fetch them with: crank job fetch {job.job_id} --out DIR"
        say(f"{sum(each.path != _FOR_THE_NEXT for each in job.artifacts)} file(s) {where}")
    for skipped in job.skipped:
        say(f"not collected: {skipped.path}: {skipped.cause}")
    if job.ok and not tell.verbose:
        return
    # What a wall refused is most of the time why a job failed.
    for line in (end_sentence(job), *evidence_lines(job), *(used_lines(job) if tell.verbose else ())):
        say(line)
