"""Programs that a profile takes from the machine on which it is built: a shell and its small tools.

A package index has no well-kept wheel of bash and coreutils, and every Linux has both. They are copied into the
root like the interpreter, with the libraries that they load, so that a build names nothing outside itself; their
content is part of what a build is named by, so that an update of the machine makes a new build.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from crank.adapters.profile_store.libraries import is_elf
from crank.errors import ProfileError

# Not an account's own folders: what lies there is the machine's.
_PLACES = "/usr/bin:/bin"
# These names mean the profile's own interpreter.
_INTERPRETER = frozenset({"python", "python3"})
# The number of a job inside its sandbox.
_INSIDE_ID = 1000


def find(names: Iterable[str]) -> dict[str, Path]:
    """Return the real file of each program but the interpreter. Raises ProfileError that names those without one."""
    found: dict[str, Path] = {}
    for name in sorted(set(names) - _INTERPRETER):
        path = shutil.which(name, path=_PLACES)
        if path is not None and is_elf(Path(path)):
            found[name] = Path(path).resolve()
    missing = sorted(set(names) - _INTERPRETER - set(found))
    if missing:
        raise ProfileError(
            f"This machine has no program {', '.join(missing)} in {_PLACES}.",
            code="host_program_missing",
            field="host_programs",
            fix="Install it (on Debian: bash, coreutils, diffutils, findutils, gawk or mawk, grep, gzip, sed, tar).",
        )
    return found | {name: Path() for name in names if name in _INTERPRETER}


def identity(found: Mapping[str, Path]) -> str:
    """Return a text that stands for the content of these programs; empty for none."""
    files = {name: path for name, path in found.items() if name not in _INTERPRETER}
    if not files:
        return ""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return f" programs {digest.hexdigest()}"


def place(found: Mapping[str, Path], rootfs: Path, interpreter: Path) -> None:
    """Copy the programs to /usr/bin of the root, and link the interpreter's names there."""
    folder = rootfs / "usr" / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in found.items():
        target = folder / name
        if name in _INTERPRETER:
            target.symlink_to(os.path.relpath(interpreter, folder))
            continue
        shutil.copyfile(path, target)
        target.chmod(0o755)


def make_home(rootfs: Path, home: str) -> None:
    """Make the folder over which a sandbox lays /scratch once more, and the names that belong to it."""
    user = home.rpartition("/")[2]
    (rootfs / home.lstrip("/")).mkdir(parents=True)
    etc = rootfs / "etc"
    (etc / "passwd").write_text(
        "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n"
        f"{user}:x:{_INSIDE_ID}:{_INSIDE_ID}:{user}:{home}:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        "utf-8",
    )
    (etc / "group").write_text(f"root:x:0:\n{user}:x:{_INSIDE_ID}:\nnogroup:x:65534:\n", "utf-8")
