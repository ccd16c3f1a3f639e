"""Runs a worker author's functions in sandboxes whose zygote has imported the author's module.

`per_call`: each call has a fresh sandbox of its own, usually one that stood ready. `per_worker`: a sandbox stays
after its call and takes the next one of the same function; it is replaced after a fault and after many calls.
Never do two calls run in one sandbox at a time. What a sandbox says of its call is checked here.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import structlog

from crank.domain.capability import Isolation
from crank.domain.json import JsonObject, JsonValue
from crank.domain.outcome import End, Outcome, Reason
from crank.domain.profile import LIMIT_RANGES, Limits
from crank.domain.quantity import KIB
from crank.errors import SandboxError
from crank.ports import FunctionSpec, ModuleBuild, OutputSink, SandboxRunner, SandboxSession, SandboxSpec
from crank.worker.call import CODE

_log = structlog.get_logger(__name__)

# A sandbox that is kept takes so many calls; what they leave in its memory goes with it then.
CALLS_MAX = 1_000
# Room for the answer's own fields beside the result.
_ANSWER_EXTRA_BYTES = 16 * KIB
_CODE_CHARS_MAX = 63
_MESSAGE_CHARS_MAX = 2_000
# What a call may say of itself; every other reason is told by the sandbox alone.
_OWN_REASONS = frozenset({Reason.EXITED, Reason.RAISED, Reason.SANDBOX_FAILED})


def with_room(limits: Limits) -> Limits:
    """Return the limits of a sandbox whose answer carries a result as large as these allow."""
    most = int(LIMIT_RANGES["result_bytes"][1])
    return replace(limits, result_bytes=min(most, limits.result_bytes + _ANSWER_EXTRA_BYTES))


@dataclass(slots=True)
class _Kept:
    """A sandbox that takes calls of one function, one after another."""

    session: SandboxSession
    calls: int = 0


class SandboxedFunctions:
    """The FunctionRunner port on a sandbox runner.

    build  the author's module and what it is imported from; its limits are the ceilings of every function
    """

    def __init__(self, sandbox: SandboxRunner, build: ModuleBuild, *, calls_max: int = CALLS_MAX) -> None:
        self.tier = sandbox.tier
        self._sandbox = sandbox
        self._ceilings = build.limits
        self._build = replace(build, limits=with_room(build.limits))
        self._calls_max = calls_max
        self._resting: dict[FunctionSpec, list[_Kept]] = defaultdict(list)
        self._stopped = False

    async def start(self) -> None:
        """Prove that the module can be imported where its calls will run. Raises SandboxError that says why not."""
        sandbox = await self._sandbox.open(SandboxSpec(self._build, self._build.limits))
        await sandbox.close()

    async def open(self, spec: FunctionSpec) -> "SandboxedCall":
        """Prepare one call. Raises SandboxError that says why the module is not imported, or what is missing."""
        if spec.isolation is Isolation.PER_WORKER:
            return SandboxedCall(self, spec, await self._take(spec))
        return SandboxedCall(self, spec, _Kept(await self._open(spec)))

    async def _open(self, spec: FunctionSpec) -> SandboxSession:
        lasting = spec.isolation is Isolation.PER_WORKER
        return await self._sandbox.open(SandboxSpec(self._build, with_room(spec.limits), lasting=lasting))

    async def _take(self, spec: FunctionSpec) -> _Kept:
        resting = self._resting[_shelf(spec)]
        while resting:
            kept = resting.pop()
            if kept.session.alive:
                return kept
            await kept.session.close()
        return _Kept(await self._open(replace(spec, limits=self._ceilings)))

    async def rest(self, spec: FunctionSpec, kept: _Kept) -> None:
        """Take a sandbox back after its call, or let it go."""
        resting = self._resting[_shelf(spec)]
        stays = spec.isolation is Isolation.PER_WORKER and kept.session.alive and not self._stopped
        # One waits for the next call; others were made because calls came at one time.
        if stays and kept.calls < self._calls_max and not resting:
            resting.append(kept)
            return
        if spec.isolation is Isolation.PER_WORKER:
            _log.debug("function.sandbox_replaced", capability=spec.capability, calls=kept.calls)
        await kept.session.close()

    async def stop(self) -> None:
        """Let every sandbox go that waits for a call. Safe to call twice."""
        self._stopped = True
        for resting in self._resting.values():
            while resting:
                await resting.pop().session.close()


def _shelf(spec: FunctionSpec) -> FunctionSpec:
    """Return what calls must have in common to share a sandbox: a lease may lower the limits of its own call."""
    return FunctionSpec(spec.target, spec.capability, Limits(), spec.isolation)


class SandboxedCall:
    """One call in one sandbox."""

    def __init__(self, owner: SandboxedFunctions, spec: FunctionSpec, kept: _Kept) -> None:
        self.tier = owner.tier
        self._owner = owner
        self._spec = spec
        self._kept: _Kept | None = kept
        self._ended = False

    async def run(self, args: JsonValue, sink: OutputSink) -> Outcome:
        """Run the function to its end. Raises SandboxError when the sandbox died while it waited."""
        spec, kept = self._spec, self._kept
        if kept is None:
            raise SandboxError("This call was closed.", code="call_closed")
        order = {
            "target": spec.target,
            "name": spec.capability,
            "args": args,
            "result_bytes": spec.limits.result_bytes,
        }
        kept.calls += 1
        outcome = await kept.session.run_python(CODE, order, sink, limits=with_room(spec.limits))
        self._ended = True
        return told(outcome)

    async def stop(self, reason: Reason) -> None:
        """End the call now with this reason, and its sandbox with it."""
        if self._kept is not None:
            await self._kept.session.stop(reason)

    async def close(self) -> None:
        """Let the sandbox go, or rest until the next call. Safe to call twice."""
        kept, self._kept = self._kept, None
        if kept is None:
            return
        if self._ended or not kept.calls:
            await self._owner.rest(self._spec, kept)
        else:
            await kept.session.close()


def told(outcome: Outcome) -> Outcome:
    """Return the outcome of the call, given that of the sandbox whose result is the call's answer."""
    plain = replace(outcome, has_result=False, result=None)
    if outcome.end.reason is not Reason.EXITED:
        return plain
    if not outcome.has_result:
        message = outcome.end.message or "The call left without an answer."
        return replace(
            plain, end=End(Reason.EXITED, exit_code=outcome.end.exit_code, code="no_answer", message=message)
        )
    try:
        return _answered(plain, outcome.result)
    except (KeyError, TypeError, ValueError):
        message = "The call gave no proper answer."
        return replace(plain, end=End(Reason.PROTOCOL_VIOLATION, code="bad_answer", message=message))


def _answered(plain: Outcome, document: JsonValue) -> Outcome:
    if not isinstance(document, dict):
        raise TypeError("an answer is an object")
    reason = Reason(document["reason"])
    if reason not in _OWN_REASONS:
        raise ValueError("a call does not say this of itself")
    end = End(
        reason,
        exit_code=_number(document),
        code=_text(document, "code", _CODE_CHARS_MAX),
        message=_text(document, "message", _MESSAGE_CHARS_MAX),
    )
    has_result = reason is Reason.EXITED and document.get("has_result") is True
    return replace(plain, end=end, has_result=has_result, result=document["result"] if has_result else None)


def _number(document: Mapping[str, JsonValue]) -> int | None:
    value = document.get("exit_code")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0xFF:
        raise ValueError("exit_code is not 0 to 255")
    return value


def _text(document: JsonObject, name: str, chars_max: int) -> str | None:
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name} is not text")
    return value[:chars_max]
