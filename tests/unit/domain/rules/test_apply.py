"""Which of a job's files may be written into a folder, and the diff that a person sees first."""

import difflib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crank.domain.rules.apply import (
    DIFF_BYTES_MAX,
    DIFF_LINES_MAX,
    SHOWN_CHARS_MAX,
    SHOWN_LINES_MAX,
    Change,
    Found,
    colliding,
    diff,
    judge,
    name_refusal,
)


@pytest.mark.parametrize("path", ["a.txt", "a/b/c.txt", "Straße/日本.md", "with space.txt", "ze\u0301.txt", "a..b"])
def test_plain_names_pass(path):
    """Ordinary names of any language may be written."""
    assert name_refusal(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "", "/etc/passwd", "..", "../up", "a/../b", "a//b", "a/./b", "a/", ".bashrc", ".git/config", "a/.git/hooks/x",
        "a\0b", "a\nb", "a\rb", "a\x1b[2Jb", "a\x7fb", "a\x9bb", "a\u202eb", "a\u200bb", "a\ufeffb", "a\u2028b",
        "a\u00a0b", "a\U000e0041b", "a\ue000b", "a\\b", " a", "a ", "a/ b", "\udcff", "x" * 256, "a/" * 513 + "a",
    ],
)  # fmt: skip
def test_names_that_leave_hide_or_act_are_refused(path):
    """Ways out, controls, what does not show, dot files and names that are not what they seem: each says why."""
    assert name_refusal(path)


@given(st.text(max_size=40))
def test_a_name_that_passes_stays_inside_and_shows(path):
    """Whatever passes has only plain steps below the folder, and every character of it shows."""
    if name_refusal(path) is None:
        assert all(step not in ("", ".", "..") for step in path.split("/"))
        assert path.isprintable()


def test_names_that_some_file_system_takes_for_one_collide():
    """Case, composition, a folder that differs by case, and a file where a folder must be; others do not."""
    paths = ["Readme", "README", "a/x", "A/y", "z\u00e9", "ze\u0301", "file", "file/inside", "fine", "b/fine"]
    assert colliding(paths) == set(paths) - {"fine", "b/fine"}


def test_ten_thousand_names_are_compared_at_once():
    """The comparison does not grow with the square of the names."""
    assert colliding(f"folder{number % 100}/file{number}" for number in range(10_000)) == frozenset()


def test_what_a_file_would_do():
    """Nothing there is new; the same bytes are unchanged; newer than the job is a conflict; so is what is blocked."""
    assert judge("a", Found(), began_us=10**9).change is Change.NEW
    assert judge("a", Found("a", 1, 10**12), began_us=10**9).change is Change.UNCHANGED
    assert judge("a", Found("b", 1, 10**8), began_us=10**9).change is Change.CHANGED
    assert judge("a", Found("b", 1, 10**9), began_us=10**9).change is Change.CONFLICT
    # The clock of a file system ticks coarser than ours.
    assert judge("a", Found("b", 1, 10**9 - 5_000), began_us=10**9).change is Change.CONFLICT
    assert judge("a", Found(blocked="no"), began_us=0).reason == "no"


def test_a_diff_is_a_real_one():
    """Lines that left and came, with their numbers, and the missing newline told."""
    old = "".join(f"line {number}\n" for number in range(100)).encode()
    made = diff(old, old.replace(b"line 50\n", b"line fifty\n") + b"end", "a.txt")
    assert made.note is None
    assert made.lines[:2] == ("--- yours/a.txt", "+++ job/a.txt")
    assert made.lines[2] == "@@ -48,7 +48,7 @@"
    assert {"-line 50", "+line fifty", "+end", "\\ No newline at end of file"} <= set(made.lines)


@settings(max_examples=60)
@given(st.lists(st.sampled_from("abc"), max_size=30), st.lists(st.sampled_from("abc"), max_size=30))
def test_trimming_changes_no_diff(old, new):
    """What both begin and end with is left out of the work, and the diff says the same as without that."""
    made = diff("".join(f"{line}\n" for line in old).encode(), "".join(f"{line}\n" for line in new).encode(), "f")
    before, after = [], []
    for line in made.lines[2:]:
        if line.startswith((" ", "-")):
            before.append(line[1:])
        if line.startswith((" ", "+")):
            after.append(line[1:])
    opcodes = difflib.SequenceMatcher(None, before, after).get_opcodes()
    assert bool(made.lines) == (old != new)
    if made.lines:
        assert any(tag != "equal" for tag, *_ in opcodes)
        assert _is_within(before, old)
        assert _is_within(after, new)


def _is_within(part, whole):
    """Tell whether one list comes, in order, out of the other."""
    rest = iter(whole)
    return all(line in rest for line in part)


def test_a_diff_is_bounded():
    """Long lines, many lines, many changes and large files are cut or left out, and that is said."""
    wide = diff(b"", b"x" * 10_000 + b"\n", "a")
    assert max(map(len, wide.lines)) < SHOWN_CHARS_MAX + 30
    tall = diff(b"", b"x\n" * 900, "a")
    assert (len(tall.lines), tall.note) == (SHOWN_LINES_MAX, f"{900 + 3 - SHOWN_LINES_MAX} more lines")
    assert "too many" in str(diff(b"", b"x\n" * (DIFF_LINES_MAX + 1), "a").note)
    assert diff(b"", b"x" * (DIFF_BYTES_MAX + 1), "a").note == "too large for a diff"
    assert not diff(b"", b"x\n" * (DIFF_LINES_MAX + 1), "a").lines


@pytest.mark.parametrize("content", [b"\x00", b"\xff\xfe", b"text\x00more"])
def test_what_is_no_text_has_no_diff(content):
    """Bytes are told as bytes, whichever side has them."""
    assert diff(content, b"a\n", "a").note == diff(b"a\n", content, "a").note == "not text"
