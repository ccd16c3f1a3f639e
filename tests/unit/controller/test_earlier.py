"""What an earlier job kept is given to a later one of the same credential, and to nobody else."""

import hashlib
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crank.controller.desk import Desk
from crank.controller.earlier import KEPT
from crank.controller.submit import Submission, submit
from crank.domain.capability import Effects
from crank.domain.credential import Credential, CredentialKind
from crank.domain.ids import LOCAL_TENANT, CredentialId, Digest, TenantId
from crank.domain.outcome import Artifact, End, Outcome, Reason
from crank.errors import InvalidRequest
from crank.testing.samples import sample_worker
from tests.support.desk import ScriptedWorker, open_desk

BYTES = b"what was kept"
SHIPPED = replace(
    sample_worker("w").capabilities[0],
    name="folder.process",
    env_profile=None,
    profile_digest=None,
    effects=Effects.IDEMPOTENT,
    takes_files=True,
    input_schema={"type": "object", "properties": {"previous": {"type": "string"}, "to": {"type": "string"}}},
)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """Give a desk."""
    async with open_desk(tmp_path) as opened:
        yield opened


async def _ask(
    desk: Desk, subject: str, tenant: TenantId = LOCAL_TENANT, capability: str = "folder.process", **args: Any
) -> Any:
    fields = {"capability": capability, "args": args, "files": [{"path": "a.md", "text": "a"}]}
    return (await submit(desk, tenant=tenant, subject=subject, submission=Submission(fields))).job


def _kept(desk: Desk) -> Outcome:
    digest, size = desk.blobs.put(io.BytesIO(BYTES), expected=None, bytes_max=1000)
    artifact = Artifact(KEPT, size, digest, "application/x-tar")
    return Outcome(End(Reason.EXITED, exit_code=0), artifacts=(artifact,))


async def _one_done(desk: Desk, subject: str, capabilities: list[Any] | None = None) -> str:
    worker = ScriptedWorker(desk, "w1", capabilities or [SHIPPED], slots=8)
    await worker.connect()
    job = await _ask(desk, subject)
    await worker.finish(await worker.lease(), _kept(desk))
    return str(job.job_id)


async def test_the_same_credential_is_given_what_its_last_job_kept(desk: Desk) -> None:
    """By itself, by id, and not where it asks for none; its own files stay beside it."""
    job_id = await _one_done(desk, "ana")
    cases: list[tuple[dict[str, Any], bool]] = [
        ({}, True),
        ({"previous": "latest"}, True),
        ({"previous": job_id}, True),
        ({"previous": "none"}, False),
    ]
    for args, given in cases:
        job = await _ask(desk, "ana", **args)
        found = {file.path: file.sha256 for file in job.request.files}
        assert "a.md" in found
        assert found.get(KEPT) == (Digest(hashlib.sha256(BYTES).hexdigest()) if given else None)


async def test_another_credential_is_given_nothing(desk: Desk) -> None:
    """Neither the latest nor one by its id: it is as if it were not there."""
    job_id = await _one_done(desk, "ana")
    job = await _ask(desk, "bob")
    assert [file.path for file in job.request.files] == ["a.md"]
    with pytest.raises(InvalidRequest) as caught:
        await _ask(desk, "bob", previous=job_id)
    assert caught.value.error_code == "previous_not_found"


async def test_another_tenant_is_given_nothing(desk: Desk) -> None:
    """A job's id of another tenant is no job at all."""
    job_id = await _one_done(desk, "ana")
    other = Credential(CredentialId("k2"), TenantId("other"), "other", CredentialKind.OWNER, "other", 1)
    await desk.store.transact(lambda tx: tx.credentials.insert(other, Digest("0" * 64)))
    job = await _ask(desk, "ana", TenantId("other"))
    assert [file.path for file in job.request.files] == ["a.md"]
    with pytest.raises(InvalidRequest):
        await _ask(desk, "ana", TenantId("other"), previous=job_id)


async def test_a_job_of_another_capability_is_nothing_to_build_on(desk: Desk) -> None:
    """A script that leaves a file of the same name forges nothing."""
    other = replace(SHIPPED, name="folder.other")
    worker = ScriptedWorker(desk, "w1", [SHIPPED, other], slots=8)
    await worker.connect()
    forged = await _ask(desk, "ana", capability="folder.other")
    await worker.finish(await worker.lease(), _kept(desk))
    job = await _ask(desk, "ana")
    assert [file.path for file in job.request.files] == ["a.md"]
    with pytest.raises(InvalidRequest):
        await _ask(desk, "ana", previous=str(forged.job_id))


async def test_a_job_that_runs_still_is_nothing_to_build_on(desk: Desk) -> None:
    """Only what has ended is taken."""
    worker = ScriptedWorker(desk, "w1", [SHIPPED], slots=8)
    await worker.connect()
    running = await _ask(desk, "ana")
    with pytest.raises(InvalidRequest):
        await _ask(desk, "ana", previous=str(running.job_id))


async def test_a_capability_without_files_refuses_them_and_one_with_them_refuses_code(desk: Desk) -> None:
    """What a capability takes is checked before anything is kept."""
    plain = replace(SHIPPED, name="text.count", takes_files=False)
    worker = ScriptedWorker(desk, "w1", [SHIPPED, plain], slots=8)
    await worker.connect()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"capability": "text.count", "args": {}, "files": [{"path": "a", "text": "a"}]}, "invalid_field"),
        ({"capability": "folder.process", "code": "pass"}, "invalid_field"),
        ({"capability": "folder.process", "args": {"to": 1}}, "invalid_args"),
        ({"capability": "folder.process", "files": [{"path": ".Crank/kept.tar", "text": "a"}]}, "invalid_path"),
    ]
    for fields, code in cases:
        with pytest.raises(InvalidRequest) as caught:
            await submit(desk, tenant=LOCAL_TENANT, subject="ana", submission=Submission(fields))
        assert caught.value.error_code == code, fields
