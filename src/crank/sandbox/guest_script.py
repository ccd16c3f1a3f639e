"""Inside the sandbox: one text that a job runs, compiled so that its last expression has a value.

Each text of a session has a file name of its own, so that a function made by an earlier run is still shown
with its own lines when it fails in a later one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILE_NAME = "job.py"
_ONLY_AST = 0x400
_FUTURES = 0x1FF0000
# Texts of a session whose lines are kept; older ones are told by number alone.
_TEXTS_MAX = 100


class Script:
    """One text and the name that it is compiled under. Also a loader (PEP 302), so that `inspect` finds the lines."""

    def __init__(self, code: str, number: int) -> None:
        """Take the text of a session's run of this number, counted from 1."""
        self.code = code.removeprefix("\ufeff")
        self.name = FILE_NAME if number == 1 else f"job-{number}.py"

    def get_source(self, name: str) -> str:
        """Return the text."""
        return self.code

    def keep_in(self, sources: dict[str, str]) -> None:
        """Put the text among those whose lines are shown; the oldest goes when there are too many."""
        sources[self.name] = self.code
        while len(sources) > _TEXTS_MAX:
            del sources[next(iter(sources))]

    def compiled(self) -> tuple[Any, Any]:
        """Return the code, and apart from it the expression that it ends in, or None. Raises what compiling raises."""
        import _ast

        tree: Any = compile(self.code, self.name, "exec", _ONLY_AST, dont_inherit=True)
        last = None
        if tree.body and isinstance(tree.body[-1], _ast.Expr):
            last = _ast.Expression(body=tree.body.pop().value)
        main = compile(tree, self.name, "exec", dont_inherit=True)
        if last is not None:
            last = compile(last, self.name, "eval", main.co_flags & _FUTURES, dont_inherit=True)
        return main, last


def is_in(trace: Any, sources: dict[str, str]) -> bool:
    """Tell whether a traceback passes through one of these texts."""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in sources:
            return True
        trace = trace.tb_next
    return False
