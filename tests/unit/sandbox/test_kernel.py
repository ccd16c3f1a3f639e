"""The thin wrappers: errors as OSError, descriptors kept and closed as told, no way out of a folder."""

import errno
import itertools
import os
import signal
from pathlib import Path

import pytest

from crank.sandbox import kernel, landlock, watch
from crank.sandbox.guest_proof import examine


def _in_child(work: str) -> int:
    """Run statements in a forked child with the wrappers at hand; return its exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            exec(work, {"kernel": kernel, "landlock": landlock, "os": os, "errno": errno})
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_errors_are_faults() -> None:
    """A refused call raises with its number and its name."""
    with pytest.raises(OSError, match="openat2") as fault:
        kernel.open_beneath(-1, b"x", os.O_RDONLY)
    assert fault.value.errno == errno.EBADF


def test_an_unknown_call_does_not_exist() -> None:
    """A call that this machine has no number for answers as the kernel would."""
    with pytest.raises(OSError, match="no_such_call") as fault:
        kernel.syscall("no_such_call")
    assert fault.value.errno == errno.ENOSYS


@pytest.mark.parametrize("path", [b"../x", b"/etc/passwd", b"link", b"up/x", b"a/../../x"])
def test_no_path_leaves_the_folder(path: bytes, tmp_path: Path) -> None:
    """Dots, absolute names and links of every kind end at the folder's edge."""
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "x").write_text("outside")
    (folder / "link").symlink_to(tmp_path / "x")
    (folder / "up").symlink_to("..")
    (folder / "a").mkdir()
    root = os.open(folder, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="openat2"):
            kernel.open_beneath(root, path, os.O_RDONLY)
    finally:
        os.close(root)


def test_only_the_named_descriptors_stay_open() -> None:
    """What is not kept is closed, also above and between."""
    work = (
        "made = [os.dup(2) for _ in range(20)]\nkeep = [made[3], made[9], made[10]]\nkernel.close_all_but(keep)\n"
        "open_now = []\n"
        "for number in range(3, 200):\n    try:\n        os.fstat(number)\n        open_now.append(number)\n"
        "    except OSError:\n        pass\n"
        "assert open_now == keep, open_now"
    )
    assert _in_child(work) == 0


def test_capabilities_are_given_up_for_good() -> None:
    """After the drop the sets are empty and cannot be filled again."""
    work = (
        "kernel.effective_capabilities() and kernel.drop_bounding_set()\nkernel.drop_capabilities()\n"
        "assert kernel.effective_capabilities() == 0\n"
        "status = open('/proc/self/status').read()\n"
        "assert 'CapPrm:\\t0000000000000000' in status"
    )
    assert _in_child(work) == 0


def test_a_title_covers_the_arguments() -> None:
    """After a title is put on, no other process reads this one's arguments."""
    work = (
        "kernel.overwrite_arguments(kernel.argument_area(), 'crank-test')\n"
        "assert open('/proc/self/cmdline').read().strip('\\0') == 'crank-test'"
    )
    assert _in_child(work) == 0


def test_landlock_confines_a_process(tmp_path: Path) -> None:
    """A confined process reads what it may and writes only where it may."""
    version = landlock.abi()
    if version == 0:
        pytest.skip("this kernel has no Landlock")
    (tmp_path / "free").mkdir()
    (tmp_path / "read").write_text("x")
    work = (
        f"kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)\n"
        f"every = landlock.file_rights({version})\n"
        f"landlock.restrict([('/', landlock.READ), ({str(tmp_path / 'free')!r}, every), ('/dev/null', every)], version={version})\n"
        f"open({str(tmp_path / 'read')!r}).read()\n"
        f"open({str(tmp_path / 'free' / 'new')!r}, 'w').write('x')\n"
        f"open('/dev/null', 'w').write('x')\n"
        f"try:\n    open({str(tmp_path / 'read')!r}, 'a')\n    os._exit(2)\n"
        f"except PermissionError:\n    pass\n"
    )
    assert _in_child(work) == 0


def test_rights_grow_with_the_version() -> None:
    """Each version of Landlock is asked only for what it knows."""
    rights = [landlock.file_rights(version) for version in range(1, 8)]
    assert all(older & newer == older for older, newer in itertools.pairwise(rights))
    assert rights[0] == 0x1FFF
    assert rights[4] & landlock.IOCTL_DEV


def test_a_tree_is_counted_from_its_proc() -> None:
    """Processes, given by number, are added up to CPU time, memory and a number of threads."""
    reading = watch.add_up([os.getppid(), os.getpid()], first=os.getppid())
    assert reading.tasks > 0
    assert reading.memory_bytes > 1 << 20
    assert reading.cpu_sec > 0


def test_a_look_is_over_in_time() -> None:
    """What a look has not come to when its time is up is left out, so that a deadline is not late."""
    assert watch.add_up([os.getppid(), os.getpid()], first=os.getppid(), until=0.0) == watch.TreeReading(0.0, 0, -1)


def test_short_turns_change_nothing_else() -> None:
    """Whoever asks for short turns keeps its priority and its policy."""
    work = "os.nice(3)\nkernel.ask_for_short_turns()\nassert (os.getpriority(0, 0), os.sched_getscheduler(0)) == (3, 0)"
    assert _in_child(work) == 0


def test_missing_walls_are_found() -> None:
    """Outside every sandbox, the guest's own proof finds the walls that are not there."""
    missing, _ = examine(landlock=True, environment=[])
    assert {"seccomp", "mounts", "namespaces", "environment"} <= set(missing)
    assert all(missing.values())


def test_a_signal_reaches_exactly_one_process() -> None:
    """A signal by descriptor reaches the process it was opened for."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    kernel.send_signal(pidfd, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        kernel.send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
