"""A worker author's own functions, run in a process of their own."""

from dataclasses import dataclass
from typing import Protocol

from crank.domain.json import JsonValue
from crank.domain.outcome import Outcome, Reason
from crank.domain.profile import Limits
from crank.ports.sandbox import OutputSink


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """One call of a worker author's function: where it is (`module:app`), its capability, what it may use.

    Of the limits, wall_sec, output_bytes, output_flood_bytes and result_bytes hold; memory_bytes holds for
    one process and only where the lease asks for it (None leaves it open).
    """

    target: str
    capability: str
    limits: Limits
    memory_bytes: int | None = None


class FunctionCall(Protocol):
    """One call, in a process of its own that dies with the call."""

    tier: str

    async def run(self, args: JsonValue, sink: OutputSink) -> Outcome:
        """Run the function to its end. Never raises for anything that the function did.

        Raises SandboxError when its process could not be started.
        """
        ...

    async def stop(self, reason: Reason) -> None:
        """End the call now with this reason; run then returns the partial outcome."""
        ...

    async def close(self) -> None:
        """Kill what is left. Safe to call twice."""
        ...


class FunctionRunner(Protocol):
    """Runs the functions of worker authors: trusted code, apart from the worker but not sandboxed."""

    tier: str

    async def open(self, spec: FunctionSpec) -> FunctionCall:
        """Prepare one call."""
        ...
