"""What Claude Desktop starts from the bundle: it finds `crank` on this machine and becomes `crank mcp`.

The bundle carries no Crank and no secret. This program runs under whatever Python the host has, so it needs nothing.
"""

import os
import shutil
import sys
from pathlib import Path

# Where installers put commands; a host that was not started from a shell has them on no path.
PLACES = ("~/.local/bin/crank", "~/.local/share/crank/venv/bin/crank", "/usr/local/bin/crank", "/opt/crank/bin/crank")


def said(name):
    """Return what the person set in the bundle's settings; a host may hand on an unset one as it stands in the manifest."""
    value = os.environ.pop(name, "").strip()
    return "" if value.startswith("${") else value


def find(wanted):
    """Return the path of the command, or None."""
    places = [wanted] if wanted else [shutil.which("crank"), *PLACES]
    found = (Path(place).expanduser() for place in places if place)
    return next((str(path) for path in found if path.is_file() and os.access(path, os.X_OK)), None)


def main():
    """Become `crank mcp`, or say what is missing where the host's log shows it."""
    wanted, home = said("CRANK_COMMAND"), said("CRANK_HOME")
    command = find(wanted)
    if command is None:
        print(f"crank is not at {wanted or 'any usual place'}: install it, or name it in the extension's settings.", file=sys.stderr)
        return 3
    if home:
        os.environ["CRANK_HOME"] = home
    os.execv(command, [command, "mcp"])  # noqa: S606 - no shell, and the command is the person's own
    return 1


if __name__ == "__main__":
    sys.exit(main())
