"""Programs that the standard library's multiprocessing executes for itself."""

from collections.abc import Callable

from launcher_support import Outcome

CHILDREN_OF_THE_TRACKER = """
import time
from multiprocessing import resource_tracker
from pathlib import Path

def ignores_interrupts(pid):
    line = next(l for l in Path(f"/proc/{pid}/status").open() if l.startswith("SigIgn:"))
    return int(line.split()[1], 16) & 2

resource_tracker.ensure_running()
pid = resource_tracker._resource_tracker._pid
while not ignores_interrupts(pid):  # main() does that first
    time.sleep(0.01)
print(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
"""


def test_the_resource_tracker_has_no_seed_that_would_keep_its_pipe_open(
    dragon: Callable[..., Outcome],
) -> None:
    assert dragon("-c", CHILDREN_OF_THE_TRACKER) == ("[]\n", "", 0)
