"""What MCP advises: whatever rule refuses, the fix names a tool or a resource and no route of HTTP."""

import ast
import json
import re
from pathlib import Path

import pytest

import crank
from crank.api.mcp.advice import for_tools
from tests.support.desk import ScriptedWorker
from tests.unit.api.conftest import CORE
from tests.unit.api.mcp.test_door import call

ROOT = Path(crank.__file__).parent
# The page of instructions is of HTTP by its nature.
ROOMS = [*(ROOT / "controller").rglob("*.py"), *(ROOT / "domain").rglob("*.py"), ROOT / "errors.py", ROOT / "api" / "problem.py"]
ROUTE = re.compile(r"\b(?:GET|POST|PUT|DELETE) /v1/|/openapi\.json (?:gives|names)|as blobs|or blobs")


def _sentences():
    for path in ROOMS:
        if "instructions" in path.parts:
            continue
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        prose = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            said = node.value if isinstance(node, ast.Constant) and id(node) not in prose else None
            if isinstance(said, str) and ROUTE.search(said):
                yield said


def test_no_advice_of_the_rules_reaches_a_tool_with_a_route_in_it():
    """Every sentence that the rules have about a route has its counterpart for tools."""
    found = list(_sentences())
    assert len(found) >= 7
    assert [sentence for sentence in found if ROUTE.search(for_tools(sentence))] == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("run_python", {"code": "1", "session": "x"}),
        ("run_python", {"code": "1", "mounts": ["nope"]}),
        ("run_python", {"code": "1", "profile": "nope"}),
        ("run_python", {"code": "1", "files": [{"path": "a", "sha256": "0" * 64}]}),
        ("run_python", {"code": 1}),
        ("run_python", {"code": 1, "session": 2}),
        ("call_capability", {"name": "no.such.thing"}),
    ],
)
async def test_a_refusal_on_mcp_names_what_mcp_has(house, name, arguments):
    """Neither the fix nor those of the single problems lead a model to an address that it cannot call."""
    desk, _, client = house
    await ScriptedWorker(desk, "w1", [CORE]).connect()
    told = await call(client, name, **arguments)
    assert told["isError"] is True
    fault = json.loads(told["content"][0]["text"])["error"]
    for fix in (fault["fix"], *(problem["fix"] for problem in fault["problems"])):
        assert fix
        assert "/v1" not in fix
        assert "openapi" not in fix
