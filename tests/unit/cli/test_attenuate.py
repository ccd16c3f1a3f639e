"""`crank token attenuate` and `keygen`: files in, a narrower token out, and no node anywhere."""

import io
import json
import sys
from pathlib import Path

import pytest

from crank import Client
from crank.adapters.biscuit import BiscuitHolder, BiscuitIssuer
from crank.cli.exit_codes import ExitCode
from crank.cli.main import main
from tests.support.biscuits import Agent, Keys, minted

ISSUER = BiscuitIssuer(Keys())
FAR = 4_000_000_000


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a file with a token of an agent whose key lies beside it, in a folder where no node ever was."""
    monkeypatch.setenv("CRANK_HOME", str(tmp_path / "none"))
    assert main(["token", "keygen", str(tmp_path / "ann.pem")]) == ExitCode.OK
    holder = BiscuitHolder().holder((tmp_path / "ann.pem.pub").read_text())
    details = [{"type": "urn:crank:capability", "identifier": "document.*", "mounts": ["docs", "pics"]}]
    claims = {"jti": "g", "sub": "local", "exp": FAR, "depth": 1, "authorization_details": details}
    path = tmp_path / "token"
    path.write_text(ISSUER.mint(claims, holder) + "\n")
    return path


def test_a_key_is_made_once_and_is_the_users_alone(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The private file is readable by its owner alone, the thumbprint is what tokens name, and nothing is overwritten."""
    capsys.readouterr()
    assert main(["token", "keygen", str(kept.with_name("new.pem"))]) == ExitCode.OK
    shown = capsys.readouterr().out.strip()
    key = kept.with_name("new.pem")
    assert key.stat().st_mode & 0o777 == 0o600
    assert BiscuitHolder().holder(kept.with_name("new.pem.pub").read_text()).name == shown
    before = key.read_bytes()
    assert main(["token", "keygen", str(key)]) == ExitCode.CONFIGURATION
    assert key.read_bytes() == before


def test_a_narrower_token_is_printed_alone(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stdout is the token and nothing else, so that it can be kept in a file; what is said goes to stderr."""
    capsys.readouterr()
    assert main(["token", "attenuate", str(kept), "--capability", "document.convert", "--mount", "docs"]) == ExitCode.OK
    shown = capsys.readouterr()
    assert ISSUER.open(shown.out.strip()).chain.hops[0].claims["authorization_details"] == [
        {"type": "urn:crank:capability", "identifier": "document.convert", "mounts": ["docs"]}
    ]
    assert "revocation id" in shown.err


def test_it_is_passed_on_with_two_key_files(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The next holder's public key and one's own private key are named by file."""
    assert main(["token", "keygen", str(kept.with_name("bob.pem"))]) == ExitCode.OK
    capsys.readouterr()
    argv = ["token", "attenuate", str(kept), "--holder", str(kept.with_name("bob.pem.pub")), "--key"]
    assert main([*argv, str(kept.with_name("ann.pem")), "--json"]) == ExitCode.OK
    answer = json.loads(capsys.readouterr().out)
    assert answer["present"]["depth"] == 0
    assert answer["hops"][0]["holder"] == answer["present"]["holder"]
    assert main([*argv, str(kept.with_name("bob.pem"))]) == ExitCode.USAGE


def test_tokens_come_from_stdin_and_from_a_nodes_answer(
    kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`-` reads standard input; the JSON that the token endpoint answers is as good as the token alone."""
    capsys.readouterr()
    answer = json.dumps({"access_token": kept.read_text().strip(), "token_type": "N_A"})
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(answer.encode())))
    assert main(["token", "attenuate", "-", "--no-mounts"]) == ExitCode.OK
    assert ISSUER.open(capsys.readouterr().out.strip()).chain.hops


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--capability", "node.keys.list"], "wider_than_token"),
        (["--mount", "docs", "--no-mounts"], "usage"),
        (["--constraint", "[]"], "usage"),
        (["--constraint", "{"], "malformed_json"),
        (["--expires", "soon"], "usage"),
        (["--holder", "bob"], "usage"),
        (["--depth", "1"], "usage"),
    ],
)
def test_mistakes_are_told_with_a_code(
    kept: Path, capsys: pytest.CaptureFixture[str], argv: list[str], code: str
) -> None:
    """What cannot be done is told as JSON with its code, and no token is printed."""
    capsys.readouterr()
    assert main(["token", "attenuate", str(kept), *argv, "--json"]) == ExitCode.USAGE
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code


def test_files_that_hold_no_token_are_not_read_whole(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A large file, an empty one and one of other content are refused."""
    for content in (b"x" * 70_000, b"", b'{"access_token": 1}', b"crank_secret"):
        kept.write_bytes(content)
        assert main(["token", "attenuate", str(kept)]) == ExitCode.USAGE
    assert main(["token", "attenuate", str(kept.with_name("gone"))]) != ExitCode.OK


def test_a_program_narrows_by_the_client() -> None:
    """`Client.attenuate` is the same for programs, and needs no node either."""
    agent = Agent()
    made = Client.attenuate(minted(ISSUER, agent, exp=FAR), capabilities=["document.convert"], mounts=["docs"])
    assert ISSUER.open(made).chain.hops[0].claims["authorization_details"][0]["identifier"] == "document.convert"
