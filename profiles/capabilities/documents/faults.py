"""The one way in which work on a document fails: a declared code and a sentence."""

# Every code that a document capability declares, with what it means. The declarations repeat the codes.
CODES = {
    "not_found": "no such file or mount was given",
    "unknown_format": "nothing here reads files of this kind",
    "unreadable": "the file is damaged, or not what its name says",
    "encrypted": "the file asks for a password",
    "no_text": "there is no text in it, only pictures",
    "bomb": "it would unfold to far more than it weighs",
    "too_large": "it needs more memory or room than one file may have",
    "too_slow": "it took longer than one file may take",
    "crashed": "what read it was ended by it",
    "no_room": "the results do not fit into what a job may leave",
}
SENTENCE_CHARS_MAX = 300


class Failed(Exception):
    """A document that cannot be worked on. `code` is one of CODES."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = plain(message)


def plain(text: str) -> str:
    """Return a stranger's words as one short line without control characters."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[:4000]).split())
    return line if len(line) <= SENTENCE_CHARS_MAX else line[: SENTENCE_CHARS_MAX - 1] + "…"
