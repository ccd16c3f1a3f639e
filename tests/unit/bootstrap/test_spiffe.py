"""Where the socket of workloads lies: in the home, where its name is short enough, or where the operator said."""

from pathlib import Path

import platformdirs
import pytest

from crank.adapters.callers import SOCKET_PATH_BYTES_MAX
from crank.bootstrap import spiffe
from crank.config import Settings, load
from crank.errors import ConfigurationError


def settings_of(home: Path, **flags: object) -> Settings:
    """Return settings with this home."""
    return load({"home": str(home), **flags}, environment={})


def test_in_the_home(tmp_path: Path) -> None:
    """Nothing said, it is a file in the folder of what runs."""
    assert spiffe.socket_path(settings_of(tmp_path / "h")) == tmp_path / "h" / "run" / "spiffe.sock"


def test_elsewhere_when_the_home_has_a_long_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that no Unix socket can have is replaced by a short one in a folder of this account alone, always the same."""
    monkeypatch.setattr(platformdirs, "user_runtime_path", lambda: tmp_path)
    homes = [tmp_path / ("long" * 30) / name for name in ("a", "b")]
    first, second = (spiffe.socket_path(settings_of(home)) for home in homes)
    assert first == spiffe.socket_path(settings_of(homes[0]))
    assert first != second
    assert len(str(first)) <= SOCKET_PATH_BYTES_MAX
    assert first.parent.stat().st_mode & 0o777 == 0o700
    first.touch()
    spiffe._remove(first, settings_of(homes[0]))
    assert not first.parent.exists()
    kept = tmp_path / "said"
    spiffe._remove(kept, settings_of(tmp_path, spiffe_socket=str(kept)))
    assert tmp_path.is_dir()


@pytest.mark.parametrize("kind", ["open to others", "a link", "a file"])
def test_no_folder_that_somebody_else_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Where the short folder is another's, open or a link, the node does not start with a socket there."""
    monkeypatch.setattr(platformdirs, "user_runtime_path", lambda: tmp_path)
    settings = settings_of(tmp_path / ("long" * 30))
    folder = spiffe.socket_path(settings).parent
    folder.rmdir()
    (tmp_path / "other").mkdir(mode=0o700)
    if kind == "open to others":
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
    elif kind == "a link":
        folder.symlink_to(tmp_path / "other")
    else:
        folder.touch()
    with pytest.raises(ConfigurationError) as caught:
        spiffe.socket_path(settings)
    assert caught.value.error_code == "spiffe_socket_failed"


def test_where_the_operator_said(tmp_path: Path) -> None:
    """A path that was said is used as it is; one too long, without a folder, or shut to those it is for, is told."""
    said = tmp_path / "s"
    assert spiffe.socket_path(settings_of(tmp_path, spiffe_socket=str(said))) == said
    for path, code in (
        (tmp_path / ("x" * 120), "spiffe_socket_too_long"),
        (tmp_path / "none" / "s", "spiffe_socket_unreachable"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            spiffe.socket_path(settings_of(tmp_path, spiffe_socket=str(path)))
        assert caught.value.error_code == code
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o700)
    with pytest.raises(ConfigurationError) as caught:
        spiffe.socket_path(settings_of(tmp_path, spiffe_socket=str(shut / "s"), spiffe_shared=True))
    assert caught.value.error_code == "spiffe_socket_unreachable"


def test_sharing_needs_a_place_that_others_reach(tmp_path: Path) -> None:
    """A socket in the home cannot be shared, and the settings say so before anything starts."""
    with pytest.raises(ConfigurationError) as caught:
        settings_of(tmp_path, spiffe_shared=True)
    assert [problem.field for problem in caught.value.problems] == ["spiffe_socket"]
    assert settings_of(tmp_path, spiffe_shared=True, spiffe_socket="/run/crank/s").spiffe_shared
