"""Following a job: what is told, and to whom no longer."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from crank.controller.follow import events
from crank.controller.keys import KeyWanted, mint, revoke
from crank.controller.scope import desk_for
from crank.controller.submit import Submission, submit
from crank.controller.watch import Watch
from crank.domain.credential import OWNER_SUBJECT
from crank.domain.ids import LOCAL_TENANT, JobId
from crank.errors import NotAuthenticated
from crank.ports import StreamLog
from crank.wire import JobEvent
from tests.support.desk import ScriptedWorker, open_desk
from tests.unit.domain.rules.builders import CORE


class _Chatter:
    """The output of a job that never pauses: however far somebody has read, there is more."""

    async def read(self, job_id: JobId, after: int, count: int) -> Sequence[tuple[int, JobEvent]]:
        """Return one event."""
        return [(after + 1, JobEvent(1, after + 1, "stdout", "x", after, None, 0))]


async def test_a_revoked_key_stops_hearing_a_job_that_never_pauses(tmp_path: Path) -> None:
    """Output without end gives no credential more time: after a revocation what was read already is all that it gets."""
    async with open_desk(tmp_path) as whole:
        await ScriptedWorker(whole, "w1", [CORE]).connect()
        owner = replace(whole, streams=cast(StreamLog, cast(Any, _Chatter())))
        made = await mint(owner, tenant=LOCAL_TENANT, subject=OWNER_SUBJECT, wanted=KeyWanted("mine"))
        own = desk_for(owner, made.credential)
        submission = Submission({"code": "1"})
        job = (await submit(own, tenant=LOCAL_TENANT, subject=made.credential.subject, submission=submission)).job
        following = events(own, tenant=LOCAL_TENANT, job_id=job.job_id, after=0)
        kinds = [(await anext(following))[1] for _ in range(9)]
        assert kinds[0] == "status"
        assert kinds.count("stdout") >= 4
        await revoke(owner, tenant=LOCAL_TENANT, subject=OWNER_SUBJECT, key=made.credential.credential_id)
        with pytest.raises(NotAuthenticated):
            # What was read already may follow the last status.
            assert (await anext(following))[1] == "stdout"
            await anext(following)


def test_whoever_waits_for_the_end_sleeps_until_it_may_be_there() -> None:
    """Output and a start wake those who follow, and not those who wait for the end; a change that may be one wakes all."""
    watch = Watch()
    with watch.on(LOCAL_TENANT, "j", ends=True) as end, watch.on(LOCAL_TENANT, "j") as all_of_it:
        watch.moved(LOCAL_TENANT, "j")
        assert (end.is_set(), all_of_it.is_set()) == (False, True)
        watch.changed(LOCAL_TENANT, "j")
        assert end.is_set()
    assert not watch.has(LOCAL_TENANT, "j")
