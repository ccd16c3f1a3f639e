"""Entries in the files of hosts: the shape that each reads, put in and taken out without touching anything else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.rules.hosts import HOSTS, Base, entry_of, place_of, snippet, with_entry, without_entry
from crank.errors import Conflict, InvalidRequest, NotSupported

COMMAND = ("/opt/crank/bin/crank", "mcp")
LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"]))
ANY_OBJECT = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"])),
    st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3), max_leaves=8),
    max_size=5,
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTS)
def test_each_host_gets_the_shape_that_it_reads(name: str) -> None:
    """VS Code reads `servers` and wants a type; the others read `mcpServers`; no entry holds a secret or an address."""
    host = HOSTS[name]
    document = json.loads(with_entry("", host, entry_of(host, COMMAND, {})))
    assert list(document) == ["servers" if name == "vscode" else "mcpServers"]
    (entry,) = document[host.section].values()
    assert (entry["command"], entry["args"]) == ("/opt/crank/bin/crank", ["mcp"])
    assert ("type" in entry) is (name in ("vscode", "claude-code"))
    assert set(entry) <= {"type", "command", "args"}


def test_what_a_host_is_not_told_is_not_there() -> None:
    """The home is named only where the command would not find it by itself."""
    assert "env" not in entry_of(HOSTS["claude"], COMMAND, {})
    assert entry_of(HOSTS["claude"], COMMAND, {"CRANK_HOME": "/h"})["env"] == {"CRANK_HOME": "/h"}


@pytest.mark.parametrize(
    ("name", "project", "base", "path"),
    [
        ("claude", False, Base.CONFIG, "Claude/claude_desktop_config.json"), ("claude-code", False, Base.PROJECT, ".mcp.json"),
        ("cursor", False, Base.HOME, ".cursor/mcp.json"), ("cursor", True, Base.PROJECT, ".cursor/mcp.json"),
        ("vscode", False, Base.CONFIG, "Code/User/mcp.json"), ("vscode", True, Base.PROJECT, ".vscode/mcp.json"),
        ("windsurf", False, Base.HOME, ".codeium/windsurf/mcp_config.json"),
    ],
)  # fmt: skip
def test_each_host_keeps_its_list_at_its_place(name: str, project: bool, base: Base, path: str) -> None:
    """The person's list and a project's are told apart."""
    found, parts = place_of(HOSTS[name], project=project)
    assert (found, "/".join(parts)) == (base, path)


def test_a_host_without_project_lists_says_so() -> None:
    """Claude Desktop has one list."""
    with pytest.raises(NotSupported):
        place_of(HOSTS["claude"], project=True)


@given(ANY_OBJECT, st.sampled_from(sorted(HOSTS)), st.sampled_from([2, 4, "\t", None]))
def test_everything_else_stays_as_it_was(document: dict, name: str, indent: int | str | None) -> None:
    """Whatever a person has configured is there afterwards, in its order; taking the entry out gives it back."""
    host = HOSTS[name]
    document.pop(host.section, None)
    entry = entry_of(host, COMMAND, {})
    before = {**document, host.section: {"other": {"command": "x"}}}
    text = json.dumps(before, indent=indent)
    after = json.loads(with_entry(text, host, entry))
    assert list(after) == list(before)
    assert after == {**before, host.section: {"other": {"command": "x"}, "crank": entry}}
    twice = with_entry(with_entry(text, host, entry), host, entry)
    assert twice == with_entry(text, host, entry)
    assert json.loads(without_entry(twice, host)) == before


def test_the_form_of_the_file_is_kept() -> None:
    """Indentation is that of the file; text outside of ASCII stays readable."""
    text = '{\n\t"theme": "dünkel"\n}\n'
    assert with_entry(text, HOSTS["cursor"], {"command": "c", "args": []}).startswith('{\n\t"theme": "dünkel",\n\t"mcpServers": {\n\t\t"crank"')


@pytest.mark.parametrize(
    "text",
    ['{\n  // mine\n  "a": 1\n}', '{"a": 1, /* mine */ "b": 2}', '{"a": 1,}', '{"a": [1, 2,\n]}', '{"a": 1} // end', '/* top */ {}'],
)  # fmt: skip
def test_comments_are_never_destroyed(text: str) -> None:
    """A file with comments is refused, and the fix is the very text to put in by hand."""
    with pytest.raises(InvalidRequest) as caught:
        with_entry(text, HOSTS["vscode"], entry_of(HOSTS["vscode"], COMMAND, {}))
    assert caught.value.error_code == "host_file_unreadable"
    assert "comments" in caught.value.message
    assert '"servers"' in caught.value.fix
    with pytest.raises(InvalidRequest):
        without_entry(text, HOSTS["vscode"])


@pytest.mark.parametrize("text", ["{", "nonsense", '{"a": 1, "a": 2}', '{"url": "http://x" "b": 1}'])
def test_what_is_not_json_is_left_alone(text: str) -> None:
    """Broken files and names that stand twice are refused: rewriting would lose something."""
    with pytest.raises(InvalidRequest) as caught:
        with_entry(text, HOSTS["claude"], {"command": "c"})
    assert caught.value.error_code == "host_file_unreadable"


@pytest.mark.parametrize("text", ["[]", "1", '{"mcpServers": []}', '{"mcpServers": null}'])
def test_another_shape_is_left_alone(text: str) -> None:
    """What the host itself would not read is not ours to repair."""
    with pytest.raises(Conflict):
        with_entry(text, HOSTS["claude"], {"command": "c"})


def test_an_empty_file_and_a_byte_order_mark_are_fine() -> None:
    """Editors leave both."""
    assert json.loads(with_entry("  \n", HOSTS["claude"], {"command": "c"})) == {"mcpServers": {"crank": {"command": "c"}}}
    assert "x" in json.loads(with_entry('\ufeff{"x": 1}', HOSTS["claude"], {"command": "c"}))
    assert without_entry("", HOSTS["claude"]) == ""


def test_the_snippet_is_what_would_be_written() -> None:
    """--print and the file agree."""
    host = HOSTS["vscode"]
    entry = entry_of(host, COMMAND, {})
    assert json.loads(snippet(host, entry)) == json.loads(with_entry("", host, entry))
