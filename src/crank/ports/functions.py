"""A worker author's own functions, run in a sandbox."""

from dataclasses import dataclass
from typing import Protocol

from crank.domain.capability import Isolation
from crank.domain.json import JsonValue
from crank.domain.outcome import Outcome, Reason
from crank.domain.profile import Limits
from crank.ports.sandbox import OutputSink


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """One call of a worker author's function: where it is (`module:app`), its capability, what it may use.

    isolation  a sandbox of its own for each call, or one that calls of this function share, one after another
    """

    target: str
    capability: str
    limits: Limits
    isolation: Isolation = Isolation.PER_CALL


class FunctionCall(Protocol):
    """One call. Nothing of it is left when it is closed, but for what a shared sandbox keeps."""

    tier: str

    async def run(self, args: JsonValue, sink: OutputSink) -> Outcome:
        """Run the function to its end. Never raises for anything that the function did.

        Raises SandboxError when its sandbox is dead before it began.
        """
        ...

    async def stop(self, reason: Reason) -> None:
        """End the call now with this reason; run then returns the partial outcome."""
        ...

    async def close(self) -> None:
        """Kill what is left. Safe to call twice."""
        ...


class FunctionRunner(Protocol):
    """Runs the functions of worker authors, each call behind the walls of a sandbox."""

    tier: str

    async def open(self, spec: FunctionSpec) -> FunctionCall:
        """Prepare one call. Raises SandboxError that says what is missing."""
        ...

    async def stop(self) -> None:
        """End every call and every sandbox that is kept. Safe to call twice."""
        ...
