"""The storm: random members of a busy program are killed; it must end each time, and leave nothing.

A member is any process of the program but its first one: workers, the manager's server, and the
helpers of the start method, too.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import signal
import time

from pains import Pain
from running import Ending, Runner, run
from whole_run import processes_of

#: What goes wrong for a program when members of it die. With a bare name, anything else is a fault.
_NAMED = (
    "BrokenPipeError",
    "ChildProcessError",
    "ConnectionRefusedError",
    "ConnectionResetError",
    "EOFError",
    "FileNotFoundError",
    "BrokenProcessPool",
    "RemoteError",
    "WorkerDied",
)


class Storm:
    """Rounds of a storm, and what came of them."""

    def __init__(self, runner: Runner, number: int) -> None:
        self._runner = runner
        self._chance = random.Random(number)
        #: How the rounds ended -> how often.
        self.endings: collections.Counter[str] = collections.Counter()
        self.n_kills = 0
        #: Rounds that ended as they must not.
        self.faults: list[Ending] = []

    def round(self) -> Ending:
        """Run the program once, and kill up to three of its members."""
        delays = sorted(self._chance.random() for _ in range(self._chance.randrange(1, 4)))
        begin = time.monotonic()

        def shoot(tag: str, pid: int) -> None:
            if delays and time.monotonic() - begin > delays[0]:
                del delays[0]
                self._kill_one(processes_of(tag), pid)

        pain = Pain("busy", str(list(range(10))))
        ending = run(pain, self._runner, shoot)
        self.endings[str(ending)] += 1
        if ending.left or not self._is_named(pain, ending.end):
            self.faults.append(ending)
        return ending

    def in_words(self) -> str:
        """What came of the rounds."""
        n = self.endings.total()
        n_hung = self.endings["hangs"]
        n_other = len(self.faults) - n_hung
        parts = [f"{n - len(self.faults)} of {n}: a result or an exception"]
        parts += [f"{n_hung} hang"] if n_hung else []
        parts += [f"{n_other} leave something or end otherwise"] if n_other else []
        return ", ".join(parts)

    def _kill_one(self, members: list[int], first: int) -> None:
        members = [pid for pid in members if pid != first]
        if members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._chance.choice(members), signal.SIGKILL)
                self.n_kills += 1

    def _is_named(self, pain: Pain, end: str) -> bool:
        return end == pain.end or end in {f"raises {name}" for name in _NAMED}
