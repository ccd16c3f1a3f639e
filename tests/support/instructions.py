"""Reads the examples out of a page of instructions and runs each one: a fence that is not understood is a failure."""

import json
import re
from dataclasses import dataclass
from typing import Any

from tests.support.node import Api

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SETTING = re.compile(r"# (profile|args|mounts): (.+)")


@dataclass(frozen=True)
class Request:
    """One HTTP request, as a page shows it."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any] | None


def examples(page: str) -> list[Request]:
    """Return every example of a page as the request that it means; anything else in a fence raises."""
    assert page.count("```") == 2 * len(_FENCE.findall(page)), "a fence that is not closed, or says no language"
    return [_job(code) if language == "python" else _request(language, code) for language, code in _FENCE.findall(page)]


def _job(code: str) -> Request:
    settings: dict[str, str] = {}
    for line in code.splitlines():
        found = _SETTING.fullmatch(line)
        if not found:
            break
        settings[found[1]] = found[2]
    body: dict[str, Any] = {"code": code, "env_profile": settings["profile"]}
    if "args" in settings:
        body["args"] = json.loads(settings["args"])
    if "mounts" in settings:
        body["mounts"] = [name.strip() for name in settings["mounts"].split(",")]
    return Request("POST", "/v1/jobs", {"Prefer": "wait=40"}, body)


def _request(language: str, text: str) -> Request:
    assert language == "text", f"a fence of {language!r} is no example"
    head, _, body = text.partition("\n\n")
    first, *lines = head.strip().splitlines()
    method, path = first.split(" ")
    headers = dict(line.split(": ", 1) for line in lines)
    return Request(method, path, headers, json.loads(body) if body.strip() else None)


def run_examples(page: str, api: Api) -> list[dict[str, Any]]:
    """Run every example in order; raise AssertionError for the first that is refused or whose job does not succeed."""
    answers: list[dict[str, Any]] = []
    session_id = ""
    for example in examples(page):
        # Only what the page itself says to fill in is filled in.
        text = json.dumps(example.body).replace("<session_id>", session_id)
        response = api.http.request(
            example.method,
            example.path.replace("<session_id>", session_id),
            headers=example.headers,
            json=None if example.body is None else json.loads(text),
        )
        assert response.status_code in (200, 201, 202, 204), f"{example}: {response.text}"
        document: dict[str, Any] = response.json() if response.content else {}
        if example.path == "/v1/sessions":
            session_id = document["session_id"]
        if example.path == "/v1/jobs":
            document = document if document["end"] else api.ended(document["job_id"])
            assert document["status"] == "succeeded", f"{example}: {document}"
        answers.append(document)
    return answers
