"""`crank identity`: what is printed, and what is asked of the node."""

import json

import pytest

from crank.cli import identity
from crank.cli.main import main
from crank.errors import NotFound

W1 = "spiffe://test.internal/worker/w1"
FOUND = {
    "identities": [
        {"spiffe_id": W1, "serial": "ab", "attestation": "join", "expires_at": "2026-11-30T12:00:00Z", "revoked_at": None}
    ],
    "revoked": [{"spiffe_id": "spiffe://test.internal/worker/\x1b[31mw2", "since": "2026-11-30", "reason": "stolen"}],
}


class Identities:
    """`client.identities` of a node that holds what a test says."""

    def __init__(self) -> None:
        self.asked: list[tuple] = []

    async def list(self, *, limit):
        """Return what there is."""
        self.asked.append(("list", limit))
        return FOUND

    async def revoke(self, named, *, reason):
        """Note what is revoked."""
        self.asked.append(("revoke", named, reason))
        return {"identities": FOUND["identities"], "revoked": []}

    async def allow(self, named):
        """Note what is allowed; one name is unknown."""
        self.asked.append(("allow", named))
        if named != W1:
            raise NotFound("It is not revoked.", code="identity_not_found")


@pytest.fixture
def node(monkeypatch):
    """Give the identities of a node that commands reach."""
    identities = Identities()

    class Client:
        pass

    client = Client()
    client.identities = identities  # type: ignore[attr-defined]

    def ask(work):
        import asyncio

        return asyncio.run(work(client))

    monkeypatch.setattr(identity, "ask", ask)
    return identities


def test_the_list_is_a_table_and_says_what_is_revoked(node, capsys):
    """Certificates go to stdout, bans to stderr with nothing in them that moves a terminal; --json is the document."""
    assert main(["identity", "list", "--limit", "7"]) == 0
    shown = capsys.readouterr()
    assert W1 in shown.out
    assert "stolen" in shown.err
    assert "\x1b" not in shown.err
    assert main(["identity", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == FOUND
    assert node.asked == [("list", 7), ("list", 100)]


def test_revoking_and_allowing_say_what_they_did(node, capsys):
    """The name and the reason reach the node; a name that is not revoked is an error with its code."""
    assert main(["identity", "revoke", W1, "--reason", "lost"]) == 0
    assert main(["identity", "allow", W1]) == 0
    assert main(["identity", "allow", "spiffe://test.internal/worker/w3", "--json"]) != 0
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "identity_not_found"
    assert node.asked[:2] == [("revoke", W1, "lost"), ("allow", W1)]
