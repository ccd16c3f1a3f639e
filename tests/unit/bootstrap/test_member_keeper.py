"""What a joined machine keeps in files: other roots come from its worker, and only such as go on from those it has."""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from crank.bootstrap.member import as_member, member_dir, pem, read_chain
from crank.bootstrap.member_keeper import MemberFiles, check_roots
from crank.config import Settings, load
from crank.domain.ids import Digest
from crank.errors import ProtocolError, UntrustedPeer
from tests.support.svids import DOMAIN, root

OLD, NEW, LATER = root(), root(), root()
KNOWN = (Digest(hashlib.sha256(OLD.der).hexdigest()),)


def text(*roots: Any) -> str:
    """Return roots as a worker tells of them."""
    return pem([one.der for one in roots]).decode()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Give the settings of a machine that has joined and believes one root."""
    found = as_member(load(environment={"CRANK_HOME": str(tmp_path / "home")}), DOMAIN)
    for folder in MemberFiles(found).folders:
        folder.mkdir(parents=True)
        (folder / "ca.pem").write_text(text(OLD))
    return found


async def test_other_roots_are_kept_where_the_worker_cannot(settings: Settings) -> None:
    """A new root beside the old one stands in both folders as soon as it was heard of; so does the new one alone, later."""
    files = MemberFiles(settings)
    for roots in ((OLD, NEW), (NEW,), (NEW, LATER)):
        await files.heard({"roots": text(*roots)})
        for folder in (settings.identity_dir, member_dir(settings)):
            assert read_chain(folder / "ca.pem") == [one.der for one in roots]


@pytest.mark.parametrize(
    "told",
    [
        {}, {"roots": None}, {"roots": ""}, {"roots": "x"}, {"roots": "é"}, {"roots": text(NEW)}, {"roots": text(root("other.example"))},
        {"roots": text(OLD, root("other.example"))}, {"roots": text(OLD, *(root() for _ in range(4)))}, {"roots": text(root(uris=()))},
    ],
    ids=["nothing", "none", "empty", "noise", "not ascii", "strangers alone", "another domain", "one of another", "too many", "no domain"],
)  # fmt: skip
async def test_what_does_not_go_on_from_what_is_known_changes_nothing(settings: Settings, told: dict[str, Any]) -> None:
    """A worker that somebody has taken over cannot put other authorities in place of the controller's."""
    await MemberFiles(settings).heard(told)
    for folder in (settings.identity_dir, member_dir(settings)):
        assert read_chain(folder / "ca.pem") == [OLD.der]


def test_why_roots_are_refused() -> None:
    """What cannot be read and what is not the controller's are told apart."""
    with pytest.raises(ProtocolError):
        check_roots("-----BEGIN", DOMAIN, known=KNOWN)
    with pytest.raises(UntrustedPeer):
        check_roots(text(NEW), DOMAIN, known=KNOWN)


async def test_what_is_heard_waits_for_what_is_being_written(settings: Settings) -> None:
    """An answer that was under way when other roots were heard is written before them, never over them."""
    files = MemberFiles(settings)
    async with files._gate:
        hearing = asyncio.create_task(files.heard({"roots": text(OLD, NEW)}))
        await asyncio.sleep(0)
        assert read_chain(member_dir(settings) / "ca.pem") == [OLD.der]
    await hearing
    assert len(read_chain(member_dir(settings) / "ca.pem")) == 2
