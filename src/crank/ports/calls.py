"""What answers the calls that the code of a running job makes."""

from collections.abc import Sequence
from typing import Protocol

from crank.domain.handle import JobCall
from crank.domain.json import JsonObject


class CallTaker(Protocol):
    """Takes the calls of one run, for as long as it runs."""

    @property
    def told(self) -> Sequence[JsonObject]:
        """Return what the code is told of its handles: of each at least `name` and `kind`."""
        ...

    async def take(self, call: JobCall) -> JsonObject:
        """Do what is asked and return the answer as the code reads it.

        It has `number`, `verdict` (`done`, `failed`, `refused`), `status`, `reason`, `code`, `message`, `fix`, `result`,
        `folder` (below /scratch, where `files` lie) and `left_out`. Raises CrankError for what was not done at all.
        """
        ...
