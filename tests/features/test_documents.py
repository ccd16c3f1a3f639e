"""Steps of features/documents.feature: the shipped document capabilities on a real node."""

import base64
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from pytest_bdd import given, parsers, scenarios, then, when

from tests.support.node import Node
from tests.support.paper import BROKEN, MIB, mixed_folder, pdf_of

scenarios("documents.feature")

LINE = "The bridge was closed because a pier had been washed hollow by the flood."


def _prints(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def _process(node: Node, documents: Path, out: Path, *more: str) -> dict[str, Any]:
    done = node.crank(
        "run", "--capability", "folder.process", "--mount", f"docs={documents}", "--out", str(out), "--json", *more,
        timeout_sec=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@given(parsers.parse("a folder of {count:d} documents, of which 14 are broken or hostile"), target_fixture="mixed")
def _(folder: Path, count: int) -> dict[str, Any]:
    good = mixed_folder(folder / "mixed", count)
    return {"path": folder / "mixed", "good": good, "before": _prints(folder / "mixed")}


@when("the agent has the folder converted", target_fixture="converted")
def _(running: Node, mixed: dict[str, Any], folder: Path) -> dict[str, Any]:
    return _process(running, mixed["path"], folder / "out", "--arg", "to=plain", "--arg", "per_file_sec=10")


@then("every good document came back converted")
def _(converted: dict[str, Any], mixed: dict[str, Any], folder: Path) -> None:
    result = converted["result"]
    assert (result["found"], result["not_started"]) == (mixed["good"] + len(BROKEN), 0)
    assert result["done"] == mixed["good"], [each for each in result["files"] if each["status"] == "failed"]
    for entry in result["files"]:
        if entry["status"] == "done":
            assert all((folder / "out" / output).stat().st_size > 20 for output in entry["outputs"]), entry
    assert (folder / "out" / "index.md").is_file()


@then("each broken document is named with its reason")
def _(converted: dict[str, Any]) -> None:
    failed = {each["file"]: each for each in converted["result"]["files"] if each["status"] == "failed"}
    assert set(failed) == set(BROKEN)
    for name, codes in BROKEN.items():
        assert failed[name]["code"] in codes, failed[name]
        assert len(failed[name]["reason"]) > 10


@then("progress was told while it ran")
def _(running: Node, converted: dict[str, Any]) -> None:
    stream = running.client().http.get(f"/v1/jobs/{converted['job_id']}/events").text
    assert stream.count("event: progress") > 3, stream[:2000]


@then("the documents of the folder are unchanged")
def _(mixed: dict[str, Any]) -> None:
    assert _prints(mixed["path"]) == mixed["before"]


@given("a folder of 8 documents that was converted once", target_fixture="twice")
def _(running: Node, folder: Path) -> dict[str, Any]:
    documents = folder / "papers"
    documents.mkdir()
    for number in range(8):
        (documents / f"{number}.md").write_text(f"# Paper {number}\n\nIt says **{number}**.\n")
    return {"path": documents, "first": _process(running, documents, folder / "first", "--arg", "to=html")}


@when(
    "one document is changed, one is added, one is removed, and the folder is converted again", target_fixture="second"
)
def _(running: Node, twice: dict[str, Any], folder: Path) -> dict[str, Any]:
    (twice["path"] / "3.md").write_text("# Paper 3\n\nIt says something else now.\n")
    (twice["path"] / "new.md").write_text("# New\n")
    (twice["path"] / "5.md").unlink()
    return _process(running, twice["path"], folder / "second", "--arg", "to=html")


@then("only the changed and the added document were worked on")
def _(twice: dict[str, Any], second: dict[str, Any]) -> None:
    assert (twice["first"]["result"]["cached"], second["result"]["cached"], second["result"]["done"]) == (0, 6, 8)
    fresh = {each["file"] for each in second["result"]["files"] if not each.get("cached")}
    assert fresh == {"3.md", "new.md"}


@then("the results of all 8 documents are there")
def _(folder: Path) -> None:
    names = {path.name for path in (folder / "second").glob("*.html")}
    assert names == {f"{name}.md.html" for name in (0, 1, 2, 3, 4, 6, 7, "new")}
    assert "something else" in (folder / "second" / "3.md.html").read_text()
    assert (folder / "second" / "1.md.html").read_bytes() == (folder / "first" / "1.md.html").read_bytes()


@when("the agent has a PDF summarized", target_fixture="summary")
def _(running: Node) -> dict[str, Any]:
    file = {"path": "bridge.pdf", "base64": base64.b64encode(pdf_of(LINE, pages=3)).decode()}
    found = {}
    for capability in ("document.summarize", "document.extract"):
        job_id = running.client().submit({"capability": capability, "files": [file]}).json()["job_id"]
        job = running.client().ended(job_id)
        assert job["status"] == "succeeded", job["end"]
        found[capability] = job["result"]
    return found


@then("each sentence of the summary stands where its place says")
def _(summary: dict[str, Any]) -> None:
    text = summary["document.extract"]["text"]
    sentences = summary["document.summarize"]["sentences"]
    assert sentences
    for sentence in sentences:
        place = sentence["place"]
        assert text[place["start"] : place["end"]] == sentence["text"]
        assert place["page"] in (1, 2, 3)
    assert any("no structure" in note for note in summary["document.summarize"]["notes"])


@when("the agent sends a document of 50 MB to be extracted", target_fixture="big")
def _(running: Node) -> dict[str, Any]:
    content = pdf_of(LINE, pages=120, ballast=lambda: os.urandom(50 * MIB))
    digest = hashlib.sha256(content).hexdigest()
    client = running.client()
    assert client.http.put(f"/v1/blobs/{digest}", content=content).status_code in (200, 201)
    began = time.monotonic()
    answer = client.submit(
        {
            "capability": "document.extract",
            "files": [{"path": "big.pdf", "sha256": digest}],
            "args": {"parts": ["text", "tables", "metadata"]},
        }
    )
    return {"answer": answer, "sec": time.monotonic() - began}


@then("the answer is a job id at once")
def _(big: dict[str, Any]) -> None:
    assert big["answer"].status_code in (201, 202), big["answer"].text
    assert big["answer"].json()["job_id"]
    assert big["sec"] < 5


@then("its progress can be followed to its end")
def _(running: Node, big: dict[str, Any]) -> None:
    job_id = big["answer"].json()["job_id"]
    job = running.client().ended(job_id, deadline_sec=270)
    assert job["status"] == "succeeded", job["end"]
    assert "Page 120 ends here" in job["result"]["text"]
    stream = running.client().http.get(f"/v1/jobs/{job_id}/events").text
    assert stream.count("event: progress") > 5


@when("a job names an earlier job that it may not build on", target_fixture="refused")
def _(running: Node) -> dict[str, Any]:
    script = running.client().submit({"code": "pass"}, Prefer="wait=30").json()["job_id"]
    return {
        name: running.client().submit({"capability": "folder.process", "args": args, "mounts": [], "files": files})
        for name, args, files in (
            ("another capability's", {"previous": script}, [{"path": "a.md", "text": "a"}]),
            ("nobody's", {"previous": "0199aaaa-0000-7000-8000-000000000000"}, [{"path": "a.md", "text": "a"}]),
            ("forged", {}, [{"path": ".crank/kept.tar", "text": "x"}]),
            ("mistyped", {"operation": "shred"}, [{"path": "a.md", "text": "a"}]),
        )
    }


@then("it is refused and nothing runs")
def _(refused: dict[str, Any]) -> None:
    codes = {name: (answer.status_code, answer.json()["code"]) for name, answer in refused.items()}
    assert codes == {
        "another capability's": (422, "previous_not_found"),
        "nobody's": (422, "previous_not_found"),
        "forged": (422, "invalid_path"),
        "mistyped": (422, "invalid_args"),
    }
