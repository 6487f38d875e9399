"""Measure one group under one start method: program.py GROUP METHOD OPTIONS-AS-JSON.

Prints the numbers as JSON. Options: target_s, repeats, n_tasks, n_workers, pins.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mp.everything import GROUPS, is_free
from mp.measure import Recorder
from mp.partner import Partner


def main() -> None:
    """Run the command line."""
    name, method, text = sys.argv[1:]
    options = json.loads(text)
    recorder = Recorder(
        options["target_s"], options["repeats"], options["n_tasks"], options["n_workers"]
    )
    if options["pins"] and not is_free(name):
        mine, *theirs = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {mine})
        Partner.cores = theirs or [mine]
    multiprocessing.set_start_method(method)
    GROUPS[name](multiprocessing.get_context(), recorder)
    print(json.dumps({name: number._asdict() for name, number in recorder.numbers.items()}))


if __name__ == "__main__":
    main()
