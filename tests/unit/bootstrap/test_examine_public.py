"""What the doctor says of the owner's certificate, before anybody calls."""

from dataclasses import replace
from pathlib import Path

import pytest

from crank.bootstrap.examine_public import own_certificate
from crank.config import Settings, load
from tests.support.certificates import Authority


def settings_of(tmp_path: Path, certificate: Path, key: Path, url: str = "") -> Settings:
    """Return settings with a certificate."""
    return replace(load(environment={"CRANK_HOME": str(tmp_path)}), tls_cert=certificate, tls_key=key, public_url=url)


@pytest.mark.parametrize(
    ("days", "url", "states"),
    [(30, "", ["ok"]), (30, "https://crank.test", ["ok"]), (2, "", ["warn"]), (-1, "", ["fail"]), (30, "https://x.test", ["ok", "fail"])],
)  # fmt: skip
def test_expiry_and_name_are_looked_at(tmp_path: Path, days: int, url: str, states: list[str]) -> None:
    """A certificate that ends soon warns; one that ended, or is for another name, fails."""
    certificate, key = Authority(tmp_path, "a").server_files("crank.test", days=days)
    found = own_certificate(settings_of(tmp_path, certificate, key, url))
    assert [finding.state for finding in found] == states
    assert all(finding.fix for finding in found if finding.state != "ok")


def test_a_readable_key_and_a_missing_file_are_told(tmp_path: Path) -> None:
    """Whoever may read the key may be the node."""
    certificate, key = Authority(tmp_path, "a").server_files("crank.test", days=30)
    key.chmod(0o644)
    assert [finding.state for finding in own_certificate(settings_of(tmp_path, certificate, key))] == ["ok", "warn"]
    key.unlink()
    assert [finding.state for finding in own_certificate(settings_of(tmp_path, certificate, key))] == ["fail"]
    assert own_certificate(load(environment={"CRANK_HOME": str(tmp_path)})) == []
