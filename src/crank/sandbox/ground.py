"""Opening what a ground shows of the host: a profile's root, or the layers that an author's module stands on."""

import os
from collections.abc import Iterable, Mapping

from crank.sandbox import libraries, mounts
from crank.sandbox.folders import Allowed
from crank.sandbox.namespaces import Identity
from crank.sandbox.nest import Site
from crank.sandbox.plan import Ground


def open_site(
    ground: Ground,
    allowed: Allowed,
    *,
    inner: tuple[Mapping[str, bytes], str],
    identity: Identity,
    argument_area: tuple[int, int],
) -> Site:
    """Open every file and folder of a ground; the caller closes them with `close`. Raises SandboxError.

    inner  the files of /.crank, and which of them starts
    """
    files, start = inner
    if ground.root is not None:
        root = allowed.open_root(ground.root)
        return Site(root, ground.devices, ground.python, files, start, identity, argument_area)
    system, links = libraries.find([place for place, _ in ground.layers if not libraries.comes_anyway(place)])
    layers = {place: os.open(place, os.O_PATH | os.O_CLOEXEC) for place in system}
    private = set()
    try:
        for place, path in ground.layers:
            if libraries.lies_in(place, system):
                continue
            layers[place] = allowed.open_layer(path)
            # Without privilege everything runs as whoever owns it.
            if identity.privileged and mounts.is_private(layers[place]):
                private.add(place)
    except BaseException:
        close(layers.values())
        raise
    return Site(
        None, ground.devices, ground.python, files, start, identity, argument_area, layers, frozenset(private), links
    )


def close(descriptors: Iterable[int]) -> None:
    """Close every one."""
    for descriptor in descriptors:
        os.close(descriptor)
