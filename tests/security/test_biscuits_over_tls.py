"""Biscuits over real TLS: held by the key of a certificate, passed on to a SPIFFE ID, shown by whoever proves that name."""

from pathlib import Path

import pytest

from crank.adapters.biscuit import BiscuitHolder, BiscuitIssuer
from crank.client import ProofKey
from crank.domain.chain import Holder
from crank.domain.rules.exchange import BISCUIT
from tests.security.test_tokens_over_tls import Node, node
from tests.support.biscuits import Keys
from tests.support.tokens import form
from tests.unit.api.conftest import check_problem

__all__ = ["node"]

JOB = {"capability": "python.run.core", "code": "print('hi')"}


@pytest.fixture
def issuing(node: Node) -> Node:
    """Give the node Biscuits, too."""
    assert node.desk.tokens is not None
    node.desk.tokens.chains = BiscuitIssuer(Keys())
    return node


async def test_a_certificate_alone_holds_a_biscuit_and_a_name_receives_it(issuing: Node) -> None:
    """Without DPoP: the key of the connection holds it; passed on to a SPIFFE ID, that certificate opens it and no other."""
    ann, bob, eve = (issuing.issuer.issue_worker(name, issuing.folder / name) for name in ("ann", "bob", "eve"))
    async with issuing.shown(ann) as http:
        answer = await http.post("/v1/token", data=form(requested_token_type=BISCUIT))
        assert answer.status_code == 200, answer.text
        token = answer.json()["access_token"]
        own = await http.post("/v1/jobs", json=JOB, headers={"Authorization": f"Bearer {token}"})
        assert own.status_code == 202, own.text
    key = Path(ann.key_file).read_bytes()
    passed = BiscuitHolder().pass_on(token, {}, Holder("spiffe://test.internal/worker/bob"), key)
    async with issuing.shown(bob) as http:
        sent = await http.post("/v1/jobs", json=JOB, headers={"Authorization": f"Bearer {passed}"})
        assert sent.status_code == 202, sent.text
        check_problem(await http.get("/v1/jobs", headers={"Authorization": f"Bearer {token}"}), 401, "invalid_token")
    # The key of that certificate alone is not that name, also while the node remembers what it was told a moment ago.
    proof = ProofKey(Path(bob.key_file).read_bytes())
    async with issuing.shown() as http:
        shown = proof.prove("GET", f"{issuing.url}/v1/jobs", passed)
        headers = {"Authorization": f"DPoP {passed}", "DPoP": shown}
        check_problem(await http.get("/v1/jobs", headers=headers), 401, "invalid_token")
    for stranger in (eve, ann, None):
        async with issuing.shown(stranger) as http:
            refused = await http.get("/v1/jobs", headers={"Authorization": f"Bearer {passed}"})
            check_problem(refused, 401, "invalid_token")
