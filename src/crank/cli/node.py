"""`crank down` and `crank node info`."""

from typing import Annotated

from cyclopts import Parameter

from crank.bootstrap.node import node_info, stop_node
from crank.cli.exit_codes import ExitCode
from crank.cli.show import print_json, say
from crank.config import load

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]


def down(*, json: Json = False) -> int:
    """Stop the node; its worker finishes what it runs first."""
    document = stop_node(load())
    if json:
        print_json({"stopped": True, "home": document["home"], "pid": document["pid"]})
    else:
        say(f"node stopped (home {document['home']})")
    return ExitCode.OK


def info(*, json: Json = False) -> int:
    """Tell where the running node is."""
    document = node_info(load())
    if json:
        print_json(document)
    else:
        for name, value in document.items():
            print(f"{name:15} {value}")
    return ExitCode.OK
