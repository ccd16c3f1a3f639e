"""How the command line of `crank run` becomes a request."""

import pytest

from crank.cli.run import parse_args, parse_size
from crank.errors import InvalidRequest


def test_an_argument_is_json_if_it_parses() -> None:
    """Numbers, lists and booleans keep their type; everything else is text."""
    given = ["n=10", "flag=true", "words=[1, 2]", "name=Ada", "empty=", "eq=a=b"]
    assert parse_args(None, given) == {
        "n": 10, "flag": True, "words": [1, 2], "name": "Ada", "empty": "", "eq": "a=b",
    }  # fmt: skip


def test_single_arguments_add_to_the_whole() -> None:
    """--arg sets one name in the object of --args."""
    assert parse_args('{"a": 1, "b": 2}', ["b=3"]) == {"a": 1, "b": 3}
    assert parse_args("[1]", []) == [1]
    assert parse_args(None, []) is None


@pytest.mark.parametrize(
    ("whole", "single"), [("{", []), ("[1]", ["a=1"]), (None, ["a"]), (None, ["=1"]), ('{"a":1,"a":2}', [])]
)
def test_wrong_arguments_are_refused(whole: str | None, single: list[str]) -> None:
    """Broken JSON, a name without a value, or an object that is none, is told before anything is sent."""
    with pytest.raises(InvalidRequest):
        parse_args(whole, single)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("512MiB", 512 << 20), ("2g", 2 << 30), ("2GB", 2 << 30), ("1024", 1024), ("1.5k", 1536), ("64 mib", 64 << 20)],
)
def test_sizes_are_read(text: str, size_bytes: int) -> None:
    """Memory can be written as people write it."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "much", "5 parsecs", "inf", "nan"])
def test_wrong_sizes_are_refused(text: str) -> None:
    """What is no size is refused with an example."""
    with pytest.raises(InvalidRequest):
        parse_size(text)
