"""A job told in few words: for callers that read a bounded number of characters and nothing but text.

What is cut says so, says how much is missing, and how to get it. Characters are counted as they are sent: an escaped
one counts as its escape.
"""

from collections.abc import Sequence

from crank.domain.json import JsonObject, JsonValue, dumps

CUT_FILES_MAX = 100
_TEXTS = ("text/markdown", "text/plain", "application/json")


def encoded_chars(value: JsonValue) -> int:
    """Return how many characters a value takes as JSON, a pair of UTF-16 counted as two: nobody counts more."""
    return len(dumps(value).encode("utf-16-le", "surrogatepass")) // 2


def clip(text: str, chars_max: int) -> tuple[str, bool]:
    """Return a text whose encoded form has at most `chars_max` characters: its head and its tail, and whether it was cut."""
    if encoded_chars(text) <= chars_max:
        return text, False
    # An escape takes six characters at most, so a sixth of the room always fits; then as much as the room allows.
    keep_chars = chars_max
    while True:
        half_chars = keep_chars // 2
        left_out = len(text) - 2 * half_chars
        cut = f"{text[:half_chars]}\n[… {left_out} characters left out …]\n{text[len(text) - half_chars :]}"
        if left_out > 0 and encoded_chars(cut) <= chars_max:
            return cut, True
        if keep_chars <= 2:
            return "", True
        keep_chars = keep_chars * 3 // 4


def brief_job(job: JsonObject, *, chars_max: int, ways: JsonObject) -> JsonObject:
    """Return what an agent needs to go on.

    job   as `views.job_document` writes it
    ways  what to say for `wait` (it has not ended) and for `more` (something was cut)
    """
    end = job["end"] or {}
    stdout, stdout_cut = clip(job["stdout"], chars_max * 3 // 10)
    stderr, stderr_cut = clip(job["stderr"], chars_max * 15 // 100)
    result, result_cut = _result(job["result"], chars_max * 3 // 10)
    shown, displays_cut = _displays(job["displays"], chars_max // 10)
    files = [
        {"path": each["path"], "size_bytes": each["size_bytes"], "media_type": each["media_type"]}
        for each in job["artifacts"][:CUT_FILES_MAX]
    ]
    while encoded_chars(files) > chars_max // 10:
        files = files[: len(files) // 2]
    cut = [
        name
        for name, is_cut in (
            ("stdout", stdout_cut), ("stderr", stderr_cut), ("result", result_cut), ("displays", displays_cut),
            ("files", len(files) < len(job["artifacts"])),
        )
        if is_cut
    ]  # fmt: skip
    return {
        "job_id": job["job_id"],
        "status": job["status"],
        "finished": job["end"] is not None,
        "reason": end.get("reason"),
        "message": clip(end.get("message") or "", chars_max // 50)[0] or None,
        "stdout": stdout,
        "stderr": stderr,
        "result": result,
        "displays": shown,
        "files": files,
        "files_total": len(job["artifacts"]),
        "cut": cut,
        "next": _next(job, cut, ways),
    }


def _next(job: JsonObject, cut: Sequence[str], ways: JsonObject) -> str | None:
    if job["end"] is None:
        return str(ways["wait"])
    return str(ways["more"]) if cut else None


def _result(result: JsonValue, chars_max: int) -> tuple[JsonValue, bool]:
    if encoded_chars(result) <= chars_max:
        return result, False
    # Half of a JSON value is none; its beginning as text still tells what it is.
    return clip(dumps(result), chars_max)[0], True


def _displays(bundles: Sequence[JsonValue], chars_max: int) -> tuple[list[str], bool]:
    """Return rich results as text; a picture is only named."""
    shown: list[str] = []
    left_chars = chars_max
    for bundle in bundles:
        text = next((bundle[kind] for kind in _TEXTS if isinstance(bundle.get(kind), str)), None)
        kinds = ", ".join(sorted(str(kind)[:60] for kind in bundle)[:5])
        sentence = text if text is not None else f"[{kinds}: not text; write it to /out to get it as a file]"
        said, is_cut = clip(sentence, left_chars)
        left_chars -= encoded_chars(said) + 1
        if left_chars < 0 or (is_cut and not said):
            return shown, True
        shown.append(said)
        if is_cut:
            return shown, True
    return shown, False
