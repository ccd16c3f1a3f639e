"""Each MUST of SPIFFE's standards that docs/reference/standards.md lists is shown by the tests that it names, and they name it.

The page is the list, and the marker `must` on a test is its word that it fails where that rule is broken. A test whose
cases break one rule each bears a mark for each case: a case that goes takes its rule along, and is missed here.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest

from tests.support.musts import STANDARDS, numbers_in

# Collected once, not in each process.
pytestmark = pytest.mark.xdist_group("standards")

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "reference" / "standards.md"
# A rule leaves the list only where a standard takes it back: these numbers are changed by hand.
RULES = dict(zip(STANDARDS, (17, 26, 17, 17, 35, 16, 7), strict=True))
NOT_OURS = "not ours: "
_ROW = re.compile(rf"^\| ((?:{'|'.join(STANDARDS)}) [0-9./]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
_MARK = re.compile(r"mark\.must\(|breaking\(")
COLLECT_SEC = 120
# Collection alone: the marks of each case, as pytest itself sees them.
LISTING = """
import json, pathlib, sys
import pytest

class Named:
    def pytest_collection_finish(self, session):
        told = [(item.nodeid, mark.args) for item in session.items for mark in item.iter_markers("must")]
        pathlib.Path(sys.argv[1]).write_text(json.dumps(told))

sys.exit(pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", "-m", "must", *sys.argv[2:]], plugins=[Named()]))
"""


@dataclass(frozen=True)
class Row:
    """A rule of the list: what it says in our words, which modules keep it, and which tests show it."""

    number: str
    says: str
    kept_by: str
    tests: frozenset[str]


def rows() -> list[Row]:
    """Return the list."""
    found = _ROW.findall(PAGE.read_text("utf-8"))
    return [Row(number, says, kept, frozenset(re.findall(r"`(tests/[^`]+)`", shown))) for number, says, kept, shown in found]


@pytest.fixture(scope="module")
def marked(tmp_path_factory) -> dict[str, set[str]]:
    """Give the tests that bear each number."""
    told = tmp_path_factory.mktemp("must") / "told.json"
    files = [str(file.relative_to(REPO)) for file in (REPO / "tests").rglob("test_*.py") if _MARK.search(file.read_text("utf-8"))]
    here = str(Path(__file__).relative_to(REPO))
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS" and "XDIST" not in name}
    argv = [sys.executable, "-c", LISTING, str(told), *sorted({*files} - {here})]
    done = subprocess.run(argv, cwd=REPO, env=environment, capture_output=True, text=True, timeout=COLLECT_SEC, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    named = defaultdict(set)
    for nodeid, numbers in json.loads(told.read_text()):
        for number in numbers:
            named[number].add(nodeid.partition("[")[0])
    return named


def test_the_list_has_every_rule_once_and_in_order():
    """Rules are counted in each section from one, without a gap, and each standard has as many as were read in it."""
    numbers = [row.number for row in rows()]
    assert len(numbers) == len(set(numbers))
    assert {name: sum(number.rpartition(" ")[0] == name for number in numbers) for name in STANDARDS} == RULES
    for section, places in groupby(numbers, lambda number: re.split(r"[/ ](?=[0-9]+$)", number)[0]):
        counted = [int(re.split(r"[/ ]", place)[-1]) for place in places]
        assert counted == list(range(1, len(counted) + 1)), section


@pytest.mark.parametrize("standard", STANDARDS)
def test_each_rule_is_shown_by_the_tests_that_the_list_names(marked, standard):
    """No rule without a test, no mark without its rule, and the list names exactly the tests that bear the mark."""
    listed = {row.number: set(row.tests) for row in rows() if row.number.startswith(f"{standard} ") and NOT_OURS not in row.kept_by}
    found = {number: tests for number, tests in marked.items() if number.startswith(f"{standard} ")}
    assert {number for number, tests in listed.items() if not tests} == set()
    assert found == listed, "write into docs/reference/standards.md which tests bear the mark, or mark them"


def test_each_mark_is_of_a_standard_that_is_known(marked):
    """A mark that is written wrongly counts for nothing, and is found."""
    assert [number for number in marked if numbers_in(number) != (number,)] == []


def test_what_keeps_a_rule_is_there():
    """Each rule names modules of this program, or says why it binds somebody else; those are few."""
    others = [row for row in rows() if row.kept_by.startswith(NOT_OURS)]
    assert [row.number for row in others if len(row.kept_by) < len(NOT_OURS) + 10 or row.tests] == []
    assert len(others) <= 5
    for row in rows():
        modules = re.findall(r"`(crank\.[a-z_.0-9]+)`", row.kept_by)
        assert modules or row in others, row.number
        assert [name for name in modules if importlib.util.find_spec(name) is None] == [], row.number
