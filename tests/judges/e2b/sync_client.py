"""E2B's own Python client, unmodified, told where to go by environment variables alone."""

import io
import time
import urllib.request

from checks import check, raises, run
from e2b import CommandExitException, FileType, PtySize
from e2b.exceptions import (
    InvalidArgumentException,
    NotFoundException,
    SandboxException,
    SandboxNotFoundException,
    TimeoutException,
)
from e2b_code_interpreter import Sandbox


@check
def state_is_kept_and_counted(box):
    first = box.run_code("x = 1\nprint('hi')\nx + 1")
    assert (first.text, first.logs.stdout, first.logs.stderr, first.error) == ("2", ["hi\n"], [], None)
    second = box.run_code("x += 5; x")
    assert second.text == "6"
    assert second.execution_count == first.execution_count + 1
    assert box.run_code("'a text'").text == "a text"


@check
def an_error_is_named_and_traced(box):
    error = box.run_code("def f():\n    return 1 / 0\nf()").error
    assert (error.name, error.value) == ("ZeroDivisionError", "division by zero")
    assert "return 1 / 0" in error.traceback
    assert "guest" not in error.traceback
    assert box.run_code("def f(:").error.name == "SyntaxError"
    assert box.run_code("input()").error.name == "EOFError"
    assert box.run_code("import sys; sys.exit(3)").error.name == "SystemExit"
    assert box.run_code("x").text == "6"


@check
def variables_of_one_call_do_not_leak(box):
    look = "import os; (os.environ.get('ALL'), os.environ.get('ONE'), os.environ['HOME'], os.getcwd())"
    assert box.run_code(look, envs={"ONE": "1"}).text == "('everywhere', '1', '/home/user', '/home/user')"
    assert box.run_code(look).text == "('everywhere', None, '/home/user', '/home/user')"
    done = box.commands.run("echo $ALL $ONE; pwd", envs={"ONE": "2"}, cwd="/tmp")
    assert done.stdout == "everywhere 2\n/tmp\n"
    assert box.commands.run("echo $ALL $ONE; pwd; whoami").stdout == "everywhere\n/home/user\nuser\n"


@check
def output_arrives_before_the_end(box):
    began, seen = time.monotonic(), []
    box.run_code(
        "import time\nfor n in range(3):\n    print(n)\n    time.sleep(2)",
        on_stdout=lambda message: seen.append((message.line, time.monotonic() - began)),
    )
    total = time.monotonic() - began
    # In how many pieces is nobody's promise.
    assert "".join(line for line, _ in seen) == "0\n1\n2\n"
    assert seen[0][1] < total - 1.2
    began, seen = time.monotonic(), []
    box.commands.run("echo first; sleep 4; echo second", on_stdout=lambda text: seen.append(time.monotonic() - began))
    assert len(seen) == 2
    assert seen[1] - seen[0] > 1


@check
def results_are_rich(box):
    code = (
        "from IPython.display import HTML, JSON, Javascript, Latex, Markdown, SVG, display\n"
        "display(HTML('<b>x</b>'), Markdown('# m'), SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'), Latex('$x$'))\n"
        "display(JSON({'a': 1}), Javascript('1'))\n"
        "class Pdf:\n    def _repr_pdf_(self): return b'%PDF'\n"
        "display(Pdf())\n"
        "from PIL import Image\nImage.new('RGB', (4, 4))"
    )
    made = box.run_code(code)
    assert made.error is None, made.error
    forms = {form for result in made.results for form in result.formats()}
    assert forms >= {"html", "markdown", "svg", "latex", "json", "javascript", "pdf", "png", "jpeg"}, forms
    assert made.results[-1].is_main_result
    assert made.results[-1].png.startswith("iVBOR")
    table = box.run_code("import pandas as pd\npd.DataFrame({'n': [1, 2], 'word': ['a', 'b']})").results[0]
    assert table.data == {"n": [1, 2], "word": ["a", "b"]}
    assert "<table" in table.html


@check
def charts_come_as_data_beside_their_pixels(box):
    drawn = box.run_code(
        "%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2, 3], [1, 4, 9], label='squares')\n"
        "plt.title('T')\nplt.xlabel('n')\nplt.show()"
    ).results
    assert len(drawn) == 1, drawn
    assert drawn[0].png, drawn
    chart = drawn[0].chart
    assert (chart.type, chart.title, chart.x_label) == ("line", "T", "n")
    assert chart.elements[0].label == "squares"
    assert chart.elements[0].points == [(1, 1), (2, 4), (3, 9)]
    for code, kind in (
        ("plt.bar(['a', 'b'], [3, 4]); None", "bar"),
        ("plt.pie([1, 3], labels=['x', 'y']); None", "pie"),
        ("plt.scatter([1], [2]); None", "scatter"),
        ("plt.boxplot([[1, 2, 3], [2, 3, 4]]); None", "box_and_whisker"),
        ("_, two = plt.subplots(1, 2); two[0].plot([1]); two[1].bar(['a'], [1]); None", "superchart"),
    ):
        found = box.run_code(code).results
        assert found[-1].chart.type == kind, (kind, found[-1].chart.to_dict())


@check
def ipython_is_there_and_pip_is_explained(box):
    made = box.run_code("!echo $((40 + 2))\n!pip install numpy\n%pip install scipy\nnames = !ls /home\nnames")
    said = "".join(made.logs.stdout)
    assert "42\n" in said
    assert "Requirement already satisfied: numpy" in said
    assert "Not installed: scipy" in said
    assert made.text == "['user']"
    assert made.error is None
    cell = box.run_code("%%bash\necho in $BASH\nfalse || echo went on")
    assert "went on" in "".join(cell.logs.stdout), cell
    assert "no network" in raises(CommandExitException, lambda: box.commands.run("pip install scipy")).stderr
    assert "closed" in box.run_code("import urllib.request; urllib.request.urlopen('http://example.com')").error.value


@check
def bash_keeps_its_state(box):
    assert box.run_code("A=5; cd /tmp; echo $A", language="bash").logs.stdout == ["5\n"]
    again = box.run_code("echo $A; pwd; (exit 7)", language="bash")
    # Two programs printed; how much of it comes in one piece is nobody's promise.
    assert "".join(again.logs.stdout) == "5\n/tmp\n"
    assert again.error.value == "7"
    refused = raises(SandboxException, lambda: box.run_code("1", language="r"))
    assert "python and bash" in str(refused)


@check
def contexts_are_apart(box):
    other = box.create_code_context(cwd="/tmp")
    assert (other.cwd, other.language) == ("/tmp", "python")
    assert box.run_code("import os; (os.getcwd(), 'x' in globals())", context=other).text == "('/tmp', False)"
    assert other.id in [context.id for context in box.list_code_contexts()]
    box.run_code("kept = 1", context=other)
    box.restart_code_context(other)
    assert box.run_code("'kept' in globals()", context=other).text == "False"
    box.remove_code_context(other)
    raises(NotFoundException, lambda: box.run_code("1", context=other))
    raises(SandboxException, lambda: box.create_code_context(cwd="/nowhere"))


@check
def a_closed_connection_interrupts_the_code(box):
    box.run_code("kept = 'yes'")
    raises(TimeoutException, lambda: box.run_code("import time\nwhile True: time.sleep(0.05)", timeout=1))
    began = time.monotonic()
    assert box.run_code("kept").text == "yes"
    # The code that it must not wait for is endless.
    assert time.monotonic() - began < 30


@check
def a_context_that_dies_is_replaced(box):
    assert box.run_code("import os; os._exit(1)").error.name == "ContextEnded"
    assert box.run_code("1 + 1").text == "2"


@check
def files_are_written_read_and_moved(box):
    written = box.files.write("a/b.txt", "héllo")
    assert (written.path, written.name, written.type) == ("/home/user/a/b.txt", "b.txt", FileType.FILE)
    assert box.files.read("a/b.txt") == "héllo"
    big = bytes(range(256)) * 10_000
    box.files.write("big.bin", big)
    assert bytes(box.files.read("big.bin", format="bytes")) == big
    box.files.write("stream.bin", io.BytesIO(big), gzip=True)
    assert b"".join(box.files.read("stream.bin", format="stream")) == big
    many = box.files.write_files([{"path": "m/1", "data": "1"}, {"path": "/tmp/2", "data": b"2"}])
    assert [each.path for each in many] == ["/home/user/m/1", "/tmp/2"]
    assert [entry.name for entry in box.files.list("m")] == ["1"]
    assert "/home/user/a/b.txt" in [entry.path for entry in box.files.list("/home/user", depth=2)]
    found = box.files.get_info("a/b.txt")
    assert (found.size, found.permissions, found.owner, found.type) == (6, "-rw-r--r--", "user", FileType.FILE)
    assert box.files.rename("a/b.txt", "c/d.txt").path == "/home/user/c/d.txt"
    assert box.files.exists("c/d.txt")
    assert not box.files.exists("a/b.txt")
    assert box.files.make_dir("new/one") is True
    assert box.files.make_dir("new/one") is False
    box.files.remove("c")
    assert not box.files.exists("c")
    box.files.write("noted", "x", metadata={"Who": "me"})
    assert box.files.get_info("noted").metadata == {"who": "me"}
    assert box.run_code("open('/home/user/noted').read()").text == "x"
    assert not [entry for entry in box.files.list("/home/user") if "crank" in entry.name]


@check
def what_is_not_there_is_said_to_be(box):
    for act in (
        lambda: box.files.read("nope"),
        lambda: box.files.list("nope"),
        lambda: box.files.get_info("nope"),
        lambda: box.files.rename("nope", "x"),
        lambda: box.commands.connect(99_999),
    ):
        raises(NotFoundException, act)
    raises(InvalidArgumentException, lambda: box.files.read("/home/user"))
    raises(SandboxException, lambda: box.files.write("/etc/mine", "1"))
    raises(InvalidArgumentException, lambda: box.commands.run("true", user="root"))


@check
def folders_are_watched(box):
    watching = box.files.watch_dir("/home/user")
    box.files.write("watched.txt", "1")
    kinds = {(event.name, event.type.value) for event in watching.get_new_events()}
    assert ("watched.txt", "create") in kinds, kinds
    watching.stop()


@check
def signed_urls_work_without_headers(box):
    box.files.write("signed.txt", "by url")
    with urllib.request.urlopen(box.download_url("signed.txt", use_signature_expiration=60)) as answer:
        assert answer.read() == b"by url"
    octets = b'--x\r\nContent-Disposition: form-data; name="file"; filename="up"\r\n\r\nup\r\n--x--\r\n'
    request = urllib.request.Request(box.upload_url("up.txt"), octets, {"Content-Type": "multipart/form-data; boundary=x"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
    assert box.files.read("up.txt") == "up"
    for url in (box.download_url("signed.txt").replace("v1_", "v1_A"), box.download_url("signed.txt").replace("signed", "up")):
        fault = raises(urllib.error.HTTPError, lambda url=url: urllib.request.urlopen(url))
        assert fault.code == 401


@check
def commands_end_with_their_status(box):
    failed = raises(CommandExitException, lambda: box.commands.run("echo out; echo err >&2; exit 3"))
    assert (failed.exit_code, failed.stdout, failed.stderr) == (3, "out\n", "err\n")
    assert len(box.commands.run("head -c 9000000 /dev/zero | tr '\\0' a").stdout) == 9_000_000
    assert "3.11" in box.commands.run("python3 -c 'import numpy, sys; print(sys.version)'").stdout
    raises(TimeoutException, lambda: box.commands.run("sleep 30", timeout=1))


@check
def commands_run_beside_each_other(box):
    running = box.commands.run("sleep 100", background=True)
    assert running.pid in [each.pid for each in box.commands.list()]
    assert box.commands.run("echo meanwhile").stdout == "meanwhile\n"
    assert box.run_code("1").text == "1"
    assert box.commands.kill(running.pid) is True
    assert raises(CommandExitException, running.wait).error == "signal: killed"
    assert box.commands.kill(running.pid) is False
    reading = box.commands.run("read line; echo got $line; cat", background=True, stdin=True)
    box.commands.send_stdin(reading.pid, "one\n")
    box.commands.send_stdin(reading.pid, "rest")
    box.commands.close_stdin(reading.pid)
    assert reading.wait().stdout == "got one\nrest"
    late = box.commands.run("read line; echo $line", background=True, stdin=True)
    late.disconnect()
    again = box.commands.connect(late.pid)
    box.commands.send_stdin(late.pid, "late\n")
    assert again.wait().stdout == "late\n"


@check
def a_sandbox_is_found_listed_and_prolonged(box):
    assert box.is_running()
    found = box.get_info()
    assert found.metadata == {"for": "judge"}
    assert found.state.value == "running"
    assert found.allow_internet_access is False
    box.set_timeout(600)
    assert box.get_info().end_at > found.end_at
    page = Sandbox.list(query=None, limit=1)
    seen = []
    while page.has_next:
        seen += [each.sandbox_id for each in page.next_items()]
    assert box.sandbox_id in seen
    assert Sandbox.connect(box.sandbox_id).run_code("1 + 1").text == "2"
    measured = box.get_metrics()[0]
    assert measured.mem_used > 0
    assert measured.disk_total > 0
    assert measured.cpu_count > 0


@check
def what_is_not_offered_says_so(box):
    for act in (
        box.pause,
        box.create_snapshot,
        lambda: box.pty.create(PtySize(rows=10, cols=10)),
        lambda: Sandbox.create(allow_internet_access=True),
    ):
        fault = raises(SandboxException, act)
        assert "no network" in str(fault) or "not offered" in str(fault), fault
    assert "no template" in str(raises(SandboxException, lambda: Sandbox.create(template="nope")))


@check
def a_short_life_ends_by_itself(box):
    short = Sandbox.create(timeout=2)
    until = time.monotonic() + 20
    while short.is_running() and time.monotonic() < until:
        time.sleep(0.2)
    assert "was not found" in str(raises(Exception, lambda: short.run_code("1")))


@check
def a_killed_sandbox_is_gone(box):
    assert box.kill() is True
    assert box.kill() is False
    assert not box.is_running()
    for act in (
        lambda: box.run_code("1"),
        lambda: box.commands.run("true"),
        lambda: box.files.read("x"),
        lambda: box.files.list("/"),
    ):
        assert "was not found" in str(raises(SandboxException, act))
    raises(SandboxNotFoundException, box.get_info)
    raises(SandboxNotFoundException, lambda: Sandbox.connect(box.sandbox_id))


run(Sandbox.create(timeout=300, metadata={"for": "judge"}, envs={"ALL": "everywhere"}))
