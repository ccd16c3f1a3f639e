"""The OpenAPI document is a promise: it changes on purpose or not at all; then `make golden` writes it anew."""

import json
import os
from pathlib import Path

from crank.api.app import build_api
from tests.support.desk import open_desk

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "openapi.json"


async def document(folder: Path) -> str:
    """Return the document as the golden file holds it."""
    async with open_desk(folder) as desk:
        return json.dumps(build_api(desk, version="golden").openapi(), indent=1, sort_keys=True) + "\n"


async def test_the_document_is_the_golden_one(tmp_path):
    """What is served is what was agreed."""
    text = await document(tmp_path)
    if os.environ.get("CRANK_TEST_GOLDEN") == "write":
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")


async def test_every_operation_tells_its_refusals(tmp_path):
    """Each operation has an id, the statuses that all share, and problem documents for them."""
    for path, operations in json.loads(await document(tmp_path))["paths"].items():
        for operation in operations.values():
            assert operation["operationId"]
            assert {"401", "422", "500", "503"} <= set(operation["responses"])
            for status, answer in operation["responses"].items():
                assert int(status) < 400 or list(answer["content"]) == ["application/problem+json"]
            assert path in {"/healthz", "/readyz", "/v1/trust/crl", "/v1/nodes/join"} or operation["security"] == [{"bearer": []}]


async def test_the_explorer_needs_nothing_from_outside(api):
    """The page at /docs names no address but this node's, and its script is here."""
    page = await api.get("/docs")
    assert "https://" not in page.text
    assert "http://" not in page.text
    assert (await api.get("/static-offline-docs/swagger-ui-bundle.js")).status_code == 200
    assert (await api.get("/openapi.json")).json()["openapi"].startswith("3.1")
