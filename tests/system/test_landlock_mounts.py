"""Folders and profiles of the host on the tier without namespaces, where nobody can lend a job the right to read."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from crank.domain.outcome import Outcome
from crank.domain.profile import Limits
from crank.errors import SandboxError
from crank.ports import MountBinding, SandboxSpec
from crank.sandbox.tiers import LandlockRunner
from crank.testing.contracts_sandbox import RecordingSink
from tests.support.rootfs import make_build, make_rootfs

pytestmark = [pytest.mark.system, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Give a folder that every account may enter, with a root in it."""
    folder = Path(tempfile.mkdtemp(prefix="tests-of-crank-"))
    folder.chmod(0o755)
    make_rootfs(folder / "rootfs")
    yield folder
    shutil.rmtree(folder)


async def _run(spec: SandboxSpec, code: str) -> Outcome:
    runner = LandlockRunner(parked=0)
    try:
        await runner.start()
        session = await runner.open(spec)
        outcome = await session.run_python(code, None, RecordingSink())
        await session.close()
        return outcome
    finally:
        await runner.stop()


def _spec(place: Path, *mounts: MountBinding) -> SandboxSpec:
    return SandboxSpec(make_build(place / "rootfs"), Limits(wall_sec=10.0), mounts)


async def test_a_mounted_folder_can_be_read_and_not_be_changed(place: Path) -> None:
    """It lies under /in by its name, its files can be read, and nothing in it or beside it can be made, moved or emptied."""
    folder, beside = place / "papers", place / "beside"
    for each in (folder, beside):
        each.mkdir()
        (each / "a.txt").write_text("text")
        each.chmod(0o777)
        (each / "a.txt").chmod(0o666)
    code = f"""
import os
kept = []
for attempt in (lambda: open("/in/papers/b", "w"), lambda: open("/in/papers/a.txt", "w"), lambda: os.truncate("/in/papers/a.txt", 0),
                lambda: os.remove("/in/papers/a.txt"), lambda: os.rename("/in/papers/a.txt", "/scratch/a"), lambda: os.mkdir("/in/x"),
                lambda: os.open("/in/papers/a.txt", os.O_RDONLY | os.O_TRUNC), lambda: open({str(beside)!r} + "/a.txt"),
                lambda: open("/in/papers/../beside/a.txt")):
    try:
        attempt()
    except OSError:
        kept.append(True)
[os.listdir("/in"), open("/in/papers/a.txt").read(), len(kept)]
"""
    outcome = await _run(_spec(place, MountBinding("papers", folder)), code)
    assert outcome.result == [["papers"], "text", 9], outcome
    assert (folder / "a.txt").read_text() == "text"


async def test_a_folder_that_jobs_may_not_read_is_refused(place: Path) -> None:
    """Instead of a job that finds its folder closed there is a refusal that names the account and the way out."""
    if os.geteuid() != 0:
        pytest.skip("an ordinary user's jobs may read what the user may")
    folder = place / "private"
    folder.mkdir(mode=0o700)
    with pytest.raises(SandboxError) as refused:
        await _run(_spec(place, MountBinding("papers", folder)), "1")
    assert refused.value.error_code == "layer_permissions"
    assert "papers" in refused.value.message
    assert "chmod" in (refused.value.fix or "")


async def test_nothing_is_left_of_a_job_on_disk(place: Path) -> None:
    """Its folders go with it, however deep and however closed it made them."""
    grounds = (Path("/var/tmp"), Path("/tmp"))
    code = """
import os
for n in range(3000):
    os.mkdir("x" * 100, 0o700)
    os.chdir("x" * 100)
os.mkdir("closed", 0)
open("/out/file", "w").write("x")
result = "deep"
"""
    runner = LandlockRunner(parked=0)
    try:
        await runner.start()
        assert runner._link is not None
        # Others make such folders at the same time.
        own = f"crank-{runner._link.process.pid}-*"
        session = await runner.open(_spec(place))
        outcome = await session.run_python(code, None, RecordingSink())
        assert [entry for ground in grounds for entry in ground.glob(own)]
        await session.close()
    finally:
        await runner.stop()
    assert outcome.result == "deep", outcome
    after: list[Path] = []
    for _ in range(100):
        after = [entry for ground in grounds for entry in ground.glob(own)]
        if not after:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"left behind: {after}")
