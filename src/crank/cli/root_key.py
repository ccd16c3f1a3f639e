"""`crank identity root-key move`: take the root's key to where it is kept offline. Works without a running node."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from crank.bootstrap.root_keys import take_offline
from crank.cli.exit_codes import ExitCode
from crank.cli.show import harmless, print_json, say
from crank.config import load

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]


def root_key(
    step: Annotated[Literal["move"], Parameter(help="What to do with it.")],
    folder: Annotated[Path, Parameter(name="DIR", help="A folder on a medium that you take away.")],
    /,
    *,
    same_disk: Annotated[
        bool,
        Parameter(
            help="Move it although the folder lies on the node's own file system, where it is not offline.",
            negative=(),
            show_default=False,
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Move the keys of this node's roots away from it: copied, read back, proved, and only then removed here.

    The node never reads them, so nothing of it changes, whether it runs or not. Cut off anywhere, say it again.
    """
    moved, offline = take_offline(load(), folder, same_disk=same_disk)
    if json:
        shown = [{"root": each.mark, "from": str(each.origin), "to": str(each.target)} for each in moved]
        print_json({"moved": shown, "offline": offline})
        return ExitCode.OK
    for each in moved:
        print(harmless(str(each.target)))
    if not moved:
        say("no root key lies beside the node")
    elif offline:
        say("take that medium away: whoever has such a key can be your node")
    else:
        say("this is not offline: it lies on the same file system as the node; take it to a medium that you keep elsewhere")
    return ExitCode.OK
