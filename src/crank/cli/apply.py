"""`crank apply`: write what a job left into a folder of the user, after the user saw what it would change.

The node never writes into anybody's folders: this runs as the user, with the user's rights, and only what the user
accepts is written.
"""

import asyncio
import fnmatch
import hashlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, BinaryIO, cast

from cyclopts import Parameter

from crank.bootstrap.mounts import folder_of_mount
from crank.cli import reach
from crank.cli.apply_view import Entry, print_preview, tell_outcome
from crank.cli.exit_codes import ExitCode
from crank.cli.out_folder import new_file
from crank.cli.show import one_line, print_json, say
from crank.cli.user_folder import UserFolder
from crank.client import AsyncClient, JobResult
from crank.config import Settings, load
from crank.domain.rules import apply as rules
from crank.errors import Conflict, CrankError, InvalidRequest, NotAllowed, NotFound

Ask = Callable[[str], str]
_BACKUPS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked on the command line."""

    job_id: str
    to: str | None
    only: tuple[str, ...]
    write: bool
    choose: bool
    json: bool


def apply(
    job_id: Annotated[str, Parameter(help="The job's id.")],
    /,
    *,
    to: Annotated[
        str | None, Parameter(help="A mount's name, or a folder. The one mount that the job read, unless said.")
    ] = None,
    only: Annotated[
        tuple[str, ...], Parameter(help="Only files whose path matches: '*.md'; may be repeated.", negative=())
    ] = (),
    yes: Annotated[bool, Parameter(help="Write all that is no conflict, without a question.", negative=())] = False,
    dry_run: Annotated[bool, Parameter(help="Show what would change, and write nothing.", negative=())] = False,
    json: Annotated[bool, Parameter(help="Print JSON; without --yes nothing is written.", negative=())] = False,
) -> int:
    """Show what a job's files would change in a folder of yours, and write those that you accept.

    What you changed since the job began is not overwritten, and every file that is replaced is kept first, beneath
    the node's home. Nothing that a job left is made executable. To get files without a folder: crank job fetch.
    """
    if yes and dry_run:
        raise InvalidRequest("--yes and --dry-run contradict each other.", code="usage", field="yes")
    interactive = sys.stdin.isatty() and not json
    wanted = Wanted(job_id, to, only, write=not dry_run and (yes or interactive), choose=not yes, json=json)
    code = _apply(load(), wanted, input)
    if code is ExitCode.OK and not (wanted.write or dry_run or json):
        say("nothing was written: say --yes, or run it in a terminal and answer")
    return code


def _apply(settings: Settings, wanted: Wanted, question: Ask) -> ExitCode:
    """Preview, ask, write. No event loop runs while a person thinks, so that Ctrl-C ends it at once."""
    job, path = reach.ask(lambda client: _find(settings, client, wanted))
    with UserFolder(path) as folder:
        entries = reach.ask(lambda client: _preview(client, job, folder, wanted.only))
        if not wanted.json:
            print_preview(entries, path)
        accepted: list[Entry] = []
        if wanted.write:
            accepted = choose(entries, question) if wanted.choose else [one for one in entries if one.writes]
        backup = Backup(settings.home / "backups" / job.job_id)
        done = reach.ask(lambda client: _write_all(client, job, folder, accepted, backup)) if accepted else []
    settled = {entry.path: entry for entry in done}
    entries = [settled.get(entry.path, entry) for entry in entries]
    if wanted.json:
        print_json(_document(job, path, entries, backup))
    elif wanted.write:
        tell_outcome(entries, backup.used)
    return _exit_code(entries)


async def _find(settings: Settings, client: AsyncClient, wanted: Wanted) -> tuple[JobResult, Path]:
    job = await client.get(wanted.job_id)
    if not job.ended:
        raise Conflict(f"The job {job.job_id} has not ended.", code="job_not_ended", fix="Wait: crank job wait.")
    return job, await _folder(settings, client, job, wanted.to)


async def _folder(settings: Settings, client: AsyncClient, job: JobResult, to: str | None) -> Path:
    """Return the folder that is meant. Raises InvalidRequest, NotFound, NotAllowed."""
    if to is None:
        uses = job.document.get("mounts") or []
        if len(uses) != 1:
            raise InvalidRequest(
                f"The job read {len(uses)} mounts, so its files have no folder of their own.",
                code="usage",
                field="to",
                fix="Name a mount or a folder: --to docs, or --to ./docs.",
            )
        path = folder_of_mount(settings, str(uses[0]["mount_id"]))
    else:
        named = {mount.name: mount.mount_id for mount in await client.mounts() if mount.name}
        path = folder_of_mount(settings, named[to]) if to in named else Path(to).absolute()
    real, home = path.resolve(), settings.home.resolve()
    if real == home or home in real.parents:
        raise NotAllowed("This folder is the node's own.", code="mount_private", fix="Choose a folder of yours.")
    return path


async def _preview(client: AsyncClient, job: JobResult, folder: UserFolder, only: Sequence[str]) -> list[Entry]:
    artifacts = [one for one in job.artifacts if not only or any(fnmatch.fnmatchcase(one.path, glob) for glob in only)]
    began_us = await _began_us(client, job)
    colliding = rules.colliding(one.path for one in job.artifacts)
    entries = []
    for artifact in sorted(artifacts, key=lambda one: one.path):
        refused = rules.name_refusal(artifact.path)
        if refused is None and artifact.path in colliding:
            refused = "another file of the job has the same name but for case"
        found = rules.Found(blocked=refused) if refused else await asyncio.to_thread(folder.look, artifact.path)
        verdict = rules.judge(artifact.sha256, found, began_us=began_us)
        entry = Entry(artifact, verdict.change, verdict.reason, found)
        entries.append(await _with_diff(client, job, folder, entry))
    return entries


async def _began_us(client: AsyncClient, job: JobResult) -> int:
    """Return when the job may first have read a folder: one in a session, since the session was opened."""
    session_id, told = job.document.get("session_id"), job.document.get("started_at")
    if session_id is not None:
        try:
            told = (await client.session().attach(str(session_id))).document.get("created_at")
        except NotFound:
            told = None
    # Where nobody knows, whatever is there counts as changed.
    return int(datetime.fromisoformat(str(told)).timestamp() * 1_000_000) if told else 0


async def _with_diff(client: AsyncClient, job: JobResult, folder: UserFolder, entry: Entry) -> Entry:
    if entry.change not in (rules.Change.NEW, rules.Change.CHANGED):
        return entry
    if max(entry.artifact.size_bytes, entry.found.size_bytes) > rules.DIFF_BYTES_MAX:
        return replace(entry, diff=rules.Diff(note="too large for a diff"))
    before = b""
    if entry.found.sha256 is not None:
        before = await asyncio.to_thread(folder.read, entry.path, rules.DIFF_BYTES_MAX + 1)
        if hashlib.sha256(before).hexdigest() != entry.found.sha256:
            return replace(entry, change=rules.Change.CONFLICT, reason="yours is being changed right now")
    with tempfile.SpooledTemporaryFile(rules.DIFF_BYTES_MAX) as spool:
        after = cast(BinaryIO, spool)
        await client.download(job.job_id, entry.artifact, after)
        after.seek(0)
        made = await asyncio.to_thread(rules.diff, before, after.read(), entry.path)
    return replace(entry, diff=made)


# --- writing ---------------------------------------------------------------------------------


class Backup:
    """Keeps what is replaced, in a fresh folder that is made when it is first needed."""

    def __init__(self, above: Path) -> None:
        self._above = above
        self.used: Path | None = None

    def keep(self, path: str, original: BinaryIO) -> None:
        """Copy an original to its place. Raises OSError, Conflict."""
        if self.used is None:
            self.used = self._fresh()
        with new_file(self.used, path) as target:
            while chunk := original.read(1 << 20):
                target.write(chunk)

    def _fresh(self) -> Path:
        self._above.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(1, _BACKUPS_MAX):
            try:
                (self._above / str(number)).mkdir(mode=0o700)
                return self._above / str(number)
            except FileExistsError:
                continue
        raise Conflict(f"There are {_BACKUPS_MAX} backups of this job.", code="backup_full", fix="Remove some of them.")


async def _write_all(
    client: AsyncClient, job: JobResult, folder: UserFolder, accepted: Sequence[Entry], backup: Backup
) -> list[Entry]:
    return [await _write(client, job, folder, entry, backup) for entry in accepted]


async def _write(client: AsyncClient, job: JobResult, folder: UserFolder, entry: Entry, backup: Backup) -> Entry:
    """Write one accepted file; whatever keeps it from being written is told of it, and ends no other."""
    try:
        with ExitStack() as opened:
            spool = cast(BinaryIO, opened.enter_context(tempfile.TemporaryFile()))
            await client.download(job.job_id, entry.artifact, spool)
            spool.seek(0)
            await asyncio.to_thread(folder.write, entry.path, spool, shown=entry.found, keep=backup.keep)
    except Conflict as fault:
        return replace(entry, change=rules.Change.CONFLICT, reason=fault.message)
    except CrankError as fault:
        return replace(entry, failed=fault.message)
    except OSError as fault:
        return replace(entry, failed=fault.strerror or repr(fault))
    return replace(entry, written=True)


def choose(entries: Sequence[Entry], ask: Ask) -> list[Entry]:
    """Ask about each file that could be written, and return those that are accepted."""
    accepted: list[Entry] = []
    all_of_them = False
    for entry in entries:
        if not entry.writes:
            continue
        if not all_of_them:
            word = _answer(ask, f"write {one_line(entry.path)}? [y]es, [n]o, [a]ll that follow, [q]uit: ")
            if word == "q":
                break
            if word == "n":
                continue
            all_of_them = word == "a"
        accepted.append(entry)
    return accepted


def _answer(ask: Ask, question: str) -> str:
    for _ in range(5):
        try:
            word = ask(question).strip().lower()[:1]
        except EOFError:
            return "q"
        if word and word in "ynaq":
            return word
    return "q"


def _exit_code(entries: Sequence[Entry]) -> ExitCode:
    if any(entry.failed for entry in entries):
        return ExitCode.CONFIGURATION
    return ExitCode.CONFLICT if any(entry.change is rules.Change.CONFLICT for entry in entries) else ExitCode.OK


def _document(job: JobResult, path: Path, entries: Sequence[Entry], backup: Backup) -> dict[str, object]:
    return {
        "job_id": job.job_id,
        "to": str(path),
        "files": [entry.document for entry in entries],
        "written": [entry.path for entry in entries if entry.written],
        "backup": None if backup.used is None else str(backup.used),
    }
