"""The profiles of this machine: which there are, which are built, and the building of one.

A build gets a folder named by its content and appears by one rename, so that whoever looks sees a
complete build or none, and a node that runs on an older build is not disturbed by a newer one.
"""

import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from crank.adapters.profile_store import host_programs, interpreter, libraries, packages, source
from crank.domain.ids import Digest
from crank.domain.json import JsonObject
from crank.domain.profile import Profile
from crank.errors import ProfileError
from crank.ports import Clock, ProfileBuild

RECORD = "build.json"
ROOT = "rootfs"

# The sandbox mounts over these; a read-only root cannot grow them later.
_MOUNT_POINTS = ("dev", "etc", "in", "out", "proc", "run", "scratch", "tmp")
# The newest build and the one before it, which a running node may still use.
_BUILDS_KEPT = 2

Say = Callable[[str], None]


class ProfileStore:
    """Reads profiles from one folder and keeps their builds in another. Every method blocks."""

    def __init__(
        self, source_dir: Path, builds_dir: Path, pip_env: Mapping[str, str], python: Path, clock: Clock
    ) -> None:
        """Take the folders and the interpreter; nothing is read or made yet.

        pip_env  everything pip may know of its surroundings: PIP_*, PATH, HOME, proxies, certificates
        python   an interpreter that has pip; its base interpreter is what jobs get a copy of
        """
        self._source_dir = source_dir.absolute()
        self._builds_dir = builds_dir.absolute()
        self._pip_env = dict(pip_env)
        self._python = python
        self._clock = clock
        self._asked: interpreter.Interpreter | None = None

    def names(self) -> tuple[str, ...]:
        """Return the names of all profiles that this store can read, in order."""
        return source.profile_names(self._source_dir)

    def load(self, name: str) -> Profile:
        """Read a profile. Raises NotFound for an unknown name, ProfileError for a file with mistakes."""
        return source.read_profile(self._source_dir, name)

    def find(self, name: str, accelerator: str) -> ProfileBuild | None:
        """Return the build that fits the profile, its lock and the interpreter as they are now, if any.

        Raises what `load` raises, and ProfileError for a variant the profile does not have.
        """
        profile = self.load(name)
        lock = source.read_lock(self._source_dir, profile, accelerator)
        content = self._content(profile, lock, accelerator)
        return self._found(profile, content, accelerator)

    def record(self, build: ProfileBuild) -> JsonObject:
        """Return what was noted when a build was made: versions installed, size, seconds, time."""
        record = _read_record(build.rootfs.parent)
        if record is None:
            raise ProfileError(f"The build of {build.profile.name} is gone.", fix="Build it again.")
        return record

    def build(self, name: str, accelerator: str, say: Say) -> ProfileBuild:
        """Build a profile, or return the build that is there already.

        A second process that builds the same waits for the first. `say` gets one line for each step.
        Raises ProfileError with cause and fix; then nothing of the attempt is left.
        """
        profile = self.load(name)
        lock = source.read_lock(self._source_dir, profile, accelerator)
        content = self._content(profile, lock, accelerator)
        variant = f"{name}-{accelerator}"
        with _disk_faults(self._builds_dir):
            self._builds_dir.mkdir(parents=True, exist_ok=True)
            with _only_one(self._builds_dir / f"{variant}.lock", say):
                found = self._found(profile, content, accelerator)
                if found is not None:
                    return found
                self._sweep(variant)
                self._make(profile, lock, accelerator, content, say)
                self._forget_old(variant, content)
        built = self._found(profile, content, accelerator)
        if built is None:
            raise ProfileError(f"The build of {name} vanished while it was made.", fix="Build it again.")
        return built

    def remove(self, name: str, accelerator: str) -> bool:
        """Remove every build of a variant; tell whether there was one. No node may be using it."""
        variant = f"{name}-{accelerator}"
        if not self._builds_dir.is_dir():
            return False
        with _disk_faults(self._builds_dir), _only_one(self._builds_dir / f"{variant}.lock", lambda _line: None):
            builds = self._builds_of(variant)
            for folder in builds:
                shutil.rmtree(folder)
            self._sweep(variant)
        return bool(builds)

    def _interpreter(self) -> interpreter.Interpreter:
        if self._asked is None:
            self._asked = interpreter.ask(self._python)
        return self._asked

    def _content(self, profile: Profile, lock: source.Lock, accelerator: str) -> Digest:
        python = self._interpreter()
        if python.feature != profile.python:
            raise ProfileError(
                f"{profile.name} needs Python {profile.python}, but this is Python {python.version}.",
                code="wrong_python",
                field="python",
                fix=f"Set Crank up with Python {profile.python}.",
            )
        driver = libraries.driver_identity() if accelerator == "gpu" else ""
        tools = host_programs.identity(host_programs.find(profile.host_programs))
        return source.content_digest(profile, lock, accelerator=accelerator, interpreter=python.identity + driver + tools)

    def _folder(self, variant: str, content: Digest) -> Path:
        return self._builds_dir / f"{variant}-{content[:16]}"

    def _found(self, profile: Profile, content: Digest, accelerator: str) -> ProfileBuild | None:
        folder = self._folder(f"{profile.name}-{accelerator}", content)
        record = _read_record(folder)
        if record is None or record.get("digest") != content:
            return None
        return ProfileBuild(
            profile=profile,
            rootfs=folder / ROOT,
            python=f"/{interpreter.PYTHON_HOME}/bin/python{profile.python}",
            site=f"/{interpreter.SITE}",
            digest=source.promise_digest(profile, content),
            accelerator=accelerator,
        )

    def _make(self, profile: Profile, lock: source.Lock, accelerator: str, content: Digest, say: Say) -> None:
        started_sec = self._clock.monotonic_sec()
        variant = f"{profile.name}-{accelerator}"
        staging = Path(tempfile.mkdtemp(prefix=f"{variant}.making-", dir=self._builds_dir))
        try:
            record = self._fill(staging, profile, lock, accelerator, say)
            record["digest"] = content
            record["built_sec"] = round(self._clock.monotonic_sec() - started_sec, 1)
            record["created_us"] = self._clock.now_us()
            (staging / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            staging.chmod(0o755)
            # The rename must not become durable before what it names.
            os.sync()
            target = self._folder(variant, content)
            shutil.rmtree(target, ignore_errors=True)
            staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        say(f"{profile.name}: ready, {record['size_bytes'] / 2**20:.0f} MiB in {record['built_sec']:.0f} s")

    def _fill(self, staging: Path, profile: Profile, lock: source.Lock, accelerator: str, say: Say) -> JsonObject:
        """Make the whole root below `staging` and return what is to be recorded of it."""
        rootfs = staging / ROOT
        scratch = staging / "pip-scratch"
        scratch.mkdir()
        python = self._interpreter()
        for name in _MOUNT_POINTS:
            (rootfs / name).mkdir(parents=True)
        (rootfs / "var").mkdir()
        (rootfs / "var" / "tmp").symlink_to("../tmp")
        say(f"{profile.name}: copying Python {python.version}")
        executable = interpreter.copy_interpreter(python, rootfs)
        say(f"{profile.name}: installing {len(lock.pins)} packages")
        installed = packages.install(
            self._python,
            lock,
            rootfs,
            # pip unpacks there and then renames; another disk, or a small /tmp, would make it copy or fail.
            environment={**self._pip_env, "TMPDIR": str(scratch)},
            say=lambda line: say(f"{profile.name}: {line}"),
        )
        shutil.rmtree(scratch)
        packages.check_torch(rootfs, accelerator)
        packages.place_programs(rootfs, [name for name in profile.programs if name not in profile.host_programs])
        host_programs.place(host_programs.find(profile.host_programs), rootfs, executable)
        if profile.home:
            host_programs.make_home(rootfs, profile.home)
        say(f"{profile.name}: collecting shared libraries")
        closure = libraries.copy_libraries(rootfs)
        say(f"{profile.name}: compiling byte code")
        interpreter.compile_all(self._python, rootfs)
        _make_readable(rootfs)
        interpreter.prove_interpreter(rootfs, executable, closure.loader, closure.folder)
        return {
            "schema": 1,
            "profile": profile.name,
            "profile_version": profile.version,
            "accelerator": accelerator,
            "python": python.version,
            "python_build": python.build,
            "packages": installed,
            "programs": list(profile.programs),
            "missing_libraries": list(closure.missing),
            "size_bytes": _size_bytes(rootfs),
        }

    def _builds_of(self, variant: str) -> list[Path]:
        """Return the finished builds of a variant, newest first."""
        folders = [path for path in self._builds_dir.glob(f"{variant}-*") if (path / RECORD).is_file()]
        return sorted(folders, key=lambda path: (path / RECORD).stat().st_mtime, reverse=True)

    def _forget_old(self, variant: str, content: Digest) -> None:
        others = [path for path in self._builds_of(variant) if path != self._folder(variant, content)]
        for folder in others[_BUILDS_KEPT - 1 :]:
            shutil.rmtree(folder)

    def _sweep(self, variant: str) -> None:
        """Remove what killed builds left; the caller holds the lock, so none of it is in use."""
        for leftover in self._builds_dir.glob(f"{variant}.making-*"):
            shutil.rmtree(leftover)


def _read_record(folder: Path) -> JsonObject | None:
    try:
        record: JsonObject = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # No record, or one that a damaged disk cut short: either way there is no build to use.
        return None
    return record


@contextmanager
def _only_one(lock_file: Path, say: Say) -> Iterator[None]:
    """Hold a lock that the kernel frees when this process dies, however it dies."""
    with lock_file.open("w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting: another process is building this profile")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _disk_faults(builds_dir: Path) -> Iterator[None]:
    """Turn what the operating system refuses into a fault with a cause and a fix."""
    try:
        yield
    except OSError as fault:
        full = fault.errno in (errno.ENOSPC, errno.EDQUOT)
        cause = "the disk is full" if full else (fault.strerror or str(fault))
        raise ProfileError(
            f"The profile cannot be built: {cause}.",
            code="disk_full" if full else "build_failed",
            fix="Free some space." if full else f"Make {builds_dir.name}/ in Crank's home writable and readable.",
            detail=str(fault),
        ) from fault


def _make_readable(rootfs: Path) -> None:
    """Give every account the right to read, and nobody more: 0644, 0755, no set-user-id bits."""
    for folder, _names, files in os.walk(rootfs):
        Path(folder).chmod(0o755)
        for name in files:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode):
                Path(path).chmod(0o755 if mode & 0o111 else 0o644)


def _size_bytes(rootfs: Path) -> int:
    return sum(path.lstat().st_size for path in rootfs.rglob("*") if not path.is_dir())
