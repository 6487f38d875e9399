"""The standard library's classes after a program's own `import dragon`.

Constructed with a stock context they are what they were, with that of "dragon" they are ours; so
are a program's subclasses.
"""

from collections.abc import Callable

import pytest
from overlay_support import Outcome

Run = Callable[..., Outcome]

#: How all programs here begin.
HEAD = """
import dragon
import multiprocessing as mp
"""

#: Class -> module and the arguments it needs.
CLASSES = {
    "Queue": ("queues", ""),
    "JoinableQueue": ("queues", ""),
    "SimpleQueue": ("queues", ""),
    "Lock": ("synchronize", ""),
    "RLock": ("synchronize", ""),
    "Semaphore": ("synchronize", "3"),
    "BoundedSemaphore": ("synchronize", "3"),
    "Condition": ("synchronize", ""),
    "Event": ("synchronize", ""),
    "Barrier": ("synchronize", "2, None, 7.5"),
}


def output(done: Outcome) -> str:
    """What a program printed, if it ended well and printed no error."""
    assert (done.status, done.stderr) == (0, "")
    return done.stdout.strip()


# ---- programs as they are documented ----


def test_a_subclass_of_queue_is_made_under_dragon_and_then_under_spawn(run: Run) -> None:
    text = """
class Foo(mp.queues.Queue):
    pass

def child(q):
    q.put(("from the child", mp.get_start_method()))

if __name__ == "__main__":
    for method in ["dragon", "spawn"]:
        mp.set_start_method(method)
        q = Foo()
        p = mp.Process(target=child, args=(q,))
        p.start()
        print(*q.get(), isinstance(q, Foo), isinstance(q, mp.queues.Queue))
        p.join()
        q.close()
"""
    assert output(run(HEAD + text)).splitlines() == [
        "from the child dragon True True",
        "from the child spawn True True",
    ]


def test_a_class_takes_its_queue_from_the_current_context(run: Run) -> None:
    text = """
class Foo:
    def __init__(self):
        self.queue = mp.get_context().Queue()

def child(foo):
    foo.queue.put(type(foo.queue).__module__)

if __name__ == "__main__":
    for method in ["dragon", "spawn"]:
        mp.set_start_method(method)
        foo = Foo()
        p = mp.Process(target=child, args=(foo,))
        p.start()
        print(foo.queue.get())
        p.join()
"""
    assert output(run(HEAD + text)).split() == ["dragon_overlay.queues", "multiprocessing.queues"]


def test_a_subclass_that_passes_the_current_context_works_for_both(run: Run) -> None:
    text = """
class Foo(mp.queues.JoinableQueue):
    def __init__(self, label, *args, **kwargs):
        super().__init__(*args, ctx=mp.get_context(), **kwargs)
        self.label = label
    def put(self, item, *args, **kwargs):
        super().put((self.label if hasattr(self, "label") else "no label", item), *args, **kwargs)

def child(q):
    print(q.get())
    q.task_done()

if __name__ == "__main__":
    for method in ["dragon", "spawn"]:
        mp.set_start_method(method)
        q = Foo("label", maxsize=3)
        q.put(method)
        p = mp.Process(target=child, args=(q,))
        p.start()
        q.join()
        p.join()
        print(type(q).__name__, q._maxsize, q.empty(), p.exitcode)
"""
    assert output(run(HEAD + text)).splitlines() == [
        "('label', 'dragon')",
        "Foo 3 True 0",
        "('label', 'spawn')",
        "Foo 3 True 0",
    ]


def test_the_context_of_dragon_alone_is_enough_whatever_the_method_is(run: Run) -> None:
    text = """
import sys
class Foo(mp.queues.Queue):
    def __init__(self):
        super().__init__(ctx=mp.get_context("dragon"))

def child(q, lock, n):
    with lock, n.get_lock():
        q.put(n.value)

if __name__ == "__main__":
    if sys.argv[1] != "None":
        mp.set_start_method(sys.argv[1])
    context = mp.get_context("dragon")
    q, lock = Foo(), mp.synchronize.Lock(ctx=context)
    p = context.Process(target=child, args=(q, lock, context.Value("i", 5)))
    p.start()
    print(q.get(), type(lock).__module__)
    p.join()
"""
    for method in ["None", "spawn", "fork"]:
        assert output(run(HEAD + text, method)) == "5 dragon_overlay.synchronize"


# ---- each class ----


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_of_the_library_looks_at_its_context(run: Run, name: str) -> None:
    module, arguments = CLASSES[name]
    text = f"""
stock = mp.{module}.{name}
spawn, ours = mp.get_context("spawn"), mp.get_context("dragon")
made = stock({arguments + "," if arguments else ""} ctx=spawn)
print(type(made) is stock, type(spawn.{name}({arguments or ("2" * (name == "Barrier"))})) is stock)
made = stock({arguments + "," if arguments else ""} ctx=ours)
print(type(made).__module__, type(made).__name__, isinstance(made, stock))
for method in ["spawn", "dragon"]:
    mp.set_start_method(method, force=True)
    made = stock({arguments})
    print(type(made).__module__)
"""
    assert output(run(HEAD + text)).splitlines() == [
        "True True",
        f"dragon_overlay.{module} {name} True",
        f"multiprocessing.{module}",
        f"dragon_overlay.{module}",
    ]


@pytest.mark.parametrize("name", CLASSES)
def test_a_subclass_takes_the_context_that_its_init_passes_on(run: Run, name: str) -> None:
    module, arguments = CLASSES[name]
    text = f"""
stock = mp.{module}.{name}
class Sub(stock):
    def __init__(self, *args, how, style):
        if style == "super":
            super().__init__(*args, ctx=mp.get_context(how))
        else:
            stock.__init__(self, *args, ctx=mp.get_context(how))
        self.note = how
def child(made):
    print(isinstance(made, ours), type(made).__name__)
    if hasattr(made, "put"):
        made.put("put")
    elif hasattr(made, "acquire"):
        with made:
            pass
if __name__ == "__main__":
    ours = __import__("dragon_overlay.{module}", fromlist=["x"]).{name}
    for style in ["super", "explicit"]:
        for method in ["spawn", "dragon"]:  # the current one
            mp.set_start_method(method, force=True)
            for how in ["spawn", "dragon"]:
                made = Sub({arguments + "," if arguments else ""} how=how, style=style)
                assert isinstance(made, Sub) and isinstance(made, stock)
                assert isinstance(made, ours) == (how == "dragon"), (style, method, how)
                assert made.note == how
                if style == "super" and method == "dragon":
                    context = mp.get_context(how)
                    p = context.Process(target=child, args=(made,))
                    p.start()
                    if hasattr(made, "put"):
                        print(made.get())
                    p.join()
                    assert p.exitcode == 0
else:
    ours = __import__("dragon_overlay.{module}", fromlist=["x"]).{name}
"""
    lines = output(run(HEAD + text)).splitlines()
    assert [line for line in lines if line != "put"] == ["False Sub", "True Sub"]


def test_stock_objects_and_subclasses_go_to_spawned_processes_as_they_are(run: Run) -> None:
    text = """
class Foo(mp.queues.Queue):
    pass

def child(q, lock, foo):
    print(type(q) is mp.queues.Queue, type(lock) is mp.synchronize.Lock, type(foo) is Foo)

if __name__ == "__main__":
    context = mp.get_context("spawn")
    q, lock, foo = context.Queue(), context.Lock(), Foo(ctx=context)
    print(type(foo) is Foo)
    p = context.Process(target=child, args=(q, lock, foo))
    p.start()
    p.join()
    print(p.exitcode)
"""
    assert output(run(HEAD + text)).splitlines() == ["True", "True True True", "0"]


@pytest.mark.parametrize("name", [*CLASSES, "Pool"])
def test_signatures_stay_those_of_the_library(run: Run, name: str) -> None:
    module = CLASSES.get(name, ("pool",))[0]
    text = f"""
import inspect, sys
if sys.argv[1] == "import":
    import dragon
import multiprocessing.{module}
print(inspect.signature(multiprocessing.{module}.{name}))
"""
    assert output(run(text, "import")) == output(run(text, "none"))


def test_the_classes_are_untouched_without_the_import(run: Run) -> None:
    text = """
import multiprocessing.queues, multiprocessing.synchronize, multiprocessing.pool
import concurrent.futures.process
context = multiprocessing.get_context("dragon")
for module in [multiprocessing.queues, multiprocessing.synchronize]:
    for cls in vars(module).values():
        if isinstance(cls, type) and cls.__module__ == module.__name__:
            assert "__new__" not in vars(cls), cls
print(type(multiprocessing.queues.Queue(ctx=context)) is multiprocessing.queues.Queue)
try:
    multiprocessing.queues.Queue()
except TypeError as error:
    print(error)
try:
    multiprocessing.nonsense
except AttributeError as error:
    print(error)
"""
    assert output(run(text)).splitlines() == [
        "True",
        "Queue.__init__() missing 1 required keyword-only argument: 'ctx'",
        "module 'multiprocessing' has no attribute 'nonsense'",
    ]


# ---- names ----


def test_names_that_were_bound_before_the_import_are_the_same_classes(run: Run) -> None:
    text = """
from multiprocessing.queues import Queue
from multiprocessing.pool import Pool
class Foo(Queue):
    pass
import dragon, multiprocessing
context = multiprocessing.get_context("dragon")
print(Queue is multiprocessing.queues.Queue, Pool is multiprocessing.pool.Pool)
print(type(Queue(ctx=context)).__module__, isinstance(Foo(ctx=context), type(context.Queue())))
"""
    assert output(run(text)).splitlines() == ["True True", "dragon_overlay.queues True"]


def test_modules_of_multiprocessing_can_be_named_without_an_import(run: Run) -> None:
    names = ["queues", "synchronize", "pool", "connection", "managers", "sharedctypes", "heap"]
    text = f"""
for name in {names}:
    print(getattr(mp, name).__name__.rpartition(".")[2])
print(hasattr(mp, "nonsense"))
try:
    mp.nonsense
except AttributeError as error:
    print(error)
"""
    assert output(run(HEAD + text)).splitlines() == [
        *names,
        "False",
        "module 'multiprocessing' has no attribute 'nonsense'",
    ]


# ---- what subclasses may do ----


def test_a_recipe_that_adds_to_the_state_of_a_queue_keeps_it(run: Run) -> None:
    text = """
class Counting(mp.queues.Queue):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, ctx=mp.get_context(), **kwargs)
        self.count = mp.Value("i", 0)
    def __getstate__(self):
        return {"parent": super().__getstate__(), "count": self.count}
    def __setstate__(self, state):
        super().__setstate__(state["parent"])
        self.count = state["count"]
    def put(self, *args, **kwargs):
        with self.count.get_lock():
            self.count.value += 1
        super().put(*args, **kwargs)
    def qsize(self):
        return self.count.value

def child(q):
    q.put(q.qsize())

if __name__ == "__main__":
    for method in ["dragon", "spawn"]:
        mp.set_start_method(method)
        q = Counting()
        q.put("first")
        p = mp.Process(target=child, args=(q,))
        p.start()
        print(q.get(), q.get(), q.qsize())
        p.join()
"""
    assert output(run(HEAD + text)).splitlines() == ["first 1 2"] * 2


def test_attributes_that_the_library_leaves_behind_are_left_behind(run: Run) -> None:
    text = """
import threading
class Foo(mp.queues.Queue):
    def __init__(self):
        super().__init__(5, ctx=mp.get_context())
        self.cannot_be_pickled = threading.Lock()

def child(q):
    q.put((q._maxsize, hasattr(q, "cannot_be_pickled")))

if __name__ == "__main__":
    for method in ["dragon", "spawn"]:
        mp.set_start_method(method)
        q = Foo()
        p = mp.Process(target=child, args=(q,))
        p.start()
        print(q.get())
        p.join()
"""
    assert output(run(HEAD + text)).splitlines() == ["(5, False)"] * 2


def test_a_hook_of_the_subclass_is_told_of_pickling_errors(run: Run) -> None:
    text = """
class Foo(mp.queues.Queue):
    def _on_queue_feeder_error(self, error, obj):
        self.told = type(error).__name__
mp.set_start_method("dragon")
q = Foo()
q.put(lambda: 1)
q.put("next")
print(q.told, q.get())
"""
    assert output(run(HEAD + text)) in ("PicklingError next", "AttributeError next")


def test_making_the_class_for_dragon_is_no_subclassing_of_the_programs(run: Run) -> None:
    text = """
seen = []
class Foo(mp.queues.Queue):
    def __init_subclass__(cls):
        seen.append(cls)
class Bar(Foo):
    pass
for method in ["dragon", "spawn"]:
    mp.set_start_method(method, force=True)
    Foo(), Bar(), Bar(ctx=mp.get_context("dragon"))
print(seen)
"""
    assert output(run(HEAD + text)) == "[<class '__main__.Bar'>]"


@pytest.mark.parametrize(
    "first_line",
    [
        "class Foo(mp.queues.Queue, metaclass=type('Meta', (type,), {})):",
        "class Foo(type('Slots', (), {'__slots__': ('a', 'b')}), mp.queues.Queue):",
    ],
)
def test_a_class_that_cannot_have_a_variant_is_the_librarys_with_our_locks(
    run: Run, first_line: str
) -> None:
    text = f"""
{first_line}
    pass
def child(q):
    q.put(type(q._rlock).__module__)
if __name__ == "__main__":
    mp.set_start_method("dragon")
    q = Foo()
    p = mp.Process(target=child, args=(q,))
    p.start()
    print(q.get(), type(q) is Foo)
    p.join()
"""
    assert output(run(HEAD + text)) == "dragon_overlay.synchronize True"


def test_a_subclass_of_a_subclass_and_of_our_class_work(run: Run) -> None:
    text = """
class Foo(mp.queues.Queue):
    def __init__(self, label, **kwargs):
        super().__init__(**kwargs)
        self.label = label
class Bar(Foo):
    def __init__(self):
        super().__init__("bar")
mp.set_start_method("dragon")
class Baz(type(mp.get_context().Queue())):
    pass
class Qux(type(Bar())):
    pass
for made in [Bar(), Baz(), Baz(ctx=mp), Qux()]:
    made.put(1)
    print(made.get(), type(made).__name__, getattr(made, "label", None))
"""
    assert output(run(HEAD + text)).splitlines() == [
        "1 Bar bar",
        "1 Baz None",
        "1 Baz None",
        "1 Qux bar",
    ]


def test_a_subclass_that_cannot_be_imported_goes_by_value(run: Run) -> None:
    pytest.importorskip("cloudpickle")
    text = """
mp.set_start_method("dragon")
class Foo(mp.queues.Queue):
    def put_twice(self, obj):
        self.put(obj)
        self.put(obj)
q = Foo()
def child(q):
    q.put_twice(q._maxsize)
p = mp.Process(target=child, args=(q,))
p.start()
print(q.get(), q.get())
p.join()
"""
    assert output(run("", options=["-c", HEAD + text])) == "0 0"


# ---- pools and executors ----


@pytest.mark.parametrize("head", ["import dragon", ""], ids=["import", "none"])
def test_pools_look_at_their_context_with_and_without_the_import(run: Run, head: str) -> None:
    text = """
import multiprocessing as mp, multiprocessing.pool

class MyPool(mp.pool.Pool):
    def __init__(self, n):
        super().__init__(n, context=mp.get_context("dragon"))

class Own(mp.pool.Pool):
    @staticmethod
    def Process(ctx, *args, **kwargs):
        return ctx.Process(*args, **kwargs)

if __name__ == "__main__":
    context = mp.get_context("dragon")
    for make in [
        lambda: mp.pool.Pool(1, context=context),
        lambda: MyPool(1),
        lambda: Own(1, context=context),
        lambda: mp.pool.Pool(1, None, (), None, mp.get_context("spawn")),
        lambda: mp.pool.ThreadPool(1),
    ]:
        with make() as pool:
            ours = any(base.__name__ == "DragonPool" for base in type(pool).__mro__)
            print(type(pool).__name__, ours, pool.map(abs, [-1, -2]))
    mp.set_start_method("dragon", force=True)  # a ThreadPool has chosen the default method
    with mp.pool.Pool(1) as pool, mp.pool.ThreadPool(1) as threads:
        print(type(pool).__name__, type(threads).__name__, threads.map(abs, [-3]))
"""
    assert output(run(head + text)).splitlines() == [
        "DragonPool True [1, 2]",
        "MyPool True [1, 2]",
        "Own False [1, 2]",
        "Pool False [1, 2]",
        "ThreadPool False [1, 2]",
        "DragonPool ThreadPool [3]",
    ]


@pytest.mark.parametrize("head", ["", "import dragon"])
def test_the_queue_of_an_executor_is_ours_if_its_context_is(run: Run, head: str) -> None:
    text = """
import concurrent.futures, multiprocessing, sys
def fail():
    raise LookupError("in the worker")
if __name__ == "__main__":
    for method in ["dragon", "spawn"]:
        context = multiprocessing.get_context(method)
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as executor:
            mro = [cls.__module__ for cls in type(executor._call_queue).__mro__]
            cannot = executor.submit(abs, sys.stdout)
            print("dragon_overlay.queues" in mro, executor.submit(abs, -1).result())
            print(type(cannot.exception()).__name__, type(executor.submit(fail).exception()))
"""
    assert output(run(head + text)).splitlines() == [
        "True 1",
        "TypeError <class 'LookupError'>",
        "False 1",
        "TypeError <class 'LookupError'>",
    ]
