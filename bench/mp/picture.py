"""The ratios as bars, and how cost grows as lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mp.table import Row


def _pyplot() -> Any:
    """None: there is no matplotlib (Debian: python3-matplotlib)."""
    try:
        import matplotlib  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "dragon"  # the same file for the same numbers
    from matplotlib import pyplot  # type: ignore[import-not-found, unused-ignore]

    return pyplot


def draw(rows: list[Row], title: str, path: Path) -> bool:
    """Write the picture; False: there is no matplotlib (Debian: python3-matplotlib)."""
    pyplot = _pyplot()
    if pyplot is None:
        return False
    rows = rows[::-1]
    figure, axes = pyplot.subplots(figsize=(9, 0.19 * len(rows) + 1.5), layout="constrained")
    colours = ["tab:red" if row.is_met is False else "tab:green" for row in rows]
    axes.barh([row.name for row in rows], [row.ratio for row in rows], color=colours, height=0.7)
    for i, row in enumerate(rows):
        if row.goal is not None:
            axes.plot([row.goal, row.goal], [i - 0.4, i + 0.4], color="black", linewidth=1)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("times faster than the best stock method (black marks: goals)")
    axes.set_title(title)
    axes.tick_params(axis="y", labelsize=6)
    axes.margins(y=0.005)
    figure.savefig(path, metadata={"Date": None})
    return True


def draw_growth(
    found: dict[str, dict[str, dict[int, float]]],
    titles: dict[str, tuple[str, str]],
    path: Path,
) -> bool:
    """Write the picture of kind -> method -> number -> cost; False: there is no matplotlib.

    titles: what grows, and the unit of the cost.
    """
    pyplot = _pyplot()
    if pyplot is None:
        return False
    figure, all_axes = pyplot.subplots(
        (len(found) + 1) // 2, 2, figsize=(10, 7), layout="constrained", squeeze=False
    )
    for axes, (kind, by_method) in zip(all_axes.flat, found.items(), strict=False):
        for method, points in by_method.items():
            axes.plot(list(points), list(points.values()), marker="o", label=method)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(titles[kind][0])
        axes.set_ylabel(titles[kind][1])
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
    figure.savefig(path, metadata={"Date": None})
    return True
