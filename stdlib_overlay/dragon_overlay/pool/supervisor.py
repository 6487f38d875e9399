"""The thread of a pool that starts its workers and sees them end.

It waits for sentinels, for orders and for the clock of those calls that have a time limit, and does
nothing of its own accord. It never changes what the dispatcher knows: that a worker has ended is a
message behind all that the worker has sent.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from dragon_overlay.pool import protocol
from dragon_overlay.pool.clock import Clock
from dragon_overlay.pool.protocol import Channel

#: What has not ended so long after SIGTERM is killed.
PATIENCE_S = 2.0


def leave_interrupts_to_main() -> None:
    """Have the calling thread not take SIGINT from a main thread that blocks it for a moment.

    The interpreter would tell the main thread late, in a place that may swallow it (`popen`).
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


class Supervisor:
    """Starts, watches and ends processes, in a thread of its own."""

    def __init__(self, results: Channel, ring: Callable[[], object], name: str) -> None:
        self._results = results
        self._ring = ring  # has the dispatcher look into results
        self._workers: dict[int, tuple[Any, int, int]] = {}  # sentinel -> process, station
        self._orders: deque[Callable[[], object] | None] = deque()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._bell_lock = threading.Lock()  # no order rings another's descriptor
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._clock = Clock()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    # ---- for the dispatcher ----

    def order(self, what: Callable[[], object] | None) -> None:
        """Have the thread call something; None: have it end. Any thread."""
        self._orders.append(what)
        with self._bell_lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def watch(self, process: Any, place: int, generation: int) -> None:
        """Tell of the end of a process. The supervisor's thread, or before it runs."""
        self._workers[process.sentinel] = process, place, generation
        self._poll.register(process.sentinel, select.POLLIN)

    def start(self, make: Callable[[], Any], place: int, generation: int) -> None:
        """Start a worker and watch it. An order.

        Args:
            make: makes and starts its process.
            place: where it works.
            generation: that of the place.
        """
        try:
            self.watch(make(), place, generation)
        except Exception as error:  # noqa: BLE001  # of the system, or of pickling
            self._tell(place, generation, protocol.NOT_READY, f"{type(error).__name__}: {error}")
            self._tell(place, generation, protocol.ENDED, None)

    def terminate(self) -> None:
        """Ask all to end, and kill those who do not. An order."""
        for process, _, _ in self._workers.values():
            process.terminate()
        self._clock.call_in(PATIENCE_S, self.kill)

    def kill(self) -> None:
        """Kill all. An order."""
        for process, _, _ in self._workers.values():
            process.kill()

    def limit(self, place: Any, number: int, timeout: float) -> None:
        """From now on no call of a task may take longer, see Clock. An order."""
        self._clock.limit(place, number, timeout)

    def kill_in_call(self, place: Any, number: int, item: int) -> None:
        """Kill a worker if and when it is in a certain call, see Clock. An order."""
        self._clock.kill_in_call(place, number, item)

    # ---- the thread ----

    def _run(self) -> None:
        leave_interrupts_to_main()
        try:
            self._serve()
        finally:
            self.close()

    def close(self) -> None:
        """Give the descriptor back, when nobody gives orders any more."""
        with self._bell_lock:
            os.close(self._bell)
            self._bell = -1

    def _serve(self) -> None:
        while True:
            ready = [fd for fd, _ in self._poll.poll(self._timeout_ms())]
            if self._bell in ready:
                os.eventfd_read(self._bell)
                ready.remove(self._bell)
            while self._orders:
                order = self._orders.popleft()
                if order is None:
                    return
                order()
            for sentinel in ready:
                self._reap(sentinel)
            self._clock.turn()

    def _timeout_ms(self) -> float | None:
        due_s = self._clock.due_s()
        return None if due_s is None else due_s * 1000 + 1

    def _reap(self, sentinel: int) -> None:
        process, place, generation = self._workers.pop(sentinel)
        self._poll.unregister(sentinel)
        process.join()
        self._tell(place, generation, protocol.ENDED, process.exitcode)

    def _tell(self, place: int, generation: int, kind: int, *rest: Any) -> None:
        self._results.put((place, generation, 0, 0, kind, *rest))
        self._ring()
