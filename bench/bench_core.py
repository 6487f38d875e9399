"""The core library against bare probes of the machine, in turns: what does the library add?

    bench_core.py --program build/bench/bench_core [--repeats 7] [--only one_way]

Every measurement runs in a process of its own (bench_core.c), pinned to cores and not, and each
time right after its probe. Prints a Markdown table: the medians, and the median of the ratios of
neighbours in time, so that a machine that changes its speed changes both.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

RUN_TIMEOUT_S = 60
KIB, MIB = 1024, 1024**2


class Sample(NamedTuple):
    """What one run of the program printed."""

    ns: float
    share: float  # of the slowest producer, in that of the mean; 1 where there is only one


class Row(NamedTuple):
    """A line of the table before it is measured."""

    title: str
    name: str
    size_bytes: int
    probe: str  # "": there is none
    probe_size_bytes: int
    unit: str  # "ns", "ms", "GB/s" or "M/s"
    goals: tuple[Callable[[float, float], bool], ...]  # of median ns and ratio of the times
    goal: str


def rows() -> list[Row]:
    """Return the lines of the table."""
    found = [
        Row("8 B send + receive, one process; probe: two robust locks around a store and a load",
            "local", 8, "local_probe", 8, "ns", (lambda ns, _: ns <= 80,), "80 ns"),
        Row("8 B one way, both spin; probe: a cache line", "one_way", 8, "one_way_probe", 8,
            "ns", (lambda _, ratio: ratio <= 2,), "2 x"),
        Row("8 B one way, blocking calls; same probe", "one_way_blocking", 8, "one_way_probe", 8,
            "ns", (), ""),
    ]  # fmt: skip
    for size, label in ((64 * KIB, "64 KiB"), (512 * KIB, "512 KiB"), (8 * MIB, "8 MiB")):
        found.append(
            Row(f"{label} copied in and out; probe: memcpy in two processes", "copy", size,
                "copy_probe", size, "GB/s", (lambda _, ratio: ratio <= 1.25,), "80 %")
        )  # fmt: skip
    found.append(
        Row("4 KiB block handed over (from a lease); probe: 64 KiB (a run)", "transfer", 4 * KIB,
            "transfer", 64 * KIB, "ns", (), "")
    )  # fmt: skip
    for size, label in ((MIB, "1 MiB"), (8 * MIB, "8 MiB")):
        found.append(
            Row(f"{label} block handed over; probe: 64 KiB handed over", "transfer", size,
                "transfer", 64 * KIB, "ns", (lambda _, ratio: ratio <= 1.25,), "1.25 x")
        )  # fmt: skip
    found.append(
        Row("4 producers, 4 consumers; probe: one of each", "fan_4", 8, "fan_1", 8, "M/s",
            (lambda _, ratio: ratio <= 1 / 0.6,), "60 %")
    )  # fmt: skip
    for name, label in (("alloc", "allocate + free"), ("alloc_many", "64 allocated, 64 freed")):
        for size in (32, 256, 1024):
            found.append(
                Row(f"{label}, {size} B; probe: malloc, free", name, size, f"{name}_probe", size,
                    "ns", (lambda ns, _: ns <= 15, lambda _, ratio: ratio <= 1), "15 ns, 1 x")
            )  # fmt: skip
    found += [
        Row("256 B made by another process, freed in a batch", "free_remote", 256, "", 0, "ns",
            (lambda ns, _: ns <= 60,), "60 ns"),
        Row("1 M blocks of 512 B of a dead process taken back", "recover", 512, "", 0, "ms",
            (lambda ns, _: ns <= 10e6,), "10 ms"),
    ]  # fmt: skip
    return found


def run_once(program: str, name: str, size_bytes: int, pinned: bool) -> Sample:
    """Run one measurement."""
    done = subprocess.run(
        [program, name, str(size_bytes), str(int(pinned))],
        capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"{name} {size_bytes} failed:\n{done.stderr}")
    values = dict(line.split() for line in done.stdout.splitlines())
    return Sample(float(values["ns"]), float(values.get("share", 1)))


def shown(ns: float, row: Row, size_bytes: int) -> str:
    """Return a time in the unit of its row."""
    if row.unit == "GB/s":
        return f"{size_bytes / ns:.2f} GB/s"
    if row.unit == "ms":
        return f"{ns / 1e6:.1f} ms"
    if row.unit == "M/s":
        return f"{1e3 / ns:.2f} M/s"
    return f"{ns:,.1f} ns" if ns < 100 else f"{ns:,.0f} ns"


def line(cells: list[str]) -> None:
    """Print a line of the table."""
    print("| " + " | ".join(cells) + " |", flush=True)


def measure(program: str, row: Row, pinned: bool, repeats: int) -> None:
    """Measure a row and print its line; for a fan also that of the slowest producer."""
    probes, ours = [], []
    for _ in range(repeats):
        if row.probe:
            probes.append(run_once(program, row.probe, row.probe_size_bytes, pinned))
        ours.append(run_once(program, row.name, row.size_bytes, pinned))
    our_ns = statistics.median(sample.ns for sample in ours)
    ratio, probe_cell, compared = 0.0, "", ""
    if probes:
        probe_ns = statistics.median(sample.ns for sample in probes)
        ratio = statistics.median(o.ns / p.ns for o, p in zip(ours, probes, strict=True))
        probe_cell = shown(probe_ns, row, row.probe_size_bytes)
        compared = f"{ratio:.2f} x" if row.unit == "ns" else f"{100 / ratio:.0f} %"
    is_met = all(goal(our_ns, ratio) for goal in row.goals)
    how = "pinned" if pinned else "free"
    line([row.title, how, shown(our_ns, row, row.size_bytes), probe_cell, compared, row.goal,
          ("yes" if is_met else "**no**") if row.goals else ""])  # fmt: skip
    if row.name.startswith("fan"):
        share = statistics.median(sample.share for sample in ours)
        line(["the slowest producer's share of the mean", how, f"{100 * share:.0f} %", "", "",
              "50 %", "yes" if share >= 0.5 else "**no**"])  # fmt: skip


def machine() -> str:
    """Say what the numbers are from."""
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        for text in lines:
            if text.startswith("model name"):
                model = text.split(":")[1].strip()
                break
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    busy = f", BUSY at the start (load {load:.1f})" if load > cores / 4 else ""
    return f"{model}, {cores} cores, Linux {platform.release()}{busy}"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--program", required=True, help="the compiled bench_core.c")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, in turns")
    parser.add_argument("--only", default="", help="measurements whose name starts with this")
    options = parser.parse_args()
    program = os.path.abspath(options.program)
    print(f"{datetime.date.today()}, medians of {options.repeats} runs in turns, {machine()}:\n")
    line(["", "cores", "dragon", "bare probe", "dragon / probe", "goal", "met"])
    line(["---", "---", "--:", "--:", "--:", "--:", "---"])
    for row in rows():
        for pinned in (True, False):
            if row.name.startswith(options.only):
                measure(program, row, pinned, options.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
