"""The documents of the GPT Actions keep every published rule, and the linter that says so can fail."""

import copy
from typing import Any

import pytest

from crank.api.actions_document import VERSIONS, actions_document, as_3_0
from tests.support.actions_rules import lint, operations

SERVER = "https://crank.example.org"


def made(version: str) -> dict[str, Any]:
    """Return the document of a version."""
    document = actions_document(server=SERVER, version="1.2.3")
    return document if version == VERSIONS[0] else as_3_0(document)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_published_rule_is_kept(version: str) -> None:
    """Neither document breaks a limit, names an unknown word or leaves a reference open."""
    assert lint(made(version), version) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_both_documents_hold_the_same_operations(version: str) -> None:
    """About eight, with ids that a model understands."""
    names = [operation["operationId"] for _, _, operation in operations(made(version))]
    assert names == ["runPython", "callCapability", "waitForJob", "cancelJob", "getFiles", "readFile", "findCapabilities", "describeNode"]


def _break(document: dict[str, Any], what: str) -> None:
    run = document["paths"]["/v1/actions/run"]["post"]
    schemas = document["components"]["schemas"]
    changes = {
        "long description": lambda: run.update(description="x" * 301),
        "no summary": lambda: run.pop("summary"),
        "same id": lambda: run.update(operationId="waitForJob"),
        "no server": lambda: document.update(servers=[]),
        "plain http": lambda: document.update(servers=[{"url": "http://crank.example.org"}]),
        "no consequence": lambda: run.pop("x-openai-isConsequential"),
        "no credential": lambda: run.pop("security"),
        "a header": lambda: run.update(parameters=[{"in": "header", "name": "Prefer", "description": "d"}]),
        "long parameter": lambda: schemas["RunWanted"]["properties"]["code"].update(description="x" * 701),
        "eleven files": lambda: schemas["RunWanted"]["properties"]["openaiFileIdRefs"].update(maxItems=11),
        "files as objects": lambda: schemas["RunWanted"]["properties"]["openaiFileIdRefs"].update(items={"type": "integer"}),
        "bare object": lambda: schemas["RunWanted"]["properties"]["args"].pop("properties"),
        "bare array": lambda: schemas["RunWanted"]["properties"]["folders"].pop("items"),
        "open reference": lambda: schemas.pop("JobBrief"),
        "multipart": lambda: run["requestBody"].update(content={"multipart/form-data": {"schema": {}}}),
        "not text": lambda: run["responses"]["200"].update(content={"image/png": {}}),
        "31 operations": lambda: document["paths"].update({f"/{n}": {"get": copy.deepcopy(run)} for n in range(31)}),
        "another version": lambda: document.update(openapi="3.2.0"),
        "too long": lambda: document["info"].update(description="x" * 100_001),
    }
    changes[what]()


BREAKS = ["long description", "no summary", "same id", "no server", "plain http", "no consequence", "no credential", "a header",
          "long parameter", "eleven files", "files as objects", "bare object", "bare array", "open reference", "multipart", "not text",
          "31 operations", "another version", "too long"]  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("what", BREAKS)
def test_the_linter_finds_each_mistake(what: str, version: str) -> None:
    """A document that breaks one rule is caught, in both versions."""
    document = copy.deepcopy(made(version))
    _break(document, what)
    assert lint(document, version) != []


def test_the_documents_are_no_version_of_each_other() -> None:
    """3.1 words are caught in a document that says 3.0.3: the down-conversion is needed, and done."""
    document = {**made(VERSIONS[0]), "openapi": VERSIONS[1]}
    assert any("not known to 3.0" in finding for finding in lint(document, VERSIONS[1]))


async def test_anybody_may_read_them_and_they_tell_nothing(api) -> None:
    """The importer sends no credential; both ways to 3.0.3 give the same; an unknown version is refused."""
    del api.headers["authorization"]
    newest = await api.get("/openapi/actions.json")
    assert newest.status_code == 200
    assert newest.json()["servers"] == [{"url": "https://node.test"}]
    older = (await api.get("/openapi/actions.json?openapi=3.0.3")).json()
    assert older == (await api.get("/openapi/actions-3.0.json")).json()
    assert older["openapi"] == "3.0.3"
    refused = await api.get("/openapi/actions.json?openapi=2.0")
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_openapi")


async def test_the_server_is_the_public_address_where_one_is_set(desk) -> None:
    """Behind a tunnel the Host that arrives may be another one; the operator's word counts."""
    import httpx2

    from crank.api.app import build_api

    transport = httpx2.ASGITransport(app=build_api(desk, version="0", public_url=SERVER))
    async with httpx2.AsyncClient(transport=transport, base_url="https://127.0.0.1:7443") as client:
        assert (await client.get("/openapi/actions.json")).json()["servers"] == [{"url": SERVER}]
