"""The settings of the E2B listener: off at first, plain on loopback alone."""

from pathlib import Path

import pytest

from crank import config
from crank.errors import ConfigurationError


def load(home: Path, **said: str) -> config.Settings:
    """Return settings of an environment that holds only these."""
    return config.load(environment={"CRANK_HOME": str(home), **{f"CRANK_{name}": text for name, text in said.items()}})


def test_it_is_off_at_first(tmp_path: Path) -> None:
    """Nobody serves a second protocol without having asked for it."""
    settings = load(tmp_path)
    assert (settings.e2b, settings.e2b_port, settings.e2b_tls) == (False, 7445, False)
    assert load(tmp_path, E2B="yes").e2b


def test_a_key_never_travels_in_the_clear(tmp_path: Path) -> None:
    """Plain HTTP is refused wherever others could listen; with TLS, and on loopback, it is not."""
    with pytest.raises(ConfigurationError) as refused:
        load(tmp_path, E2B="true", BIND="0.0.0.0")
    assert [problem.field for problem in refused.value.problems] == ["e2b_tls"]
    assert load(tmp_path, E2B="true", BIND="0.0.0.0", E2B_TLS="true").e2b_tls
    assert load(tmp_path, E2B="true", BIND="::1").e2b
    assert not load(tmp_path, BIND="0.0.0.0").e2b


def test_a_word_that_is_neither_is_a_mistake(tmp_path: Path) -> None:
    """`maybe` does not turn anything on."""
    with pytest.raises(ConfigurationError):
        load(tmp_path, E2B="maybe")
