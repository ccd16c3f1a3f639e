"""What a person sees of files that wait to be applied. Every name and line is a stranger's."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crank.cli.show import one_line, say, size_text
from crank.client import Artifact
from crank.domain.rules.apply import Change, Diff, Found

# A preview is read by a person; what is beyond it is there with --only, or with --json.
PREVIEW_LINES_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the job, what stands in its place now, and what became of it.

    reason  why it is a conflict; failed: why it could not be written though it was accepted
    """

    artifact: Artifact
    change: Change
    reason: str | None
    found: Found
    diff: Diff = field(default_factory=Diff)
    written: bool = False
    failed: str | None = None

    @property
    def path(self) -> str:
        """Return its path in the folder."""
        return self.artifact.path

    @property
    def writes(self) -> bool:
        """Tell whether accepting it would write something."""
        return self.change in (Change.NEW, Change.CHANGED)

    @property
    def document(self) -> dict[str, object]:
        """Return the JSON form."""
        before = None
        if self.found.sha256 is not None:
            before = {"sha256": self.found.sha256, "size_bytes": self.found.size_bytes}
        return {
            "path": self.path,
            "change": str(self.change),
            "reason": self.reason,
            "sha256": self.artifact.sha256,
            "size_bytes": self.artifact.size_bytes,
            "before": before,
            "diff": list(self.diff.lines),
            "diff_note": self.diff.note,
            "written": self.written,
            "failed": self.failed,
        }


def print_preview(entries: Sequence[Entry], folder: Path) -> None:
    """Print what each file would do, changes with their diff, and a line that sums it up."""
    left = PREVIEW_LINES_MAX
    for entry in entries:
        if entry.change is Change.UNCHANGED:
            continue
        print(_headline(entry))
        for line in entry.diff.lines[:left]:
            print(f"    {one_line(line)}")
        left -= min(left, len(entry.diff.lines))
        if entry.diff.note is not None:
            print(f"    ({entry.diff.note}; {_sizes(entry)})")
        elif entry.diff.lines and not left:
            print(f"    (the preview ends after {PREVIEW_LINES_MAX} lines; --only shows fewer files)")
    print(f"{_counts(entries)} in {one_line(str(folder))}")


def _headline(entry: Entry) -> str:
    name = one_line(entry.path)
    if entry.change is Change.CONFLICT:
        return f"conflict   {name}: {one_line(entry.reason or '')}"
    return f"{entry.change:<9}  {name}  {size_text(entry.artifact.size_bytes)}"


def _sizes(entry: Entry) -> str:
    after = f"{size_text(entry.artifact.size_bytes)} {entry.artifact.sha256[:12]}"
    if entry.found.sha256 is None:
        return after
    return f"{size_text(entry.found.size_bytes)} {entry.found.sha256[:12]} becomes {after}"


def _counts(entries: Sequence[Entry]) -> str:
    counted = {change: sum(entry.change is change for entry in entries) for change in Change}
    return ", ".join(f"{count} {change}" for change, count in counted.items() if count) or "no files"


def tell_outcome(entries: Sequence[Entry], backup: Path | None) -> None:
    """Tell what was written, what was not and why, and where the originals are."""
    for entry in entries:
        if entry.failed is not None:
            say(f"failed     {one_line(entry.path)}: {one_line(entry.failed)}")
        elif entry.change is Change.CONFLICT:
            say(f"left       {one_line(entry.path)}: {one_line(entry.reason or '')}")
    say(f"wrote {sum(entry.written for entry in entries)} of {len(entries)} files")
    if backup is not None:
        say(f"what they replaced is kept in {backup}")
