"""CPython's own tests as jobs: where they are, what runs them, and which failures a sandbox explains.

The profile's root holds no `test` package, so the one of the interpreter that runs our tests is mounted. Extension
modules that exist for tests alone (`_testcapi`) stay out: nothing in a mount can be executed.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from crank.ports import MountBinding

_LIBRARY = Path(sys.base_prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"

# Runs one module of the package `test` and gives every failure with the last line of its traceback.
JOB = """
import io, os, sys, unittest

sys.path.insert(0, "/in")
sys.dont_write_bytecode = True
os.chdir("/tmp")
suite = unittest.defaultTestLoader.loadTestsFromName("test." + args["module"])
done = unittest.TextTestRunner(stream=io.StringIO(), verbosity=0).run(suite)
{
    "run": done.testsRun,
    "skipped": len(done.skipped),
    "failed": [[test.id(), trace.strip().splitlines()[-1][:300]] for test, trace in done.failures + done.errors],
}
"""

# What a failure says when the sandbox refused, in its own words, what this profile does not allow,
# or when a test needs an extension module that exists for tests alone.
BY_DESIGN = (
    "_testcapi",
    "_testinternalcapi",
    "_testbuffer",
    "This profile starts no programs",
    "This profile starts no processes",
    "The network is closed by design",
)


@dataclass(frozen=True, slots=True)
class Known:
    """Failures that the sandbox's walls or the profile's content explain: part of a test's id, and why."""

    test: str
    reason: str


KNOWN = (
    Known("test_json.test_tool", "starts Python as a program"),
    Known("test_unpickle_module_race", "writes modules beside the mounted tests, which are read-only"),
    Known("test_os.ChownFileTests.test_chown_without_permission", "an id that the job's user namespace does not map is EINVAL"),
    Known("test_os.TestInvalidFD.test_tcsetpgrp", "the filter answers ENOTTY before the descriptor is looked at"),
    Known("test_os.FDInheritanceTests.test_openpty", "there are no terminals"),
    Known("test_os.FileTests.test_splice", "splice has been a way into the page cache; the filter refuses it"),
    Known("test_os.TestSendfile", "needs a server on a socket"),
    Known("test_large_file_ops", "writes 2 GiB; the profile's files end at 256 MiB"),
    Known("PathTest.test_is_socket_true", "binds a Unix socket"),
    Known("test_zoneinfo", "the profile's tzdata is newer than what these tests expect of old times"),
    Known("test_shutil.TestWhich", "nothing in /tmp can be executed"),
    Known("test_ast.ASTValidatorTests.test_stdlib_validates", "looks for tests beside the standard library"),
)


def why_expected(test: str, told: str) -> str | None:
    """Return why a failure is expected, or None."""
    for words in BY_DESIGN:
        if words in told:
            return words
    return next((known.reason for known in KNOWN if known.test in test), None)


def mounts() -> tuple[MountBinding, ...]:
    """Return what a job needs to see, empty where this interpreter has no test package."""
    if not (_LIBRARY / "test" / "test_json").is_dir():
        return ()
    return (MountBinding("test", _LIBRARY / "test"),)


def has_same_python(interpreter_version: str) -> bool:
    """Tell whether a profile's interpreter is of our own version, so that its tests are the right ones."""
    return interpreter_version == f"{sys.version_info.major}.{sys.version_info.minor}"
