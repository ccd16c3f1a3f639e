"""What an author offers is learned in a child: same answers and faults, and nothing of the module in this process."""

import sys
from pathlib import Path

import pytest

from crank.bootstrap.declare import declare
from crank.config import Settings, load
from crank.errors import ConfigurationError, CrankError

_GOOD = '''
import os
from crank import Worker

app = Worker("declared-tools")

@app.capability("text.upper", version="1.2.0", effects="pure", error_codes=("too_long",), timeout_sec=5)
def upper(text: str) -> str:
    """Write it large."""
    return text.upper()
'''


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Give settings of a home that holds a secret."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "token").write_text("secret")
    return load(environment={"CRANK_HOME": str(home)})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder that modules are found in, as in the one that a person stands in."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_the_declaration_comes_back(settings: Settings, project: Path) -> None:
    """Name, version, effects, schemas, codes and limits arrive as declared, and the module was not imported here."""
    (project / "declared_tools.py").write_text(_GOOD)
    found = declare(settings, "declared_tools:app")
    (offer,) = found.offers
    capability = offer.capability
    assert (found.name, offer.target) == ("declared-tools", "declared_tools:app")
    assert (capability.name, capability.version, str(capability.effects)) == ("text.upper", "1.2.0", "pure")
    assert capability.error_codes[0] == "too_long"
    assert capability.timeout_sec == 5
    assert capability.input_schema["required"] == ["text"]
    assert "declared_tools" not in sys.modules


@pytest.mark.parametrize(
    ("text", "kind", "code", "said"),
    [
        ("import not_there_at_all", CrankError, "no_such_app", "not_there_at_all"),
        ("app = 3", CrankError, "no_such_app", "is not a crank.Worker"),
        ("from crank import Worker\napp = Worker('empty')", ConfigurationError, "no_capability", "offers nothing"),
        (_GOOD.replace(" -> str", ""), ConfigurationError, "invalid_capability", "no type of its result"),
        ("raise ValueError('at import')", CrankError, "no_such_app", "ValueError: at import"),
        ("raise SystemExit(3)", CrankError, "no_such_app", "cannot be loaded"),
        ("import os\nos._exit(3)", CrankError, "no_such_app", "ended with status 3"),
        ("import os\nos.kill(os.getpid(), 9)", CrankError, "no_such_app", "ended with status -9"),
    ],
    ids=["import", "no worker", "empty", "wrong", "raises", "leaves", "is gone", "killed"],
)
def test_mistakes_are_told_as_before(
    settings: Settings, project: Path, text: str, kind: type[CrankError], code: str, said: str
) -> None:
    """Each way a module can be wrong has its code and its sentence, even when it takes its process with it."""
    (project / "wrong_tools.py").write_text(text)
    with pytest.raises(CrankError) as caught:
        declare(settings, "wrong_tools:app")
    assert type(caught.value) is kind
    assert caught.value.error_code == code
    assert said in caught.value.message


def test_an_unknown_module_is_told(settings: Settings, project: Path) -> None:
    """A module that is nowhere is named."""
    with pytest.raises(CrankError, match="nowhere_to_be_found") as caught:
        declare(settings, "nowhere_to_be_found:app")
    assert caught.value.error_code == "no_such_app"


def test_the_module_is_imported_inside_walls(settings: Settings, project: Path) -> None:
    """While it is imported a module reaches neither the node's secrets nor a network."""
    (project / "curious_tools.py").write_text(
        _GOOD
        + f"""
import socket

def attempt(work):
    try:
        work()
    except OSError:
        return
    raise RuntimeError("it went through")

attempt(lambda: open({str(settings.token_file)!r}).read())
attempt(lambda: socket.create_connection(("127.0.0.1", 9)))
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
attempt(lambda: open({str(project / "left")!r}, "w"))
"""
    )
    assert declare(settings, "curious_tools:app").name == "declared-tools"
