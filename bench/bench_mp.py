"""multiprocessing, measured from all sides: spawn, forkserver and fork of python3 against dragon.

    bench_mp.py --dragon build/dragon [--only queue --only pipe.lat] [--rounds 5]
                [--pin yes|no|both] [--json FILE] [--picture FILE]

Each group of measurements (mp/) is a program of its own. Each round runs it under each method, in
changing order, so that whatever else the machine does meets all. Prints Markdown tables: medians
over the rounds, and how many times better dragon is than the best stock method of the same round.
Pinned: the program on the first core, its partners on the others; pools, executors, managers and
processes never are.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # python -I leaves it out

from bench_first_light import machine  # noqa: E402
from mp.everything import GROUPS, is_free  # noqa: E402
from mp.picture import draw  # noqa: E402
from mp.table import METHODS, Numbers, Row, as_markdown, rows_of  # noqa: E402

_PROGRAM_S = 300


class Failure(Exception):  # noqa: N818 # what failed is the program that measures
    """A program said nothing that can be used."""


def run(executable: str, group: str, method: str, options: dict[str, Any]) -> Numbers:
    """Run a group under a method."""
    words = [executable, str(HERE / "mp" / "program.py"), group, method, json.dumps(options)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            output, errors = process.communicate(timeout=_PROGRAM_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise Failure(f"no end in {_PROGRAM_S} s") from None
    if process.returncode != 0:
        raise Failure((errors.strip() or f"exit status {process.returncode}").splitlines()[-1])
    numbers: Numbers = json.loads(output.splitlines()[-1])
    return numbers


class Bench:
    """The choice of what is measured, and what has failed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._executables = dict.fromkeys(METHODS, options.python)
        self._executables["dragon"] = os.path.abspath(options.dragon)
        self._rounds: int = options.rounds
        self._program_options = {
            "target_s": options.target,
            "repeats": 3,
            "n_tasks": options.tasks,
            "n_workers": options.workers,
        }
        self.failures: list[str] = []

    def measure(self, group: str, *, is_pinned: bool) -> list[Row]:
        """All rounds of a group."""
        options = {**self._program_options, "pins": is_pinned}
        rounds: list[dict[str, Numbers]] = []
        for round_number in range(self._rounds):
            answers: dict[str, Numbers] = {}
            for method in random.Random(round_number).sample(METHODS, len(METHODS)):
                try:
                    answers[method] = run(self._executables[method], group, method, options)
                except Failure as failure:
                    self.failures.append(f"{group} under {method}: {failure}")
            rounds.append(answers)
        return rows_of(rounds, is_pinned=is_pinned)


def chosen_groups(only: list[str]) -> list[str]:
    """Names of the groups that begin so; all, if nothing is chosen."""
    names = [name for name in GROUPS if not only or name.startswith(tuple(only))]
    if not names:
        raise SystemExit(f"bench_mp.py: no group begins so; there are: {', '.join(GROUPS)}")
    return names


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dragon", required=True, help="the executable to measure")
    parser.add_argument("--python", default=sys.executable, help="what to compare it with")
    parser.add_argument("--only", action="append", default=[], help="groups that begin so")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pin", choices=("yes", "no", "both"), default="both")
    parser.add_argument("--target", type=float, default=0.1, help="seconds that one number takes")
    parser.add_argument("--tasks", type=int, default=100_000, help="of a map")
    parser.add_argument("--workers", type=int, default=2, help="of a pool")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--picture", type=Path, help="where to draw the ratios (.svg or .png)")
    return parser.parse_args()


def main() -> int:
    """Run the command line."""
    options = parse()
    groups, bench, rows = chosen_groups(options.only), Bench(options), []
    began = time.strftime("%Y-%m-%d")
    print(f"{began}, {machine()}; medians of {options.rounds} rounds.", flush=True)
    for is_pinned in {"yes": (True,), "no": (False,), "both": (False, True)}[options.pin]:
        found = []
        for group in groups:
            if not (is_pinned and is_free(group)):
                found += bench.measure(group, is_pinned=is_pinned)
                print(f"{group}: {len(found)} measurements", file=sys.stderr, flush=True)
        rows += found
        if found:
            title = "Pinned" if is_pinned else "Not pinned"
            print(f"\n{title}:\n\n{as_markdown(found)}", flush=True)
    for failure in bench.failures:
        print(f"failed: {failure}")
    if options.json:
        record = {"date": began, "machine": machine(), "rows": [row._asdict() for row in rows]}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if options.picture and not draw(rows, f"multiprocessing, {machine()}", options.picture):
        print("no picture: matplotlib is not installed (Debian: python3-matplotlib)")
    return 1 if bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())
