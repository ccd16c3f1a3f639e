"""The suite answers for every id of its list: with a case, a pair, a session, a test of its own, or a reason."""

import ast
import re
from collections import Counter
from pathlib import Path

from tests.attacks.case import ids_of
from tests.attacks.cases import ALL
from tests.attacks.left_out import IDS, LEFT_OUT
from tests.attacks.pairs import PAIRS
from tests.attacks.sessions import SESSIONS

_FOLDER = Path(__file__).parent
_TOLD = re.compile(r"(?:[A-Z]\d\d[ :,])+")
_OWN_MIN = 25
_NAMES = [
    *(case.name for case in ALL),
    *(pair.name for pair in PAIRS),
    *(session.name for session in SESSIONS),
]


def _told_by_tests() -> set[str]:
    """Return the ids that the sentences of the test functions begin with."""
    told: set[str] = set()
    for file in _FOLDER.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                beginning = _TOLD.match(ast.get_docstring(node) or "")
                told.update(re.findall(r"[A-Z]\d\d", beginning[0] if beginning else ""))
    return told


def _covered() -> set[str]:
    return {found for name in _NAMES for found in ids_of(name)} | _told_by_tests()


def test_every_id_is_run_or_left_out_with_a_reason() -> None:
    """No attack is forgotten, and none is both run and excused."""
    covered = _covered()
    assert IDS - covered - set(LEFT_OUT) == set()
    assert covered & set(LEFT_OUT) == set()
    assert set(LEFT_OUT) <= IDS
    assert all(reason.endswith(".") for reason in LEFT_OUT.values())


def test_no_id_is_made_up() -> None:
    """Whatever is not of the list is one of our own, and there are many of those."""
    own = {found for found in _covered() if found.startswith("X")}
    assert {found for found in _covered() if not found.startswith(("X", "V"))} <= IDS
    assert len(own) >= _OWN_MIN


def test_names_are_unique() -> None:
    """A verdict is looked up by the case's name."""
    assert [name for name, count in Counter(_NAMES).items() if count > 1] == []
    assert [name for name in _NAMES if not ids_of(name)] == []
