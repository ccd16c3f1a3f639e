"""One call of a worker author's function, as it happens inside the sandbox: args checked, run, result checked.

The zygote of an author's worker imports this module and the author's; each call then runs `CODE`. What comes
out is a document whose words are the caller's only as far as `functions` lets them be: the worker trusts
nothing that was said in here.
"""

import asyncio
import importlib
import inspect
import json
import sys
from typing import Any

from pydantic import BaseModel, ValidationError

from crank.domain.json import JsonObject, dumps
from crank.domain.outcome import Reason
from crank.errors import CapabilityError, CrankError
from crank.worker.app import OWN_CODES, Function, Worker

# What a sandbox is given to run; `args` and `result` are its own names.
CODE = "import crank.worker.call\nresult = crank.worker.call.answer(**args)\n"
_PROBLEMS_MAX = 10


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


def answer(target: str, name: str, args: Any, result_bytes: int) -> JsonObject:
    """Call a function of `module:app`; return the answer's document, whose result is at most so large."""
    try:
        function = load_app(target).functions[name]
    except (CrankError, KeyError) as fault:
        return {"reason": str(Reason.SANDBOX_FAILED), "code": "no_such_function", "message": str(fault)}
    document = call(function, args)
    sys.stdout.flush()
    sys.stderr.flush()
    if document.get("has_result") and len(dumps(document["result"]).encode()) > result_bytes:
        return _failed("invalid_result", f"The result is larger than {result_bytes} bytes.")
    return document


def call(function: Function, args: Any) -> JsonObject:
    """Check the args, run the function, check the result; return the answer's document.

    What the function raises beside its declared codes goes on to the guest, which knows a full disk from a mistake.
    """
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
    except SystemExit as leaving:
        return {"reason": str(Reason.EXITED), "exit_code": _exit_code(leaving.code)}
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
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)  # noqa: T201 - as Python does with a text that it is told to exit with
    return 1
