"""Draws the report: latency of every way on a logarithmic scale, p50 as a dot, p95 and p99 as whiskers. PNG and SVG."""

import json
import sys
from pathlib import Path

import matplotlib as mpl  # type: ignore[import-not-found]

mpl.use("Agg")
from matplotlib import pyplot as plt

_OURS, _THEIRS = "#0b6e4f", "#8d99ae"


def main() -> None:
    """Draw the report that is named, beside it."""
    source = Path(sys.argv[1])
    numbers = json.loads(source.read_text("utf-8"))
    runs = [(name, run) for name, run in numbers["latency"].items() if "p50_ms" in run]
    runs.sort(key=lambda entry: entry[1]["p50_ms"], reverse=True)
    figure, axes = plt.subplots(figsize=(10, 0.42 * len(runs) + 1.8))
    for place, (name, run) in enumerate(runs):
        colour = _OURS if name.startswith("Crank") else _THEIRS
        axes.hlines(place, run["p50_ms"], run["p99_ms"], color=colour, linewidth=1.5, alpha=0.6)
        axes.plot([run["p95_ms"], run["p99_ms"]], [place, place], "|", color=colour, markersize=9)
        axes.plot(run["p50_ms"], place, "o", color=colour, markersize=7)
        axes.annotate(f"{run['p50_ms']:.2f}", (run["p50_ms"], place), xytext=(0, 7), textcoords="offset points",
                      ha="center", fontsize=7, color=colour)  # fmt: skip
    axes.set_yticks(range(len(runs)), [name for name, _ in runs])
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds to the answer of print(1+1): dot p50, marks p95 and p99 (less is better)")
    axes.grid(axis="x", which="both", alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    machine = numbers["machine"]
    axes.set_title(f"{machine['cores']} cores, Linux {machine['kernel']}, all ways in turns", fontsize=9, loc="left")
    figure.tight_layout()
    for kind in ("png", "svg"):
        figure.savefig(source.with_suffix(f".{kind}"), dpi=150)


if __name__ == "__main__":
    main()
