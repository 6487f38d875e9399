"""The three queues."""

from __future__ import annotations

from typing import Any

from mp.groups import group
from mp.measure import Operation, Recorder
from mp.partner import KIB, MIB, Kind, Partner, name_of, payload, size_of, with_numpy

_KINDS: list[Kind] = [
    "int",
    "dict",
    KIB,
    64 * KIB,
    MIB,
    16 * MIB,
    64 * MIB,
    ("numpy", MIB),
    ("numpy", 16 * MIB),
    ("numpy", 64 * MIB),
]
#: The stock Queue keeps in memory what it has not written yet.
_MOST_BYTES = 256 * MIB


def _latency(context: Any, recorder: Recorder, name: str) -> list[Any]:
    there, back = getattr(context, name)(), getattr(context, name)()
    partner = Partner(context, there=there, back=back)
    partner.begin("queue echo", "there", "back")
    for kind in with_numpy(_KINDS):
        message = payload(kind)

        def there_and_back(n: int, message: Any = message) -> None:
            for _ in range(n):
                there.put(message)
                back.get()

        recorder.time_us(f"{name.lower()}.lat.{name_of(kind)}", there_and_back)
    there.put(None)
    partner.join()
    partner.close()
    return [there, back]


def _one_to_one(context: Any, recorder: Recorder, name: str) -> None:
    queue = getattr(context, name)()
    partner = Partner(context, queue=queue)

    def putting(message: Any) -> Operation:
        put = queue.put

        def operation(n: int) -> None:
            partner.begin("get", "queue", n)
            for _ in range(n):
                put(message)
            partner.join()

        return operation

    for kind in with_numpy(_KINDS):
        operation, full_name = putting(payload(kind)), f"{name.lower()}.1to1.{name_of(kind)}"
        size = size_of(kind)
        if size >= 64 * KIB:
            recorder.rate(
                full_name, operation, "MB/s", size / 1e6, most=max(4, _MOST_BYTES // size)
            )
        else:
            recorder.rate(full_name, operation, "1/s", most=200_000)
    partner.close()


def _many_to_many(context: Any, recorder: Recorder, name: str) -> None:
    queue = getattr(context, name)()
    for n_each in (2, 4):
        producers = [Partner(context, queue=queue) for _ in range(n_each)]
        consumers = [Partner(context, queue=queue) for _ in range(n_each)]
        kinds: tuple[Kind, ...] = ("int", KIB)
        for kind in kinds:

            def operation(
                n: int, kind: Kind = kind, producers: Any = producers, consumers: Any = consumers
            ) -> None:
                for consumer in consumers:
                    consumer.begin("get", "queue", n)
                for producer in producers:
                    producer.begin("put", "queue", n, kind)
                for partner in producers + consumers:
                    partner.join()

            full_name = f"{name.lower()}.{n_each}to{n_each}.{name_of(kind)}"
            recorder.rate(full_name, operation, "1/s", n_each, most=50_000)
        for partner in producers + consumers:
            partner.close()


@group("queue.lat")
def queue_latency(context: Any, recorder: Recorder) -> None:
    """There and back."""
    for queue in _latency(context, recorder, "Queue"):
        queue.close()
        queue.join_thread()


@group("queue.rate")
def queue_rate(context: Any, recorder: Recorder) -> None:
    """Many in one direction."""
    _one_to_one(context, recorder, "Queue")
    _many_to_many(context, recorder, "Queue")


@group("simplequeue.lat")
def simple_queue_latency(context: Any, recorder: Recorder) -> None:
    """There and back."""
    _latency(context, recorder, "SimpleQueue")


@group("simplequeue.rate")
def simple_queue_rate(context: Any, recorder: Recorder) -> None:
    """Many in one direction."""
    _one_to_one(context, recorder, "SimpleQueue")
    _many_to_many(context, recorder, "SimpleQueue")


@group("joinablequeue")
def joinable_queue(context: Any, recorder: Recorder) -> None:
    """In one process."""
    queue = context.JoinableQueue()

    def operation(n: int) -> None:
        for _ in range(n):
            queue.put(1)
            queue.get()
            queue.task_done()
        queue.join()

    recorder.time_us("joinablequeue.put_get_done.sameproc", operation)


@group("queue.same")
def queue_in_one_process(context: Any, recorder: Recorder) -> None:
    """Put and get of an int by one process."""
    queue = context.SimpleQueue()

    def operation(n: int) -> None:
        put, get = queue.put, queue.get
        for _ in range(n):
            put(7)
            get()

    recorder.time_us("simplequeue.put_get.sameproc", operation)
