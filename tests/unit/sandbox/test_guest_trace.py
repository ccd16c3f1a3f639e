"""Tracebacks show the job's own lines and nothing of the guest."""

import functools
import io
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from crank.sandbox import guest_result
from crank.sandbox.guest_trace import begin, format_traceback, is_ours

_NAME = "job.py"


def _raised_by(code: str, **names: Any) -> str:
    """Run code as the guest does and return the traceback of what it raises."""
    try:
        exec(compile(code.removeprefix("\ufeff"), _NAME, "exec"), {"__name__": "__main__", **names})
    except BaseException as fault:
        shown = format_traceback(fault, {_NAME: code})
        # This test is the caller that a job does not have.
        return "".join(part for part in shown.splitlines(keepends=True) if "test_guest_trace" not in part)
    raise AssertionError("nothing was raised")


def test_a_statement_of_several_lines_points_at_the_line() -> None:
    """The line is that of the operation that failed, not of the statement's begin."""
    shown = _raised_by("def f(a):\n    return (a +\n            1 /\n            0)\n\nf(\n  1)\n")
    assert 'File "job.py", line 6, in <module>' in shown
    assert 'File "job.py", line 3, in f\n    1 /\n' in shown


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_any_kind_count_once(end: str) -> None:
    """Line ends of every system, a byte order mark, and characters that only look like line ends keep the numbers right."""
    code = end.join(["\ufeffx = 1", "s = '\u2028 \x0c \x85'", "def g():", "    raise KeyError(x)", "g()"])
    shown = _raised_by(code)
    assert "line 5, in <module>\n    g()\n" in shown
    assert "line 4, in g\n    raise KeyError(x)\n" in shown


@pytest.mark.parametrize(
    ("code", "line", "text"),
    [("x = 1\nif x\n", 2, "if x"), ("x = 1\ndef f():\n    pass\nreturn 5\n", 4, "return 5")],
    ids=["parser", "compiler"],
)
def test_code_that_does_not_compile_shows_its_line(code: str, line: int, text: str) -> None:
    """Faults of the parser and of the later stages both show the line with a caret, and no frames."""
    shown = _raised_by(code)
    assert shown.endswith("\n")
    assert f'File "job.py", line {line}\n    {text}\n    ' in shown
    assert "^" in shown
    assert "SyntaxError" in shown


def test_causes_are_shown_with_their_lines() -> None:
    """A chain of exceptions shows each with its own line."""
    shown = _raised_by("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('b') from e\n")
    assert shown.index("line 2, in <module>") < shown.index("direct cause") < shown.index("line 4, in <module>")


def test_groups_show_every_member() -> None:
    """An exception group shows its members, nested ones too."""
    shown = _raised_by(
        "def bad(n):\n    try:\n        raise KeyError(n)\n    except KeyError as e:\n        return e\n"
        "raise ExceptionGroup('many', [bad(1), ExceptionGroup('inner', [bad(2)])])\n"
    )
    assert "many (2 sub-exceptions)" in shown
    assert shown.count("line 3, in bad") == 2


def test_frames_of_the_guest_are_left_out_everywhere() -> None:
    """A fault that passed through the guest, at the top, as a cause or in a group, shows the job's frames alone."""
    code = (
        "class Bad(dict):\n    def items(self):\n        raise OSError('mine')\n"
        "try:\n    checked(Bad())\nexcept OSError as e:\n    raise ExceptionGroup('g', [e]) from e\n"
    )
    shown = _raised_by(code, checked=functools.partial(guest_result._within, budget_bytes=1_000, lost=[]))
    assert shown.count("OSError: mine") == 2
    assert shown.count("line 3, in items") == 2
    assert "guest" not in shown


def test_our_files_are_known_in_every_place_they_run() -> None:
    """Names of our files in the sandbox and in this package are ours; a job's own files are not."""
    assert is_ours("crank/sandbox/guest.py")
    assert is_ours("/.crank/guest_result.py")
    assert is_ours(str(guest_result.__file__))
    assert not is_ours("job.py")
    assert not is_ours("/scratch/guest.py")
    assert not is_ours("/opt/site/pandas/core/frame.py")


def test_a_traceback_is_bounded() -> None:
    """A message of megabytes keeps its begin and its end."""
    shown = _raised_by("raise ValueError('a' + 'x' * 5_000_000 + 'z')")
    assert len(shown) < 70_000
    assert "characters of the traceback cut" in shown
    assert shown.endswith("xz\n")


def test_endless_recursion_is_folded() -> None:
    """A thousand equal frames are a few lines, and a text that raises is named."""
    shown = _raised_by(
        "class E(Exception):\n    def __str__(self):\n        raise ValueError\n"
        "def r(n):\n    return r(n + 1)\ntry:\n    r(0)\nexcept RecursionError:\n    raise E()\n"
    )
    assert "Previous line repeated" in shown
    assert "exception str() failed" in shown


@pytest.fixture
def _hooks() -> Iterator[None]:
    kept = sys.excepthook, sys.unraisablehook, threading.excepthook
    yield
    sys.excepthook, sys.unraisablehook, threading.excepthook = kept


@pytest.mark.usefixtures("_hooks")
def test_threads_and_finalisers_show_lines_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python prints by itself, of a thread or of `__del__`, has the job's source line as well."""
    code = (
        "import threading\ndef boom():\n    raise KeyError('t')\n"
        "t = threading.Thread(target=boom, name='T')\nt.start()\nt.join()\n"
        "class D:\n    def __del__(self):\n        raise OSError('d')\nD()\n"
    )
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    begin({_NAME: code})
    exec(compile(code, _NAME, "exec"), {"__name__": "__main__"})
    shown = written.getvalue()
    assert "Exception in thread T:\nTraceback" in shown
    assert "line 3, in boom\n    raise KeyError('t')\n" in shown
    assert "Exception ignored in: <function D.__del__" in shown
    assert "line 9, in __del__\n    raise OSError('d')\n" in shown
