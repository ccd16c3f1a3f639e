"""Mounts and the register that a launcher believes: what a job may be leased with stands in it, and nothing else."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from crank.adapters.mount_register import FileMountRegister
from crank.controller import mounts
from crank.controller.desk import Desk
from crank.domain.ids import LOCAL_TENANT, MountId
from crank.domain.job import Mount
from crank.errors import Conflict, NotFound, Unavailable
from tests.support.desk import open_desk


class _Refusing:
    """A register on a disk that is full."""

    def write(self, paths: Sequence[str]) -> None:
        raise Unavailable("The register cannot be written.", code="mounts_not_registered")


class _Watching:
    """A register that remembers which of the store's mounts were there when it was written."""

    def __init__(self) -> None:
        self.lists: list[list[str]] = []

    def write(self, paths: Sequence[str]) -> None:
        self.lists.append(sorted(paths))


async def _add(desk: Desk, folder: Path, name: str | None = None) -> Mount:
    folder.mkdir(exist_ok=True)
    return await mounts.add(desk, tenant=LOCAL_TENANT, subject="local", path=str(folder), name=name)


async def test_the_register_follows_the_store(tmp_path: Path) -> None:
    """Added folders appear by their real paths, a removed one vanishes, and a start writes what the store holds."""
    register = tmp_path / "mounts.json"
    (tmp_path / "state").mkdir()
    async with open_desk(tmp_path / "state") as plain:
        desk = replace(plain, mount_register=FileMountRegister(register))
        first = await _add(desk, tmp_path / "first")
        (tmp_path / "link").symlink_to(tmp_path / "second")
        (tmp_path / "second").mkdir()
        await mounts.add(desk, tenant=LOCAL_TENANT, subject="local", path=str(tmp_path / "link"), name="two")
        assert json.loads(register.read_text()) == [str(tmp_path / "first"), str(tmp_path / "second")]
        await mounts.remove(desk, tenant=LOCAL_TENANT, subject="local", mount_id=first.mount_id)
        assert json.loads(register.read_text()) == [str(tmp_path / "second")]
        register.unlink()
        await mounts.register_all(desk)
        assert json.loads(register.read_text()) == [str(tmp_path / "second")]


async def test_a_folder_is_registered_before_it_can_be_leased(tmp_path: Path) -> None:
    """The register has the folder before the store has the mount; what the store then refuses leaves it again."""
    (tmp_path / "state").mkdir()
    async with open_desk(tmp_path / "state") as plain:
        watching = _Watching()
        desk = replace(plain, mount_register=watching)
        await _add(desk, tmp_path / "first", "papers")
        with pytest.raises(Conflict):
            await _add(desk, tmp_path / "other", "papers")
        first, other = str(tmp_path / "first"), str(tmp_path / "other")
        assert watching.lists == [[first], [first, other], [first]]


async def test_without_a_register_there_is_no_mount(tmp_path: Path) -> None:
    """A folder that could not be registered is not added: a job with it could only fail."""
    (tmp_path / "state").mkdir()
    async with open_desk(tmp_path / "state") as plain:
        desk = replace(plain, mount_register=_Refusing())
        with pytest.raises(Unavailable):
            await _add(desk, tmp_path / "first")
        assert await mounts.list_mounts(desk, tenant=LOCAL_TENANT) == []


async def test_an_unknown_mount_is_not_found(tmp_path: Path) -> None:
    """Removing what is not there says so and leaves the register as it was."""
    async with open_desk(tmp_path) as plain:
        watching = _Watching()
        desk = replace(plain, mount_register=watching)
        with pytest.raises(NotFound):
            await mounts.remove(desk, tenant=LOCAL_TENANT, subject="local", mount_id=MountId("m-none"))
        assert watching.lists == []
