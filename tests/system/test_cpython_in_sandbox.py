"""Safe must not mean crippled: CPython's own tests run inside the profile python-core.

A failure is allowed where the sandbox said in its own words that it refused (no programs, no processes, no
network), or where the short list in tests/support/cpython.py gives a reason. Everything else fails here.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from crank.domain.outcome import Reason
from crank.ports import ProfileBuild, SandboxSpec
from crank.sandbox.runner import NamespaceRunner
from crank.testing.contracts_sandbox import RecordingSink
from tests.support.cpython import JOB, has_same_python, mounts, why_expected
from tests.support.profiles import project_store

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("cpython")]

# Each within a second or two; together some ten thousand tests.
QUICK = [
    "test_json",
    "test_re",
    "test_dict",
    "test_list",
    "test_set",
    "test_unicode",
    "test_int",
    "test_float",
    "test_math",
    "test_cmath",
    "test_fractions",
    "test_random",
    "test_hashlib",
    "test_zlib",
    "test_bz2",
    "test_lzma",
    "test_struct",
    "test_datetime",
    "test_zoneinfo",
    "test_collections",
    "test_itertools",
    "test_functools",
    "test_threadedtempfile",
    "test_tempfile",
    "test_pathlib",
    "test_os",
    "test_csv",
    "test_sqlite3",
    "test_contextlib",
    "test_dataclasses",
    "test_enum",
    "test_copy",
    "test_heapq",
    "test_bisect",
    "test_mmap",
    "test_gzip",
    "test_glob",
    "test_fnmatch",
    "test_generators",
    "test_exceptions",
    "test_typing",
    "test_inspect",
    "test_string",
    "test_textwrap",
    "test_difflib",
    "test_base64",
    "test_binascii",
    "test_uuid",
    "test_secrets",
    "test_calendar",
    "test_time",
    "test_locale",
    "test_array",
    "test_bytes",
    "test_memoryview",
    "test_codecs",
    "test_configparser",
    "test_xml_etree",
    "test_html",
    "test_urlparse",
    "test_gc",
    "test_descr",
    "test_operator",
    "test_sort",
    "test_range",
    "test_slice",
    "test_tuple",
    "test_bool",
    "test_complex",
    "test_long",
    "test_format",
    "test_fstring",
    "test_grammar",
    "test_scope",
    "test_with",
    "test_coroutines",
    "test_asyncgen",
    "test_graphlib",
    "test_ipaddress",
    "test_numeric_tower",
    "test_pprint",
    "test_reprlib",
    "test_shelve",
    "test_select",
    "test_asyncio.test_futures",
    "test_asyncio.test_queues",
    "test_asyncio.test_locks",
    "test_asyncio.test_timeouts",
    "test_asyncio.test_runners",
    "test_shutil",
]
LONG = [
    "test_decimal",
    "test_statistics",
    "test_threading",
    "test_io",
    "test_pickle",
    "test_zipfile",
    "test_ast",
    "test_weakref",
    "test_asyncio.test_tasks",
    "test_asyncio.test_taskgroups",
]
_WALL_SEC = 240.0
MODULES = [*QUICK, *(pytest.param(module, marks=pytest.mark.soak) for module in LONG)]


@pytest.fixture(scope="module")
def core(builds: Path) -> ProfileBuild:
    """Give the profile python-core."""
    build = project_store(builds).find("python-core", "cpu")
    if build is None:
        pytest.skip("python-core is not built here: make profiles-small")
    if not mounts() or not has_same_python(build.profile.python):
        pytest.skip(
            "this interpreter has no `test` package (Debian: libpython3.11-testsuite), or is of another version"
        )
    return build


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runner() -> AsyncIterator[NamespaceRunner]:
    """Give one runner to all modules; each still runs in a sandbox of its own."""
    runner = NamespaceRunner()
    await runner.start()
    yield runner
    await runner.stop()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("module", MODULES)
async def test_cpythons_own_tests(runner: NamespaceRunner, core: ProfileBuild, module: str) -> None:
    """The module's tests pass inside the sandbox, apart from what it refuses by design."""
    limits = replace(core.profile.limits, wall_sec=_WALL_SEC)
    session = await runner.open(SandboxSpec(core, limits, mounts()))
    try:
        outcome = await session.run_python(JOB, {"module": module}, RecordingSink())
    finally:
        await session.close()
    assert outcome.end.reason is Reason.EXITED, (outcome.end, outcome.stderr.text[-2000:])
    assert isinstance(outcome.result, dict), outcome
    failed = [(test, told) for test, told in outcome.result["failed"]]
    assert [(test, told) for test, told in failed if why_expected(test, told) is None] == []
    # A module that is mostly refused would prove nothing.
    assert outcome.result["run"] - outcome.result["skipped"] > 2 * len(failed)
