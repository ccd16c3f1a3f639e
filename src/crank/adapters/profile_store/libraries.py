"""Finds the shared libraries that files in a root need from the host, and copies them in.

The root has no loader cache and no /etc, so every library goes into the one folder where the copied
loader always looks: the folder of its own libc. Paths below: ld.so(8).
"""

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from crank.errors import ProfileError

_FOUND = re.compile(r"^\s+(\S+) => (/\S.*?) \(0x[0-9a-f]+\)$")
_LOADER = re.compile(r"^\s+(/\S+) \(0x[0-9a-f]+\)$")
_MISSING = re.compile(r"^\s+(\S+) => not found$")
_LIBC = "libc.so.6"
# What a library opens by name at run time, so that no file lists it as needed: glibc when a thread is
# cancelled, the CUDA driver when it compiles. They lie beside the library that opens them.
_OPENED_BY_NAME = {
    _LIBC: ("libgcc_s.so.1",),
    "libcuda.so.1": ("libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1"),
}
_DRIVER = Path("/proc/driver/nvidia/version")
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Closure:
    """Where the libraries of a root lie.

    loader   the dynamic loader inside the root
    folder   the folder inside the root that it searches
    missing  libraries that something asks for and this host does not have (a driver, an option)
    """

    loader: Path
    folder: Path
    missing: tuple[str, ...]


def parse_ldd(text: str) -> tuple[dict[str, Path], dict[str, None]]:
    """Split the output of ldd(1) into {library or loader: its file} and the names not found."""
    found: dict[str, Path] = {}
    missing: dict[str, None] = {}
    for line in text.splitlines():
        if match := _FOUND.match(line):
            found.setdefault(match[1], Path(match[2]))
        elif match := _LOADER.match(line):
            found.setdefault(match[1], Path(match[1]))
        elif match := _MISSING.match(line):
            missing[match[1]] = None
    return found, missing


def elf_files(folder: Path) -> list[Path]:
    """Return every program and shared library (ELF) below a folder, links left out."""
    return [path for path in sorted(folder.rglob("*")) if _may_load(path) and is_elf(path)]


def is_elf(path: Path) -> bool:
    """Tell whether a file begins as an ELF file does."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def driver_identity(version_file: Path = _DRIVER) -> str:
    """Return what the NVIDIA driver says it is, or an empty text without one.

    A GPU build holds a copy of the driver's user-space half, which works with this driver only.
    """
    try:
        return version_file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def copy_libraries(rootfs: Path) -> Closure:
    """Copy into the root every host library that its programs and libraries need. Raises ProfileError."""
    found, missing = _ask_ldd(elf_files(rootfs))
    loaders = [name for name in found if name.startswith("/")]
    if _LIBC not in found or len(loaders) != 1:
        raise ProfileError(
            "This interpreter does not use glibc's dynamic loader.",
            code="unsupported_libc",
            fix="Use a Python for glibc (Debian, Ubuntu, Fedora and most others).",
            detail=f"loaders: {loaders}",
        )
    for opener, names in _OPENED_BY_NAME.items():
        for name in names if opener in found else ():
            beside = found[opener].parent / name
            if beside.exists():
                found.setdefault(name, beside)
    _make_merged_usr(rootfs)
    folder = _inside(rootfs, found[_LIBC].parent)
    loader = _inside(rootfs, Path(loaders[0]))
    _copy(found.pop(loaders[0]), loader)
    for name, path in sorted(found.items()):
        if not path.resolve().is_relative_to(rootfs.resolve()):
            _copy(path, folder / name)
    return Closure(loader=loader, folder=folder, missing=tuple(sorted(set(missing) - set(found))))


def _may_load(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    return ".so" in path.name or bool(path.stat().st_mode & 0o111)


def _ask_ldd(files: Iterable[Path]) -> tuple[dict[str, Path], dict[str, None]]:
    found: dict[str, Path] = {}
    missing: dict[str, None] = {}
    remaining = [str(path) for path in files]
    while remaining:
        batch, remaining = remaining[:_BATCH], remaining[_BATCH:]
        # ldd ends with 1 as soon as one file is static, so its exit status says nothing.
        answer = subprocess.run(
            ["ldd", *batch],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C"},
        )
        more, absent = parse_ldd(answer.stdout)
        found = {**more, **found}
        missing.update(absent)
    return found, missing


def _make_merged_usr(rootfs: Path) -> None:
    for name in ("bin", "lib", "lib64"):
        (rootfs / "usr" / name).mkdir(parents=True, exist_ok=True)
        link = rootfs / name
        if not link.is_symlink():
            link.symlink_to(f"usr/{name}")


def _inside(rootfs: Path, host_path: Path) -> Path:
    """Return where a host path lies in the root, without the links /lib and /lib64."""
    parts = host_path.parts[1:]
    if parts[0] == "usr":
        parts = parts[1:]
    return rootfs.joinpath("usr", *parts)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)
