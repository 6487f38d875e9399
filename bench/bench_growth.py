"""How cost grows: producers and consumers, depth of a queue, size of a message, workers of a pool.

    bench_growth.py --dragon build/dragon [--only depth] [--rounds 3] [--into FOLDER]

Each point is measured by a program of its own (mp/growing.py), under "dragon" and under the stock
method that starts fastest, fork, in turns. Prints a Markdown table for each kind; a point that
fails is named with its reason. --into: growth.json, growth.md and growth.svg go into FOLDER.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # python -I leaves it out

from bench_first_light import machine  # noqa: E402
from bench_mp import Failure, run_program  # noqa: E402
from mp.picture import draw_growth  # noqa: E402

KIB, MIB, GIB = 1024, 1024**2, 1024**3


class Kind(NamedTuple):
    """What grows."""

    title: str
    unit: str
    points: list[int]
    most_for_stock: int  # more takes it minutes, or more processes than it can have


KINDS = {
    "parties": Kind(
        "producers, and as many consumers, of one Queue", "us a message",
        [1, 2, 4, 8, 16, 64, 256], 64,
    ),
    "depth": Kind(
        "objects in a Queue, put and then taken", "us an object",
        [10**i for i in range(7)], 10**5,
    ),
    "size": Kind(
        "bytes of a message, one way through a Queue", "us a message",
        [1, 64, KIB, 8 * KIB, 64 * KIB, 512 * KIB, 4 * MIB, 32 * MIB, 256 * MIB, GIB], 256 * MIB,
    ),
    "workers": Kind(
        "workers of a Pool, started, called each, ended", "ms a worker",
        [2, 8, 32, 128, 500, 1000, 2000], 128,
    ),
}  # fmt: skip


def measure(kind: str, executables: dict[str, str], rounds: int) -> dict[str, dict[int, float]]:
    """Medians of the points, by method."""
    medians: dict[str, dict[int, float]] = {method: {} for method in executables}
    for point in KINDS[kind].points:
        values: dict[str, list[float]] = {method: [] for method in executables}
        for _ in range(rounds):
            for method, executable in executables.items():
                if method == "dragon" or point <= KINDS[kind].most_for_stock:
                    words = [str(HERE / "mp" / "growing.py"), kind, method, str(point)]
                    try:
                        values[method].append(float(run_program([executable, *words])))
                    except Failure as failure:
                        print(f"failed: {kind} {point} under {method}: {failure}", flush=True)
        for method, of_method in values.items():
            if of_method:
                medians[method][point] = statistics.median(of_method)
        print(f"{kind} {point}", file=sys.stderr, flush=True)
    return medians


def as_markdown(kind: str, medians: dict[str, dict[int, float]]) -> str:
    """A table: a line for each point."""
    methods = list(medians)
    lines = [f"| {KINDS[kind].title} | {' | '.join(methods)} |", "|--:|" + "--:|" * len(methods)]
    for point in KINDS[kind].points:
        cells = [f"{medians[m][point]:,.3g}" if point in medians[m] else "" for m in methods]
        lines.append(f"| {point:,} | {' | '.join(cells)} |")
    return f"In {KINDS[kind].unit}:\n\n" + "\n".join(lines)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dragon", required=True, help="the executable to measure")
    parser.add_argument("--python", default=sys.executable, help="what to compare it with")
    parser.add_argument("--only", action="append", default=[], choices=list(KINDS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--into", type=Path, help="the folder that the results go into")
    options = parser.parse_args()
    executables = {"dragon": os.path.abspath(options.dragon), "fork": options.python}
    head = f"{time.strftime('%Y-%m-%d')}, {machine()}; medians of {options.rounds} rounds."
    print(head, flush=True)
    found, text = {}, head
    for kind in options.only or KINDS:
        found[kind] = measure(kind, executables, options.rounds)
        text += f"\n\n{as_markdown(kind, found[kind])}"
        print(f"\n{as_markdown(kind, found[kind])}", flush=True)
    if options.into:
        options.into.mkdir(parents=True, exist_ok=True)
        record = {"head": head, "kinds": found}
        (options.into / "growth.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        (options.into / "growth.md").write_text(text + "\n", "utf-8")
        titles = {kind: (KINDS[kind].title, KINDS[kind].unit) for kind in found}
        if not draw_growth(found, titles, options.into / "growth.svg"):
            print("no picture: matplotlib is not installed (Debian: python3-matplotlib)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
