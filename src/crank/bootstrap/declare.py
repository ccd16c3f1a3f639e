"""Learns what an author's module offers without importing it: a short-lived child does, shut in and without network.

The process that talks to the controller never runs the author's code, at import or later; what it needs to
know are the names, the schemas and where the module lies. Run as a program by `declare`:
`python -m crank.bootstrap.declare module:app <descriptor for the answer>`.
"""

import contextlib
import os
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass

from crank.bootstrap.confinement import module_view, shut_in
from crank.bootstrap.leash import fault_document, parse_fault
from crank.config import Settings, child_environment, interpreter, load
from crank.domain.capability import Isolation, capability_document, parse_capability
from crank.domain.json import JsonObject, dumps, loads_strict
from crank.errors import CrankError
from crank.sandbox.confine import abilities
from crank.worker.app import function_offers
from crank.worker.call import load_app
from crank.worker.offers import FunctionOffer

# Importing what an author imports may take long; forever is a mistake of theirs.
IMPORT_SEC = 300
ANSWER_BYTES_MAX = 16 << 20
_DEPTH_MAX = 128
_FIX = "Name it module:app."


@dataclass(frozen=True, slots=True)
class Declaration:
    """What an author's worker is called and offers."""

    name: str
    offers: tuple[FunctionOffer, ...]


def declare(settings: Settings, target: str) -> Declaration:
    """Return what `module:app` declares. Blocking.

    Raises CrankError (`no_such_app`) when it is no worker, ConfigurationError for a capability that is
    declared wrongly or a worker that offers nothing.
    """
    answer_from, answer_to = os.pipe()
    with os.fdopen(answer_from, "rb") as source:
        with contextlib.closing(os.fdopen(answer_to, "wb")):
            child = _start(settings, target, answer_to)
        try:
            raw = source.read(ANSWER_BYTES_MAX + 1)
        finally:
            child.kill()
            status = child.wait()
    if not raw:
        raise CrankError(
            f"{target} cannot be loaded: its import ended with status {status}.", code="no_such_app", fix=_FIX
        )
    told = loads_strict(raw, depth_max=_DEPTH_MAX)
    if "fault" in told:
        raise parse_fault(told["fault"])
    offers = tuple(
        FunctionOffer(parse_capability(each["capability"]), target, isolation=Isolation(each["isolation"]))
        for each in told["functions"]
    )
    return Declaration(told["name"], offers)


def _start(settings: Settings, target: str, answer_to: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [interpreter(), "-m", "crank.bootstrap.declare", target, str(answer_to)],
        # It looks for modules where this process would.
        env={**child_environment(settings), "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
        stdin=subprocess.DEVNULL,
        pass_fds=(answer_to,),
        start_new_session=True,
    )


def _answer(settings: Settings, target: str) -> JsonObject:
    try:
        shut_in(settings, module_view(settings, target), abilities())
        app = load_app(target)
        offers = function_offers(app, target)
    except CrankError as fault:
        return {"fault": fault_document(fault)}
    except Exception as fault:  # noqa: BLE001 - whatever the author's code raises is why it cannot be loaded
        traceback.print_exception(fault)
        cause = f"{target} cannot be loaded: {type(fault).__name__}: {fault}"
        return {"fault": fault_document(CrankError(cause[:1000], code="no_such_app", fix=_FIX))}
    functions = [
        {"capability": capability_document(offer.capability), "isolation": str(offer.isolation)} for offer in offers
    ]
    return {"name": app.name, "functions": functions}


def main(target: str, answer_to: int) -> None:
    """Import the module and answer."""
    os.set_inheritable(answer_to, False)
    # Ends this process, which its parent reads as "cannot be loaded".
    signal.alarm(IMPORT_SEC)
    document = _answer(load(), target)
    with os.fdopen(answer_to, "wb") as answer:
        answer.write(dumps(document).encode())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
