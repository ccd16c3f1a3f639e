"""What an agent is shown of a job: everything that matters, in as few bytes as a model's memory wants.

A job's document may hold megabytes. What is cut here says that it was cut, and the whole stays where it was;
nothing is cut silently. What the job itself says (output, names, notes) is shown, and never obeyed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crank.domain.job import ENDED, Status
from crank.domain.json import JsonObject, JsonValue, dumps
from crank.domain.quantity import KIB

OUTPUT_CHARS_MAX = 12_000
RESULT_BYTES_MAX = 32 * KIB
SHOWN_ARTIFACTS_MAX = 40
SHOWN_DISPLAYS_MAX = 10
DISPLAY_CHARS_MAX = 2_000
IMAGES_MAX = 4
IMAGES_BYTES_MAX = 384 * KIB
EVIDENCE_ENTRIES_MAX = 10
SENTENCE_CHARS_MAX = 400
_IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp")


def excerpt(document: Mapping[str, Any], *, next_step: str | None) -> JsonObject:
    """Return what is shown of a job's document, ended or not."""
    metrics = document["metrics"] or {}
    result, result_cut = _result(document["result"])
    stdout, stdout_cut = cut(document["stdout"])
    stderr, stderr_cut = cut(document["stderr"])
    artifacts = document["artifacts"]
    return {
        "job_id": document["job_id"],
        "status": document["status"],
        "ended": Status(document["status"]) in ENDED,
        "next": next_step,
        "capability": document["capability"],
        "session": document["session_id"],
        "pending": document["pending"],
        "end": document["end"],
        "stdout": stdout,
        "stdout_cut": stdout_cut or bool(metrics and metrics["stdout"]["truncated"]),
        "stderr": stderr,
        "stderr_cut": stderr_cut or bool(metrics and metrics["stderr"]["truncated"]),
        "has_result": document["has_result"],
        "result": result,
        "result_cut": result_cut,
        "displays": [_display(bundle) for bundle in document["displays"][:SHOWN_DISPLAYS_MAX]],
        "displays_total": len(document["displays"]),
        "artifacts": [_artifact(entry) for entry in artifacts[:SHOWN_ARTIFACTS_MAX]],
        "artifacts_total": len(artifacts),
        "not_collected": [
            _sentence(f"{entry['path']}: {entry['cause']}") for entry in document["skipped"][:EVIDENCE_ENTRIES_MAX]
        ],
        "denials": [_denial(entry) for entry in document["denials"][:EVIDENCE_ENTRIES_MAX]],
        "notes": [_sentence(note) for note in document["notes"][:EVIDENCE_ENTRIES_MAX]],
        "tier": document["tier"],
        "wall_sec": metrics.get("wall_sec"),
        "cpu_sec": metrics.get("cpu_sec"),
        "peak_memory_bytes": metrics.get("peak_memory_bytes"),
    }


def images(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the pictures among a job's displays that fit, as (media type, base64)."""
    left_bytes = IMAGES_BYTES_MAX
    count = 0
    for bundle in document["displays"]:
        for kind in _IMAGE_TYPES:
            octets = bundle.get(kind) if isinstance(bundle, Mapping) else None
            if isinstance(octets, str) and len(octets) <= left_bytes and count < IMAGES_MAX:
                left_bytes -= len(octets)
                count += 1
                yield kind, octets
                break


def cut(text: str, chars_max: int = OUTPUT_CHARS_MAX) -> tuple[str, bool]:
    """Return a text's beginning and its end when it is longer than that, and whether it was cut.

    The end gets more room: that is where a program says how it went.
    """
    if len(text) <= chars_max:
        return text, False
    head = chars_max // 3
    tail = chars_max - head
    return f"{text[:head]}\n… {len(text) - chars_max} characters are left out here …\n{text[-tail:]}", True


def _result(value: JsonValue) -> tuple[JsonValue, bool]:
    text = dumps(value)
    if len(text.encode("utf-8", "surrogatepass")) <= RESULT_BYTES_MAX:
        return value, False
    return cut(text)[0], True


def _display(bundle: Any) -> JsonObject:
    if not isinstance(bundle, Mapping):
        return {"media_types": [], "text": None}
    text = next((bundle[kind] for kind in ("text/markdown", "text/plain") if isinstance(bundle.get(kind), str)), None)
    return {
        "media_types": sorted(str(kind)[:SENTENCE_CHARS_MAX] for kind in bundle)[:EVIDENCE_ENTRIES_MAX],
        "text": None if text is None else cut(text, DISPLAY_CHARS_MAX)[0],
    }


def _artifact(entry: Mapping[str, Any]) -> JsonObject:
    return {name: entry[name] for name in ("path", "size_bytes", "sha256", "media_type")}


def _denial(entry: Mapping[str, Any]) -> JsonObject:
    return {
        "layer": entry["layer"],
        "action": _sentence(entry["action"]),
        "count": entry["count"],
        "told_by": entry["told_by"],
    }


def _sentence(text: str) -> str:
    return text if len(text) <= SENTENCE_CHARS_MAX else f"{text[: SENTENCE_CHARS_MAX - 1]}…"


def last_line(texts: Sequence[str]) -> str:
    """Return the last line that something printed, short enough for a progress message."""
    lines = "".join(texts)[-4 * SENTENCE_CHARS_MAX :].split("\n")
    found = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return "".join(char if char.isprintable() else "�" for char in found)[:200]
