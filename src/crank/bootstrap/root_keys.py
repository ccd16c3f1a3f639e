"""Root keys, taken to where they are kept offline. Done on the node's own files: the node never reads them."""

from collections.abc import Sequence
from pathlib import Path

from crank.adapters.authority.offline import MovedKey, move_root_keys
from crank.adapters.failpoints import make_failpoints
from crank.config import Settings


def take_offline(settings: Settings, place: Path, *, same_disk: bool) -> tuple[Sequence[MovedKey], bool]:
    """Move every root key to a folder; tell which, and whether it is on another file system. Raises as `move_root_keys`."""
    return move_root_keys(
        settings.authority_dir,
        place,
        home=settings.home,
        same_disk=same_disk,
        failpoints=make_failpoints(settings.failpoints),
    )
