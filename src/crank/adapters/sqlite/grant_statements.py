"""Every statement about grants, by name."""

_COLUMNS = """
    tenant, grant_id, credential_id, parent, space, subject, actors, rights, holder_jkt, depth_left,
    issued_us, expires_us, revoked_us"""
_ABOVE = """
    above.tenant, above.grant_id, above.credential_id, above.parent, above.space, above.subject, above.actors,
    above.rights, above.holder_jkt, above.depth_left, above.issued_us, above.expires_us, above.revoked_us"""

GRANT_INSERT = f"""
INSERT INTO capability_grant ({_COLUMNS}) VALUES (
    :tenant, :grant_id, :credential_id, :parent, :space, :subject, :actors, :rights, :holder_jkt, :depth_left,
    :issued_us, :expires_us, :revoked_us
)"""

GRANT_FIND = f"SELECT {_COLUMNS} FROM capability_grant WHERE tenant = ? AND grant_id = ?"

# A parent is always older than its child, so that the way up ends.
GRANT_CHAIN = f"""
WITH RECURSIVE way ({_COLUMNS}, far) AS (
    SELECT {_COLUMNS}, 0 FROM capability_grant WHERE tenant = :tenant AND grant_id = :grant_id
    UNION ALL
    SELECT {_ABOVE}, way.far + 1 FROM capability_grant AS above
    JOIN way ON above.tenant = way.tenant AND above.grant_id = way.parent
)
SELECT {_COLUMNS} FROM way ORDER BY far"""

GRANTS_PAGE = {
    (owned, before): f"SELECT {_COLUMNS} FROM capability_grant WHERE tenant = :tenant"
    + (" AND credential_id = :credential_id" if owned else "")
    + (" AND seq < (SELECT seq FROM capability_grant WHERE tenant = :tenant AND grant_id = :before)" if before else "")
    + " ORDER BY seq DESC LIMIT :limit"
    for owned in (False, True)
    for before in (False, True)
}

_BELOW = """
WITH RECURSIVE below (grant_id) AS (
    SELECT grant_id FROM capability_grant WHERE tenant = :tenant AND grant_id = :grant_id
    UNION
    SELECT child.grant_id FROM capability_grant AS child
    JOIN below ON child.tenant = :tenant AND child.parent = below.grant_id
)"""

GRANT_BELOW = f"{_BELOW} SELECT grant_id FROM below"

GRANT_REVOKE = f"""
{_BELOW} UPDATE capability_grant SET revoked_us = coalesce(revoked_us, :at_us)
WHERE tenant = :tenant AND grant_id IN (SELECT grant_id FROM below)"""

GRANT_COUNT = "SELECT calls, cost FROM grant_count WHERE tenant = ? AND grant_id = ? AND place = ?"

GRANT_ADD = """
INSERT INTO grant_count (tenant, grant_id, place, calls, cost) VALUES (?, ?, ?, 1, ?)
ON CONFLICT (tenant, grant_id, place) DO UPDATE SET calls = calls + 1, cost = cost + excluded.cost"""

GRANT_NOTE = "INSERT INTO grant_use (tenant, used_for, grant_id) VALUES (?, ?, ?)"

GRANT_NOTED = "SELECT grant_id FROM grant_use WHERE tenant = ? AND used_for = ?"

GRANT_SPACES = "SELECT DISTINCT space FROM capability_grant WHERE tenant = ? AND credential_id = ?"

GRANTS_OF_PARTY = f"""
SELECT {_COLUMNS} FROM capability_grant
WHERE expires_us > :alive_at_us AND revoked_us IS NULL
AND (subject = :name OR EXISTS (SELECT 1 FROM json_each(actors) WHERE value = :name))
ORDER BY seq"""

_ENDED = "(SELECT tenant, grant_id FROM capability_grant WHERE expires_us < ?)"

GRANT_PURGE_COUNTS = f"DELETE FROM grant_count WHERE (tenant, grant_id) IN {_ENDED}"

# While the job or session is kept, it is kept that it was no key's own: without that the key's authority would be its.
GRANT_PURGE_USES = """
DELETE FROM grant_use WHERE NOT EXISTS (
    SELECT 1 FROM capability_grant AS one WHERE one.tenant = grant_use.tenant AND one.grant_id = grant_use.grant_id
) AND NOT EXISTS (
    SELECT 1 FROM job WHERE job.tenant = grant_use.tenant AND job.job_id = grant_use.used_for
) AND NOT EXISTS (
    SELECT 1 FROM session WHERE session.tenant = grant_use.tenant AND session.session_id = grant_use.used_for
)"""

GRANT_PURGE = "DELETE FROM capability_grant WHERE expires_us < ?"
