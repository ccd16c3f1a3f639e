"""What Inspect's sandbox does inside a session, done here by an ordinary process."""

import base64
import errno
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from crank.integrations import guest_inspect
from crank.integrations.guest_inspect import perform
from tests.support.node import until

INLINE = 1_000


def order(place: Path, **wanted: Any) -> dict[str, Any]:
    """Return an order with nothing unusual, but for `wanted`."""
    return {
        "work": "exec", "number": 1, "box": str(place / "box"), "inline": INLINE, "most": 100_000,
        "cwd": str(place), "env": {}, "user": None, "timeout_sec": 20.0, **wanted,
    }  # fmt: skip


def python(code: str) -> list[str]:
    """Return the command that runs some Python."""
    return [sys.executable, "-c", code]


def text(answer: dict[str, Any], name: str) -> str:
    """Return what an answer holds of a stream."""
    return base64.b64decode(answer[name]).decode()


def test_a_program_gets_its_folder_its_variables_and_its_input(tmp_path: Path) -> None:
    """The four things that a command may be given reach it, and both streams and the code come back."""
    code = "import os, sys; print(os.getcwd(), os.environ['A'], sys.stdin.read()); sys.stderr.write('e'); sys.exit(3)"
    given = {"argv": python(code), "env": {"A": "b c"}, "input": base64.b64encode(b"in").decode()}
    answer = perform(order(tmp_path, **given))
    assert answer["code"] == 3
    assert text(answer, "stdout") == f"{tmp_path} b c in\n"
    assert text(answer, "stderr") == "e"


def test_an_order_and_an_input_may_lie_in_files(tmp_path: Path) -> None:
    """What is too long for a request is read from the box, and the input is gone from there at once."""
    (tmp_path / "input").write_bytes(b"x" * 70_000)
    code = "import sys; print(len(sys.stdin.read()), len(sys.argv[1]))"
    whole = order(tmp_path, argv=[*python(code), "y" * 9_000], input_at=str(tmp_path / "input"))
    (tmp_path / "order").write_text(json.dumps(whole))
    assert text(perform({"order": str(tmp_path / "order")}), "stdout") == "70000 9000\n"
    assert not (tmp_path / "input").exists()


def test_long_output_is_left_in_the_box(tmp_path: Path) -> None:
    """Beyond what an answer holds, each stream is a file of its own."""
    answer = perform(order(tmp_path, argv=python("print('o' * 5000)")))
    assert Path(answer["stdout_at"]).read_bytes() == b"o" * 5_000 + b"\n"
    assert Path(answer["stderr_at"]).read_bytes() == b""


def test_too_long_output_is_named_and_not_kept(tmp_path: Path) -> None:
    """Beyond the caller's limit only its beginning comes back."""
    answer = perform(order(tmp_path, argv=python("print('o' * 5000)"), most=2_000))
    assert answer["too_long"] == "stdout"
    assert text(answer, "head") == "o" * (INLINE // 2)
    assert not (tmp_path / "box").exists()


@pytest.mark.parametrize(
    ("argv", "cwd", "code", "word"),
    [
        (["no-such-program"], None, 127, "No such file"),
        (python("0"), "/no/such/folder", 127, "/no/such/folder"),
        (["/etc/passwd/x"], None, 126, "Not a directory"),
    ],
    ids=["program", "folder", "path"],
)
def test_what_cannot_start_ends_as_in_a_shell(
    tmp_path: Path, argv: list[str], cwd: str | None, code: int, word: str
) -> None:
    """A missing program or folder is the command's failure, told on its stderr."""
    answer = perform(order(tmp_path, argv=argv, cwd=cwd or str(tmp_path)))
    assert answer["code"] == code
    assert word in text(answer, "stderr")


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        ({"argv": ["/etc/passwd"]}, errno.EACCES),
        ({"argv": ["a\0b"]}, errno.EINVAL),
        ({"argv": ["true"], "env": {"A=B": "1"}}, errno.EINVAL),
        ({"work": "read", "path": "/no/such"}, errno.ENOENT),
        ({"work": "read", "path": "/etc"}, errno.EISDIR),
        ({"work": "write", "path": "/etc", "input": ""}, errno.EISDIR),
        ({"work": "write", "path": "/etc/passwd/x/y", "input": ""}, errno.ENOTDIR),
    ],
)
def test_a_refusal_is_an_answer(tmp_path: Path, wanted: dict[str, Any], number: int) -> None:
    """What the kernel refuses comes back by its number."""
    assert perform(order(tmp_path, **wanted))["errno"] == number


def test_nobody_else_can_be_asked_for(tmp_path: Path) -> None:
    """Only the account that runs already is accepted, by name or number."""
    assert perform(order(tmp_path, argv=["true"], user=str(os.getuid())))["code"] == 0
    assert "code" not in perform(order(tmp_path, argv=["true"], user="somebody-else"))


def test_a_deadline_ends_the_children_too(tmp_path: Path) -> None:
    """When the time is up, what the command started ends with it."""
    code = (
        "import subprocess, sys, time, os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        "open('pids', 'w').write(f'{os.getpid()} {child.pid}'); time.sleep(60)"
    )
    assert perform(order(tmp_path, argv=python(code), timeout_sec=10.0)) == {"timed_out": True}
    # The kernel delivers a kill at once and ends the process when it gets to it; only the leader was waited for.
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    until(lambda: not any(map(_runs, pids)), what="what was killed to end", deadline_sec=10.0)


def _waits() -> bool:
    """Tell whether the main thread waits for its command: it may have begun before whoever starts it knows."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and frame.f_code is not guest_inspect._wait.__code__:
        frame = frame.f_back
    return frame is not None


def test_an_interrupt_ends_the_command(tmp_path: Path) -> None:
    """A cancelled command leaves nothing running, and the interrupt goes on to the session."""
    code = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"

    def interrupt() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not (_waits() and (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        perform(order(tmp_path, argv=python(code)))
    assert not _runs(int((tmp_path / "pid").read_text()))


def test_a_program_left_behind_holds_nothing_up(tmp_path: Path) -> None:
    """A background process that keeps the streams open does not delay the answer, nor speak into a later one."""
    child = "import time; time.sleep(1); print('late', flush=True); time.sleep(60)"
    code = f"import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {child!r}]); print(p.pid)"
    answer = perform(order(tmp_path, argv=python(code)))
    pid = int(text(answer, "stdout"))
    try:
        assert _runs(pid)
        assert text(perform(order(tmp_path, argv=python("print('mine')"))), "stdout") == "mine\n"
    finally:
        os.kill(pid, signal.SIGKILL)


def test_files_go_both_ways(tmp_path: Path) -> None:
    """What was written is read back, folders above it are made, and a long file is left in the box."""
    target = tmp_path / "a" / "b.bin"
    octets = bytes(range(256)) * 20
    write = order(tmp_path, work="write", path=str(target), input=base64.b64encode(octets).decode())
    assert perform(write) == {}
    answer = perform(order(tmp_path, work="read", path=str(target)))
    assert Path(answer["content_at"]).read_bytes() == octets
    assert perform(order(tmp_path, work="read", path=str(target), most=100))["too_long"] == "content"


def _runs(pid: int) -> bool:
    """Tell whether a process runs, a zombie not counted."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
