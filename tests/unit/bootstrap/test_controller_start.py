"""What a controller loads when it starts."""

import subprocess
import sys


def test_a_protocol_that_is_off_is_not_loaded() -> None:
    """The controller's module loads nothing of E2B: it does so where CRANK_E2B is on, and nobody else waits for it."""
    look = (
        "import sys, crank.bootstrap.controller\n"
        "print([name for name in sys.modules if 'e2b' in name or name == 'crank.controller.boxes'])"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
