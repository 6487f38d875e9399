"""The standard library's own Pool over queues of ours."""

import multiprocessing.pool
import threading
from multiprocessing.context import BaseContext


def test_terminate_does_not_wait_for_a_task_that_a_worker_has_just_taken(
    dragon: BaseContext,
) -> None:
    queue = dragon.SimpleQueue()
    looks = [True, False]  # there was something, but it is gone
    queue._poll = lambda timeout: looks.pop(0)  # type: ignore[attr-defined]
    multiprocessing.pool.Pool._help_stuff_finish(queue, threading.current_thread(), 1)
    assert looks == []


def test_terminate_takes_all_tasks_away(dragon: BaseContext) -> None:
    queue = dragon.SimpleQueue()
    for number in range(3):
        queue.put(number)
    multiprocessing.pool.Pool._help_stuff_finish(queue, threading.current_thread(), 1)
    assert queue.empty()


def test_queues_of_other_start_methods_are_emptied_as_ever() -> None:
    queue = multiprocessing.get_context("spawn").SimpleQueue()
    queue.put(1)
    multiprocessing.pool.Pool._help_stuff_finish(queue, threading.current_thread(), 1)
    assert queue.empty()
