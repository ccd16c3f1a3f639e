"""A job as it happens: its output where it belongs, its progress as a bar or as plain lines."""

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from crank.cli.show import harmless, say, write
from crank.client import JobEvent


class LiveView:
    """Shows events of one job. `quiet` shows progress alone, for callers who print the end themselves."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Progress | None = None
        self._row: TaskID | None = None

    def show(self, event: JobEvent) -> None:
        """Show one event."""
        if event.kind == "progress":
            self._progress(event)
        elif event.kind in ("stdout", "stderr") and not self._quiet:
            write(event.text, sys.stdout if event.kind == "stdout" else sys.stderr)

    def _progress(self, event: JobEvent) -> None:
        fraction = event.body.get("fraction")
        message = harmless(event.text).replace("\n", " ")
        if not sys.stderr.isatty():
            share = "" if fraction is None else f"{fraction * 100:3.0f}% "
            say(f"progress: {share}{message}".rstrip())
            return
        if self._bar is None:
            self._bar = self._start_bar()
            self._row = self._bar.add_task("")
        total = None if fraction is None else 1.0
        assert self._row is not None
        self._bar.update(self._row, total=total, completed=fraction or 0.0, description=message)

    def _start_bar(self) -> Progress:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        # Output of the job must pass through the bar, or both would write over each other; but never
        # when stdout is a file or a pipe, where it is data.
        bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty())
        bar.start()
        return bar

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
