"""The runner of the tier `namespaces`: starts the launcher, proves the walls, opens sessions."""

import asyncio
import itertools
import os
import secrets

from crank.errors import NotSupported, SandboxError
from crank.ports import PoolCount, SandboxSession, SandboxSpec
from crank.sandbox.link import LauncherLink, launch, rehearse
from crank.sandbox.plan import Plan, to_json
from crank.sandbox.session import TIER, NamespaceSession


class NamespaceRunner:
    """Runs each job in a fresh process behind namespaces, mounts, Landlock, a filter, limits and a control group.

    link  a launcher that was started before the worker gave up its privilege; without one, the runner
          starts its own, and starts another if it is lost
    """

    tier = TIER

    def __init__(self, link: LauncherLink | None = None) -> None:
        self._link = link
        self._own_link = link is None
        # A launcher that was handed over may serve more than one runner.
        self._name = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._sessions: set[NamespaceSession] = set()
        self._starting = asyncio.Lock()
        self._stopped = False

    async def start(self) -> None:
        """Prove that the sandbox works here. Raises SandboxError that names the missing layer."""
        await asyncio.to_thread(rehearse, await self._living_link())

    async def open(self, spec: SandboxSpec) -> SandboxSession:
        """Prepare a session: on return its walls stand and were tried from inside. Raises SandboxError."""
        if spec.lasting:
            raise NotSupported("This version of the sandbox keeps no session between jobs.", field="session")
        session = NamespaceSession(spec.limits)
        self._sessions.add(session)
        folders: list[int] = []
        try:
            plan = self._plan(spec)
            folders += _open_folders(spec)
            link = await self._living_link()
            link.request({"kind": "open", "plan": to_json(plan)}, [session.channel.theirs.fileno(), *folders])
            # The supervisor has its own copy; with this one open, its death would go unseen.
            session.channel.theirs.close()
            await session.stand()
        except BaseException:
            self._sessions.discard(session)
            session.channel.close()
            raise
        finally:
            for descriptor in folders:
                os.close(descriptor)
        self._sessions = {known for known in self._sessions if known.channel.is_open}
        return session

    def pools(self) -> tuple[PoolCount, ...]:
        """Return what is kept ready: nothing, each sandbox is raised for its job."""
        return ()

    async def stop(self) -> None:
        """Kill every session and the launcher. Safe to call twice."""
        self._stopped = True
        await asyncio.gather(*(session.close() for session in self._sessions))
        self._sessions.clear()
        if self._link is not None:
            await asyncio.to_thread(self._link.close)
            self._link = None

    def _plan(self, spec: SandboxSpec) -> Plan:
        profile = spec.build.profile
        return Plan(
            session=f"{self._name}-{next(self._numbers)}",
            python=spec.build.python,
            version=profile.python,
            site=spec.build.site,
            processes=bool(profile.programs),
            preimports=profile.preimports,
            mounts=tuple(mount.name for mount in spec.mounts),
            devices=spec.devices,
            limits=spec.limits,
        )

    async def _living_link(self) -> LauncherLink:
        async with self._starting:
            if self._stopped:
                raise SandboxError("The sandbox runner is stopped.", code="runner_stopped")
            if self._link is not None and not self._link.alive and self._own_link:
                await asyncio.to_thread(self._link.close)
                self._link = None
            if self._link is None:
                self._link = await asyncio.to_thread(launch)
            return self._link


def _open_folders(spec: SandboxSpec) -> list[int]:
    """Open the profile's root and the mounts: what this process may not read, the job shall not see."""
    opened: list[int] = []
    named = [("the profile", spec.build.rootfs), *((mount.name, mount.host_path) for mount in spec.mounts)]
    for name, path in named:
        try:
            opened.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except OSError as fault:
            for descriptor in opened:
                os.close(descriptor)
            raise SandboxError(
                f"The folder of {name} cannot be opened: {fault.strerror}.",
                code="folder_missing",
                fix="Check that the folder exists and that the worker's account may read it.",
                detail=str(path),
            ) from fault
    return opened
