"""Words of strangers, made fit to stand in a page that an agent reads."""

SENTENCE_CHARS_MAX = 300


def plain(text: str, chars_max: int = SENTENCE_CHARS_MAX) -> str:
    """Return a stranger's sentence as one harmless line: no markup, no control characters, not long."""
    kept = "".join(char if char.isprintable() and char not in "`|<>#" else " " for char in text[: 4 * chars_max])
    line = " ".join(kept.split())
    return line if len(line) <= chars_max else line[: chars_max - 1] + "…"
