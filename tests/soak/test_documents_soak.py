"""A thousand documents, some broken and hostile, through a real node; then again, with three of them changed.

The report is kept in .cache/soak. CRANK_SOAK_DOCUMENTS sets the number.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import REPO, Node, running_node
from tests.support.paper import BROKEN, mixed_folder

pytestmark = [pytest.mark.soak, pytest.mark.system, pytest.mark.U2]
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
        "again_sec": again_sec,
        "peak_memory_bytes": first["metrics"]["peak_memory_bytes"],
    }
    print(told)
    report = REPO / ".cache" / "soak" / "documents.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(told) + "\n", "utf-8")
    assert again_sec < first_sec / 4
