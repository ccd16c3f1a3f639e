"""`crank down` and `crank node info`."""

from typing import Annotated, Any

from cyclopts import Parameter

from crank.bootstrap.node import node_info, stop_node, with_key
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
    settings = load()
    document = with_key(node_info(settings), settings)
    if json:
        print_json(document)
    else:
        for name, value in document.items():
            print(f"{name:18} {_plain(value)}")
    return ExitCode.OK


def _plain(value: Any) -> str:
    """Write a value for a person: of the worker's walls those that stand, and those that do not."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return ", ".join(each["layer"] if each["holds"] else f"no {each['layer']}" for each in value)
    if isinstance(value, dict) and "env" in value:
        return " ".join(f"{name}={text}" for name, text in value["env"].items())
    return str(value)
