"""A job's input files on their way into its sandbox."""

import hashlib
from typing import BinaryIO

from tests.support.bench import Rig, lease_file, running, sample_lease
from tests.support.staged_sandbox import Stage

from crank.domain.ids import Digest
from crank.domain.outcome_codec import parse_outcome
from crank.testing.fake_spool import MemorySpool


async def _repeat(stage: Stage) -> None:
    stage.out.update(stage.files)


class _CountingSpool(MemorySpool):
    def __init__(self) -> None:
        super().__init__()
        self.scratches = 0

    def scratch(self) -> BinaryIO:
        """Count the files that are opened."""
        self.scratches += 1
        return super().scratch()


async def test_many_input_files_take_one_descriptor() -> None:
    """However many files come in, one scratch file holds them, and each is whole in the sandbox, empty ones too."""
    contents = {f"{number}.txt": b"x" * number for number in range(300)}
    spool = _CountingSpool()
    async with running(Rig({"repeat": _repeat}, spool=spool)) as rig:
        files = []
        for path, content in contents.items():
            digest = Digest(hashlib.sha256(content).hexdigest())
            rig.connector.blobs[digest] = content
            files.append(lease_file(path, content, digest))
        controller = await rig.accept()
        await controller.welcome()
        await controller.send(sample_lease("repeat", files=files))
        outcome = parse_outcome((await controller.finished()).outcome)
        left = {each.path: rig.connector.blobs[each.sha256] for each in outcome.artifacts}
        assert left == contents
        assert spool.scratches == 1
