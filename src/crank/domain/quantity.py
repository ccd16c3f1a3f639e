"""Amounts and their ceilings. Units stand last in every name; nothing here is a bare number."""

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# What one request may hold. The reasons: a script of an agent is kilobytes; a body is parsed in
# memory; whatever is bigger travels as a blob.
CODE_BYTES_MAX = 1 * MIB
ARGS_BYTES_MAX = 1 * MIB
BODY_BYTES_MAX = 8 * MIB
BLOB_BYTES_MAX = 512 * MIB
JSON_DEPTH_MAX = 64
FILES_MAX = 1_000
FILE_PATH_BYTES_MAX = 512
# A file that lies in a mount already may lie deeper: as deep as a kernel finds it inside of a job.
MOUNT_PATH_BYTES_MAX = 4_000
MOUNTS_MAX = 16

# What one job may leave behind.
ARTIFACTS_MAX = 2_000
RESULT_BYTES_MAX = 4 * MIB
DISPLAYS_MAX = 64

# What a caller may ask for; an operator's profile can only lower these.
TIMEOUT_SEC_MAX = 24 * 3600
OUTPUT_BYTES_MAX = 16 * MIB
MEMORY_BYTES_MAX = 1024 * GIB

# A client's idempotency key is replayed for this long (mission row R2).
REPLAY_WINDOW_SEC = 3600
IDEMPOTENCY_KEY_CHARS_MAX = 255

# `Prefer: wait=N` holds a request at most this long; hosts of agents cut calls at 45 s and more.
WAIT_SEC_MAX = 40

# Sessions: jobs that wait for one of them, and the least that its clocks may be asked for.
SESSION_JOBS_MAX = 64
SESSION_SEC_MIN = 1.0
# What one key may take of the sessions that a worker or the node keeps, and of their memory.
KEY_SHARE_PERCENT = 50

# Standard input of a running job: bytes of one call, bytes that wait to be read, bytes in all.
STDIN_CALL_BYTES_MAX = 1 * MIB
STDIN_WAITING_BYTES_MAX = 4 * MIB
STDIN_TOTAL_BYTES_MAX = 1 * GIB

# A program and its arguments.
PROGRAM_WORDS_MAX = 256
PROGRAM_BYTES_MAX = 64 * KIB
