"""The example that the demo shows, in the real sandbox with the real pandoc."""

import subprocess
import sys
from pathlib import Path

import pytest

from crank.domain.outcome import Outcome, Reason
from crank.ports import MountBinding, SandboxSpec
from crank.sandbox.runner import NamespaceRunner
from tests.support.profiles import REPO, project_store

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("profiles"), pytest.mark.U1]


class Heard:
    """Keeps what a job told of its progress."""

    def __init__(self) -> None:
        self.fractions: list[float] = []

    def output(self, stream: str, text: str, offset_bytes: int, at_sec: float) -> None:
        """Drop it; the outcome keeps it."""

    def progress(self, fraction: float | None, message: str) -> None:
        """Keep the fraction."""
        self.fractions.append(fraction or 0.0)


async def _run(documents: Path, builds: Path, heard: Heard) -> Outcome:
    build = project_store(builds).build("python-docs", "cpu", lambda _line: None)
    runner = NamespaceRunner()
    await runner.start()
    try:
        mount = MountBinding("docs", documents)
        session = await runner.open(SandboxSpec(build=build, limits=build.profile.limits, mounts=(mount,)))
        code = (REPO / "examples" / "convert_folder.py").read_text(encoding="utf-8")
        try:
            return await session.run_python(code, {"source": "docs"}, heard)
        finally:
            await session.close()
    finally:
        await runner.stop()


async def test_broken_documents_are_named_and_the_rest_is_converted(tmp_path: Path, builds: Path) -> None:
    """44 documents are converted in well under a minute, three are named with the reason, progress is told."""
    documents = tmp_path / "documents"
    maker = REPO / "examples" / "make_documents.py"
    subprocess.run([sys.executable, str(maker), str(documents)], check=True, capture_output=True)
    tmp_path.chmod(0o755)
    heard = Heard()
    outcome = await _run(documents, builds, heard)
    assert outcome.end.reason is Reason.EXITED, outcome.stderr.text
    assert outcome.result["converted"] == 44
    failed = {entry["file"]: entry["reason"] for entry in outcome.result["failed"]}
    assert set(failed) == {
        "broken-truncated.docx",
        "archive/broken-not-a-zip.odt",
        "guides/broken-no-container.epub",
    }
    assert all(failed.values())
    assert outcome.usage.wall_sec < 60
    assert heard.fractions == sorted(heard.fractions)
    assert heard.fractions[-1] == pytest.approx(1.0)
    assert outcome.stdout.text.count("\n") == 47
