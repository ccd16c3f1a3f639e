"""Each job's root is its own: jobs of one profile share its files, and nothing that can be done to an inode.

Two jobs run side by side in children of one zygote, the second looking for what the first left.
"""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crank.domain.profile import Limits
from crank.ports import MountBinding, ProfileBuild, SandboxSpec
from crank.sandbox.link import LauncherLink, launch
from crank.sandbox.runner import NamespaceRunner
from crank.testing.contracts_sandbox import RecordingSink
from tests.support.rootfs import make_build, make_rootfs

pytestmark = pytest.mark.system

_PLACES = (
    *("/", "/etc", "/etc/passwd", "/etc/mime.types", "/opt", "/usr", "/in", "/.crank", "/proc/loadavg", "/proc/keys"),
    *("/opt/python/lib/python3.11/os.py", "/proc/fs", "/dev", "/tmp"),
)
_LOCK = f"import fcntl\nopened = [(place, os.open(place, os.O_RDONLY)) for place in {_PLACES!r}]\n"
_HOLD = (
    f"import os\n{_LOCK}for place, file in opened:\n    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\nlen(opened)"
)
_MEET = f"""
import os
{_LOCK}
met = []
for place, file in opened:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        met.append(place)
result = [len(opened), met]
"""


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> ProfileBuild:
    """Give a bare build that keeps a file in /etc, and has two names for its libraries."""
    rootfs = make_rootfs(tmp_path_factory.mktemp("own-root") / "rootfs")
    (rootfs / "etc").mkdir()
    (rootfs / "etc/mime.types").write_text("text/plain txt\n")
    (rootfs / "opt/alias").symlink_to("python/lib")
    (rootfs / "python").symlink_to("opt/python")
    return make_build(rootfs)


@pytest.fixture(scope="module")
def link() -> Iterator[LauncherLink]:
    """Give a launcher for this module."""
    link = launch()
    yield link
    link.close()


async def _run(link: LauncherLink, spec: SandboxSpec, code: str) -> Any:
    session = await NamespaceRunner(link, parked=0).open(spec)
    try:
        outcome = await session.run_python(code, None, RecordingSink())
    finally:
        await session.close()
    assert outcome.end.exit_code == 0, outcome.stderr.text
    return outcome.result


async def test_locks_of_two_jobs_do_not_meet(link: LauncherLink, build: ProfileBuild) -> None:
    """What one job has locked, files and folders of the profile and of the root itself, another locks as well."""
    spec = SandboxSpec(build, Limits())
    holder = await NamespaceRunner(link, parked=0).open(replace(spec, lasting=True))
    try:
        held = await holder.run_python(_HOLD, None, RecordingSink())
        assert held.result == len(_PLACES), held.stderr.text
        assert await _run(link, spec, _MEET) == [len(_PLACES), []]
        # The same job meets itself: the question can be answered with yes.
        again = await holder.run_python(_MEET, None, RecordingSink())
        assert again.result == [len(_PLACES), list(_PLACES)]
    finally:
        await holder.close()


async def test_a_job_lists_its_own_mounts_alone(link: LauncherLink, build: ProfileBuild, tmp_path: Path) -> None:
    """No mount of the zygote's cell and no path of the host is in a job's list, and nothing is mounted twice."""
    folder = tmp_path / "docs"
    folder.mkdir()
    spec = SandboxSpec(build, Limits(), mounts=(MountBinding("docs", folder),))
    text = await _run(link, spec, "open('/proc/self/mountinfo').read()")
    lines = [line.split() for line in text.splitlines()]
    places = [fields[4] for fields in lines]
    assert len(places) == len(set(places))
    assert {"/", "/opt", "/usr", "/in", "/in/docs", "/proc", "/scratch", "/dev/null"} <= set(places)
    assert not {place for place in places if place.startswith("/.crank") or place == "/etc/mime.types"}
    devices = {place for place in places if place.startswith("/dev/") and place != "/dev/shm"}
    shown = {fields[3] for fields in lines if fields[4] not in devices and not fields[4].startswith("/proc/")}
    assert shown == {"/"}, "a mount's place in its file system tells of the host"
    assert str(build.rootfs) not in text
    assert str(tmp_path) not in text


async def test_a_file_of_the_profile_s_etc_is_there(link: LauncherLink, build: ProfileBuild) -> None:
    """A single file that a profile keeps in /etc reads as it was built, and cannot be changed."""
    code = "import os\nresult = [open('/etc/mime.types').read(), os.access('/etc/mime.types', os.W_OK)]"
    assert await _run(link, SandboxSpec(build, Limits()), code) == ["text/plain txt\n", False]


async def test_a_library_is_loaded_once_by_any_name(link: LauncherLink, build: ProfileBuild) -> None:
    """A library that the zygote has loaded is found again by its other names, not loaded beside itself."""
    code = """
import _ctypes, os
with open("/proc/self/maps") as source:
    paths = {line.split()[5] for line in source if "/lib-dynload/" in line}
result = [len(paths) > 5, []]
for path in paths:
    for name in (path, path.removeprefix("/opt")):
        if _ctypes.dlopen(path, os.RTLD_NOW) != _ctypes.dlopen(name, os.RTLD_NOW | os.RTLD_NOLOAD):
            result[1].append(name)
"""
    assert await _run(link, SandboxSpec(build, Limits()), code) == [True, []]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
async def test_mounts_inside_a_folder_are_shown(link: LauncherLink, build: ProfileBuild, tmp_path: Path) -> None:
    """A folder with another file system inside is shown with it, and so is the folder that comes after it."""
    for name in ("a", "b"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "plain").touch()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp_path / "a/inner")], check=True)
    try:
        (tmp_path / "a/inner/mounted").touch()
        mounts = tuple(MountBinding(name, tmp_path / name) for name in ("a", "b"))
        code = "import os\n[os.listdir('/in/a/inner'), os.listdir('/in/b/inner'), open('/proc/self/mountinfo').read()]"
        first, second, text = await _run(link, SandboxSpec(build, Limits(), mounts=mounts), code)
    finally:
        subprocess.run(["umount", str(tmp_path / "a/inner")], check=True)
    assert (first, second) == (["mounted"], ["plain"])
    assert [line.split(" - ")[1].split()[0] for line in text.splitlines() if line.split()[4] == "/in/b"] == ["overlay"]


async def test_jobs_side_by_side_build_their_roots_at_once(link: LauncherLink, build: ProfileBuild) -> None:
    """Roots that are built at the same time are each whole."""
    code = "import os\n[sorted(os.listdir('/opt')), os.path.ismount('/opt'), os.listdir('/in')]"
    spec = SandboxSpec(build, Limits())
    results = await asyncio.gather(*(_run(link, spec, code) for _ in range(8)))
    assert results == [[["alias", "python", "site"], True, []]] * 8
