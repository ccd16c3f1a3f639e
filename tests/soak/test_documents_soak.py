"""A thousand documents, some broken and hostile, through a real node; then again, with three of them changed.

The report is kept in .cache/soak. CRANK_SOAK_DOCUMENTS sets the number.
"""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import REPO, Node, running_node
from tests.support.paper import BROKEN, MIB, mixed_folder

pytestmark = [pytest.mark.soak, pytest.mark.system, pytest.mark.U2, pytest.mark.timeout(3600)]
COUNT = int(os.environ.get("CRANK_SOAK_DOCUMENTS", "1000"))


def _process(node: Node, documents: Path, out: Path) -> tuple[dict[str, Any], float]:
    began = time.monotonic()
    done = node.crank(
        "run", "--capability", "folder.process", "--mount", f"docs={documents}", "--arg", "to=gfm", "--arg",
        "per_file_sec=20", "--out", str(out), "--json", timeout_sec=3600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer, round(time.monotonic() - began, 1)


def test_a_thousand_documents_and_then_what_changed(tmp_path: Path) -> None:
    """Every file is accounted for; the second run works on three, and takes a small part of the time."""
    documents = tmp_path / "many"
    good = mixed_folder(documents, COUNT)
    with running_node(tmp_path / "home") as node:
        first, first_sec = _process(node, documents, tmp_path / "first")
        result = first["result"]
        assert (result["found"], result["done"], result["not_started"]) == (COUNT, good, 0)
        assert {each["file"] for each in result["files"] if each["status"] == "failed"} == set(BROKEN)
        changed = sorted(documents.rglob("*.md"))[5:8]
        for path in changed:
            path.write_text(path.read_text("utf-8") + "\nOne more line.\n", "utf-8")
        again, again_sec = _process(node, documents, tmp_path / "second")
    assert again["result"]["done"] == good
    assert again["result"]["cached"] == good - len(changed)
    told = {
        "documents": COUNT,
        "first_sec": first_sec,
        "documents_a_sec": round(COUNT / first_sec, 2),
        "work_sec": result["sec"],
        "again_sec": again_sec,
        "peak_memory_bytes": first["metrics"]["peak_memory_bytes"],
    }
    print(told)
    report = REPO / ".cache" / "soak" / "documents.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(told) + "\n", "utf-8")
    assert again_sec < first_sec / 4


def test_a_markdown_of_50_mb(tmp_path: Path) -> None:
    """The job's id comes at once, its progress is told while it runs, and it ends: with a result, or a declared code."""
    line = b"Line %d of *many* with `code` and [a link](http://example.com/%d).\n\n"
    content = b"".join(line % (number, number) for number in range(50 * MIB // 68))
    digest = hashlib.sha256(content).hexdigest()
    with running_node(tmp_path / "home") as node:
        client = node.client()
        assert client.http.put(f"/v1/blobs/{digest}", content=content).status_code in (200, 201)
        began = time.monotonic()
        answer = client.submit({"capability": "document.convert", "files": [{"path": "long.md", "sha256": digest}]})
        assert time.monotonic() - began < 5
        job_id = answer.json()["job_id"]
        job = client.ended(job_id, deadline_sec=1800)
        told = client.http.get(f"/v1/jobs/{job_id}/events").text.count("event: progress")
        print({"end": job["end"], "sec": round(time.monotonic() - began, 1), "progress": told})
        assert job["status"] == "succeeded" or job["end"]["code"] in ("too_large", "too_slow"), job["end"]
        assert told > 2
