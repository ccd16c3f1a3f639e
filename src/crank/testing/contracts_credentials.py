"""What every Store promises about credentials and what they own, as tests."""

from dataclasses import replace
from pathlib import Path

from crank.domain.credential import CredentialKind
from crank.domain.ids import LOCAL_TENANT, CredentialId, Digest, JobId, MountId, SessionId
from crank.domain.job import Status
from crank.errors import Conflict, NotFound
from crank.ports import Store, Transaction
from crank.testing.contracts_sessions import SessionStoreContract
from crank.testing.expect import faults
from crank.testing.samples import (
    DIGEST,
    OTHER_TENANT,
    sample_credential,
    sample_grant,
    sample_job,
    sample_session,
)

_SECRETS = tuple(Digest(digit * 64) for digit in "abcdef")
_MINE, _THEIRS = CredentialId("k-mine"), CredentialId("k-theirs")


class CredentialStoreContract(SessionStoreContract):
    """The promises of `ports.Store`, sessions and credentials included."""

    def test_a_credential_is_found_by_its_secret_and_reads_back_equal(self, tmp_path: Path) -> None:
        """One with every field and a bare one survive; an unknown secret and another tenant find nothing."""
        full = replace(sample_credential("full"), used_us=5, revoked_us=6, rights=sample_grant("g").rights)
        bare = replace(sample_credential("bare", kind=CredentialKind.OWNER), mounts=(), expires_us=None)

        def fill(tx: Transaction) -> None:
            tx.credentials.insert(full, _SECRETS[0])
            tx.credentials.insert(bare, _SECRETS[1])
            tx.credentials.insert(sample_credential("bare", tenant=OTHER_TENANT), _SECRETS[2])

        def check(tx: Transaction) -> None:
            assert tx.credentials.by_secret(_SECRETS[0]) == full
            assert tx.credentials.by_secret(_SECRETS[1]) == bare
            assert tx.credentials.by_secret(_SECRETS[3]) is None
            assert tx.credentials.find(LOCAL_TENANT, full.credential_id) == full
            assert tx.credentials.find(OTHER_TENANT, full.credential_id) is None
            assert tx.credentials.all(LOCAL_TENANT) == [full, bare]

        self.write(tmp_path, fill, check=check)

    def test_no_rights_at_all_are_never_read_back_as_all(self, tmp_path: Path) -> None:
        """A credential that may do nothing is not one that nothing bounds."""
        made = replace(sample_credential("a"), rights=())

        def check(tx: Transaction) -> None:
            for found in (tx.credentials.by_secret(_SECRETS[0]), *tx.credentials.all(LOCAL_TENANT)):
                assert found is not None
                assert found.rights == ()

        self.write(tmp_path, lambda tx: tx.credentials.insert(made, _SECRETS[0]), check=check)

    def test_names_and_secrets_are_taken_once(self, tmp_path: Path) -> None:
        """A living name, any secret and any id are refused a second time; a revoked name is free again."""
        first = sample_credential("a")

        async def test(store: Store) -> None:
            await store.transact(lambda tx: tx.credentials.insert(first, _SECRETS[0]))
            again = replace(first, credential_id=CredentialId("k-again"))
            with faults(Conflict, "key_name_taken"):
                await store.transact(lambda tx: tx.credentials.insert(again, _SECRETS[1]))
            with faults(Conflict, "key_taken"):
                await store.transact(lambda tx: tx.credentials.insert(sample_credential("b"), _SECRETS[0]))
            with faults(Conflict, "key_taken"):
                await store.transact(lambda tx: tx.credentials.insert(replace(first, name="c"), _SECRETS[2]))
            await store.transact(lambda tx: tx.credentials.update(replace(first, revoked_us=9)))
            await store.transact(lambda tx: tx.credentials.insert(again, _SECRETS[1]))
            assert await store.read(lambda tx: tx.credentials.by_secret(_SECRETS[1])) == again

        self.run(tmp_path, test)

    def test_an_update_changes_what_may_change_and_a_revocation_stays(self, tmp_path: Path) -> None:
        """Mounts, expiry and use are replaced; name, kind and rights are not; nothing takes a revocation back."""
        made = replace(sample_credential("a"), rights=sample_grant("g").rights)
        wanted = replace(made, name="evil", kind=CredentialKind.OWNER, mounts=(MountId("m-3"),), expires_us=7, used_us=8)
        wanted = replace(wanted, rights=None)

        async def test(store: Store) -> None:
            with faults(NotFound, "key_not_found"):
                await store.transact(lambda tx: tx.credentials.update(made))
            await store.transact(lambda tx: tx.credentials.insert(made, _SECRETS[0]))
            await store.transact(lambda tx: tx.credentials.update(replace(wanted, revoked_us=9)))
            await store.transact(lambda tx: tx.credentials.update(wanted))
            kept = await store.read(lambda tx: tx.credentials.find(LOCAL_TENANT, made.credential_id))
            assert kept == replace(made, mounts=(MountId("m-3"),), expires_us=7, used_us=8, revoked_us=9)

        self.run(tmp_path, test)

    def test_a_mount_is_taken_from_every_credential(self, tmp_path: Path) -> None:
        """Forgetting a mount leaves the others, and another tenant's credential as it was."""

        def fill(tx: Transaction) -> None:
            tx.credentials.insert(sample_credential("a"), _SECRETS[0])
            tx.credentials.insert(sample_credential("a", tenant=OTHER_TENANT), _SECRETS[1])
            tx.credentials.forget_mount(LOCAL_TENANT, MountId("m-1"))

        def check(tx: Transaction) -> None:
            assert [one.mounts for one in tx.credentials.all(LOCAL_TENANT)] == [(MountId("m-2"),)]
            assert tx.credentials.all(OTHER_TENANT) == [sample_credential("a", tenant=OTHER_TENANT)]

        self.write(tmp_path, fill, check=check)

    def test_blobs_are_held_by_who_brought_them_or_whose_jobs_use_them(self, tmp_path: Path) -> None:
        """An upload and a job's reference both count, for that credential alone; a release ends the first."""
        used = Digest("1" * 64)

        def fill(tx: Transaction) -> None:
            for _ in range(2):
                tx.credentials.hold(_MINE, DIGEST, 1)
            tx.jobs.insert(replace(sample_job("j"), owner=_MINE))
            tx.registry.refer(LOCAL_TENANT, JobId("j"), [used])

        async def test(store: Store) -> None:
            await store.transact(fill)
            held = await store.read(lambda tx: [tx.credentials.holds(_MINE, one) for one in (DIGEST, used)])
            assert held == [True, True]
            assert not await store.read(lambda tx: tx.credentials.holds(_THEIRS, DIGEST))
            assert not await store.read(lambda tx: tx.credentials.holds(_THEIRS, used))
            await store.transact(lambda tx: tx.credentials.release([DIGEST, used]))
            held = await store.read(lambda tx: [tx.credentials.holds(_MINE, one) for one in (DIGEST, used)])
            assert held == [False, True]

        self.run(tmp_path, test)

    def test_pages_can_be_of_one_owner(self, tmp_path: Path) -> None:
        """Jobs and sessions of one credential are paged without the others', with a cursor and a status too."""

        def fill(tx: Transaction) -> None:
            for number in range(6):
                owner = (_MINE, _THEIRS, None)[number % 3]
                tx.jobs.insert(replace(sample_job(f"j{number}"), owner=owner))
                tx.sessions.insert(replace(sample_session(f"s{number}"), owner=owner))

        def check(tx: Transaction) -> None:
            page = tx.jobs.page
            mine = page(LOCAL_TENANT, limit=9, before=None, status=None, owner=_MINE)
            assert [job.job_id for job in mine] == ["j3", "j0"]
            assert [job.job_id for job in page(LOCAL_TENANT, limit=9, before="j3", status=None, owner=_MINE)] == ["j0"]
            assert not page(LOCAL_TENANT, limit=9, before=None, status=Status.RUNNING, owner=_MINE)
            assert len(page(LOCAL_TENANT, limit=9, before=None, status=None)) == 6
            sessions = tx.sessions.page(LOCAL_TENANT, limit=9, before=None, owner=_THEIRS)
            assert [one.session_id for one in sessions] == ["s4", "s1"]
            after = tx.sessions.page(LOCAL_TENANT, limit=9, before="s4", owner=_THEIRS)
            assert [one.session_id for one in after] == ["s1"]

        self.write(tmp_path, fill, check=check)

    def test_an_owner_never_changes(self, tmp_path: Path) -> None:
        """An update of a job or a session cannot hand it to another credential."""
        job, session = replace(sample_job("j"), owner=_MINE), replace(sample_session("s"), owner=_MINE)

        def fill(tx: Transaction) -> None:
            tx.jobs.insert(job)
            tx.sessions.insert(session)
            tx.jobs.update(replace(job, owner=_THEIRS))
            tx.sessions.update(replace(session, owner=None))

        def check(tx: Transaction) -> None:
            assert tx.jobs.find(LOCAL_TENANT, JobId("j")) == job
            assert tx.sessions.find(LOCAL_TENANT, SessionId("s")) == session

        self.write(tmp_path, fill, check=check)
