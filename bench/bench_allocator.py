"""The executable with each of the three -Dmimalloc= settings, and python3: what is fastest?

    bench_allocator.py NAME=EXECUTABLE... [--repeats 7]

    for mode in override internal off; do meson setup build-$mode -Dmimalloc=$mode; done

Every program of PROGRAMS runs in a process of its own and reports the CPU time of its loop and its
resident memory at the end; the executables take turns. Prints the medians, in ms and MiB, as a
Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

PREAMBLE = "import time, resource\n"
REPORT = """
usage = resource.getrusage(resource.RUSAGE_SELF)
resident = int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
print((time.process_time() - start) * 1e3, resident)
"""
PROGRAMS = {
    "start and end of the interpreter": ("", "pass"),
    "bytes(16 MiB), 200 times": ("", "for _ in range(200): bytes(1 << 24)"),
    "copy of 16 MiB, 100 times": ("b = b'x' * (1 << 24)", "for _ in range(100): bytearray(b)"),
    "copy of 1 MiB, 2000 times": ("b = b'x' * (1 << 20)", "for _ in range(2000): bytearray(b)"),
    "bytearrays of 1 to 64 KiB, 200000 in a window of 1000": (
        "import random; random.seed(1); kept = [None] * 1000",
        "for i in range(200000): kept[i % 1000] = bytearray(random.randrange(1024, 65536))",
    ),
    "numpy: a * b + c of 1000 doubles, 100000 times": (
        "import numpy as np; a = b = c = np.ones(1000)",
        "for _ in range(100000): a * b + c",
    ),
    "numpy: a * b + c of 1 M doubles, 100 times": (
        "import numpy as np; a = b = c = np.ones(1000000)",
        "for _ in range(100): a * b + c",
    ),
    "pickle: 50000 tuples and as many bytes, there and back, 5 times": (
        "import pickle; items = [(i, str(i), b'x' * (700 + i % 800)) for i in range(50000)]",
        "for _ in range(5): pickle.loads(pickle.dumps(items, 5))",
    ),
    "dict churn: 1000 dicts of 20 keys replaced 200 times": (
        "kept = [None] * 1000",
        "for i in range(200000): kept[i % 1000] = {j: (i, j) for j in range(20)}",
    ),
    "strings: 200000 made, joined, split, 5 times": (
        "words = [f'word number {i}' for i in range(200000)]",
        "for _ in range(5): [w.upper() for w in '\\n'.join(words).split('\\n')]",
    ),
    "json, 20000 objects, 10 times": (
        "import json; t = json.dumps([{'a': i, 'b': [i] * 5, 'c': str(i)} for i in range(20000)])",
        "for _ in range(10): json.loads(t)",
    ),
    "zlib of 1 MiB in 4 threads, 20 times": (
        "import zlib; from concurrent.futures import ThreadPoolExecutor as E; b = b'ab' * 2**19",
        "list(E(4).map(lambda _: zlib.decompress(zlib.compress(b, 1)), range(20)))",
    ),
    "500 blocks of 1 MiB, then none": (
        "",
        "kept = [bytearray(1 << 20) for _ in range(500)]; del kept",
    ),
}


def run_once(executable: str, setup: str, loop: str) -> tuple[float, float]:
    """CPU time of the loop in ms and resident memory in MiB."""
    code = f"{PREAMBLE}{setup}\nstart = time.process_time()\n{loop}\n{REPORT}"
    command = [executable, "-c", code]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    milliseconds, resident = output.split()
    return float(milliseconds), float(resident)


def start_once(executable: str) -> tuple[float, float]:
    """CPU time of a whole process that does nothing, in ms."""
    code = "import os, subprocess, sys; subprocess.run(sys.argv[1:]); t = os.times(); "
    code += "print((t.children_user + t.children_system) * 1e3)"
    # times() has a resolution of 10 ms: take many.
    command = [sys.executable, "-c", code, "/bin/sh", "-c"]
    script = f"for i in 1 2 3 4 5 6 7 8 9 10; do {executable} -c pass; done"
    output = subprocess.run([*command, script], check=True, capture_output=True, text=True).stdout
    return float(output) / 10, 0.0


def main() -> None:
    """Run every program under every executable, in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("executables", nargs="+", metavar="NAME=EXECUTABLE")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    executables = dict(pair.split("=", 1) for pair in arguments.executables)
    print("| CPU time in ms (resident MiB after it) |", " | ".join(executables), "|")
    print("|---|" + "---:|" * len(executables))
    for name, (setup, loop) in PROGRAMS.items():
        samples: dict[str, list[tuple[float, float]]] = {e: [] for e in executables}
        for _ in range(arguments.repeats):
            for e, path in executables.items():
                run = start_once(path) if loop == "pass" else run_once(path, setup, loop)
                samples[e].append(run)
        cells = []
        for e in executables:
            time_ms = statistics.median(s[0] for s in samples[e])
            resident = statistics.median(s[1] for s in samples[e])
            cells.append(f"{time_ms:.1f}" + (f" ({resident:.0f})" if resident else ""))
        print(f"| {name} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
