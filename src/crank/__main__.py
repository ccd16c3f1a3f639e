"""Entry point of `crank` and of `python -m crank`."""

import os
import sys


def main() -> int:
    """Run the command line and return its exit code."""
    from crank.cli.main import main as run_command

    try:
        return run_command()
    except BrokenPipeError:
        # Whoever read our output left (`crank job list | head`): that is no fault. Python would
        # complain once more when it flushes at exit, so give it a sink.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
