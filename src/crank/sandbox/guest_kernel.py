"""Inside the sandbox: one Python context of an E2B sandbox, a process of its own with IPython in it.

It reads requests and writes what happens, one JSON object a line, on its control socket. Interrupts reach the code
alone. What the code's child programs write goes to the process's own stdout and stderr, which the steward reads.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from typing import Any

from crank.sandbox import guest_chart, guest_figure
from crank.sandbox.guest_fixed import instead, pip
from crank.sandbox.guest_voice import Line, Stream

_TEXT_CHARS_MAX = 16 * 1024
_RESULT_CHARS_MAX = 12 * 1024 * 1024
_CHART_BYTES_MAX = 256 * 1024
_FRAME_CELLS_MAX = 200_000


def _hooks() -> tuple[Any, Any]:
    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher

    class Hook(DisplayHook):  # type: ignore[misc]
        """Sends the value of the last expression."""

        def __call__(self, result: Any = None) -> None:
            self.check_for_underscore()
            if result is None or self.quiet():
                return
            bundle, _ = self.compute_format_data(result)
            self.update_user_ns(result)
            self.fill_exec_result(result)
            self.shell.show(bundle, result, main=True)

    class Publisher(DisplayPublisher):  # type: ignore[misc]
        """Sends what is displayed."""

        def publish(self, data: Any, metadata: Any = None, **_: Any) -> None:
            self.shell.show(data, None, main=False)

        def clear_output(self, wait: bool = False) -> None:
            return

    return Hook, Publisher


def _shell_class() -> Any:
    from IPython.core.interactiveshell import InteractiveShell

    class Shell(InteractiveShell):  # type: ignore[misc]
        """IPython without a terminal."""

        displayhook_class, display_pub_class = _hooks()

        def show(self, bundle: dict[str, Any], value: Any, *, main: bool) -> None:
            sys.stdout.flush()
            if guest_figure.is_figure(value):
                guest_figure.mark_shown(value)
            self.line.say(type="result", main=main, bundle=_plain(bundle))

        def display(self, value: Any) -> None:
            bundle, _ = self.display_formatter.format(value)
            self.show(bundle, value, main=False)

        def ask_exit(self) -> None:
            raise SystemExit

        def enable_gui(self, gui: Any = None) -> None:
            return

        def system(self, command: str) -> None:
            self.user_ns["_exit_code"] = _system(self.var_expand(command, depth=1))

        def getoutput(self, command: str, split: bool = True, depth: int = 0) -> Any:
            return _split(_said_by(self.var_expand(command, depth=depth + 1)), split)

        def _showtraceback(self, kind: Any, value: Any, lines: Any) -> None:
            text = "\n".join(lines)
            said = str(value)[:_TEXT_CHARS_MAX]
            sys.stdout.flush()
            self.line.say(type="error", name=kind.__name__, value=said, traceback=text[: 4 * _TEXT_CHARS_MAX])

    return Shell


def _split(text: str, split: bool) -> Any:
    from IPython.utils.text import LSString, SList

    return SList(text.splitlines()) if split else LSString(text)


def _said_by(command: str) -> str:
    said = instead(command)
    return said if said is not None else _output_of(command)


def _output_of(command: str) -> str:
    done = subprocess.run(["/bin/bash", "-c", command], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=False)
    return done.stdout.decode("utf-8", "replace")


def _system(command: str) -> int:
    said = instead(command)
    if said is not None:
        sys.stdout.write(said)
        return 1 if "Not installed" in said else 0
    sys.stdout.flush()
    child = subprocess.Popen(["/bin/bash", "-c", command], stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        return child.wait()
    except KeyboardInterrupt:
        os.killpg(child.pid, signal.SIGINT)
        try:
            child.wait(2)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        raise


def _plain(bundle: dict[str, Any]) -> dict[str, Any]:
    """Make a bundle of plain JSON values, each bounded."""
    shown: dict[str, Any] = {}
    for kind, made in bundle.items():
        content = base64.b64encode(made).decode() if isinstance(made, bytes) else made
        if isinstance(content, str) and len(content) > _RESULT_CHARS_MAX:
            shown.setdefault("text/plain", f"({kind}: {len(content)} characters, too many to show)")
            continue
        shown[str(kind)] = content
    return shown


def _rich(shell: Any) -> None:
    """Show tables as data too, and figures as data beside their pixels."""
    from IPython.core.formatters import BaseFormatter
    from traitlets import Unicode

    class Rows(BaseFormatter):  # type: ignore[misc]
        """A table's columns."""

        format_type = Unicode("e2b/data")
        print_method = Unicode("_repr_e2b_data_")
        _return_type = dict

    class Chart(BaseFormatter):  # type: ignore[misc]
        """What a figure shows."""

        format_type = Unicode("e2b/chart")
        print_method = Unicode("_repr_e2b_chart_")
        _return_type = dict

    formatters = shell.display_formatter.formatters
    for each in (Rows(parent=shell.display_formatter), Chart(parent=shell.display_formatter)):
        formatters[each.format_type] = each
    formatters["e2b/data"].for_type_by_name("pandas", "DataFrame", _columns)
    formatters["e2b/data"].for_type_by_name("pandas.core.frame", "DataFrame", _columns)
    draw = lambda figure: guest_chart.chart(figure, _CHART_BYTES_MAX)  # noqa: E731
    formatters["e2b/chart"].for_type_by_name("matplotlib.figure", "Figure", draw)
    shell.display_formatter.active_types = list(formatters)


def _columns(frame: Any) -> dict[str, Any] | None:
    if frame.size > _FRAME_CELLS_MAX:
        return None
    text = frame.to_json(orient="split", date_format="iso", default_handler=str)
    split = json.loads(text)
    return {str(name): [row[at] for row in split["data"]] for at, name in enumerate(split["columns"])}


def _make(line: Line) -> Any:
    from IPython.core.pylabtools import select_figure_formats
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False
    config.HistoryManager.hist_file = ":memory:"
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.autocall = 0
    shell_class = _shell_class()
    shell_class.line = line
    shell = shell_class.instance(config=config, ipython_dir="/tmp/ipython")
    shell.register_magic_function(lambda words: print(pip(words)), "line", "pip")
    for name in ("conda", "mamba", "uv", "micromamba"):
        shell.register_magic_function(lambda words: print(instead("apt " + words)), "line", name)
    select_figure_formats(shell, {"png"})
    # After that one, which forgets what it knows of figures.
    _rich(shell)
    # Figures are shown without a screen whatever is asked for; see guest_figure.
    shell.register_magic_function(lambda words: None, "line", "matplotlib")
    return shell


def _run(shell: Any, line: Line, request: dict[str, Any]) -> None:
    added = {name: os.environ.get(name) for name in request["env"]}
    os.environ.update(request["env"])
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            guest_figure.begin(shell.display)
            result = shell.run_cell(request["code"], store_history=True)
            for figure in guest_figure.take_open():
                shell.display(figure)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if result.error_before_exec is not None and not isinstance(result.error_before_exec, SyntaxError):
            shell.showtraceback()
    except KeyboardInterrupt:
        line.say(type="error", name="KeyboardInterrupt", value="", traceback="KeyboardInterrupt")
    finally:
        for name, before in added.items():
            if before is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = before


def main(control: socket.socket, cwd: str) -> None:
    """Serve a context until its control socket closes. Never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = Line(control)
    os.chdir(cwd)
    sys.stdout = Stream(line, "stdout", 1)
    sys.stderr = Stream(line, "stderr", 2)
    sys.stdin = open("/dev/null")  # noqa: SIM115 - for the life of this process
    sys.path.insert(0, "")
    sys.argv = [""]
    shell = _make(line)
    sys.modules["__main__"] = shell.user_module
    while True:
        request = line.take()
        if request is None:
            os._exit(0)
        line.say(type="count", execution_count=shell.execution_count)
        try:
            _run(shell, line, request)
        except SystemExit as fault:
            line.say(type="error", name="SystemExit", value=str(fault), traceback=f"SystemExit: {fault}")
        except BaseException as fault:
            line.say(type="error", name=type(fault).__name__, value=str(fault), traceback=repr(fault))
        sys.stdout.flush()
        sys.stderr.flush()
        line.say(type="done")
