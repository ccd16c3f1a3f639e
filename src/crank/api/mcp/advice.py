"""What to do about a fault, said for who has tools and no HTTP: the node's rules advise in the words of its routes."""

_INSTEAD = (
    ("Close one that is not needed: GET /v1/sessions lists them.",
     "Use the id of a session that is open, or try again later: one that nobody uses ends by itself."),
    ("List mounts with GET /v1/mounts", "Call list_files without a place to see the mounts"),
    ("Upload it first with PUT /v1/blobs/<sha256>.", "Send its content instead of its sha256, or name a mount that holds it."),
    ("Open one with POST /v1/sessions and use its session_id.",
     "Call run_python with session='new' and use the id in its answer's `session`."),
    ("List what is offered with GET /v1/capabilities", "Call find_capability, or read crank://capabilities"),
    ("GET /v1/capabilities lists them", "crank://capabilities lists them"),
    ("Open a new session with POST /v1/sessions.", "Open a new one: run_python with session='new'."),
    ("that /openapi.json gives", "that the tool's input schema gives"),
    ("upload big files as blobs first", "name a mount that holds big files"),
    ("as files or blobs,", "as files or in a mount,"),
)  # fmt: skip


def for_tools(fix: str) -> str:
    """Return advice with tools and resources in place of routes."""
    for said, instead in _INSTEAD:
        fix = fix.replace(said, instead)
    return fix
