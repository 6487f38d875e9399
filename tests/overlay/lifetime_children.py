"""What the other processes do in test_lifetimes.py. Imports no pytest, so that they start fast."""

from __future__ import annotations

import multiprocessing
import os
import time
from multiprocessing.context import BaseContext
from typing import Any

#: Every kind of object that is counted, by the context's function that makes it.
KINDS = {
    "Queue": (),
    "JoinableQueue": (),
    "SimpleQueue": (),
    "Lock": (),
    "RLock": (),
    "Semaphore": (2,),
    "BoundedSemaphore": (2,),
    "Event": (),
    "Condition": (),
    "Barrier": (1,),
    "Value": ("i", 5),
    "RawValue": ("i", 5),
    "Array": ("d", [5.0, 6.0]),
    "RawArray": ("d", [5.0, 6.0]),
}


def make(ctx: BaseContext, kind: str) -> Any:
    """A new object."""
    return getattr(ctx, kind)(*KINDS[kind])


def use(thing: Any) -> None:
    """Do something with an object of any kind that needs its memory."""
    if hasattr(thing, "put"):
        thing.put(["x"])
        assert thing.get() == ["x"]
    elif hasattr(thing, "acquire") and not hasattr(thing, "get_obj"):
        assert thing.acquire(False)
        thing.release()
    elif hasattr(thing, "set"):
        thing.set()
        assert thing.is_set()
    elif hasattr(thing, "wait"):
        assert thing.wait(10) == 0
    elif hasattr(thing, "value"):
        assert thing.value == 5
    else:
        assert list(thing) == [5, 6]


def hold(ready: Any, *things: Any) -> None:
    """Use what came in the arguments, and stay."""
    for thing in things:
        use(thing)
    ready.put(os.getpid())
    time.sleep(60)


def make_and_hold(ready: Any, kind: str) -> None:
    thing = make(multiprocessing.get_context("dragon"), kind)
    hold(ready, thing)


def receive_and_hold(ready: Any, inbox: Any) -> None:
    thing = inbox.get()
    hold(ready, thing)


def make_send_and_hold(ready: Any, outbox: Any, kind: str) -> None:
    """Send an object that this process has made, and forget it."""
    outbox.put(make(multiprocessing.get_context("dragon"), kind))
    hold(ready)


def send_arrays_with(ready: Any, outbox: Any, array: Any, thing: Any) -> None:
    outbox.put([array, thing])
    hold(ready)


def start_and_hold(ready: Any, thing: Any) -> None:
    """Start a process that holds the object, which outlives this one."""
    child = multiprocessing.get_context("dragon").Process(target=hold, args=(ready, thing))
    child.start()
    hold(ready)


def hold_in_pool(ready: Any, thing: Any) -> None:
    hold(ready, thing)


def keep_getting(inbox: Any) -> None:
    for thing in iter(inbox.get, None):
        use(thing)
