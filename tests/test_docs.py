"""The documents: every snippet runs, every link leads somewhere, and the reference is what the code says.

A fence of `bash` or `python` is run, in order, in one folder a document, against a node in a home of
its own. One that cannot be run has a line `<!-- not run: reason -->` right before it.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from crank.cli.main import _GROUPS, _VERBS

REPO = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*REPO.glob("*.md"), *(REPO / "docs").rglob("*.md")])
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)")
SNIPPET_SEC = 180
START = "crank up --detach"
# What changes a node, or needs one that nobody else uses.
OWN_NODE = re.compile(r"crank up|CRANK_|worker serve|identity (rotate|revoke)|crank (node (invite|join|forget)|doctor|federation|key revoke)")


@dataclass(frozen=True)
class Snippet:
    """One fence of a document."""

    language: str
    code: str
    reason: str | None


def snippets(document: Path) -> list[Snippet]:
    """Return the fences of a document, in order."""
    text = document.read_text("utf-8")
    return [Snippet(found["language"], found["code"], found["reason"]) for found in FENCE.finditer(text)]


def runnable(document: Path) -> list[Snippet]:
    """Return the fences that are run."""
    return [entry for entry in snippets(document) if entry.language in {"bash", "python"} and entry.reason is None]


PAGES = [path for path in DOCUMENTS if runnable(path)]


def name_of(document: Path) -> str:
    """Return a document's name for test reports."""
    return str(document.relative_to(REPO))


def wants_its_own_node(document: Path) -> bool:
    """Tell whether a page must be run word for word: the first pages, and what starts, serves or changes a node."""
    if document.parent in {REPO, REPO / "docs" / "tutorials"}:
        return True
    lines = [line.strip() for entry in runnable(document) for line in entry.code.splitlines()]
    starts = [line for line in lines if line.startswith("crank up")]
    return len(starts) > 1 or any(OWN_NODE.search(line) for line in lines if line != START)


def environment_of(home: Path, person: Path, builds: Path) -> dict[str, str]:
    """Return the variables of a reader whose node lives in `home`, and whose own settings in `person`."""
    # What a page writes into a person's own settings is not written into the tester's.
    person.mkdir()
    return {
        **os.environ,
        "HOME": str(person),
        "XDG_CONFIG_HOME": "",
        "CRANK_HOME": str(home),
        "CRANK_API_PORT": "0",
        "CRANK_WORKERS_PORT": "0",
        "CRANK_PROFILES_BUILDS": str(builds),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def play(document: Path, folder: Path, environment: dict[str, str], *, shared: bool) -> None:
    """Run the snippets of a page; on a node that others use, it is neither started nor stopped."""
    for number, entry in enumerate(runnable(document), 1):
        code = re.sub(rf"^({START}|crank down)$", ":", entry.code, flags=re.MULTILINE) if shared else entry.code
        home = Path(environment["CRANK_HOME"])
        if entry.language == "python" and not (home / "run" / "node.json").exists():
            run(["crank", "up", "--detach"], folder, environment, "start again")
        argv = ["bash", "-euo", "pipefail", "-c", code] if entry.language == "bash" else [sys.executable, "-c", code]
        run(argv, folder, environment, f"snippet {number}")


@pytest.mark.system
@pytest.mark.parametrize("document", [path for path in PAGES if wants_its_own_node(path)], ids=name_of)
def test_snippets_run(document: Path, tmp_path: Path, builds: Path) -> None:
    """What a reader copies works, from the first line of the page to its last."""
    environment = environment_of(tmp_path / "home", tmp_path / "person", builds)
    folder = tmp_path / "here"
    folder.mkdir()
    try:
        # Pages that show only the Python side rely on a running node, as their reader does.
        if not any("crank up" in entry.code for entry in runnable(document)):
            run(["crank", "up", "--detach"], folder, environment, "start")
        play(document, folder, environment, shared=False)
    finally:
        subprocess.run(["crank", "down"], env=environment, cwd=folder, capture_output=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def used_node(tmp_path_factory: pytest.TempPathFactory, builds: Path) -> Iterator[dict[str, str]]:
    """Give the variables of a node that many pages use: starting one for each was a tenth of all tests' time."""
    folder = tmp_path_factory.mktemp("pages")
    environment = environment_of(folder / "home", folder / "person", builds)
    run(["crank", "up", "--detach"], folder, environment, "start")
    try:
        yield environment
    finally:
        subprocess.run(["crank", "down"], env=environment, cwd=folder, capture_output=True, timeout=120, check=False)


@pytest.mark.system
@pytest.mark.xdist_group("pages")
@pytest.mark.parametrize("document", [path for path in PAGES if not wants_its_own_node(path)], ids=name_of)
def test_snippets_run_on_a_node_in_use(document: Path, tmp_path: Path, used_node: dict[str, str]) -> None:
    """What a reader copies works on a node that has done other things."""
    try:
        play(document, tmp_path, used_node, shared=True)
    finally:
        # A folder's name belongs to one folder, and pages call different ones the same.
        listed = subprocess.run(["crank", "mount", "list", "--json"], env=used_node, capture_output=True, check=True)
        for mount in json.loads(listed.stdout)["mounts"]:
            subprocess.run(["crank", "mount", "remove", mount["mount_id"]], env=used_node, capture_output=True, check=True)


def run(argv: list[str], folder: Path, environment: dict[str, str], what: str) -> None:
    """Run one snippet and show all of it when it fails."""
    done = subprocess.run(
        argv,
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SNIPPET_SEC,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, f"{what}:\n{argv[-1]}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_snippets_that_are_not_run_say_why(document: Path) -> None:
    """Nothing escapes the test above by its language's name."""
    known = {"bash", "python", "text", "mermaid", "json", "toml"}
    assert {entry.language for entry in snippets(document)} <= known
    assert all(len(entry.reason) > 10 for entry in snippets(document) if entry.reason is not None)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    """Every relative link names a file, and every anchor a heading of it."""
    for target, anchor in LINK.findall(document.read_text("utf-8")):
        path = (document.parent / target).resolve() if target else document
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{target}#{anchor}"


def reference() -> ModuleType:
    """Load the program that writes the reference."""
    spec = importlib.util.spec_from_file_location("reference", REPO / "tools" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says() -> None:
    """Codes, verbs, settings, limits, routes and messages are written from the code; `make reference` renews them."""
    stale = [path.name for path, text in reference().pages().items() if path.read_text("utf-8") != text]
    assert stale == [], "run: make reference"


def test_every_table_cell_says_something() -> None:
    """No field of the reference is left without a meaning."""
    for path in (REPO / "docs" / "reference").glob("*.md"):
        empty = [line for line in path.read_text("utf-8").splitlines() if re.match(r"\|.*\|\s*\|$", line)]
        assert empty == [], path.name


def test_every_verb_is_told() -> None:
    """Each verb of the command line stands in its page."""
    page = (REPO / "docs" / "reference" / "cli.md").read_text("utf-8")
    verbs = [name for name, _, _ in _VERBS] + [f"{group} {name}" for group, _, verbs in _GROUPS for name, _, _ in verbs]
    assert [verb for verb in verbs if f"`crank {verb}`" not in page] == []


def test_every_dependency_has_its_reason() -> None:
    """What is declared in pyproject.toml is explained."""
    import tomllib

    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))
    declared = [
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
        *project["build-system"]["requires"],
    ]
    page = (REPO / "docs" / "dependencies.md").read_text("utf-8")
    names = [re.split(r"[<>=!~ ]", line)[0] for line in declared]
    assert [name for name in names if not re.search(rf"\b{re.escape(name)}\b", page)] == []
