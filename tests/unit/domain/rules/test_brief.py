"""A job in few words: never longer than promised, and honest about what is missing."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from crank.domain.rules.brief import brief_job, clip, encoded_chars

WAYS = {"wait": "wait", "more": "more"}
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=3_000)


def job(**changes: Any) -> dict[str, Any]:
    """Return the parts of a job's document that a brief one is made of."""
    whole: dict[str, Any] = {
        "job_id": "j", "status": "succeeded", "end": {"reason": "exited", "message": None}, "stdout": "", "stderr": "",
        "result": None, "displays": [], "artifacts": [],
    }  # fmt: skip
    return {**whole, **changes}


@given(ANY_TEXT, st.integers(10, 2_000))
def test_clipped_text_fits(text: str, chars_max: int) -> None:
    """Head and tail stay, escapes are counted, and what fits is not touched."""
    kept, is_cut = clip(text, chars_max)
    assert encoded_chars(kept) <= chars_max
    assert is_cut or kept == text
    if is_cut and kept:
        assert "characters left out" in kept


@settings(max_examples=50)
@given(ANY_TEXT, ANY_TEXT, st.recursive(ANY_TEXT | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=5), max_leaves=10))
def test_a_brief_job_fits_whatever_it_left(stdout: str, stderr: str, result: Any) -> None:
    """However large and strange the outcome is, the answer stays below its limit and says what was cut."""
    files = [{"path": f"{'x' * 200}{n}", "size_bytes": n, "media_type": "text/plain"} for n in range(500)]
    displays = [{"text/plain": stdout}, {"image/png": "x" * 10_000}] * 10
    whole = job(stdout=stdout * 3, stderr=stderr * 3, result=result, artifacts=files, displays=displays)
    brief = brief_job(whole, chars_max=4_000, ways=WAYS)
    assert encoded_chars(brief) < 4_500
    assert "files" in brief["cut"]
    assert brief["files_total"] == 500
    assert (brief["stdout"] == whole["stdout"]) is ("stdout" not in brief["cut"])
    assert (brief["result"] == result) is ("result" not in brief["cut"])
    assert brief["next"] == "more"


def test_what_fits_is_whole() -> None:
    """A small job is told word for word, and nothing is to be done."""
    brief = brief_job(job(stdout="hi", result={"a": 1}), chars_max=4_000, ways=WAYS)
    assert (brief["stdout"], brief["result"], brief["cut"], brief["next"]) == ("hi", {"a": 1}, [], None)


def test_a_job_that_goes_on_says_so() -> None:
    """The reader learns that it must wait and not run it again."""
    brief = brief_job(job(status="running", end=None), chars_max=4_000, ways=WAYS)
    assert (brief["finished"], brief["next"]) == (False, "wait")


def test_a_picture_is_named_not_sent() -> None:
    """Text of a rich result is shown; bytes are not."""
    brief = brief_job(job(displays=[{"image/png": "aaaa"}, {"text/html": "<b>", "text/plain": "bold"}]), chars_max=4_000, ways=WAYS)
    assert brief["displays"][1] == "bold"
    assert "image/png" in brief["displays"][0]
    assert "aaaa" not in str(brief)
