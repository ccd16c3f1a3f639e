"""Honest jobs with one right answer each, of the kinds that people send. They are everybody's neighbours.

Every one also looks for a trace of a job before it in its process and its folders: a sandbox serves one job,
so there is never one.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crank.domain.outcome import Outcome

# Left by every job, honest or hostile, in the interpreter that runs it.
MARK = "import builtins; builtins._soak_was_here = True\n"

_ALONE = """
import builtins, os
if hasattr(builtins, "_soak_was_here"):
    raise SystemExit("this process served a job before")
found = [place + "/" + name for place in ("/scratch", "/out", "/tmp", "/dev/shm") for name in os.listdir(place)
         if place + "/" + name not in args["own"]]
if found:
    raise SystemExit(f"found what another job left: {found}")
builtins._soak_was_here = True
number = args["number"]
for place in ("/scratch", "/out", "/tmp", "/dev/shm"):
    with open(f"{place}/was-here-{number}", "w") as target:
        target.write("x" * 1000)
"""


@dataclass(frozen=True, slots=True)
class Honest:
    """One job and what it must come to."""

    kind: str
    code: str
    args: dict[str, Any]
    files: dict[str, bytes]
    wrong: Callable[[Outcome], str | None]


def _ended(
    outcome: Outcome, *, reason: str = "exited", result: Any = None, stdout: str = "", stderr: str = ""
) -> str | None:
    found = (outcome.end.reason.value, outcome.result, outcome.stdout.text)
    if found != (reason, result, stdout) or stderr not in outcome.stderr.text:
        return f"{found} instead of {(reason, result, stdout)}, {outcome.end.message}, stderr {outcome.stderr.text[-500:]!r}"
    return None


def _sum(number: int) -> tuple[str, Callable[[Outcome], str | None]]:
    return "sum(range(number))", lambda outcome: _ended(outcome, result=sum(range(number)))


def _prints(number: int) -> tuple[str, Callable[[Outcome], str | None]]:
    code = "import sys\nfor n in range(number % 50):\n    print(n)\nprint('heard', number, file=sys.stderr)\n"
    lines = "".join(f"{n}\n" for n in range(number % 50))
    return code, lambda outcome: _ended(outcome, stdout=lines, stderr=f"heard {number}")


def _raises(number: int) -> tuple[str, Callable[[Outcome], str | None]]:
    code = "raise ValueError(f'as told {number}')"
    return code, lambda outcome: _ended(outcome, reason="raised", stderr=f"ValueError: as told {number}")


def _exits(number: int) -> tuple[str, Callable[[Outcome], str | None]]:
    def wrong(outcome: Outcome) -> str | None:
        return None if outcome.end.exit_code == number % 200 else f"exit code {outcome.end.exit_code}"

    return "raise SystemExit(number % 200)", wrong


def _hashes(number: int) -> tuple[str, Callable[[Outcome], str | None]]:
    code = (
        "import hashlib\nh = str(number).encode()\nfor _ in range(2000):\n    h = hashlib.sha256(h).digest()\nh.hex()"
    )
    digest = str(number).encode()
    for _ in range(2000):
        digest = hashlib.sha256(digest).digest()
    return code, lambda outcome: _ended(outcome, result=digest.hex())


def _threads(number: int) -> tuple[str, Callable[[Outcome], str | None]]:
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n    total = sum(pool.map(lambda n: n * number, range(20)))\ntotal"
    )
    return code, lambda outcome: _ended(outcome, result=190 * number)


def _writes(number: int) -> tuple[str, Callable[[Outcome], str | None]]:
    code = "import os\nos.makedirs('/out/deep')\nopen('/out/deep/n.txt', 'w').write(str(number) * 100)\nnumber"

    def wrong(outcome: Outcome) -> str | None:
        listed = {(artifact.path, artifact.size_bytes) for artifact in outcome.artifacts}
        expected = {("deep/n.txt", len(str(number)) * 100), (f"was-here-{number}", 1000)}
        return _ended(outcome, result=number) or (None if listed == expected else f"artifacts {listed}")

    return code, wrong


_KINDS = (_sum, _prints, _raises, _exits, _hashes, _threads, _writes)


def honest(number: int) -> Honest:
    """Return the honest job of a number; the kinds take turns."""
    # Every second number is a hostile job's.
    turn = number // 2 % (len(_KINDS) + 1)
    if turn == len(_KINDS):
        content = str(number).encode() * 1000
        code = "open('/scratch/given').read() == str(number) * 1000"
        args: dict[str, Any] = {"number": number, "own": ["/scratch/given"]}
        return Honest("files", _ALONE + code, args, {"given": content}, lambda outcome: _ended(outcome, result=True))
    kind = _KINDS[turn]
    code, wrong = kind(number)
    return Honest(kind.__name__.strip("_"), _ALONE + code, {"number": number, "own": []}, {}, wrong)
