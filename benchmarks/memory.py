"""What one parked sandbox costs in memory: the slope over several, so that what they share is not counted."""

import os
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import quiet, tree

from crank.ports import ProfileBuild, SandboxSpec
from crank.sandbox.link import LauncherLink
from crank.sandbox.runner import NamespaceRunner

_GROUPS = Path("/sys/fs/cgroup")
_USAGE_FILES = ("memory.current", "memory.usage_in_bytes")


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of a tree of processes. None where this account may not look.

    private_bytes  pages that nobody else maps
    pss_bytes      shared pages counted in shares
    groups_bytes   what the sandboxes' control groups are charged with
    """

    processes: int
    private_bytes: int | None
    pss_bytes: int | None
    groups_bytes: int | None


def _rollup(pid: int) -> dict[str, int] | None:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return {}
    except PermissionError:
        return None
    return {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines if line.endswith("kB")}


def _groups_bytes(launcher: int) -> int | None:
    """Return what all control groups of a launcher's sandboxes are charged with."""
    total, found = 0, False
    for place, below, files in os.walk(_GROUPS):
        if "/" not in place.partition(f"/crank-{launcher}-")[2] or below:
            continue
        for name in _USAGE_FILES:
            if name in files:
                total, found = total + int(Path(place, name).read_text()), True
    return total if found else None


def look(launcher: int) -> Footprint:
    """Look at a launcher and all below it."""
    pids = tree(launcher)
    rollups = [_rollup(pid) for pid in pids]
    if any(rollup is None for rollup in rollups):
        return Footprint(len(pids), None, None, _groups_bytes(launcher))
    known = [rollup for rollup in rollups if rollup]
    private = sum(each["Private_Clean"] + each["Private_Dirty"] for each in known)
    return Footprint(len(pids), private, sum(each["Pss"] for each in known), _groups_bytes(launcher))


async def per_parked(
    runner: NamespaceRunner, link: LauncherLink, build: ProfileBuild, *, more: int = 6
) -> dict[str, float | None]:
    """Open sandboxes that wait for a job; return what each one more costs, in MiB and processes.

    The runner keeps no pool, so a session that was opened and given nothing to do is what a pool holds.
    """
    spec = SandboxSpec(build, build.profile.limits)
    sessions = [await runner.open(spec)]
    try:
        await quiet(link.process.pid)
        before = look(link.process.pid)
        while len(sessions) <= more:
            sessions.append(await runner.open(spec))
        await quiet(link.process.pid)
        after = look(link.process.pid)
    finally:
        for session in sessions:
            await session.close()
    return {
        "processes": (after.processes - before.processes) / more,
        "private_mib": _each(before.private_bytes, after.private_bytes, more),
        "pss_mib": _each(before.pss_bytes, after.pss_bytes, more),
        "cgroup_mib": _each(before.groups_bytes, after.groups_bytes, more),
    }


def _each(before: int | None, after: int | None, count: int) -> float | None:
    return None if before is None or after is None else round((after - before) / count / (1 << 20), 2)
