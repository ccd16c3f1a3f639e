"""A folder of documents in many formats, from our own texts, with every kind of breakage that we know of among them."""

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
MIB = 1 << 20

# What each broken file must be told as: its name, and the codes that are true of it.
BROKEN: dict[str, set[str]] = {
    "broken/cut.docx": {"unreadable"},
    "broken/no-zip.odt": {"unreadable"},
    "broken/no-container.epub": {"unreadable"},
    "broken/empty.docx": {"unreadable"},
    "broken/old.docx": {"encrypted"},
    "broken/bomb.docx": {"bomb"},
    "broken/laughs.docx": {"bomb"},
    "broken/noise.pdf": {"unreadable"},
    "broken/cut.pdf": {"unreadable"},
    "broken/picture.pdf": {"no_text"},
    "broken/noise.md": {"unreadable"},
    "broken/picture.xyz": {"unknown_format"},
    "broken/deep.html": {"too_large", "too_slow", "crashed", "unreadable"},
    "broken/endless.tex": {"too_slow", "too_large", "unreadable"},
}


def mixed_folder(target: Path, count: int) -> int:
    """Fill a folder with `count` files, those of BROKEN among them; return how many of them are good."""
    maker = REPO / "examples" / "make_documents.py"
    base = target.parent / f"{target.name}-texts"
    subprocess.run([sys.executable, str(maker), str(base)], check=True, capture_output=True)
    good = [path for path in sorted(base.rglob("*")) if path.is_file() and "broken" not in path.name]
    wanted = count - len(BROKEN)
    for number in range(wanted):
        source = good[number % len(good)]
        place = target / f"part-{number // 100:02}" / f"{number:04}-{source.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(_own(source, number))
    for name, content in _broken(good).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    # Neither is a file: a link is not followed, and nobody waits for a pipe.
    os.symlink("/etc/passwd", target / "broken" / "passwd.md")
    os.mkfifo(target / "broken" / "pipe.md")
    return wanted


def _own(source: Path, number: int) -> bytes:
    """Return a document that no other is equal to."""
    content = source.read_bytes()
    if source.suffix == ".md":
        return content + f"\nCopy {number}.\n".encode()
    if source.suffix == ".csv":
        return content + content.splitlines()[-1].replace(b",", b",%d" % number, 1) + b"\n"
    if source.suffix == ".html":
        return content.replace(b"</body>", f"<p>Copy {number}.</p></body>".encode())
    whole = io.BytesIO(content)
    with zipfile.ZipFile(whole, "a") as archive:
        archive.comment = f"copy {number}".encode()
    return whole.getvalue()


def _broken(good: list[Path]) -> dict[str, bytes]:
    docx = next(path for path in good if path.suffix == ".docx").read_bytes()
    epub = next(path for path in good if path.suffix == ".epub").read_bytes()
    laughs = b'<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><a>&b;</a>'
    noise = bytes((n * n * 7 + 13 * n) % 256 for n in range(4096))
    return {
        "broken/cut.docx": docx[: len(docx) // 2],
        "broken/no-zip.odt": b"This was a letter before the disk broke.\n" * 20,
        "broken/no-container.epub": epub.replace(b"META-INF/container.xml", b"X" * 22),
        "broken/empty.docx": b"",
        "broken/old.docx": bytes.fromhex("d0cf11e0a1b11ae1") + noise,
        "broken/bomb.docx": archive_of({"word/document.xml": b"<a>" + b" " * (64 * MIB)}),
        "broken/laughs.docx": archive_of({"word/document.xml": laughs}),
        "broken/noise.pdf": noise,
        "broken/cut.pdf": pdf_of(None)[:60],
        "broken/picture.pdf": pdf_of(None),
        "broken/noise.md": noise,
        "broken/picture.xyz": noise,
        "broken/deep.html": b"<div>" * 60_000 + b"deep",
        "broken/endless.tex": b"\\newcommand{\\a}{x\\a\\a}\n\\a\n",
    }


def archive_of(entries: dict[str, bytes]) -> bytes:
    """Return a zip file."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return whole.getvalue()


def pdf_of(line: str | None, *, pages: int = 1, ballast: Callable[[], bytes] | None = None) -> bytes:
    """Return a PDF with a line of text on each page, or with empty pages; `ballast` makes it heavy."""
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"", b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
    kids = []
    for number in range(pages):
        words = f"BT /F 12 Tf 72 720 Td ({line} Page {number + 1} ends here.) Tj ET".encode() if line else b""
        objects.append(b"<</Length %d>>stream\n%s\nendstream" % (len(words), words))
        page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F 3 0 R>>>>/Contents %d 0 R>>"
        objects.append(page % len(objects))
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<</Type/Pages/Count %d/Kids[%s]>>" % (pages, b" ".join(kids))
    if ballast is not None:
        heavy = ballast()
        objects.append(b"<</Length %d>>stream\n%s\nendstream" % (len(heavy), heavy))
    whole = io.BytesIO(b"%PDF-1.4\n")
    whole.seek(0, io.SEEK_END)
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(whole.tell())
        whole.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    table = whole.tell()
    whole.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    for place in places:
        whole.write(b"%010d 00000 n \n" % place)
    whole.write(b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, table))
    return whole.getvalue()
