"""The JSON form of an outcome, in which it travels and is stored."""

import dataclasses
from typing import Any

from crank.domain.ids import Digest
from crank.domain.json import JsonObject
from crank.domain.outcome import Artifact, Clock, End, Outcome, Reason, Skipped, Stream, Usage
from crank.errors import ProtocolError


def outcome_document(outcome: Outcome) -> JsonObject:
    """Return the JSON form of an outcome; `parse_outcome` reads it back to an equal value."""
    document: JsonObject = dataclasses.asdict(outcome)
    return document


def parse_outcome(document: Any) -> Outcome:
    """Read an outcome strictly. Raises ProtocolError."""
    if not isinstance(document, dict):
        raise ProtocolError("An outcome must be an object.")
    body = dict(document)
    try:
        for name in ("artifacts", "skipped", "displays", "denials"):
            if not isinstance(body[name], list | tuple):
                raise ProtocolError(f"An outcome's {name} must be a list.")
        body["end"] = _parse_end(body["end"])
        body["stdout"] = Stream(**body["stdout"])
        body["stderr"] = Stream(**body["stderr"])
        body["usage"] = Usage(**body["usage"])
        body["displays"] = tuple(body["displays"])
        body["denials"] = tuple(str(line) for line in body["denials"])
        body["artifacts"] = tuple(_parse_artifact(entry) for entry in body["artifacts"])
        body["skipped"] = tuple(Skipped(**entry) for entry in body["skipped"])
        return Outcome(**body)
    except (KeyError, TypeError, ValueError) as fault:
        raise ProtocolError(f"An outcome is malformed: {fault}") from fault


def _parse_end(body: Any) -> End:
    end = dict(body)
    end["reason"] = Reason(end["reason"])
    end["clock"] = None if end["clock"] is None else Clock(end["clock"])
    return End(**end)


def _parse_artifact(body: Any) -> Artifact:
    artifact = Artifact(**{**body, "sha256": Digest(body["sha256"])})
    if artifact.path.startswith("/") or ".." in artifact.path.split("/"):
        raise ProtocolError("An artifact's path leaves its folder.")
    return artifact
