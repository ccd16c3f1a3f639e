"""The JSON form of an outcome, in which it travels and is stored.

Documents outlive the version that wrote them: a part that came later may be absent, and denials were once
plain sentences. Everything else is read strictly.
"""

import dataclasses
import re
from typing import Any

from crank.domain.ids import Digest
from crank.domain.json import JsonObject
from crank.domain.outcome import TOLD_BY, Artifact, Clock, Denial, End, Outcome, Reason, Skipped, Stream, Usage
from crank.errors import ProtocolError

DENIALS_MAX = 1_000
ACTION_CHARS_MAX = 1_000
_LAYER = re.compile(r"[a-z][a-z_]{0,31}")
_LISTS = ("artifacts", "skipped", "displays", "denials")
_LATER_LISTS = ("layers", "notes")


def outcome_document(outcome: Outcome) -> JsonObject:
    """Return the JSON form of an outcome; `parse_outcome` reads it back to an equal value."""
    document: JsonObject = dataclasses.asdict(outcome)
    return document


def parse_outcome(document: Any) -> Outcome:
    """Read an outcome strictly. Raises ProtocolError."""
    if not isinstance(document, dict):
        raise ProtocolError("An outcome must be an object.")
    body = {**dict.fromkeys(_LATER_LISTS, ()), **document}
    try:
        for name in (*_LISTS, *_LATER_LISTS):
            if not isinstance(body[name], list | tuple):
                raise ProtocolError(f"An outcome's {name} must be a list.")
        body["end"] = _parse_end(body["end"])
        body["stdout"] = _parse_stream(body["stdout"])
        body["stderr"] = _parse_stream(body["stderr"])
        body["usage"] = _parse_usage(body["usage"])
        body["displays"] = tuple(body["displays"])
        old = tuple(entry for entry in body["denials"] if isinstance(entry, str))
        body["denials"] = tuple(_parse_denial(entry) for entry in body["denials"] if not isinstance(entry, str))
        body["layers"] = tuple(_text(name) for name in body["layers"])
        body["notes"] = old + tuple(_text(sentence) for sentence in body["notes"])
        body["artifacts"] = tuple(_parse_artifact(entry) for entry in body["artifacts"])
        body["skipped"] = tuple(Skipped(**entry) for entry in body["skipped"])
        if len(body["denials"]) > DENIALS_MAX:
            raise ProtocolError(f"An outcome has more than {DENIALS_MAX} denials.")
        return Outcome(**body)
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        raise ProtocolError(f"An outcome is malformed: {fault}") from fault


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ProtocolError("An outcome holds something other than a text where a text belongs.")
    return value


def _parse_end(body: Any) -> End:
    end = dict(body)
    end["reason"] = Reason(end["reason"])
    end["clock"] = None if end["clock"] is None else Clock(end["clock"])
    return End(**end)


def _parse_stream(body: Any) -> Stream:
    if not _is_count(body["seen_bytes"]) or not _is_count(body["kept_bytes"]):
        raise ProtocolError("An outcome's streams are counted in whole bytes.")
    return Stream(**{**body, "text": _text(body["text"])})


def _parse_usage(body: Any) -> Usage:
    # They are added up for /metrics: one that is no number must not get there.
    spent = (body["wall_sec"], body["cpu_sec"], body["setup_sec"])
    peaks = (body["peak_memory_bytes"], body.get("tasks_peak"))
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) and each >= 0 for each in spent)
    if not numbers or not all(each is None or _is_count(each) for each in peaks):
        raise ProtocolError("An outcome's usage is not told in numbers.")
    if not isinstance(body.get("pool_hit", False), bool):
        raise ProtocolError("An outcome's pool_hit is neither true nor false.")
    return Usage(**body)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _parse_denial(body: Any) -> Denial:
    layer, action, count = body["layer"], body["action"], body["count"]
    if not isinstance(layer, str) or not isinstance(action, str) or not _is_count(count) or count < 1:
        raise ProtocolError("A denial has an unknown form.")
    if not _LAYER.fullmatch(layer) or len(action) > ACTION_CHARS_MAX or body["told_by"] not in TOLD_BY:
        raise ProtocolError("A denial names no layer, has an action that is too long, or no known witness.")
    return Denial(**body)


def _parse_artifact(body: Any) -> Artifact:
    artifact = Artifact(**{**body, "sha256": Digest(body["sha256"])})
    if artifact.path.startswith("/") or ".." in artifact.path.split("/"):
        raise ProtocolError("An artifact's path leaves its folder.")
    return artifact
