"""Settings, and the one place that reads the environment.

A value comes from, weakest first: the default, `$CRANK_HOME/crank.toml`, the environment (`CRANK_*`),
a flag. Every mistake is found before any is told, so that nobody corrects a file five times.
"""

import difflib
import os
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import platformdirs

from crank.config.values import (
    LOOPBACK,
    Mistake,
    a_domain,
    a_flag,
    a_label,
    a_level,
    a_path,
    a_text,
    a_tier,
    any_text,
    host_names,
    hosts,
    public_address,
    seconds,
    whole,
)
from crank.domain.isolation import TIER_DEFAULT, Tier
from crank.domain.profile import LIMIT_RANGES
from crank.domain.quantity import GIB, MIB, SESSION_SEC_MIN
from crank.domain.trust import Attestation
from crank.domain.worker import SLOTS_MAX
from crank.errors import ConfigurationError, Problem

PREFIX = "CRANK_"
FILE_NAME = "crank.toml"
PORT_MAX = 65_535
# What an operator chooses from: ten minutes to an hour. Shorter ones are for drills of expiry and are warned of.
LEAF_TTL_SEC_MIN, LEAF_TTL_SEC_USUAL, LEAF_TTL_SEC_MAX = 30.0, 600.0, 3600.0

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
    e2b               whether the node serves the E2B protocol
    e2b_port          where; 0 takes any free port
    e2b_tls           whether that listener speaks TLS, which it must where `bind` is not loopback
    spiffe_socket     Unix socket at which this machine's workloads get identities; run/spiffe.sock in the home unless said
    spiffe_shared     whether every account of this machine may connect to that socket; else the node's own alone
    sandbox_tier      the weakest isolation that jobs may run in: `namespaces`, or `landlock` as well
    attestation_min   the least that a machine must have proved when it joined to run jobs: `none`, `thumbprint` or `join`
    ceilings          by the names of `profile.Limits`: no profile gives a job more than this here
    public_url        address under which others reach the API from outside, `https://crank.example.org`; empty for none
    tls_cert, tls_key  files of a certificate that others trust and its key; shown to those who ask for its name
    actions_file_hosts   hosts that files of GPT Actions may be fetched from, with commas between; none means never
    leaf_ttl_sec      how long an identity lives; it is renewed at half of that
    hsm_module        path of the PKCS#11 library of an HSM for the keys of the authority, access tokens and JWT-SVIDs; without it files
    hsm_token         label of the HSM's token
    hsm_pin_file      file, readable for this user alone, that holds the PIN of the token's user
    biscuit_keys_in_files   whether Biscuits are made beside an HSM, which cannot keep their keys; without one they are anyway
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
    public_url: str
    tls_cert: Path | None
    tls_key: Path | None
    actions_file_hosts: tuple[str, ...]
    failpoints: str
    e2b: bool = False
    e2b_port: int = 7445
    e2b_tls: bool = False
    spiffe_socket: Path | None = None
    spiffe_shared: bool = False
    leaf_ttl_sec: float = LEAF_TTL_SEC_MAX
    hsm_module: Path | None = None
    hsm_token: str = ""
    hsm_pin_file: Path | None = None
    biscuit_keys_in_files: bool = False
    attestation_min: Attestation = Attestation.NONE
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
    def e2b_key_file(self) -> Path:
        """Return the file of the local user's key for the E2B listener."""
        return self.home / "e2b-key"

    @property
    def e2b_secret_file(self) -> Path:
        """Return the file from which sandboxes' access tokens are derived."""
        return self.controller_dir / "e2b-secret"

    @property
    def api_ca_file(self) -> Path:
        """Return the certificate that proves the API's own."""
        return self.home / "api-ca.pem"


# `limit_memory_bytes`, CRANK_LIMIT_MEMORY_BYTES: what no profile may pass on this machine.
_LIMIT = "limit_"
_CEILINGS: Mapping[str, Callable[[Any], float]] = {
    f"{_LIMIT}{name}": seconds(low, high) if name.endswith("_sec") else whole(int(low), int(high))
    for name, (low, high) in LIMIT_RANGES.items()
}
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "bind": a_text,
    "api_names": host_names,
    "api_port": whole(0, PORT_MAX),
    "workers_port": whole(0, PORT_MAX),
    "profiles_source": a_path,
    "profiles_builds": a_path,
    "worker_name": a_label,
    "worker_slots": whole(1, SLOTS_MAX),
    "trust_domain": a_domain,
    "queued_max": whole(1, 1_000_000),
    "blobs_quota_bytes": whole(1024 * 1024, 1024 * 1024 * GIB),
    "retention_sec": seconds(60, 10 * 365 * 86_400),
    "drain_sec": seconds(0, 86_400),
    "worker_sessions": whole(0, SLOTS_MAX),
    "worker_sessions_bytes": whole(32 * MIB, 1024 * GIB),
    "sessions_max": whole(0, 10_000),
    "session_idle_sec": seconds(SESSION_SEC_MIN, 86_400),
    "session_idle_sec_max": seconds(SESSION_SEC_MIN, 86_400),
    "session_lifetime_sec": seconds(SESSION_SEC_MIN, 30 * 86_400),
    "session_lifetime_sec_max": seconds(SESSION_SEC_MIN, 30 * 86_400),
    "sandbox_tier": a_tier,
    "public_url": public_address,
    "tls_cert": a_path,
    "tls_key": a_path,
    "actions_file_hosts": hosts,
    "failpoints": any_text,
    "e2b": a_flag,
    "e2b_port": whole(0, PORT_MAX),
    "e2b_tls": a_flag,
    "spiffe_socket": a_path,
    "spiffe_shared": a_flag,
    "leaf_ttl_sec": seconds(LEAF_TTL_SEC_MIN, LEAF_TTL_SEC_MAX),
    "hsm_module": a_path,
    "hsm_token": a_text,
    "hsm_pin_file": a_path,
    "biscuit_keys_in_files": a_flag,
    "attestation_min": a_level,
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
            except Mistake as mistake:
                problems.append(Problem(field=origin, cause=mistake.cause, fix=mistake.fix))
    if 0 != values["api_port"] == values["workers_port"]:
        problems.append(
            Problem("workers_port", "is the same as api_port", "Choose two ports, or 0 to take any free one.")
        )
    problems += [*_pair_problems(values), *_plain_problems(values), *_socket_problems(values)]
    if problems:
        count = "one mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        raise ConfigurationError(f"The settings have {count}.", problems=problems)
    ceilings = {name.removeprefix(_LIMIT): values.pop(name) for name in _CEILINGS if name in values}
    return Settings(home=home, build_environment=_build_environment(seen), ceilings=ceilings, **values)


def _pair_problems(values: Mapping[str, Any]) -> list[Problem]:
    problems = []
    for names in (("tls_cert", "tls_key"), ("hsm_module", "hsm_token", "hsm_pin_file")):
        missing = [name for name in names if not values[name]]
        if 0 < len(missing) < len(names):
            listed = f"{', '.join(names[:-1])} and {names[-1]}"
            fix = f"Give {'both' if len(names) == 2 else 'all of'} {listed}, or {'neither' if len(names) == 2 else 'none'}."
            problems += [Problem(name, "is missing, and the other is there", fix) for name in missing]
    return problems


def _plain_problems(values: Mapping[str, Any]) -> list[Problem]:
    """A key that travels in the clear belongs to whoever listens on the way."""
    if not values["e2b"] or values["e2b_tls"] or values["bind"] in LOOPBACK:
        return []
    return [
        Problem(
            "e2b_tls", f"must be on where bind is {values['bind']}, which is not loopback", "Set CRANK_E2B_TLS=true."
        )
    ]


def _socket_problems(values: Mapping[str, Any]) -> list[Problem]:
    """The home is its owner's alone, so what lies inside is nobody else's to reach."""
    if not values["spiffe_shared"] or values["spiffe_socket"] is not None:
        return []
    return [
        Problem("spiffe_socket", "is inside the node's home, which others cannot enter", "Set CRANK_SPIFFE_SOCKET to a path in a folder that they can.")
    ]


def _find_home(said: Mapping[str, Any], seen: Mapping[str, str], problems: list[Problem]) -> Path:
    for origin, value in (("--home", said.get("home")), (f"{PREFIX}HOME", seen.get(f"{PREFIX}HOME") or None)):
        if value is None:
            continue
        # A relative home is meant from where the caller stands; it must not move with a later chdir.
        try:
            return Path(a_text(str(value))).expanduser().absolute()
        except (Mistake, RuntimeError) as mistake:
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
        "public_url": "",
        "tls_cert": None,
        "tls_key": None,
        "actions_file_hosts": (),
        "failpoints": "",
        "e2b": False,
        "e2b_port": 7445,
        "e2b_tls": False,
        "spiffe_socket": None,
        "spiffe_shared": False,
        "leaf_ttl_sec": LEAF_TTL_SEC_MAX,
        "hsm_module": None,
        "hsm_token": "",
        "hsm_pin_file": None,
        "biscuit_keys_in_files": False,
        "attestation_min": Attestation.NONE,
    }


def profiles_source() -> Path:
    """Return the folder of profile files: inside an installed package, else in the checkout."""
    package = Path(__file__).resolve().parents[1]
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
        f"{PREFIX}{entry.name.upper()}": _said(getattr(settings, entry.name))
        for entry in fields(settings)
        if entry.name not in ("build_environment", "ceilings")
    }
    ceilings = {f"{PREFIX}{_LIMIT}{name}".upper(): repr(value) for name, value in settings.ceilings.items()}
    return {**_ALLOCATION, **mine, **said, **ceilings, "PYTHONUNBUFFERED": "1"}


def _said(value: Any) -> str:
    """Write a value so that the environment's readers read the same one; an empty text is none."""
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, Attestation):
        return value.label
    return "" if value is None else str(value)


# What a host of agents hands on to the programs that it starts, more or less: nothing of a shell's own settings.
_HOST_VARIABLES = ("PATH", "HOME", "USER", "LANG", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "APPDATA", "SYSTEMROOT")


def host_environment(given: Mapping[str, str], *, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment that a host's server is started with: the person's, without CRANK_ settings, and what is given."""
    seen = os.environ if environment is None else environment
    handed_on = {name: value for name, value in seen.items() if name in _HOST_VARIABLES or name.startswith("XDG_")}
    return {**handed_on, **given}


def host_folders(*, platform: str = sys.platform, environment: Mapping[str, str] | None = None) -> tuple[Path, Path]:
    """Return the person's folder, and the one where the system's programs keep their settings."""
    seen = os.environ if environment is None else environment
    home = Path(seen.get("USERPROFILE" if platform == "win32" else "HOME") or Path.home())
    if platform == "darwin":
        return home, home / "Library" / "Application Support"
    if platform == "win32":
        return home, Path(seen.get("APPDATA") or home / "AppData" / "Roaming")
    said = seen.get("XDG_CONFIG_HOME", "")
    # A relative one is to be ignored (XDG Base Directory).
    return home, Path(said) if said.startswith("/") else home / ".config"


def home_is_default(settings: Settings) -> bool:
    """Tell whether a program without settings would find this home."""
    return settings.home == platformdirs.user_data_path("crank", appauthor=False)


def command_line() -> tuple[str, ...]:
    """Return the command that starts this very program, wherever one stands."""
    script = Path(sys.executable).with_name("crank")
    return (str(script),) if os.access(script, os.X_OK) else (sys.executable, "-m", "crank")


def endpoint_socket(*, environment: Mapping[str, str] | None = None) -> str | None:
    """Return where this process was told to find a Workload API, by the variable of its standard."""
    seen = os.environ if environment is None else environment
    return seen.get("SPIFFE_ENDPOINT_SOCKET") or None


def interpreter() -> str:
    """Return the path of the Python that runs this program."""
    return sys.executable
