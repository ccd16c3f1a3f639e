"""Names for what is left in /out: any file's name becomes one that every system and the artifacts' rules take."""

import hashlib
import unicodedata

_SEGMENT_BYTES_MAX = 180
_PATH_BYTES_MAX = 440


class Names:
    """Gives each document a name of its own."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, name: str) -> str:
        """Return a relative path for the document of this name, never the same twice."""
        path = safe(name)
        number = 1
        while path.casefold() in self._taken:
            number += 1
            path = f"{safe(name)}-{number}"
        self._taken.add(path.casefold())
        return path


def safe(name: str) -> str:
    """Return a name with plain segments only."""
    text = unicodedata.normalize("NFC", name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    segments = [_segment(each) for each in text.split("/") if each.strip(". ")]
    path = "/".join(segments) or "document"
    if len(path.encode()) > _PATH_BYTES_MAX:
        path = f"{_mark(path)}/{segments[-1]}"
    return path


def _segment(text: str) -> str:
    clean = "".join("_" if char == "\\" or (unicodedata.category(char)[0] in "CZ" and char != " ") else char for char in text)
    clean = clean.strip(" ").rstrip(". ") or "_"
    # A dot in front would hide it.
    clean = f"_{clean[1:]}" if clean.startswith(".") else clean
    octets = clean.encode()
    if len(octets) <= _SEGMENT_BYTES_MAX:
        return clean
    return f"{octets[: _SEGMENT_BYTES_MAX - 20].decode('utf-8', 'ignore').rstrip('. ')}-{_mark(clean)}"


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
