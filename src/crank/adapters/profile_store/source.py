"""Reads `profiles/<name>.toml` and its lock of hashed requirements, and names their content.

The lock is checked here and not left to pip: a lock that could name an index, a path or a package
without a hash would let the machine that builds decide what a job gets.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crank.domain.ids import Digest, parse_name
from crank.domain.profile import Profile, parse_profile
from crank.errors import NotFound, ProfileError

# Part of every digest: raise it when the builder lays files out differently, and all is built anew.
LAYOUT_REVISION = 1

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that was read: `pins` maps each normalised distribution name to its one version."""

    path: Path
    content: bytes
    pins: Mapping[str, str]


def normalised(name: str) -> str:
    """Return a distribution's name as PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def profile_names(source_dir: Path) -> tuple[str, ...]:
    """Return the names of the profiles that lie in a folder, in order."""
    return tuple(sorted(path.stem for path in source_dir.glob("*.toml")))


def read_profile(source_dir: Path, name: str) -> Profile:
    """Read one profile. Raises NotFound for an unknown name, ProfileError for a file with mistakes."""
    path = source_dir / f"{parse_name(name, field='profile')}.toml"
    if not path.is_file():
        known = ", ".join(profile_names(source_dir)) or "none"
        raise NotFound(
            f"There is no environment profile {name!r}.",
            code="unknown_profile",
            field="profile",
            fix=f"Use one of: {known}.",
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise ProfileError(f"{path.name} is not TOML: {fault}.", fix=f"Correct {path.name}.") from fault
    profile = parse_profile(table, origin=path.name)
    if profile.name != name:
        raise ProfileError(
            f"{path.name} says that its name is {profile.name!r}.",
            field="name",
            fix=f'Write name = "{name}", or rename the file.',
        )
    return profile


def read_lock(source_dir: Path, profile: Profile, accelerator: str) -> Lock:
    """Read the lock of one variant and check that the profile promises only what it holds.

    Raises ProfileError: no such variant, no such file, or a line that is not `name==version` with hashes.
    """
    relative = profile.locks.get(accelerator)
    if relative is None:
        raise ProfileError(
            f"The profile {profile.name} has no variant for the accelerator {accelerator!r}.",
            code="unknown_variant",
            field="accelerator",
            fix=f"Use one of: {', '.join(sorted(profile.locks))}.",
        )
    path = source_dir / relative
    try:
        content = path.read_bytes()
    except OSError as fault:
        raise ProfileError(
            f"The lock of {profile.name} for {accelerator} cannot be read: {fault.strerror}.",
            fix=f"Restore {relative} beside the profiles.",
            detail=str(path),
        ) from fault
    pins = parse_lock(content.decode("utf-8", errors="replace"), origin=relative)
    _refuse_broken_promises(profile, pins, relative)
    if accelerator == "cpu":
        _refuse_cuda(pins, relative)
    return Lock(path=path, content=content, pins=pins)


def parse_lock(text: str, *, origin: str) -> dict[str, str]:
    """Return name to version of every requirement. Raises ProfileError for any other kind of line."""
    pins: dict[str, str] = {}
    for line in _logical_lines(text):
        words = line.split()
        pin = _PIN.fullmatch(words[0])
        if pin is None or len(words) < 2 or not all(_HASH.fullmatch(word) for word in words[1:]):
            raise ProfileError(
                f"{origin} has a line that is not 'name==version' with SHA-256 hashes: {line[:120]!r}.",
                fix="Make the lock anew; it must hold no options, addresses, markers or paths.",
            )
        name = normalised(pin[1])
        if name in pins:
            raise ProfileError(f"{origin} names {name} twice.", fix="Make the lock anew.")
        pins[name] = pin[2]
    return pins


def content_digest(profile: Profile, lock: Lock, *, accelerator: str, interpreter: str) -> Digest:
    """Name everything that decides what lies in the root folder: packages, programs, lock, interpreter.

    Limits and self tests are left out on purpose: changing a limit must not install torch again.
    """
    return _digest(
        {
            "layout": LAYOUT_REVISION,
            "name": profile.name,
            "python": profile.python,
            "packages": sorted(profile.packages),
            "programs": sorted(profile.programs),
            "lock_sha256": hashlib.sha256(lock.content).hexdigest(),
            "accelerator": accelerator,
            "interpreter": interpreter,
            # Left out while a profile has none, so that what was built before stays valid.
            **({"host_programs": sorted(profile.host_programs)} if profile.host_programs else {}),
            **({"home": profile.home} if profile.home else {}),
        }
    )


def promise_digest(profile: Profile, content: Digest) -> Digest:
    """Name the whole promise: what lies in the root folder, the limits, the preimports and the tests."""
    return _digest(
        {
            "content": content,
            "capability": profile.capability,
            "version": profile.version,
            "summary": profile.summary,
            "preimports": list(profile.preimports),
            "processes": profile.processes,
            "limits": {name: getattr(profile.limits, name) for name in profile.limits.__slots__},
            "self_tests": [[test.name, test.code, test.expect] for test in profile.self_tests],
        }
    )


def _digest(value: object) -> Digest:
    encoded = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return Digest(hashlib.sha256(encoded.encode("ascii")).hexdigest())


def _logical_lines(text: str) -> list[str]:
    """Join continued lines and drop comments, as requirement files have them."""
    bare = [re.sub(r"(^|\s)#.*$", "", line) for line in text.splitlines()]
    joined = re.sub(r"\\[ \t]*\n", " ", "\n".join(bare))
    return [line.strip() for line in joined.splitlines() if line.strip()]


def _refuse_broken_promises(profile: Profile, pins: Mapping[str, str], origin: str) -> None:
    for promise in profile.packages:
        name, _, version = promise.partition("==")
        locked = pins.get(normalised(name))
        if locked is None or (version and version != locked):
            raise ProfileError(
                f"The profile {profile.name} promises {promise}, but {origin} has {locked or 'none of it'}.",
                field="packages",
                fix="Make packages and lock agree; the lock is what gets installed.",
            )


def _refuse_cuda(pins: Mapping[str, str], origin: str) -> None:
    cuda = [name for name in pins if name.startswith(("nvidia-", "cuda-")) or name == "triton"]
    if cuda:
        raise ProfileError(
            f"{origin} is a lock for cpu, but holds {', '.join(cuda)}.",
            code="cuda_in_cpu_lock",
            fix="Lock torch with the hash of its CPU wheel alone.",
        )
