"""What a worker author declares becomes a capability, or a clear sentence about what is wrong."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.author_tools import app as tools

from crank.adapters.json_schema import JsonSchemaChecker
from crank.domain.capability import Isolation, capability_document, parse_capability
from crank.errors import ConfigurationError
from crank.worker.app import Worker, function_offers


def test_types_become_schemas() -> None:
    """The schemas say exactly what the types say, and the controller's own checker accepts them."""
    offer = function_offers(tools, "module:app")[0]
    capability = offer.capability
    assert (capability.name, capability.version, capability.effects) == ("text.count", "1.2.0", "pure")
    assert capability.summary == "Count words."
    assert capability.input_schema["required"] == ["text"]
    assert capability.input_schema["additionalProperties"] is False
    assert capability.input_schema["properties"]["minimum"]["default"] == 1
    assert "too_short" in capability.error_codes
    checker = JsonSchemaChecker()
    assert checker.check_schema(capability.input_schema) is None
    assert checker.check_schema(capability.output_schema) is None
    assert not checker.check(capability.input_schema, {"text": "x"}, field="args")
    assert checker.check(capability.input_schema, {"text": 1}, field="args")
    assert parse_capability(capability_document(capability)) == capability


def test_a_decorated_function_stays_a_function() -> None:
    """The author can call and test it as before."""
    app = Worker("maths")

    @app.capability("maths.double", version="1.0.0")
    def double(n: int) -> int:
        """Double a number."""
        return 2 * n

    assert double(4) == 8


def _untyped(n) -> int:
    """Take something."""
    return int(n)


def _no_result(n: int):
    """Take a number."""


def _no_words(n: int) -> int:
    return n


def _star(*numbers: int) -> int:
    """Take any number of numbers."""
    return len(numbers)


class Odd:
    """Something that JSON cannot carry."""


def _odd(thing: Odd) -> int:
    """Take a thing."""
    return 0


def _good(n: int) -> int:
    """Take a number."""
    return n


@pytest.mark.parametrize(
    ("code", "changed", "says"),
    [
        (_untyped, {}, "the parameter 'n' without a type"),
        (_no_result, {}, "no type of its result"),
        (_no_words, {}, "says nothing about itself"),
        (_star, {}, "has the parameter"),
        (_odd, {}, "without a JSON Schema"),
        (_good, {"version": "1"}, "version"),
        (_good, {"effects": "none"}, "effects"),
        (_good, {"timeout_sec": 0.0}, "timeout_sec"),
        (_good, {"error_codes": ("Bad Code",)}, "error_codes"),
        (_good, {"name": "nodots"}, "dots"),
        (_good, {"name": "taken.name"}, "twice"),
    ],
)
def test_mistakes_are_told_where_they_are_made(code: Callable[..., Any], changed: dict[str, Any], says: str) -> None:
    """Every mistake is a fault at the decorator, naming the capability, the mistake and what to do."""
    app = Worker("tools")
    app.capability("taken.name", version="1.0.0")(_good)
    options = {"name": "some.name", "version": "1.0.0", **changed}
    with pytest.raises(ConfigurationError, match=says) as caught:
        app.capability(options.pop("name"), **options)(code)
    assert caught.value.fix


def test_a_worker_without_capabilities_is_told() -> None:
    """Serving nothing is a mistake, not a silent success."""
    with pytest.raises(ConfigurationError, match="offers nothing"):
        function_offers(Worker("empty"), "module:app")


def test_a_bad_name_is_told() -> None:
    """The name of a worker ends up in its identity, so it is checked at once."""
    with pytest.raises(ConfigurationError):
        Worker("Has Spaces")


def _declare(**declared: Any) -> Callable[[int], int]:
    @Worker("maths").capability("maths.double", version="1.0.0", **declared)
    def double(n: int) -> int:
        """Double a number."""
        return 2 * n

    return double


def test_isolation_is_per_call_unless_said() -> None:
    """Only a pure function may keep its sandbox, and every offer says what its calls share."""
    offers = {offer.capability.name: offer for offer in function_offers(tools, "module:app")}
    assert offers["text.count"].isolation is Isolation.PER_CALL
    assert offers["text.kept"].isolation is Isolation.PER_WORKER


@pytest.mark.parametrize(
    ("declared", "match"),
    [
        ({"isolation": "per_worker"}, "not declared pure"),
        ({"isolation": "per_worker", "effects": "idempotent"}, "not declared pure"),
        ({"isolation": "none", "effects": "pure"}, "has the isolation 'none'"),
        ({"memory_bytes": 1_000}, "has memory_bytes=1000"),
        ({"memory_bytes": "1 GiB"}, "memory_bytes"),
        ({"timeout": 5}, "declares 'timeout'"),
    ],
)
def test_a_wrong_declaration_is_refused_at_once(declared: dict[str, Any], match: str) -> None:
    """What cannot be kept, or is not known, is refused where it is written."""
    with pytest.raises(ConfigurationError, match=match):
        _declare(**declared)


def test_limits_of_a_function_are_offered() -> None:
    """Time and memory that an author declares are what a call may use, and are said before anybody calls."""
    app = Worker("maths")

    @app.capability("maths.double", version="1.0.0", timeout_sec=5, memory_bytes=64 << 20)
    def double(n: int) -> int:
        """Double a number."""
        return 2 * n

    (offer,) = (each.capped({"processes": 3}, "namespaces") for each in function_offers(app, "module:app"))
    assert (offer.limits.wall_sec, offer.limits.memory_bytes, offer.limits.processes) == (5.0, 64 << 20, 3)
    told = offer.capability
    assert (told.memory_bytes, told.tier, told.limits["processes"]) == (64 << 20, "namespaces", 3)
    assert parse_capability(capability_document(told)) == told
