"""What a context of a sandbox said, in the words of E2B's code interpreter. All of it came from a stranger's code."""

from collections.abc import Mapping
from typing import Any

from crank.domain.json import JsonObject

# Media type to the field of a result.
_FIELDS = {
    "text/plain": "text",
    "text/html": "html",
    "text/markdown": "markdown",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/pdf": "pdf",
    "text/latex": "latex",
    "application/json": "json",
    "application/javascript": "javascript",
    "e2b/data": "data",
}
_TEXTS = frozenset(_FIELDS.values()) - {"json", "data"}
_KINDS = {"line": "line", "scatter": "scatter", "bar": "bar", "pie": "pie", "box": "box_and_whisker"}


def event(word: JsonObject, now_ns: int) -> JsonObject | None:
    """Return one event of an execution as a client reads it, or None for a word without a meaning.

    now_ns  the time that is written beside output, in nanoseconds since the Unix epoch
    """
    kind = word.get("type")
    if kind in ("stdout", "stderr"):
        return {"type": kind, "text": str(word.get("text", "")), "timestamp": now_ns}
    if kind == "error":
        return {"type": "error", **{name: str(word.get(name, "")) for name in ("name", "value", "traceback")}}
    if kind == "count":
        count = word.get("execution_count")
        return {"type": "number_of_executions", "execution_count": count if isinstance(count, int) else 0}
    if kind == "result" and isinstance(word.get("bundle"), dict):
        return {"type": "result", "is_main_result": word.get("main") is True, **result(word["bundle"])}
    return None


def result(bundle: Mapping[str, Any]) -> JsonObject:
    """Return a bundle of media types as the fields of a result."""
    found: JsonObject = {}
    extra: JsonObject = {}
    for kind, content in bundle.items():
        name = _FIELDS.get(kind)
        if name is None:
            if kind != "e2b/chart":
                extra[kind] = content
        elif name in _TEXTS:
            found[name] = content if isinstance(content, str) else str(content)
        else:
            found[name] = content
    if isinstance(found.get("text"), str):
        found["text"] = _unquoted(found["text"])
    drawn = chart(bundle.get("e2b/chart"))
    if drawn is not None:
        found["chart"] = drawn
    if extra:
        found["extra"] = extra
    return found


def _unquoted(text: str) -> str:
    """A string's text is the string, not its notation."""
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if quoted else text


def chart(found: Any) -> JsonObject | None:
    """Return what a figure shows in the form of E2B's charts, or None where there is nothing to show."""
    if not isinstance(found, dict) or not isinstance(found.get("axes"), list):
        return None
    try:
        drawn = [_axes(each) for each in found["axes"]]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None
    if len(drawn) == 1:
        drawn[0]["title"] = drawn[0]["title"] or found.get("title")
        return drawn[0]
    return {"type": "superchart", "title": found.get("title"), "elements": drawn} if drawn else None


def _axes(axes: JsonObject) -> JsonObject:
    kind = _KINDS.get(axes["type"], "unknown")
    drawn: JsonObject = {"type": kind, "title": axes.get("title")}
    if kind == "pie":
        return {**drawn, "elements": [_slice(point) for series in axes["series"] for point in series["points"]]}
    x, y = axes.get("x") or {}, axes.get("y") or {}
    drawn |= {"x_label": x.get("label"), "y_label": y.get("label"), "x_unit": None, "y_unit": None}
    if kind == "bar":
        return {**drawn, "elements": [_bar(series, point) for series in axes["series"] for point in series["points"]]}
    if kind == "box_and_whisker":
        return {**drawn, "elements": [_box(series) for series in axes["series"]]}
    if kind == "unknown":
        return {**drawn, "elements": []}
    for name, axis in (("x", x), ("y", y)):
        points = [point[0 if name == "x" else 1] for series in axes["series"] for point in series["points"]]
        ticks = list(dict.fromkeys(points))[:50]
        drawn[f"{name}_ticks"] = ticks
        drawn[f"{name}_tick_labels"] = [str(tick) for tick in ticks]
        drawn[f"{name}_scale"] = _scale(axis.get("scale"))
    return {**drawn, "elements": [{"label": each["label"] or "", "points": each["points"]} for each in axes["series"]]}


def _slice(point: list[Any]) -> JsonObject:
    share = float(point[1])
    return {"label": point[0] or "", "angle": share * 360, "radius": 1.0}


def _bar(series: JsonObject, point: list[Any]) -> JsonObject:
    return {"label": str(point[0]), "group": series["label"] or "", "value": str(point[1])}


def _box(series: JsonObject) -> JsonObject:
    box = series["box"]
    return {
        "label": series["label"] or "",
        "min": box["minimum"],
        "first_quartile": box["q1"],
        "median": box["median"],
        "third_quartile": box["q3"],
        "max": box["maximum"],
        "outliers": series["outliers"],
    }


def _scale(name: Any) -> str:
    return "categorical" if name == "category" else name if isinstance(name, str) else "linear"
