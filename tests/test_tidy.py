"""The rules of the tree, run as a test: sizes, names, reachability, and who may read what."""

import ast
import re
import statistics
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

REPO = Path(__file__).resolve().parents[1]
SOURCE = REPO / "src" / "crank"

FUNCTION_LINES_MAX = 70
FUNCTION_LINES_P95_MAX = 40
FILE_LINES_MAX = 500
# A ratchet: the aim is 300, and this number only ever goes down.
FILE_LINES_P95_MAX = 320
DOMAIN_MAY_IMPORT = {
    "annotations",
    "base64",
    "binascii",
    "collections",
    "dataclasses",
    "difflib",
    "enum",
    "fnmatch",
    "functools",
    "hashlib",
    "itertools",
    "json",
    "math",
    "re",
    "string",
    "types",
    "typing",
    "unicodedata",
}
# A word that names anything names nothing.
EMPTY_WORDS = {
    "manager",
    "handler",
    "helper",
    "helpers",
    "util",
    "utils",
    "common",
    "misc",
    "context",
    "data",
    "info",
    "task",
    "tasks",
}
UNITS = (
    "sec", "ms", "us", "bytes", "chars", "digits", "max", "min", "count", "levels", "percent", "bits", "version", "mib", "days",
)  # fmt: skip
ENTRY_POINTS = {
    "crank",
    "crank.__main__",
    "crank.testing",
    # Run inside the sandbox, read as text by the supervisor.
    "crank.sandbox.guest",
    "crank.sandbox.guest_proof",
    "crank.sandbox.guest_result",
    "crank.sandbox.bare",
    # The same, read as text for the steward of an E2B sandbox.
    "crank.sandbox.guest_relay",
    "crank.sandbox.guest_steward",
    # Programs of their own, started by name.
    "crank.sandbox.bare_launcher",
    "crank.sandbox.launcher",
}


def python_files(*folders: Path) -> list[Path]:
    """Return the Python files of folders, sorted."""
    return sorted(file for folder in folders for file in folder.rglob("*.py") if "__pycache__" not in file.parts)


def functions(file: Path) -> Iterator[tuple[str, int]]:
    """Yield each function of a file with its length in lines."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{file.relative_to(REPO)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


def p95(values: list[int]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(values, n=20)[-1]


def test_functions_are_short() -> None:
    """No function is longer than a screen, and nearly all are much shorter."""
    lengths = [entry for file in python_files(SOURCE) for entry in functions(file)]
    assert [entry for entry in lengths if entry[1] > FUNCTION_LINES_MAX] == []
    assert p95([length for _, length in lengths]) <= FUNCTION_LINES_P95_MAX


def test_files_are_short() -> None:
    """No file needs a table of contents."""
    lengths = {str(file.relative_to(REPO)): len(file.read_text("utf-8").splitlines()) for file in python_files(SOURCE)}
    assert {name: length for name, length in lengths.items() if length > FILE_LINES_MAX} == {}
    assert p95(list(lengths.values())) <= FILE_LINES_P95_MAX


def test_every_module_says_why_it_exists() -> None:
    """Every file of the package and of the tests opens with a sentence."""
    silent = [
        str(file.relative_to(REPO))
        for file in python_files(SOURCE, REPO / "tests", REPO / "examples", REPO / "benchmarks")
        if file.stat().st_size and not ast.get_docstring(ast.parse(file.read_text("utf-8")))
    ]
    assert silent == []


def test_every_test_says_what_it_shows() -> None:
    """Every test function carries one sentence of purpose."""
    silent = []
    for file in python_files(REPO / "tests"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            is_test = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
            if is_test and not ast.get_docstring(node):  # type: ignore[arg-type]
                silent.append(f"{file.relative_to(REPO)}: {node.name}")  # type: ignore[attr-defined]
    assert silent == []


def test_names_say_something() -> None:
    """No module and no class carries a word that fits everything."""
    found = []
    for file in python_files(SOURCE):
        found += [str(file.relative_to(REPO)) for word in file.stem.split("_") if word in EMPTY_WORDS]
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                words = {word.lower() for word in re.findall(r"[A-Z][a-z]*", node.name)}
                found += [f"{file.relative_to(REPO)}: {node.name}" for _ in words & EMPTY_WORDS]
    assert found == []


def test_every_module_is_reachable() -> None:
    """No file is dead: each is imported, at any depth, from an entry point."""
    graph = grimp.build_graph("crank", cache_dir=None)
    verbs = set(re.findall(r"crank\.[a-z_.]+(?=:)", (SOURCE / "cli" / "main.py").read_text("utf-8")))
    modules = {name for name in graph.modules if not name.startswith("crank.testing")}
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    # Other frameworks load these by the names in our distribution.
    plugins = {module for group in project["entry-points"].values() for module in group.values()}
    reached = (ENTRY_POINTS | verbs | plugins) & graph.modules
    frontier = set(reached)
    while frontier:
        following = {below for module in frontier for below in graph.find_modules_directly_imported_by(module)}
        packages = {".".join(name.split(".")[:depth]) for name in following for depth in range(1, name.count(".") + 1)}
        frontier = (following | packages) - reached
        reached |= frontier
    # A package that is only a folder is reached by what lies in it.
    folders = {module for module in modules if graph.find_children(module)}
    assert modules - reached - folders == set()


def test_domain_and_wire_stay_pure() -> None:
    """The values and the wire import only these standard modules; a list of what is forbidden could miss a new one."""
    graph = grimp.build_graph("crank", include_external_packages=True, cache_dir=None)
    pure = {"crank.wire", "crank.domain", *graph.find_descendants("crank.wire"), *graph.find_descendants("crank.domain")}
    found = {
        imported
        for module in pure
        for imported in graph.find_modules_directly_imported_by(module)
        if not imported.startswith("crank")
    }
    assert found - DOMAIN_MAY_IMPORT == set()


def test_the_guest_stands_alone() -> None:
    """What runs inside the sandbox imports the standard library and its own parts only."""
    graph = grimp.build_graph("crank", cache_dir=None)
    guests = {module for module in graph.modules if module.startswith("crank.sandbox.guest")}
    assert guests
    for module in guests:
        assert graph.find_modules_directly_imported_by(module) <= guests, module


def test_contracts_have_no_exceptions() -> None:
    """An architecture with an ignore list is a wish."""
    contracts = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    assert [contract["name"] for contract in contracts if "ignore_imports" in contract] == []


def test_one_module_reads_the_environment() -> None:
    """Settings enter at one place, so that they can be listed, checked and documented."""
    readers = {
        str(file.relative_to(SOURCE))
        for file in python_files(SOURCE)
        if re.search(r"os\.(environ|getenv)", file.read_text("utf-8"))
        and not file.name.startswith(("guest", "fresh"))  # inside the sandbox the environment is its own
    }
    assert readers == {"config/__init__.py"}


LEFTOVERS = re.compile(r"\b(FIXME|TODO|XXX|HACK)\b")
# `user` is the account inside a sandbox.
MACHINE_PATHS = re.compile(r"(?<![\w.])(/work/|/farm\b|/root/|/home/(?!user/)[a-z]+/(?!<))|farm-[a-z]+")


@pytest.mark.parametrize("pattern", [LEFTOVERS, MACHINE_PATHS], ids=["leftovers", "machine-paths"])
def test_nothing_is_left_over(pattern: re.Pattern[str]) -> None:
    """No note to self and no path of the machine that it was written on stays in the tree."""
    folders = ("src", "tests", "docs", "features", "examples", "benchmarks", "profiles", "tools", ".ci")
    files = [file for folder in folders for file in (REPO / folder).rglob("*") if file.is_file()]
    files += [*REPO.glob("*.md"), REPO / "Makefile", REPO / "pyproject.toml"]
    found = [
        f"{file.relative_to(REPO)}: {match.group()}"
        for file in files
        if file.suffix in {".py", ".md", ".toml", ".sh", ".feature", ".in", ".sql", ""} and file != Path(__file__)
        if "documents" not in file.parts
        for match in pattern.finditer(file.read_text("utf-8", errors="replace"))
    ]
    assert found == []


def test_limits_have_units() -> None:
    """A bare number that limits something says in its name what it counts."""
    unclear = []
    for file in python_files(SOURCE / "domain"):
        for node in ast.parse(file.read_text("utf-8")).body:
            if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Constant | ast.BinOp):
                continue
            name = node.targets[0].id if isinstance(node.targets[0], ast.Name) else ""
            is_number = isinstance(node.value, ast.BinOp) or isinstance(getattr(node.value, "value", None), int | float)
            if is_number and "MAX" in name and not _has_unit(name):
                unclear.append(f"{file.relative_to(REPO)}: {name}")
    assert unclear == []


def _has_unit(name: str) -> bool:
    # SLOTS_MAX counts slots: a plural noun is its own unit.
    words = name.lower().strip("_").split("_")
    before = words[: words.index("max")]
    return bool(before) and (before[-1] in UNITS or before[-1].endswith("s") or before[-1] == "depth")
