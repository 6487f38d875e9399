"""dragon against python3, side by side: start-up, Queue rate, size. Prints a Markdown table.

    bench_first_light.py --dragon build/dragon [--rounds 60] [--repeats 5]

Both sides take turns within one run, so that whatever else the machine does meets both. Start-up
is pinned to one core and its ratio is the median of the ratios of neighbouring runs.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
RUN_TIMEOUT_S = 120


class Row(NamedTuple):
    """One line of the table; numbers come with their unit."""

    what: str
    python: str
    dragon: str
    ratio: str


def machine() -> str:
    """Processor, cores and kernel of this machine."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cores = os.cpu_count()
    return f"{model}, {cores} cores, Linux {platform.release()}, load {os.getloadavg()[0]:.1f}"


def run_ms(command: list[str]) -> float:
    """Wall time of one run in ms, from spawn to the end of the process."""
    start = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ)
    _, status = os.waitpid(pid, 0)
    elapsed = time.perf_counter() - start
    if status != 0:
        raise RuntimeError(f"{' '.join(command)} ended with status {status}")
    return elapsed * 1000


def start_up_times(python: str, dragon: str, rounds: int) -> tuple[list[float], list[float]]:
    """`-c pass` of both in ms, in turns on one core; who goes first changes every round."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        times: dict[str, list[float]] = {python: [], dragon: []}
        for round_number in range(rounds + 2):
            pair = (python, dragon) if round_number % 2 else (dragon, python)
            for executable in pair:
                elapsed = run_ms([executable, "-c", "pass"])
                if round_number >= 2:  # the first rounds only warm the page cache
                    times[executable].append(elapsed)
    finally:
        os.sched_setaffinity(0, cores)
    return times[python], times[dragon]


def bench_start_up(python: str, dragon: str, rounds: int) -> Row:
    """`-c pass` of both."""
    theirs, ours = start_up_times(python, dragon, rounds)
    ratio = statistics.median(d / p for p, d in zip(theirs, ours, strict=True))
    return Row(
        f"start-up, `-c pass` ({rounds} pairs)",
        f"{statistics.median(theirs):.2f} ms (min {min(theirs):.2f})",
        f"{statistics.median(ours):.2f} ms (min {min(ours):.2f})",
        f"{ratio:.3f} x the time",
    )


def queue_rates(executable: str, method: str) -> list[float]:
    """Items a second, a few repeats in one run of queue_rate.py."""
    result = subprocess.run(
        [executable, str(HERE / "queue_rate.py"), method],
        capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False,
    )  # fmt: skip
    if result.returncode != 0:
        raise RuntimeError(f"queue_rate.py {method} failed:\n{result.stderr}")
    return [float(line) for line in result.stdout.split()]


def bench_queue(python: str, dragon: str, repeats: int) -> Row:
    """Queue put+get of an int: spawn of python3 against dragon, in turns."""
    spawn_rates: list[float] = []
    dragon_rates: list[float] = []
    for _ in range(repeats):
        spawn_rates += queue_rates(python, "spawn")
        dragon_rates += queue_rates(dragon, "dragon")
    spawn, ours = statistics.median(spawn_rates), statistics.median(dragon_rates)
    return Row(
        f"`Queue` put+get of an int ({len(spawn_rates)} windows)",
        f"{spawn:,.0f} /s (spawn)",
        f"{ours:,.0f} /s",
        f"{ours / spawn:.1f} x the rate",
    )


def size_row(python: str, dragon: str) -> Row:
    """Sizes of the two executables."""
    ours, theirs = (Path(os.path.realpath(path)).stat().st_size for path in (dragon, python))
    return Row(
        "size of the executable",
        f"{theirs / 1e6:.2f} MB",
        f"{ours / 1e6:.2f} MB",
        f"{ours / theirs:.2f} x the size",
    )


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dragon", required=True, help="the executable to measure")
    parser.add_argument("--python", default=sys.executable, help="what to compare it with")
    parser.add_argument("--rounds", type=int, default=60, help="pairs of start-ups")
    parser.add_argument("--repeats", type=int, default=5, help="runs of the Queue program")
    options = parser.parse_args()
    python, dragon = options.python, os.path.abspath(options.dragon)
    print(f"Medians, side by side in one run, on {machine()}:\n")
    print("| | python3 | dragon | dragon / python3 |\n|---|---|---|---|", flush=True)
    for row in (
        bench_start_up(python, dragon, options.rounds),
        bench_queue(python, dragon, options.repeats),
        size_row(python, dragon),
    ):
        print("| " + " | ".join(row) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
