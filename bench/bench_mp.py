"""multiprocessing, measured from all sides: spawn, forkserver and fork of python3 against dragon.

    bench_mp.py --dragon build/dragon [--only queue --only pipe.lat] [--rounds 5]
                [--pin yes|no|both] [--core build/bench/bench_core] [--into FOLDER]

Each group of measurements (mp/) is a program of its own. Each round runs it under each method, in
changing order, so that whatever else the machine does meets all. Prints Markdown tables: medians
over the rounds, and how many times better dragon is than the best stock method of the same round.
Pinned: the program on the first core, its partners on the others; pools, executors, managers and
processes never are. With --core some operations are also held against the machine's limits.

--into: the numbers go into FOLDER/mp.json, the picture into FOLDER/mp.svg, all tables into
FOLDER/mp.md, and a short one into FOLDER/mp_short.md, which README.md shows.
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
from mp import limits  # noqa: E402
from mp.everything import GROUPS, is_free  # noqa: E402
from mp.picture import draw  # noqa: E402
from mp.table import METHODS, Numbers, Row, as_markdown, rows_of, short_table  # noqa: E402

_PROGRAM_S = 300


class Failure(Exception):  # noqa: N818 # what failed is the program that measures
    """A program said nothing that can be used."""


def run_program(words: list[str]) -> str:
    """Run a program; the last line of what it prints."""
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
    return output.splitlines()[-1]


def run(executable: str, group: str, method: str, options: dict[str, Any]) -> Numbers:
    """Run a group under a method."""
    words = [executable, str(HERE / "mp" / "program.py"), group, method, json.dumps(options)]
    numbers: Numbers = json.loads(run_program(words))
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

    def measure_limits(self, core: str, *, is_pinned: bool) -> list[limits.Limit]:
        """All rounds of what is held against the machine."""
        options = {**self._program_options, "pins": is_pinned}
        of_dragon, of_core = [], []
        for _ in range(self._rounds):
            try:
                numbers = run(self._executables["dragon"], limits.GROUP, "dragon", options)
            except Failure as failure:
                self.failures.append(f"{limits.GROUP}: {failure}")
                continue
            of_dragon.append(numbers)
            of_core.append(limits.measured_by_core(core, is_pinned=is_pinned))
        return limits.limits_of(of_dragon, of_core)


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
    parser.add_argument("--core", help="the compiled bench_core.c, for the machine's limits")
    parser.add_argument("--into", type=Path, help="the folder that the results go into")
    return parser.parse_args()


class Report:
    """What is printed, and kept for a file."""

    def __init__(self) -> None:
        self.text = ""

    def add(self, text: str) -> None:
        """Print a paragraph."""
        self.text += text + "\n\n"
        print(text + "\n", flush=True)


def write(folder: Path, report: Report, record: dict[str, Any], rows: list[Row]) -> None:
    """Write the results into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mp.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / "mp.md").write_text(report.text, encoding="utf-8")
    short = f"{record['date']}, {record['machine']}:\n\n{short_table(rows)}\n"
    (folder / "mp_short.md").write_text(short, encoding="utf-8")
    if not draw(rows, f"multiprocessing, {record['machine']}", folder / "mp.svg"):
        print("no picture: matplotlib is not installed (Debian: python3-matplotlib)")


def main() -> int:
    """Run the command line."""
    options = parse()
    groups, bench, report = chosen_groups(options.only), Bench(options), Report()
    rows: list[Row] = []
    against: list[limits.Limit] = []
    record: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "command": [
            os.path.relpath(word) if os.path.isabs(word) else word for word in sys.argv[1:]
        ],
    }
    report.add(f"{record['date']}, {record['machine']}; medians of {options.rounds} rounds.")
    for is_pinned in {"yes": (True,), "no": (False,), "both": (False, True)}[options.pin]:
        found: list[Row] = []
        title = "Pinned" if is_pinned else "Not pinned"
        for group in groups:
            if group != limits.GROUP and not (is_pinned and is_free(group)):
                found += bench.measure(group, is_pinned=is_pinned)
                print(f"{group}: {len(found)} measurements", file=sys.stderr, flush=True)
        rows += found
        if found:
            report.add(f"{title}:\n\n{as_markdown(found)}")
        if options.core and limits.GROUP in groups:
            lines = bench.measure_limits(options.core, is_pinned=is_pinned)
            against += lines
            report.add(f"{title}:\n\n{limits.as_markdown(lines)}")
    for failure in bench.failures:
        report.add(f"failed: {failure}")
    if options.into:
        record["rows"] = [row._asdict() for row in rows]
        record["limits"] = [limit._asdict() for limit in against]
        write(options.into, report, record, rows)
    return 1 if bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())
