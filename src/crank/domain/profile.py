"""Environment profiles: what an environment holds and what its sandbox allows, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from crank.domain.ids import parse_name
from crank.domain.quantity import GIB, KIB, MEMORY_BYTES_MAX, MIB, OUTPUT_BYTES_MAX, TIMEOUT_SEC_MAX
from crank.errors import Problem, ProfileError

PROFILE_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may use. Every field is a hard ceiling with an end reason of its own.

    wall_sec          wall clock, reason `timeout` with clock `wall`
    cpu_sec           CPU time of the whole tree, reason `timeout` with clock `cpu`
    idle_sec          the whole tree used no CPU and wrote nothing for so long; reason `timeout` with clock `idle`
    no_output_sec     no byte on stdout or stderr for so long; reason `timeout` with clock `no_output`
    memory_bytes      memory of the whole tree, files in /scratch and /out included; reason `memory`
    processes         processes and threads together; reason `processes`
    open_files        descriptors of one process; the call fails inside the job, reason `open_files` if uncaught
    file_bytes        one file; the call fails inside the job, reason `file_size` if uncaught
    disk_bytes        /scratch and /out, each; the call fails inside the job, reason `disk` if uncaught
    inodes            files and folders in /scratch and /out, each; the same, reason `inodes` if uncaught
    output_bytes      kept of stdout and of stderr, each (head and tail); the rest is counted
    output_flood_bytes  seen on both streams together before the job is ended; reason `output`
    result_bytes      the encoded result; a larger one is reported as too large
    artifacts         files collected from /out
    """

    wall_sec: float = 60.0
    cpu_sec: float = 60.0
    # Not sooner than any wall clock: these two end a job early only where a profile or a request says so.
    idle_sec: float = float(TIMEOUT_SEC_MAX)
    no_output_sec: float = float(TIMEOUT_SEC_MAX)
    memory_bytes: int = 512 * MIB
    processes: int = 64
    open_files: int = 512
    file_bytes: int = 256 * MIB
    disk_bytes: int = 256 * MIB
    inodes: int = 20_000
    output_bytes: int = 1 * MIB
    output_flood_bytes: int = 256 * MIB
    result_bytes: int = 1 * MIB
    artifacts: int = 1_000


# The range that each limit may take in a profile; a request may ask for less, never for more.
LIMIT_RANGES: Mapping[str, tuple[float, float]] = {
    "wall_sec": (0.05, TIMEOUT_SEC_MAX),
    "cpu_sec": (0.05, TIMEOUT_SEC_MAX),
    "idle_sec": (0.05, TIMEOUT_SEC_MAX),
    "no_output_sec": (0.05, TIMEOUT_SEC_MAX),
    "memory_bytes": (32 * MIB, MEMORY_BYTES_MAX),
    "processes": (1, 32_768),
    "open_files": (16, 1_048_576),
    "file_bytes": (4 * KIB, 64 * GIB),
    "disk_bytes": (64 * KIB, 64 * GIB),
    "inodes": (16, 10_000_000),
    "output_bytes": (1, OUTPUT_BYTES_MAX),
    "output_flood_bytes": (64 * KIB, 64 * GIB),
    "result_bytes": (64, 64 * MIB),
    "artifacts": (0, 100_000),
}


def under(limits: Limits, ceilings: Mapping[str, float]) -> Limits:
    """Return the limits with each one that passes its ceiling lowered to it; a ceiling never raises one."""
    lower = {name: ceiling for name, ceiling in ceilings.items() if ceiling < getattr(limits, name)}
    return replace(limits, **{name: type(getattr(limits, name))(ceiling) for name, ceiling in lower.items()})


@dataclass(frozen=True, slots=True)
class SelfTest:
    """One promise of a profile, proven by a job in the sandbox.

    `expect` is `ok` (the code runs to its end) or the name of the exception it must end with.
    """

    name: str
    code: str
    expect: str = "ok"


@dataclass(frozen=True, slots=True)
class Profile:
    """One environment profile, as its file `profiles/<name>.toml` says.

    name        `python-core`
    capability  the capability that a worker offers when it has this profile: `python.run.core`
    version     semantic version of the promise (packages, programs, limits)
    python      `3.11`
    summary     one sentence for people and agents
    packages    distribution name to version, everything a job may import beside the standard library
    programs    programs a job may start; empty means no new process at all
    preimports  modules imported before the job's code
    processes   a job may fork, and so use multiprocessing, without starting any program
    host_programs  those of `programs` that no package carries: a build copies them from the machine it is made on
    home        a second name of /scratch, `/home/user`, whose last part names the job's user as well
    lock        file of hashed requirements, beside the profile's own file, per accelerator: `cpu`, `gpu`
    limits      defaults, and at the same time ceilings, for a job
    """

    name: str
    capability: str
    version: str
    python: str
    summary: str
    packages: tuple[str, ...]
    programs: tuple[str, ...]
    preimports: tuple[str, ...]
    locks: Mapping[str, str]
    limits: Limits
    self_tests: tuple[SelfTest, ...]
    processes: bool = False
    host_programs: tuple[str, ...] = ()
    home: str | None = None


HOME = "/home/user"
_TEXT_KEYS = ("name", "capability", "version", "python", "summary")
_LIST_KEYS = ("packages", "programs", "preimports", "host_programs")
_KNOWN = {"schema", "locks", "limits", "self_test", "processes", "home", *_TEXT_KEYS, *_LIST_KEYS}


def parse_profile(source: Mapping[str, Any], *, origin: str) -> Profile:
    """Make a Profile of a parsed TOML table. Raises ProfileError that lists every mistake in it."""
    problems: list[Problem] = []

    def wrong(field: str, cause: str, fix: str) -> None:
        problems.append(Problem(field=f"{origin}: {field}", cause=cause, fix=fix))

    for key in sorted(set(source) - _KNOWN):
        wrong(key, "unknown key", f"Use only {', '.join(sorted(_KNOWN))}.")
    if source.get("schema") != PROFILE_SCHEMA:
        wrong("schema", f"this version reads schema {PROFILE_SCHEMA}", f"Write schema = {PROFILE_SCHEMA}.")
    texts: dict[str, str] = {}
    for key in _TEXT_KEYS:
        value = source.get(key)
        if not isinstance(value, str) or not value:
            wrong(key, "must be a text that is not empty", f'Write {key} = "…".')
            value = "invalid"
        texts[key] = value
    lists: dict[str, tuple[str, ...]] = {}
    for key in _LIST_KEYS:
        value = source.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            wrong(key, "must be a list of texts", f'Write {key} = ["…"].')
            value = []
        lists[key] = tuple(value)
    locks = source.get("locks")
    if not isinstance(locks, Mapping) or not locks or set(locks) - {"cpu", "gpu"}:
        wrong("locks", "must name a file of hashed requirements for cpu, gpu or both", 'Write cpu = "….txt".')
        locks = {}
    home = _parse_places(source, lists, wrong)
    processes = _parse_flag(source, "processes", wrong)
    limits = _parse_limits(source.get("limits", {}), wrong)
    self_tests = _parse_self_tests(source.get("self_test", []), wrong)
    if problems:
        raise ProfileError(f"The profile {origin} has {len(problems)} mistake(s).", problems=problems)
    return Profile(
        name=parse_name(texts["name"], field="name"),
        capability=texts["capability"],
        version=texts["version"],
        python=texts["python"],
        summary=texts["summary"],
        packages=lists["packages"],
        programs=lists["programs"],
        preimports=lists["preimports"],
        locks=dict(locks),
        limits=limits,
        self_tests=self_tests,
        processes=processes,
        host_programs=lists["host_programs"],
        home=home,
    )


def _parse_places(source: Mapping[str, Any], lists: Mapping[str, tuple[str, ...]], wrong: Any) -> str | None:
    for stray in sorted(set(lists["host_programs"]) - set(lists["programs"])):
        wrong("host_programs", f"{stray} is not one of programs", "List it in programs, too.")
    home = source.get("home")
    if home not in (None, HOME):
        wrong("home", f"must be {HOME}", f'Write home = "{HOME}", or leave it out.')
        return None
    return home


def _parse_flag(source: Mapping[str, Any], key: str, wrong: Any) -> bool:
    value = source.get(key, False)
    if not isinstance(value, bool):
        wrong(key, "must be true or false", f"Write {key} = true, or leave it out.")
    return value is True


def _parse_limits(source: Any, wrong: Any) -> Limits:
    if not isinstance(source, Mapping):
        wrong("limits", "must be a table", "Write [limits] with one limit a line.")
        return Limits()
    values: dict[str, Any] = {}
    for key, value in source.items():
        if key not in LIMIT_RANGES:
            wrong(f"limits.{key}", "unknown limit", f"Use only {', '.join(LIMIT_RANGES)}.")
            continue
        low, high = LIMIT_RANGES[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            wrong(f"limits.{key}", f"must be a number from {low:g} to {high:g}", "Choose a value in that range.")
            continue
        values[key] = float(value) if key.endswith("_sec") else int(value)
    return Limits(**values)


def _parse_self_tests(source: Any, wrong: Any) -> tuple[SelfTest, ...]:
    if not isinstance(source, list):
        wrong("self_test", "must be a list of tables", "Write [[self_test]] with name, code and expect.")
        return ()
    tests: list[SelfTest] = []
    for position, entry in enumerate(source):
        ok = isinstance(entry, Mapping) and {"name", "code"} <= set(entry) <= {"name", "code", "expect"}
        if not ok or not all(isinstance(value, str) for value in entry.values()):
            wrong(f"self_test[{position}]", "needs the texts name and code, and may have expect", "Complete it.")
            continue
        tests.append(SelfTest(name=entry["name"], code=entry["code"], expect=entry.get("expect", "ok")))
    return tuple(tests)
