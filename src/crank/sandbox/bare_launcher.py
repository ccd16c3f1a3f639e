"""The launcher of the tier `landlock`: the same closed list of requests, for a machine without user namespaces.

It makes no namespace and no mount, so it needs no privilege; started with the right to change ids, it gives
jobs an account that owns nothing else.
"""

import os
import socket

from crank.domain.json import JsonObject
from crank.sandbox import bare_nest, bundle, launcher, layers, seccomp
from crank.sandbox.bare_nest import BareSite
from crank.sandbox.folders import Allowed
from crank.sandbox.home import Home
from crank.sandbox.launcher import CHILDREN_MAX, Launcher
from crank.sandbox.namespaces import Identity, Slots
from crank.sandbox.nest import Nest, Site
from crank.sandbox.plan import Ground


class _OneAccount(Slots):
    """Every job is the same account: an unprivileged zygote cannot give its children another."""

    def __init__(self) -> None:
        super().__init__(privileged=False)

    @property
    def nest(self) -> Identity:
        """Return who zygotes and jobs are. Raises SandboxError."""
        return bare_nest.account()

    def claim(self) -> Identity:
        """Return who a job is."""
        return bare_nest.account()


class BareLauncher(Launcher):
    """Serves one worker until it goes away."""

    bare = True

    def __init__(self, link: socket.socket, allowed: Allowed, *, children_max: int = CHILDREN_MAX) -> None:
        super().__init__(link, allowed, children_max=children_max)
        self._slots = _OneAccount()
        self._facts: dict[Ground, JsonObject] = {}

    def _try_nest(self) -> None:
        files, start = self._inner_files("3.11")
        bare_nest.rehearse(BareSite(None, (), files, start, self._slots.nest, self._area))

    def _permissions(self, wanted: Ground) -> seccomp.Permissions:
        return bare_nest.permissions(super()._permissions(wanted))

    def _stand(self, wanted: Ground, site: Site) -> Nest:
        if site.root is None:
            raise layers.missing("mounts", "functions of worker authors need namespaces to be walled in")
        root = os.readlink(f"/proc/self/fd/{site.root}")
        programs, files = bare_nest.find_programs(root, wanted.programs)
        bare_site = BareSite(
            root=root,
            command=bare_nest.command(root, wanted.python),
            files=site.files,
            start=site.start.replace("start", bundle.BARE),
            identity=site.identity,
            argument_area=site.argument_area,
            devices=site.devices,
            programs=programs,
        )
        libraries = bare_nest.folders_of_libraries(root)
        self._facts[wanted] = {
            "site": bare_nest.within(root, wanted.site),
            "bare": {"root": root, "libraries": libraries, "programs": files},
        }
        return bare_nest.raise_nest(bare_site)

    def _told(self, wanted: Ground) -> JsonObject:
        return self._facts[wanted]

    def _detach(self, opened: list[int], home: Home, identity: Identity) -> list[int]:
        """Pass mounted folders on as they are: nothing can be laid over them here."""
        return [os.dup(folder) for folder in opened]


def main(descriptor: int, roots: list[str] | None, register: str | None, children_max: int = CHILDREN_MAX) -> None:
    """Serve the worker at the other end of this descriptor; see `crank.sandbox.launcher.main`."""
    launcher.main(descriptor, roots, register, children_max, kind=BareLauncher)
