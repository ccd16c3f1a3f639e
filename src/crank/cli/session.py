"""`crank session …`: sandboxes that live on between jobs."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from crank.cli.exit_codes import ExitCode
from crank.cli.out_folder import new_file
from crank.cli.reach import ask
from crank.cli.run import Asked, parse_size, run
from crank.cli.show import harmless, print_json, print_rows, say, size_text
from crank.client import AsyncClient, SessionFile, SessionState
from crank.errors import InvalidRequest

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]
SessionId = Annotated[str, Parameter(help="The session's id.")]


def open_one(
    *,
    profile: Annotated[str | None, Parameter(help="Environment profile; python-core unless given.")] = None,
    name: Annotated[str | None, Parameter(help="A name, for people.")] = None,
    idle_sec: Annotated[float | None, Parameter(help="End it when no job ran for so many seconds.")] = None,
    lifetime_sec: Annotated[float | None, Parameter(help="End it so many seconds after it was opened.")] = None,
    memory: Annotated[str | None, Parameter(help="Memory of everything in it: 512MiB, 2GiB.")] = None,
    mount: Annotated[
        tuple[str, ...], Parameter(help="Name of a mount, read-only at /in/<name>.", negative=(), show_default=False)
    ] = (),
    json: Json = False,
) -> int:
    """Open a session and print its id."""

    async def opening(client: AsyncClient) -> SessionState:
        wanted = client.session(
            profile=profile,
            mounts=mount,
            name=name,
            idle_sec=idle_sec,
            lifetime_sec=lifetime_sec,
            memory_bytes=None if memory is None else parse_size(memory),
        )
        return await wanted.open()

    state = ask(opening)
    if json:
        print_json(state.document)
    else:
        print(state.session_id)
        say(f"run code in it with: crank session run {state.session_id} SCRIPT")
    return ExitCode.OK


def list_sessions(
    *, limit: Annotated[int, Parameter(help="How many at most, 1 to 200.")] = 20, json: Json = False
) -> int:
    """List sessions, newest first."""

    async def listing(client: AsyncClient) -> Sequence[SessionState]:
        return await client.sessions(limit=limit)

    found = ask(listing)
    if json:
        print_json({"sessions": [state.document for state in found]})
        return ExitCode.OK
    rows = [
        (state.session_id, state.state, state.name, state.env_profile, _ends(state), state.document.get("created_at"))
        for state in found
    ]
    print_rows(("SESSION", "STATE", "NAME", "PROFILE", "ENDS", "CREATED"), rows)
    return ExitCode.OK


def _ends(state: SessionState) -> str | None:
    if state.end is not None:
        return str(state.end.get("reason"))
    times = [state.clocks.get("idle_until"), state.clocks.get("lifetime_until")]
    return min((str(one) for one in times if one), default=None)


def show(session_id: SessionId, /, *, json: Json = False) -> int:
    """Show one session: its clocks, its jobs and, once it has ended, why."""

    async def getting(client: AsyncClient) -> SessionState:
        return await client.session().attach(session_id)

    state = ask(getting)
    if json:
        print_json(state.document)
        return ExitCode.OK
    print(f"session    {state.session_id}  {harmless(state.name or '')}".rstrip())
    print(f"state      {state.state}")
    print(f"profile    {state.env_profile or '-'}   worker {state.worker_id or '-'}   tier {state.tier or '-'}")
    print(f"jobs       running {state.running_job_id or '-'}   waiting {state.queued_jobs}")
    if state.end is not None:
        print(f"end        {state.end.get('reason')}: {harmless(str(state.end.get('message')))}")
    else:
        print(
            f"ends       idle {state.clocks.get('idle_until') or '-'}   at the latest {state.clocks.get('lifetime_until')}"
        )
    return ExitCode.OK


def run_in(
    session_id: SessionId,
    script: Annotated[str, Parameter(help="File to run, or - for stdin.", allow_leading_hyphen=True)],
    /,
    *,
    context: Annotated[str | None, Parameter(help="Named globals; main unless given.")] = None,
    json: Json = False,
) -> int:
    """Run a script in a session, with the state that earlier ones left. As `crank run --session`."""
    return run(script, asked=Asked(session=session_id, context=context), json=json)


def files(
    session_id: SessionId,
    path: Annotated[str, Parameter(help="A file or folder in /scratch.")] = "",
    /,
    *,
    get: Annotated[
        Path | None, Parameter(help="Copy the file into this folder; - for stdout.", allow_leading_hyphen=True)
    ] = None,
    put: Annotated[Path | None, Parameter(help="Write this file to the path.")] = None,
    remove: Annotated[bool, Parameter(help="Remove what is there.", negative=(), show_default=False)] = False,
    json: Json = False,
) -> int:
    """List what lies in a folder of a session; or get, put or remove one file."""
    acts = sum((get is not None, put is not None, remove))
    if acts > 1 or (acts and not path):
        raise InvalidRequest("Name one path, and one of --get, --put and --remove.", code="usage", field="path")

    async def acting(client: AsyncClient) -> Sequence[SessionFile]:
        session = client.session()
        await session.attach(session_id)
        if put is not None:
            await session.put(path, put)
        elif remove:
            await session.remove(path)
        elif get is not None:
            octets = await session.get(path)
            if str(get) == "-":
                sys.stdout.buffer.write(octets)
            else:
                with new_file(get, path) as target:
                    target.write(octets)
        else:
            return await session.files(path)
        return ()

    found = ask(acting)
    if acts:
        return ExitCode.OK
    if json:
        print_json({"files": [{"path": one.path, "kind": one.kind, "size_bytes": one.size_bytes} for one in found]})
    else:
        for one in found:
            print(f"{size_text(one.size_bytes):>10}  {harmless(one.path)}{'/' if one.kind == 'folder' else ''}")
    return ExitCode.OK


def close(session_id: SessionId, /, *, json: Json = False) -> int:
    """End a session, with what runs in it. Doing it twice changes nothing."""

    async def closing(client: AsyncClient) -> SessionState:
        session = client.session()
        await session.attach(session_id)
        await session.close()
        return session.state

    state = ask(closing)
    if json:
        print_json(state.document)
    else:
        say(f"session {state.session_id} has ended: {state.end and state.end.get('reason')}")
    return ExitCode.OK
