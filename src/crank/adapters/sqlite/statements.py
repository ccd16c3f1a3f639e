"""Every statement that the store runs, by name: the one place to read when another database comes."""

_JOB_COLUMNS = """
    tenant, job_id, status, epoch, attempts, hold, submitted_us, started_us, ended_us, worker_id,
    instance_id, cancel_requested, request_digest, request, "end", outcome, outcome_blob, owner,
    caller_id, caller_epoch, call_number, call_handle, call_depth, call_root"""

# --- jobs; `seq` is the order in which they were accepted ---------------------------------------

JOB_INSERT = """
INSERT INTO job (
    tenant, job_id, status, epoch, attempts, effects, hold, traceparent, route, capability,
    submitted_us, started_us, ended_us, worker_id, instance_id, cancel_requested,
    request_digest, request, "end", outcome, outcome_blob, session_id, owner,
    caller_id, caller_epoch, call_number, call_handle, call_depth, call_root
) VALUES (
    :tenant, :job_id, :status, :epoch, :attempts, :effects, :hold, :traceparent, :route, :capability,
    :submitted_us, :started_us, :ended_us, :worker_id, :instance_id, :cancel_requested,
    :request_digest, :request, :end, :outcome, :outcome_blob, :session_id, :owner,
    :caller_id, :caller_epoch, :call_number, :call_handle, :call_depth, :call_root
)"""

# The request, its digest and the moment it came are never written twice.
JOB_UPDATE = """
UPDATE job SET
    status = :status, epoch = :epoch, attempts = :attempts, hold = :hold,
    started_us = :started_us, ended_us = :ended_us, worker_id = :worker_id, instance_id = :instance_id,
    cancel_requested = :cancel_requested, "end" = :end, outcome = :outcome, outcome_blob = :outcome_blob
WHERE tenant = :tenant AND job_id = :job_id"""

JOB_FIND = f"SELECT {_JOB_COLUMNS} FROM job WHERE tenant = ? AND job_id = ?"

JOB_STATUS = "SELECT status FROM job WHERE tenant = ? AND job_id = ?"

# Of one session only the job whose turn it is, so that many that wait for it never hide others.
JOBS_QUEUED = f"""
SELECT {_JOB_COLUMNS} FROM job WHERE status = 'queued' AND (session_id IS NULL OR NOT EXISTS (
    SELECT 1 FROM job AS earlier WHERE earlier.session_id = job.session_id
    AND earlier.status IN ('queued', 'leased', 'running') AND earlier.seq < job.seq
)) ORDER BY seq LIMIT ?"""

JOBS_OF_SESSION = f"""
SELECT {_JOB_COLUMNS} FROM job WHERE session_id = ? AND status IN ('queued', 'leased', 'running') ORDER BY seq"""

JOBS_HELD = f"SELECT {_JOB_COLUMNS} FROM job WHERE status IN ('leased', 'running') ORDER BY seq"

# A cursor names the last job seen; one that is gone leaves nothing older, because the oldest go first.
# Each choice has a statement of its own, so that each has its index: (of one credential, of one status, after a cursor).
JOBS_PAGE = {
    (owned, status, before): f"SELECT {_JOB_COLUMNS} FROM job WHERE tenant = :tenant"
    + (" AND owner = :owner" if owned else "")
    + (" AND status = :status" if status else "")
    + (" AND seq < (SELECT seq FROM job WHERE tenant = :tenant AND job_id = :before)" if before else "")
    + " ORDER BY seq DESC LIMIT :limit"
    for owned in (False, True)
    for status in (False, True)
    for before in (False, True)
}

JOBS_COUNT = "SELECT count(*) FROM job WHERE status = ?"

JOBS_ENDED_BEFORE = f"""
SELECT {_JOB_COLUMNS} FROM job WHERE ended_us IS NOT NULL AND ended_us < ? AND (call_root IS NULL OR NOT EXISTS (
    SELECT 1 FROM job AS root WHERE root.tenant = job.tenant AND root.job_id = job.call_root AND root.ended_us IS NULL
)) ORDER BY ended_us, seq LIMIT ?"""

_CALL_COLUMNS = """
    job_id, caller_id, caller_epoch, call_number, call_handle, call_depth, call_root, ended_us"""

CALL_FIND = """
SELECT job_id FROM job WHERE tenant = ? AND caller_id = ? AND caller_epoch = ? AND call_number = ?"""

CALLS_OF_TREE = f"SELECT {_CALL_COLUMNS} FROM job WHERE tenant = ? AND call_root = ? ORDER BY seq"

JOBS_CALLED_OPEN = f"""
SELECT {_JOB_COLUMNS} FROM job WHERE caller_id IS NOT NULL AND ended_us IS NULL ORDER BY seq"""

JOB_DELETE = "DELETE FROM job WHERE tenant = ? AND job_id = ?"

JOBS_ALL = f"SELECT {_JOB_COLUMNS} FROM job ORDER BY seq"

# --- sessions -----------------------------------------------------------------------------------

_SESSION_COLUMNS = """
    tenant, session_id, state, worker_id, instance_id, created_us, used_us, opened_us, ended_us, tier, request, "end",
    owner
"""

SESSION_INSERT = f"""
INSERT INTO session ({_SESSION_COLUMNS}) VALUES (
    :tenant, :session_id, :state, :worker_id, :instance_id, :created_us, :used_us, :opened_us, :ended_us, :tier,
    :request, :end, :owner
)"""

SESSION_UPDATE = """
UPDATE session SET
    state = :state, worker_id = :worker_id, instance_id = :instance_id, used_us = :used_us, opened_us = :opened_us,
    ended_us = :ended_us, tier = :tier, request = :request, "end" = :end
WHERE tenant = :tenant AND session_id = :session_id"""

SESSION_FIND = f"SELECT {_SESSION_COLUMNS} FROM session WHERE tenant = ? AND session_id = ?"

SESSIONS_LIVE = f"SELECT {_SESSION_COLUMNS} FROM session WHERE ended_us IS NULL ORDER BY seq"

SESSIONS_PAGE = {
    (owned, before): f"SELECT {_SESSION_COLUMNS} FROM session WHERE tenant = :tenant"
    + (" AND owner = :owner" if owned else "")
    + (" AND seq < (SELECT seq FROM session WHERE tenant = :tenant AND session_id = :before)" if before else "")
    + " ORDER BY seq DESC LIMIT :limit"
    for owned in (False, True)
    for before in (False, True)
}

SESSIONS_ENDED_BEFORE = f"""
SELECT {_SESSION_COLUMNS} FROM session WHERE ended_us IS NOT NULL AND ended_us < ? ORDER BY ended_us, seq LIMIT ?"""

SESSION_DELETE = "DELETE FROM session WHERE tenant = ? AND session_id = ?"

# --- replays ------------------------------------------------------------------------------------

REPLAY_FIND = "SELECT tenant, key, request_digest, job_id, created_us FROM replay WHERE tenant = ? AND key = ?"

REPLAY_PUT = """
INSERT INTO replay (tenant, key, request_digest, job_id, created_us) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (tenant, key) DO UPDATE SET
    request_digest = excluded.request_digest, job_id = excluded.job_id, created_us = excluded.created_us"""

REPLAY_PURGE = "DELETE FROM replay WHERE created_us < ?"

# --- records; nothing changes or deletes one, and triggers see to it ------------------------------

RECORD_APPEND = """
INSERT INTO record (record_id, tenant, at_us, kind, subject, job_id, facts) VALUES (?, ?, ?, ?, ?, ?, ?)"""

_RECORD_COLUMNS = "position, record_id, tenant, at_us, kind, subject, job_id, facts"

RECORDS_AFTER = f"SELECT {_RECORD_COLUMNS} FROM record WHERE position > ? ORDER BY position LIMIT ?"

RECORDS_OF_JOB = f"""
SELECT {_RECORD_COLUMNS} FROM record WHERE job_id = ? AND position > ? ORDER BY position LIMIT ?"""

RECORDS_ALL = f"SELECT {_RECORD_COLUMNS} FROM record ORDER BY position"

# --- registry -----------------------------------------------------------------------------------

MOUNT_PUT = """
INSERT INTO mount (tenant, mount_id, node_id, name, host_path, created_us) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, mount_id) DO UPDATE SET
    node_id = excluded.node_id, name = excluded.name, host_path = excluded.host_path,
    created_us = excluded.created_us"""

MOUNTS_OF = """
SELECT tenant, mount_id, node_id, name, host_path, created_us FROM mount WHERE tenant = ? ORDER BY mount_id"""

MOUNT_REMOVE = "DELETE FROM mount WHERE tenant = ? AND mount_id = ?"

WORKER_PUT = """
INSERT INTO worker (worker_id, instance_id, node_id, slots, capabilities, enrolled_us, seen_us, attestation, signed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (worker_id) DO UPDATE SET
    instance_id = excluded.instance_id, node_id = excluded.node_id, slots = excluded.slots,
    capabilities = excluded.capabilities, enrolled_us = excluded.enrolled_us, seen_us = excluded.seen_us,
    attestation = excluded.attestation,
    signed = CASE WHEN excluded.signed = 1 THEN 1 ELSE worker.signed END"""

WORKERS = """
SELECT worker_id, instance_id, node_id, slots, capabilities, enrolled_us, seen_us, attestation, signed
FROM worker ORDER BY worker_id"""

WORKER_SIGNED = "SELECT 1 FROM worker WHERE worker_id = ? AND signed = 1"

BLOB_REFER = "INSERT INTO blob_ref (tenant, job_id, digest) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"

BLOB_REFERRED = "SELECT 1 FROM blob_ref WHERE digest = ? LIMIT 1"

BLOB_OF_JOB = "SELECT 1 FROM blob_ref WHERE tenant = ? AND job_id = ? AND digest = ?"

BLOB_FORGET = "DELETE FROM blob_ref WHERE tenant = ? AND job_id = ?"

# --- credentials --------------------------------------------------------------------------------

TENANT_PUT = "INSERT INTO tenant (tenant, created_us) VALUES (?, ?) ON CONFLICT DO NOTHING"

_CREDENTIAL_COLUMNS = "tenant, credential_id, name, kind, subject, created_us, expires_us, used_us, revoked_us, rights"

CREDENTIAL_INSERT = f"""
INSERT INTO credential ({_CREDENTIAL_COLUMNS}, secret_sha256) VALUES (
    :tenant, :credential_id, :name, :kind, :subject, :created_us, :expires_us, :used_us, :revoked_us, :rights,
    :secret_sha256
)"""

CREDENTIAL_NAMED = "SELECT 1 FROM credential WHERE tenant = ? AND name = ? AND revoked_us IS NULL"

CREDENTIAL_BY_SECRET = f"SELECT {_CREDENTIAL_COLUMNS} FROM credential WHERE secret_sha256 = ?"

CREDENTIAL_FIND = f"SELECT {_CREDENTIAL_COLUMNS} FROM credential WHERE tenant = ? AND credential_id = ?"

CREDENTIALS_ALL = f"SELECT {_CREDENTIAL_COLUMNS} FROM credential WHERE tenant = ? ORDER BY seq"

CREDENTIAL_UPDATE = """
UPDATE credential SET
    expires_us = :expires_us, used_us = :used_us, revoked_us = coalesce(revoked_us, :revoked_us)
WHERE tenant = :tenant AND credential_id = :credential_id"""

CREDENTIAL_MOUNTS = """
SELECT mount_id FROM credential_mount WHERE tenant = ? AND credential_id = ? ORDER BY mount_id"""

CREDENTIAL_MOUNTS_CLEAR = "DELETE FROM credential_mount WHERE tenant = ? AND credential_id = ?"

CREDENTIAL_MOUNT_PUT = "INSERT INTO credential_mount (tenant, credential_id, mount_id) VALUES (?, ?, ?)"

CREDENTIAL_MOUNT_FORGET = "DELETE FROM credential_mount WHERE tenant = ? AND mount_id = ?"

CREDENTIAL_BLOB_HOLD = """
INSERT INTO credential_blob (credential_id, digest, stored_us) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"""

CREDENTIAL_BLOB_HOLDS = """
SELECT 1 FROM credential_blob WHERE credential_id = :owner AND digest = :digest
UNION ALL
SELECT 1 FROM blob_ref JOIN job ON job.tenant = blob_ref.tenant AND job.job_id = blob_ref.job_id
WHERE blob_ref.digest = :digest AND job.owner = :owner
LIMIT 1"""

CREDENTIAL_BLOB_RELEASE = "DELETE FROM credential_blob WHERE digest = ?"

# --- enrolments ---------------------------------------------------------------------------------

_ENROLMENT_COLUMNS = """
    node_id, name, worker_id, capabilities, created_us, expires_us, thumbprint, pins, attestation, keys, joined_us,
    machine, forgotten_us
"""

ENROLMENT_INSERT = f"""
INSERT INTO enrolment ({_ENROLMENT_COLUMNS}, token_sha256) VALUES (
    :node_id, :name, :worker_id, :capabilities, :created_us, :expires_us, :thumbprint, :pins, :attestation, :keys,
    :joined_us, :machine, :forgotten_us, :token_sha256
)"""

ENROLMENT_NAMED = "SELECT 1 FROM enrolment WHERE name = ? AND forgotten_us IS NULL"

ENROLMENT_BY_TOKEN = f"SELECT {_ENROLMENT_COLUMNS} FROM enrolment WHERE token_sha256 = ?"

ENROLMENT_BY_THUMBPRINT = f"""
SELECT {_ENROLMENT_COLUMNS} FROM enrolment WHERE thumbprint = ? AND forgotten_us IS NULL"""

ENROLMENT_OF_WORKER = f"SELECT {_ENROLMENT_COLUMNS} FROM enrolment WHERE worker_id = ?"

ENROLMENTS_ALL = f"SELECT {_ENROLMENT_COLUMNS} FROM enrolment ORDER BY seq"

ENROLMENT_UPDATE = """
UPDATE enrolment SET
    expires_us = :expires_us, thumbprint = :thumbprint, pins = :pins, attestation = :attestation, keys = :keys,
    joined_us = :joined_us, machine = :machine, forgotten_us = coalesce(forgotten_us, :forgotten_us)
WHERE node_id = :node_id"""

# --- identities ---------------------------------------------------------------------------------

_IDENTITY_COLUMNS = """
    serial, spiffe_id, kind, instance_id, attestation, node, issued_us, not_after_us, revoked_us, reason,
    workload"""

IDENTITY_INSERT = f"""
INSERT INTO identity ({_IDENTITY_COLUMNS}) VALUES (
    :serial, :spiffe_id, :kind, :instance_id, :attestation, :node, :issued_us, :not_after_us, :revoked_us, :reason,
    :workload
)"""

IDENTITY_FIND = f"SELECT {_IDENTITY_COLUMNS} FROM identity WHERE serial = ?"

IDENTITIES_OF = f"SELECT {_IDENTITY_COLUMNS} FROM identity WHERE spiffe_id = ? AND not_after_us > ? ORDER BY seq"

IDENTITIES_OF_WORKLOAD = f"""
SELECT {_IDENTITY_COLUMNS} FROM identity WHERE workload = ? AND not_after_us > ? ORDER BY seq"""

IDENTITIES_PAGE = f"SELECT {_IDENTITY_COLUMNS} FROM identity WHERE not_after_us > ? ORDER BY seq DESC LIMIT ?"

IDENTITY_REVOKE = """
UPDATE identity SET reason = coalesce(reason, :reason), revoked_us = coalesce(revoked_us, :at_us)
WHERE serial = :serial"""

IDENTITIES_REVOKED = f"""
SELECT {_IDENTITY_COLUMNS} FROM identity WHERE revoked_us IS NOT NULL AND not_after_us > ? ORDER BY seq"""

IDENTITIES_PURGE = "DELETE FROM identity WHERE not_after_us < ?"

BAN_PUT = "INSERT INTO identity_ban (spiffe_id, since_us, reason) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"

BAN_LIFT = "DELETE FROM identity_ban WHERE spiffe_id = ?"

BAN_FIND = "SELECT 1 FROM identity_ban WHERE spiffe_id = ?"

BANS = "SELECT spiffe_id, since_us, reason FROM identity_ban ORDER BY spiffe_id"

REVOCATION_LIST_NEXT = """
INSERT INTO revocation_list (only, number) VALUES (1, 1)
ON CONFLICT (only) DO UPDATE SET number = number + 1 RETURNING number"""
# --- workloads ----------------------------------------------------------------------------------

WORKLOAD_INSERT = """
INSERT INTO workload (tenant, entry_id, spiffe_id, selectors, hint, entry) VALUES (?, ?, ?, ?, ?, ?)"""

WORKLOAD_HINTED = "SELECT 1 FROM workload WHERE tenant = ? AND hint = ?"

WORKLOADS_ALL = "SELECT entry FROM workload ORDER BY seq"

WORKLOADS_OF = "SELECT entry FROM workload WHERE tenant = ? ORDER BY seq"

WORKLOAD_FIND = "SELECT entry FROM workload WHERE tenant = ? AND entry_id = ?"

WORKLOAD_REMOVE = "DELETE FROM workload WHERE tenant = ? AND entry_id = ?"
