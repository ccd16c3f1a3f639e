"""One thing that `crank doctor` looked at."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `fix` is empty when there is nothing to do."""

    name: str
    state: State
    cause: str
    fix: str = ""
