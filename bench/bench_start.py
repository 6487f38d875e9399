"""Starting processes: spawn, forkserver and fork of python3 against dragon, in turns.

    bench_start.py --dragon build/dragon [--rounds 30] [--big-rounds 5] [--main numpy]
                   [--only first_line] [--pin 0,1] [--json FILE]

For each main (trivial; importing numpy; importing pandas) a program a start method stays alive
(start_program.py) and measures when it is asked to. Each round asks each of them once, in changing
order, so that whatever else the machine does meets all. Prints a Markdown table: medians over the
rounds, and medians of the ratios within a round. What is first done in a program has a row of its
own, with a new program each time, and is in no other row.

PYTHONPATH is handed on. numpy and pandas should be in site-packages (or a virtual environment),
since that is where dragon looks for what it may import once for all children.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # python -I leaves it out

from bench_first_light import machine, start_up_times  # noqa: E402

METHODS = ("spawn", "forkserver", "fork", "dragon")
MAINS = {"trivial": "", "numpy": "numpy", "pandas": "pandas"}  # name -> what it imports
ANSWER_S = 300
#: After each measurement, so that what one method still has to tidy up is not another's time.
PAUSE_S = 0.03
WARM_UP = ("single",) * 3


class Goal(NamedTuple):
    """What is asked of a row; None: nothing."""

    spawn_by: float | None = None  # at least so many times faster than spawn
    fork_by: float | None = None  # at most so many times the time of fork
    at_most: float | None = None  # in the row's unit

    def __str__(self) -> str:
        parts = []
        if self.spawn_by is not None:
            parts.append(f"spawn / {self.spawn_by:g}")
        if self.fork_by is not None:
            parts.append(f"{self.fork_by:g} x fork")
        if self.at_most is not None:
            parts.append(f"{self.at_most:g}")
        return ", ".join(parts)

    def is_met(self, value: float, spawn_by: float, fork_by: float) -> bool | None:
        """Return whether dragon's value, and its ratios, are as asked; None: nothing is asked."""
        checks = []
        if self.spawn_by is not None:
            checks.append(spawn_by >= self.spawn_by)
        if self.fork_by is not None:
            checks.append(fork_by <= self.fork_by)
        if self.at_most is not None:
            checks.append(value <= self.at_most)
        return all(checks) if checks else None


class Row(NamedTuple):
    """A line of the table."""

    name: str
    title: str
    position: int  # of its number in the program's answer
    divisor: float  # to its unit
    unit: str
    goal: Callable[[str], Goal]  # by main


class Measurement(NamedTuple):
    """What is asked of a program at once, and the lines that come of it."""

    command: str
    is_big: bool  # takes seconds under spawn
    is_of_new: bool  # asked of a new program each time
    rows: tuple[Row, ...]


def no_goal(_: str) -> Goal:
    """Return the goal of a line that only informs."""
    return Goal()


def measurements(n_burst: int, n_pool: int, n_idle: int) -> list[Measurement]:
    """Return all that is measured, in order."""

    def to_first_line(main: str) -> Goal:
        return Goal(spawn_by=12 if main == "trivial" else 20, fork_by=2)

    return [
        Measurement("single", True, True, (
            Row("first_start", "first start of a program, to first line", 0, 1e6, "ms", no_goal),
        )),
        Measurement("single", False, False, (
            Row("first_line", "start() to the first line", 0, 1e6, "ms", to_first_line),
            Row("start", "start() itself", 1, 1e6, "ms", no_goal),
            Row("join", "start() to the end of join()", 2, 1e6, "ms", lambda _: Goal(spawn_by=12)),
        )),
        Measurement("series 10", False, False, (
            Row("series", "start and join, 10 in a row, each", 0, 1e7, "ms",
                lambda _: Goal(spawn_by=12)),
        )),
        Measurement(f"burst {n_burst}", True, False, (
            Row("burst", f"{n_burst} started, then joined, each", 0, n_burst * 1e6, "ms",
                lambda _: Goal(spawn_by=10, fork_by=2)),
        )),
        Measurement(f"pool {n_pool}", True, False, (
            Row("pool_map", f"Pool({n_pool}): first map done", 0, 1e6, "ms", no_goal),
            Row("pool_up", f"Pool({n_pool}): that, and all workers up", 1, 1e6, "ms",
                lambda _: Goal(spawn_by=20, fork_by=1.5)),
        )),
        # Of a trivial main nothing is the user's own: all that a worker takes is the method's.
        Measurement(f"idle {n_idle}", True, False, (
            Row("idle", f"PSS of an idle process, mean of {n_idle}", 0, 2.0**20, "MiB",
                lambda main: Goal(at_most=3) if main == "trivial" else Goal()),
        )),
    ]  # fmt: skip


# ---- programs -----------------------------------------------------------------------------------


class Program:
    """start_program.py under one method."""

    def __init__(self, executable: str, script: Path, method: str) -> None:
        self._name = f"{script.name} {method}"
        self._process = subprocess.Popen(
            [executable, str(script), method], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, command: str) -> list[int]:
        """Have something measured; blocks until that is done."""
        commands, answers = self._pipes()
        commands.write(command.encode() + b"\n")
        commands.flush()
        if not select.select([answers], [], [], ANSWER_S)[0]:
            raise RuntimeError(f"{self._name}: no answer to {command!r} in {ANSWER_S} s")
        words = answers.readline().split()
        if not words:
            raise RuntimeError(f"{self._name}: ended instead of answering {command!r}")
        return [int(word) for word in words]

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def close(self) -> None:
        """Let it end; it is killed if it does not."""
        commands, answers = self._pipes()
        with contextlib.suppress(BrokenPipeError):
            commands.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        answers.close()


def write_main(folder: Path, main: str) -> Path:
    """Write the program whose main imports that library, too."""
    text = (HERE / "start_program.py").read_text(encoding="utf-8")
    before, line, after = text.partition("\nimport time\n")
    extra = f"\nimport {MAINS[main]}\n" if MAINS[main] else ""
    path = folder / f"main_{main}.py"
    path.write_text(before + line + extra + after, encoding="utf-8")
    return path


class Bench:
    """The programs of one main."""

    def __init__(self, executables: dict[str, str], script: Path) -> None:
        self._executables = executables
        self._script = script
        self._programs: dict[str, Program] = {}

    def _new(self, method: str) -> Program:
        return Program(self._executables[method], self._script, method)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        for program in self._programs.values():
            program.close()

    def _warm(self, method: str) -> Program:
        if method not in self._programs:
            self._programs[method] = self._new(method)
            for command in WARM_UP:
                self._programs[method].ask(command)
        return self._programs[method]

    def _ask(self, measurement: Measurement, method: str) -> list[int]:
        if not measurement.is_of_new:
            return self._warm(method).ask(measurement.command)
        with contextlib.closing(self._new(method)) as program:
            return program.ask(measurement.command)

    def measure(self, measurement: Measurement, rounds: int) -> list[dict[str, list[int]]]:
        """Ask each method once a round, in an order that changes."""
        if not measurement.is_of_new:
            for method in METHODS:
                self._warm(method)
        answers = []
        for round_number in range(rounds):
            answer = {}
            for method in random.Random(round_number).sample(METHODS, len(METHODS)):
                answer[method] = self._ask(measurement, method)
                time.sleep(PAUSE_S)
            answers.append(answer)
        return answers


# ---- tables -------------------------------------------------------------------------------------


class Result(NamedTuple):
    """A row with its numbers; as JSON, an object of these names."""

    row: str
    main: str
    unit: str
    samples: dict[str, list[float]]
    medians: dict[str, float]
    spawn_by_dragon: float
    dragon_by_fork: float
    goal: str
    is_met: bool | None


def result_of(row: Row, main: str, answers: list[dict[str, list[int]]]) -> Result:
    """Work a row out."""
    samples = {
        method: [answer[method][row.position] / row.divisor for answer in answers]
        for method in METHODS
    }

    def ratio(over: str, under: str) -> float:
        pairs = zip(samples[over], samples[under], strict=True)
        return statistics.median(a / b for a, b in pairs)

    medians = {method: statistics.median(values) for method, values in samples.items()}
    goal = row.goal(main)
    spawn_by_dragon, dragon_by_fork = ratio("spawn", "dragon"), ratio("dragon", "fork")
    is_met = goal.is_met(medians["dragon"], spawn_by_dragon, dragon_by_fork)
    return Result(row.name, main, row.unit, samples, medians, spawn_by_dragon, dragon_by_fork,
                  str(goal), is_met)  # fmt: skip


def line(cells: list[str]) -> None:
    """Print a line of a table."""
    print("| " + " | ".join(cells) + " |", flush=True)


def met_cell(is_met: bool | None) -> str:
    """Return what stands in the last column."""
    return {True: "yes", False: "**no**", None: ""}[is_met]


def print_result(row: Row, result: Result) -> None:
    """Print a row."""
    times = [f"{result.medians[method]:.2f} {row.unit}" for method in METHODS]
    line([row.title, result.main, *times, f"{result.spawn_by_dragon:.1f}",
          f"{result.dragon_by_fork:.2f}", result.goal, met_cell(result.is_met)])  # fmt: skip


def bench_main(
    main: str, chosen: list[Measurement], executables: dict[str, str], options: argparse.Namespace
) -> Iterator[Result]:
    """Measure and print all rows of one main."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Bench(executables, write_main(Path(folder), main)) as bench,
    ):
        for measurement in chosen:
            rounds = options.big_rounds if measurement.is_big else options.rounds
            answers = bench.measure(measurement, rounds)
            for row in measurement.rows:
                result = result_of(row, main, answers)
                print_result(row, result)
                yield result


def bench_pass(python: str, dragon: str, pairs: int) -> dict[str, object]:
    """`-c pass` of both, as a table of its own."""
    theirs, ours = start_up_times(python, dragon, pairs)
    ratio = statistics.median(d / p for p, d in zip(theirs, ours, strict=True))
    is_met = ratio <= 1.05
    print()
    line(["", "python3", "dragon", "dragon / python3", "goal", "met"])
    line(["---", "--:", "--:", "--:", "--:", "---"])
    times = [f"{statistics.median(values):.2f} ms" for values in (theirs, ours)]
    line([f"`-c pass`, {pairs} pairs", *times, f"{ratio:.3f}", "1.05", met_cell(is_met)])
    return {"python3_ms": theirs, "dragon_ms": ours, "ratio": ratio, "is_met": is_met}


# ---- the command line ---------------------------------------------------------------------------


def choose(only: str, n_burst: int, n_pool: int, n_idle: int) -> list[Measurement]:
    """Return the rows whose name starts with that, by measurements."""
    found = []
    for measurement in measurements(n_burst, n_pool, n_idle):
        rows = tuple(row for row in measurement.rows if row.name.startswith(only))
        if rows:
            found.append(measurement._replace(rows=rows))
    return found


def library_of(main: str, executables: set[str]) -> tuple[bool, str]:
    """Return whether all of them can run that main, and with which version; or why not."""
    name = MAINS[main]
    if not name:
        return True, ""
    code = f"import os, {name} as it; print(it.__version__, os.path.dirname(it.__path__[0]))"
    for executable in sorted(executables):
        done = subprocess.run(
            [executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines()[-1]
            return False, f"main importing {name} skipped: {reason} ({executable})"
    version, _, folder = done.stdout.strip().partition(" ")
    return True, f"{name} {version} of {folder}"


def cores_of(text: str) -> set[int]:
    """Read a list of cores."""
    return {int(word) for word in text.split(",")}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dragon", required=True, help="the executable to measure")
    add("--python", default=sys.executable, help="whose start methods it is compared with")
    add("--rounds", type=int, default=30, help="of what takes milliseconds")
    add("--big-rounds", type=int, default=5, help="of what takes seconds")
    add("--pairs", type=int, default=60, help="of `-c pass`")
    add("--burst", type=int, default=100, help="processes of a burst")
    add("--pool", type=int, default=64, help="workers of the Pool")
    add("--idle", type=int, default=20, help="idle processes")
    add("--main", choices=MAINS, action="append", help="only this main (may be repeated)")
    add("--only", default="", metavar="ROW", help="rows whose name starts with this; `pass` is one")
    add("--pin", type=cores_of, metavar="CORES", help="run on these only, such as 0 or 0,1")
    add("--json", metavar="FILE", help="write all samples there, too")
    options = parser.parse_args()
    known = [row.name for measurement in choose("", 1, 1, 1) for row in measurement.rows]
    if not any(name.startswith(options.only) for name in [*known, "pass"]):
        parser.error(f"no row is called {options.only}; there are {', '.join(known)}, pass")
    return options


def load() -> str:
    """Return the load averages."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


def begin(options: argparse.Namespace, notes: list[str]) -> dict[str, object]:
    """Print what the numbers depend on; the record of the run."""
    date, cores, load_before = time.strftime("%F"), sorted(os.sched_getaffinity(0)), load()
    print(f"{date}, medians of {options.rounds} rounds ({options.big_rounds} of what takes "
          f"seconds), on cores {cores} of {machine()}")  # fmt: skip
    for note in notes:
        print(f"- {note}")
    return {"date": date, "cores": cores, "machine": machine(), "notes": notes,
            "load_before": load_before}  # fmt: skip


def bench_processes(
    mains: list[str], executables: dict[str, str], options: argparse.Namespace
) -> list[Result]:
    """Measure and print the table of processes."""
    chosen = choose(options.only, options.burst, options.pool, options.idle)
    results: list[Result] = []
    if chosen:
        print()
        line(["", "main", *METHODS, "spawn / dragon", "dragon / fork", "goal", "met"])
        line(["---", "---", *["--:"] * (len(METHODS) + 2), "---", "---"])
        for main in mains:
            results += bench_main(main, chosen, executables, options)
    return results


def main() -> int:
    """Run the command line."""
    options = parse()
    if options.pin:
        os.sched_setaffinity(0, options.pin)
    python, dragon = options.python, os.path.abspath(options.dragon)
    executables = {method: dragon if method == "dragon" else python for method in METHODS}
    libraries = {name: library_of(name, {python, dragon}) for name in options.main or MAINS}
    record = begin(options, [note for _, note in libraries.values() if note])
    mains = [name for name, (is_there, _) in libraries.items() if is_there]
    results = bench_processes(mains, executables, options)
    if "pass".startswith(options.only):
        record["pass"] = bench_pass(python, dragon, options.pairs)
    record["load_after"] = load()
    print(f"\nload average {record['load_before']} before, {record['load_after']} after")
    if options.json:
        record["rows"] = [result._asdict() for result in results]
        Path(options.json).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
