"""Convert a mounted folder of documents to Markdown, and say of each what is in it.

A script as an agent would write it, for the profile python-docs:

    crank run examples/convert_folder.py --profile python-docs --mount docs=examples/documents --out results

Args: `source` names the mount (default `docs`). It leaves markdown/…, contents.md, summary.md and
summary.json. A document that cannot be read is named with the reason, and the rest goes on.
"""

import json
import re
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

READERS = {
    ".csv": "csv",
    ".docx": "docx",
    ".epub": "epub",
    ".html": "html",
    ".htm": "html",
    ".md": "markdown",
    ".odt": "odt",
}
AT_ONCE = 2
ONE_FILE_SEC = 60
SUMMARY_SENTENCES = 3
OUT = Path("/out")
TEMPLATE = Path("/scratch/with-title.md")


def convert(source: Path, relative: Path) -> dict:
    """Convert one file and return what the summary says of it."""
    entry = {"file": relative.as_posix(), "status": "failed"}
    reader = READERS.get(source.suffix.lower())
    if reader is None:
        return {**entry, "reason": f"no reader for files that end in {source.suffix or 'nothing'}"}
    target = OUT / "markdown" / f"{relative}.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    # --sandbox: a document must not make pandoc open other files.
    command = ["pandoc", "--sandbox", "--from", reader, "--to", "gfm", "--wrap", "none"]
    command += ["--template", str(TEMPLATE), "--output", str(target), str(source)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ONE_FILE_SEC, check=False)
    except subprocess.TimeoutExpired:
        target.unlink(missing_ok=True)
        return {**entry, "reason": f"took longer than {ONE_FILE_SEC} s"}
    if done.returncode != 0:
        target.unlink(missing_ok=True)
        lines = done.stderr.strip().splitlines() or [f"pandoc ended with {done.returncode}"]
        return {**entry, "reason": lines[0]}
    return {**entry, "status": "converted", **describe(target, relative)}


def describe(target: Path, relative: Path) -> dict:
    """Read a converted file back: title, words, headings and a short extract."""
    text = target.read_text(encoding="utf-8")
    first, _, rest = text.partition("\n")
    title = first.removeprefix("% ").strip() if first.startswith("% ") else ""
    if title:
        # The template put the title where this script finds it; readers want a heading.
        text = rest if re.search(rf"^#+ {re.escape(title)}$", rest, re.MULTILINE) else f"# {title}\n{rest}"
        target.write_text(text, encoding="utf-8")
    headings = [(len(mark), name.strip()) for mark, name in re.findall(r"^(#{1,6}) (.+)$", text, re.MULTILINE)]
    return {
        "markdown": f"markdown/{relative}.md",
        "title": title or opening_line(text) or (headings[0][1] if headings else relative.stem),
        "words": len(re.findall(r"\w+", text)),
        "headings": [{"level": level, "text": name} for level, name in headings],
        "summary": extract(text),
    }


def opening_line(text: str) -> str:
    """Return the first line when it looks like a title: short, and not a sentence, a table or a list."""
    first = text.strip().partition("\n")[0].strip()
    return first if re.fullmatch(r"\w.{2,99}[^.!?:,;]", first) else ""


def extract(text: str) -> str:
    """Return the sentences whose words are most at home in the text, no two alike, in their own order."""
    table = [line for line in text.splitlines() if line.startswith("|")]
    prose = [line for line in text.splitlines() if re.match(r"\w", line) and not re.match(r"\d+\\?\.", line)]
    if not prose:
        columns = [cell.strip() for cell in table[0].strip("|").split("|")] if table else []
        return f"A table of {max(len(table) - 2, 0)} rows: {', '.join(columns)}." if columns else ""
    plain = re.sub(r"<sup>.*?</sup>|\[\^\d+\]|<[^>]+>|[*_]", "", " ".join(prose))
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", plain)
    sentences = list(dict.fromkeys(re.split(r"(?<=[.!?])\s+", plain)))
    words = {sentence: set(re.findall(r"\w{5,}", sentence.lower())) for sentence in sentences}
    common = Counter(word for found in words.values() for word in found)
    ranked = sorted(sentences, key=lambda one: sum(common[word] for word in words[one]) / (len(words[one]) + 5))
    best: list[str] = []
    while ranked and len(best) < SUMMARY_SENTENCES:
        candidate = ranked.pop()
        if all(len(words[candidate] & words[chosen]) * 2 < len(words[candidate]) for chosen in best):
            best.append(candidate)
    return " ".join(sentence for sentence in sentences if sentence in best)


def write_contents(entries: list[dict]) -> None:
    """Write the table of contents: each document with its chapters."""
    lines = ["# Contents", ""]
    for entry in entries:
        lines.append(f"- [{entry['title']}]({quote(entry['markdown'])}), {entry['words']:,} words")
        chapters = [heading["text"] for heading in entry["headings"] if heading["level"] == 1]
        lines += [f"  - {name}" for name in chapters if name != entry["title"]]
    (OUT / "contents.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_summary(entries: list[dict]) -> None:
    """Write what each file holds, and which could not be read."""
    (OUT / "summary.json").write_text(json.dumps(entries, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    failed = [entry for entry in entries if entry["status"] == "failed"]
    lines = ["# Summary", "", f"{len(entries) - len(failed)} converted, {len(failed)} failed.", ""]
    if failed:
        lines += ["## Could not be read", ""]
        lines += [f"- **{entry['file']}**: {entry['reason']}" for entry in failed] + [""]
    for entry in entries:
        if entry["status"] == "converted":
            size = f"{entry['words']:,} words, {len(entry['headings'])} headings"
            lines += [f"## {entry['file']}", "", f"*{entry['title']}*: {size}.", "", entry["summary"], ""]
    (OUT / "summary.md").write_text("\n".join(lines), encoding="utf-8")


def main(source: Path) -> dict:
    """Convert every file below `source`; return the counts and the failures."""
    TEMPLATE.write_text("$if(title)$% $title$\n$endif$\n$body$\n", encoding="utf-8")
    files = sorted(path for path in source.rglob("*") if path.is_file())
    entries = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for entry in pool.map(lambda path: convert(path, path.relative_to(source)), files):
            entries.append(entry)
            told = f"{entry['words']:,} words" if entry["status"] == "converted" else f"FAILED: {entry['reason']}"
            print(f"{entry['file']}: {told}", flush=True)
            progress(len(entries) / len(files), entry["file"])  # noqa: F821 - the sandbox gives it
    good = [entry for entry in entries if entry["status"] == "converted"]
    write_contents(good)
    write_summary(entries)
    failed = [{"file": entry["file"], "reason": entry["reason"]} for entry in entries if entry["status"] == "failed"]
    return {"converted": len(good), "failed": failed}


result = main(Path("/in") / (args or {}).get("source", "docs"))  # noqa: F821 - the sandbox gives it
