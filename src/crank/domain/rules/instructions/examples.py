"""How examples are written, and those that depend on what a profile holds."""

import json
from collections.abc import Mapping, Sequence

OF_PROFILES: Mapping[str, Sequence[str]] = {
    "pandoc": (
        "import subprocess",
        "from pathlib import Path",
        "",
        'Path("/scratch/note.md").write_text("# Title\\n\\nOne *word*.")',
        'subprocess.run(["pandoc", "/scratch/note.md", "-o", "/out/note.docx"], check=True)',
        'result = Path("/out/note.docx").stat().st_size',
    ),
    "pandas": (
        "import pandas",
        "",
        'table = pandas.DataFrame({"month": ["May", "June"], "sold": [12, 30]})',
        "display(table)",
        'result = {"sold": int(table["sold"].sum())}',
    ),
    "matplotlib": (
        "import matplotlib.pyplot as plot",
        "",
        "figure, axes = plot.subplots()",
        "axes.plot([1, 2, 3], [2, 4, 8])",
        'figure.savefig("/out/chart.png")',
        "display(figure)",
    ),
    "torch": (
        "import torch",
        "",
        'device = "cuda" if torch.cuda.is_available() else "cpu"',
        'result = {"device": device, "sum": float(torch.arange(10, device=device).sum())}',
    ),
}


def code(lines: Sequence[str]) -> Sequence[str]:
    """Return the code of a job as a fence."""
    return ("```python", *lines, "```")


def request(line: str, body: Mapping[str, object] | None, headers: Sequence[str] = ()) -> Sequence[str]:
    """Return one HTTP request as a fence."""
    if body is None:
        return ("```text", line, *headers, "```")
    return ("```text", line, *headers, "", json.dumps(body, indent=2), "```")
