"""Runs a program's checks one after another and prints what became of each, as one line of JSON."""

import inspect
import json
import time
import traceback
from collections.abc import Callable
from typing import Any

CHECKS: list[Callable[..., Any]] = []


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """Count a function as a check."""
    CHECKS.append(function)
    return function


def raises(kind: type[BaseException], act: Callable[[], Any]) -> BaseException:
    """Return what an act raises, which must be of this kind."""
    try:
        found = act()
    except kind as fault:
        return fault
    raise AssertionError(f"expected {kind.__name__}, got {found!r}")


def run(*given: Any) -> None:
    """Run every check with these arguments."""
    for function in CHECKS:
        began = time.monotonic()
        fault = None
        try:
            function(*given)
        except BaseException:
            fault = traceback.format_exc()
        print(json.dumps({"check": function.__name__, "fault": fault, "sec": time.monotonic() - began}), flush=True)


async def arun(*given: Any) -> None:
    """Run every check with these arguments, waiting for those that are coroutines."""
    for function in CHECKS:
        fault = None
        try:
            made = function(*given)
            if inspect.isawaitable(made):
                await made
        except BaseException:
            fault = traceback.format_exc()
        print(json.dumps({"check": function.__name__, "fault": fault}), flush=True)
