"""Enrolling by a signed manifest: what is not the worker's own, of now and allowed never becomes active."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crank.controller.desk import Desk
from crank.controller.enroll import enroll
from crank.controller.manifests import Manifests
from crank.controller.nodes import forget
from crank.controller.submit import Submission, submit
from crank.controller.views import find_job, manifest_document, workers_document
from crank.domain.capability import capability_document
from crank.domain.enrolment import Enrolment, Manifest
from crank.domain.ids import LOCAL_TENANT, InstanceId, WorkerId
from crank.domain.job import Status
from crank.domain.rules.enrolment import worker_of
from crank.domain.trust import Attestation, Peer, Workload
from crank.errors import InvalidRequest, NotAllowed, NotFound
from crank.wire import VERSION_MAX, Hello, Lease
from tests.support.desk import QueueLink, open_desk, peer_named
from tests.support.signing import OwnKey
from tests.unit.domain.rules.builders import capability

NODE = "box-00000001"
BOX = Enrolment(NODE, "box", worker_of(NODE), ("python.run.*",), 1, attestation=Attestation.JOIN, joined_us=2)


class Newcomer:
    """A worker with a key, which says what a test lets it say."""

    def __init__(self, desk: Desk, worker_id: str = BOX.worker_id, node_id: str = NODE) -> None:
        self.desk = desk
        self.worker_id, self.node_id = worker_id, node_id
        self.instance_id = desk.ids.uuid7()
        self.key = OwnKey()
        self.offers = [capability()]

    def manifest(self, **changed: Any) -> Manifest:
        """Return a manifest as it should be, but for what is changed."""
        return replace(
            Manifest(
                manifest_id=self.desk.ids.uuid7(),
                worker_id=self.worker_id,
                instance_id=self.instance_id,
                node_id=self.node_id,
                signed_sec=self.desk.clock.now_us() // 1_000_000,
                capabilities=tuple(capability_document(each) for each in self.offers),
            ),
            **changed,
        )

    def hello(self, signed: str | None, *, version: int = VERSION_MAX, plain: bool = False) -> Hello:
        """Return a hello with this manifest; plain: with the capabilities beside it."""
        documents = [capability_document(each) for each in self.offers] if plain else []
        return Hello(1, version, self.worker_id, self.instance_id, self.node_id, "0", 2, documents, [], manifest=signed)

    async def come(self, hello: Hello, peer: Peer | None = None) -> None:
        """Enroll with it."""
        shown = peer or peer_named(self.worker_id, jkt=self.key.jkt)
        await enroll(self.desk, hello=hello, peer=shown.spiffe_id, link=QueueLink(), shown=shown)


async def refused(newcomer: Newcomer, hello: Hello, peer: Peer | None = None) -> str:
    """Return the code of the refusal, having made sure that nothing was stored."""
    with pytest.raises(NotAllowed) as caught:
        await newcomer.come(hello, peer)
    assert (await workers_document(newcomer.desk))["workers"] == []
    assert newcomer.desk.roster.live() == []
    return caught.value.error_code


@pytest.fixture
async def desk(tmp_path: Path):
    """Give a desk that knows one joined node."""
    async with open_desk(tmp_path) as opened:
        await opened.store.transact(lambda tx: tx.enrolments.insert(BOX, None))
        yield opened


async def test_what_it_signed_can_be_read_by_others(desk: Desk) -> None:
    """The manifest and its hash are shown while the worker is connected; another worker's are not found."""
    newcomer = Newcomer(desk)
    signed = newcomer.key.sign_manifest(newcomer.manifest())
    await newcomer.come(newcomer.hello(signed))
    found = await manifest_document(desk, WorkerId(newcomer.worker_id))
    assert (found["manifest"], found["attestation"], len(found["sha256"])) == (signed, "join", 64)
    (worker,) = (await workers_document(desk))["workers"]
    assert (worker["attestation"], worker["capabilities"]) == ("join", ["python.run.core"])
    records = await desk.store.read(lambda tx: tx.records.page(job_id=None, after=0, limit=99))
    (facts,) = [record.facts for _, record in records if record.kind == "worker.enrolled"]
    assert (facts["manifest"], facts["node"]) == (found["sha256"], NODE)
    with pytest.raises(NotFound):
        await manifest_document(desk, WorkerId("main-other"))


async def test_the_level_is_what_the_certificate_says(desk: Desk) -> None:
    """Where it carries the extension; it says how the node was attested when that identity was issued."""
    newcomer = Newcomer(desk)
    workload = Workload("worker", InstanceId(newcomer.instance_id), Attestation.THUMBPRINT)
    peer = replace(peer_named(newcomer.worker_id, jkt=newcomer.key.jkt), workload=workload)
    await newcomer.come(newcomer.hello(newcomer.key.sign_manifest(newcomer.manifest())), peer)
    (worker,) = (await workers_document(desk))["workers"]
    assert worker["attestation"] == "thumbprint"


async def test_a_link_that_renews_shows_a_certificate_of_its_own_instance(desk: Desk) -> None:
    """The first link may show an older program's, and so may a renewal that was asked for just before; no third one's."""
    newcomer = Newcomer(desk)

    def peer_of(kind: str, instance_id: str) -> Peer:
        workload = Workload(kind, InstanceId(instance_id), Attestation.JOIN)
        return replace(peer_named(newcomer.worker_id, jkt=newcomer.key.jkt), workload=workload)

    def hello(*, renews: bool) -> Hello:
        return replace(newcomer.hello(newcomer.key.sign_manifest(newcomer.manifest())), renews=renews)

    before, other = desk.ids.uuid7(), desk.ids.uuid7()
    assert await refused(newcomer, hello(renews=False), peer_of("agent", newcomer.instance_id)) == "identity_mismatch"
    await newcomer.come(hello(renews=False), peer_of("worker", before))
    await newcomer.come(hello(renews=True), peer_of("worker", before))
    first = desk.roster.live()
    with pytest.raises(NotAllowed) as caught:
        await newcomer.come(hello(renews=True), peer_of("worker", other))
    assert (caught.value.error_code, other in caught.value.message) == ("identity_mismatch", True)
    assert desk.roster.live() == first
    await newcomer.come(hello(renews=True), peer_of("worker", newcomer.instance_id))
    assert desk.tally.links_renewed == 2
    with pytest.raises(NotAllowed):
        await newcomer.come(hello(renews=True), peer_of("worker", before))


async def test_a_manifest_of_another_key_is_refused(desk: Desk) -> None:
    """Signed by another worker's key, by nobody's, or where TLS proved no key: not believed."""
    newcomer, other = Newcomer(desk), OwnKey()
    assert await refused(newcomer, newcomer.hello(other.sign_manifest(newcomer.manifest()))) == "manifest_not_believed"
    assert await refused(newcomer, newcomer.hello("a.b.c")) == "manifest_not_believed"
    assert await refused(newcomer, newcomer.hello("")) == "manifest_not_believed"
    good = newcomer.hello(newcomer.key.sign_manifest(newcomer.manifest()))
    assert await refused(newcomer, good, peer_named(newcomer.worker_id)) == "manifest_not_believed"


@pytest.mark.parametrize(
    "changed",
    [{"worker_id": "main-x"}, {"instance_id": "0190a6a4-7b1c-7d2e-8f00-0123456789ab"}, {"node_id": "n1"}, {"signed_sec": 5}],
)
async def test_a_manifest_of_another_worker_or_time_is_refused(desk: Desk, changed: dict[str, Any]) -> None:
    """Though signed by the right key."""
    newcomer = Newcomer(desk)
    signed = newcomer.key.sign_manifest(newcomer.manifest(**changed))
    assert await refused(newcomer, newcomer.hello(signed)) == "manifest_not_believed"


async def test_a_manifest_counts_once(desk: Desk) -> None:
    """The same text a second time is a replay, and the worker that is here already stays."""
    newcomer = Newcomer(desk)
    hello = newcomer.hello(newcomer.key.sign_manifest(newcomer.manifest()))
    await newcomer.come(hello)
    live = desk.roster.live()
    with pytest.raises(NotAllowed, match="shown before"):
        await newcomer.come(hello)
    assert desk.roster.live() == live
    await newcomer.come(newcomer.hello(newcomer.key.sign_manifest(newcomer.manifest())))


async def test_more_than_its_enrolment_allows_is_refused(desk: Desk) -> None:
    """One capability too many keeps the whole worker out."""
    newcomer = Newcomer(desk)
    newcomer.offers.append(capability(name="document.convert"))
    signed = newcomer.key.sign_manifest(newcomer.manifest())
    assert await refused(newcomer, newcomer.hello(signed)) == "capability_not_enrolled"


@pytest.mark.parametrize("node_id", ["n1", "other-00000002"])
async def test_another_node_may_not_be_named(desk: Desk, node_id: str) -> None:
    """Not the controller's own, by which jobs with its mounts are routed, and nobody else's."""
    newcomer = Newcomer(desk, node_id=node_id)
    signed = newcomer.key.sign_manifest(newcomer.manifest())
    assert await refused(newcomer, newcomer.hello(signed)) == "node_not_enrolled"


async def test_a_worker_that_nobody_enrolled_is_the_own_machines(desk: Desk) -> None:
    """It may offer all, for the controller's own node alone."""
    own = Newcomer(desk, "main-n1", "n1")
    own.offers.append(capability(name="document.convert"))
    stranger = Newcomer(desk, "main-stranger", "stranger")
    assert await refused(stranger, stranger.hello(stranger.key.sign_manifest(stranger.manifest()))) == "node_not_enrolled"
    await own.come(own.hello(own.key.sign_manifest(own.manifest())))


async def test_a_forgotten_node_does_not_come_back(desk: Desk) -> None:
    """Its certificate is still good for a while; the enrolment is not."""
    await desk.store.transact(lambda tx: tx.enrolments.update(replace(BOX, forgotten_us=9)))
    newcomer = Newcomer(desk)
    signed = newcomer.key.sign_manifest(newcomer.manifest())
    assert await refused(newcomer, newcomer.hello(signed)) == "node_not_enrolled"


async def test_who_does_not_sign_is_old_and_of_the_own_machine(desk: Desk) -> None:
    """A version before manifests is served on the controller's own machine alone; a present version must sign."""
    joined, own = Newcomer(desk), Newcomer(desk, "main-n1", "n1")
    assert await refused(joined, joined.hello(None, version=2, plain=True)) == "manifest_not_believed"
    assert await refused(own, own.hello(None, plain=True)) == "manifest_not_believed"
    pretender = Newcomer(desk, node_id="n1")
    assert await refused(pretender, pretender.hello(None, version=2, plain=True)) == "node_not_enrolled"
    await own.come(own.hello(None, version=2, plain=True))
    with pytest.raises(NotFound):
        await manifest_document(desk, WorkerId("main-n1"))


async def test_who_signed_once_is_not_old_any_more(tmp_path: Path) -> None:
    """Saying an old version passes by no signature: refused and recorded, also by a controller that was started anew."""
    async with open_desk(tmp_path) as before:
        own = Newcomer(before, "main-n1", "n1")
        await own.come(own.hello(None, version=2, plain=True))
        await own.come(own.hello(own.key.sign_manifest(own.manifest())))
        assert await unsigned(own) == ["manifest_not_believed", "main-n1"]
        (live,) = before.roster.live()
        assert live.manifest is not None
    async with open_desk(tmp_path) as after:
        assert await unsigned(Newcomer(after, "main-n1", "n1")) == ["manifest_not_believed", "main-n1"]
        assert after.roster.live() == []
        other = Newcomer(after, "other-n1", "n1")
        await other.come(other.hello(None, version=1, plain=True))


async def unsigned(worker: Newcomer) -> list[str]:
    """Let a worker come as one of an old version that offers something else; return the refusal, and whom a record names."""
    worker.offers = [capability(name="document.convert")]
    with pytest.raises(NotAllowed) as caught:
        await worker.come(worker.hello(None, version=2, plain=True))
    shown = (await workers_document(worker.desk))["workers"]
    assert [each["capabilities"] for each in shown if each["worker_id"] == worker.worker_id] == [["python.run.core"]]
    records = await worker.desk.store.read(lambda tx: tx.records.page(job_id=None, after=0, limit=99))
    (record, *_) = [record for _, record in records if record.kind == "manifest.refused"]
    assert record.facts["version"] == 2
    return [caught.value.error_code, record.subject.rpartition("/")[2]]


async def test_capabilities_beside_a_manifest_are_refused(desk: Desk) -> None:
    """Nothing that is not signed can slip in beside what is."""
    newcomer = Newcomer(desk)
    signed = newcomer.key.sign_manifest(newcomer.manifest())
    assert await refused(newcomer, newcomer.hello(signed, plain=True)) == "manifest_not_believed"


def test_what_was_shown_is_remembered_for_as_long_as_it_would_be_believed() -> None:
    """Ten minutes; then its own time refuses it."""
    seen = Manifests()
    assert seen.take("a", 0.0)
    assert not seen.take("a", 599.0)
    assert seen.take("b", 600.0)
    assert seen.take("a", 600.0)


async def test_forgetting_a_node_cuts_its_worker_off(desk: Desk) -> None:
    """Its link ends, its lease goes back, both its identities are revoked, and no job waits for it any more."""
    newcomer = Newcomer(desk)
    link = QueueLink()
    hello = newcomer.hello(newcomer.key.sign_manifest(newcomer.manifest()))
    peer = peer_named(newcomer.worker_id, jkt=newcomer.key.jkt)
    await enroll(desk, hello=hello, peer=peer.spiffe_id, link=link, shown=peer)
    wanted = Submission({"code": "1", "capability": "python.run.core", "effects": "pure"})
    job = (await submit(desk, tenant=LOCAL_TENANT, subject="local", submission=wanted)).job
    lease: Lease = await link.next(Lease)
    assert lease.job_id == job.job_id
    gone = await forget(desk, tenant=LOCAL_TENANT, subject="local", node="box")
    assert await forget(desk, tenant=LOCAL_TENANT, subject="local", node=NODE) == gone
    assert link.closed is not None
    assert desk.roster.live() == []
    assert (await find_job(desk, tenant=LOCAL_TENANT, job_id=job.job_id)).status is Status.QUEUED
    names = {ban.spiffe_id.path for ban in desk.standing.bans}
    assert names == {("worker", BOX.worker_id), ("node", NODE)}
    with pytest.raises(InvalidRequest) as caught:
        await submit(desk, tenant=LOCAL_TENANT, subject="local", submission=wanted)
    assert caught.value.error_code == "unsatisfied-capability"
