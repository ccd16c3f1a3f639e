"""Every runner of functions keeps the promises of its port: over a scripted sandbox, and over the real one."""

from pathlib import Path

import pytest
from tests.support import author_tools

from crank.bootstrap.module import describe
from crank.config import load
from crank.domain.capability import Isolation
from crank.domain.outcome import End, Reason
from crank.domain.profile import Limits
from crank.ports import FunctionRunner, FunctionSpec, ModuleBuild, SandboxRunner
from crank.sandbox.runner import NamespaceRunner
from crank.testing.contracts_functions import FunctionContract
from crank.testing.fake_sandbox import FakeSandboxRunner, ScriptedRun
from crank.worker.app import function_offers
from crank.worker.call import CODE
from crank.worker.functions import SandboxedFunctions

_TARGET = "tests.support.author_tools:app"


class TestFunctionsOverAScript(FunctionContract):
    """The protocol alone."""

    async def make_runner(self, *, waits: bool) -> FunctionRunner:
        answer = {"reason": "exited", "exit_code": 0, "has_result": True, "result": 42}
        run = ScriptedRun(end=End(Reason.EXITED, exit_code=0), has_result=True, result=answer)
        if waits:
            run = ScriptedRun(output=(("stdout", "begun\n"),), end=None)
        build = ModuleBuild(
            "tools", ("tools",), "/python", "3.11", ("/tools",), (("/tools", Path("/tools")),), Limits()
        )
        return SandboxedFunctions(FakeSandboxRunner({CODE: run}), build)

    def make_spec(self, isolation: Isolation, *, waits: bool) -> FunctionSpec:
        return FunctionSpec("tools:app", "tools.wait" if waits else "tools.answer", Limits(), isolation)


class _Owning(SandboxedFunctions):
    """Ends its sandbox runner with itself."""

    def __init__(self, sandbox: SandboxRunner, build: ModuleBuild) -> None:
        super().__init__(sandbox, build)
        self._own = sandbox

    async def stop(self) -> None:
        await super().stop()
        await self._own.stop()


@pytest.mark.system
class TestFunctionsInTheSandbox(FunctionContract):
    """The real walls around an author's real module."""

    async def make_runner(self, *, waits: bool) -> FunctionRunner:
        sandbox = NamespaceRunner(parked=1)
        await sandbox.start()
        return _Owning(sandbox, describe(load(), "tools", _TARGET, function_offers(author_tools.app, _TARGET)))

    def make_spec(self, isolation: Isolation, *, waits: bool) -> FunctionSpec:
        return FunctionSpec(_TARGET, "text.wait" if waits else "text.answer", Limits(), isolation)
