"""Inside the sandbox: tracebacks as the job's author wants them: their own lines, and none of ours.

Python would show the frames of the guest that called the job, and would look the job's lines up on a disk
where they do not lie. Standard library only; `traceback` is imported when something is raised.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_CHARS_MAX = 64 * 1024
_HEAD_CHARS = 16 * 1024
_CAUSES_MAX = 20
# What calls an author's function inside the sandbox.
_CALL = "/crank/worker/call.py"


def format_traceback(fault: BaseException, sources: Mapping[str, str]) -> str:
    """Return the traceback of a fault and of what caused it, without the guest's own frames, bounded.

    sources  the texts that were run, by the file names that they were compiled under
    """
    import traceback

    remember_lines(sources)
    _complete_syntax_errors(fault, sources)
    told = traceback.TracebackException(type(fault), fault, fault.__traceback__)
    _leave_out_ours(told)
    shown = "".join(told.format())
    if len(shown) > _CHARS_MAX:
        tail = shown[_HEAD_CHARS - _CHARS_MAX :]
        cut = len(shown) - _CHARS_MAX
        shown = f"{shown[:_HEAD_CHARS]}\n[… {cut} characters of the traceback cut …]\n{tail}"
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")


def begin(sources: dict[str, str]) -> None:
    """Make what Python itself prints of a fault (in a thread, in `__del__`, at exit) show the job's lines too.

    Python's own printer would look for them in a file. Costs next to nothing while nothing is raised.

    sources  the texts that were run, by file name, the newest last
    """

    def of_thread(args: Any) -> None:
        if args.exc_type is not SystemExit:
            name = getattr(args.thread, "name", None) or "<unknown>"
            _print(f"Exception in thread {name}:", args.exc_value, sources)

    def unraisable(args: Any) -> None:
        where = f"{args.err_msg or 'Exception ignored in'}: {args.object!r}"
        _print(where[:_HEAD_CHARS], args.exc_value, sources)

    def uncaught(_kind: Any, fault: BaseException, _trace: Any) -> None:
        _print("", fault, sources)

    sys.excepthook = uncaught
    sys.unraisablehook = unraisable
    if "threading" in sys.modules:
        sys.modules["threading"].excepthook = of_thread  # type: ignore[attr-defined]
    if "linecache" in sys.modules and sources:
        newest = next(reversed(sources))
        remember_lines({newest: sources[newest]})


def _print(title: str, fault: BaseException | None, sources: Mapping[str, str]) -> None:
    shown = format_traceback(fault, sources) if fault is not None else ""
    if sys.stderr is not None:
        print(f"{title}\n{shown}".lstrip("\n"), end="", file=sys.stderr, flush=True)


def remember_lines(sources: Mapping[str, str]) -> None:
    """Lay the texts where `traceback`, `inspect` and `warnings` look for lines."""
    import linecache

    for name, source in sources.items():
        lines = [f"{line}\n" for line in source_lines(source)]
        # No modification time: then nobody looks for a file of that name.
        linecache.cache[name] = (len(source), None, lines, name)


def source_lines(source: str) -> list[str]:
    """Split a source text at the line ends that Python's own tokenizer knows, which are fewer than `splitlines`'s."""
    return source.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")


def is_ours(file_name: str) -> bool:
    """Tell whether a code object is the guest's own, by the name that it was compiled under."""
    folder, _, name = file_name.rpartition("/")
    if folder.endswith("crank/sandbox") or folder in ("", "/.crank", "<frozen crank>"):
        return name.startswith(("guest", "start.", "zygote", "cell.")) and name.endswith((".py", ".pyc"))
    return False


def _leave_out_ours(told: Any) -> None:
    """Drop our frames from a formatted fault, its causes and its group. Changes it in place."""
    waiting, seen = [told], 0
    while waiting:
        each = waiting.pop()
        seen += 1
        if each.stack is not None:
            each.stack[:] = _after_call([frame for frame in each.stack if not is_ours(frame.filename)])
            if not each.stack:
                each.stack = None
        if seen < 10_000:
            waiting += [other for other in (each.__cause__, each.__context__, *(each.exceptions or ())) if other]


def _after_call(frames: list[Any]) -> list[Any]:
    """Leave out the way into an author's function, when that is what was run."""
    calls = [place for place, frame in enumerate(frames) if frame.filename.endswith(_CALL)]
    return frames[calls[-1] + 1 :] if calls else frames


def _complete_syntax_errors(fault: BaseException, sources: Mapping[str, str]) -> None:
    """Give a SyntaxError of the later compiler stages its line, which Python would look for in a file."""
    each: BaseException | None = fault
    for _ in range(_CAUSES_MAX):
        if isinstance(each, SyntaxError) and each.text is None and each.lineno:
            lines = source_lines(sources.get(str(each.filename), ""))
            if 0 < each.lineno <= len(lines):
                each.text = lines[each.lineno - 1]
        if each is None:
            return
        each = each.__cause__ or each.__context__
