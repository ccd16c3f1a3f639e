"""The list of tools is what every model reads first: it changes on purpose or not at all."""

import json
import os
from pathlib import Path

from jsonschema import Draft202012Validator

from crank.api.mcp.server import described
from crank.api.mcp.tools import TOOLS

GOLDEN = Path(__file__).resolve().parents[3] / "golden" / "mcp-tools.json"
# A list that costs a model more than this is too long for what it says.
INPUT_CHARS_MAX = 9_000


def listed() -> list[dict]:
    """Return the tools as a client gets them."""
    return [described(tool).model_dump(by_alias=True, exclude_none=True, mode="json") for tool in TOOLS.values()]


def test_the_tools_are_as_promised_golden() -> None:
    """Names, words, schemas and hints stand in a file, in the order in which they are sent."""
    text = json.dumps(listed(), indent=1) + "\n"
    if os.environ.get("CRANK_TEST_GOLDEN") == "write":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_the_schemas_are_plain_and_true() -> None:
    """Each is valid JSON Schema for an object, without references, which some hosts do not follow."""
    for tool in listed():
        for side in ("inputSchema", "outputSchema"):
            Draft202012Validator.check_schema(tool[side])
            assert tool[side]["type"] == "object"
            assert "$ref" not in json.dumps(tool[side])
        assert "null" not in json.dumps(tool["inputSchema"])


def test_the_list_is_short_for_a_model() -> None:
    """What a host puts before a model, names, descriptions and inputs, stays small."""
    shown = [{key: tool[key] for key in ("name", "description", "inputSchema")} for tool in listed()]
    assert len(json.dumps(shown)) < INPUT_CHARS_MAX
