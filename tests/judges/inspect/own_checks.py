"""What Inspect's portable suite does not ask: cancelled commands, limits, and a session that is over."""

import asyncio
import time

import pytest
from inspect_ai.util import OutputLimitExceededError, SandboxEnvironment, SandboxUnavailableError
from inspect_ai.util._sandbox.limits import override_max_exec_output_size
from inspect_ai.util._sandbox.registry import registry_find_sandboxenv

from crank.integrations.inspect_sandbox import CrankSandboxConfig


async def test_a_cancelled_command_ends_and_the_session_lives(sandbox_env: SandboxEnvironment) -> None:
    """Inspect's own time limits cancel; the command must not hold up what comes after it."""
    await sandbox_env.write_file("kept", "1")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await sandbox_env.exec(["sleep", "100"])
    began = time.monotonic()
    assert (await sandbox_env.exec(["cat", "kept"])).stdout == "1"
    assert time.monotonic() - began < 20


async def test_commands_at_once_all_answer(sandbox_env: SandboxEnvironment) -> None:
    """Tool calls that a model makes in parallel wait for each other."""
    ended = await asyncio.gather(*(sandbox_env.exec(["echo", str(number)]) for number in range(6)))
    assert [result.stdout.strip() for result in ended] == [str(number) for number in range(6)]


async def test_long_output_comes_whole_and_longer_is_refused(sandbox_env: SandboxEnvironment) -> None:
    """Three million characters are brought; beyond Inspect's limit the beginning comes with the refusal."""
    result = await sandbox_env.exec(["head", "-c", "3000000", "/dev/zero"])
    assert result.stdout == "\0" * 3_000_000
    with override_max_exec_output_size(1_000), pytest.raises(OutputLimitExceededError) as refused:
        await sandbox_env.exec(["seq", "10000"])
    assert str(refused.value.truncated_output).startswith("1\n2\n3\n")


async def test_a_limit_ends_the_session_and_says_so() -> None:
    """Too much memory is the command's failure with its reason; afterwards the sandbox is unavailable, not silent."""
    provider = registry_find_sandboxenv("crank")
    config = CrankSandboxConfig(memory_bytes=400 << 20)
    environments = await provider.sample_init("judge", config, {})
    sandbox = environments["default"]
    try:
        result = await sandbox.exec(["python3", "-c", "x = bytearray(b'1') * (1 << 30); print(len(x))"])
        assert not result.success
        if "MemoryError" in result.stderr:
            # No control group holds this: the command itself saw that there is no more, and nobody was killed.
            assert (await sandbox.exec(["true"])).success
            return
        if result.returncode == 137:
            assert "memory" in result.stderr.lower()
        with pytest.raises(SandboxUnavailableError):
            await sandbox.exec(["true"])
        with pytest.raises(SandboxUnavailableError):
            await sandbox.read_file("kept")
    finally:
        await provider.sample_cleanup("judge", config, environments, False)
