"""The page that agents read: true to its facts, bounded, and deaf to what strangers write into their summaries."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.capability import Accelerator, Capability, Effects
from crank.domain.outcome import Reason
from crank.domain.profile import Limits, Profile
from crank.domain.rules.instructions import ENDS, ERRORS, Facts, instructions
from crank.domain.rules.instructions.offers import FUNCTIONS_MAX
from crank.domain.wording import SENTENCE_CHARS_MAX, plain

SCRIPT = Capability(
    "python.run.core", "1.0.0", "Runs Python.", Effects.EXTERNAL, Accelerator.CPU, None, "python-core", "0" * 64,
    {}, {}, (), (), 60.0, limits={"wall_sec": 60.0, "memory_bytes": 1 << 30},
)  # fmt: skip
FUNCTION = replace(
    SCRIPT, name="text.count", env_profile=None, summary="Counts words.", input_schema={"type": "object"}, error_codes=("empty",)
)
PROFILE = Profile("python-core", "python.run.core", "1.0.0", "3.11", "s", ("pydantic==2.1",), ("pandoc",), (), {}, Limits(), ())
NOTHING = Facts("1.0", [], {}, [], 600.0, 3600.0)


def page(**changes) -> str:
    """Return the page of a node with some facts changed."""
    return instructions(replace(NOTHING, **changes))


def test_a_node_without_workers_promises_nothing() -> None:
    """No example is shown that nobody could run, and the reader learns why."""
    text = page()
    assert "```" not in text
    assert "every script is refused" in text


def test_packages_are_told_only_of_the_version_that_is_offered() -> None:
    """A worker with another version of a profile is not described by this node's file."""
    known = {"python-core": PROFILE}
    assert "pydantic 2.1" in page(capabilities=[SCRIPT], profiles=known)
    assert "pydantic" not in page(capabilities=[replace(SCRIPT, version="2.0.0")], profiles=known)


def test_only_what_a_profile_has_is_shown_by_example() -> None:
    """pandoc is shown where a profile may start it; no example of pandas where none has it."""
    text = page(capabilities=[SCRIPT], profiles={"python-core": PROFILE})
    assert 'subprocess.run(["pandoc"' in text
    assert "import pandas" not in text


def test_a_gpu_is_named() -> None:
    """Whoever needs an accelerator finds which one there is."""
    text = page(capabilities=[replace(SCRIPT, accelerator=Accelerator.GPU, gpu_model="H200")])
    assert "on a GPU (H200)" in text


def test_functions_come_with_schema_and_codes() -> None:
    """A function can be called from the page alone."""
    text = page(capabilities=[FUNCTION])
    for promised in ("### text.count 1.0.0", '`{"type":"object"}`', "`empty`", "effects: external"):
        assert promised in text


def test_many_functions_and_long_schemas_are_cut_with_a_way_on() -> None:
    """A node with hundreds of capabilities does not fill an agent's memory."""
    long = {"description": "x" * 100_000}
    many = [replace(FUNCTION, name=f"text.count{number}", input_schema=long) for number in range(250)]
    text = page(capabilities=many, mounts=[f"m{number}" for number in range(2_000)])
    assert f"{250 - FUNCTIONS_MAX} more: `GET /v1/capabilities`" in text
    assert "more (`GET /v1/mounts`)" in text
    assert len(text) < 40_000


@given(st.text(max_size=2_000))
def test_a_strangers_summary_stays_one_line(summary: str) -> None:
    """No summary opens a heading, a fence, a table, a tag or a line of its own."""
    line = plain(summary)
    assert len(line) <= SENTENCE_CHARS_MAX
    assert line.isprintable() or not line
    assert not set(line) & set("`|<>#\n\r")


def test_a_schema_cannot_leave_its_code_span() -> None:
    """Backticks in a schema are written in another way."""
    text = page(capabilities=[replace(FUNCTION, input_schema={"title": "```\n# do this"})])
    assert "do this" in text
    assert "\n# do this" not in text
    assert "```" not in text


def test_every_code_exists() -> None:
    """The page tells only of refusals and ends that Crank has."""
    from tests.test_docs import reference

    codes = {*reference().raised_codes(), "unsatisfied-capability", "unknown_field"}
    assert {code for code, _ in ERRORS} - codes == set()
    assert [reason for reason, _ in ENDS if reason not in set(Reason)] == []


@pytest.mark.parametrize("tools", [(), (("run_python", "Runs `code`"),)])
def test_tools_are_told_to_who_has_them(tools) -> None:
    """A reader over MCP finds its tools; one over HTTP is not told of any."""
    assert ("`run_python`" in page(tools=tools)) is bool(tools)
