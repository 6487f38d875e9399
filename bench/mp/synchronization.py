"""Locks, semaphores, events, conditions, barriers, and making them."""

from __future__ import annotations

import gc
from typing import Any

from mp.groups import group
from mp.measure import Recorder
from mp.partner import Partner


@group("lock")
def locks(context: Any, recorder: Recorder) -> None:
    """Alone, and with others."""
    for kind in ("Lock", "RLock"):
        lock = getattr(context, kind)()

        def calls(n: int, lock: Any = lock) -> None:
            acquire, release = lock.acquire, lock.release
            for _ in range(n):
                acquire()
                release()

        def with_statements(n: int, lock: Any = lock) -> None:
            for _ in range(n):
                with lock:
                    pass

        recorder.time_us(f"{kind.lower()}.uncontended", calls)
        recorder.time_us(f"{kind.lower()}.with", with_statements)
        for n_partners in (2, 4):
            partners = [Partner(context, lock=lock) for _ in range(n_partners)]

            def contend(n: int, partners: list[Partner] = partners) -> None:
                for partner in partners:
                    partner.begin("lock", "lock", n)
                for partner in partners:
                    partner.join()

            recorder.time_us(f"{kind.lower()}.contended{n_partners}", contend, parties=n_partners)
            for partner in partners:
                partner.close()


@group("sync")
def one_process(context: Any, recorder: Recorder) -> None:
    """Semaphore and event, nobody else there."""
    semaphore, event = context.Semaphore(1), context.Event()

    def semaphore_calls(n: int) -> None:
        for _ in range(n):
            semaphore.acquire()
            semaphore.release()

    def event_calls(n: int) -> None:
        for _ in range(n):
            event.set()
            event.is_set()
            event.clear()

    recorder.time_us("semaphore.uncontended", semaphore_calls)
    recorder.time_us("event.set_isset_clear", event_calls)


@group("pingpong")
def ping_pong(context: Any, recorder: Recorder) -> None:
    """Two processes, each waiting for the other."""
    ping, pong = context.Semaphore(0), context.Semaphore(0)
    call, answer = context.Event(), context.Event()
    changed, turn = context.Condition(), context.Value("i", 0, lock=False)
    barrier = context.Barrier(2)
    partner = Partner(
        context, ping=ping, pong=pong, call=call, answer=answer, changed=changed, turn=turn,
        barrier=barrier,
    )  # fmt: skip

    def semaphores(n: int) -> None:
        partner.begin("semaphores", "ping", "pong", n)
        for _ in range(n):
            ping.release()
            pong.acquire()
        partner.join()

    def events(n: int) -> None:
        partner.begin("events", "call", "answer", n)
        for _ in range(n):
            call.set()
            answer.wait()
            answer.clear()
        partner.join()

    def condition(n: int) -> None:
        partner.begin("condition", "changed", "turn", n)
        for _ in range(n):
            with changed:
                turn.value = 1
                changed.notify()
                while turn.value != 0:
                    changed.wait()
        partner.join()

    def meet(n: int) -> None:
        partner.begin("barrier", "barrier", n)
        for _ in range(n):
            barrier.wait()
        partner.join()

    recorder.time_us("semaphore.pingpong", semaphores)
    recorder.time_us("event.pingpong", events)
    recorder.time_us("condition.pingpong", condition)
    recorder.time_us("barrier.2parties", meet)
    partner.close()


@group("barrier")
def barrier_of_four(context: Any, recorder: Recorder) -> None:
    """This process and three others."""
    barrier = context.Barrier(4)
    partners = [Partner(context, barrier=barrier) for _ in range(3)]

    def meet(n: int) -> None:
        for partner in partners:
            partner.begin("barrier", "barrier", n)
        for _ in range(n):
            barrier.wait()
        for partner in partners:
            partner.join()

    recorder.time_us("barrier.4parties", meet)
    for partner in partners:
        partner.close()


@group("create")
def create(context: Any, recorder: Recorder) -> None:
    """Make one, and drop it."""
    for kind in ("Lock", "Semaphore", "Event", "Condition", "SimpleQueue", "Queue"):
        make = getattr(context, kind)

        def operation(n: int, make: Any = make) -> None:
            for _ in range(n):
                make()

        recorder.time_us(f"create.{kind.lower()}", operation, most=2000)
        gc.collect()

    def pipes(n: int) -> None:
        for _ in range(n):
            for connection in context.Pipe():
                connection.close()

    recorder.time_us("create.pipe", pipes, most=5000)
