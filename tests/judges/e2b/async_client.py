"""E2B's own asynchronous Python client, unmodified."""

import asyncio

from checks import arun, check
from e2b import CommandExitException
from e2b_code_interpreter import AsyncSandbox


@check
async def code_runs(box):
    seen = []
    made = await box.run_code("print('a')\n6 * 7", on_stdout=lambda message: seen.append(message.line))
    assert made.text == "42"
    assert seen == ["a\n"]
    assert (await box.run_code("1 / 0")).error.name == "ZeroDivisionError"
    other = await box.create_code_context(cwd="/tmp")
    assert (await box.run_code("import os; os.getcwd()", context=other)).text == "/tmp"


@check
async def files_and_folders_are_watched(box):
    events = []
    watching = await box.files.watch_dir("/home/user", on_event=events.append)
    await box.files.write("x/y.txt", "z")
    assert await box.files.read("x/y.txt") == "z"
    for _ in range(100):
        if events:
            break
        await asyncio.sleep(0.1)
    await watching.stop()
    assert any(event.name == "x" for event in events), events


@check
async def commands_run_together(box):
    done = await asyncio.gather(*(box.commands.run(f"sleep 0.5; echo {n}") for n in range(5)))
    assert [each.stdout for each in done] == [f"{n}\n" for n in range(5)]
    try:
        await box.commands.run("exit 4")
    except CommandExitException as fault:
        assert fault.exit_code == 4
    else:
        raise AssertionError("no exit")


@check
async def it_ends(box):
    assert await box.kill()
    assert not await box.is_running()


async def main():
    await arun(await AsyncSandbox.create(timeout=120))


asyncio.run(main())
