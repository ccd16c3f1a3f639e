"""One call of a worker author's function, in a process of its own: `python -m crank.worker.call module:app name`.

Standard input brings one line, {"args": …, "memory_bytes": … or null}, and then stays open for as long as the
worker lives. The descriptor whose number is the third argument takes the answer, one line:
{"reason": …, "exit_code": …, "code": …, "message": …, "has_result": …, "result": …, "cpu_sec": …, "peak_bytes": …}.
Standard output and error are the author's own.
"""

import asyncio
import importlib
import inspect
import json
import os
import resource
import signal
import sys
import threading
import traceback
from typing import Any

from pydantic import BaseModel, ValidationError

from crank.domain.json import JsonObject, dumps, loads_strict
from crank.domain.outcome import Reason
from crank.errors import CapabilityError, CrankError
from crank.worker.app import OWN_CODES, Function, Worker

_PROBLEMS_MAX = 10
_KIB = 1024


def load_app(target: str) -> Worker:
    """Import `module:app`. Raises CrankError (`no_such_app`) when it is not a Worker."""
    module_name, _, attribute = target.partition(":")
    try:
        app = getattr(importlib.import_module(module_name), attribute or "app")
    except (ImportError, AttributeError) as fault:
        raise CrankError(
            f"{target} cannot be loaded: {fault}", code="no_such_app", fix="Name it module:app."
        ) from fault
    if not isinstance(app, Worker):
        raise CrankError(f"{target} is not a crank.Worker.", code="no_such_app", fix="Name it module:app.")
    return app


def call(function: Function, args: Any) -> JsonObject:
    """Check the args, run the function, check the result; return the answer's document."""
    try:
        checked = function.args.model_validate_json(dumps(args).encode(), strict=True)
    except ValidationError as fault:
        return _failed("invalid_args", _sentence("The args break the capability's schema", fault))
    try:
        result = _run(function, checked)
    except CapabilityError as fault:
        if fault.error_code not in set(function.capability.error_codes) - set(OWN_CODES):
            return _failed(
                "undeclared_error", f"It failed with the undeclared code {fault.error_code}: {fault.message}"
            )
        return _failed(fault.error_code, fault.message)
    except MemoryError:
        return {"reason": str(Reason.MEMORY), "message": "The function passed its memory limit."}
    except SystemExit as leaving:
        return {"reason": str(Reason.EXITED), "exit_code": _exit_code(leaving.code)}
    except BaseException as fault:  # noqa: BLE001 - whatever the author's code raises is its outcome
        traceback.print_exception(fault)
        return _failed(None, f"{type(fault).__name__}: {fault}"[:500])
    return _answer(function, result)


def _run(function: Function, checked: BaseModel) -> Any:
    # The fields themselves, not model_dump: nested models reach the author as what they declared.
    values = {name: getattr(checked, name) for name in type(checked).model_fields}
    result = function.code(**values)
    if inspect.isawaitable(result):
        return asyncio.run(_wait(result))
    return result


async def _wait(result: Any) -> Any:
    return await result


def _answer(function: Function, result: Any) -> JsonObject:
    try:
        checked = function.result.validate_python(result, strict=True)
        plain = json.loads(function.result.dump_json(checked))
        dumps(plain).encode()
    except (ValueError, TypeError, RecursionError) as fault:
        what = "The result breaks the capability's schema"
        message = _sentence(what, fault) if isinstance(fault, ValidationError) else f"{what}: {fault}"
        return _failed("invalid_result", message)
    return {"reason": str(Reason.EXITED), "exit_code": 0, "has_result": True, "result": plain}


def _failed(code: str | None, message: str) -> JsonObject:
    return {"reason": str(Reason.RAISED), "exit_code": 1, "code": code, "message": message}


def _sentence(what: str, fault: ValidationError) -> str:
    problems = [
        f"{'.'.join(str(part) for part in error['loc']) or 'value'}: {error['msg']}"
        for error in fault.errors(include_url=False, include_input=False)[:_PROBLEMS_MAX]
    ]
    return f"{what}: {'; '.join(problems)}."


def _exit_code(code: Any) -> int:
    if code is None:
        return 0
    return code & 0xFF if isinstance(code, int) else 1


def _die_with_worker(order: int) -> None:
    # The worker holds the other end; it closes when the worker dies, however it dies.
    while os.read(order, 1):
        pass
    os.killpg(0, signal.SIGKILL)


def _read_line(order: int) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = os.read(order, 65_536)
        if not chunk:
            raise SystemExit("crank.worker.call is started by a worker, with one line on standard input.")
        line += chunk
    return bytes(line)


def _tell(answer_to: int, document: JsonObject) -> None:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    document["cpu_sec"] = sum(one.ru_utime + one.ru_stime for one in used)
    document["peak_bytes"] = max(one.ru_maxrss for one in used) * _KIB
    raw = memoryview(dumps(document).encode() + b"\n")
    while raw:
        raw = raw[os.write(answer_to, raw) :]


def main(target: str, name: str, answer_to: int) -> None:
    """Serve one call and end the process; nothing that the author left running outlives it."""
    order = os.dup(0)
    os.set_inheritable(answer_to, False)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    wanted = loads_strict(_read_line(order))
    threading.Thread(target=_die_with_worker, args=(order,), daemon=True).start()
    sys.path.insert(0, os.getcwd())
    if wanted["memory_bytes"] is not None:
        resource.setrlimit(resource.RLIMIT_AS, (wanted["memory_bytes"], wanted["memory_bytes"]))
    try:
        function = load_app(target).functions[name]
    except (CrankError, KeyError) as fault:
        document: JsonObject = {"reason": str(Reason.SANDBOX_FAILED), "code": "no_such_function", "message": str(fault)}
    else:
        document = call(function, wanted["args"])
    sys.stdout.flush()
    sys.stderr.flush()
    _tell(answer_to, document)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
