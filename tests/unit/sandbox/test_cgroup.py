"""Control groups of both versions, on a made-up file system that behaves as the kernel's does."""

import os
import shutil
from pathlib import Path

import pytest

from crank.sandbox import cgroup

_V2_FILES = {
    "cgroup.procs": "",
    "cgroup.kill": "",
    "cgroup.subtree_control": "",
    "memory.max": "max",
    "memory.peak": "4096",
    "memory.swap.max": "max",
    "memory.oom.group": "0",
    "memory.events": "low 0\noom 0\noom_kill 0",
    "pids.max": "max",
    "pids.events": "max 0",
    "cpu.weight": "100",
    "cpu.stat": "usage_usec 1500000\nuser_usec 1",
}
_V1_FILES = {
    "memory": {
        "memory.limit_in_bytes": "",
        "memory.memsw.limit_in_bytes": "",
        "memory.swappiness": "60",
        "memory.max_usage_in_bytes": "8192",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2",
    },
    "pids": {"pids.max": "max", "pids.events": "max 3"},
    "cpuacct": {"cpuacct.usage": "2500000000"},
    "cpu": {"cpu.shares": "1024"},
}


class _Kernel:
    """Fills every folder made below its mounts with control files, and empties it when it is removed."""

    def __init__(self, files: Path) -> None:
        self.files = files
        self.make, self.remove = Path.mkdir, Path.rmdir
        (files / "proc/self").mkdir(parents=True)
        (files / "proc/7").mkdir(parents=True)
        (files / "proc/7/stat").write_text("7 (a) b) S 1 " + " ".join(str(n) for n in range(5, 40)))

    def mount_v2(self, *, delegated: bool = True) -> Path:
        top = self.files / "sys/fs/cgroup"
        own = top / "user.slice/app.scope"
        own.mkdir(parents=True)
        for folder in (top, own.parent, own):
            (folder / "cgroup.subtree_control").write_text("")
        self.controlled = delegated
        (self.files / "proc/self/mountinfo").write_text("30 20 0:1 / /sys/fs/cgroup rw shared:1 - cgroup2 cgroup2 rw\n")
        (self.files / "proc/self/cgroup").write_text("0::/user.slice/app.scope\n")
        return top

    def mount_v1(self, *, controllers: tuple[str, ...]) -> None:
        lines = []
        for controller in controllers:
            (self.files / f"sys/fs/cgroup/{controller}/own").mkdir(parents=True)
            lines.append(f"30 20 0:1 / /sys/fs/cgroup/{controller} rw - cgroup cgroup rw,{controller}\n")
        (self.files / "proc/self/mountinfo").write_text("".join(lines))
        groups = "".join(f"{n}:{controller}:/own\n" for n, controller in enumerate(controllers))
        (self.files / "proc/self/cgroup").write_text(groups)

    def mkdir(self, folder: Path, *args: object, **options: object) -> None:
        self.make(folder, *args, **options)  # type: ignore[arg-type]
        relative = folder.relative_to(self.files / "sys/fs/cgroup").parts
        if (self.files / "sys/fs/cgroup/cgroup.subtree_control").exists():
            control = _V2_FILES if self.controlled else {"cgroup.procs": ""}
        else:
            control = {"cgroup.procs": "", **_V1_FILES[relative[0]]}
        for name, text in control.items():
            # A write to a control file replaces its value whatever the length; a truncated plain file comes closest.
            (folder / name).write_text(text if "max" not in text or "." not in name or " " in text else "")

    def rmdir(self, folder: Path) -> None:
        if not folder.exists():
            raise FileNotFoundError(folder)
        if [entry for entry in folder.iterdir() if entry.is_dir()]:
            raise OSError(16, "busy")
        shutil.rmtree(folder)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Kernel:
    """Give a made-up kernel."""
    kernel = _Kernel(tmp_path)

    def mkdir(folder: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        if "crank-" in str(folder.relative_to(tmp_path)):
            kernel.mkdir(folder, mode, parents, exist_ok)
        else:
            kernel.make(folder, mode, parents, exist_ok)

    monkeypatch.setattr(Path, "mkdir", mkdir)

    def rmdir(folder: Path) -> None:
        kernel.rmdir(folder)

    monkeypatch.setattr(Path, "rmdir", rmdir)
    return kernel


def test_version_2_is_used_where_it_is_delegated(kernel: _Kernel) -> None:
    """A group of version 2 gets its limits, is read, and goes away."""
    kernel.mount_v2()
    groups = cgroup.detect(7, files=kernel.files)
    assert groups is not None
    assert groups.flavour == "v2"
    group = groups.make("s1", memory_bytes=1 << 20, processes=5)
    [folder] = kernel.files.glob("sys/fs/cgroup/**/crank-7-*/s1")
    written = {name: (folder / name).read_text() for name in ("memory.max", "pids.max", "memory.oom.group")}
    assert written == {"memory.max": "1048576", "pids.max": "5", "memory.oom.group": "1"}
    group.join(42)
    assert (folder / "cgroup.procs").read_text() == "42"
    assert group.members() == [42]
    (folder / "cgroup.procs").write_text("")
    (folder / "memory.events").write_text("oom_kill 1\n")
    (folder / "pids.events").write_text("max 9\n")
    assert group.read() == cgroup.Reading(1.5, 4096, 1, 9)
    assert group.remove()
    groups.close()
    assert not list(kernel.files.glob("sys/fs/cgroup/**/crank-*"))


def test_version_2_without_controllers_is_not_used(kernel: _Kernel) -> None:
    """A hierarchy that counts nothing is not mistaken for one that does, and nothing stays behind."""
    kernel.mount_v2(delegated=False)
    assert cgroup.detect(7, files=kernel.files) is None
    assert not list(kernel.files.glob("sys/fs/cgroup/**/crank-*"))


def test_version_1_is_used_beside_an_empty_version_2(kernel: _Kernel) -> None:
    """Separate hierarchies are used together, each below this process's own group."""
    kernel.mount_v1(controllers=("memory", "pids", "cpuacct", "cpu"))
    groups = cgroup.detect(7, files=kernel.files)
    assert groups is not None
    assert groups.flavour == "v1"
    group = groups.make("s1", memory_bytes=1 << 20, processes=5)
    [memory] = kernel.files.glob("sys/fs/cgroup/memory/own/crank-7-*/s1")
    assert (memory / "memory.limit_in_bytes").read_text() == "1048576"
    assert (memory / "memory.memsw.limit_in_bytes").read_text() == "1048576"
    assert group.read() == cgroup.Reading(2.5, 8192, 2, 3)
    assert group.remove()
    groups.close()


def test_version_1_needs_all_that_counts(kernel: _Kernel) -> None:
    """Without a memory or process controller there is no half of a group."""
    kernel.mount_v1(controllers=("pids", "cpu"))
    assert cgroup.detect(7, files=kernel.files) is None


def test_only_groups_of_the_dead_are_swept(kernel: _Kernel) -> None:
    """A place is removed when the process that made it is gone, also when its number is used again."""
    kernel.mount_v1(controllers=("memory", "pids", "cpuacct"))
    groups = cgroup.detect(7, files=kernel.files)
    assert groups is not None
    parent = kernel.files / "sys/fs/cgroup/pids/own"
    for name in ("crank-8-100", "crank-7-1", "crank-x-1", "other-8-100"):
        kernel.make(parent / name)
    kernel.make(parent / "crank-8-100/s1")
    (parent / "crank-8-100" / "cgroup.procs").write_text("")
    assert groups.sweep() == ["crank-7-1", "crank-8-100"]
    left = {path.name for path in parent.iterdir()}
    assert left == {cgroup.place_name(7, files=kernel.files), "crank-x-1", "other-8-100"}


def test_a_process_is_known_by_its_start() -> None:
    """The start time of a process is read past a name with spaces and brackets."""
    ticks = cgroup.started_ticks(os.getpid())
    assert ticks is not None
    assert ticks.isdigit()
    assert cgroup.started_ticks(999_999_999) is None


def test_version_2_is_not_limited_below_what_is_in_use(kernel: _Kernel) -> None:
    """A lower limit than a group already needs would kill it, so it is refused and the old one stays."""
    kernel.mount_v2()
    groups = cgroup.detect(7, files=kernel.files)
    assert groups is not None
    group = groups.make("s1", memory_bytes=1 << 20, processes=5)
    [folder] = kernel.files.glob("sys/fs/cgroup/**/crank-7-*/s1")
    (folder / "memory.current").write_text("500000\n")
    with pytest.raises(OSError, match="in use"):
        group.limit_memory(400_000)
    (folder / "memory.max").write_text("")
    group.limit_memory(600_000)
    assert (folder / "memory.max").read_text() == "600000"
    groups.close()
