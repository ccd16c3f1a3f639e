"""Small valid values for tests of stores; every part that does not matter has a default."""

from crank.domain.capability import Accelerator, Capability, Effects
from crank.domain.credential import Credential, CredentialKind
from crank.domain.grant import Grant, GrantId, Right
from crank.domain.handle import CalledBy
from crank.domain.ids import (
    LOCAL_TENANT,
    CredentialId,
    Digest,
    InstanceId,
    JobId,
    MountId,
    SessionId,
    TenantId,
    WorkerId,
)
from crank.domain.job import InputFile, Job, JobRequest, Mount, MountUse, Status
from crank.domain.json import JsonObject, JsonValue
from crank.domain.outcome import Clock, End, Reason
from crank.domain.record import Record
from crank.domain.session import Session, SessionRequest, SessionState
from crank.domain.trust import Attestation
from crank.domain.worker import KnownWorker, Replay
from crank.wire import JobEvent

DIGEST = Digest("ab" * 32)
OTHER_TENANT = TenantId("other")


def sample_request(*, code: str | None = "print('ü\u2028')", args: JsonValue = None) -> JobRequest:
    """Return a request in which every field holds something."""
    return JobRequest(
        capability="python.run.core",
        version="1.2",
        env_profile="python-core",
        accelerator=Accelerator.CPU,
        gpu_model=None,
        timeout_sec=2.5,
        max_output_bytes=1_000,
        memory_bytes=1 << 30,
        code=code,
        args={"n": [1, 2.5, True, None, "\x00é"]} if args is None else args,
        files=(InputFile("a/b.txt", DIGEST, 3),),
        mounts=(MountUse("docs", MountId("m-0123456789abcdef")),),
        effects=Effects.IDEMPOTENT,
        route="local",
        traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        context="main",
        program=("pandoc", "-o", "a b.md"),
        stdin=True,
        attestation=Attestation.JOIN,
    )


def sample_job(
    job_id: str, *, tenant: TenantId = LOCAL_TENANT, status: Status = Status.QUEUED, submitted_us: int = 1
) -> Job:
    """Return a job as it is when it was just accepted, with another status if asked."""
    return Job(JobId(job_id), tenant, sample_request(), DIGEST, status, epoch=0, attempts=0, submitted_us=submitted_us)


def sample_full_job(job_id: str) -> Job:
    """Return an ended job in which every field holds something."""
    return Job(
        job_id=JobId(job_id),
        tenant=LOCAL_TENANT,
        request=sample_request(),
        request_digest=DIGEST,
        status=Status.TIMED_OUT,
        epoch=3,
        attempts=2,
        submitted_us=10,
        started_us=20,
        ended_us=30,
        worker_id=WorkerId("w1"),
        instance_id=InstanceId("i1"),
        cancel_requested=True,
        end=End(Reason.TIMEOUT, clock=Clock.WALL, code="too_slow", message="It took too long."),
        outcome={"stdout": {"text": "é\n"}, "displays": [], "n": 10**30, "x": 0.1},
        outcome_blob=DIGEST,
        hold=2**53 + 1,
        owner=CredentialId("k-full"),
        called_by=CalledBy(JobId(f"above-{job_id}"), 2, 7, "convert", 1, JobId(f"above-{job_id}")),
    )


def sample_session(session_id: str, *, tenant: TenantId = LOCAL_TENANT) -> Session:
    """Return a session as it is when it was just asked for, with every part of its request."""
    request = SessionRequest(
        capability="python.run.core",
        version="1.0.0",
        env_profile="python-core",
        accelerator=Accelerator.CPU,
        gpu_model=None,
        memory_bytes=1 << 29,
        idle_sec=600.0,
        lifetime_sec=3600.0,
        mounts=(MountUse("docs", MountId("m-0123456789abcdef")),),
        name="notebook",
        attestation=Attestation.THUMBPRINT,
    )
    return Session(SessionId(session_id), tenant, request, SessionState.OPENING, WorkerId("w1"), InstanceId("i1"), 1, 1)


def sample_record(record_id: str, *, job_id: str | None = None, facts: JsonObject | None = None) -> Record:
    """Return an audit record."""
    owner = None if job_id is None else JobId(job_id)
    return Record(record_id, LOCAL_TENANT, 5, "job.submitted", "local", owner, facts or {"a": [1, None]})


def sample_replay(key: str, *, job_id: str = "j", created_us: int = 5) -> Replay:
    """Return an idempotency key that was used."""
    return Replay(LOCAL_TENANT, key, DIGEST, JobId(job_id), created_us)


def sample_worker(worker_id: str, *, seen_us: int = 2) -> KnownWorker:
    """Return a worker with one capability."""
    capability = Capability(
        name="python.run.core",
        version="1.0.0",
        summary="Runs Python.",
        effects=Effects.EXTERNAL,
        accelerator=Accelerator.CPU,
        gpu_model=None,
        env_profile="python-core",
        profile_digest=DIGEST,
        input_schema={"type": "object"},
        output_schema={},
        error_codes=("bad_input",),
        required_capabilities=(),
        timeout_sec=60.0,
    )
    return KnownWorker(WorkerId(worker_id), InstanceId("i"), "node", 4, (capability,), 1, seen_us)


def sample_credential(
    name: str, *, tenant: TenantId = LOCAL_TENANT, kind: CredentialKind = CredentialKind.API
) -> Credential:
    """Return a credential that was just minted and may name two mounts."""
    mounts = (MountId("m-1"), MountId("m-2"))
    return Credential(CredentialId(f"k-{name}"), tenant, name, kind, f"key:{name}/k-{name}", 3, mounts, 99)


def sample_mount(mount_id: str, *, tenant: TenantId = LOCAL_TENANT, name: str | None = "docs") -> Mount:
    """Return a mount."""
    return Mount(MountId(mount_id), tenant, "node", name, "/srv/docs", 7)


def sample_event(seq: int, text: str = "x") -> JobEvent:
    """Return one line of stdout."""
    return JobEvent(epoch=1, seq=seq, kind="stdout", text=text, offset_bytes=seq, fraction=None, at_ms=seq * 10)


def sample_grant(name: str, *, parent: str | None = None, tenant: TenantId = LOCAL_TENANT) -> Grant:
    """Return a grant in which every field but the revocation holds something."""
    return Grant(
        grant_id=GrantId(name),
        tenant=tenant,
        credential_id=CredentialId("k-mine"),
        subject="key:mine/k-mine",
        rights=(
            Right("document.convert", "1.2.0", ({"required": ["ü"]},), ("docs",), 3, 500),
            Right("python.*"),
        ),
        issued_us=10,
        expires_us=100,
        actors=("spiffe://example.org/agent/a", "b"),
        holder_jkt="A" * 43,
        parent=None if parent is None else GrantId(parent),
        depth_left=2,
        space=CredentialId("g-1"),
    )
