"""What an agent is shown of a job: bounded in every part, and honest about what is left out."""

import json
from typing import Any

from crank.domain.rules.excerpt import IMAGES_MAX, OUTPUT_CHARS_MAX, cut, excerpt, images, last_line

STREAM = {"seen_bytes": 1, "kept_bytes": 1, "truncated": False}
EMPTY: dict[str, Any] = {
    "job_id": "j1", "status": "succeeded", "capability": "python.run.core", "session_id": None, "pending": None,
    "end": None, "stdout": "", "stderr": "", "has_result": False, "result": None, "displays": [], "artifacts": [],
    "skipped": [], "denials": [], "notes": [], "tier": None, "metrics": None,
}  # fmt: skip


def test_a_small_job_is_shown_whole():
    """What fits is shown as it is."""
    shown = excerpt({**EMPTY, "stdout": "hi\n", "has_result": True, "result": {"a": 1}}, next_step=None)
    assert (shown["stdout"], shown["result"], shown["ended"]) == ("hi\n", {"a": 1}, True)
    assert (shown["stdout_cut"], shown["result_cut"], shown["next"]) == (False, False, None)


def test_every_part_is_bounded():
    """A job that leaves as much as it may is shown in less than a client's limit, and says what was cut."""
    huge = {
        **EMPTY,
        "stdout": "x" * 16_000_000,
        "stderr": "\x00" * 16_000_000,
        "has_result": True,
        "result": ["\u00e9" * 1_000_000],
        "displays": [{"text/plain": "y" * 1_000_000, "image/png": "A" * 100_000}] * 64,
        "artifacts": [{"path": "p" * 512, "size_bytes": 1, "sha256": "0" * 64, "media_type": "a/b"}] * 2_000,
        "skipped": [{"path": "q" * 512, "cause": "c" * 1_000}] * 100,
        "denials": [{"layer": "network", "action": "z" * 100_000, "count": 1, "told_by": "job"}] * 500,
        "notes": ["n" * 100_000] * 500,
        "metrics": {"wall_sec": 1.0, "cpu_sec": 1.0, "peak_memory_bytes": 1, "stdout": STREAM, "stderr": STREAM},
    }
    shown = excerpt(huge, next_step=None)
    # Told twice: as structure and as text inside JSON, where a character may take six bytes more.
    told = json.dumps({"text": json.dumps(shown, ensure_ascii=False), "structure": shown})
    assert len(told) + sum(len(octets) for _, octets in images(huge)) < 1024 * 1024
    assert (shown["stdout_cut"], shown["stderr_cut"], shown["result_cut"]) == (True, True, True)
    assert (shown["artifacts_total"], shown["displays_total"]) == (2_000, 64)


def test_a_cut_keeps_both_ends_and_says_so():
    """The end of a long output, where a program says how it went, is kept."""
    text, was_cut = cut("begin" + "x" * OUTPUT_CHARS_MAX + "end")
    assert was_cut
    assert text.startswith("begin")
    assert text.endswith("end")
    assert "8 characters are left out" in text


def test_pictures_are_few():
    """Only some pictures come along, and only real ones."""
    bundles = [{"image/png": "AAAA"}, {"image/png": 5}, "nonsense", *[{"image/jpeg": "BBBB"}] * 9]
    assert len(list(images({"displays": bundles}))) == IMAGES_MAX


def test_the_last_line_is_harmless():
    """A progress message holds one printable line, whatever a job printed."""
    assert last_line(["one\ntwo\n", "three \x1b[31mred\n\n"]) == "three �[31mred"
    assert len(last_line(["x" * 100_000])) == 200
    assert last_line([]) == ""
