"""Tokens over real TLS: bound to the key of a certificate, renewed by the client, and workloads without one refused."""

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from crank.adapters.authority import Identity
from crank.adapters.authority.token_keys import jwk_of, thumbprint
from crank.adapters.certificate_request import read_request
from crank.adapters.fresh_keys import FreshKeys
from crank.adapters.jwt_svid import JoseSvidReader
from crank.api.app import build_api
from crank.api.holder import level_of
from crank.api.server import Listener, serve
from crank.api.workers import build_workers_app
from crank.bootstrap.tokens import take_place
from crank.client import AsyncClient, ClientOptions, ProofKey, TokenWanted
from crank.client.link import tls_context
from crank.controller import workloads
from crank.controller.desk import Desk
from crank.controller.identities import revoke_identity
from crank.controller.revocation_list import RevocationLists
from crank.controller.svids import Svids
from crank.domain.grant import Right
from crank.domain.ids import LOCAL_TENANT, InstanceId
from crank.domain.role import Role
from crank.domain.trust import Attestation, Peer, Workload
from crank.domain.workload import WorkloadEntry
from crank.errors import NotAllowed, NotAuthenticated
from crank.security import Verifier, bearer_server_context, bundle_from_pem, client_context, server_context
from crank.wire import TRUST_SINCE, Trust
from tests.support.desk import SECRET, TRUST_DOMAIN, ScriptedWorker, open_desk, peer_named
from tests.support.listeners import authority
from tests.support.tokens import form, with_tokens
from tests.unit.api.conftest import CORE, check_problem

JOB = {"capability": "python.run.core", "code": "print('hi')"}


class Node:
    """Where the API is, and what issues identities for it."""

    def __init__(self, desk, port, issuer, folder, ca_file):
        self.desk, self.issuer, self.folder, self.ca_file = desk, issuer, folder, ca_file
        self.url = f"https://127.0.0.1:{port}"

    def options(self, **more) -> ClientOptions:
        """Return how a client reaches it."""
        token_file = self.folder / "token"
        token_file.write_text(SECRET)
        return ClientOptions(api=self.url, ca_file=str(self.ca_file), token_file=str(token_file), retry_sec=0, **more)

    @contextlib.asynccontextmanager
    async def shown(self, identity=None):
        """Give plain HTTP over TLS, with a certificate or none."""
        context = tls_context(str(self.ca_file))
        if identity is not None:
            context = client_context(
                certificate_file=identity.certificate_file, key_file=identity.key_file, ca_file=identity.ca_file
            )
        async with httpx2.AsyncClient(base_url=self.url, verify=context, trust_env=False) as client:
            yield client


@pytest.fixture
async def node(tmp_path):
    """Give the API over TLS, with tokens, that asks its callers for certificates."""
    issuer = authority(tmp_path / "authority")
    issuer.ensure()
    own = issuer.issue_controller("c1")
    files = {"certificate_file": own.certificate_file, "key_file": own.key_file}
    async with open_desk(tmp_path, issuer=issuer) as opened:
        desk = with_tokens(opened, keys=issuer)
        assert desk.tokens is not None
        desk = replace(desk, tokens=replace(desk.tokens, place=""))
        tls = bearer_server_context(**files, ca_file=own.ca_file)
        bundle = bundle_from_pem(TRUST_DOMAIN, own.ca_file.read_bytes())
        verifier = Verifier(lambda domain: bundle if domain == TRUST_DOMAIN else None, now_us=opened.clock.now_us)
        assert desk.tokens is not None
        desk.tokens.identify = verifier.peer
        api = Listener(build_api(desk, version="0"), "127.0.0.1", 0, tls, "api")
        workers = Listener(
            build_workers_app(desk, identify=verifier.peer, read_request=read_request), "127.0.0.1", 0,
            server_context(**files, ca_file=own.ca_file), "workers",
        )  # fmt: skip
        ports: asyncio.Future[tuple[int, ...]] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        serving = asyncio.create_task(
            serve(api=api, workers=workers, started=lambda *both: ports.set_result(both), stop=stop)
        )
        try:
            port, _ = await asyncio.wait_for(ports, 20)
            take_place(desk.tokens, f"https://127.0.0.1:{port}")
            worker = ScriptedWorker(desk, "w1", [CORE])
            await worker.connect()
            yield Node(desk, port, issuer, tmp_path, own.ca_file)
        finally:
            stop.set()
            await asyncio.wait_for(serving, 30)


async def test_a_workers_certificate_alone_opens_nothing_and_leaves_a_record(node):
    """At an address of the owner's, and at any other: 403 for who is known, 401 for who is not."""
    worker = node.issuer.issue_worker("w7", node.folder / "w7")
    async with node.shown(worker) as http:
        for path in ("/v1/keys", "/v1/jobs", "/v1/records"):
            check_problem(await http.get(path), 403, "identity_without_token")
    async with node.shown() as http:
        check_problem(await http.get("/v1/keys"), 401, "not_authenticated")
    records = await node.desk.store.read(lambda tx: [one for _, one in tx.records.page(job_id=None, after=0, limit=99)])
    (refused,) = [one for one in records if one.kind == "access.refused"]
    assert refused.subject.endswith("/worker/w7")


async def test_a_token_is_bound_to_the_key_of_a_certificate_and_outlives_it(node):
    """Without DPoP: whoever shows that key's certificate, renewed or not, may use it; nobody else may."""
    mine = node.issuer.issue_worker("w8", node.folder / "w8")
    async with node.shown(mine) as http:
        answer = await http.post("/v1/token", data=form())
        token = answer.json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        assert (await http.post("/v1/jobs", json=JOB, headers=headers)).status_code == 202
        claims = node.desk.tokens.reader.read(token)
        jkt = thumbprint_of(mine)
        server = (await http.get("/.well-known/oauth-authorization-server")).json()
    # To the key: RFC 8705 would bind it to this one certificate, and the metadata does not say that it does.
    assert claims["cnf"] == {"jkt": jkt}
    assert server["tls_client_certificate_bound_access_tokens"] is False
    for identity in (node.issuer.issue_worker("w9", node.folder / "w9"), None):
        async with node.shown(identity) as http:
            check_problem(await http.get("/v1/jobs", headers=headers), 401, "invalid_token")


async def test_a_token_of_a_workload_outlives_its_certificate_until_that_is_revoked(node):
    """From the Workload API: with the next certificate the token holds on; after a revocation neither one opens anything."""
    desk, svids, entry = await workload_of(node)
    first = await written(node, svids, entry, "first")
    async with node.shown(first) as http:
        token = (await http.post("/v1/token", data=form())).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    # As at half of a life.
    svids._held.clear()
    second = await written(node, svids, entry, "second")
    assert second.certificate_file.read_bytes() != first.certificate_file.read_bytes()
    async with node.shown(second) as http:
        assert (await http.get("/v1/jobs", headers=headers)).status_code == 200
    serial = x509.load_pem_x509_certificate(second.certificate_file.read_bytes()).serial_number
    await revoke_identity(desk, f"{serial:x}", reason="", subject="owner")
    third = await written(node, svids, entry, "third")
    for identity, status, code in ((second, 403, "identity_revoked"), (third, 401, "invalid_token")):
        async with node.shown(identity) as http:
            check_problem(await http.get("/v1/jobs", headers=headers), status, code)


async def test_a_removed_workload_is_nobody_from_then_on(node):
    """Every certificate of it that is out is refused, told to workers and on the list; one that is registered anew is let in."""
    desk, svids, entry = await workload_of(node)
    worker = ScriptedWorker(desk, "w2", [CORE], version=TRUST_SINCE)
    await worker.connect()
    out = []
    for name in ("first", "second"):
        out.append(await written(node, svids, entry, name))
        svids._held.clear()
    headers: dict[str, str] = {}
    for identity in out:
        async with node.shown(identity) as http:
            headers.setdefault("Authorization", f"Bearer {(await http.post('/v1/token', data=form())).json()['access_token']}")
            assert (await http.get("/v1/jobs", headers=headers)).status_code == 200
    lists = RevocationLists()
    assert len(x509.load_der_x509_crl((await lists.current(desk)).der)) == 0
    await workloads.remove(desk, tenant=LOCAL_TENANT, subject="local", entry_id=entry.entry_id)
    serials = {x509.load_pem_x509_certificate(one.certificate_file.read_bytes()).serial_number for one in out}
    for identity in out:
        async with node.shown(identity) as http:
            check_problem(await http.get("/v1/jobs", headers=headers), 403, "identity_revoked")
    listed = x509.load_der_x509_crl((await lists.current(desk)).der)
    assert {one.serial_number for one in listed} == serials
    while len(told := (await worker.link.next(Trust)).revoked_serials) != len(serials):
        pass
    assert set(told) == {f"{serial:x}" for serial in serials}
    with pytest.raises(NotAllowed):
        await svids.picture([entry])
    _, svids, entry = await workload_of(node)
    async with node.shown(await written(node, svids, entry, "anew")) as http:
        assert (await http.post("/v1/token", data=form())).status_code == 200


async def test_a_peer_that_exchanges_anothers_bearer_is_named_as_its_actor(node):
    """The chain says who the connection proved to be."""
    async with node.shown() as http:
        bearer = (await http.post("/v1/token", data=form(depth=1))).json()["access_token"]
    peer = node.issuer.issue_worker("w10", node.folder / "w10")
    async with node.shown(peer) as http:
        given = (await http.post("/v1/token", data=form(bearer))).json()["access_token"]
        told = await http.post(
            "/v1/token/introspect", data={"token": given}, headers={"Authorization": f"Bearer {given}"}
        )
    assert told.json()["act"]["sub"].endswith("/worker/w10")
    assert told.json()["sub"] == "local"


def with_proof(node, key, method, path, token=None):
    """Return the headers of a request that proves a key of its own, beside whatever certificate."""
    proof = {"DPoP": key.prove(method, f"{node.url}{path}", token)}
    return proof if token is None else {**proof, "Authorization": f"DPoP {token}"}


async def test_a_certificate_that_was_revoked_or_has_expired_ends_a_connection_whatever_else_it_shows(node):
    """A key, a DPoP proof beside a token, and the token endpoint: none of them makes up for the certificate."""
    key = ProofKey()
    mine = node.issuer.issue_worker("w11", node.folder / "w11")
    async with node.shown(mine) as http:
        asked = await http.post("/v1/token", data=form(), headers=with_proof(node, key, "POST", "/v1/token"))
        token = asked.json()["access_token"]
        secret = {"Authorization": f"Bearer {SECRET}"}

        async def answers():
            return [
                await http.get("/v1/jobs", headers=secret),
                await http.get("/v1/jobs", headers=with_proof(node, key, "GET", "/v1/jobs", token)),
                await http.post("/v1/token", data=form(), headers=with_proof(node, key, "POST", "/v1/token")),
            ]

        assert [one.status_code for one in await answers()] == [200, 200, 200]
        identify = node.desk.tokens.identify
        node.desk.tokens.identify = lambda session: replace(identify(session), not_after_us=1)
        assert {one.json()["code"] for one in await answers()} == {"identity_expired"}
        node.desk.tokens.identify = identify
        await revoke_identity(node.desk, f"spiffe://{TRUST_DOMAIN}/worker/w11", reason="stolen", subject="owner")
        assert {one.json()["code"] for one in await answers()} == {"identity_revoked"}
    async with node.shown() as http:
        # It was the connection that had to end: the key and the owner's secret are nobody's fault.
        assert (await http.get("/v1/jobs", headers=secret)).status_code == 200


async def test_a_token_of_a_workload_is_used_over_its_own_certificate_or_none(node):
    """A proof by the right key does not help on the connection of another workload, neither to use it nor to exchange it."""
    key = ProofKey()
    ann, eve = (node.issuer.issue_worker(name, node.folder / name) for name in ("ann", "eve"))
    async with node.shown() as http:
        bearer = (await http.post("/v1/token", data=form(depth=2))).json()["access_token"]
    async with node.shown(ann) as http:
        proof = with_proof(node, key, "POST", "/v1/token")
        # Over DPoP, too, the chain names who the connection proved to be.
        given = (await http.post("/v1/token", data=form(bearer), headers=proof)).json()["access_token"]
    for identity, status in ((ann, 200), (None, 200), (eve, 401)):
        async with node.shown(identity) as http:
            headers = with_proof(node, key, "GET", "/v1/jobs", given)
            assert (await http.get("/v1/jobs", headers=headers)).status_code == status
            proof = with_proof(node, key, "POST", "/v1/token")
            exchanged = (await http.post("/v1/token", data=form(given), headers=proof)).json()
            assert exchanged.get("code") == (None if status == 200 else "invalid_token")


async def test_whoever_sends_anothers_jwt_svid_over_its_own_certificate_stands_in_the_chain(node):
    """An identity's token tells who it is of; the connection tells who sends it, and that is kept."""
    ann, eve = (node.issuer.issue_worker(name, node.folder / name) for name in ("ann", "eve"))
    name = f"spiffe://{TRUST_DOMAIN}/worker/ann"
    node.desk.tokens.roles["agents"] = Role(
        "agents", "Workloads.", (Right("python.*"),), 300, 0, 0, identities=(name,), key="owner"
    )
    svid = {"sub": name, "aud": [node.url], "exp": node.desk.clock.now_us() // 1_000_000 + 60}
    asked = form(node.issuer.sign_jwt_svid(svid), role="agents") | {
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt"
    }
    for identity, actors in ((ann, ()), (eve, (f"spiffe://{TRUST_DOMAIN}/worker/eve",)), (None, ())):
        async with node.shown(identity) as http:
            proof = with_proof(node, ProofKey(), "POST", "/v1/token")
            answer = await http.post("/v1/token", data=asked, headers=proof)
            assert answer.status_code == 200, answer.text
        newest = max(await _grants(node), key=lambda grant: grant.grant_id)
        assert (newest.subject, newest.actors) == (name, actors)


async def test_a_role_with_a_level_is_assumed_only_over_a_certificate_that_says_so(node):
    """Not without a certificate, whatever level is asked for; not with one of the Workload API; not with another domain's."""
    join, none = (Role(level.label, "x", (Right("python.*"),), 300, 300, 0, who=("owner",), attestation=level)
                  for level in (Attestation.JOIN, Attestation.NONE))  # fmt: skip
    node.desk.tokens.roles.update({role.name: role for role in (join, none)})
    machine = node.issuer.issue_worker("w8", node.folder / "w8")
    _, svids, entry = await workload_of(node)
    low = await written(node, svids, entry, "low")
    for identity, role, said in (
        (machine, join, None), (machine, none, None), (low, none, None),
        (low, join, "says none"), (None, join, "none was shown"), (None, none, "none was shown"),
    ):  # fmt: skip
        async with node.shown(identity) as http:
            proof = {} if identity else with_proof(node, ProofKey(), "POST", "/v1/token")
            answer = (await http.post("/v1/token", data=form(role=role.name), headers=proof)).json()
        assert answer.get("code") == (None if said is None else "role_not_allowed")
        assert said is None or (f"attestation {role.name}, and" in answer["error_description"] and said in answer["error_description"])
    foreign = replace(node.desk, policy=replace(node.desk.policy, trust_domain="elsewhere.example"))
    assert level_of(foreign, peer_at(Attestation.JOIN)) is Attestation.NONE
    assert level_of(node.desk, peer_at(Attestation.JOIN)) is Attestation.JOIN


def peer_at(level: Attestation) -> Peer:
    """Return what a verifier says of a worker of our domain at this level."""
    return replace(peer_named("w1"), workload=Workload("worker", InstanceId("01890a5d-ac96-774b-bcce-b302099a8057"), level))


async def test_the_level_of_a_workload_is_not_that_of_whoever_sends_its_jwt_svid(node):
    """A JWT-SVID counts with its own workload's certificate alone: a machine that joined lends its level to nobody."""
    ann, eve = (node.issuer.issue_worker(name, node.folder / name) for name in ("ann", "eve"))
    name = f"spiffe://{TRUST_DOMAIN}/worker/ann"
    node.desk.tokens.roles["agents"] = Role(
        "agents", "x", (Right("python.*"),), 300, 300, 0, identities=(name,), key="owner", attestation=Attestation.JOIN
    )
    svid = {"sub": name, "aud": [node.url], "exp": node.desk.clock.now_us() // 1_000_000 + 60}
    asked = form(node.issuer.sign_jwt_svid(svid), role="agents") | {
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt"
    }
    for identity, code in ((ann, None), (eve, "role_not_allowed"), (None, "role_not_allowed")):
        async with node.shown(identity) as http:
            answer = await http.post("/v1/token", data=asked)
            assert answer.json().get("code") == code


async def test_a_client_exchanges_its_secret_and_renews_by_itself(node):
    """The secret goes to the token endpoint alone; a token that ended is replaced in mid-use; jobs stay in sight."""
    async with AsyncClient(node.options(exchange=TokenWanted(scope="python.*"))) as client:
        first = await client.submit(JOB)
        assert (await client.get(first.job_id)).job_id == first.job_id
        (grant,) = await _grants(node)
        assert grant.holder_jkt is not None
        # Revoked behind its back, as by a restart with other keys: it exchanges anew and goes on.
        await node.desk.store.transact(lambda tx: tx.grants.revoke("local", grant.grant_id, node.desk.clock.now_us()))
        node.desk.keyring.changed()
        assert (await client.get(first.job_id)).job_id == first.job_id
        assert len(await _grants(node)) == 2
        with pytest.raises(NotAllowed):
            await client.keys.list()
    assert len(await _grants(node)) == 2


async def test_renewal_is_ahead_of_the_end(node):
    """Tokens of a minute are exchanged again before they end, one at a time however many ask."""
    async with AsyncClient(node.options(exchange=TokenWanted(lifetime_sec=60))) as client:
        await asyncio.gather(*(client.list() for _ in range(8)))
        assert len(await _grants(node)) == 1
        renewing: Any = client._link._http.auth
        renewing._renew_at_sec = 0.0
        await asyncio.gather(*(client.list() for _ in range(8)))
        assert len(await _grants(node)) == 2


async def test_a_client_passes_a_token_on_and_another_uses_it(node):
    """From a proof key's thumbprint to a client of its own that holds what it was given, and no more."""
    theirs = ProofKey()
    async with AsyncClient(node.options()) as owner:
        given = await owner.tokens.exchange(
            rights=[{"identifier": "python.run.core", "calls_max": 1}], holder_jkt=theirs.jkt
        )
        assert given.bound
        assert (await owner.tokens.introspect(given.text))["active"] is True
        async with AsyncClient(node.options(token=given.text, proof_key=theirs)) as other:
            await other.submit(JOB)
            with pytest.raises(NotAllowed) as spent:
                await other.submit(JOB)
            assert spent.value.error_code == "calls_spent"
        async with AsyncClient(node.options(token=given.text, proof_key=ProofKey())) as thief:
            with pytest.raises(NotAuthenticated):
                await thief.list()
        assert [one["grant_id"] for one in await owner.tokens.list()] == [given.grant_id]
        await owner.tokens.revoke(given.grant_id)
        await owner.tokens.revoke(given.text)
        assert (await owner.tokens.introspect(given.text))["active"] is False


async def test_a_wrong_secret_is_told_as_such(node):
    """The exchange's refusal reaches the caller as the fault that it is."""
    async with AsyncClient(node.options(token="crank_wrong", exchange=TokenWanted())) as client:
        with pytest.raises(NotAuthenticated):
            await client.list()


async def workload_of(node) -> tuple[Desk, Svids, WorkloadEntry]:
    """Register a workload at a desk that issues; return what its identities come from."""
    desk = replace(node.desk, authority=node.issuer)
    wanted = workloads.WorkloadWanted("agent/a", ("unix:uid:7",))
    entry = await workloads.add(desk, tenant=LOCAL_TENANT, subject="local", wanted=wanted)
    return desk, Svids(desk, FreshKeys(), JoseSvidReader()), entry


async def written(node, svids: Svids, entry: WorkloadEntry, name: str) -> Identity:
    """Write what the Workload API hands out now into files."""
    (held,) = (await svids.picture([entry])).svids
    folder = node.folder / name
    folder.mkdir()
    key = load_der_private_key(held.private_key, None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = b"".join(x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in held.svid.chain)
    for place, content in (("key.pem", pem), ("cert.pem", chain), ("ca.pem", node.ca_file.read_bytes())):
        (folder / place).write_bytes(content)
    return Identity(entry.spiffe_id, folder)


def thumbprint_of(identity) -> str:
    """Return the thumbprint of the key in an identity's certificate."""
    key = x509.load_pem_x509_certificate(identity.certificate_file.read_bytes()).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return thumbprint(jwk_of(key))


async def _grants(node):
    return await node.desk.store.read(lambda tx: list(tx.grants.page("local", limit=99, before=None)))
