"""Ten programs in pure Python under python3 and under dragon: is the interpreter as fast?

    bench_python.py --dragon build/dragon [--rounds 7] [--into FOLDER]

Each program (PROGRAMS) runs in a process of its own and reports the CPU time of its work, the two
interpreters in turns. Prints a Markdown table: the least of the rounds, as all else is
disturbance, and the geometric mean of the ratios. --into: the table goes into FOLDER/python.md.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # python -I leaves it out

from bench_first_light import machine  # noqa: E402

#: Name -> (what is prepared, what is measured).
PROGRAMS = {
    "calls: fib(24)": (
        "def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)",
        "fib(24)",
    ),
    "floats: a Mandelbrot set of 80 x 80": (
        """
def escape(c):
    z, n = 0j, 0
    while n < 50 and abs(z) <= 2:
        z, n = z * z + c, n + 1
    return n
""",
        "sum(escape(complex(x / 40 - 1.5, y / 40 - 1)) for x in range(80) for y in range(80))",
    ),
    "ints: primes to 200,000 by a sieve": (
        "",
        """
sieve = bytearray([1]) * 200_000
for i in range(2, 448):
    if sieve[i]:
        sieve[i * i :: i] = bytes(len(range(i * i, 200_000, i)))
sum(i for i in range(2, 200_000) if sieve[i])
""",
    ),
    "lists: a product of 60 x 60 matrices": (
        "a = [[i * j % 7 for j in range(60)] for i in range(60)]",
        "[[sum(x * y for x, y in zip(row, column)) for column in zip(*a)] for row in a]",
    ),
    "dicts: counting 300,000 words": (
        "words = [f'w{i * i % 997}' for i in range(300_000)]",
        """
counts = {}
for word in words:
    counts[word] = counts.get(word, 0) + 1
""",
    ),
    "strings: joining, splitting, replacing": (
        "text = ' '.join(f'word{i}' for i in range(5000))",
        """
for _ in range(40):
    ' '.join(w.upper().replace('W', 'v') for w in text.split())
""",
    ),
    "sorting 100,000 by a key": (
        "import random; random.seed(1); items = [(random.random(), i) for i in range(100_000)]",
        "sorted(items, key=lambda item: -item[0])",
    ),
    "objects: attributes and methods": (
        """
class Account:
    def __init__(self): self.balance = 0
    def add(self, n): self.balance += n
account = Account()
""",
        """
for i in range(400_000):
    account.add(i)
""",
    ),
    "generators: 200,000 through three": (
        "",
        "sum(x + 1 for x in (y * 2 for y in (z for z in range(200_000))))",
    ),
    "regular expressions": (
        "import re; text = 'key1=value1; ' * 8000; pair = re.compile(r'(\\w+)=(\\w+); ')",
        "sum(len(m.group(2)) for m in pair.finditer(text))",
    ),
}


def cpu_ms(executable: str, setup: str, work: str) -> float:
    """CPU time of the work, in ms."""
    code = f"import time\n{setup}\ndef work():\n"
    code += "".join(f"    {line}\n" for line in work.strip().splitlines())
    code += "begin = time.process_time()\nwork()\nprint((time.process_time() - begin) * 1e3)\n"
    command = [executable, "-I", "-c", code]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dragon", required=True, help="the executable to measure")
    parser.add_argument("--python", default=sys.executable, help="what to compare it with")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--into", type=Path, help="the folder that the table goes into")
    options = parser.parse_args()
    executables = [options.python, os.path.abspath(options.dragon)]
    head = f"{time.strftime('%Y-%m-%d')}, {machine()}; least CPU time of {options.rounds} rounds."
    lines = [head, "", "| program | python3, ms | dragon, ms | dragon / python3 |"]
    lines.append("|---|--:|--:|--:|")
    ratios = []
    for name, (setup, work) in PROGRAMS.items():
        least = [math.inf, math.inf]
        for _ in range(options.rounds):
            for i, executable in enumerate(executables):
                least[i] = min(least[i], cpu_ms(executable, setup, work))
        ratios.append(least[1] / least[0])
        lines.append(f"| {name} | {least[0]:.1f} | {least[1]:.1f} | {ratios[-1]:.2f} |")
    mean = math.exp(sum(math.log(ratio) for ratio in ratios) / len(ratios))
    lines.append(f"| geometric mean | | | {mean:.3f} |")
    print("\n".join(lines))
    if options.into:
        options.into.mkdir(parents=True, exist_ok=True)
        (options.into / "python.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
