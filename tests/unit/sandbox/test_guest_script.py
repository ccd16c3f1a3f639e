"""A job's text: compiled so that its last expression has a value, under a name of its own."""

import __future__

from typing import Any

import pytest

from crank.sandbox.guest_script import Script, is_in


def _value_of(code: str) -> Any:
    main, last = Script(code, 1).compiled()
    names: dict[str, Any] = {}
    exec(main, names)
    return None if last is None else eval(last, names)


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("x = 20\nx + 1", 21),
        ("x = 1", None),
        ("", None),
        ("\ufeff1", 1),
        ("# only a remark", None),
        ("(1,\n 2)", (1, 2)),
    ],
)
def test_the_last_expression_has_a_value(code: str, value: Any) -> None:
    """A text that ends in an expression gives its value, any other gives none; a byte order mark is no code."""
    assert _value_of(code) == value


def test_futures_hold_for_the_last_expression_too() -> None:
    """An expression compiled apart obeys the imports from __future__ above it."""
    _, last = Script("from __future__ import annotations\nlambda: 1", 1).compiled()
    assert last.co_flags & __future__.annotations.compiler_flag


def test_each_text_of_a_session_has_a_name() -> None:
    """The first is job.py, later ones are counted, and only the newest hundred are kept."""
    sources: dict[str, str] = {}
    for number in range(1, 151):
        Script(f"n = {number}", number).keep_in(sources)
    assert Script("x", 1).name == "job.py"
    assert len(sources) == 100
    assert "job.py" not in sources
    assert sources["job-150.py"] == "n = 150"
    assert Script("x", 2).get_source("__main__") == "x"


def test_a_fault_is_known_to_come_from_a_text() -> None:
    """Only a fault that passed through the job's code counts as the job's; one of the parser does not."""
    with pytest.raises(ZeroDivisionError) as caught:
        exec(Script("1 / 0\nx = 1", 3).compiled()[0])
    assert is_in(caught.value.__traceback__, {"job-3.py": ""})
    assert not is_in(caught.value.__traceback__, {"job.py": ""})
    with pytest.raises(SyntaxError) as broken:
        Script("if", 3).compiled()
    assert not is_in(broken.value.__traceback__, {"job-3.py": ""})
