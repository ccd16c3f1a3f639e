"""What a worker author writes: typed functions, each declared once, that become capabilities.

app = Worker("text-tools")

@app.capability("text.count", version="1.0.0", effects="pure")
def count(text: str, minimum: int = 1) -> dict[str, int]:
    \"\"\"Count words.\"\"\"
"""

import inspect
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar, Unpack

from pydantic import BaseModel, ConfigDict, TypeAdapter, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from crank.domain.capability import (
    CAPABILITY_SCHEMA,
    Accelerator,
    Capability,
    Effects,
    Isolation,
    parse_capability,
)
from crank.domain.ids import parse_name
from crank.domain.profile import LIMIT_RANGES, Limits
from crank.errors import CapabilityError, ConfigurationError, InvalidRequest
from crank.worker.offers import FunctionOffer

__all__ = ["CapabilityError", "Function", "Worker", "function_offers"]

Code = TypeVar("Code", bound=Callable[..., Any])

# Codes that Crank itself gives to a failed call of any function.
OWN_CODES = ("invalid_args", "invalid_result", "undeclared_error")
_SUMMARY_CHARS_MAX = 300


@dataclass(frozen=True, slots=True)
class Function:
    """A declared function: its capability, the model of its args, the type of its result, what its calls share."""

    capability: Capability
    code: Callable[..., Any]
    args: type[BaseModel]
    result: TypeAdapter[Any]
    isolation: Isolation = Isolation.PER_CALL


class Declared(TypedDict, total=False):
    """What an author may say of a function beside its name and version.

    effects       `pure`, `idempotent` or `external` (the default): only the first two may run twice
    timeout_sec   how long a call may take, seconds; 60 unless said
    memory_bytes  how much memory a call may use, 512 MiB unless said
    isolation     `per_call` (the default): each call has a fresh sandbox of its own. `per_worker`: a sandbox stays
                  for the next call of this function, with its state; only where effects are `pure`
    error_codes   codes that it may raise with CapabilityError
    required_capabilities  what it may call in turn
    """

    effects: str
    timeout_sec: float
    memory_bytes: int
    isolation: str
    error_codes: tuple[str, ...]
    required_capabilities: tuple[str, ...]


class Worker:
    """A set of capabilities of one author; `crank worker serve module:app` offers them."""

    def __init__(self, name: str) -> None:
        try:
            self.name = parse_name(name, field="name")
        except InvalidRequest as fault:
            raise ConfigurationError(fault.message, code=fault.error_code, field="name") from fault
        self.functions: dict[str, Function] = {}

    def capability(self, name: str, *, version: str, **declared: Unpack[Declared]) -> Callable[[Code], Code]:
        """Offer the decorated function under a name; it stays an ordinary function.

        declared  see Declared: effects, timeout_sec, memory_bytes, isolation, error_codes, required_capabilities

        Raises ConfigurationError when decorated: a missing annotation, a type without a JSON Schema,
        a name offered twice, a malformed name or version, a state that is kept between calls with effects.
        """
        if unknown := sorted(set(declared) - set(Declared.__annotations__)):
            raise _wrong(name, f"declares {unknown[0]!r}", f"Use {', '.join(Declared.__annotations__)}.")
        isolation = _isolation(name, declared)

        def declare(code: Code) -> Code:
            if name in self.functions:
                raise _wrong(name, "is offered twice", "Give each function a name of its own.")
            args, result = _types(name, code)
            document = {
                "schema": CAPABILITY_SCHEMA,
                "name": name,
                "version": version,
                "summary": _summary(name, code),
                "effects": declared.get("effects", str(Effects.EXTERNAL)),
                "accelerator": str(Accelerator.CPU),
                "gpu_model": None,
                "env_profile": None,
                "profile_digest": None,
                "input_schema": args.model_json_schema(mode="validation"),
                "output_schema": result.json_schema(mode="serialization"),
                "error_codes": [*declared.get("error_codes", ()), *OWN_CODES],
                "required_capabilities": list(declared.get("required_capabilities", ())),
                "timeout_sec": declared.get("timeout_sec", Limits().wall_sec),
                "memory_bytes": declared.get("memory_bytes", Limits().memory_bytes),
            }
            try:
                capability = parse_capability(document)
            except InvalidRequest as fault:
                raise _wrong(name, f"is declared wrongly: {fault.message}", fault.fix) from fault
            _check_memory(capability)
            self.functions[name] = Function(capability, code, args, result, isolation)
            return code

        return declare


def function_offers(app: Worker, target: str) -> tuple[FunctionOffer, ...]:
    """Return the offers of an author's worker that is found at `module:app`. Raises ConfigurationError when empty."""
    if not app.functions:
        raise ConfigurationError(
            f"The worker {app.name} offers nothing.", code="no_capability", fix="Decorate a function of it."
        )
    return tuple(
        FunctionOffer(function.capability, target, isolation=function.isolation) for function in app.functions.values()
    )


def _wrong(name: str, cause: str, fix: str) -> ConfigurationError:
    return ConfigurationError(f"The capability {name!r} {cause}.", code="invalid_capability", field=name, fix=fix)


def _isolation(name: str, declared: Declared) -> Isolation:
    wanted = declared.get("isolation", str(Isolation.PER_CALL))
    if wanted not in set(Isolation):
        raise _wrong(name, f"has the isolation {wanted!r}", f"Use {' or '.join(Isolation)}.")
    if wanted == Isolation.PER_WORKER and declared.get("effects") != Effects.PURE:
        raise _wrong(
            name,
            "keeps its sandbox between calls, and is not declared pure",
            "Write effects='pure' if calls do not depend on each other, else leave isolation out.",
        )
    return Isolation(wanted)


def _check_memory(capability: Capability) -> None:
    low, high = LIMIT_RANGES["memory_bytes"]
    if not low <= (capability.memory_bytes or 0) <= high:
        cause = f"has memory_bytes={capability.memory_bytes}"
        raise _wrong(capability.name, cause, f"Use a whole number from {low:.0f} to {high:.0f}.")


def _summary(name: str, code: Callable[..., Any]) -> str:
    first = (inspect.getdoc(code) or "").split("\n\n")[0].replace("\n", " ").strip()
    if not first:
        raise _wrong(name, "says nothing about itself", "Give the function a docstring: agents choose by it.")
    return first[:_SUMMARY_CHARS_MAX]


def _types(name: str, code: Callable[..., Any]) -> tuple[type[BaseModel], TypeAdapter[Any]]:
    try:
        hints = typing.get_type_hints(code, include_extras=True)
    except NameError as fault:
        raise _wrong(name, f"names a type that is not known: {fault}", "Import the type above the function.") from fault
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(code).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise _wrong(name, f"has the parameter {parameter}", "Use only parameters that have a name of their own.")
        if parameter.name not in hints:
            raise _wrong(name, f"has the parameter {parameter.name!r} without a type", "Write its type.")
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints[parameter.name], default)
    if "return" not in hints:
        raise _wrong(name, "has no type of its result", "Write '-> type' after its parameters.")
    try:
        model = create_model(_title(name), __config__=ConfigDict(extra="forbid", strict=True), **fields)
        result = TypeAdapter(hints["return"])
        # A type may be checkable and still have no JSON Schema: find out now.
        model.model_json_schema()
        result.json_schema(mode="serialization")
    except (PydanticSchemaGenerationError, PydanticUserError, NameError) as fault:
        raise _wrong(name, f"uses a type without a JSON Schema: {fault}", "Use types that JSON can carry.") from fault
    return model, result


def _title(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", name) + "_args"
