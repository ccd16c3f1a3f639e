"""What the launcher adds to a sandbox that stands on layers of the host: the shared libraries, from a closed list.

An author's interpreter is the host's own, so it is linked with the host's libraries. None of this is secret
or writable; the caller has no say in it.
"""

import os
from collections.abc import Collection

_FOLDERS = (
    *("/lib", "/lib32", "/lib64", "/libx32", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32"),
    *("/usr/share/zoneinfo", "/etc/ssl/certs"),
)
_FILES = ("/etc/ld.so.cache", "/etc/ssl/openssl.cnf", "/etc/mime.types")


def lies_in(path: str, places: Collection[str]) -> bool:
    """Tell whether a path is one of these places, or beneath one."""
    return any(path == place or path.startswith(f"{place}/") for place in places)


def comes_anyway(place: str) -> bool:
    """Tell whether a place is on the list, or beneath one that is."""
    return lies_in(place, _FOLDERS)


def find(taken: Collection[str] = ()) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return what there is of the list: folders and files, and links in the root by name.

    taken  places whose content comes with something else
    """
    places, links = [], {}
    for path in (*_FOLDERS, *_FILES):
        if lies_in(path, taken) or not os.path.exists(path):
            continue
        if os.path.islink(path) and path.count("/") == 1:
            links[path.lstrip("/")] = os.readlink(path)
        else:
            places.append(path)
    return tuple(places), links
