"""Run the torture suite and say how each program ended.

    run.py --dragon build/dragon [--stock /usr/bin/python3.11] [--only NAME] [--times N]
           [--rounds N] [--seconds N] [--loaded] [--readme README.md]

Exits with 1 if a program ended under "dragon" otherwise than `pains.py` says, or left anything.
With --stock, the library's start method "spawn" goes through the same, which is not judged; that
takes 8 minutes, since what hangs is given 15 s. --rounds: so many of the storm (`storm.py`).
--seconds: begin nothing later than that. --loaded: each core has other work. --readme: write the
table there, between its marks.

Other programs' names in /dev/shm are taken for leftovers: ./dev gives the run its own.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from pains import PAINS, Pain
from running import Ending, Runner, dragon, run, stock
from storm import Storm
from table import as_markdown, replace_in

#: Label of a pain, or of the storm -> how it ended.
Endings = dict[str, str]

BUSY = "while True: pass"


@contextlib.contextmanager
def busy_loops(n: int) -> Iterator[None]:
    """Have n processes that do nothing, as fast as they can."""
    loops = [subprocess.Popen([sys.executable, "-I", "-c", BUSY]) for _ in range(n)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


class Suite:
    """All programs, under one start method."""

    def __init__(self, name: str, runner: Runner, end: float) -> None:
        self.name = name
        self.endings: Endings = {}
        self.n_right = self.n_wrong = 0
        self._end = end  # of the time to begin something
        self._runner = runner

    def run_all(self, pains: list[Pain]) -> None:
        """Run each program once."""
        for pain in pains:
            if time.monotonic() > self._end:
                break
            if not (pain.is_ours and self.name == "stock"):
                ending = run(pain, self._runner)
                self._note(pain.label, ending, is_right=str(ending) == pain.end)
                self.endings[pain.label] = self._in_words(pain, ending)

    def run_storm(self, n_rounds: int, number: int) -> None:
        """Run that many rounds of the storm."""
        storm = Storm(self._runner, number)
        for i in range(n_rounds):
            if time.monotonic() > self._end:
                break
            n_faults = len(storm.faults)
            ending = storm.round()
            self._note(f"storm {number}, round {i}", ending, is_right=len(storm.faults) == n_faults)
        self.endings["storm"] = storm.in_words()
        print(f"{self.name:6} storm {number}: {storm.n_kills} kills; {storm.in_words()}")

    def _note(self, label: str, ending: Ending, *, is_right: bool) -> None:
        mark = "" if is_right or self.name == "stock" else "  <<< WRONG"
        print(f"{self.name:6} {label:40} {ending.seconds:5.1f} s  {str(ending)[:100]}{mark}")
        self.n_right += not mark
        self.n_wrong += bool(mark)
        if mark:
            print(ending.stderr)
        sys.stdout.flush()

    def _in_words(self, pain: Pain, ending: Ending) -> str:
        if ending.end != pain.end or pain.end.startswith(("raises", "dies of SIGINT")):
            return str(ending)
        return ", ".join(["ok", *(f"leaves {what}" for what in ending.left)])


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dragon", required=True, type=os.path.abspath)
    parser.add_argument("--stock")
    parser.add_argument("--only", default="")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--seed", type=int, default=random.randrange(1000))
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--loaded", action="store_true")
    parser.add_argument("--readme", type=Path)
    options = parser.parse_args()
    pains = [pain for pain in PAINS if options.only in pain.label]
    end = time.monotonic() + options.seconds
    ours = Suite("dragon", dragon(options.dragon), end)
    suites = [ours, *([Suite("stock", stock(options.stock), end)] if options.stock else [])]
    with busy_loops((os.cpu_count() or 1) if options.loaded else 0):
        for _ in range(options.times):
            for suite in suites:
                suite.run_all(pains)
        for suite in suites if options.rounds else []:
            suite.run_storm(options.rounds, options.seed)
    if options.readme:
        replace_in(options.readme, as_markdown(pains, *(suite.endings for suite in suites)))
    print(f"{ours.n_right} passed, {ours.n_wrong} failed, 0 skipped")
    return ours.n_wrong != 0


if __name__ == "__main__":
    sys.exit(main())
