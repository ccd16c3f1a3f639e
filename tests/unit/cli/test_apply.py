"""What a person is shown and asked before a job's files are written."""

import io
from pathlib import Path

import pytest

from crank.cli.apply import Backup, choose
from crank.cli.apply_view import PREVIEW_LINES_MAX, Entry, print_preview, tell_outcome
from crank.cli.show import one_line
from crank.client import Artifact
from crank.domain.rules.apply import Change, Diff, Found


def entry(path: str, change: Change = Change.NEW, *, reason: str | None = None, lines: tuple[str, ...] = ()) -> Entry:
    """Return one file that waits."""
    return Entry(Artifact(path, 5, "ab" * 32), change, reason, Found(), Diff(lines))


def answering(*words: str):
    """Return a person who says these words, one a question, and then hangs up."""
    said = iter(words)

    def ask(_question: str) -> str:
        try:
            return next(said)
        except StopIteration:
            raise EOFError from None

    return ask


@pytest.mark.parametrize(
    ("words", "accepted"),
    [
        (("y", "n", "y"), ["a", "c"]),
        (("n", "a"), ["b", "c"]),
        (("y", "q"), ["a"]),
        ((), []),
        (("maybe", "YES", "", "n", "y"), ["a", "c"]),
        (("x", "x", "x", "x", "x"), []),
    ],
)
def test_only_what_is_accepted_is_written(words, accepted):
    """Each file is asked for; all, quit, silence and nonsense are understood as the careful reading."""
    entries = [entry("a"), entry("kept", Change.UNCHANGED), entry("b"), entry("no", Change.CONFLICT), entry("c")]
    assert [one.path for one in choose(entries, answering(*words))] == accepted


def test_nothing_shown_can_move_the_terminal(capsys):
    """Escapes, carriage returns, hidden and turning characters of names, lines and reasons are made visible."""
    evil = "\x1b[2J\x1b]0;title\x07\r\x9b31m\u202e\u200b\x85\u2028"
    entries = [
        entry(f"a{evil}", Change.CONFLICT, reason=f"its name{evil}"),
        entry("b.txt", Change.CHANGED, lines=(f"+{evil}", "+\ttab stays", "-\rfake line")),
    ]
    print_preview(entries, Path(f"/tmp/{evil}"))
    tell_outcome(entries, None)
    told = capsys.readouterr()
    for text in (told.out, told.err):
        assert all(char.isprintable() or char in "\n\t" for char in text)
    assert "    +^[[2J" in told.out
    assert "\ttab stays" in told.out
    assert "    -^Mfake line" in told.out


def test_one_line_stays_one():
    """No character of any text ends a line or hides."""
    for point in [*range(0x300), *range(0x2000, 0x2070), 0xFEFF, 0xE0041, 0xDC80]:
        shown = one_line(chr(point))
        assert shown.isprintable() or shown == "\t", hex(point)


def test_a_long_preview_ends(capsys):
    """A person is never flooded; the sum at the end is there all the same."""
    entries = [entry(f"f{number}", lines=("+x",) * 200) for number in range(50)]
    print_preview(entries, Path("/tmp"))
    out = capsys.readouterr().out
    assert out.count("    +x\n") == PREVIEW_LINES_MAX
    assert "the preview ends" in out
    assert out.endswith("50 new in /tmp\n")


def test_originals_are_kept_apart(tmp_path):
    """Each run has a folder of its own, private, made only when something is replaced."""
    first, second = Backup(tmp_path / "backups/job"), Backup(tmp_path / "backups/job")
    assert first.used is None
    assert not (tmp_path / "backups").exists()
    for backup, content in ((first, b"one"), (second, b"two"), (first, b"three")):
        backup.keep(f"sub/{content.decode()}", io.BytesIO(content))
    assert first.used != second.used
    kept = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert kept == ["backups/job/1/sub/one", "backups/job/1/sub/three", "backups/job/2/sub/two"]
    assert (tmp_path / "backups/job").stat().st_mode & 0o077 == 0
