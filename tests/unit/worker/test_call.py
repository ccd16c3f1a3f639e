"""One call as it happens inside: checked on the way in and out, and told in the words that the worker reads."""

from typing import Any

import pytest
from tests.support import author_tools

from crank.errors import CrankError
from crank.worker.call import answer, call, load_app

TARGET = "tests.support.author_tools:app"


def _answer(name: str, args: Any, result_bytes: int = 1 << 20) -> dict[str, Any]:
    return answer(TARGET, name, args, result_bytes)


def test_an_answer_carries_the_result_as_json() -> None:
    """Models become plain values."""
    told = _answer("text.count", {"text": "a"})
    assert told == {"reason": "exited", "exit_code": 0, "has_result": True, "result": [{"text": "a", "times": 1}]}


def test_a_result_is_measured() -> None:
    """One byte more than allowed is refused."""
    size = len('[{"text":"a","times":1}]')
    assert _answer("text.count", {"text": "a"}, size)["has_result"]
    assert _answer("text.count", {"text": "a"}, size - 1)["code"] == "invalid_result"


def test_what_a_function_raises_goes_on() -> None:
    """The guest tells of it, as of every fault of a job."""
    with pytest.raises(ValueError, match="no luck"):
        _answer("text.end", {"how": "raise"})


def test_an_exit_is_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """A code is told as it is; a text is printed, as Python does, and counts as 1."""
    assert _answer("text.end", {"how": "exit"}) == {"reason": "exited", "exit_code": 3}
    assert _answer("text.end", {"how": "exit with words"}) == {"reason": "exited", "exit_code": 1}
    assert capsys.readouterr().err == "no more\n"


@pytest.mark.parametrize(("name", "target"), [("text.nothing", TARGET), ("a.b", "no.such:app"), ("a.b", "json:dumps")])
def test_a_function_that_is_not_there_is_said(name: str, target: str) -> None:
    """A worker whose module changed says so."""
    told = answer(target, name, {}, 1_000)
    assert (told["reason"], told["code"]) == ("sandbox_failed", "no_such_function")


def test_an_app_is_found_by_its_name() -> None:
    """`module:app`, and `app` where no name is given; nothing else is a worker."""
    assert load_app(TARGET) is load_app("tests.support.author_tools") is author_tools.app
    with pytest.raises(CrankError, match=r"is not a crank\.Worker"):
        load_app("json:dumps")


def test_args_are_checked_with_the_model() -> None:
    """Nested values are checked, and each problem names its place."""
    told = call(author_tools.app.functions["text.later"], {"words": [{"text": "a", "times": "2"}]})
    assert told["code"] == "invalid_args"
    assert "words.0.times:" in told["message"]
