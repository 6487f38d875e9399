"""`dragon.mpbridge`: the classes of start method "dragon" by the names that programs know."""

import importlib
import inspect
import multiprocessing
from multiprocessing.context import BaseContext
from typing import Any

import pytest

#: Module -> names of its classes in the standard library, with what their constructors need.
CLASSES: dict[str, dict[str, tuple[Any, ...]]] = {
    "queues": {"Queue": (), "JoinableQueue": (), "SimpleQueue": ()},
    "synchronize": {
        "Lock": (),
        "RLock": (),
        "Semaphore": (2,),
        "BoundedSemaphore": (2,),
        "Condition": (),
        "Event": (),
        "Barrier": (2,),
    },
    "pool": {"Pool": (1,)},
}
ALL = [(module, name) for module, names in CLASSES.items() for name in names]


def pair(module: str, name: str) -> tuple[Any, Any]:
    """The standard library's class and ours. Without effects of `import dragon` on this process."""
    stock = importlib.import_module(f"multiprocessing.{module}")
    home = {"pool": "pool.dragon_pool"}.get(module, module)
    ours = importlib.import_module(f"dragon_overlay.{home}")
    return getattr(stock, name), getattr(ours, f"Dragon{name}", None) or getattr(ours, name)


@pytest.mark.parametrize(("module", "name"), ALL)
def test_objects_of_the_context_are_instances_of_our_class_and_the_librarys(
    dragon: BaseContext, module: str, name: str
) -> None:
    stock, ours = pair(module, name)
    made = getattr(dragon, name)(*CLASSES[module][name])
    assert isinstance(made, ours)
    assert isinstance(made, stock)
    assert issubclass(ours, stock)
    of_spawn = getattr(multiprocessing.get_context("spawn"), name)
    if name != "Pool":  # whose workers would be started
        assert not isinstance(of_spawn(*CLASSES[module][name]), ours)
    else:
        made.terminate()


@pytest.mark.parametrize(("module", "name"), ALL)
def test_signatures_are_the_librarys_but_that_ctx_may_be_left_out(module: str, name: str) -> None:
    stock, ours = pair(module, name)
    expected = inspect.signature(stock).parameters.values()
    found = without_extensions(inspect.signature(ours), inspect.signature(stock))
    assert [(p.name, p.kind) for p in found] == [(p.name, p.kind) for p in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.default == (None if theirs.name == "ctx" else theirs.default)


def without_extensions(ours: inspect.Signature, stock: inspect.Signature) -> list[Any]:
    """The parameters, without keywords that only ours knows and that can be left out."""
    return [
        p
        for p in ours.parameters.values()
        if p.name in stock.parameters or p.kind != p.KEYWORD_ONLY or p.default is p.empty
    ]


METHODS = ["put", "get", "qsize", "acquire", "release", "wait", "notify", "set", "clear", "reset"]
METHODS += ["put_nowait", "get_nowait", "close", "join", "task_done", "wait_for", "map", "apply"]


@pytest.mark.parametrize(("module", "name"), ALL)
def test_methods_take_the_arguments_of_the_librarys(module: str, name: str) -> None:
    stock, ours = pair(module, name)
    for method in METHODS:
        if callable(getattr(stock, method, None)):
            try:
                found = inspect.signature(getattr(ours, method))
            except ValueError:  # a method of a C type that has no signature
                pytest.fail(f"{name}.{method} tells no signature")
            expected = inspect.signature(getattr(stock, method))
            names = [p.name for p in without_extensions(found, expected)]
            assert names == list(expected.parameters), method


def test_each_class_has_the_name_that_programs_know(run: Any) -> None:
    text = """
import dragon.mpbridge.context, dragon.mpbridge.process, dragon.mpbridge.pool
import dragon.mpbridge.queues, dragon.mpbridge.synchronize
import multiprocessing
if __name__ == "__main__":
    context = multiprocessing.get_context("dragon")
    bridge = dragon.mpbridge
    assert isinstance(context, bridge.context.DragonContext)
    assert isinstance(context.Process(), bridge.process.DragonProcess)
    assert isinstance(context.Process(), multiprocessing.process.BaseProcess)
    with context.Pool(1) as pool:
        assert isinstance(pool, bridge.pool.DragonPool)
    arguments = {"Barrier": (2,)}
    for module in [bridge.queues, bridge.synchronize]:
        for name in module.__all__:
            stock = name.removeprefix("Dragon")
            made = getattr(context, stock)(*arguments.get(stock, ()))
            assert type(made) is getattr(module, name), name
            print(stock)
"""
    done = run(text)
    assert (done.status, done.stderr) == (0, "")
    assert sorted(done.stdout.split()) == sorted([*CLASSES["queues"], *CLASSES["synchronize"]])


def test_our_classes_can_be_subclassed_by_these_names(run: Any) -> None:
    text = """
import dragon, multiprocessing
from dragon.mpbridge.queues import DragonQueue
from dragon.mpbridge.process import DragonProcess
class Labelled(DragonQueue):
    def __init__(self, label):
        super().__init__(3)
        self.label = label
class Worker(DragonProcess):
    def __init__(self, q):
        super().__init__()
        self.q = q
    def run(self):
        self.q.put((self.q.label, self.name))
if __name__ == "__main__":
    multiprocessing.set_start_method("dragon")
    q = Labelled("label")
    worker = Worker(q)
    worker.start()
    print(*q.get())
    worker.join()
"""
    done = run(text)
    assert (done.stdout, done.stderr, done.status) == ("label Worker-1\n", "", 0)


SHARED = """
import ctypes, inspect, multiprocessing
import multiprocessing.sharedctypes as stock
from dragon.mpbridge import sharedctypes as ours
from dragon.mpbridge.heap import DragonArena
names = ["Value", "Array", "RawValue", "RawArray"]
arguments = {"Value": ("i", 1), "RawValue": ("i", 1), "Array": ("i", 3), "RawArray": ("i", 3)}
def made_by(context):
    return {name: getattr(context, name)(*arguments[name]) for name in names}
def kinds(made):
    return [name for name in names if isinstance(made, getattr(ours, "Dragon" + name))]
def child(arena, value):
    arena.buffer[0] = 7
    value.value += 1
if __name__ == "__main__":
    context = multiprocessing.get_context("dragon")
    for name, made in made_by(context).items():
        assert kinds(made) == [name], name
        own = getattr(ours, "Dragon" + name)
        assert kinds(own(*arguments[name])) == [name]
        parameters = inspect.signature(getattr(stock, name)).parameters
        assert list(inspect.signature(own).parameters) == list(parameters), name
    for made in made_by(multiprocessing.get_context("spawn")).values():
        assert kinds(made) == []
    assert kinds(ctypes.c_int()) == kinds(5) == []
    assert isinstance(context.Value("i"), ours.DragonSynchronized)
    assert isinstance(context.Array("c", 3), ours.DragonSynchronizedString)
    assert isinstance(context.Value("i"), stock.Synchronized)
    arena, value = DragonArena(4096), ours.DragonValue("i", 1)
    assert isinstance(arena, multiprocessing.heap.Arena)
    p = context.Process(target=child, args=(arena, value))
    p.start()
    p.join()
    print(arena.buffer[0], value.value)
"""


def test_values_arrays_and_arenas_have_their_names(run: Any) -> None:
    done = run(SHARED)
    assert (done.stdout, done.stderr, done.status) == ("7 2\n", "", 0)
