"""Steps of features/narrowed_tokens.feature: keys, tokens and proofs over HTTPS at a real node, narrowed by the command."""

import base64
import hashlib
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pytest_bdd import given, parsers, scenarios, then, when

from crank.testing.fake_tokens import Holder
from tests.support.node import Node

scenarios("narrowed_tokens.feature")

CRANK = str(Path(sys.executable).with_name("crank"))
BISCUIT = "urn:crank:params:token-type:biscuit"
FORM = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:crank:params:token-type:api-key",
    "requested_token_type": BISCUIT,
}
SCRIPT = {"capability": "python.run.core", "code": "print(6 * 7)"}


@dataclass
class Somebody:
    """An agent with a key in a folder of its own, and a way to the node."""

    node: Node
    folder: Path
    opened: ExitStack
    prover: Holder = field(default_factory=Holder)
    token: str = ""

    def __post_init__(self) -> None:
        self.folder.mkdir()
        (self.folder / "key.pem").write_bytes(self.prover.key.as_pem(private=True))
        (self.folder / "key.pem.pub").write_bytes(self.prover.key.as_pem(private=False))
        context = ssl.create_default_context(cafile=self.node.info()["ca_file"])
        client = httpx2.Client(base_url=self.node.info()["api"], verify=context, timeout=60)
        self.http = self.opened.enter_context(client)

    def proof(self, method: str, path: str, token: str | None) -> str:
        """Return a fresh proof for a request."""
        digest = None if token is None else base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest())
        ath = None if digest is None else digest.rstrip(b"=").decode()
        return self.prover.prove(method, f"{self.node.info()['api']}{path}", now_sec=int(time.time()), ath=ath)

    def ask(self, method: str, path: str, token: str, **parts: Any) -> httpx2.Response:
        """Send a request with a token and this agent's own proof."""
        headers = {
            "Authorization": f"DPoP {token}",
            "DPoP": self.proof(method, path, token),
            **parts.pop("headers", {}),
        }
        return self.http.request(method, path, headers=headers, **parts)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Give what closes everybody's connections."""
    with ExitStack() as stack:
        yield stack


@given("an agent that holds a token for all that its key may do", target_fixture="agent")
def _(running: Node, folder: Path, opened: ExitStack) -> Somebody:
    agent = Somebody(running, folder / "ann", opened)
    minted = running.client().http.post("/v1/keys", json={"name": f"ann-{agent.prover.jkt[:8].lower().strip('-_')}"})
    secret = minted.json()["secret"]
    headers = {"DPoP": agent.proof("POST", "/v1/token", None)}
    answer = agent.http.post("/v1/token", data={**FORM, "subject_token": secret}, headers=headers)
    assert answer.status_code == 200, answer.text
    agent.token = answer.json()["access_token"]
    return agent


@given(parsers.parse('it passes the token on to a colleague for "{capability}" alone'), target_fixture="colleague")
@when(parsers.parse('it passes the token on to a colleague for "{capability}" alone'), target_fixture="colleague")
def _(running: Node, agent: Somebody, folder: Path, capability: str) -> Somebody:
    colleague = Somebody(running, folder / "bob", agent.opened)
    argv = [CRANK, "token", "attenuate", "-", "--capability", capability, "--no-mounts", "--expires", "5m", "--json"]
    argv += ["--holder", str(colleague.folder / "key.pem.pub"), "--key", str(agent.folder / "key.pem"), "--depth", "0"]
    # A folder where no node ever was: nothing is asked of one.
    alone = {"CRANK_HOME": str(folder / "nowhere"), "PATH": ""}
    done = subprocess.run(argv, input=agent.token, env=alone, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    colleague.token = json.loads(done.stdout)["token"]
    return colleague


@then("the colleague runs a script with it")
def _(colleague: Somebody) -> None:
    sent = colleague.ask("POST", "/v1/jobs", colleague.token, json=SCRIPT, headers={"Prefer": "wait=40"})
    assert sent.status_code == 200, sent.text
    assert sent.json()["stdout"] == "42\n"


@then("the colleague may call nothing else with it")
def _(colleague: Somebody) -> None:
    other = colleague.ask("POST", "/v1/jobs", colleague.token, json={"capability": "python.run.docs", "code": "1"})
    assert (other.status_code, other.json()["code"]) == (403, "capability_not_granted")
    mounted = colleague.ask("POST", "/v1/jobs", colleague.token, json={**SCRIPT, "mounts": ["docs"]})
    assert mounted.status_code in {400, 403, 404}, mounted.text
    for method, path in (("GET", "/v1/records"), ("GET", "/v1/keys"), ("POST", "/v1/keys")):
        refused = colleague.ask(method, path, colleague.token, **({"json": {"name": "x"}} if method == "POST" else {}))
        assert (refused.status_code, refused.json()["code"]) == (403, "owner_only")


@then("nobody but the colleague can use it")
def _(running: Node, agent: Somebody, colleague: Somebody, folder: Path) -> None:
    thief = Somebody(running, folder / "eve", agent.opened)
    for stranger in (agent, thief):
        refused = stranger.ask("GET", "/v1/jobs", colleague.token)
        assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")
    assert colleague.ask("GET", "/v1/jobs", colleague.token).status_code == 200


@when("the agent revokes what it passed on")
def _(agent: Somebody, colleague: Somebody) -> None:
    done = agent.ask("POST", "/v1/token/revoke", agent.token, data={"token": colleague.token})
    assert done.status_code == 200, done.text


@then("the colleague's token opens nothing")
def _(colleague: Somebody) -> None:
    refused = colleague.ask("POST", "/v1/jobs", colleague.token, json=SCRIPT)
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")


@then("the agent's own token still opens the node")
def _(agent: Somebody) -> None:
    assert agent.ask("GET", "/v1/jobs", agent.token).status_code == 200
