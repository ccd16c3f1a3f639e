"""Gives Inspect's portable checks one sandbox, opened as Inspect itself opens one for a sample."""

from collections.abc import AsyncIterator

import pytest_asyncio
from inspect_ai.util import SandboxEnvironment
from inspect_ai.util._sandbox.registry import registry_find_sandboxenv


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sandbox_env() -> AsyncIterator[SandboxEnvironment]:
    """Find the provider by its name, open a sample's sandbox and clean it up."""
    provider = registry_find_sandboxenv("crank")
    environments = await provider.sample_init("judge", None, {})
    yield environments["default"]
    await provider.sample_cleanup("judge", None, environments, False)
