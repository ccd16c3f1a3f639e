"""Copies the interpreter into the root, because the host's may lie where a sandbox cannot look.

A Python of pyenv or conda lives in a private home, Debian's spreads over /usr; both become
`/opt/python`, with a standard library that holds no installer, no tests and no graphics.
"""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from crank.errors import ProfileError

PYTHON_HOME = "opt/python"
SITE = "opt/site"

# Left out: installers (a job installs nothing), tests, what needs a screen, and static libraries.
_LEFT_OUT = {
    "EXTERNALLY-MANAGED",
    "ctypes/test",
    "dist-packages",
    "distutils/tests",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "site-packages",
    "sitecustomize.py",
    "test",
    "tkinter",
    "turtle.py",
    "turtledemo",
    "unittest/test",
    "usercustomize.py",
    "venv",
}
_LEFT_OUT_STARTS = (
    "config-",
    "lib-dynload/_tkinter",
    "lib-dynload/_test",
    "lib-dynload/_ctypes_test",
    "lib-dynload/xx",
)

_QUESTION = """
import json, os, platform, sys, sysconfig
print(json.dumps({
    "version": platform.python_version(),
    "build": sys.version,
    "machine": platform.machine(),
    "executable": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "base_prefix": sys.base_prefix,
    "lib_folder": sys.platlibdir,
    "stdlib": sysconfig.get_path("stdlib"),
    "platstdlib": os.path.join(sys.base_exec_prefix, sys.platlibdir, os.path.basename(sysconfig.get_path("stdlib"))),
}))
"""

# Everything a profile promises of the standard library and that hangs on a shared library.
_PROOF = """
import bz2, ctypes, decimal, hashlib, lzma, select, socket, sqlite3, ssl, sys, uuid, zlib, zoneinfo
ssl.create_default_context()
sqlite3.connect(":memory:").execute("select 1")
assert ctypes.CDLL(None).getpid() > 0
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """One CPython on this host.

    version     `3.11.7`
    build       `sys.version`: two builds of one version differ here
    executable  the real file, not the link of a virtual environment
    lib_folder  `lib`, or `lib64` where the interpreter was made so; it looks for its library there
    """

    version: str
    build: str
    machine: str
    executable: Path
    base_prefix: Path
    lib_folder: str
    stdlib: Path
    platstdlib: Path

    @property
    def feature(self) -> str:
        """Return the feature version, `3.11`."""
        return ".".join(self.version.split(".")[:2])

    @property
    def identity(self) -> str:
        """Return the text that stands for this interpreter in a digest."""
        return f"{self.build} {self.machine} {self.base_prefix}"


def ask(python: Path) -> Interpreter:
    """Ask an interpreter, of a virtual environment or not, what it is based on. Raises ProfileError."""
    try:
        answer = subprocess.run(
            [str(python), "-I", "-c", _QUESTION], capture_output=True, text=True, check=True, timeout=60, env={}
        )
        told = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as fault:
        raise ProfileError(
            f"The interpreter {python.name} does not run.",
            code="no_interpreter",
            fix="Make the virtual environment anew with 'make setup'.",
            detail=str(fault),
        ) from fault
    return Interpreter(
        version=str(told["version"]),
        build=str(told["build"]),
        machine=str(told["machine"]),
        executable=Path(told["executable"]),
        base_prefix=Path(told["base_prefix"]),
        lib_folder=str(told["lib_folder"]),
        stdlib=Path(told["stdlib"]),
        platstdlib=Path(told["platstdlib"]),
    )


def copy_interpreter(source: Interpreter, rootfs: Path) -> Path:
    """Copy the executable and its standard library below `rootfs`; return the copied executable.

    Byte code is left out: it would name the host's paths, and is made afresh at the end of a build.
    """
    home = rootfs / PYTHON_HOME
    executable = home / "bin" / f"python{source.feature}"
    executable.parent.mkdir(parents=True)
    shutil.copyfile(source.executable, executable)
    executable.chmod(0o755)
    library = home / source.lib_folder / f"python{source.feature}"
    for folder in dict.fromkeys((source.stdlib, source.platstdlib)):
        if folder.is_dir():
            _copy_library(folder, library)
    _hide_host_paths(library, source.base_prefix)
    return executable


def prove_interpreter(rootfs: Path, executable: Path, loader: Path, libraries: Path) -> None:
    """Start the copy through its own loader with its own libraries only. Raises ProfileError.

    `loader` and `libraries` lie in the root. This is the cheap proof at build time; the self tests of
    the profile prove the same inside the sandbox.
    """
    environment = {"PYTHONHOME": str(rootfs / PYTHON_HOME), "PYTHONPATH": str(rootfs / SITE)}
    command = [str(loader), "--inhibit-cache", "--library-path", str(libraries), str(executable)]
    answer = subprocess.run(
        [*command, "-B", "-c", _PROOF], capture_output=True, text=True, check=False, timeout=120, env=environment
    )
    if answer.returncode != 0:
        last = answer.stderr.strip().splitlines()[-1:] or [f"exit status {answer.returncode}"]
        raise ProfileError(
            f"The copied interpreter does not start: {last[0]}.",
            code="interpreter_incomplete",
            fix="Use an interpreter that has ssl, sqlite3, ctypes, lzma and bz2 (on Debian: the package python3).",
            detail=answer.stderr,
        )


def compile_all(python: Path, rootfs: Path) -> None:
    """Make byte code for everything in the root, so that imports from a read-only root are fast.

    The files are never changed after a build, so they are not looked at again (`unchecked-hash`,
    PEP 552). A package may carry a template that is not valid Python, which compileall reports with
    its exit status; importing such a file fails in any environment, so it does not fail the build.
    """
    command = [str(python), "-I", "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    command += ["-s", str(rootfs), "-p", "/", str(rootfs / PYTHON_HOME), str(rootfs / SITE)]
    subprocess.run(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        env={},
    )


def _copy_library(source: Path, target: Path) -> None:
    def left_out(folder: str, names: list[str]) -> list[str]:
        below = Path(folder).relative_to(source)
        skipped = []
        for name in names:
            path = (below / name).as_posix()
            if name == "__pycache__" or path in _LEFT_OUT or path.startswith(_LEFT_OUT_STARTS):
                skipped.append(name)
        return skipped

    shutil.copytree(
        source,
        target,
        ignore=left_out,
        copy_function=shutil.copyfile,
        ignore_dangling_symlinks=True,
        dirs_exist_ok=True,
    )


def _hide_host_paths(library: Path, base_prefix: Path) -> None:
    """Make sysconfig name the copy's home where it named a private home of the host."""
    if base_prefix == Path("/usr"):
        return
    for path in library.glob("_sysconfigdata_*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(str(base_prefix), f"/{PYTHON_HOME}"), encoding="utf-8")
