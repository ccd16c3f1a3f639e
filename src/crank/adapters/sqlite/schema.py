"""The tables, as steps forward. A step that was released is never changed; a new one is added after it."""

# "Crnk": lets `file` and Crank itself tell this database from any other.
APPLICATION_ID = 0x43726E6B

# Money and time are integers; JSON is text, so that it can be read without Crank.
_V1 = """
-- One row a tenant that has a credential.
CREATE TABLE tenant (
    tenant      TEXT PRIMARY KEY,
    created_us  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- `request` is the truth of what was asked; effects, route, capability and traceparent repeat it for queries.
CREATE TABLE job (
    seq              INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant           TEXT    NOT NULL,
    job_id           TEXT    NOT NULL,
    status           TEXT    NOT NULL,
    epoch            INTEGER NOT NULL,
    attempts         INTEGER NOT NULL,
    effects          TEXT    NOT NULL,
    hold             INTEGER NOT NULL,
    traceparent      TEXT,
    route            TEXT    NOT NULL,
    capability       TEXT    NOT NULL,
    submitted_us     INTEGER NOT NULL,
    started_us       INTEGER,
    ended_us         INTEGER,
    worker_id        TEXT,
    instance_id      TEXT,
    cancel_requested INTEGER NOT NULL CHECK (cancel_requested IN (0, 1)),
    request_digest   TEXT    NOT NULL,
    request          TEXT    NOT NULL,
    "end"            TEXT,
    outcome          TEXT,
    outcome_blob     TEXT,
    UNIQUE (tenant, job_id)
) STRICT;
-- The queue, the leases and their counts.
CREATE INDEX job_status ON job (status, seq);
-- Pages of one tenant, newest first.
CREATE INDEX job_page   ON job (tenant, status, seq);
CREATE INDEX job_newest ON job (tenant, seq);
-- Partial: retention asks for ended jobs alone.
CREATE INDEX job_ended  ON job (ended_us, seq) WHERE ended_us IS NOT NULL;

CREATE TABLE replay (
    tenant         TEXT    NOT NULL,
    key            TEXT    NOT NULL,
    request_digest TEXT    NOT NULL,
    job_id         TEXT    NOT NULL,
    created_us     INTEGER NOT NULL,
    PRIMARY KEY (tenant, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX replay_age ON replay (created_us);

-- The audit trail. AUTOINCREMENT: a position is never given twice.
CREATE TABLE record (
    position  INTEGER PRIMARY KEY AUTOINCREMENT,
    record_id TEXT    NOT NULL UNIQUE,
    tenant    TEXT    NOT NULL,
    at_us     INTEGER NOT NULL,
    kind      TEXT    NOT NULL,
    subject   TEXT    NOT NULL,
    job_id    TEXT,
    facts     TEXT    NOT NULL
) STRICT;
CREATE INDEX record_job ON record (job_id, position) WHERE job_id IS NOT NULL;
CREATE TRIGGER record_never_changes BEFORE UPDATE ON record
    BEGIN SELECT RAISE(ABORT, 'a record is never changed'); END;
CREATE TRIGGER record_never_goes BEFORE DELETE ON record
    BEGIN SELECT RAISE(ABORT, 'a record is never deleted'); END;

CREATE TABLE credential (
    secret_sha256 TEXT    PRIMARY KEY,
    tenant        TEXT    NOT NULL,
    created_us    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE mount (
    tenant     TEXT    NOT NULL,
    mount_id   TEXT    NOT NULL,
    node_id    TEXT    NOT NULL,
    name       TEXT,
    host_path  TEXT    NOT NULL,
    created_us INTEGER NOT NULL,
    PRIMARY KEY (tenant, mount_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE worker (
    worker_id    TEXT    PRIMARY KEY,
    instance_id  TEXT    NOT NULL,
    node_id      TEXT    NOT NULL,
    slots        INTEGER NOT NULL,
    capabilities TEXT    NOT NULL,
    enrolled_us  INTEGER NOT NULL,
    seen_us      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE blob_ref (
    tenant TEXT NOT NULL,
    job_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (tenant, job_id, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_ref_digest ON blob_ref (digest);
"""

_V2 = """
-- `request` is the truth of what was asked, `end` of how it ended.
CREATE TABLE session (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant      TEXT    NOT NULL,
    session_id  TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    worker_id   TEXT    NOT NULL,
    instance_id TEXT    NOT NULL,
    created_us  INTEGER NOT NULL,
    used_us     INTEGER NOT NULL,
    opened_us   INTEGER,
    ended_us    INTEGER,
    tier        TEXT,
    request     TEXT    NOT NULL,
    "end"       TEXT,
    UNIQUE (tenant, session_id)
) STRICT;
-- Partial: few live, many have ended.
CREATE INDEX session_live  ON session (seq) WHERE ended_us IS NULL;
CREATE INDEX session_page  ON session (tenant, seq);
CREATE INDEX session_ended ON session (ended_us, seq) WHERE ended_us IS NOT NULL;

ALTER TABLE job ADD COLUMN session_id TEXT;
-- Whose turn it is: jobs of one session run one after another.
CREATE INDEX job_session ON job (session_id, status, seq) WHERE session_id IS NOT NULL;
"""

_V3 = """
ALTER TABLE credential RENAME TO credential_v2;
-- A secret is known by its hash alone. Revoked rows stay: records name them.
CREATE TABLE credential (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant        TEXT    NOT NULL,
    credential_id TEXT    NOT NULL,
    name          TEXT    NOT NULL,
    kind          TEXT    NOT NULL,
    subject       TEXT    NOT NULL,
    secret_sha256 TEXT    NOT NULL UNIQUE,
    created_us    INTEGER NOT NULL,
    expires_us    INTEGER,
    used_us       INTEGER,
    revoked_us    INTEGER,
    UNIQUE (tenant, credential_id)
) STRICT;
CREATE UNIQUE INDEX credential_name ON credential (tenant, name) WHERE revoked_us IS NULL;
-- Secrets of token files, the only ones that there were. At its start the node keeps the one that the file holds now.
INSERT INTO credential (tenant, credential_id, name, kind, subject, secret_sha256, created_us)
    SELECT tenant, 'k-' || substr(secret_sha256, 1, 12), 'owner-' || substr(secret_sha256, 1, 12), 'owner', 'local',
           secret_sha256, created_us FROM credential_v2;
DROP TABLE credential_v2;

CREATE TABLE credential_mount (
    tenant        TEXT NOT NULL,
    credential_id TEXT NOT NULL,
    mount_id      TEXT NOT NULL,
    PRIMARY KEY (tenant, credential_id, mount_id)
) STRICT, WITHOUT ROWID;

-- Who brought a blob: a bounded credential may use what it or its jobs brought, and cannot ask for others'.
CREATE TABLE credential_blob (
    credential_id TEXT    NOT NULL,
    digest        TEXT    NOT NULL,
    stored_us     INTEGER NOT NULL,
    PRIMARY KEY (credential_id, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX credential_blob_digest ON credential_blob (digest);

-- The bounded credential that asked; NULL is the owner of the node.
ALTER TABLE job     ADD COLUMN owner TEXT;
ALTER TABLE session ADD COLUMN owner TEXT;
CREATE INDEX job_owner     ON job (owner, seq)     WHERE owner IS NOT NULL;
CREATE INDEX session_owner ON session (owner, seq) WHERE owner IS NOT NULL;
"""

# Certificates that were issued and are not long expired, and what was revoked.
_V4_IDENTITIES = """
CREATE TABLE identity (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    serial       TEXT    NOT NULL UNIQUE,
    spiffe_id    TEXT    NOT NULL,
    kind         TEXT    NOT NULL,
    instance_id  TEXT    NOT NULL,
    attestation  INTEGER NOT NULL,
    node         TEXT,
    issued_us    INTEGER NOT NULL,
    not_after_us INTEGER NOT NULL,
    revoked_us   INTEGER,
    reason       TEXT
) STRICT;
CREATE INDEX identity_of      ON identity (spiffe_id, not_after_us);
CREATE INDEX identity_expiry  ON identity (not_after_us);
-- Partial: few are revoked.
CREATE INDEX identity_revoked ON identity (not_after_us) WHERE revoked_us IS NOT NULL;

-- A SPIFFE ID as a whole: it outlives its certificates.
CREATE TABLE identity_ban (
    spiffe_id TEXT    PRIMARY KEY,
    since_us  INTEGER NOT NULL,
    reason    TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- One row: the number of the last list of revocations that was signed.
CREATE TABLE revocation_list (
    only   INTEGER PRIMARY KEY CHECK (only = 1),
    number INTEGER NOT NULL
) STRICT;
"""

# Join tokens, by their hash, and the nodes that were registered or joined.
_V4_ENROLMENTS = """
-- One row a node beside the controller's own. A token is known by its hash alone. Forgotten rows stay: their workers'
-- names are never believed again.
CREATE TABLE enrolment (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    node_id      TEXT    NOT NULL UNIQUE,
    name         TEXT    NOT NULL,
    worker_id    TEXT    NOT NULL UNIQUE,
    capabilities TEXT    NOT NULL,
    created_us   INTEGER NOT NULL,
    expires_us   INTEGER,
    token_sha256 TEXT    UNIQUE,
    thumbprint   TEXT,
    pins         INTEGER NOT NULL CHECK (pins IN (0, 1)),
    attestation  TEXT    NOT NULL,
    keys         TEXT,
    joined_us    INTEGER,
    machine      TEXT    NOT NULL,
    forgotten_us INTEGER
) STRICT;
CREATE UNIQUE INDEX enrolment_name       ON enrolment (name)       WHERE forgotten_us IS NULL;
CREATE UNIQUE INDEX enrolment_thumbprint ON enrolment (thumbprint) WHERE thumbprint IS NOT NULL AND forgotten_us IS NULL;
-- How well the worker's certificate says that its node was attested.
ALTER TABLE worker ADD COLUMN attestation TEXT NOT NULL DEFAULT 'none';
"""

# Which workloads of this machine get which identity.
_V4_WORKLOADS = """
-- Which process of this machine gets which identity. `entry` is the truth; the columns before it repeat it for queries.
CREATE TABLE workload (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant    TEXT NOT NULL,
    entry_id  TEXT NOT NULL,
    spiffe_id TEXT NOT NULL,
    selectors TEXT NOT NULL,
    hint      TEXT NOT NULL,
    entry     TEXT NOT NULL,
    UNIQUE (tenant, entry_id),
    UNIQUE (tenant, spiffe_id, selectors)
) STRICT;
"""

# Grants that tokens carry.
_V4_GRANTS = """
CREATE TABLE capability_grant (
    seq           INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant        TEXT    NOT NULL,
    grant_id      TEXT    NOT NULL,
    credential_id TEXT    NOT NULL,
    parent        TEXT,
    space         TEXT    NOT NULL,
    subject       TEXT    NOT NULL,
    actors        TEXT    NOT NULL,
    rights        TEXT    NOT NULL,
    holder_jkt    TEXT,
    depth_left    INTEGER NOT NULL,
    issued_us     INTEGER NOT NULL,
    expires_us    INTEGER NOT NULL,
    revoked_us    INTEGER,
    UNIQUE (tenant, grant_id)
) STRICT;
CREATE INDEX grant_parent     ON capability_grant (tenant, parent) WHERE parent IS NOT NULL;
CREATE INDEX grant_credential ON capability_grant (tenant, credential_id, seq);
CREATE INDEX grant_expires    ON capability_grant (expires_us);

-- How often each right of a grant was used, and what that cost: counted where the job is accepted, never afterwards.
CREATE TABLE grant_count (
    tenant   TEXT    NOT NULL,
    grant_id TEXT    NOT NULL,
    place    INTEGER NOT NULL,
    calls    INTEGER NOT NULL,
    cost     INTEGER NOT NULL,
    PRIMARY KEY (tenant, grant_id, place)
) STRICT, WITHOUT ROWID;

-- Under which grant a job or session was asked for.
CREATE TABLE grant_use (
    tenant   TEXT NOT NULL,
    used_for TEXT NOT NULL,
    grant_id TEXT NOT NULL,
    PRIMARY KEY (tenant, used_for)
) STRICT, WITHOUT ROWID;
CREATE INDEX grant_use_grant ON grant_use (tenant, grant_id);
"""

# Trust domains that this one is federated with, and their bundles.
_V4_FEDERATION = """
CREATE TABLE federation (
    trust_domain    TEXT    PRIMARY KEY,
    url             TEXT    NOT NULL,
    profile         TEXT    NOT NULL,
    endpoint_id     TEXT,
    ca_pem          TEXT,
    private         INTEGER NOT NULL CHECK (private IN (0, 1)),
    stale_after_sec INTEGER NOT NULL,
    added_us        INTEGER NOT NULL,
    bundle          TEXT    NOT NULL,
    fetched_us      INTEGER NOT NULL,
    tried_us        INTEGER NOT NULL,
    failure         TEXT
) STRICT, WITHOUT ROWID;
"""

# Which job called for which. The row is the memory of the call: the same one never makes a second job.
_V4_CALLS = """
ALTER TABLE job ADD COLUMN caller_id    TEXT;
ALTER TABLE job ADD COLUMN caller_epoch INTEGER;
ALTER TABLE job ADD COLUMN call_number  INTEGER;
ALTER TABLE job ADD COLUMN call_handle  TEXT;
ALTER TABLE job ADD COLUMN call_depth   INTEGER;
ALTER TABLE job ADD COLUMN call_root    TEXT;
CREATE UNIQUE INDEX job_call ON job (tenant, caller_id, caller_epoch, call_number) WHERE caller_id IS NOT NULL;
CREATE INDEX job_tree ON job (tenant, call_root) WHERE call_root IS NOT NULL;
-- Partial: few are open at any time, and they are looked at each second.
CREATE INDEX job_called_open ON job (seq) WHERE caller_id IS NOT NULL AND ended_us IS NULL;
"""

_V4 = _V4_IDENTITIES + _V4_ENROLMENTS + _V4_WORKLOADS + _V4_GRANTS + _V4_FEDERATION + _V4_CALLS

_V5 = """
-- What a key may be used for, as JSON; NULL is everything that one of its kind may, as all keys were before.
ALTER TABLE credential ADD COLUMN rights TEXT;
-- On which registration a certificate was issued: what is removed takes its certificates along.
ALTER TABLE identity ADD COLUMN workload TEXT;
CREATE INDEX identity_workload ON identity (workload, not_after_us) WHERE workload IS NOT NULL;
"""

_V6 = """
-- Whether a worker ever signed what it offers: then nothing of it is believed unsigned, whatever version it says it is of.
ALTER TABLE worker ADD COLUMN signed INTEGER NOT NULL DEFAULT 0 CHECK (signed IN (0, 1));
"""

# MIGRATIONS[n] leads from version n to n + 1.
MIGRATIONS: tuple[str, ...] = (_V1, _V2, _V3, _V4, _V5, _V6)
SCHEMA_VERSION = len(MIGRATIONS)
