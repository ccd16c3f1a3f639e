"""A stranger's fuzzer reads the OpenAPI document and finds no answer that the document does not allow."""

import asyncio
import contextlib
import threading
from dataclasses import dataclass, replace

import pytest
import schemathesis
from hypothesis import HealthCheck, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.support.desk import SECRET, open_desk
from tests.support.listeners import authority, open_listeners
from tests.support.pair import paired

CHECKS = [
    not_a_server_error,
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
]


OPERATIONS = 60


@dataclass
class Served:
    """Where the API is served, and the authority that its callers trust."""

    url: str
    ca_file: str


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Serve the whole API over TLS from a thread of its own."""
    ready: list[Served] = []
    stopping: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    opened = threading.Event()

    async def main() -> None:
        stop = asyncio.Event()
        folder = tmp_path_factory.mktemp("desk")
        issuer = authority(folder / "authority")
        issuer.ensure()
        async with contextlib.AsyncExitStack() as stack:
            desk = replace(await stack.enter_async_context(open_desk(folder, issuer=issuer, lease_sec=600.0)), roots=issuer)
            listeners = await stack.enter_async_context(open_listeners(desk, folder / "identities"))
            ready.append(Served(f"https://127.0.0.1:{listeners.api_port}", str(listeners.authority.ca_file)))
            stopping.append((asyncio.get_running_loop(), stop))
            # A whole worker, so that answers with an end, and those of sessions, are judged as well.
            async with paired(desk, {}):
                opened.set()
                await stop.wait()

    running = threading.Thread(target=lambda: asyncio.run(main()))
    running.start()
    assert opened.wait(30)
    yield ready[0]
    stopping[0][0].call_soon_threadsafe(stopping[0][1].set)
    running.join(30)


def explore_all(served: Served, document: str, checks: list, examples: int) -> int:
    """Try every operation of a document with the checks; return how many there are."""
    headers = {"Authorization": f"Bearer {SECRET}"}
    schema = schemathesis.openapi.from_url(f"{served.url}{document}", verify=served.ca_file)
    results = list(schema.get_all_operations())
    operations = [result.ok() for result in results if isinstance(result, Ok)]
    assert len(operations) == len(results)
    for operation in operations:

        @seed(1)
        @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def explore(case):
            case.call_and_validate(headers=headers, verify=served.ca_file, checks=checks)

        explore()
    return len(operations)


def test_every_operation_keeps_the_documents_promises(served: Served):
    """No defect, and no status, media type, body or header beside what the document says."""
    assert explore_all(served, "/openapi.json", CHECKS, 15) == OPERATIONS


def test_every_action_keeps_its_documents_promises(served: Served):
    """The GPT Actions too: whatever ChatGPT sends, the answer has the shape of its document, and nobody else gets one."""
    # Refusals are problem documents, which the short document for ChatGPT does not describe.
    checks = [not_a_server_error, ignored_auth, response_schema_conformance]
    assert explore_all(served, "/openapi/actions.json", checks, 10) == 8
