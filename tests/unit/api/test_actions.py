"""GPT Actions before a scripted worker: in time, in bounds, with files both ways, and honest about what is cut."""

import asyncio
import base64
import json
from dataclasses import replace

import pytest

from crank.controller.desk import Desk
from crank.domain.ids import Digest
from crank.domain.outcome import Artifact, End, Outcome, Reason, Stream
from crank.errors import Unavailable
from tests.support.desk import DONE, ScriptedWorker, open_api, open_desk
from tests.unit.api.conftest import CORE, check_problem

ACTIONS = "/v1/actions"
LIMIT_CHARS = 100_000


async def ended(api, worker, outcome: Outcome, **body) -> dict:
    """Run a script whose outcome is given, and return the answer."""
    asked = asyncio.ensure_future(api.post(f"{ACTIONS}/run", json={"code": "1", **body}))
    await worker.finish(await worker.lease(), outcome)
    response = await asked
    assert response.status_code == 200, response.text
    assert len(response.text) < LIMIT_CHARS
    return response.json()


async def test_a_script_is_run_and_told(api, worker) -> None:
    """One call runs it, waits, and brings the output and the result."""
    told = await ended(api, worker, replace(DONE, has_result=True, result={"n": 42}))
    assert (told["finished"], told["reason"], told["stdout"], told["result"]) == (True, "exited", "hi\n", {"n": 42})
    assert (told["cut"], told["next"]) == ([], None)


async def test_a_long_job_is_answered_with_its_id(api, worker) -> None:
    """The caller does not wait longer than it said, and finds the end later under the id."""
    response = await api.post(f"{ACTIONS}/run", json={"code": "1", "wait_sec": 0})
    told = response.json()
    assert (response.status_code, told["finished"]) == (200, False)
    assert "waitForJob" in told["next"]
    await worker.finish(await worker.lease())
    later = await api.get(f"{ACTIONS}/jobs/{told['job_id']}", params={"wait_sec": 10})
    assert later.json()["stdout"] == "hi\n"


async def test_large_output_is_cut_honestly(api, desk, worker) -> None:
    """Megabytes of output, result and files stay below 100 000 characters, and each cut is named."""
    digest = stored(desk, {"y": b"y"}, {})[0].sha256
    huge = Outcome(
        End(Reason.EXITED, exit_code=0), stdout=Stream("\x00é😀" * 100_000, 1, 1), stderr=Stream("e" * 500_000, 1, 1),
        has_result=True, result=["x" * 1000] * 1000,
        artifacts=tuple(Artifact(f"{n}/{'y' * 200}", 1, digest, "text/plain") for n in range(1000)),
        displays=({"image/png": "a" * 100_000}, {"text/plain": "z" * 100_000}),
    )  # fmt: skip
    told = await ended(api, worker, huge)
    assert set(told["cut"]) == {"stdout", "stderr", "result", "files", "displays"}
    assert told["files_total"] == 1000
    assert "readFile" in told["next"]


async def test_files_come_out_as_their_form_wants(api, desk, worker) -> None:
    """Bytes in base64 with name and type; pictures and what is too large are named with a way on."""
    contents = {"a.csv": b"n\n1\n", "big.bin": b"x" * 60_000, "chart.png": b"png"}
    kinds = {"a.csv": "text/csv", "big.bin": "application/octet-stream", "chart.png": "image/png"}
    told = await ended(api, worker, replace(DONE, artifacts=stored(desk, contents, kinds)))
    response = await api.get(f"{ACTIONS}/jobs/{told['job_id']}/files")
    assert len(response.text) < LIMIT_CHARS
    (sent,) = response.json()["openaiFileResponse"]
    assert (sent["name"], sent["mime_type"], base64.b64decode(sent["content"])) == ("a.csv", "text/csv", b"n\n1\n")
    assert {each["path"] for each in response.json()["left_out"]} == {"big.bin", "chart.png"}
    assert all("crank job fetch" in each["next"] for each in response.json()["left_out"])
    nexts = {each["path"]: each["next"] for each in response.json()["left_out"]}
    assert "readFile" in nexts["big.bin"]
    assert "readFile" not in nexts["chart.png"]
    for path in nexts:
        again = (await api.get(f"{ACTIONS}/jobs/{told['job_id']}/files", params={"path": path})).json()
        assert again["left_out"][0]["next"] == nexts[path]
        assert "again" not in nexts[path]
    alone = await api.get(f"{ACTIONS}/jobs/{told['job_id']}/files", params={"path": "a.csv"})
    assert len(alone.json()["openaiFileResponse"]) == 1
    check_problem(await api.get(f"{ACTIONS}/jobs/{told['job_id']}/files", params={"path": "../x"}), 404, "artifact_not_found")


def stored(desk: Desk, contents: dict[str, bytes], kinds: dict[str, str]) -> tuple[Artifact, ...]:
    """Keep files as blobs, as a worker that finished did."""
    import io

    kept = []
    for path, content in contents.items():
        digest, size_bytes = desk.blobs.put(io.BytesIO(content), expected=None, bytes_max=1 << 20)
        kept.append(Artifact(path, size_bytes, digest, kinds.get(path, "text/plain")))
    return tuple(kept)


async def test_ten_files_at_once(api, desk, worker) -> None:
    """More than ten are not sent, and each of the others is named."""
    contents = {f"f{number:02}.txt": b"x%d" % number for number in range(15)}
    told = await ended(api, worker, replace(DONE, artifacts=stored(desk, contents, {})))
    found = (await api.get(f"{ACTIONS}/jobs/{told['job_id']}/files")).json()
    assert (len(found["openaiFileResponse"]), len(found["left_out"]), found["files_total"]) == (10, 5, 15)
    for each in found["left_out"]:
        assert "again with this path" in each["next"]
        alone = await api.get(f"{ACTIONS}/jobs/{told['job_id']}/files", params={"path": each["path"]})
        assert len(alone.json()["openaiFileResponse"]) == 1


async def test_a_file_that_fits_only_by_itself_is_got_so(api, desk, worker) -> None:
    """Two files that are too large together: the second is asked for again by its path, however long that is."""
    contents = {"a.bin": b"x" * 30_000, f"{'ü' * 100}/{'z' * 100}/b.bin": b"y" * 30_000}
    told = await ended(api, worker, replace(DONE, artifacts=stored(desk, contents, {})))
    found = (await api.get(f"{ACTIONS}/jobs/{told['job_id']}/files")).json()
    (left,) = found["left_out"]
    assert "again with this path" in left["next"]
    alone = await api.get(f"{ACTIONS}/jobs/{told['job_id']}/files", params={"path": left["path"]})
    assert [each["name"] for each in alone.json()["openaiFileResponse"]] == ["b.bin"]


async def test_a_file_is_read_in_parts(api, desk, worker) -> None:
    """Parts join to the whole file, no character is broken, binary stays below the limit."""
    text = "ü€😀x" * 5_000
    contents = {"t.txt": text.encode(), "b.bin": b"\x00" * 50_000}
    told = await ended(api, worker, replace(DONE, artifacts=stored(desk, contents, {})))
    read, offset = "", 0
    while offset is not None:
        response = await api.get(f"{ACTIONS}/jobs/{told['job_id']}/text", params={"path": "t.txt", "offset_bytes": offset})
        assert len(response.text) < LIMIT_CHARS
        read, offset = read + response.json()["text"], response.json()["next_offset_bytes"]
    assert read == text
    binary = await api.get(f"{ACTIONS}/jobs/{told['job_id']}/text", params={"path": "b.bin"})
    assert len(binary.text) < LIMIT_CHARS
    behind = await api.get(f"{ACTIONS}/jobs/{told['job_id']}/text", params={"path": "b.bin", "offset_bytes": 10**9})
    assert (behind.json()["text"], behind.json()["next_offset_bytes"]) == ("", None)


class Fetched:
    """Downloads that a test fills: by link, bytes or a fault."""

    def __init__(self, contents: dict[str, bytes | Exception]) -> None:
        self.contents = contents
        self.asked: list[str] = []

    async def fetch(self, url: str, *, bytes_max: int) -> bytes:
        """Return what the test put there."""
        self.asked.append(url)
        found = self.contents[url]
        if isinstance(found, Exception):
            raise found
        return found


async def test_files_come_in_by_their_links(tmp_path) -> None:
    """What the person attached lies in /scratch under its name, as a blob that the worker fetches."""
    link = "https://files.example.org/1"
    async with open_desk(tmp_path, file_hosts=("files.example.org",)) as opened:
        fetched = Fetched({link: b"attached"})
        desk = replace(opened, downloads=fetched)
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        async with open_api(desk) as api:
            refs = [{"name": "in.txt", "id": "f", "mime_type": "text/plain", "download_link": link, "later": 1}]
            await api.post(f"{ACTIONS}/run", json={"code": "1", "wait_sec": 0, "openaiFileIdRefs": refs})
            lease = await worker.lease()
            (file,) = lease.files
            assert file.path == "in.txt"
            assert desk.blobs.size(Digest(file.sha256)) == len(b"attached")
            fetched.contents[link] = Unavailable("gone", code="file_link_failed")
            refused = await api.post(f"{ACTIONS}/run", json={"code": "1", "openaiFileIdRefs": refs})
            check_problem(refused, 503, "file_link_failed")
            refs[0]["download_link"] = "https://evil.test/1"
            check_problem(await api.post(f"{ACTIONS}/run", json={"code": "1", "openaiFileIdRefs": refs}), 403, "file_link_refused")
            assert fetched.asked == [link, link]
            assert len((await api.get("/v1/jobs")).json()["jobs"]) == 1


@pytest.mark.usefixtures("worker")
async def test_links_are_off_unless_the_owner_turned_them_on(api) -> None:
    """A node as it comes fetches nothing, says why, and leaves nothing behind."""
    refs = [{"name": "a", "download_link": "https://files.oaiusercontent.com/a"}]
    check_problem(await api.post(f"{ACTIONS}/run", json={"code": "1", "openaiFileIdRefs": refs}), 403, "file_links_off")
    assert (await api.get("/v1/jobs")).json()["jobs"] == []


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "missing_field"), ({"code": "1", "cod": 1}, 422, "unknown_field"), ({"code": 1}, 422, "invalid_field"),
        ({"code": "1", "wait_sec": 36}, 422, "invalid_field"), ({"code": "1", "folders": ["nope"]}, 403, "mount_not_allowed"),
        ({"code": "1", "profile": "nope"}, 422, "unknown_profile"), ({"code": "1", "timeout_sec": -1}, 422, "limit_out_of_range"),
        ({"code": "1", "openaiFileIdRefs": [{}] * 11}, 422, "invalid_field"),
    ],
)  # fmt: skip
async def test_bad_input_is_refused_like_everywhere(api, body, status, code) -> None:
    """Each mistake gets a problem document with its code, and no job is left behind."""
    check_problem(await api.post(f"{ACTIONS}/run", json=body), status, code)
    assert (await api.get("/v1/jobs")).json()["jobs"] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "run"), ("POST", "call"), ("GET", "jobs/a"), ("POST", "jobs/a/cancel"), ("GET", "jobs/a/files"), ("GET", "jobs/a/text?path=x"),
     ("GET", "capabilities"), ("GET", "node")],
)  # fmt: skip
async def test_every_operation_wants_the_credential(api, method: str, path: str) -> None:
    """Without it nothing is read and nothing is told."""
    del api.headers["authorization"]
    check_problem(await api.request(method, f"{ACTIONS}/{path}", json={"code": "1"} if method == "POST" else None), 401, "not_authenticated")


async def test_capabilities_are_found_and_called(api, desk) -> None:
    """A function is found by words, shown with its schema, and called by name."""
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    count = replace(CORE, name="text.count", summary="Counts words.", env_profile=None, profile_digest=None, input_schema=schema)
    worker = ScriptedWorker(desk, "w2", [CORE, count])
    await worker.connect()
    found = (await api.get(f"{ACTIONS}/capabilities", params={"words": "counts"})).json()
    assert [each["name"] for each in found["capabilities"]] == ["text.count"]
    assert json.loads(found["capabilities"][0]["input_schema"]) == schema
    # The same ranking as MCP's: bent words and other words of the same meaning find it, nonsense finds nothing.
    for words, names in (("counting of words", ["text.count"]), ("program", ["python.run.core"]), ("xyzzy", [])):
        told = (await api.get(f"{ACTIONS}/capabilities", params={"words": words})).json()
        assert [each["name"] for each in told["capabilities"]] == names
    nothing = (await api.get(f"{ACTIONS}/capabilities", params={"words": "xyzzy"})).json()
    assert "runPython" in nothing["next"]
    everything = (await api.get(f"{ACTIONS}/capabilities", params={"words": " "})).json()
    assert (everything["total"], everything["next"]) == (2, None)
    asked = asyncio.ensure_future(api.post(f"{ACTIONS}/call", json={"capability": "text.count", "args": {"text": "a b"}}))
    lease = await worker.lease()
    assert lease.args == {"text": "a b"}
    await worker.finish(lease, replace(DONE, has_result=True, result=2))
    assert (await asked).json()["result"] == 2


@pytest.mark.usefixtures("worker")
async def test_the_node_describes_itself(api) -> None:
    """The same page as /llms.txt, within the limit."""
    response = await api.get(f"{ACTIONS}/node")
    assert response.json()["instructions"] == (await api.get("/llms.txt")).text
    assert len(response.text) < LIMIT_CHARS


async def test_a_job_can_be_ended_early(api, worker) -> None:
    """Cancelling twice changes nothing."""
    told = (await api.post(f"{ACTIONS}/run", json={"code": "1", "wait_sec": 0})).json()
    await worker.lease()
    for _ in range(2):
        response = await api.post(f"{ACTIONS}/jobs/{told['job_id']}/cancel")
        assert response.status_code == 200
