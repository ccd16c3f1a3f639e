"""The expiry drill with clocks in hand: identities that live 30 seconds, and work across many of them, with no fault."""


import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from crank.adapters.clock import SystemIdSource
from crank.controller.cut_off import cut_off_all
from crank.controller.issue import IdentityWanted, issue
from crank.controller.renew import renew
from crank.domain.identity import make_spiffe_id
from crank.domain.ids import InstanceId
from crank.domain.issued import CertificateRequest
from crank.domain.trust import Attestation, Peer, Svid, Workload
from crank.errors import Unavailable
from crank.testing.fake_identity import FakeIdentity
from crank.testing.fake_sandbox import ScriptedRun
from crank.testing.fakes import FakeClock
from crank.testing.memory_authority import MemoryAuthority
from crank.worker import hand_over, renewing
from tests.support.desk import TRUST_DOMAIN, open_api, open_desk
from tests.support.pair import Pair, until

LEAF_SEC = 30.0
W1 = make_spiffe_id(TRUST_DOMAIN, "worker", "w1")


class DeskIdentity(FakeIdentity):
    """A worker's identity that the desk beside it issues and renews, by the same use cases as over the network."""

    def __init__(self, desk, svid: Svid, public_key: bytes) -> None:
        super().__init__(due_sec=LEAF_SEC / 2)
        self._desk = desk
        self.public_key = public_key
        self.svid = svid
        # The thumbprint of the key that signs what the worker offers.
        self.jkt = ""

    @property
    def peer(self) -> Peer:
        """Return what a connection that is opened now shows."""
        svid = self.svid
        return Peer(svid.spiffe_id, svid.workload, (svid.serial,), svid.not_before_us, svid.not_after_us, self.jkt)

    async def renew(self) -> float:
        """Ask the desk, as the workers' listener would."""
        await super().renew()
        renewed = await renew(self._desk, peer=self.peer, request=CertificateRequest(W1, self.public_key))
        self.svid = renewed.svid
        return renewed.renew_in_sec


@pytest.fixture
async def drill(tmp_path, monkeypatch):
    """Give a desk on a clock that a test moves, with a worker beside it that shows identities of its authority."""
    monkeypatch.setattr(renewing, "TICK_SEC", 0.002)
    monkeypatch.setattr(hand_over, "AGAIN_SEC", 0.01)
    clock = FakeClock()
    issuer = MemoryAuthority(TRUST_DOMAIN, clock, SystemIdSource(), leaf_ttl_sec=LEAF_SEC)
    async with open_desk(tmp_path, issuer=issuer, clock=clock, lease_sec=100_000.0) as desk:
        public = ec.generate_private_key(ec.SECP256R1()).public_key()
        public_key = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        workload = Workload("worker", InstanceId(desk.ids.uuid7()), Attestation.JOIN)
        svid = await issue(desk, IdentityWanted(W1, workload, public_key, node="n1", asked_by="test"))
        own = DeskIdentity(desk, svid, public_key)
        pair = Pair(desk, {"wait": ScriptedRun(end=None)}, own=own, slots=3)
        pair.clock = clock
        own.jkt = pair.connector.key.jkt
        pair.connector.shows = lambda: own.peer
        pair.worker = pair._make()
        await pair.start()
        yield pair, own, clock
        await pair.kill()


async def test_work_goes_on_across_many_lives(drill):
    """Jobs, a session and one long job across ten lives of a certificate: none is refused, cut, or tried twice."""
    pair, own, clock = drill
    desk = pair.desk
    async with open_api(desk) as api:
        long_id = (await api.post("/v1/jobs", json={"code": "wait"})).json()["job_id"]
        session = (await api.post("/v1/sessions", json={"idle_sec": 3600, "lifetime_sec": 7200})).json()["session_id"]
        for number in range(60):
            clock.advance(LEAF_SEC / 6)
            assert await cut_off_all(desk) == 0
            body = {"code": f"step {number}", **({"session": session} if number % 2 else {})}
            done = await api.post("/v1/jobs", json=body, headers={"Prefer": "wait=20"})
            assert (done.status_code, done.json()["attempts"], done.json()["end"]["reason"]) == (200, 1, "exited")
            await until(lambda: own.peer.not_after_us - clock.now_us() > 1_000_000 * LEAF_SEC / 2)
            await until(lambda: desk.roster.live()[0].peer == own.peer)
        assert own.renewals >= 20
        await until(lambda: desk.tally.links_renewed == own.renewals)
        assert desk.tally.renewals == {"renewed": own.renewals}
        assert (await api.get(f"/v1/jobs/{long_id}")).json()["status"] == "running"
        assert (await api.get(f"/v1/sessions/{session}")).json()["state"] == "open"


async def test_a_worker_that_cannot_renew_is_cut_off_and_comes_back(drill):
    """Without a renewal the link ends with its certificate; when renewals work again, its job goes on as it stood."""
    pair, own, clock = drill
    desk = pair.desk
    async with open_api(desk) as api:
        long_id = (await api.post("/v1/jobs", json={"code": "wait"})).json()["job_id"]

        async def runs() -> bool:
            return (await api.get(f"/v1/jobs/{long_id}")).json()["status"] == "running"

        await until(runs)
        own.faults = [Unavailable("No answer.")] * 1000
        clock.advance(LEAF_SEC)
        pair.connector.reachable.clear()
        assert await cut_off_all(desk) == 1
        await until(lambda: pair.connector.links[0].closed_with is not None)
        assert pair.connector.links[0].closed_with[0] == "identity_expired"
        await until(lambda: own.doubts > 0)
        # The folder of its identity holds a fresh one, as the node's own worker's does.
        wanted = IdentityWanted(W1, own.svid.workload, own.public_key, node="n1", asked_by="test")
        own.svid = await issue(desk, wanted)
        pair.connector.reachable.set()
        await until(desk.roster.live)
        job = (await api.get(f"/v1/jobs/{long_id}")).json()
        assert (job["status"], job["attempts"]) == ("running", 1)


async def test_a_revoked_worker_kills_what_it_runs_and_is_let_in_again(drill):
    """It hears the reason, kills its job, comes back in vain, and works again once it is allowed and has a new identity."""
    pair, own, _ = drill
    desk = pair.desk
    async with open_api(desk) as api:
        job_id = (await api.post("/v1/jobs", json={"code": "wait", "effects": "pure"})).json()["job_id"]

        async def runs() -> bool:
            return (await api.get(f"/v1/jobs/{job_id}")).json()["status"] == "running"

        await until(runs)
        before = pair.sandbox
        await api.post("/v1/identities/revoke", json={"identity": str(W1), "reason": "doubtful"})
        await until(lambda: not before.alive)
        await until(lambda: len(pair.connector.links) > 2)
        assert desk.roster.live() == []
        assert (await api.get(f"/v1/jobs/{job_id}")).json()["status"] == "queued"
        await api.post("/v1/identities/allow", json={"identity": str(W1)})
        wanted = IdentityWanted(W1, own.svid.workload, own.public_key, node="n1", asked_by="test")
        own.svid = await issue(desk, wanted)
        await until(runs)
        job = (await api.get(f"/v1/jobs/{job_id}")).json()
        assert (job["attempts"], job["epoch"]) == (2, 2)
