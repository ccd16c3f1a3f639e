"""Outside knowledge asked for a yes or no: schemas and devices."""

from collections.abc import Sequence
from typing import Protocol

from crank.domain.json import JsonObject, JsonValue
from crank.domain.worker import GpuDevice
from crank.errors import Problem


class SchemaChecker(Protocol):
    """JSON Schema 2020-12, with references to other documents refused."""

    def check_schema(self, schema: JsonObject) -> Problem | None:
        """Return what is wrong with a schema, or None."""
        ...

    def check(self, schema: JsonObject, value: JsonValue, *, field: str) -> Sequence[Problem]:
        """Return where a value breaks a schema, at most 10 places."""
        ...


class GpuProbe(Protocol):
    """Finds the GPUs of this machine."""

    def devices(self) -> Sequence[GpuDevice]:
        """Return the GPUs that can be used now; an empty sequence on a machine without one."""
        ...
