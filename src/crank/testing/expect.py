"""One way to say which fault must come, so that the shipped suites need no test framework."""

from collections.abc import Iterator
from contextlib import contextmanager

from crank.errors import CrankError


@contextmanager
def faults(kind: type[CrankError], code: str | None = None) -> Iterator[None]:
    """Pass when the block raises this fault with this code. Raises AssertionError otherwise."""
    caught: CrankError | None = None
    try:
        yield
    except kind as fault:
        caught = fault
    assert caught is not None, f"expected {kind.__name__} {code or ''}, and nothing was raised"
    assert code in (None, caught.error_code), f"expected the code {code}, got {caught.error_code}"
