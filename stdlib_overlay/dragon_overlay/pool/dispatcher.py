"""The thread of a pool that gives tasks to workers and answers to jobs (docs/pool.md).

It alone changes what is written here of places, tasks and jobs, so nothing needs a lock, and no
exception of a signal handler, which run in the main thread, can leave anything half done. Others
ask it by orders.

Each task that was given to a worker is written down at its place until its last result has come.
When the worker has ended, what it leaves there is divided by its words: the call that it was in has
died with it, the others have not begun, and go back to the front.

Quick calls go to a worker many at a time, and it has its next task before it asks. Whoever turns
out to be in a long call is looked at: what it has kept is received, and what it has not begun is
withdrawn.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from multiprocessing import ProcessError
from multiprocessing import pool as _stock
from typing import Any

import _dragon
from dragon_overlay.pool import oom, protocol
from dragon_overlay.pool.jobs import Calls, Job, Pace, SingleCall, _Iterated
from dragon_overlay.pool.letters import put_task
from dragon_overlay.pool.protocol import Channel, Words
from dragon_overlay.pool.stacks import StackFile
from dragon_overlay.pool.supervisor import Supervisor, leave_interrupts_to_main
from dragon_overlay.pool.worker import Reporter, Station, work

# typeshed lacks them.
MaybeEncodingError: Any = _stock.MaybeEncodingError  # type: ignore[attr-defined]
RemoteTraceback: Any = _stock.RemoteTraceback  # type: ignore[attr-defined]

#: So many workers in a row may end before they are ready.
MAX_FAILURES = 3

#: A task of quick calls takes about so long.
_TASK_NS = 1_000_000
#: A worker that has more than its call is looked at so often.
_LOOK_S = 0.005


class Run:
    """Items of a job that wait for a worker: those from first to below end."""

    __slots__ = ("end", "first", "job")

    def __init__(self, job: Job, first: int, end: int) -> None:
        self.job = job
        self.first = first
        self.end = end


class Task:
    """Items of a job that a worker has; it does them in order, and n_done have been answered."""

    __slots__ = ("end", "first", "is_batch", "job", "n_done", "n_read")

    def __init__(self, job: Job, first: int, end: int) -> None:
        self.job = job
        self.first = first
        self.end = end
        self.n_done = 0
        self.n_read = 0  # results that were read from the journal before they were sent
        self.is_batch = end - first > job.chunksize  # it is for us to say that it is one task


class Place:
    """Room for a worker, which is replaced when it ends."""

    def __init__(self, index: int, words: Words) -> None:
        self.index = index
        self.inbox = Channel()
        self.words: _dragon.PlaceWords = words.of_place(index)
        self.process: Any = None
        self.generation = 0
        self.is_alive = False  # or is being started
        self.is_ready = False
        self.failure = ""  # what it said before it was ready
        self.tasks: dict[int, Task] = {}  # that it has been given, by their numbers
        self.n_left: int | None = None  # tasks until it ends
        self.is_in_long_call = False  # and is given no task before it is done with that
        self.stack = StackFile()
        self.timed_out: float | None = None  # the limit for which the supervisor has killed it

    def has_more(self) -> bool:
        """Whether it was given more than the program's chunks one by one."""
        return len(self.tasks) > 1 or any(task.is_batch for task in self.tasks.values())

    def task_of(self, doing: int) -> tuple[int, Task] | None:
        """The task of the call that a word names, and its number; None: it has no such task."""
        for number, task in self.tasks.items():
            if number & 0xFFFFFFFF == doing >> 32:
                return number, task
        return None


class Plan:
    """How the workers of a pool are made."""

    def __init__(
        self,
        context: Any,
        n_workers: int,
        initializer: Any,
        initargs: Any,
        max_tasks: int | None,
        max_rss: int | None,
    ) -> None:
        self.context = context
        self.n_workers = n_workers
        self.initializer = initializer
        self.initargs = initargs
        self.max_tasks = max_tasks
        self.max_rss = max_rss

    def start(self, station: Station) -> Any:
        """A worker's process, started."""
        limits = self.max_tasks, self.max_rss
        process = self.context.Process(
            target=work, args=(station, self.initializer, self.initargs, *limits)
        )
        process.name = process.name.replace("Process", "PoolWorker")
        process.daemon = True
        process._dragon_failures = Reporter(station)
        process._dragon_blocked = {signal.SIGINT}  # until the worker knows what to do with it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process


class Dispatcher:
    """The heart of a pool."""

    def __init__(self, plan: Plan) -> None:
        """Start the workers and the threads. Raises what starting a process does."""
        self.jobs: dict[int, Any] = {}
        self._plan = plan
        self._results = Channel()
        self._words = Words(plan.n_workers)
        self.places = [Place(i, self._words) for i in range(plan.n_workers)]
        self._last_open: int | None = None  # a job that had not ended
        self._calls: deque[tuple[Job, bytes]] = deque()  # submitted, and not yet seen
        self.pace = Pace()  # of such calls
        self._idle: list[Place] = []  # ready, and without a task
        self._half: dict[Place, None] = {}  # who has one task, and may be given the next
        self._waiting: deque[Run] = deque()
        self._looks_at: float | None = None  # when workers are looked at; None: none has more
        self._noted: list[tuple[Place, int, int]] = []  # generation, word: what each was doing
        self._n_failures = 0
        self.error: Exception | None = None  # of a broken pool
        self._n_oom_kills = oom.n_kills()
        self._is_closed = False
        self._is_ending = False
        self._has_ended_itself = False
        self._orders: deque[Callable[[], object]] = deque()
        self._callbacks: queue.SimpleQueue[Any] | None = None
        state = self.places, self._idle, self._waiting, self.jobs
        self.desk = _dragon.Desk(self._results, *state)
        self._supervisor = Supervisor(self._results, self.desk.ring, "dragon-pool-supervisor")
        self._thread = threading.Thread(target=self._run, name="dragon-pool", daemon=True)
        self._start()

    def _start(self) -> None:
        try:
            for place in self.places:
                self._supervisor.watch(self._make(place)(), place.index, place.generation)
        except BaseException:
            for place in self.places:
                if place.process is not None:
                    place.process.terminate()
                    place.process.join()
            self._close_files()
            raise
        self._supervisor.thread.start()
        self._thread.start()

    def _close_files(self) -> None:
        self._supervisor.close()
        for place in self.places:
            place.stack.close()

    # ---- for the program's threads ----

    def order(self, what: Callable[..., object], *args: Any) -> None:
        """Have the thread call something. Any thread."""
        self._orders.append(functools.partial(what, *args))
        self.desk.ring()

    def submit(self, job: Job, n_items: int) -> None:
        """Have a job done. Any thread."""
        self.order(self.add, job, 0, n_items)
        self._abandon_if_over(job)

    def submit_call(self, job: SingleCall, call: bytes) -> None:
        """Have a job of one call done. Any thread.

        Args:
            job: without a time limit.
            call: its function, arguments and keywords, pickled.
        """
        if job.has_callbacks or not self.desk.give(job, Task(job, 0, 1), call):
            self._calls.append((job, call))
            self.desk.ring()
        self._abandon_if_over(job)

    def expect(self, job: Job) -> None:
        """Have the pool not end before a job has, whose items will come. Any thread."""
        self.order(job.open)
        self._abandon_if_over(job)

    def kill(self, job: Job) -> None:
        """Have the workers killed that are in a call of a job. Any thread."""
        self.order(self._kill, job)

    def fail(self, job: Job, error: Exception) -> None:
        """Answer a job of one item. Any thread."""
        self.order(self._answer, job, 0, protocol.FAILED_HERE, error)
        self._abandon_if_over(job)

    def _abandon_if_over(self, job: Job) -> None:
        if self._has_ended_itself:  # another thread has ended the pool meanwhile
            job.abandon(_ended())

    def close(self) -> None:
        """Let the workers end when all jobs have ended. Does not wait."""
        self.order(self._close)

    def terminate(self) -> None:
        """End the workers, and wait for that, unless it is one of the pool's threads that asks."""
        self.order(self._terminate)
        self.join()

    def join(self) -> None:
        """Wait until the pool has ended."""
        for thread in (self._thread, self._supervisor.thread):
            if thread is not threading.current_thread():
                thread.join()

    # ---- orders ----

    def add(self, job: Job, first: int, end: int) -> None:
        """Items of a job from first to below end are to be done. An order."""
        job.open()
        if self._is_ending:
            job.abandon(_ended())
        elif self.error is not None:
            job.begin(first, end)
            for index in range(first, end):
                self._answer(job, index, protocol.FAILED_HERE, self.error)
        else:
            last = self._waiting[-1] if self._waiting else None
            if last is not None and last.job is job and last.end == first:
                last.end = end
            else:
                self._waiting.append(Run(job, first, end))

    def add_read(self, job: _Iterated) -> None:
        """More items of a job have been read. An order."""
        first, end = job.n_read, job.take_read()
        if job.is_over:
            job.items.clear()
        elif first < end:
            self.add(job, first, end)

    def end_items(self, job: Any, n_items: int, error: Exception | None) -> None:
        """There are no more items. An order.

        Args:
            job: one that is iterated over.
            n_items: how many there were.
            error: with which reading them ended: one answer more.
        """
        self.add_read(job)
        if not job.is_over:
            if error is not None:
                job.fails_after = n_items
                self._answer(job, n_items, protocol.FAILED_HERE, error)
                n_items += 1
            if job.progress is not None:
                job.progress.expect(n_items)
            job._set_length(n_items)

    def _kill(self, job: Job) -> None:
        for place in self.places:
            for number, task in place.tasks.items():
                # The call under way, or if none is, the one that it is about to begin.
                item = max(task.n_done, place.words.item_of(number) or 0)
                if task.job.is_call_of(task.first + item, job):
                    task.job.give_up(task.first + item)
                    kill = functools.partial(self._supervisor.kill_in_call, place, number)
                    self._supervisor.order(functools.partial(kill, item))

    def _close(self) -> None:
        self._is_closed = True
        self.desk.is_open = False

    def _terminate(self) -> None:
        if self._is_ending:
            return
        self._is_closed = True
        self._is_ending = True
        self.desk.is_open = False
        self._waiting.clear()
        for place in self.places:
            place.tasks.clear()
            place.inbox.take_all()
            place.inbox.put(None)
        self._supervisor.order(self._supervisor.terminate)

    # ---- the thread ----

    def _run(self) -> None:
        leave_interrupts_to_main()
        try:
            while not self._is_over():
                self._serve()
        except BaseException as error:  # a fault of this module must not leave anybody waiting
            self._is_ending = True
            self.desk.is_open = False
            self._supervisor.order(self._supervisor.kill)
            self._abandon_all(error)
            raise
        finally:
            self._supervisor.order(None)
            self._has_ended_itself = True
            self._abandon_all(None)
            if self._callbacks is not None:
                self._callbacks.put(None)
            if self._supervisor.thread.is_alive():
                self._supervisor.thread.join()
            for place in self.places:
                place.stack.close()

    def _serve(self) -> None:
        left_s = None if self._looks_at is None else self._looks_at - time.monotonic()
        if left_s is not None and left_s <= 0:
            self._note_what_they_do()
            left_s = None
        message = self.desk.next(self._expects_messages(), left_s)
        if message is not None:
            self._receive(*message)
        del message
        while self._orders:
            self._orders.popleft()()
        if self._calls:
            calls = [self._calls.popleft() for _ in range(len(self._calls))]
            self.add(Calls(calls, self.pace), 0, len(calls))
        self._give_all()
        if self._is_closed and not self._is_ending:
            self._end_if_done()

    def _expects_messages(self) -> bool:
        """Whether workers will send something that threads which wait for calls do not receive."""
        return self._is_ending or any(place.tasks or not place.is_ready for place in self.places)

    def _end_if_done(self) -> None:
        if self._last_open in self.jobs:
            return
        for number, job in list(self.jobs.items()):
            if job.is_open:
                self._last_open = number
                return
        self._is_ending = True
        for place in self.places:
            place.inbox.put(None)

    def _is_over(self) -> bool:
        return self._is_ending and not any(place.is_alive for place in self.places)

    def _abandon_all(self, why: BaseException | None) -> None:
        error = _ended()
        error.__cause__ = why
        for job in list(self.jobs.values()):
            try:
                if job.progress is not None:
                    job.progress.close()
                job.abandon(error)
            except Exception:  # noqa: BLE001  # the others must not wait for ever
                traceback.print_exc()

    # ---- tasks ----

    def _give_all(self) -> None:
        """Give what waits to those who have no task, quick calls also to those who have one."""
        while self._waiting:
            if self._idle:
                place = self._idle.pop()
            elif self._half and self._n_quick(self._waiting[0].job) > 0:
                place, _ = self._half.popitem()
            else:
                return
            self._give(place)
            self._file(place)

    def _file(self, place: Place) -> None:
        """Note whether a worker may be given a task."""
        if place.is_ready and place.n_left != 0:
            if not place.tasks:
                self._half.pop(place, None)
                self._idle.append(place)
            elif len(place.tasks) == 1 and not place.is_in_long_call:
                self._half[place] = None

    def _n_quick(self, job: Job) -> int:
        """How many calls of a job may be a task; 0: they are not quick, or it is not known."""
        is_counted = self._plan.max_tasks is not None or self._plan.max_rss is not None
        if job.pace.ns is None or is_counted:
            return 0
        return int(_TASK_NS // (job.pace.ns + 1))

    def _n_of_next(self, run: Run) -> int:
        """How many items the next task is to have.

        Quick calls are put together, but each worker shall have several tasks of what is left.
        """
        job = run.job
        n = min(self._n_quick(job), (run.end - run.first) // (2 * len(self.places)))
        return max(job.chunksize, n - n % max(1, job.chunksize))

    def _give(self, place: Place) -> None:
        """Give a worker the next task; if it cannot be sent, it has none more."""
        run = self._waiting[0]
        job = run.job
        first, end = job.begin(run.first, min(run.first + self._n_of_next(run), run.end))
        run.first = end
        if end == run.end:
            self._waiting.popleft()
        if first == end:
            return
        number = self.desk.number
        self.desk.number += 1
        place.tasks[number] = Task(job, first, end)
        task = job.mode, job.func, job.items_of(first, end - first)
        try:
            put_task(place.inbox, number, end - first, task)
        except Exception as error:  # noqa: BLE001  # whatever pickling the program's objects raises
            del place.tasks[number], task
            for index in range(first, end):
                self._answer(job, index, protocol.FAILED_HERE, error)
            return
        if place.n_left is not None:
            place.n_left -= 1
        if self._looks_at is None and place.has_more():
            self._looks_at = time.monotonic() + _LOOK_S
        timeout = job.limits.timeout
        if timeout is not None:
            limit = self._supervisor.limit
            self._supervisor.order(functools.partial(limit, place, number, timeout))

    def _receive(
        self, index: int, generation: int, number: int, item: int, kind: int, *rest: Any
    ) -> None:
        if kind == protocol.LOOK:
            self._look()
            return
        place = self.places[index]
        if generation != place.generation:
            return
        if kind == protocol.READY:
            self._n_failures = 0
            place.is_ready = True
            self._file(place)
            is_counted = self._plan.max_tasks is not None or self._plan.max_rss is not None
            self.desk.is_open = not (is_counted or self._is_closed or self.error)
        elif kind == protocol.NOT_READY:
            place.failure = rest[0]
        elif kind == protocol.ENDED:
            self._has_ended(place, rest[0])
        elif number not in place.tasks:
            return  # it was withdrawn
        elif kind == protocol.STOPPED:
            self._has_stopped(place, number, item)
        else:
            self._one_done(place, number, item, kind, rest)

    def _one_done(self, place: Place, number: int, item: int, kind: int, rest: Any) -> None:
        task = place.tasks[number]
        place.is_in_long_call = False
        first = task.first + item
        if kind == protocol.RESULTS:
            n, journal, took_ns = rest
            task.job.pace.took(n, took_ns)
            first += task.n_read
            task.n_done = item + n
            rest = (_dragon.results_of(journal, task.n_read, n),)
        else:
            task.n_done = item + 1
        task.n_read = 0
        self._remove_if_done(place, number, task)
        self._give_all()  # the worker's next task goes first, the program's code later
        if kind != protocol.RESULTS or rest[0]:
            self._answer(task.job, first, kind, *rest)

    def _remove_if_done(self, place: Place, number: int, task: Task) -> None:
        if task.first + task.n_done == task.end:
            del place.tasks[number]
            self._file(place)

    def _answer(self, job: Job, index: int, kind: int, *rest: Any) -> None:
        if not job.runs_callbacks(index):
            _tell(job, index, kind, *rest)
            return
        if self._callbacks is None:
            self._callbacks = queue.SimpleQueue()
            target, args = _run_callbacks, (self._callbacks, self.desk.ring)
            threading.Thread(
                target=target, args=args, name="dragon-pool-calls", daemon=True
            ).start()
        self._callbacks.put((job, index, kind, *rest))

    # ---- workers that have more than they get done ----

    def _note_what_they_do(self) -> None:
        """Look at those who have more, when what they have sent up to now has been received."""
        more = [place for place in self.places if place.has_more()]
        self._looks_at = time.monotonic() + _LOOK_S if more else None
        if more:
            self._noted = [(place, place.generation, place.words.doing()) for place in more]
            self._results.put((0, 0, 0, 0, protocol.LOOK))

    def _look(self) -> None:
        noted, self._noted = self._noted, []
        for place, generation, doing in noted:
            took_s = time.monotonic() - place.words.since()
            if generation == place.generation and took_s > _LOOK_S:
                self._take_back(place, doing, took_s)

    def _take_back(self, place: Place, doing: int, took_s: float) -> None:
        """Receive what a worker in a long call has kept, and withdraw what it has not begun.

        Args:
            place: the worker's.
            doing: its call; all that it had sent when that began was received.
            took_s: since then.
        """
        found = place.task_of(doing)
        if found is None:
            return
        number, task = found
        item = (doing & 0xFFFFFFFF) - 1
        if task.first + item >= task.end:
            return  # it has been withdrawn
        try:
            kept = place.words.kept(task.n_read, task.n_read + item - task.n_done)
        except ValueError:
            return  # it goes on, and writes over what we read
        if place.words.doing() != doing:
            return
        place.is_in_long_call = True
        task.job.pace.took(1, int(took_s * 1e9))
        first = task.first + task.n_done
        task.n_done += len(kept)
        task.n_read += len(kept)
        place.words.withdraw(number, item + 1, self.desk.number)
        if place.words.doing() == doing:
            self._withdraw(place, number, item + 1)
        # Otherwise it may have begun some of them, and says where it has stopped.
        if kept:
            self._answer(task.job, first, protocol.RESULTS, kept)

    def _withdraw(self, place: Place, number: int, item: int) -> None:
        """What a worker has from an item of a task on, and its later tasks, wait again."""
        rest = [self._cut(place, number, place.tasks[number], item)]
        for later, task in list(place.tasks.items()):
            if later > number:
                rest.append(self._cut(place, later, task, 0))
        self._put_back(rest)

    def _has_stopped(self, place: Place, number: int, item: int) -> None:
        """A worker has not begun an item, which was withdrawn, nor those behind it."""
        self._put_back([self._cut(place, number, place.tasks[number], item)])

    def _cut(self, place: Place, number: int, task: Task, item: int) -> Run:
        """Let a task end before an item; what it had from there on."""
        rest = Run(task.job, task.first + item, task.end)
        task.end = rest.first
        task.is_batch = False
        task.job.take_back(rest.first, rest.end)
        self._remove_if_done(place, number, task)
        return rest

    def _put_back(self, rest: list[Run]) -> None:
        self._waiting.extendleft(run for run in reversed(rest) if run.first < run.end)

    # ---- the end of a worker ----

    def _has_ended(self, place: Place, exitcode: int | None) -> None:
        place.is_alive = False
        if place in self._idle:
            self._idle.remove(place)
        self._half.pop(place, None)
        place.inbox.take_all()
        if not self._is_ending:
            self._divide(place, exitcode)
            if not place.is_ready:
                self._n_failures += 1
                if self._n_failures >= MAX_FAILURES and self.error is None:
                    self._break(exitcode, place.failure)
        if self.error is not None:
            self._fail_if_all_have_ended()
        elif not self._is_ending:
            self._supervisor.order(self._replacement(place))

    def _divide(self, place: Place, exitcode: int | None) -> None:
        """Put what a dead worker had not begun back in front; the call that it was in has died."""
        died: list[tuple[Job, int]] = []
        rest: list[Run] = []
        for number, task in list(place.tasks.items()):
            self._read_journal(place, number, task)
            first = task.first + task.n_done
            is_in_it = (
                self.error is None
                and first < task.end
                and place.words.item_of(number) == task.n_done
            )
            if is_in_it and not task.job.may_retry(first):
                died.append((task.job, first))
                first += 1
            rest.append(Run(task.job, first, task.end))
        place.tasks.clear()
        self._put_back(rest)
        n_oom_kills = oom.n_kills()
        is_out_of_memory = n_oom_kills != self._n_oom_kills and exitcode == -signal.SIGKILL
        self._n_oom_kills = n_oom_kills
        for job, index in died:
            error = _death(place, exitcode, job, index, is_out_of_memory=is_out_of_memory)
            self._answer(job, index, protocol.FAILED_HERE, error)

    def _read_journal(self, place: Place, number: int, task: Task) -> None:
        """Receive the results that a dead worker has kept: those before the call it was in."""
        n_kept = (place.words.item_of(number) or 0) - task.n_done
        if n_kept > 0:
            index = task.first + task.n_done
            kept = place.words.kept(task.n_read, task.n_read + n_kept)
            task.n_done += n_kept
            self._answer(task.job, index, protocol.RESULTS, kept)

    def _make(self, place: Place) -> Callable[[], Any]:
        """What makes the next worker of a place."""
        place.generation += 1
        place.is_alive = True
        place.is_ready = False
        place.is_in_long_call = False
        place.failure = ""
        place.n_left = self._plan.max_tasks
        place.words.clear()
        place.stack.clear()
        place.timed_out = None
        station = Station(
            place.index,
            place.generation,
            place.inbox,
            self._results,
            self._words,
            place.stack,
        )

        def make() -> Any:
            place.process = process = self._plan.start(station)
            return process

        return make

    def _replacement(self, place: Place) -> Callable[[], object]:
        make = self._make(place)
        return functools.partial(self._supervisor.start, make, place.index, place.generation)

    # ---- a broken pool ----

    def _break(self, exitcode: int | None, text: str) -> None:
        self.error = _broken(exitcode, text)
        self.desk.is_open = False
        self._supervisor.order(self._supervisor.kill)

    def _fail_if_all_have_ended(self) -> None:
        if any(place.is_alive for place in self.places):
            return
        waiting = list(self._waiting)
        self._waiting.clear()
        for run in waiting:
            run.job.begin(run.first, run.end)
            for index in range(run.first, run.end):
                self._answer(run.job, index, protocol.FAILED_HERE, self.error)


def _death(
    place: Place, exitcode: int | None, job: Job, index: int, *, is_out_of_memory: bool
) -> Exception:
    from dragon_overlay.ends import short_repr
    from dragon_overlay.errors import TaskTimeout, WorkerDied

    who = place.process.pid, place.process.name
    func, arguments = job.call_of(index)
    what = short_repr(func), short_repr(arguments)
    stack = place.stack.read()
    if place.timed_out is not None:
        return TaskTimeout(*who, place.timed_out, *what, stack)
    return WorkerDied(*who, exitcode, *what, stack, is_out_of_memory)


def _run_callbacks(answers: Any, ring: Callable[[], object]) -> None:
    """The thread that answers jobs with callbacks: these may take their time."""
    for job, index, kind, *rest in iter(answers.get, None):
        _tell(job, index, kind, *rest)
        del job, rest
        ring()  # it may have been the last job of a closed pool


def _tell(job: Job, index: int, kind: int, *rest: Any) -> None:
    """Answer a job with what has come for the call of an index, or for those from it on."""
    n = len(rest[0]) if kind == protocol.RESULTS else 1
    if job.progress is not None:
        job.progress.add(n)  # before the program is told, and says something itself
    if kind == protocol.RESULTS:
        job.answer_all(index, rest[0])
    else:
        job.answer(index, *_outcome(kind, *rest))


def _outcome(kind: int, *rest: Any) -> tuple[bool, Any]:
    """(True, result) or (False, exception) of what has come for a call."""
    if kind == protocol.FAILED_HERE:
        return False, rest[0]
    try:
        obj = rest[-1].open()
    except BaseException as why:  # noqa: BLE001  # whatever the object's own unpickling raises
        kind, text = protocol.ERROR, rest[0] if kind == protocol.ERROR else traceback.format_exc()
        obj = MaybeEncodingError(why, _Words(text.rstrip().rpartition("\n")[2]))
        rest = text, None
    if kind == protocol.SEALED:
        return True, obj
    if not isinstance(obj, BaseException):
        obj = RuntimeError(f"an exception has become {obj!r} on its way")
    obj.__cause__ = RemoteTraceback(f'\n"""\n{rest[0]}"""')
    return False, obj


class _Words:
    """Its repr is a text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _ended() -> Exception:
    return ProcessError("the pool was terminated before this call had ended")


def _broken(exitcode: int | None, text: str) -> Exception:
    kind: type[Exception] = RuntimeError
    # The module refuses to be imported when the interpreter is being shut down (RuntimeError); then
    # there is nobody who would tell the one from the other.
    with contextlib.suppress(RuntimeError):
        from concurrent.futures.process import BrokenProcessPool

        kind = BrokenProcessPool
    return kind(
        f"the pool is broken: {MAX_FAILURES} workers in a row ended before they were ready, the "
        f"last one with exit code {exitcode}" + (f". It said:\n\n{text}" if text else "")
    )
