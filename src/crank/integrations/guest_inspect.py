"""What Inspect's sandbox does inside a session: start programs, read and write files, as the job's own account.

Sent as text and run by the session's interpreter, so it imports the standard library alone. Everything goes
through the kernel's own checks in there: what the job may not do, this may not do either.
"""

import base64
import contextlib
import errno
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import IO, Any

_TERM_SEC = 1.0


def perform(order: dict[str, Any]) -> dict[str, Any]:
    """Do what is asked; a refusal of the kernel is an answer with its errno.

    A long order, and long bytes in and out, are files in the folder `box`, which the caller reads and removes.
    """
    if "order" in order:
        with open(order["order"], encoding="utf-8") as source:
            order = {**order, **json.load(source)}
    work = {"exec": _exec, "read": _read, "write": _write}[order["work"]]
    try:
        return work(order)
    except OSError as fault:
        name = os.fspath(fault.filename) if fault.filename is not None else ""
        return {"errno": fault.errno or errno.EIO, "message": fault.strerror or str(fault), "path": name}
    except ValueError as fault:
        # A zero byte in a name, a variable with '=' in its name: what no system call can be asked for.
        return {"errno": errno.EINVAL, "message": str(fault), "path": ""}


def _open_input(order: dict[str, Any]) -> IO[bytes]:
    """Open the bytes that came with an order: none, in it, or as a file that is gone from its folder at once."""
    if order.get("input_at"):
        source = open(order["input_at"], "rb")  # noqa: SIM115 - closed by who asked
        os.unlink(order["input_at"])
        return source
    if order.get("input") is None:
        return open(os.devnull, "rb")
    held = tempfile.TemporaryFile()  # noqa: SIM115 - closed by who asked
    held.write(base64.b64decode(order["input"]))
    held.seek(0)
    return held


def _give(order: dict[str, Any], streams: dict[str, IO[bytes]]) -> dict[str, Any]:
    """Return what streams hold: in the answer while it is short, else as files in the box; or which is too long."""
    sizes = {name: os.fstat(stream.fileno()).st_size for name, stream in streams.items()}
    for stream in streams.values():
        stream.seek(0)
    for name in (name for name in streams if sizes[name] > order["most"]):
        head = streams[name].read(order["inline"] // 2)
        return {"too_long": name, "head": base64.b64encode(head).decode("ascii")}
    answer: dict[str, Any] = {}
    for name, stream in streams.items():
        if sum(sizes.values()) <= order["inline"]:
            answer[name] = base64.b64encode(stream.read(sizes[name])).decode("ascii")
        else:
            os.makedirs(order["box"], exist_ok=True)
            answer[f"{name}_at"] = f"{order['box']}/{order['number']}-{name}"
            with open(answer[f"{name}_at"], "wb") as target:
                shutil.copyfileobj(stream, target)
    return answer


def _read(order: dict[str, Any]) -> dict[str, Any]:
    with open(order["path"], "rb") as source:
        return _give(order, {"content": source})


def _write(order: dict[str, Any]) -> dict[str, Any]:
    os.makedirs(os.path.dirname(order["path"]), exist_ok=True)
    with _open_input(order) as source, open(order["path"], "wb") as target:
        shutil.copyfileobj(source, target)
    return {}


def _exec(order: dict[str, Any]) -> dict[str, Any]:
    if not _is_me(order["user"]):
        return {"user": _names()[0]}
    # Files, not pipes: what a program left in the background neither holds its answer nor speaks into a later one.
    with _open_input(order) as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        try:
            program = subprocess.Popen(
                order["argv"],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=order["cwd"],
                env={"PYTHONPATH": _packages(), **os.environ, **order["env"]},
                start_new_session=True,
            )
        except PermissionError as fault:
            if fault.filename != order["cwd"]:
                raise
            return _not_started(fault)
        except OSError as fault:
            return _not_started(fault)
        code = _wait(program, order["timeout_sec"])
        if code is None:
            return {"timed_out": True}
        return {"code": code if code >= 0 else 128 - code, **_give(order, {"stdout": stdout, "stderr": stderr})}


def _packages() -> str:
    """Return where this interpreter finds the profile's packages, for a `python` that is started by hand."""
    return os.pathsep.join(place for place in sys.path if os.path.isabs(place) and not place.startswith(sys.base_prefix))


def _not_started(fault: OSError) -> dict[str, Any]:
    """Say it as a shell does: 127 where something is not there, 126 where it cannot be started."""
    sentence = f"{fault.filename or 'exec'}: {fault.strerror}\n"
    code = 127 if isinstance(fault, FileNotFoundError) else 126
    return {"code": code, "stdout": "", "stderr": base64.b64encode(sentence.encode()).decode("ascii")}


def _is_me(user: str | None) -> bool:
    return user is None or user in _names()


def _names() -> tuple[str, ...]:
    """Return what this account is called; where it has no name, its number alone."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name, str(os.getuid())
    except KeyError:
        return (str(os.getuid()),)


def _wait(program: subprocess.Popen[bytes], timeout_sec: float) -> int | None:
    """Return the exit code, or None when the time was up; whatever ends the wait ends what it started."""
    try:
        return program.wait(timeout_sec)
    except subprocess.TimeoutExpired:
        _end(program)
        return None
    except BaseException:
        _end(program)
        raise


def _end(program: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(program.pid, signal.SIGTERM)
        program.wait(_TERM_SEC)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    program.wait()
