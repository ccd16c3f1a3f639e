"""Blobs and artifacts: bytes that are what they are called, and that cannot act."""

import hashlib
import io
from dataclasses import replace

import pytest

from crank.domain.outcome import Artifact
from tests.support.desk import DONE
from tests.unit.api.conftest import check_problem

PAGE = b"<script>alert(1)</script>"


@pytest.fixture
async def job_id(api, desk, worker):
    """Run a job that leaves files with awkward names."""
    digest, size = desk.blobs.put(io.BytesIO(PAGE), expected=None, bytes_max=1 << 20)
    names = ("page.html", 'sub/we"ird\u00e9 name.txt', "broken")
    kinds = ("text/html", "text/plain", "text/html\r\nX-Evil: 1")
    left = tuple(Artifact(name, size, digest, kind) for name, kind in zip(names, kinds, strict=True))
    job_id = (await api.post("/v1/jobs", json={"code": "1"})).json()["job_id"]
    await worker.finish(await worker.lease(), replace(DONE, artifacts=left))
    return job_id


async def test_an_artifact_cannot_act(api, job_id):
    """A page that a job left is an attachment in a sandbox, and is never sniffed."""
    sent = await api.get(f"/v1/jobs/{job_id}/artifacts/page.html")
    assert sent.content == PAGE
    assert sent.headers["x-content-type-options"] == "nosniff"
    assert sent.headers["content-disposition"].startswith("attachment;")
    assert sent.headers["content-security-policy"].startswith("sandbox;")
    assert sent.headers["etag"] == f'"{hashlib.sha256(PAGE).hexdigest()}"'


async def test_an_artifact_that_is_known_is_not_sent_again(api, job_id):
    """If-None-Match with its ETag gives 304 and no bytes."""
    tag = (await api.get(f"/v1/jobs/{job_id}/artifacts/page.html")).headers["etag"]
    again = await api.get(f"/v1/jobs/{job_id}/artifacts/page.html", headers={"If-None-Match": f'"x", {tag}'})
    assert (again.status_code, again.content) == (304, b"")


async def test_names_and_types_of_a_job_never_reach_headers_raw(api, job_id):
    """Quotes, accents and line ends in names or types do no harm in headers."""
    sent = await api.get(f"/v1/jobs/{job_id}/artifacts/sub/we%22ird%C3%A9%20name.txt")
    assert sent.headers["content-disposition"] == "attachment; filename*=UTF-8''we%22ird%C3%A9%20name.txt"
    sent = await api.get(f"/v1/jobs/{job_id}/artifacts/broken")
    assert sent.headers["content-type"] == "application/octet-stream"
    assert "x-evil" not in sent.headers


async def test_path_tricks_find_nothing(api, job_id):
    """A path is only compared with what the job left; it never reaches a file system."""
    for path in ("..%2f..%2fcrank.db", "%2fetc%2fpasswd", "page.html%00", "page.html/", "sub%2f..%2fpage.html"):
        check_problem(await api.get(f"/v1/jobs/{job_id}/artifacts/{path}"), 404, "artifact_not_found")


async def test_the_list_names_what_was_left(api, job_id):
    """The list has each artifact with size and digest."""
    listed = (await api.get(f"/v1/jobs/{job_id}/artifacts")).json()["artifacts"]
    assert listed[0]["path"] == "page.html"
    assert {entry["size_bytes"] for entry in listed} == {len(PAGE)}


async def test_a_blob_is_what_it_is_called(api):
    """A blob is stored under its own digest alone, and is found then."""
    digest = hashlib.sha256(PAGE).hexdigest()
    url = f"/v1/blobs/{digest}"
    assert (await api.head(url)).status_code == 404
    check_problem(await api.put(url, content=b"other"), 422, "digest_mismatch")
    assert (await api.head(url)).status_code == 404
    assert (await api.put(url, content=PAGE)).json() == {"sha256": digest, "size_bytes": len(PAGE)}
    assert (await api.head(url)).headers["content-length"] == str(len(PAGE))
    check_problem(await api.put("/v1/blobs/XYZ", content=b""), 422, "invalid_digest")


async def test_a_blob_over_the_limit_is_refused_by_its_length(api):
    """The length alone refuses an upload that is too large; not a byte is read."""
    request = api.build_request("PUT", "/v1/blobs/" + "0" * 64, content=b"")
    request.headers["content-length"] = str(1 << 40)
    check_problem(await api.send(request), 413, "body_too_large")
