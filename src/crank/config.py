"""Settings, and the one place that reads the environment.

A value comes from, weakest first: the default, `$CRANK_HOME/crank.toml`, the environment (`CRANK_*`),
a flag. Every mistake is found before any is told, so that nobody corrects a file five times.
"""

import difflib
import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import platformdirs

from crank.domain.identity import parse_trust_domain
from crank.domain.ids import parse_name
from crank.domain.isolation import TIER_DEFAULT, Tier, parse_tier
from crank.domain.profile import LIMIT_RANGES
from crank.domain.quantity import GIB, MIB, SESSION_SEC_MIN
from crank.domain.worker import SLOTS_MAX
from crank.errors import ConfigurationError, InvalidRequest, Problem

PREFIX = "CRANK_"
FILE_NAME = "crank.toml"
PORT_MAX = 65_535
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.:-]{0,251}[a-z0-9])?")

# What pip and TLS need of the environment when a profile is built; nothing else is handed on.
_BUILD_VARIABLES = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_BUILD_PREFIXES = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "XDG_")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything an operator may choose, checked. Paths are absolute.

    home              folder that holds all state of the node
    bind              address that both listeners use
    api_names         names by which clients reach the API beside that, with commas between
    api_port, workers_port   0 takes any free port
    profiles_source   folder of the profile files
    profiles_builds   folder of the built profiles
    worker_slots      jobs that the worker runs at once
    retention_sec     how long ended jobs and their files are kept
    drain_sec         how long a stopping worker waits for its jobs
    worker_sessions   sessions that the worker keeps at once
    worker_sessions_bytes    what the memory limits of all its sessions may add up to
    sessions_max      sessions that live at once on the whole node
    session_idle_sec, session_lifetime_sec           the clocks of a session that asks for none
    session_idle_sec_max, session_lifetime_sec_max   the longest clocks that anybody may ask for
    sandbox_tier      the weakest isolation that jobs may run in: `namespaces`, or `landlock` as well
    ceilings          by the names of `profile.Limits`: no profile gives a job more than this here
    failpoints        `name:action,…`, for tests only
    build_environment what a profile build may see of the environment
    """

    home: Path
    bind: str
    api_names: str
    api_port: int
    workers_port: int
    profiles_source: Path
    profiles_builds: Path
    worker_name: str
    worker_slots: int
    trust_domain: str
    queued_max: int
    blobs_quota_bytes: int
    retention_sec: float
    drain_sec: float
    worker_sessions: int
    worker_sessions_bytes: int
    sessions_max: int
    session_idle_sec: float
    session_idle_sec_max: float
    session_lifetime_sec: float
    session_lifetime_sec_max: float
    sandbox_tier: Tier
    failpoints: str
    ceilings: Mapping[str, float] = field(default_factory=dict)
    build_environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def controller_dir(self) -> Path:
        """Return the folder that only the controller may read."""
        return self.home / "controller"

    @property
    def database(self) -> Path:
        """Return the file of the durable store."""
        return self.controller_dir / "crank.db"

    @property
    def authority_dir(self) -> Path:
        """Return the folder of the certificate authority."""
        return self.controller_dir / "authority"

    @property
    def mounts_register(self) -> Path:
        """Return the file that tells this machine's launcher which folders jobs may see."""
        return self.controller_dir / "mounts.json"

    @property
    def worker_dir(self) -> Path:
        """Return the folder of this node's own worker."""
        return self.home / "worker" / self.worker_name

    @property
    def identity_dir(self) -> Path:
        """Return the folder of that worker's key and certificates."""
        return self.worker_dir / "identity"

    @property
    def run_dir(self) -> Path:
        """Return the folder of what is true only while the node runs."""
        return self.home / "run"

    @property
    def node_file(self) -> Path:
        """Return the file that tells where the running node listens."""
        return self.run_dir / "node.json"

    @property
    def lock_file(self) -> Path:
        """Return the file whose lock the running node holds."""
        return self.run_dir / "node.lock"

    @property
    def logs_dir(self) -> Path:
        """Return the folder of the logs."""
        return self.home / "logs"

    @property
    def token_file(self) -> Path:
        """Return the file of the local caller's secret."""
        return self.home / "token"

    @property
    def api_ca_file(self) -> Path:
        """Return the certificate that proves the API's own."""
        return self.home / "api-ca.pem"


class _Mistake(Exception):
    """Why one value cannot be used; collected, never shown alone."""

    def __init__(self, cause: str, fix: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.fix = fix


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _Mistake("must be a text that is not empty", "Write a text.")
    return value.strip()


def _any_text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Mistake("must be a text", "Write a text.")
    return value


def _path(value: Any) -> Path:
    path = Path(_text(value)).expanduser()
    if not path.is_absolute():
        raise _Mistake(f"{str(value)!r} is not an absolute path", "Write the path from the root: /…")
    return path


def _number(value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _Mistake("must be a number", f"Write a number from {low:g} to {high:g}.")
    try:
        number = float(value)
    except ValueError:
        raise _Mistake(f"{value!r} is not a number", f"Write a number from {low:g} to {high:g}.") from None
    if not low <= number <= high:
        raise _Mistake(f"{value} is out of range", f"Write a number from {low:g} to {high:g}.")
    return number


def _seconds(low: float, high: float) -> Callable[[Any], float]:
    return lambda value: _number(value, low, high)


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        number = _number(value, low, high)
        if number != int(number):
            raise _Mistake(f"{value} is not a whole number", f"Write a whole number from {low} to {high}.")
        return int(number)

    return read


def _label(value: Any) -> str:
    try:
        return parse_name(_text(value), field="worker_name")
    except InvalidRequest as fault:
        raise _Mistake(fault.message, "Choose a name such as main.") from None


def _host_names(value: Any) -> str:
    names = [name.strip().lower() for name in _any_text(value).split(",") if name.strip()]
    for name in names:
        if not _HOST_NAME.fullmatch(name):
            raise _Mistake(f"{name!r} is not a host name", "Write names without port or scheme, with commas between.")
    return ",".join(names)


def _domain(value: Any) -> str:
    try:
        return parse_trust_domain(_text(value))
    except InvalidRequest as fault:
        raise _Mistake(fault.message, "Choose a name such as crank.internal.") from None


def _tier(value: Any) -> Tier:
    try:
        return parse_tier(_text(value))
    except InvalidRequest as fault:
        raise _Mistake(fault.message, fault.fix) from None


# `limit_memory_bytes`, CRANK_LIMIT_MEMORY_BYTES: what no profile may pass on this machine.
_LIMIT = "limit_"
_CEILINGS: Mapping[str, Callable[[Any], float]] = {
    f"{_LIMIT}{name}": _seconds(low, high) if name.endswith("_sec") else _whole(int(low), int(high))
    for name, (low, high) in LIMIT_RANGES.items()
}
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "bind": _text,
    "api_names": _host_names,
    "api_port": _whole(0, PORT_MAX),
    "workers_port": _whole(0, PORT_MAX),
    "profiles_source": _path,
    "profiles_builds": _path,
    "worker_name": _label,
    "worker_slots": _whole(1, SLOTS_MAX),
    "trust_domain": _domain,
    "queued_max": _whole(1, 1_000_000),
    "blobs_quota_bytes": _whole(1024 * 1024, 1024 * 1024 * GIB),
    "retention_sec": _seconds(60, 10 * 365 * 86_400),
    "drain_sec": _seconds(0, 86_400),
    "worker_sessions": _whole(0, SLOTS_MAX),
    "worker_sessions_bytes": _whole(32 * MIB, 1024 * GIB),
    "sessions_max": _whole(0, 10_000),
    "session_idle_sec": _seconds(SESSION_SEC_MIN, 86_400),
    "session_idle_sec_max": _seconds(SESSION_SEC_MIN, 86_400),
    "session_lifetime_sec": _seconds(SESSION_SEC_MIN, 30 * 86_400),
    "session_lifetime_sec_max": _seconds(SESSION_SEC_MIN, 30 * 86_400),
    "sandbox_tier": _tier,
    "failpoints": _any_text,
    **_CEILINGS,
}


def load(flags: Mapping[str, Any] | None = None, *, environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings that hold now. Raises ConfigurationError that lists every mistake.

    flags        what the command line said; a None in it means that it said nothing
    environment  the process's own unless a test gives another
    """
    seen = os.environ if environment is None else environment
    said = {name: value for name, value in (flags or {}).items() if value is not None}
    problems: list[Problem] = []
    home = _find_home(said, seen, problems)
    values = _defaults(home)
    layers = (
        _file_layer(home / FILE_NAME, problems),
        _environment_layer(seen, problems),
        [(f"--{name.replace('_', '-')}", name, value) for name, value in said.items() if name != "home"],
    )
    for layer in layers:
        for origin, name, value in layer:
            try:
                values[name] = _READERS[name](value)
            except _Mistake as mistake:
                problems.append(Problem(field=origin, cause=mistake.cause, fix=mistake.fix))
    if 0 != values["api_port"] == values["workers_port"]:
        problems.append(
            Problem("workers_port", "is the same as api_port", "Choose two ports, or 0 to take any free one.")
        )
    if problems:
        count = "one mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        raise ConfigurationError(f"The settings have {count}.", problems=problems)
    ceilings = {name.removeprefix(_LIMIT): values.pop(name) for name in _CEILINGS if name in values}
    return Settings(home=home, build_environment=_build_environment(seen), ceilings=ceilings, **values)


def _find_home(said: Mapping[str, Any], seen: Mapping[str, str], problems: list[Problem]) -> Path:
    for origin, value in (("--home", said.get("home")), (f"{PREFIX}HOME", seen.get(f"{PREFIX}HOME") or None)):
        if value is None:
            continue
        # A relative home is meant from where the caller stands; it must not move with a later chdir.
        try:
            return Path(_text(str(value))).expanduser().absolute()
        except (_Mistake, RuntimeError) as mistake:
            problems.append(Problem(field=origin, cause=str(mistake), fix="Name a folder."))
    return platformdirs.user_data_path("crank", appauthor=False)


def _defaults(home: Path) -> dict[str, Any]:
    return {
        "bind": "127.0.0.1",
        "api_names": "",
        "api_port": 7443,
        "workers_port": 7444,
        "profiles_source": profiles_source(),
        "profiles_builds": home / "profiles",
        "worker_name": "main",
        "worker_slots": max(2, os.cpu_count() or 2),
        "trust_domain": "crank.internal",
        "queued_max": 10_000,
        "blobs_quota_bytes": 20 * GIB,
        "retention_sec": 7 * 86_400.0,
        "worker_sessions": 8,
        "worker_sessions_bytes": 8 * GIB,
        "sessions_max": 64,
        "session_idle_sec": 600.0,
        "session_idle_sec_max": 86_400.0,
        "session_lifetime_sec": 3600.0,
        "session_lifetime_sec_max": 7 * 86_400.0,
        "drain_sec": 30.0,
        "sandbox_tier": TIER_DEFAULT,
        "failpoints": "",
    }


def profiles_source() -> Path:
    """Return the folder of profile files: inside an installed package, else in the checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "_profiles"
    return installed if installed.is_dir() else package.parents[1] / "profiles"


def _file_layer(path: Path, problems: list[Problem]) -> list[tuple[str, str, Any]]:
    try:
        parsed = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return []
    except OSError as fault:
        problems.append(Problem(str(path), f"cannot be read: {fault.strerror}", "Make it readable, or remove it."))
        return []
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        problems.append(Problem(str(path), f"is not TOML: {fault}", "Correct that line."))
        return []
    layer = []
    for name, value in parsed.items():
        if name in _READERS:
            layer.append((f"{path.name}: {name}", name, value))
        else:
            problems.append(Problem(f"{path.name}: {name}", "is not a setting", _did_you_mean(name, _READERS)))
    return layer


def _environment_layer(seen: Mapping[str, str], problems: list[Problem]) -> list[tuple[str, str, Any]]:
    known = {f"{PREFIX}{name.upper()}": name for name in _READERS}
    layer = []
    for variable in sorted(seen):
        if not variable.startswith(PREFIX) or variable == f"{PREFIX}HOME":
            continue
        if variable in known:
            # An empty variable is how a shell says "not set".
            if seen[variable] != "":
                layer.append((variable, known[variable], seen[variable]))
        elif difflib.get_close_matches(variable, [*known, f"{PREFIX}HOME"], n=1, cutoff=0.85):
            # Other programs may own a CRANK_ name; only what looks like a slip is a mistake.
            fix = _did_you_mean(variable, [*known, f"{PREFIX}HOME"])
            problems.append(Problem(variable, "is not a setting", fix))
    return layer


def _did_you_mean(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean {close[0]}?" if close else f"Known settings: {', '.join(sorted(known))}."


def _build_environment(seen: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in seen.items() if name in _BUILD_VARIABLES or name.startswith(_BUILD_PREFIXES)}


# glibc: what is large goes back to the system when it is freed, and threads share two heaps (mallopt(3)). A
# worker hands on megabytes of output for each of many jobs, and would otherwise keep what it once needed.
_ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "1048576", "MALLOC_ARENA_MAX": "2"}


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a process of this node: the same settings, said in full.

    The environment is stronger than the file, so flags survive and a later edit changes nothing.
    """
    mine = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    said = {
        f"{PREFIX}{entry.name.upper()}": str(getattr(settings, entry.name))
        for entry in fields(settings)
        if entry.name not in ("build_environment", "ceilings")
    }
    ceilings = {f"{PREFIX}{_LIMIT}{name}".upper(): repr(value) for name, value in settings.ceilings.items()}
    return {**_ALLOCATION, **mine, **said, **ceilings, "PYTHONUNBUFFERED": "1"}


def interpreter() -> str:
    """Return the path of the Python that runs this program."""
    return sys.executable
