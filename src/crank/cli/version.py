"""`crank version`."""

import platform
from typing import Annotated

from cyclopts import Parameter

from crank import __version__
from crank.cli.exit_codes import ExitCode
from crank.cli.show import print_json

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]


def version(*, json: Json = False) -> int:
    """Print the version."""
    if json:
        print_json({"version": __version__, "python": platform.python_version()})
    else:
        print(f"crank {__version__}")
    return ExitCode.OK
