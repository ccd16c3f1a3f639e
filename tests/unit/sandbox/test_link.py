"""What the worker does before it starts its launcher."""

import resource

import pytest

from crank.sandbox.link import allow_descriptors


def test_the_ceiling_of_descriptors_is_raised_as_far_as_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The soft bound goes up to what is wanted or allowed, and never down."""
    said: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _kind, limits: said.append(limits))
    for limits in ((1024, 4096), (1024, resource.RLIM_INFINITY), (20_000, 20_000), (resource.RLIM_INFINITY,) * 2):
        monkeypatch.setattr(resource, "getrlimit", lambda _kind, limits=limits: limits)
        allow_descriptors(16_384)
    assert said == [(4096, 4096), (16_384, resource.RLIM_INFINITY)]
