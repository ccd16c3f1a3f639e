"""Every sandbox runner keeps the promises of its port: the real one all of them, the fake those of protocol."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.rootfs import make_build, make_rootfs

from crank.domain.outcome import End, Reason
from crank.domain.profile import Limits
from crank.ports import SandboxRunner, SandboxSpec
from crank.sandbox.runner import NamespaceRunner
from crank.testing.contracts_lasting import DIES, ECHOES, FAILS, LEAVES, SETS, WAITS, LastingExecution, LastingProtocol
from crank.testing.contracts_sandbox import (
    FOREVER,
    HELLO,
    LEAVES_A_FILE,
    SandboxExecution,
    SandboxProtocol,
)
from crank.testing.fake_sandbox import FakeSandboxRunner, ScriptedRun


def _limits(**changed: float) -> Limits:
    return replace(Limits(wall_sec=20.0), **changed)  # type: ignore[arg-type]


class TestFakeSandboxRunner(SandboxProtocol):
    """The scripted runner."""

    def make_runner(self) -> SandboxRunner:
        script = {
            HELLO: ScriptedRun(output=(("stdout", "hello\n"),), has_result=True, result=42),
            FOREVER: ScriptedRun(output=(("stdout", "begun\n"),), end=None),
            LEAVES_A_FILE: ScriptedRun(files={"report.md": (b"# done", "text/markdown")}),
        }
        return FakeSandboxRunner(script, default=ScriptedRun(end=End(Reason.EXITED, exit_code=0)))

    def make_spec(self, **limits: float) -> SandboxSpec:
        return SandboxSpec(make_build(Path("/nowhere")), _limits(**limits))


class TestFakeLastingSession(LastingProtocol):
    """The scripted runner, with sessions that last."""

    def make_runner(self) -> SandboxRunner:
        script = {
            SETS: ScriptedRun(has_result=True, result="set"),
            FAILS: ScriptedRun(end=End(Reason.RAISED, exit_code=1, message="ZeroDivisionError: division by zero")),
            WAITS: ScriptedRun(output=(("stdout", "begun\n"),), end=None),
            ECHOES: ScriptedRun(echoes_stdin=True),
            LEAVES: ScriptedRun(writes={"made/deep/a.txt": b"hello"}),
            DIES: ScriptedRun(end=End(Reason.SIGNALLED, signal="SIGKILL")),
        }
        return FakeSandboxRunner(script)

    def make_spec(self, **limits: float) -> SandboxSpec:
        return SandboxSpec(make_build(Path("/nowhere")), _limits(**limits), lasting=True)


@pytest.mark.system
class TestNamespaceRunner(SandboxExecution):
    """The real runner, as whoever runs the tests."""

    rootfs: Path

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _root(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        cls.rootfs = make_rootfs(tmp_path_factory.mktemp("sandbox") / "rootfs")

    def make_runner(self) -> SandboxRunner:
        return NamespaceRunner()

    def make_spec(self, **limits: float) -> SandboxSpec:
        return SandboxSpec(make_build(self.rootfs), _limits(**limits))


@pytest.mark.system
class TestNamespaceLastingSession(LastingExecution):
    """The real runner, with sessions that last."""

    rootfs: Path

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _root(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        cls.rootfs = make_rootfs(tmp_path_factory.mktemp("lasting") / "rootfs")

    def make_runner(self) -> SandboxRunner:
        return NamespaceRunner()

    def make_spec(self, **limits: float) -> SandboxSpec:
        return SandboxSpec(make_build(self.rootfs), _limits(**limits), lasting=True)
