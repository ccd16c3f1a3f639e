"""The SQLite store: opening, refusing, grouping commits, full disk, backup, export."""

import asyncio
import io
import json
import os
import sqlite3
import stat
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from crank.adapters.failpoints import NoFailpoints
from crank.adapters.sqlite import SqliteStore
from crank.adapters.sqlite.schema import APPLICATION_ID, MIGRATIONS
from crank.domain.ids import LOCAL_TENANT, Digest, JobId
from crank.domain.job import Job, Status
from crank.domain.job_codec import job_request_document
from crank.domain.json import dumps
from crank.errors import Conflict, CrankError, InvalidRequest, StoreError, Unavailable
from crank.ports import Failpoints, Transaction
from crank.testing.fakes import FakeFailpoints
from crank.testing.samples import sample_full_job, sample_job, sample_record, sample_session


def _store(folder: Path, *, failpoints: Failpoints | None = None, bytes_max: int | None = None) -> SqliteStore:
    return SqliteStore(folder / "crank.db", failpoints=failpoints or NoFailpoints(), bytes_max=bytes_max)


def _run(store: SqliteStore, test: Callable[[SqliteStore], Awaitable[None]]) -> None:
    async def whole() -> None:
        await store.start()
        try:
            await test(store)
        finally:
            await store.stop()

    asyncio.run(whole())


def _insert(job_id: str) -> Callable[[Transaction], None]:
    return lambda tx: tx.jobs.insert(sample_job(job_id))


def _put(job: Job, tx: Transaction) -> None:
    tx.jobs.insert(job)


def _filled(folder: Path, *, jobs: int = 200) -> Path:
    async def fill(store: SqliteStore) -> None:
        await asyncio.gather(*(store.transact(_insert(f"j{number}")) for number in range(jobs)))

    _run(_store(folder), fill)
    return folder / "crank.db"


def _refusal(folder: Path) -> CrankError:
    async def start() -> None:
        await _store(folder).start()

    with pytest.raises(StoreError) as caught:
        asyncio.run(start())
    return caught.value


def test_only_the_owner_may_read_the_database(tmp_path: Path) -> None:
    """The file and its log have mode 0600 while the store is open, whatever the umask says."""

    async def test(store: SqliteStore) -> None:
        await store.transact(_insert("a"))
        for path in tmp_path.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name

    before = os.umask(0)
    try:
        _run(_store(tmp_path), test)
    finally:
        os.umask(before)


def test_the_settings_that_durability_rests_on(tmp_path: Path) -> None:
    """The journal is a write-ahead log, the tables are strict, the application id is Crank's."""
    path = _filled(tmp_path, jobs=1)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA application_id").fetchone() == (0x43726E6B,)
    tables = connection.execute("PRAGMA table_list").fetchall()
    assert all(strict for _, name, kind, _, _, strict in tables if kind == "table" and not name.startswith("sqlite_"))
    connection.close()


def test_records_cannot_be_changed_even_with_sql(tmp_path: Path) -> None:
    """The database itself refuses to update or delete a record."""

    async def test(store: SqliteStore) -> None:
        await store.transact(lambda tx: tx.records.append(sample_record("r1")))

    _run(_store(tmp_path), test)
    connection = sqlite3.connect(tmp_path / "crank.db")
    for statement in ("UPDATE record SET kind = 'x'", "DELETE FROM record"):
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            connection.execute(statement)
    connection.close()


def test_a_hundred_works_share_commits(tmp_path: Path) -> None:
    """While the first commit is held up, a hundred others gather and need few commits more."""
    failpoints = FakeFailpoints()

    async def test(store: SqliteStore) -> None:
        failpoints.hold("store.before_commit")
        first = asyncio.ensure_future(store.transact(_insert("first")))
        await failpoints.reached("store.before_commit")
        others = [asyncio.ensure_future(store.transact(_insert(f"j{number}"))) for number in range(100)]
        await asyncio.sleep(0)
        assert not first.done()
        failpoints.release("store.before_commit")
        await asyncio.gather(first, *others)
        assert store.commits == 2
        assert await store.read(lambda tx: tx.jobs.count(Status.QUEUED)) == 101

    _run(_store(tmp_path, failpoints=failpoints), test)


def test_nobody_hears_of_a_commit_that_failed(tmp_path: Path) -> None:
    """When the commit itself fails, every work of the batch fails and none of it is stored; the next one works."""
    failpoints = FakeFailpoints()
    failpoints.raise_at("store.before_commit", sqlite3.OperationalError("disk I/O error"))

    async def test(store: SqliteStore) -> None:
        works = (store.transact(_insert(f"j{number}")) for number in range(3))
        answers = await asyncio.gather(*works, return_exceptions=True)
        failed = [answer for answer in answers if isinstance(answer, StoreError)]
        assert len(failed) >= 1
        assert await store.read(lambda tx: tx.jobs.count(Status.QUEUED)) == 3 - len(failed)
        await store.transact(_insert("after"))

    _run(_store(tmp_path, failpoints=failpoints), test)


def test_a_full_disk_is_said_and_passes(tmp_path: Path) -> None:
    """At the size limit a work gets `disk_full`, what was stored stays, and small work may go on."""

    async def test(store: SqliteStore) -> None:
        await store.transact(_insert("first"))
        with pytest.raises(Unavailable) as caught:
            for number in range(1_000):
                big = replace(sample_full_job(f"big{number}"), outcome="x" * 100_000)
                await store.transact(partial(_put, big))
        assert caught.value.error_code == "disk_full"
        assert await store.read(lambda tx: tx.jobs.find(LOCAL_TENANT, JobId("first"))) == sample_job("first")
        await store.transact(lambda tx: tx.jobs.update(sample_job("first", status=Status.LEASED)))

    _run(_store(tmp_path, bytes_max=2_000_000), test)


@pytest.mark.parametrize(
    "damage",
    [
        lambda octets: b"",
        lambda octets: octets[: len(octets) // 2],
        lambda octets: octets[:50],
        lambda octets: b"not a database at all" * 500,
        lambda octets: octets[:4096] + b"\xff" * 8192 + octets[12288:],
    ],
    ids=["empty", "half", "header", "text", "middle"],
)
def test_a_damaged_database_is_refused_and_left_alone(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Cause and fix are said, and not a byte of the file changes."""
    path = _filled(tmp_path)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    fault = _refusal(tmp_path)
    assert fault.error_code == "store_corrupt"
    assert "crank.db" in fault.message
    assert "backup" in fault.fix
    assert path.read_bytes() == damaged


def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A database of a later version is named as such, and not a byte of it changes."""
    path = _filled(tmp_path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    before = path.read_bytes()
    fault = _refusal(tmp_path)
    assert fault.error_code == "store_newer"
    assert "999" in fault.message
    assert "version" in fault.fix
    assert path.read_bytes() == before


def test_a_database_of_the_first_version_moves_forward(tmp_path: Path) -> None:
    """Jobs that version 1 stored are read as they were, and sessions can be stored beside them."""
    path = tmp_path / "crank.db"
    old = sample_job("old")
    request = {
        name: value
        for name, value in job_request_document(old.request).items()
        if name not in ("session_id", "context", "program", "stdin", "cpu_sec", "idle_sec", "no_output_sec")
    }
    connection = sqlite3.connect(path)
    connection.executescript(f"PRAGMA application_id = {APPLICATION_ID};{MIGRATIONS[0]}PRAGMA user_version = 1;")
    connection.execute(
        "INSERT INTO job (tenant, job_id, status, epoch, attempts, effects, hold, route, capability, submitted_us,"
        " cancel_requested, request_digest, request) VALUES ('local', 'old', 'queued', 0, 0, 'idempotent', 0, 'local',"
        " 'python.run.core', 1, 0, ?, ?)",
        (old.request_digest, dumps(request)),
    )
    connection.commit()
    connection.close()

    async def reopen() -> None:
        store = _store(tmp_path)
        await store.start()
        (job,) = await store.read(lambda tx: tx.jobs.queued(9))
        assert job == replace(old, request=replace(old.request, context=None, program=None, stdin=False))
        await store.transact(lambda tx: tx.sessions.insert(sample_session("s1")))
        await store.stop()

    asyncio.run(reopen())
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_a_credential_of_the_second_version_moves_forward(tmp_path: Path) -> None:
    """A secret that opened the node before the migration opens it after, as an owner's; the node then keeps one."""
    path = tmp_path / "crank.db"
    connection = sqlite3.connect(path)
    connection.executescript(
        f"PRAGMA application_id = {APPLICATION_ID};{MIGRATIONS[0]}{MIGRATIONS[1]}PRAGMA user_version = 2;"
    )
    rows = [(letter * 64, "local", number) for number, letter in enumerate("ab")]
    connection.executemany("INSERT INTO credential (secret_sha256, tenant, created_us) VALUES (?, ?, ?)", rows)
    connection.commit()
    connection.close()

    async def test(store: SqliteStore) -> None:
        found = await store.read(lambda tx: [tx.credentials.by_secret(Digest(letter * 64)) for letter in "abc"])
        assert [one and (one.name, one.kind, one.subject, one.created_us) for one in found] == [
            ("owner-aaaaaaaaaaaa", "owner", "local", 0),
            ("owner-bbbbbbbbbbbb", "owner", "local", 1),
            None,
        ]

    _run(_store(tmp_path), test)


def test_a_key_of_the_fourth_version_moves_forward(tmp_path: Path) -> None:
    """A key that was made before keys had rights is bounded by none after the migration, as it was before."""
    path = tmp_path / "crank.db"
    connection = sqlite3.connect(path)
    connection.executescript(
        f"PRAGMA application_id = {APPLICATION_ID};{''.join(MIGRATIONS[:4])}PRAGMA user_version = 4;"
    )
    connection.execute(
        "INSERT INTO credential (tenant, credential_id, name, kind, subject, secret_sha256, created_us)"
        " VALUES ('local', 'k-old', 'old', 'api', 'key:old/k-old', ?, 1)",
        ("a" * 64,),
    )
    connection.commit()
    connection.close()

    async def test(store: SqliteStore) -> None:
        (found,) = await store.read(lambda tx: tx.credentials.all(LOCAL_TENANT))
        assert (found.credential_id, found.rights) == ("k-old", None)

    _run(_store(tmp_path), test)


def test_a_worker_of_the_fifth_version_has_not_signed_yet(tmp_path: Path) -> None:
    """One that was known before this was kept is served unsigned until it signs."""
    path = tmp_path / "crank.db"
    connection = sqlite3.connect(path)
    connection.executescript(
        f"PRAGMA application_id = {APPLICATION_ID};{''.join(MIGRATIONS[:5])}PRAGMA user_version = 5;"
    )
    connection.execute(
        "INSERT INTO worker (worker_id, instance_id, node_id, slots, capabilities, enrolled_us, seen_us)"
        " VALUES ('w1', 'i', 'node', 1, '[]', 1, 1)"
    )
    connection.commit()
    connection.close()

    async def test(store: SqliteStore) -> None:
        (found,) = await store.read(lambda tx: tx.registry.workers())
        assert (found.worker_id, found.signed) == ("w1", False)

    _run(_store(tmp_path), test)


def test_the_database_of_another_program_is_refused(tmp_path: Path) -> None:
    """A sound SQLite file that is not Crank's is not taken over."""
    connection = sqlite3.connect(tmp_path / "crank.db")
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    assert _refusal(tmp_path).error_code == "store_corrupt"


def test_a_crash_while_the_database_was_made_is_repaired(tmp_path: Path) -> None:
    """A half-made database under its temporary name does not stop the next start."""
    (tmp_path / "crank.db.new").write_bytes(b"half")
    assert _filled(tmp_path, jobs=1).exists()
    assert not (tmp_path / "crank.db.new").exists()


def test_a_folder_that_is_missing_is_said(tmp_path: Path) -> None:
    """The store does not make folders; it says which one it cannot use."""
    assert _refusal(tmp_path / "nowhere").error_code == "store_unreadable"


def test_a_backup_is_a_whole_database(tmp_path: Path) -> None:
    """A backup of a running store is one file, 0600, opens as a store, and never overwrites."""
    copies = tmp_path / "copies"
    copies.mkdir()

    async def test(store: SqliteStore) -> None:
        await store.transact(_insert("a"))
        await store.backup(copies / "crank.db")
        with pytest.raises(Conflict):
            await store.backup(copies / "crank.db")
        with pytest.raises(StoreError):
            await store.backup(copies / "missing" / "crank.db")

    _run(_store(tmp_path), test)
    assert [path.name for path in copies.iterdir()] == ["crank.db"]
    assert stat.S_IMODE((copies / "crank.db").stat().st_mode) == 0o600

    async def check(store: SqliteStore) -> None:
        assert await store.read(lambda tx: tx.jobs.find(LOCAL_TENANT, JobId("a"))) == sample_job("a")

    _run(_store(copies), check)


def test_the_export_can_be_read_without_crank(tmp_path: Path) -> None:
    """Every job and record is one line of JSON that says what it is."""
    out = io.StringIO()

    async def test(store: SqliteStore) -> None:
        await store.transact(lambda tx: tx.jobs.insert(sample_full_job("a")))
        await store.transact(lambda tx: tx.records.append(sample_record("r1", job_id="a")))
        assert await store.export(out) == 2

    _run(_store(tmp_path), test)
    job, record = (json.loads(line) for line in out.getvalue().splitlines())
    assert (job["kind"], job["job_id"], job["status"]) == ("job", "a", "timed_out")
    assert (record["kind"], record["position"], record["record"]["record_id"]) == ("record", 1, "r1")


def test_a_cancelled_caller_harms_nobody(tmp_path: Path) -> None:
    """A caller that goes away while its commit is held up leaves the writer serving the others."""
    failpoints = FakeFailpoints()

    async def test(store: SqliteStore) -> None:
        failpoints.hold("store.before_commit")
        gone = asyncio.ensure_future(store.transact(_insert("gone")))
        await failpoints.reached("store.before_commit")
        gone.cancel()
        failpoints.release("store.before_commit")
        await store.transact(_insert("next"))
        assert gone.cancelled()

    _run(_store(tmp_path, failpoints=failpoints), test)


def test_stopping_finishes_what_was_begun(tmp_path: Path) -> None:
    """Works that were accepted before the stop are committed by it."""

    async def test() -> None:
        store = _store(tmp_path)
        await store.start()
        works = [asyncio.ensure_future(store.transact(_insert(f"j{number}"))) for number in range(50)]
        await asyncio.sleep(0)
        await store.stop()
        await asyncio.gather(*works)

    asyncio.run(test())

    async def check(store: SqliteStore) -> None:
        assert await store.read(lambda tx: tx.jobs.count(Status.QUEUED)) == 50

    _run(_store(tmp_path), check)


def test_text_that_is_not_unicode_is_refused_alone(tmp_path: Path) -> None:
    """Half a surrogate pair cannot be stored; the fault is its caller's, and the store goes on."""

    async def test(store: SqliteStore) -> None:
        with pytest.raises((ValueError, InvalidRequest)):
            await store.transact(lambda tx: tx.jobs.insert(sample_job("\ud800")))
        await store.transact(_insert("fine"))

    _run(_store(tmp_path), test)


def test_a_row_that_was_tampered_with_is_a_damaged_store(tmp_path: Path) -> None:
    """A sound file with a broken document in it is told as such when the document is read."""
    path = _filled(tmp_path, jobs=1)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE job SET request = '{'")
    connection.close()

    async def test(store: SqliteStore) -> None:
        with pytest.raises(StoreError) as caught:
            await store.read(lambda tx: tx.jobs.find(LOCAL_TENANT, JobId("j0")))
        assert caught.value.error_code == "store_corrupt"

    _run(_store(tmp_path), test)
