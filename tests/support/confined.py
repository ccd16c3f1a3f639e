"""A process that shuts itself in as a worker does, and then tells what it can still do."""

import json
import os
import stat
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
# An ordinary user that this machine need not know.
USER_ID = 54321
DEADLINE_SEC = 60

_PRELUDE = """
import json, os, socket, sys
from dataclasses import replace
from pathlib import Path
from crank.bootstrap import confinement
from crank.config import load
from crank.sandbox import confine, confine_proof
from crank.sandbox.confine import View, abilities

settings = load()
port = int(sys.argv[1])
able = abilities()
if sys.argv[2] == "landlock":
    able = replace(able, namespaces=False)

def attempt(work):
    try:
        return repr(work())
    except OSError as fault:
        return "refused: " + type(fault).__name__

told = {}
"""


def _others_may_run(program: Path) -> bool:
    real = program.resolve()
    chain = [program, *program.parents, real, *real.parents]
    return all(path.stat().st_mode & stat.S_IXOTH for path in chain)


def python_for_others() -> str | None:
    """Return a Python of this version that another user may start, if there is one."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [Path(sys.executable), Path(sys.executable).resolve(), Path("/usr/bin") / version]
    return next((str(path) for path in candidates if path.exists() and _others_may_run(path)), None)


@dataclass(frozen=True, slots=True)
class Way:
    """Who starts the worker: `root` or `user`; `landlock` is a user to whom namespaces are not allowed."""

    name: str

    def prepare(self, home: Path) -> list[str]:
        """Make a node's home of this way's owner, with secrets in it; return the command of its Python."""
        for path, text in (
            ("controller/crank.db", "database"),
            ("controller/authority/ca.key", "key"),
            ("token", "token"),
            ("worker/main/identity/key.pem", "own key"),
            ("worker/main/identity/cert.pem", "own certificate"),
            ("worker/main/identity/ca.pem", "authority"),
            ("../beside", "somebody's"),
        ):
            (home / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            (home / path).write_text(text)
            (home / path).chmod(0o600)
        if self.name == "root":
            if os.geteuid() != 0:
                pytest.skip("needs root: a worker gets an account of its own only then")
            return [sys.executable]
        if os.geteuid() != 0:
            return [sys.executable]
        python = python_for_others()
        if python is None or not _others_may_run(REPO):
            pytest.skip("there is no Python here that an ordinary user may start")
        for folder, _, files in os.walk(home.parent):
            for path in (folder, *(os.path.join(folder, file) for file in files)):
                os.chown(path, USER_ID, USER_ID)
        return ["setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups", python]

    def run(self, script: str, *, port: int = 1, arguments: tuple[str, ...] = ()) -> dict[str, Any]:
        """Run a script after the prelude, in a home of its own; it fills `told`. Returns that."""
        # Not pytest's folder: that is closed to other users.
        with tempfile.TemporaryDirectory(prefix="crank-confined-") as folder:
            return self._run(Path(folder).resolve() / "home", script, port, arguments)

    def _run(self, home: Path, script: str, port: int, arguments: tuple[str, ...]) -> dict[str, Any]:
        command = self.prepare(home)
        site = sysconfig.get_path("purelib")
        environment = {
            "CRANK_HOME": str(home),
            "HOME": str(home.parent),
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join([str(Path(sys.modules["crank"].__file__ or "").parents[1]), site]),
        }
        program = f"{_PRELUDE}\n{script}\nsys.stdout.write(json.dumps(told))"
        done = subprocess.run(
            [*command, "-c", program, str(port), self.name, *arguments],
            env=environment, capture_output=True, text=True, timeout=DEADLINE_SEC, cwd="/", check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


WAYS = [Way("root"), Way("user"), Way("landlock")]
