"""What the bridge reads of a host's messages, and how it writes them on."""

import json

import pytest

from crank.client.mcp_messages import VERSION_KEY, error, read_envelope, renamed
from crank.errors import InvalidRequest, Unavailable


def line(**fields):
    """Return a message as a host writes it."""
    return json.dumps({"jsonrpc": "2.0", **fields}).encode()


def test_a_message_of_the_newer_era_is_mirrored_in_headers():
    """Version, method and name of a message stand in its headers, as the protocol wants."""
    params = {"_meta": {VERSION_KEY: "2026-07-28"}, "name": "run_python"}
    headers = read_envelope(line(id=1, method="tools/call", params=params)).headers()
    assert headers == {
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": "run_python",
    }


@pytest.mark.parametrize("name", ["crank://jobs/1/files/größe.txt", " edge ", "a\r\nx: y", "", "=?base64?eA==?="])
def test_no_name_breaks_a_header(name):
    """A name that no header could carry is wrapped, so that nothing is smuggled into the request."""
    params = {"_meta": {VERSION_KEY: "2026-07-28"}, "uri": name}
    value = read_envelope(line(id=1, method="resources/read", params=params)).headers()["mcp-name"]
    assert value.startswith("=?base64?")
    assert value.isascii()
    assert "\n" not in value


def test_a_message_of_the_older_era_has_no_headers():
    """Without a version in it, a message says nothing in headers; the session does."""
    assert read_envelope(line(id=1, method="tools/list")).headers() == {}


@pytest.mark.parametrize(
    "raw",
    [b"[]", b"5", b"{}", line(id=1), line(id=True, method="x"), line(id=1.5, method="x"), line(id=None, method="x"),
     line(id=1, method=5), line(id=1, method="x", params=[]), b"{", b"\xff", b'{"id":1,"id":2,"method":"x"}'],
)  # fmt: skip
def test_what_is_no_message_is_refused(raw):
    """Anything but one well-formed message is refused, so that the node never sees it."""
    with pytest.raises(InvalidRequest):
        read_envelope(raw)


def test_a_cancelling_names_its_request():
    """Only the notification for it cancels, and only by an id that requests can have."""
    cancelling = read_envelope(line(method="notifications/cancelled", params={"requestId": "a"}))
    assert (cancelling.kind, cancelling.cancels) == ("notification", "a")
    assert read_envelope(line(method="notifications/cancelled", params={"requestId": True})).cancels is None
    assert read_envelope(line(id=1, method="tools/list", params={"requestId": "a"})).cancels is None


def test_an_error_says_what_to_do():
    """What the node could not be asked comes as an error with a code, a sentence and a fix."""
    told = json.loads(error("7", Unavailable("No node runs.", code="node_not_running", fix="Start one.")))
    assert (told["id"], told["error"]["data"]) == ("7", {"code": "node_not_running", "fix": "Start one."})
    assert told["error"]["message"] == "No node runs. Start one."


def test_an_answer_gets_the_hosts_id():
    """An answer is told under the id of the request; what is none is not."""
    assert json.loads(renamed({"jsonrpc": "2.0", "id": None, "error": {}}, 3) or b"") == {
        "jsonrpc": "2.0", "id": 3, "error": {},
    }  # fmt: skip
    assert renamed({"title": "Unauthorized"}, 3) is None
    assert renamed([], 3) is None
