"""Where this machine's mounts lie. The API tells nobody a path; who may read the node's home may know."""

import json
from pathlib import Path

from crank.bootstrap.files import node_id
from crank.config import Settings
from crank.domain.ids import make_mount_id
from crank.errors import ConfigurationError, NotFound


def folder_of_mount(settings: Settings, mount_id: str) -> Path:
    """Return the folder of a mount of this node.

    Raises NotFound when it is another node's or was removed, ConfigurationError when the home cannot be read.
    """
    try:
        paths = json.loads(settings.mounts_register.read_bytes())
    except FileNotFoundError:
        paths = []
    except (OSError, ValueError) as fault:
        raise ConfigurationError(
            "The node's list of mounts cannot be read here.",
            code="mounts_unreadable",
            fix="Run this as the user whose node it is, or name the folder itself in --to.",
            detail=repr(fault),
        ) from fault
    here = node_id(settings)
    for path in paths:
        if make_mount_id(here, path) == mount_id:
            return Path(path)
    raise NotFound(
        "This mount is not a folder of this machine.",
        code="mount_not_found",
        fix="Name the folder itself in --to.",
    )
