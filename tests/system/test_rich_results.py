"""Rich results in the real profile: the real pandas, matplotlib and Pillow, in the real sandbox."""

import asyncio
import base64
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crank.bootstrap.profiles import check_profile
from crank.domain.outcome import Clock, Outcome, Reason
from crank.domain.profile import SelfTest
from crank.ports import ProfileBuild, SandboxSpec
from crank.sandbox.runner import NamespaceRunner
from tests.support.profiles import project_store

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("profiles")]

_CHART = "application/vnd.crank.chart+json"
_TABLE = "application/vnd.crank.dataframe+json"

_SCRIPTS = {
    "table": """
import pandas as pd
table = pd.DataFrame({"n": range(100_000), "x": [0.5, None] * 50_000, "t": pd.date_range("2026-01-01", periods=100_000)})
display(table)
result = {"whole": table, "row": table["n"].tail(2), "when": pd.Timestamp("2026-01-02"), "none": pd.NaT}
""",
    "figures": """
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
first = plt.figure(); plt.plot([1, 2], [3, 4], label="up"); plt.title("first")
second = plt.figure(); plt.scatter([1], [2]); plt.title("second")
plt.figure(1); plt.xlabel("came back")
plt.pause(0.01)
plt.show()
plt.figure(); plt.title("third")
fourth = plt.figure(); plt.title("fourth")
fourth
""",
    "drawing": "import matplotlib.pyplot as plt\nplt.hist([1, 2, 2, 9], bins=4)\n",
    "raises": "import matplotlib.pyplot as plt\nplt.plot([1, 2])\n1 / 0\n",
    "charts": """
import datetime as dt
import matplotlib.pyplot as plt, pandas as pd
figure, axes = plt.subplots(2, 3)
pd.DataFrame({"k": ["a", "b"], "v": [1, 2], "w": [3, 4]}).plot.bar(x="k", ax=axes[0, 0])
axes[0, 1].pie([1, 3], labels=["p", "q"])
axes[0, 2].boxplot([[1, 2, 3, 20], [4, 5, 6]], tick_labels=["g", "h"])
axes[1, 0].plot([dt.date(2026, 1, 1), dt.date(2026, 1, 2)], [1, 10]); axes[1, 0].set_yscale("log")
axes[1, 1].barh(["u", "v"], [5, 6])
axes[1, 2].plot(range(1_000_000))
figure
""",
    "images": """
from PIL import Image
Image.new("CMYK", (4_000, 2_000)).show()
display(b"\\xff\\xd8\\xff and so on", bytearray(b"abc"))
""",
    "hostile": """
class Liar:
    __class__ = property(lambda self: str)
    def _repr_png_(self): return Liar()
class Large:
    def _repr_html_(self): return "x" * 50_000_000
    def _repr_markdown_(self): return "small"
class Raises:
    def _repr_html_(self): raise KeyError("no")
    def __repr__(self): return repr(self)
class DataFrame:
    __module__ = "pandas"
    columns = dtypes = range(10**9)
    @property
    def index(self): raise OSError("no")
display(Liar(), Large(), Raises(), DataFrame())
""",
    "endless": "class E:\n    def _repr_html_(self):\n        while True:\n            pass\nE()\n",
    "gigabytes": "class G:\n    def _repr_html_(self):\n        return 'x' * (1 << 40)\n    def _repr_json_(self):\n"
    "        text = []\n        while True:\n            text.append(bytes(1 << 24))\nG()\n",
    "traceback": "\ufeffimport threading\r\ndef f():\r\n    raise KeyError(\r\n        'k')\r\nt = threading.Thread(target=f)\r\n"
    "t.start(); t.join()\r\ntry:\r\n    f()\r\nexcept KeyError as e:\r\n    raise ExceptionGroup('g', [e]) from e\r\n",
}  # fmt: skip


class _Silent:
    def output(self, stream: str, text: str, offset_bytes: int, at_sec: float) -> None:
        """Drop it; the outcome keeps it."""

    def progress(self, fraction: float | None, message: str) -> None:
        """Drop it."""


@pytest.fixture(scope="module")
def build(builds: Path) -> ProfileBuild:
    """Return the built profile; `make profiles-small` makes it."""
    return project_store(builds).build("python-interpreter", "cpu", lambda _line: None)


async def _run_all(build: ProfileBuild) -> dict[str, Outcome]:
    runner = NamespaceRunner()
    await runner.start()
    try:
        outcomes = {}
        for name, code in _SCRIPTS.items():
            limits = replace(build.profile.limits, wall_sec=2.0 if name == "endless" else 60.0)
            session = await runner.open(SandboxSpec(build=build, limits=limits))
            try:
                outcomes[name] = await session.run_python(code, None, _Silent())
            finally:
                await session.close()
        return outcomes
    finally:
        await runner.stop()


@pytest.fixture(scope="module")
def outcomes(build: ProfileBuild) -> Mapping[str, Outcome]:
    """Run every script once, each in a sandbox of its own."""
    return asyncio.run(_run_all(build))


def _size(shown: Mapping[str, Any]) -> tuple[int, ...]:
    content = base64.b64decode(shown["image/png"], validate=True)
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack("!II", content[16:24])


def test_a_large_table_is_shown_and_kept_in_part(outcomes: Mapping[str, Outcome]) -> None:
    """100 000 rows become a bounded HTML table, a head with its schema, and a bounded result that says so."""
    outcome = outcomes["table"]
    assert outcome.end.reason is Reason.EXITED, outcome.stderr.text
    shown = outcome.displays[0]
    assert set(shown) == {"text/plain", "text/html", _TABLE}
    assert shown["text/html"].count("<tr") < 30
    form = shown[_TABLE]
    assert [column["dtype"] for column in form["schema"]["columns"]][:2] == ["int64", "float64"]
    assert (form["row_count"], form["column_count"], form["truncated"]) == (100_000, 3, True)
    assert form["head"]["rows"][1] == [1, None, "2026-01-02T00:00:00"]
    assert len(outcome.result["whole"]["head"]["rows"]) == 1_000
    assert outcome.result["row"]["head"] == {"index": [99_998, 99_999], "rows": [[99_998], [99_999]]}
    assert (outcome.result["when"], outcome.result["none"]) == ("2026-01-02T00:00:00", None)


def test_every_figure_is_shown_once_and_in_order(outcomes: Mapping[str, Outcome]) -> None:
    """`plt.show()` shows what is open; the end shows the rest; the figure that is also the result is not shown twice."""
    outcome = outcomes["figures"]
    assert outcome.end.reason is Reason.EXITED, outcome.stderr.text
    axes = [shown[_CHART]["axes"][0] for shown in outcome.displays]
    assert [each["title"] for each in axes] == ["first", "second", "third", "fourth"]
    assert axes[0]["x"]["label"] == "came back"
    assert all(min(_size(shown)) > 300 for shown in outcome.displays)
    assert not outcome.has_result
    assert outcome.stderr.text == ""


def test_what_pyplot_returns_is_no_result_and_no_complaint(outcomes: Mapping[str, Outcome]) -> None:
    """A script that ends in a call of pyplot shows its figure and says nothing else."""
    outcome = outcomes["drawing"]
    (shown,) = outcome.displays
    assert [point[1] for point in shown[_CHART]["axes"][0]["series"][0]["points"]] == [3.0, 0.0, 0.0, 1.0]
    assert (outcome.has_result, outcome.end.message, outcome.stderr.text) == (False, None, "")


def test_a_figure_survives_an_exception(outcomes: Mapping[str, Outcome]) -> None:
    """What was drawn before a job failed is shown."""
    outcome = outcomes["raises"]
    assert outcome.end.reason is Reason.RAISED
    assert len(outcome.displays) == 1


def test_charts_are_read_as_data(outcomes: Mapping[str, Outcome]) -> None:
    """Each kind of chart gives its type, its scales, and its points under the names on its axes."""
    (shown,) = outcomes["charts"].displays
    bars, pie, boxes, line, lying, long = shown[_CHART]["axes"]
    assert [each["type"] for each in shown[_CHART]["axes"]] == ["bar", "pie", "box", "line", "bar", "line"]
    assert {each["label"]: each["points"] for each in bars["series"]} == {
        "v": [["a", 1.0], ["b", 2.0]],
        "w": [["a", 3.0], ["b", 4.0]],
    }
    assert pie["series"][0]["points"] == [["p", 0.25], ["q", 0.75]]
    assert [(each["label"], each["box"]["median"], each["outliers"]) for each in boxes["series"]] == [
        ("g", 2.5, [20]),
        ("h", 5.0, []),
    ]
    assert (line["x"]["scale"], line["y"]["scale"]) == ("datetime", "log")
    assert line["series"][0]["points"] == [["2026-01-01", 1], ["2026-01-02", 10]]
    assert (lying["series"][0]["points"], lying["series"][0]["orientation"]) == ([["u", 5.0], ["v", 6.0]], "horizontal")
    assert long["series"][0]["point_count"] == 1_000_000
    assert long["series"][0]["points"][-1] == [999_999, 999_999]
    assert long["truncated"]


def test_images_and_bytes_are_shown(outcomes: Mapping[str, Outcome]) -> None:
    """An image is made small enough and printable; bytes come in base64 under what they are."""
    image, jpeg, unknown = outcomes["images"].displays
    assert _size(image) == (1_600, 800)
    assert set(jpeg) == {"text/plain", "image/jpeg"}
    assert unknown["application/octet-stream"] == "YWJj"


def test_hostile_objects_lose_a_form_and_cost_nobody_else(outcomes: Mapping[str, Outcome]) -> None:
    """Objects that lie, raise, recurse or flood still end as bundles, and the job goes on to its end."""
    outcome = outcomes["hostile"]
    assert outcome.end.reason is Reason.EXITED, outcome.stderr.text
    liar, large, raises, frame = outcome.displays
    assert [set(each) for each in (liar, raises, frame)] == [{"text/plain"}] * 3
    assert large["text/markdown"] == "small"
    assert "text/html" not in large
    assert "text/html was left out" in outcome.stderr.text


def test_forms_are_charged_to_the_job(outcomes: Mapping[str, Outcome]) -> None:
    """A form that never returns costs the job its time, one that fills memory costs it its memory, and both are named."""
    assert (outcomes["endless"].end.reason, outcomes["endless"].end.clock) == (Reason.TIMEOUT, Clock.WALL)
    # Without a control group, memory ends where the process asks for it, and the form is left out.
    gone = outcomes["gigabytes"]
    left_out = "application/json was left out: asking for it raised MemoryError"
    assert gone.end.reason is Reason.MEMORY or left_out in gone.stderr.text


def test_tracebacks_show_the_jobs_own_lines(outcomes: Mapping[str, Outcome]) -> None:
    """A thread, a cause and a group all point into job.py with its text, and no frame of the guest is among them."""
    told = outcomes["traceback"].stderr.text
    assert told.count('File "job.py", line 3, in f') == told.count("raise KeyError(") == 3
    assert 'File "job.py", line 10, in <module>' in told
    assert "guest" not in told


async def test_the_profile_keeps_its_promises(build: ProfileBuild) -> None:
    """Every self test of the profile passes."""
    wrong: dict[str, str] = {}

    def report(test: SelfTest, cause: str | None) -> None:
        if cause is not None:
            wrong[test.name] = cause

    await check_profile(build, report)
    assert wrong == {}
